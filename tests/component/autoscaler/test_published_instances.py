"""What is published of each instance, and the deletion of a Pod, which removes its instance."""

from typing import Any

from knoll.messages.instances import FINALIZER, RevisionInstances
from knoll.values import kinds
from tests.component.autoscaler.conftest import AutoscalerHarness
from tests.waiting import eventually


async def published(harness: AutoscalerHarness, key: str) -> RevisionInstances | None:
    _, entries = await harness.instances.snapshot()
    return entries[key][1] if key in entries else None


async def rows(harness: AutoscalerHarness, key: str, *stages: str) -> RevisionInstances:
    """Wait until the published instances have these stages."""

    async def are() -> RevisionInstances:
        entry = await published(harness, key)
        assert entry is not None
        assert sorted(row.stage for row in entry.instances) == sorted(stages)
        return entry

    return await eventually(are, condition=f"instances {stages}")


async def nothing(harness: AutoscalerHarness, key: str) -> None:
    async def is_reported() -> bool:
        return await published(harness, key) is None

    await eventually(is_reported, condition="no entry")


async def test_an_instance_is_published_and_its_entry_is_removed_with_it(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    (endpoint,) = await harness.ready(key)
    entry = await rows(harness, key, "ready")
    (row,) = entry.instances
    assert (row.name, row.address, row.port) == (endpoint.id, endpoint.host, endpoint.port)
    (container,) = row.containers
    assert (container.name, container.running, container.ready, container.restarts) == ("user-container", True, True, 0)
    assert container.started > 0
    body = await harness.store.get(kinds.REVISION.id, "default", "hello-00001")
    assert entry.uid == body["metadata"]["uid"]
    await harness.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await nothing(harness, key)


async def test_the_last_termination_is_reported_once_a_container_runs_again(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    (endpoint,) = await harness.ready(key)
    harness.engine.kill(endpoint.id, exit_code=5)

    async def is_reported() -> bool:
        (row,) = (await rows(harness, key, "ready")).instances
        (container,) = row.containers
        last = container.last
        return container.restarts == 1 and last is not None and (last.exit_code, last.reason) == (5, "Error")

    await eventually(is_reported, condition="the restart")


async def test_a_missing_image_is_reported(harness: AutoscalerHarness) -> None:
    harness.engine.images = set()
    await harness.start()
    key = await harness.apply()

    async def is_reported() -> bool:
        (row,) = (await rows(harness, key, "starting")).instances
        (container,) = row.containers
        assert not container.running
        return container.reason in ("ErrImagePull", "ImagePullBackOff") and "cannot be pulled" in container.message

    await eventually(is_reported, condition="the image is published")


async def test_the_entry_of_an_instance_that_has_ended_is_removed(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    await harness.ready(key)
    entry = await rows(harness, key, "ready")
    await harness.stop()
    await harness.instances.put("default/gone-00001", replace_uid(entry, "gone"))
    await harness.start()
    await nothing(harness, "default/gone-00001")
    await rows(harness, key, "ready")


def replace_uid(entry: RevisionInstances, uid: str) -> RevisionInstances:
    return RevisionInstances(uid, entry.instances)


async def delete_pod(harness: AutoscalerHarness, name: str) -> None:
    meta: Any = {"name": name, "namespace": "default", "uid": name, "finalizers": [FINALIZER]}
    await harness.store.create(kinds.POD.id, {"metadata": meta})
    await harness.store.delete(kinds.POD.id, "default", name)


async def test_a_pod_that_is_deleted_takes_its_instance_with_it_and_another_comes(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    (endpoint,) = await harness.ready(key)
    await harness.has_status(key, initial_reached=True)
    await delete_pod(harness, endpoint.id)

    async def is_another() -> bool:
        return [each.id for each in await harness.ready(key)] != [endpoint.id]

    await eventually(is_another, condition="another instance")
    (row,) = (await rows(harness, key, "ready")).instances
    assert row.name != endpoint.id
    assert endpoint.id not in harness.engine.instances


async def test_a_pod_that_was_deleted_without_a_leader_is_removed_afterwards(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    (endpoint,) = await harness.ready(key)
    await harness.has_status(key, initial_reached=True)
    await harness.stop()
    await delete_pod(harness, endpoint.id)
    await harness.start()
    await eventually(lambda: endpoint.id not in harness.engine.instances, condition="the instance goes")
    await harness.poke(key)
    await harness.ready(key)
