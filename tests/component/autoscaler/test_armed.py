"""Armed instances: for which Revisions, for how long, and their effect on a request."""

import asyncio
import base64
from typing import Any

import pytest

from autoscaler.decision.capacity import ResourceRequest
from autoscaler.kubelet import armed_pool
from autoscaler.runtime.model import NotArmedError
from knoll.messages.instances import InstanceRow
from knoll.values import kinds
from knoll.values.errors import KnollError, RuntimeUnavailableError
from tests.component.autoscaler.conftest import QUICK, Activator, AutoscalerHarness
from tests.component.autoscaler.test_views import client
from tests.doubles.fake_engine import FakeProgram
from tests.doubles.fake_runtime import FakeRuntime
from tests.waiting import eventually

BURSTING = {**QUICK, "autoscaling.knative.dev/target": "1", "autoscaling.knative.dev/max-scale": "3"}


@pytest.fixture
async def harness(harness: AutoscalerHarness) -> AutoscalerHarness:
    harness.armed_instances = 3
    return harness


def armed(harness: AutoscalerHarness) -> list[str]:
    return sorted(name for name, each in harness.engine.instances.items() if each.state() == "armed")


async def until_armed(harness: AutoscalerHarness, count: int = 1) -> list[str]:
    """Wait until exactly this many instances are armed and no other ones exist."""

    async def are() -> bool:
        assert len(armed(harness)) == len(harness.engine.instances) == count, list(harness.engine.instances.values())
        assert harness.autoscaler is not None
        assert harness.autoscaler.armed.waiting == count
        return True

    await eventually(are, condition=f"{count} armed instances")
    return armed(harness)


async def at_zero(harness: AutoscalerHarness, name: str = "hello-00001", **more: Any) -> str:
    """Apply a Revision and wait until it has no instance any more."""
    key = await harness.apply(name, **{"annotations": QUICK, **more})
    await harness.ready(key)
    await harness.has_status(key, desired=0, actual=0)
    return key


async def shows_no_instance(harness: AutoscalerHarness, key: str) -> bool:
    """Whether the API is told of no instance."""
    _, instances = await harness.instances.snapshot()
    return key not in instances


async def row_of(harness: AutoscalerHarness, key: str, name: str) -> InstanceRow:
    """Wait until the API is told of an instance."""

    async def row() -> InstanceRow:
        _, instances = await harness.instances.snapshot()
        rows = {each.name: each for each in instances[key][1].instances}
        assert name in rows
        return rows[name]

    return await eventually(row, condition=f"row of {name}")


async def test_a_revision_that_comes_to_zero_is_armed_and_counts_as_zero(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    key = await at_zero(harness)
    (name,) = await until_armed(harness)
    assert not harness.engine.instances[name].containers["user-container"].running
    assert await harness.published(key) == ()
    await harness.has_status(key, desired=0, actual=0, active="False", active_reason="NoTraffic")
    await eventually(lambda: shows_no_instance(harness, key), condition="no Pod is shown")
    assert harness.autoscaler is not None
    assert harness.autoscaler.registry.instances() == []
    assert harness.autoscaler.reservations.total.memory_bytes == 0


async def test_a_request_gets_the_armed_instance_and_later_another_is_armed(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    key = await at_zero(harness)
    (name,) = await until_armed(harness)
    await harness.poke(key)
    (endpoint,) = await harness.ready(key)
    assert endpoint.id == name
    assert endpoint.timing is not None
    assert endpoint.timing.requested <= endpoint.timing.scheduled <= endpoint.timing.started <= endpoint.timing.ready
    row = await row_of(harness, key, name)
    assert row.created == endpoint.timing.requested
    assert row.containers[0].started >= row.created
    assert [(event.reason, event.message) for event in row.events] == [
        ("Started", "Started armed instance: its containers were created before the request")
    ]
    async with client(harness) as http:
        text = (await http.get("/metrics")).text
        (shown,) = (await http.get("/explain/default/hello-00001")).json()["revisions"]
    assert f'knoll_armed_starts_total{{revision="{key}"}} 1.0' in text
    assert f'knoll_armed_instances{{revision="{key}"}} 0.0' in text
    assert any("an armed instance is released" in change["decision"] for change in shown["changes"])
    assert shown["armed"] == 0
    await harness.has_status(key, desired=0, actual=0)
    (another,) = await until_armed(harness)
    assert another != name
    async with client(harness) as http:
        assert f'knoll_armed_instances{{revision="{key}"}} 1.0' in (await http.get("/metrics")).text
        assert (await http.get("/instances")).json()["instances"] == []


async def test_a_burst_gets_the_armed_instance_and_new_ones(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await at_zero(harness, annotations=BURSTING)
    (name,) = await until_armed(harness)
    served: set[str] = set()

    async def serve() -> bool:
        await harness.poke(key, waiting=3)
        served.update(endpoint.id for endpoint in await harness.published(key))
        return len(served) >= 3

    await eventually(serve, condition="three instances serve")
    assert name in served


async def test_revisions_with_init_containers_are_not_armed(harness: AutoscalerHarness, activator: Activator) -> None:
    harness.engine.behave = lambda spec: FakeProgram(exits_after=0.0 if spec.name == "setup" else None)
    await harness.start()
    await at_zero(harness, "setup-00001", spec={"initContainers": [{"name": "setup", "image": "app"}]})
    await at_zero(harness, "plain-00001")
    (name,) = await until_armed(harness)
    assert name.startswith("plain-00001")


async def test_unreachable_revisions_are_not_armed(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    await at_zero(harness)
    await until_armed(harness)
    stored = await harness.store.get(kinds.REVISION.id, "default", "hello-00001")
    stored["metadata"]["labels"]["serving.knative.dev/routingState"] = "reserve"
    stored["metadata"]["annotations"] = {**QUICK, "serving.knative.dev/routingStateModified": "2026-01-01T00:00:00Z"}
    await harness.store.update(kinds.REVISION.id, stored)
    await harness.gone()


async def test_the_bound_holds_and_those_used_last_are_armed(harness: AutoscalerHarness, activator: Activator) -> None:
    harness.armed_instances = 2
    await harness.start()
    for number in range(4):
        await at_zero(harness, f"hello-{number}")
    names = await until_armed(harness, 2)
    assert [name.split("-deployment")[0] for name in names] == ["hello-2", "hello-3"]


async def test_none_is_armed_when_it_is_turned_off(harness: AutoscalerHarness, activator: Activator) -> None:
    harness.armed_instances = 2
    await harness.start()
    await at_zero(harness)
    await until_armed(harness)
    await harness.stop()
    harness.armed_instances = 0
    await harness.start()
    await harness.gone()


async def test_short_memory_disarms_them(
    harness: AutoscalerHarness, activator: Activator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(armed_pool, "TICK_SECONDS", 0.05)
    await harness.start()
    await at_zero(harness)
    await until_armed(harness)
    harness.available_bytes = 1024**3
    await harness.gone()
    harness.available_bytes = 8 * 1024**3
    await until_armed(harness)


async def test_deleting_a_revision_removes_its_armed_instance(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    await at_zero(harness)
    await until_armed(harness)
    await harness.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await harness.gone()


SECRET_SPEC = {
    "containers": [
        {
            "name": "user-container",
            "image": "app",
            "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
            "env": [{"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "password", "key": "word"}}}],
        }
    ]
}


def secret(word: str) -> dict[str, Any]:
    data = {"word": base64.b64encode(word.encode()).decode()}
    metadata = {"name": "password", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


async def change_secret(harness: AutoscalerHarness, word: str) -> None:
    stored = await harness.store.get(kinds.SECRET.id, "default", "password")
    await harness.store.update(kinds.SECRET.id, {**stored, "data": secret(word)["data"]})


async def test_a_changed_secret_is_what_the_next_instance_gets(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.store.create(kinds.SECRET.id, secret("old"))
    await harness.start()
    key = await at_zero(harness, spec=SECRET_SPEC)
    (name,) = await until_armed(harness)
    await change_secret(harness, "new")

    async def again() -> bool:
        assert armed(harness)
        return armed(harness) != [name]

    await eventually(again, condition="another instance is armed")
    await harness.poke(key)
    (endpoint,) = await harness.ready(key)
    assert harness.engine.instances[endpoint.id].spec.containers[0].env["WORD"] == "new"


async def test_an_instance_that_became_outdated_while_it_waited_for_capacity_is_not_released(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.store.create(kinds.SECRET.id, secret("old"))
    await harness.start()
    resources = {"resources": {"requests": {"memory": "10Gi"}}}
    big = {"containers": [{**SECRET_SPEC["containers"][0], **resources}]}
    key = await at_zero(harness, spec=big)
    (name,) = await until_armed(harness)
    assert harness.autoscaler is not None
    reservations = harness.autoscaler.reservations
    reservations.put("other", ResourceRequest(0.0, 12 * 1024**3))
    await harness.poke(key)
    await harness.has_status(key, desired=1)
    await change_secret(harness, "new")
    await eventually(
        lambda: harness.autoscaler and not harness.autoscaler.armed.waiting, condition="the change arrived"
    )
    await asyncio.sleep(0)
    reservations.release("other")
    (endpoint,) = await harness.ready(key)
    assert endpoint.id == name, "the Pod has its name already"
    instance = harness.engine.instances[name]
    assert (instance.digest, instance.spec.containers[0].env["WORD"]) == ("", "new")


@pytest.mark.parametrize("error", [NotArmedError("it is gone"), RuntimeUnavailableError("the engine is busy")])
async def test_an_instance_that_cannot_be_released_is_started_as_usual(
    harness: AutoscalerHarness, activator: Activator, error: KnollError
) -> None:
    await harness.start()
    key = await at_zero(harness)
    await until_armed(harness)
    harness.engine.fail("release", error)
    await harness.poke(key)
    (endpoint,) = await harness.ready(key)
    assert harness.engine.instances[endpoint.id].digest == ""
    assert len(harness.engine.instances) == 1


async def test_one_that_dies_while_it_waits_is_replaced(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await at_zero(harness)
    (name,) = await until_armed(harness)
    harness.engine.kill(name)

    async def replaced() -> bool:
        return bool(armed(harness)) and name not in harness.engine.instances

    await eventually(replaced, condition="another one is armed")
    await harness.poke(key)
    await harness.ready(key)


async def test_one_whose_sandbox_is_lost_is_replaced(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    await at_zero(harness)
    (name,) = await until_armed(harness)
    harness.engine.lose(name)
    await eventually(lambda: armed(harness) and name not in harness.engine.instances, condition="another one is armed")


async def test_one_that_ended_while_the_engine_was_unavailable_is_replaced(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    await at_zero(harness)
    (name,) = await until_armed(harness)
    harness.engine.go_away()
    del harness.engine.instances[name]
    harness.engine.come_back()
    assert await until_armed(harness) != [name]


async def test_the_next_leader_adopts_what_is_armed(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await at_zero(harness)
    names = await until_armed(harness)
    await harness.stop()
    await harness.start()
    assert await until_armed(harness) == names
    await harness.poke(key)
    (endpoint,) = await harness.ready(key)
    assert [endpoint.id] == names


async def test_the_next_leader_removes_what_would_start_otherwise_now(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.store.create(kinds.SECRET.id, secret("old"))
    await harness.start()
    await at_zero(harness, spec=SECRET_SPEC)
    (name,) = await until_armed(harness)
    await harness.stop()
    await change_secret(harness, "new")
    await harness.start()
    (another,) = await until_armed(harness)
    assert another != name
    assert harness.engine.instances[another].spec.containers[0].env["WORD"] == "new"


async def test_an_instance_released_by_a_leader_that_then_ended_serves_under_the_next(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    key = await at_zero(harness)
    (name,) = await until_armed(harness)
    await harness.stop()
    await FakeRuntime(harness.engine).release(name)  # between the release and what would have been published
    await harness.start()
    (endpoint,) = await harness.ready(key)
    assert endpoint.id == name


async def test_an_engine_that_cannot_arm_starts_instances_as_usual_and_it_is_told_once(
    harness: AutoscalerHarness, activator: Activator, caplog: pytest.LogCaptureFixture
) -> None:
    harness.engine.arming_problem = "arm.c is not compiled for amd64, and there is no C compiler"
    await harness.start()
    key = await at_zero(harness)
    assert harness.autoscaler is not None
    pool = harness.autoscaler.armed
    await eventually(lambda: "no C compiler" in pool.problem, condition="the problem is known")
    await harness.poke(key)
    await harness.ready(key)


async def test_a_revision_that_cannot_be_armed_does_not_keep_others_from_it(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    await at_zero(harness, "first-00001")
    await until_armed(harness)
    harness.engine.fail("arm", NotArmedError("a volume is in the way"))
    await at_zero(harness, "second-00001")
    await at_zero(harness, "third-00001")
    names = await until_armed(harness, 2)
    assert [name.split("-")[0] for name in names] == ["first", "third"]


async def test_the_age_of_a_released_instance_survives_a_change_of_leaders(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    key = await at_zero(harness)
    (name,) = await until_armed(harness)
    await harness.poke(key)
    await harness.ready(key)
    before = await row_of(harness, key, name)
    await harness.stop()
    harness.engine.instances[name].created = before.created - 1000.0  # as the engine's labels have it: of the arming
    harness.engine.instances[name].containers["user-container"].started_at = before.created - 1000.0
    await harness.start()
    await eventually(lambda: harness.autoscaler and harness.autoscaler.registry.instance(name), condition="adopted")
    assert harness.autoscaler is not None
    adopted = harness.autoscaler.registry.instance(name)
    assert adopted is not None
    assert adopted.created == before.created
    assert adopted.row().containers[0].started == before.containers[0].started
