"""The autoscaler from a Revision to its endpoints and back, on a real Redis."""

from dataclasses import replace

import pytest

from autoscaler.runtime.model import InstanceSpec
from knoll.messages.scale import StartFailure
from knoll.values import kinds
from knoll.values.errors import RuntimeUnavailableError
from tests.component.autoscaler.conftest import QUICK, Activator, AutoscalerHarness
from tests.doubles.fake_engine import FakeProgram
from tests.doubles.fake_runtime import FakeRuntime
from tests.unit.autoscaler.sample_revisions import DIGEST, body
from tests.waiting import eventually


async def test_a_new_revision_is_started_to_its_initial_scale(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply(annotations={"autoscaling.knative.dev/initial-scale": "2"})
    endpoints = await harness.ready(key, 2)
    assert {endpoint.id for endpoint in endpoints} == set(harness.engine.instances)
    for endpoint in endpoints:
        assert endpoint.timing is not None
        assert (
            endpoint.timing.requested <= endpoint.timing.scheduled <= endpoint.timing.started <= endpoint.timing.ready
        )
    status = await harness.has_status(key, initial_reached=True, actual=2, active="True")
    assert (status.uid, status.failure) == ("uid-hello-00001", None)


async def test_a_revision_without_resolved_images_is_left_alone(harness: AutoscalerHarness) -> None:
    await harness.start()
    unresolved = body()
    status = unresolved.pop("status")
    created = await harness.store.create(kinds.REVISION.id, unresolved)
    other = await harness.apply("other-00001")
    await harness.ready(other)
    assert await harness.status("default/hello-00001") is None
    await harness.store.update(kinds.REVISION.id, {**created, "status": status})
    await harness.ready("default/hello-00001")


async def test_more_load_starts_more_instances(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply(spec={"containerConcurrency": 10})
    await harness.ready(key)
    await harness.has_status(key, initial_reached=True)
    await harness.report(key, 21.0)
    endpoints = await harness.ready(key, 3)
    assert len({(endpoint.host, endpoint.port) for endpoint in endpoints}) == 3
    await harness.has_status(key, desired=3, actual=3)


async def test_an_idle_revision_is_scaled_to_zero_and_a_poke_starts_it_again(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    key = await harness.apply(annotations=QUICK)
    first = await harness.ready(key)
    await harness.gone()
    await harness.ready(key, 0)
    await harness.has_status(key, desired=0, actual=0, initial_reached=True, active="False", active_reason="NoTraffic")
    await harness.poke(key)
    second = await harness.ready(key)
    assert second[0].id != first[0].id


async def test_the_runtime_gets_the_number_of_revisions_that_may_be_woken(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    unreachable = {"serving.knative.dev/routingState": "reserve"}
    await harness.start()
    keys = [await harness.apply(f"hello-0000{number}", annotations=QUICK) for number in range(3)]
    other = await harness.apply("other-00001", annotations=QUICK, labels=unreachable)
    for key in (*keys, other):
        await harness.has_status(key, initial_reached=True, actual=0)
    await harness.gone()
    await eventually(lambda: harness.engine.warm_demand == 3, condition="those that a Route leads to")
    await harness.poke(keys[0])
    await eventually(lambda: harness.engine.warm_demand == 2, condition="the others")


async def test_initial_scale_zero_starts_nothing_until_it_is_poked(harness: AutoscalerHarness) -> None:
    await harness.start()
    config = {"metadata": {"namespace": "knative-serving", "name": "config-autoscaler"}}
    await harness.store.create(kinds.CONFIG_MAP.id, {**config, "data": {"allow-zero-initial-scale": "true"}})
    key = await harness.apply(annotations={"autoscaling.knative.dev/initial-scale": "0"})
    await harness.has_status(key, initial_reached=True, actual=0, active="False")
    assert not harness.engine.instances
    await harness.poke(key)
    await harness.ready(key)


async def test_min_scale_applies_only_to_reachable_revisions(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations={**QUICK, "autoscaling.knative.dev/min-scale": "2"})
    await harness.ready(key, 2)
    stored = await harness.store.get(kinds.REVISION.id, "default", "hello-00001")
    stored["metadata"]["labels"]["serving.knative.dev/routingState"] = "reserve"
    await harness.store.update(kinds.REVISION.id, stored)
    await harness.gone()


async def test_a_change_of_the_configuration_takes_effect(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    await harness.ready(key)
    await harness.has_status(key, initial_reached=True)
    config = {"metadata": {"namespace": "knative-serving", "name": "config-autoscaler"}}
    await harness.store.create(kinds.CONFIG_MAP.id, {**config, "data": {"min-scale": "3"}})
    await harness.ready(key, 3)


async def test_another_autoscaler_takes_over_what_runs(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations={"autoscaling.knative.dev/min-scale": "2"})
    before = await harness.ready(key, 2)
    await harness.has_status(key, initial_reached=True, actual=2)
    await harness.stop()
    await harness.endpoints.remove(key)
    await harness.start()
    after = await harness.ready(key, 2)
    assert {endpoint.id for endpoint in after} == {endpoint.id for endpoint in before}
    assert len(harness.engine.instances) == 2


async def test_an_instance_in_service_stays_there_while_it_is_taken_over(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    before = await harness.ready(key)
    await harness.has_status(key, initial_reached=True)
    await harness.stop()
    await harness.start()
    await harness.has_status(key, actual=1, active="True")
    assert await harness.published(key) == before


async def test_what_no_revision_wants_is_removed(harness: AutoscalerHarness) -> None:
    await harness.start()
    gone, kept = await harness.apply("gone-00001"), await harness.apply("kept-00001")
    await harness.ready(gone)
    before = await harness.ready(kept)
    await harness.stop()
    await harness.store.delete(kinds.REVISION.id, "default", "gone-00001")
    await harness.start()
    await eventually(lambda: list(harness.engine.instances) == [before[0].id], condition="one instance")
    await eventually(lambda: _absent(harness, gone), condition="no word of it")


async def _absent(harness: AutoscalerHarness, key: str) -> bool:
    return key not in (await harness.endpoints.snapshot())[1] and await harness.status(key) is None


async def test_instances_beside_an_empty_store_are_left_alone_at_first(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    before = await harness.ready(key)
    await harness.stop()
    await harness.redis.execute("FLUSHALL")
    await harness.start()
    other = await harness.apply("other-00001")
    await harness.ready(other)
    assert before[0].id in harness.engine.instances


async def test_a_deleted_revision_is_drained_and_forgotten(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply()
    await harness.ready(key)
    await harness.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await harness.gone()
    await eventually(lambda: _absent(harness, key), condition="no word of it")


async def test_a_revision_that_is_created_again_gets_its_own_instances(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    key = await harness.apply()
    before = await harness.ready(key)
    await harness.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await harness.apply(uid="another")
    await harness.has_status(key, uid="another", initial_reached=True)
    after = await harness.ready(key)
    assert after[0].id != before[0].id


async def test_an_orphan_without_a_revision_is_removed(harness: AutoscalerHarness) -> None:
    """An instance whose Revision the store does not know, beside Revisions that it does."""
    await harness.start()
    key = await harness.apply()
    endpoints = await harness.ready(key)
    await harness.stop()
    spec: InstanceSpec = harness.engine.instances[endpoints[0].id].spec
    await FakeRuntime(harness.engine).start(replace(spec, name="stray", uid="unknown"))
    await harness.start()
    await eventually(lambda: set(harness.engine.instances) == {endpoints[0].id}, condition="the stray is gone")


@pytest.mark.parametrize("missing", [True, False])
async def test_an_image_that_is_missing_is_pulled_or_named(harness: AutoscalerHarness, missing: bool) -> None:
    harness.engine.images = set()
    harness.engine.registry = set() if missing else {DIGEST}
    await harness.start()
    key = await harness.apply()
    if not missing:
        await harness.ready(key)
        return
    await harness.has_status(key, actual=0, active="Unknown", active_reason="Deploying")

    async def pull_failure() -> StartFailure | None:
        status = await harness.status(key)
        failure = status.failure if status else None
        return failure if failure and failure.reason in ("ErrImagePull", "ImagePullBackOff") else None

    failure = await eventually(pull_failure, condition="the failure is reported")
    assert failure is not None
    assert DIGEST in failure.message
    assert failure.condition == "ResourcesAvailable"


async def test_a_revision_that_never_becomes_ready_is_given_up(harness: AutoscalerHarness) -> None:
    harness.engine.behave = lambda _: FakeProgram(listens_after=None)
    await harness.start()
    key = await harness.apply(annotations={"serving.knative.dev/progress-deadline": "1s"})
    status = await harness.has_status(key, active="False", active_reason="TimedOut", desired=0)
    assert status.failure is not None
    assert status.failure.reason == "ProgressDeadlineExceeded"
    await harness.gone()


async def test_a_container_that_ends_before_it_is_ready_fails_with_its_last_output(harness: AutoscalerHarness) -> None:
    harness.engine.behave = lambda _: FakeProgram(
        listens_after=None, exits_after=0.0, exit_code=5, output=b"boot\nno database\n"
    )
    await harness.start()
    key = await harness.apply()

    async def is_reported() -> bool:
        status = await harness.status(key)
        return bool(status and status.failure)

    await eventually(is_reported, condition="the failure is reported")
    status = await harness.status(key)
    assert status is not None
    assert status.failure is not None
    assert (status.failure.condition, status.failure.reason) == ("ContainerHealthy", "ExitCode5")
    assert "no database" in status.failure.message


async def test_a_container_that_dies_is_started_again_in_its_place(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    (before,) = await harness.ready(key)
    harness.engine.kill(before.id)

    async def again() -> bool:
        container = harness.engine.instances[before.id].containers["user-container"]
        return container.restarts == 1 and container.running

    await eventually(again, condition="it was started again")
    (after,) = await harness.ready(key)
    assert after.id == before.id
    assert list(harness.engine.instances) == [before.id]


async def test_an_instance_whose_sandbox_is_lost_is_replaced(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations={"autoscaling.knative.dev/min-scale": "1"})
    (before,) = await harness.ready(key)
    harness.engine.lose(before.id)

    async def another() -> bool:
        endpoints = await harness.published(key)
        return [endpoint.state for endpoint in endpoints] == ["ready"] and endpoints[0].id != before.id

    await eventually(another, condition="another instance")
    await eventually(lambda: before.id not in harness.engine.instances, condition="the lost one is gone")


async def test_an_instance_that_could_not_be_started_is_tried_again(harness: AutoscalerHarness) -> None:
    harness.engine.fail("start", RuntimeUnavailableError("the engine does not respond"), times=2)
    await harness.start()
    await harness.ready(await harness.apply())
