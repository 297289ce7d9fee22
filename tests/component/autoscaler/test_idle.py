"""The idle policy on a real Redis: idle instances wake in place, do not count, and step down in time."""

from typing import Any

from autoscaler.decision.capacity import Machine
from autoscaler.instances.transitions import LifecycleState
from knoll.messages.instances import InstanceRow
from knoll.values import kinds
from tests.component.autoscaler.conftest import QUICK, Activator, AutoscalerHarness
from tests.doubles.fake_runtime import FakeRuntime
from tests.waiting import eventually

PAUSED, STOPPED = "knoll.dev/paused-retention-period", "knoll.dev/stopped-retention-period"
LONG = {**QUICK, PAUSED: "1h"}


async def row(harness: AutoscalerHarness, key: str, stage: str) -> InstanceRow:
    """Wait until the only instance that is shown is in a stage."""

    async def shown() -> InstanceRow:
        _, entries = await harness.instances.snapshot()
        assert key in entries
        (instance,) = entries[key][1].instances
        assert instance.stage == stage, instance
        return instance

    return await eventually(shown, condition=f"an instance that is {stage}")


async def state(harness: AutoscalerHarness, expected: str) -> str:
    """Wait until the engine's only instance is in a state; returns its name."""

    def is_so() -> str:
        assert [instance.state() for instance in harness.engine.instances.values()] == [expected]
        (name,) = harness.engine.instances
        return name

    return await eventually(is_so, condition=f"an instance that is {expected}")


async def test_an_idle_instance_is_paused_counts_as_none_and_wakes_in_place(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    key = await harness.apply(annotations=LONG)
    (first,) = await harness.ready(key)
    paused = await row(harness, key, "paused")
    assert (paused.name, paused.memory_bytes) == (first.id, harness.engine.memory_of_each)
    assert paused.since > 0
    assert not any(container.ready for container in paused.containers)
    await harness.ready(key, 0)
    await harness.has_status(key, desired=0, actual=0, active="False", active_reason="NoTraffic")
    assert await state(harness, "paused") == first.id
    await harness.poke(key)
    (again,) = await harness.ready(key)
    assert again.id == first.id
    assert again.timing is not None
    assert first.timing is not None
    assert again.timing.requested > first.timing.ready
    assert await state(harness, "running") == first.id


async def test_an_instance_with_an_open_websocket_ends_instead_of_being_frozen(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    harness.quiet_seconds = 0.3
    await harness.start()
    key = await harness.apply(annotations=LONG)
    (endpoint,) = await harness.ready(key)
    activator.tunnels[endpoint.id] = 1
    await harness.gone()
    assert harness.engine.graces[endpoint.id] > 200, "of 300"
    await harness.ready(key, 0)


async def test_from_paused_it_is_stopped_and_then_removed(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations={**QUICK, PAUSED: "500ms", STOPPED: "1s"})
    await harness.ready(key)
    await state(harness, "paused")
    await state(harness, "exited")
    stopped = await row(harness, key, "stopped")
    assert stopped.memory_bytes == 0
    await harness.gone()
    await harness.ready(key, 0)


async def test_a_stopped_instance_serves_again_in_its_place(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations={**QUICK, STOPPED: "1h"})
    (first,) = await harness.ready(key)
    await row(harness, key, "stopped")
    await harness.poke(key)
    (again,) = await harness.ready(key)
    assert again == type(again)(first.id, first.host, first.port, "ready", again.timing)


async def test_a_paused_instance_is_adopted_as_such(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations=LONG)
    (first,) = await harness.ready(key)
    before = await row(harness, key, "paused")
    await harness.stop()
    await harness.start()
    assert harness.autoscaler is not None
    (scaler,) = harness.autoscaler.registry.by_uid.values()
    ((name, instance),) = scaler.instances.items()
    assert (name, instance.state, instance.idle_since) == (first.id, LifecycleState.PAUSED, before.since)
    await harness.poke(key)
    assert (await harness.ready(key))[0].id == first.id


async def test_a_stopped_instance_is_adopted_as_such(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations={**QUICK, STOPPED: "1h"})
    (first,) = await harness.ready(key)
    await row(harness, key, "stopped")
    await harness.stop()
    await harness.start()
    await harness.has_status(key, desired=0, actual=0)
    assert await state(harness, "exited") == first.id
    await harness.poke(key)
    assert (await harness.ready(key))[0].id == first.id


async def test_a_frozen_instance_in_service_is_resumed_by_the_next_leader(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    (first,) = await harness.ready(key)
    await harness.stop()
    await FakeRuntime(harness.engine).pause(first.id)
    await harness.start()
    assert await state(harness, "running") == first.id
    assert (await harness.ready(key))[0].id == first.id


async def test_above_the_memory_limit_the_longest_paused_is_stopped_first(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    harness.machine = Machine(paused_memory_fraction=1.5 * harness.engine.memory_of_each / (16 * 1024**3))
    await harness.start()
    first_key = await harness.apply("one-00001", annotations=LONG)
    (first,) = await harness.ready(first_key)
    await row(harness, first_key, "paused")
    two = await harness.apply("two-00001", annotations=LONG)
    (second,) = await harness.ready(two)
    await row(harness, two, "paused")
    await eventually(lambda: set(harness.engine.instances) == {second.id}, condition=f"{first.id} to go")


async def test_a_paused_instance_that_dies_is_removed(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations=LONG)
    (first,) = await harness.ready(key)
    await row(harness, key, "paused")
    harness.engine.kill(first.id)
    await harness.gone()
    await harness.poke(key)
    assert (await harness.ready(key))[0].id != first.id


async def test_an_idle_instance_is_removed_with_its_revision(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations=LONG)
    await harness.ready(key)
    await row(harness, key, "paused")
    await harness.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await harness.gone()


async def test_an_unreachable_revision_keeps_no_idle_instance(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations=LONG)
    await harness.ready(key)
    await row(harness, key, "paused")
    stored = await harness.store.get(kinds.REVISION.id, "default", "hello-00001")
    stored["metadata"]["labels"]["serving.knative.dev/routingState"] = "reserve"
    await harness.store.update(kinds.REVISION.id, stored)
    await harness.gone()


async def test_config_autoscaler_sets_the_idle_policy_of_the_platform(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    config: dict[str, Any] = {"metadata": {"namespace": "knative-serving", "name": "config-autoscaler"}}
    await harness.store.create(kinds.CONFIG_MAP.id, {**config, "data": {"paused-retention-period": "1h"}})
    key = await harness.apply(annotations=QUICK)
    await harness.ready(key)
    await row(harness, key, "paused")
