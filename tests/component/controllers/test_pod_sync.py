"""Pods and the objects behind a Revision, on a real Redis; a script acts as the autoscaler."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from api.controllers.pods import knative_objects
from api.controllers.pods.knative_objects import ActivatorAddress
from api.controllers.pods.pod_sync import PodSync
from knoll.messages.instances import (
    FINALIZER,
    INSTANCES,
    ContainerRow,
    InstanceEvent,
    InstanceRow,
    RevisionInstances,
    Stage,
)
from knoll.messages.scale import SCALE, ScaleStatus
from knoll.redis.client import connected
from knoll.store.informer import Informer, Informers
from knoll.store.redis_store import RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.errors import NotFoundError
from tests.unit.api.controllers.pods.test_pods import revision
from tests.waiting import eventually

pytestmark = pytest.mark.redis

KEY, NAME = "default/hello-00001", "hello-00001-deployment-aa-bbbbb"
WATCHED = (kinds.REVISION, kinds.POD, *knative_objects.KINDS)


class PodSyncHarness:
    """A store, the autoscaler's tables, and what shows them."""

    def __init__(self, redis: Any) -> None:
        self.store = RedisStore(redis)
        self.instances = RedisTable(redis, INSTANCES, RevisionInstances)
        self.scale = RedisTable(redis, SCALE, ScaleStatus)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        informers = Informers(self.store, [Informer(self.store, kind.id) for kind in WATCHED])
        showing = PodSync(self.store, informers, self.instances, self.scale, ActivatorAddress("127.0.0.1", 8080))

        async def both() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(informers.run())
                tasks.create_task(showing.run())

        self._running = asyncio.create_task(both())

    async def stop(self) -> None:
        if self._running:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def tell_waits(self, why: str) -> None:
        container = ContainerRow(
            "user-container",
            "registry/hello@sha256:aa",
            running=False,
            ready=False,
            reason="Unschedulable",
            message=why,
        )
        row = InstanceRow(NAME, "", 8080, "starting", 1_700_000_000.0, (container,))
        await self.instances.put(KEY, RevisionInstances("rev-uid", (row,)))

    async def tell(self, stage: Stage, uid: str = "rev-uid", events: tuple[InstanceEvent, ...] = ()) -> None:
        container = ContainerRow("user-container", "registry/hello@sha256:aa", running=True, ready=stage == "ready")
        row = InstanceRow(NAME, "10.0.0.7", 8080, stage, 1_700_000_000.0, (container,), events=events)
        await self.instances.put(KEY, RevisionInstances(uid, (row,)))

    async def pod(self) -> Any:
        try:
            return await self.store.get(kinds.POD.id, "default", NAME)
        except NotFoundError:
            return None

    async def appears(self) -> Any:
        return await eventually(self.pod, condition="the Pod")

    async def scaler(self, name: str) -> None:
        """Wait for a Revision's PodAutoscaler, which is written last."""

        async def is_there() -> bool:
            return name in [item["metadata"]["name"] for item in (await self.store.list(kinds.POD_AUTOSCALER.id)).items]

        await eventually(is_there, condition=f"the scaler of {name}")

    async def gone(self) -> None:
        async def is_gone() -> bool:
            return await self.pod() is None

        await eventually(is_gone, condition="no Pod")


@pytest.fixture
async def harness(redis_url: str) -> AsyncIterator[PodSyncHarness]:
    async with connected(redis_url) as redis:
        made = PodSyncHarness(redis)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()
            await made.store.close()


async def apply(harness: PodSyncHarness) -> None:
    await harness.store.create(kinds.REVISION.id, revision())


async def test_a_pod_that_does_not_fit_is_reported_once(harness: PodSyncHarness) -> None:
    await apply(harness)
    await harness.tell_waits("0/1 nodes are available: 1 Insufficient cpu.")

    async def events_seen() -> dict[str, Any]:
        events = (await harness.store.list(kinds.EVENT.id)).items
        assert [event["reason"] for event in events] == ["FailedScheduling"]
        return dict(events[0])

    event = await eventually(events_seen, condition="the event")
    assert (event["type"], event["message"]) == ("Warning", "0/1 nodes are available: 1 Insufficient cpu.")
    assert (event["involvedObject"]["kind"], event["involvedObject"]["name"]) == ("Pod", NAME)
    await harness.tell("ready")

    async def is_ready() -> bool:
        pod = await harness.pod()
        return pod is not None and pod["status"]["phase"] == "Running"

    await eventually(is_ready, condition="the Pod runs")
    assert len((await harness.store.list(kinds.EVENT.id)).items) == 1


async def test_what_happens_to_an_instance_is_an_event_of_its_pod_and_a_warning_one_of_its_revision(
    harness: PodSyncHarness,
) -> None:
    await apply(harness)
    unhealthy = InstanceEvent("Warning", "Unhealthy", "Liveness probe failed: command ended with exit code 1")
    killing = InstanceEvent("Normal", "Killing", "Container user-container failed liveness probe, will be restarted")
    await harness.tell("ready", events=(unhealthy, killing))

    async def events_seen(count: int) -> set[tuple[str, str, str, int]]:
        events = (await harness.store.list(kinds.EVENT.id)).items
        seen = {(event["involvedObject"]["kind"], event["reason"], event["type"], event["count"]) for event in events}
        assert seen == {
            ("Pod", "Unhealthy", "Warning", count),
            ("Revision", "Unhealthy", "Warning", count),
            ("Pod", "Killing", "Normal", 1),
        }
        return seen

    await eventually(lambda: events_seen(1), condition="the events")
    await harness.tell("unready", events=(killing, replace(unhealthy, count=3)))
    await eventually(lambda: events_seen(3), condition="the count")
    # Another leader does not write again what is there.
    await harness.stop()
    await harness.start()
    await harness.tell("ready", events=(killing, replace(unhealthy, count=3)))

    async def is_ready() -> bool:
        conditions = (await harness.pod())["status"]["conditions"]
        return any(row["type"] == "Ready" and row["status"] == "True" for row in conditions)

    await eventually(is_ready, condition="the new leader shows the Pod")
    await harness.tell("unready", events=(killing, replace(unhealthy, count=4)))
    await eventually(lambda: events_seen(4), condition="what came after the change of leaders")


async def test_a_pod_is_created_and_deleted_with_its_instance(harness: PodSyncHarness) -> None:
    await apply(harness)
    await harness.tell("ready")
    made = await harness.appears()
    assert made["metadata"]["uid"]
    assert made["metadata"]["creationTimestamp"] == "2023-11-14T22:13:20Z"
    await harness.tell("draining")

    async def goes() -> bool:
        return "deletionTimestamp" in (await harness.pod())["metadata"]

    await eventually(goes, condition="it is on its way out")
    await harness.instances.remove(KEY)
    await harness.gone()


async def test_a_pod_that_a_user_deletes_stays_until_its_instance_is_gone(harness: PodSyncHarness) -> None:
    await apply(harness)
    await harness.tell("ready")
    await harness.appears()
    await harness.store.delete(kinds.POD.id, "default", NAME)
    await harness.tell("draining")

    async def is_unready() -> bool:
        return not (await harness.pod())["status"]["containerStatuses"][0]["ready"]

    await eventually(is_unready, condition="its state is still shown")
    assert (await harness.pod())["metadata"]["finalizers"] == [FINALIZER]
    await harness.instances.remove(KEY)
    await harness.gone()


async def test_the_pod_of_a_lost_instance_is_deleted_immediately(harness: PodSyncHarness) -> None:
    await apply(harness)
    await harness.tell("ready")
    await harness.appears()
    await harness.instances.remove(KEY)
    await harness.gone()


async def test_a_pod_whose_instance_ended_without_a_leader_is_removed_afterwards(harness: PodSyncHarness) -> None:
    await apply(harness)
    await harness.tell("ready")
    await harness.appears()
    await harness.stop()
    await harness.instances.remove(KEY)
    await harness.start()
    await harness.gone()


async def test_instances_of_an_earlier_revision_of_the_name_get_no_pods(harness: PodSyncHarness) -> None:
    await harness.tell("ready", uid="earlier")
    await apply(harness)
    await harness.scaler("hello-00001")
    assert await harness.pod() is None


async def deployment(harness: PodSyncHarness) -> Any:
    return await harness.store.get(kinds.DEPLOYMENT.id, "default", "hello-00001-deployment")


async def test_the_objects_behind_a_revision_are_created_updated_and_recreated(harness: PodSyncHarness) -> None:
    await apply(harness)
    await harness.tell("ready")
    await harness.scale.put(KEY, ScaleStatus("rev-uid", 1, 1, initial_reached=True, active="True"))

    async def has(replicas: int) -> bool:
        try:
            return bool((await deployment(harness))["status"]["readyReplicas"] == replicas)
        except NotFoundError:
            return False

    await eventually(lambda: has(1), condition="a Deployment of one")
    await harness.store.delete(kinds.DEPLOYMENT.id, "default", "hello-00001-deployment")
    await eventually(lambda: has(1), condition="the Deployment again")
    await harness.instances.remove(KEY)
    await harness.scale.put(KEY, ScaleStatus("rev-uid", 0, 0, initial_reached=True, active="False"))
    await eventually(lambda: has(0), condition="a Deployment of none")


async def test_looking_again_writes_nothing(harness: PodSyncHarness) -> None:
    await apply(harness)
    await harness.tell("ready")
    await harness.appears()
    await harness.scaler("hello-00001")
    version = (await harness.store.list(kinds.POD.id)).version
    await harness.stop()
    await harness.start()
    await harness.store.create(
        kinds.REVISION.id, {**revision(), "metadata": {**revision()["metadata"], "name": "last"}}
    )
    await harness.scaler("last")
    written = []
    async for event in harness.store.watch(version):
        written.append(event.body["metadata"]["name"])
        if event.resource == kinds.POD_AUTOSCALER.id:
            break
    assert not [name for name in written if not name.startswith("last")]
