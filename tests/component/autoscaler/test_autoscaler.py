"""The autoscaler from a Revision to its endpoints and back, on a real Redis."""

from dataclasses import replace

import pytest

from autoscaler.runtime.protocol import InstanceSpec
from knoll.messages.scale import StartFailure
from knoll.values import kinds
from knoll.values.errors import RuntimeUnavailableError
from tests.component.autoscaler.conftest import QUICK, Activator, World
from tests.doubles.fake_runtime import FakeProgram, FakeRuntime
from tests.unit.autoscaler.sample_revisions import DIGEST, body
from tests.waiting import eventually


async def test_a_new_revision_is_started_to_its_initial_scale(world: World) -> None:
    await world.start()
    key = await world.apply(annotations={"autoscaling.knative.dev/initial-scale": "2"})
    found = await world.ready(key, 2)
    assert {one.id for one in found} == set(world.engine.instances)
    for one in found:
        assert one.timing is not None
        assert one.timing.requested <= one.timing.scheduled <= one.timing.started <= one.timing.ready
    status = await world.says(key, initial_reached=True, actual=2, active="True")
    assert (status.uid, status.failure) == ("uid-hello-00001", None)


async def test_a_revision_without_resolved_images_is_left_alone(world: World) -> None:
    await world.start()
    unresolved = body()
    status = unresolved.pop("status")
    created = await world.store.create(kinds.REVISION.id, unresolved)
    other = await world.apply("other-00001")
    await world.ready(other)
    assert await world.status("default/hello-00001") is None
    await world.store.update(kinds.REVISION.id, {**created, "status": status})
    await world.ready("default/hello-00001")


async def test_more_load_wants_more_instances(world: World) -> None:
    await world.start()
    key = await world.apply(spec={"containerConcurrency": 10})
    await world.ready(key)
    await world.says(key, initial_reached=True)
    await world.report(key, 21.0)
    found = await world.ready(key, 3)
    assert len({(one.host, one.port) for one in found}) == 3
    await world.says(key, desired=3, actual=3)


async def test_an_idle_revision_goes_to_zero_and_a_poke_brings_it_back(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply(annotations=QUICK)
    first = await world.ready(key)
    await world.gone()
    await world.ready(key, 0)
    await world.says(key, desired=0, actual=0, initial_reached=True, active="False", active_reason="NoTraffic")
    await world.poke(key)
    second = await world.ready(key)
    assert second[0].id != first[0].id


async def test_the_engine_is_told_how_many_revisions_may_be_woken(world: World, activator: Activator) -> None:
    unreachable = {"serving.knative.dev/routingState": "reserve"}
    await world.start()
    keys = [await world.apply(f"hello-0000{number}", annotations=QUICK) for number in range(3)]
    other = await world.apply("other-00001", annotations=QUICK, labels=unreachable)
    for key in (*keys, other):
        await world.says(key, initial_reached=True, actual=0)
    await world.gone()
    await eventually(lambda: world.engine.expected == 3, condition="those that a Route leads to")
    await world.poke(keys[0])
    await eventually(lambda: world.engine.expected == 2, condition="the others")


async def test_initial_scale_zero_starts_nothing_until_it_is_poked(world: World) -> None:
    await world.start()
    config = {"metadata": {"namespace": "knative-serving", "name": "config-autoscaler"}}
    await world.store.create(kinds.CONFIG_MAP.id, {**config, "data": {"allow-zero-initial-scale": "true"}})
    key = await world.apply(annotations={"autoscaling.knative.dev/initial-scale": "0"})
    await world.says(key, initial_reached=True, actual=0, active="False")
    assert not world.engine.instances
    await world.poke(key)
    await world.ready(key)


async def test_min_scale_holds_up_what_is_reachable_only(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply(annotations={**QUICK, "autoscaling.knative.dev/min-scale": "2"})
    await world.ready(key, 2)
    stored = await world.store.get(kinds.REVISION.id, "default", "hello-00001")
    stored["metadata"]["labels"]["serving.knative.dev/routingState"] = "reserve"
    await world.store.update(kinds.REVISION.id, stored)
    await world.gone()


async def test_a_change_of_the_configuration_takes_effect(world: World) -> None:
    await world.start()
    key = await world.apply()
    await world.ready(key)
    await world.says(key, initial_reached=True)
    config = {"metadata": {"namespace": "knative-serving", "name": "config-autoscaler"}}
    await world.store.create(kinds.CONFIG_MAP.id, {**config, "data": {"min-scale": "3"}})
    await world.ready(key, 3)


async def test_another_autoscaler_takes_over_what_runs(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply(annotations={"autoscaling.knative.dev/initial-scale": "2"})
    before = await world.ready(key, 2)
    await world.says(key, initial_reached=True, actual=2)
    await world.stop()
    await world.endpoints.remove(key)
    await world.start()
    after = await world.ready(key, 2)
    assert {one.id for one in after} == {one.id for one in before}
    assert len(world.engine.instances) == 2


async def test_an_instance_in_service_stays_there_while_it_is_taken_over(world: World) -> None:
    await world.start()
    key = await world.apply()
    before = await world.ready(key)
    await world.says(key, initial_reached=True)
    await world.stop()
    await world.start()
    await world.says(key, actual=1, active="True")
    assert await world.listed(key) == before


async def test_what_no_revision_wants_is_removed(world: World) -> None:
    await world.start()
    gone, kept = await world.apply("gone-00001"), await world.apply("kept-00001")
    await world.ready(gone)
    before = await world.ready(kept)
    await world.stop()
    await world.store.delete(kinds.REVISION.id, "default", "gone-00001")
    await world.start()
    await eventually(lambda: list(world.engine.instances) == [before[0].id], condition="one instance")
    await eventually(lambda: _absent(world, gone), condition="no word of it")


async def _absent(world: World, key: str) -> bool:
    return key not in (await world.endpoints.snapshot())[1] and await world.status(key) is None


async def test_instances_beside_an_empty_store_are_left_alone_at_first(world: World) -> None:
    await world.start()
    key = await world.apply()
    before = await world.ready(key)
    await world.stop()
    await world.redis.flushall()
    await world.start()
    other = await world.apply("other-00001")
    await world.ready(other)
    assert before[0].id in world.engine.instances


async def test_a_deleted_revision_is_drained_and_forgotten(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply()
    await world.ready(key)
    await world.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await world.gone()
    await eventually(lambda: _absent(world, key), condition="no word of it")


async def test_a_revision_made_anew_under_its_name_gets_its_own_instances(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply()
    before = await world.ready(key)
    await world.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await world.apply(uid="another")
    await world.says(key, uid="another", initial_reached=True)
    after = await world.ready(key)
    assert after[0].id != before[0].id


async def test_an_orphan_of_an_engine_without_any_word_is_removed(world: World) -> None:
    """An instance whose Revision the store does not know, beside Revisions that it does."""
    await world.start()
    key = await world.apply()
    found = await world.ready(key)
    await world.stop()
    spec: InstanceSpec = world.engine.instances[found[0].id].spec
    await FakeRuntime(world.engine).start(replace(spec, name="stray", uid="nobody"))
    await world.start()
    await eventually(lambda: set(world.engine.instances) == {found[0].id}, condition="the stray is gone")


@pytest.mark.parametrize("missing", [True, False])
async def test_an_image_that_is_missing_is_pulled_or_named(world: World, missing: bool) -> None:
    world.engine.images = set()
    world.engine.registry = set() if missing else {DIGEST}
    await world.start()
    key = await world.apply()
    if not missing:
        await world.ready(key)
        return
    await world.says(key, actual=0, active="Unknown", active_reason="Deploying")

    async def pull_failure() -> StartFailure | None:
        status = await world.status(key)
        failure = status.failure if status else None
        return failure if failure and failure.reason in ("ErrImagePull", "ImagePullBackOff") else None

    failure = await eventually(pull_failure, condition="the failure is reported")
    assert failure is not None
    assert DIGEST in failure.message
    assert failure.condition == "ResourcesAvailable"


async def test_a_revision_that_never_becomes_ready_is_given_up(world: World) -> None:
    world.engine.behave = lambda _: FakeProgram(listens_after=None)
    await world.start()
    key = await world.apply(annotations={"serving.knative.dev/progress-deadline": "1s"})
    status = await world.says(key, active="False", active_reason="TimedOut", desired=0)
    assert status.failure is not None
    assert status.failure.reason == "ProgressDeadlineExceeded"
    await world.gone()


async def test_a_container_that_ends_before_it_is_ready_fails_with_its_last_words(world: World) -> None:
    world.engine.behave = lambda _: FakeProgram(
        listens_after=None, exits_after=0.0, exit_code=5, output=b"boot\nno database\n"
    )
    await world.start()
    key = await world.apply()

    async def said() -> bool:
        found = await world.status(key)
        return bool(found and found.failure)

    await eventually(said, condition="the failure is told")
    status = await world.status(key)
    assert status is not None
    assert status.failure is not None
    assert (status.failure.condition, status.failure.reason) == ("ContainerHealthy", "ExitCode5")
    assert "no database" in status.failure.message


async def test_a_container_that_dies_is_started_again_in_its_place(world: World) -> None:
    await world.start()
    key = await world.apply()
    (before,) = await world.ready(key)
    world.engine.kill(before.id)

    async def again() -> bool:
        one = world.engine.instances[before.id].containers["user-container"]
        return one.restarts == 1 and one.running

    await eventually(again, condition="it was started again")
    (after,) = await world.ready(key)
    assert after.id == before.id
    assert list(world.engine.instances) == [before.id]


async def test_an_instance_whose_sandbox_is_lost_is_replaced(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply(annotations={"autoscaling.knative.dev/min-scale": "1"})
    (before,) = await world.ready(key)
    world.engine.lose(before.id)

    async def another() -> bool:
        found = await world.listed(key)
        return [one.state for one in found] == ["ready"] and found[0].id != before.id

    await eventually(another, condition="another instance")
    await eventually(lambda: before.id not in world.engine.instances, condition="the lost one is gone")


async def test_an_instance_that_could_not_be_started_is_tried_again(world: World) -> None:
    world.engine.fail("start", RuntimeUnavailableError("the engine does not answer"), times=2)
    await world.start()
    await world.ready(await world.apply())
