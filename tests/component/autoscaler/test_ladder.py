"""The idle ladder, on a real Redis: what rests, wakes in place, costs no count, and goes down in time."""

from typing import Any

from autoscaler.decision.capacity import Machine
from knoll.messages.instances import InstanceRow
from knoll.values import kinds
from tests.component.autoscaler.conftest import QUICK, Activator, World
from tests.doubles.fake_runtime import FakeRuntime
from tests.waiting import eventually

PAUSED, STOPPED = "knoll.dev/paused-retention-period", "knoll.dev/stopped-retention-period"
LONG = {**QUICK, PAUSED: "1h"}


async def row(world: World, key: str, stage: str) -> InstanceRow:
    """Wait until the only instance that is shown is in a stage."""

    async def shown() -> InstanceRow:
        _, found = await world.instances.snapshot()
        assert key in found
        (one,) = found[key][1].instances
        assert one.stage == stage, one
        return one

    return await eventually(shown, condition=f"an instance that is {stage}")


async def state(world: World, wanted: str) -> str:
    """Wait until the engine's only instance is in a state; returns its name."""

    def is_so() -> str:
        assert [one.state() for one in world.engine.instances.values()] == [wanted]
        (name,) = world.engine.instances
        return name

    return await eventually(is_so, condition=f"an instance that is {wanted}")


async def test_an_idle_instance_is_paused_counts_as_none_and_wakes_in_place(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply(annotations=LONG)
    (first,) = await world.ready(key)
    paused = await row(world, key, "paused")
    assert (paused.name, paused.memory_bytes) == (first.id, world.engine.memory_of_each)
    assert paused.since > 0
    assert not any(one.ready for one in paused.containers)
    await world.ready(key, 0)
    await world.says(key, desired=0, actual=0, active="False", active_reason="NoTraffic")
    assert await state(world, "paused") == first.id
    await world.poke(key)
    (again,) = await world.ready(key)
    assert again.id == first.id
    assert again.timing is not None
    assert first.timing is not None
    assert again.timing.requested > first.timing.ready
    assert await state(world, "running") == first.id


async def test_an_instance_with_an_open_websocket_ends_instead_of_being_frozen(
    world: World, activator: Activator
) -> None:
    world.quiet_seconds = 0.3
    await world.start()
    key = await world.apply(annotations=LONG)
    (one,) = await world.ready(key)
    activator.tunnels[one.id] = 1
    await world.gone()
    assert world.engine.graces[one.id] > 200, "of 300"
    await world.ready(key, 0)


async def test_from_paused_it_is_stopped_and_then_removed(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply(annotations={**QUICK, PAUSED: "500ms", STOPPED: "1s"})
    await world.ready(key)
    await state(world, "paused")
    await state(world, "exited")
    stopped = await row(world, key, "stopped")
    assert stopped.memory_bytes == 0
    await world.gone()
    await world.ready(key, 0)


async def test_a_stopped_instance_serves_again_in_its_place(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply(annotations={**QUICK, STOPPED: "1h"})
    (first,) = await world.ready(key)
    await row(world, key, "stopped")
    await world.poke(key)
    (again,) = await world.ready(key)
    assert again == type(again)(first.id, first.host, first.port, "ready", again.timing)


async def test_a_paused_instance_is_adopted_as_such(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply(annotations=LONG)
    (first,) = await world.ready(key)
    before = await row(world, key, "paused")
    await world.stop()
    await world.start()
    assert world.autoscaler is not None
    (scaler,) = world.autoscaler.scalers.values()
    ((name, member),) = scaler.members.items()
    assert (name, member.stage, member.since) == (first.id, "paused", before.since)
    await world.poke(key)
    assert (await world.ready(key))[0].id == first.id


async def test_a_stopped_instance_is_adopted_as_such(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply(annotations={**QUICK, STOPPED: "1h"})
    (first,) = await world.ready(key)
    await row(world, key, "stopped")
    await world.stop()
    await world.start()
    await world.says(key, desired=0, actual=0)
    assert await state(world, "exited") == first.id
    await world.poke(key)
    assert (await world.ready(key))[0].id == first.id


async def test_an_instance_in_service_that_somebody_froze_is_resumed_by_the_next_leader(world: World) -> None:
    await world.start()
    key = await world.apply()
    (first,) = await world.ready(key)
    await world.stop()
    await FakeRuntime(world.engine).pause(first.id)
    await world.start()
    assert await state(world, "running") == first.id
    assert (await world.ready(key))[0].id == first.id


async def test_beyond_the_bound_of_memory_the_longest_paused_goes_first(world: World, activator: Activator) -> None:
    world.machine = Machine(paused_memory_fraction=1.5 * world.engine.memory_of_each / (16 * 1024**3))
    await world.start()
    one = await world.apply("one-00001", annotations=LONG)
    (first,) = await world.ready(one)
    await row(world, one, "paused")
    two = await world.apply("two-00001", annotations=LONG)
    (second,) = await world.ready(two)
    await row(world, two, "paused")
    await eventually(lambda: set(world.engine.instances) == {second.id}, condition=f"{first.id} to go")


async def test_a_paused_instance_that_dies_is_removed(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply(annotations=LONG)
    (first,) = await world.ready(key)
    await row(world, key, "paused")
    world.engine.kill(first.id)
    await world.gone()
    await world.poke(key)
    assert (await world.ready(key))[0].id != first.id


async def test_what_rests_goes_with_its_revision(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply(annotations=LONG)
    await world.ready(key)
    await row(world, key, "paused")
    await world.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await world.gone()


async def test_what_no_route_leads_to_does_not_rest(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply(annotations=LONG)
    await world.ready(key)
    await row(world, key, "paused")
    stored = await world.store.get(kinds.REVISION.id, "default", "hello-00001")
    stored["metadata"]["labels"]["serving.knative.dev/routingState"] = "reserve"
    await world.store.update(kinds.REVISION.id, stored)
    await world.gone()


async def test_the_whole_platform_may_rest_by_config_autoscaler(world: World, activator: Activator) -> None:
    await world.start()
    config: dict[str, Any] = {"metadata": {"namespace": "knative-serving", "name": "config-autoscaler"}}
    await world.store.create(kinds.CONFIG_MAP.id, {**config, "data": {"paused-retention-period": "1h"}})
    key = await world.apply(annotations=QUICK)
    await world.ready(key)
    await row(world, key, "paused")
