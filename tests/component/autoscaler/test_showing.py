"""What the API is told of each instance, and what it says back: that a Pod is to go."""

from typing import Any

from knoll.messages.instances import FINALIZER, RevisionInstances
from knoll.values import kinds
from tests.component.autoscaler.conftest import World
from tests.waiting import eventually


async def told(world: World, key: str) -> RevisionInstances | None:
    _, found = await world.instances.snapshot()
    return found[key][1] if key in found else None


async def rows(world: World, key: str, *stages: str) -> RevisionInstances:
    """Wait until instances in these stages are told, and no other."""

    async def are() -> RevisionInstances:
        found = await told(world, key)
        assert found is not None
        assert sorted(row.stage for row in found.instances) == sorted(stages)
        return found

    return await eventually(are, condition=f"instances {stages}")


async def nothing(world: World, key: str) -> None:
    async def is_told() -> bool:
        return await told(world, key) is None

    await eventually(is_told, condition="no entry")


async def test_an_instance_is_told_and_its_entry_goes_with_it(world: World) -> None:
    await world.start()
    key = await world.apply()
    (one,) = await world.ready(key)
    entry = await rows(world, key, "ready")
    (row,) = entry.instances
    assert (row.name, row.address, row.port) == (one.id, one.host, one.port)
    (container,) = row.containers
    assert (container.name, container.running, container.ready, container.restarts) == ("user-container", True, True, 0)
    assert container.started > 0
    body = await world.store.get(kinds.REVISION.id, "default", "hello-00001")
    assert entry.uid == body["metadata"]["uid"]
    await world.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await nothing(world, key)


async def test_how_a_container_ended_is_told_once_it_runs_again(world: World) -> None:
    await world.start()
    key = await world.apply()
    (one,) = await world.ready(key)
    world.engine.kill(one.id, exit_code=5)

    async def is_told() -> bool:
        (row,) = (await rows(world, key, "ready")).instances
        (container,) = row.containers
        last = container.last
        return container.restarts == 1 and last is not None and (last.exit_code, last.reason) == (5, "Error")

    await eventually(is_told, condition="the restart")


async def test_an_image_that_is_missing_is_told(world: World) -> None:
    world.engine.images = set()
    await world.start()
    key = await world.apply()

    async def is_told() -> bool:
        (row,) = (await rows(world, key, "starting")).instances
        (container,) = row.containers
        assert not container.running
        return container.reason in ("ErrImagePull", "ImagePullBackOff") and "cannot be pulled" in container.message

    await eventually(is_told, condition="the image is told")


async def test_an_entry_of_an_instance_that_went_meanwhile_is_removed(world: World) -> None:
    await world.start()
    key = await world.apply()
    await world.ready(key)
    entry = await rows(world, key, "ready")
    await world.stop()
    await world.instances.put("default/gone-00001", replace_uid(entry, "gone"))
    await world.start()
    await nothing(world, "default/gone-00001")
    await rows(world, key, "ready")


def replace_uid(entry: RevisionInstances, uid: str) -> RevisionInstances:
    return RevisionInstances(uid, entry.instances)


async def delete_pod(world: World, name: str) -> None:
    meta: Any = {"name": name, "namespace": "default", "uid": name, "finalizers": [FINALIZER]}
    await world.store.create(kinds.POD.id, {"metadata": meta})
    await world.store.delete(kinds.POD.id, "default", name)


async def test_a_pod_that_is_deleted_takes_its_instance_with_it_and_another_comes(world: World) -> None:
    await world.start()
    key = await world.apply()
    (one,) = await world.ready(key)
    await world.says(key, initial_reached=True)
    await delete_pod(world, one.id)

    async def is_another() -> bool:
        return [each.id for each in await world.ready(key)] != [one.id]

    await eventually(is_another, condition="another instance")
    (row,) = (await rows(world, key, "ready")).instances
    assert row.name != one.id
    assert one.id not in world.engine.instances


async def test_a_pod_that_was_deleted_while_nobody_led_goes_afterwards(world: World) -> None:
    await world.start()
    key = await world.apply()
    (one,) = await world.ready(key)
    await world.says(key, initial_reached=True)
    await world.stop()
    await delete_pod(world, one.id)
    await world.start()
    await eventually(lambda: one.id not in world.engine.instances, condition="the instance goes")
    await world.poke(key)
    await world.ready(key)
