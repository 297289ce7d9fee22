"""Nothing is stopped while a request may be in it."""

from autoscaler.instances.remove import LEAST_GRACE_SECONDS
from knoll.values import kinds
from tests.component.autoscaler.conftest import QUICK, Activator, AutoscalerHarness
from tests.waiting import eventually


async def draining(harness: AutoscalerHarness, key: str) -> str:
    """Wait until the only endpoint drains; returns its instance."""

    async def does() -> str:
        endpoints = await harness.published(key)
        assert [endpoint.state for endpoint in endpoints] == ["draining"], endpoints
        return endpoints[0].id

    return await eventually(does, condition="it drains")


async def test_a_drain_waits_for_every_activators_acknowledgement(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    key = await harness.apply(annotations=QUICK)
    await eventually(lambda: key in activator.entries, condition="the activator knows it")
    activator.follows.clear()
    name = await draining(harness, key)
    other = await harness.apply("other-00001")
    await harness.has_status(other, initial_reached=True)
    assert name in harness.engine.instances
    activator.follows.set()
    await eventually(lambda: name not in harness.engine.instances, condition="it is stopped")
    await harness.ready(key, 0)


async def test_a_drain_waits_for_the_requests_in_flight(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations=QUICK)
    (endpoint,) = await harness.ready(key)
    activator.in_flight[endpoint.id] = 2
    await draining(harness, key)
    other = await harness.apply("other-00001")
    await harness.has_status(other, initial_reached=True)
    assert endpoint.id in harness.engine.instances
    activator.in_flight[endpoint.id] = 0
    await eventually(lambda: endpoint.id not in harness.engine.instances, condition="it is stopped")


async def test_a_drain_ends_with_the_grace(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations=QUICK, spec={"timeoutSeconds": 1})
    (endpoint,) = await harness.ready(key)
    activator.in_flight[endpoint.id] = 1
    await eventually(lambda: endpoint.id not in harness.engine.instances, condition="it is stopped")
    await harness.ready(key, 0)


async def test_websockets_get_a_quiet_time_before_the_app_gets_sigterm(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    harness.quiet_seconds = 0.3
    await harness.start()
    key = await harness.apply(annotations=QUICK, spec={"timeoutSeconds": 600})
    (endpoint,) = await harness.ready(key)
    activator.tunnels[endpoint.id] = 3
    await eventually(
        lambda: endpoint.id not in harness.engine.instances, condition="it is stopped long before its grace is over"
    )
    await harness.ready(key, 0)


async def test_a_websocket_that_ends_by_itself_ends_the_quiet_time(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    harness.quiet_seconds = 3600
    await harness.start()
    key = await harness.apply(annotations=QUICK, spec={"timeoutSeconds": 600})
    (endpoint,) = await harness.ready(key)
    activator.tunnels[endpoint.id] = 1
    await draining(harness, key)
    other = await harness.apply("other-00001")
    await harness.has_status(other, initial_reached=True)
    assert endpoint.id in harness.engine.instances
    activator.tunnels.clear()
    await eventually(lambda: endpoint.id not in harness.engine.instances, condition="it is stopped")


async def test_the_quiet_time_leaves_the_app_half_of_its_grace(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    harness.quiet_seconds = 3600
    await harness.start()
    key = await harness.apply(annotations=QUICK, spec={"timeoutSeconds": 10})
    (endpoint,) = await harness.ready(key)
    activator.tunnels[endpoint.id] = 1
    await eventually(lambda: endpoint.id not in harness.engine.instances, within=60, condition="it is stopped")
    assert LEAST_GRACE_SECONDS < harness.engine.graces[endpoint.id] <= 5


async def test_a_request_is_waited_for_beyond_the_quiet_time(harness: AutoscalerHarness, activator: Activator) -> None:
    harness.quiet_seconds = 0.1
    await harness.start()
    key = await harness.apply(annotations=QUICK)
    (endpoint,) = await harness.ready(key)
    activator.in_flight[endpoint.id] = activator.tunnels[endpoint.id] = 1
    await draining(harness, key)
    other = await harness.apply("other-00001", annotations=QUICK)
    await harness.has_status(other, initial_reached=True)
    await harness.has_status(other, actual=0)
    assert endpoint.id in harness.engine.instances
    activator.in_flight.clear()
    await eventually(lambda: endpoint.id not in harness.engine.instances, condition="it is stopped")


async def test_the_next_autoscaler_continues_a_drain(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations=QUICK)
    (endpoint,) = await harness.ready(key)
    await harness.has_status(key, initial_reached=True)
    activator.in_flight[endpoint.id] = 1
    await draining(harness, key)
    await harness.stop()
    await harness.start()
    assert await draining(harness, key) == endpoint.id
    other = await harness.apply("other-00001")
    await harness.has_status(other, initial_reached=True)
    assert endpoint.id in harness.engine.instances
    activator.in_flight[endpoint.id] = 0
    await eventually(lambda: endpoint.id not in harness.engine.instances, condition="it is stopped")


async def test_without_any_activator_nothing_is_waited_for(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    await harness.ready(key)
    await harness.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await harness.gone()


async def test_the_instance_with_fewer_requests_is_released(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply(annotations={**QUICK, "autoscaling.knative.dev/min-scale": "2"})
    both = await harness.ready(key, 2)
    youngest = max(both, key=lambda program: harness.engine.instances[program.id].created)
    revision = await harness.store.get(kinds.REVISION.id, "default", "hello-00001")
    revision["metadata"]["annotations"] = QUICK
    await harness.report(key, 3.0, held={youngest.id: 3})
    await harness.store.update(kinds.REVISION.id, revision)

    async def one_is_left() -> bool:
        await harness.report(key, 3.0, held={youngest.id: 3})
        return [endpoint.id for endpoint in await harness.published(key)] == [youngest.id]

    await eventually(one_is_left, condition="the busy one is kept")
