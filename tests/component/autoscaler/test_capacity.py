"""Instances that request more than the machine has, on a real Redis."""

from typing import Any

from autoscaler.decision.capacity import Machine
from knoll.values import kinds
from tests.component.autoscaler.conftest import QUICK, Activator, AutoscalerHarness
from tests.unit.autoscaler.sample_revisions import body
from tests.waiting import eventually


def asking(**requests: str) -> dict[str, Any]:
    """A Revision's spec whose container requests that."""
    (container,) = body()["spec"]["containers"]
    return {"containers": [{**container, "resources": {"requests": requests}}]}


async def test_what_does_not_fit_has_the_schedulers_message(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply(spec=asking(cpu="9", memory="99Gi"))

    async def is_reported() -> bool:
        failure = (await harness.has_status(key, actual=0, initial_reached=False)).failure
        assert failure is not None
        assert (failure.condition, failure.reason, failure.final) == ("ResourcesAvailable", "Unschedulable", True)
        assert failure.message == "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."
        return True

    await eventually(is_reported)
    assert not harness.engine.instances

    async def shown() -> bool:
        _, entries = await harness.instances.snapshot()
        assert key in entries
        (instance,) = entries[key][1].instances
        return instance.address == "" and instance.containers[0].reason == "Unschedulable"

    await eventually(shown)


async def test_an_instance_starts_once_there_is_capacity(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    await harness.ready(await harness.apply("big-00001", spec=asking(cpu="6")))
    key = await harness.apply("other-00001", spec=asking(cpu="4"))
    await eventually(lambda: _waits(harness, key), condition="Unschedulable")
    await harness.store.delete(kinds.REVISION.id, "default", "big-00001")
    await harness.ready(key)
    await harness.has_status(key, failure=None, active="True")


async def test_a_ready_revision_keeps_serving_with_the_instances_that_fit(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply(spec={**asking(cpu="3"), "containerConcurrency": 10})
    await harness.ready(key)
    await harness.report(key, 40.0)
    await harness.has_status(key, actual=2, active="True", initial_reached=True, failure=None)
    await eventually(lambda: len(harness.engine.instances) == 2)
    await harness.ready(key, 2)


async def test_the_configured_capacity_overrides_that_of_the_machine(harness: AutoscalerHarness) -> None:
    harness.machine = Machine(cores=0.5)
    await harness.start()
    key = await harness.apply(spec=asking(cpu="600m"))
    await eventually(lambda: _waits(harness, key), condition="Unschedulable")


async def test_paused_instances_make_room_for_requested_ones(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    rests = {**QUICK, "knoll.dev/paused-retention-period": "1h"}
    first = await harness.apply("one-00001", spec=asking(memory="10Gi"), annotations=rests)
    (old,) = await harness.ready(first)
    await harness.ready(first, 0)
    second = await harness.apply("two-00001", spec=asking(memory="10Gi"))
    await harness.ready(second)
    assert old.id not in harness.engine.instances


async def test_adopted_instances_keep_their_reservations(harness: AutoscalerHarness) -> None:
    await harness.start()
    await harness.ready(await harness.apply("big-00001", spec=asking(cpu="6")))
    await harness.stop()
    await harness.start()
    key = await harness.apply("other-00001", spec=asking(cpu="4"))
    await eventually(lambda: _waits(harness, key), condition="Unschedulable")


async def _waits(harness: AutoscalerHarness, key: str) -> bool:
    status = await harness.status(key)
    return bool(status and status.failure and status.failure.reason == "Unschedulable")


async def test_a_quota_holds_instances_back_until_it_allows_them(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "team", "namespace": "default", "uid": "q"},
        "spec": {"hard": {"requests.cpu": "500m", "pods": "3"}},
    }
    made = await harness.store.create(kinds.RESOURCE_QUOTA.id, quota)
    await harness.start()
    await harness.ready(await harness.apply("small-00001", spec=asking(cpu="200m")))
    key = await harness.apply("big-00001", spec=asking(cpu="400m"))

    async def is_reported() -> bool:
        failure = (await harness.has_status(key, actual=0, initial_reached=False)).failure
        assert failure is not None
        assert (failure.condition, failure.reason, failure.final) == ("ResourcesAvailable", "FailedCreate", True)
        assert failure.message.endswith(
            "is forbidden: exceeded quota: team, requested: requests.cpu=400m, used: requests.cpu=200m, "
            "limited: requests.cpu=500m"
        )
        return True

    await eventually(is_reported, within=30)
    await harness.store.update(kinds.RESOURCE_QUOTA.id, {**made, "spec": {"hard": {"requests.cpu": "600m"}}})
    await harness.ready(key)
    await harness.has_status(key, failure=None, active="True")
