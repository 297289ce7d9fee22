"""When jobs are sent to the builder, what becomes of its results, and the Events that inform users."""

import asyncio

import pytest

from api.controllers.build import build
from api.controllers.engine import recorder
from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import Delete, Emit, Enqueue, ResolveImages, UpdateStatus
from api.controllers.revision import revision
from knoll.config.observability import ObservabilityConfig
from knoll.config.platform import PlatformConfig
from knoll.messages import builds
from knoll.messages.builds import BuildPhase, BuildProgress, Resolution
from knoll.values import kinds
from knoll.values.json import Json
from knoll.values.timestamps import timestamp
from tests.doubles.memory_store import MemoryStore
from tests.unit.api.controllers.simulation import NOW, SHA, Simulation
from tests.waiting import eventually

REV = "hello-00001"
BUILD = kinds.BUILD_KIND


def asked(outcome_of: revision.RevisionInputs, now: float) -> bool:
    return any(isinstance(action, ResolveImages) for action in revision.reconcile(outcome_of, now).actions)


@pytest.fixture
def body() -> Json:
    simulation = Simulation()
    simulation.service()
    simulation.settle()
    return simulation.get(kinds.REVISION, REV)


def test_a_new_revision_asks_for_its_digests_once() -> None:
    simulation = Simulation()
    uid = simulation.service()["metadata"]["uid"]
    simulation.settle()
    revision_uid = simulation.get(kinds.REVISION, REV)["metadata"]["uid"]
    assert simulation.enqueued == [ResolveImages("default", REV, revision_uid)]
    assert revision_uid != uid
    simulation.ready(REV)
    assert len(simulation.enqueued) == 1


@pytest.mark.parametrize(
    ("template", "log_url"),
    [("", None), ("http://logs.example.com/?uid=${REVISION_UID}", "http://logs.example.com/?uid=")],
)
def test_a_revision_has_a_log_url_when_the_platform_configures_one(template: str, log_url: str | None) -> None:
    simulation = Simulation()
    simulation.state.config = PlatformConfig(observability=ObservabilityConfig(revision_url_template=template))
    simulation.service()
    simulation.settle()
    revision = simulation.get(kinds.REVISION, REV)
    assert objects.status(revision).get("logUrl") == (log_url and log_url + revision["metadata"]["uid"])


@pytest.mark.parametrize(
    ("resolution", "asked_before", "now", "due"),
    [
        (None, 0.0, 0, True),
        (None, NOW, 10, False),
        (None, NOW, revision.LOST_SECONDS + 1, True),
        ("error", NOW, 5, False),
        ("error", NOW, 11, True),
        ("error", NOW + 11, 15, False),
        ("error", NOW + 11, 33, True),
        ("error", NOW + 9_000, 9_400, False),
        ("error", NOW + 9_000, 9_601, True),
    ],
    ids=[
        "never asked", "just asked", "the answer was lost", "failed just now", "due again", "waits longer with age",
        "and is due later", "at most ten minutes", "after ten minutes",
    ],
)  # fmt: skip
def test_a_failed_or_lost_look_up_is_tried_again(
    body: Json, resolution: str | None, asked_before: float, now: float, due: bool
) -> None:
    answer = Resolution(body["metadata"]["uid"], error=resolution) if resolution else None
    observed = revision.RevisionInputs(body, resolution=answer, asked=asked_before)
    assert asked(observed, NOW + now) is due
    assert revision.reconcile(observed, NOW + now).requeue_after


def test_an_answer_about_an_earlier_revision_of_the_same_name_is_ignored(body: Json) -> None:
    stale = Resolution("another uid", error="no such image")
    assert asked(revision.RevisionInputs(body, resolution=stale), NOW)


def test_a_later_answer_replaces_a_failed_look_up() -> None:
    simulation = Simulation()
    simulation.service()
    simulation.settle()
    simulation.resolved(REV, error="no such image")
    simulation.settle()
    assert simulation.conditions(kinds.SERVICE)["Ready"][0] == "False"
    simulation.ready(REV)
    assert simulation.conditions(kinds.SERVICE)["Ready"] == ("True",)


def test_digests_once_written_do_not_need_the_table_any_more() -> None:
    simulation = Simulation()
    simulation.service()
    simulation.ready(REV)
    simulation.state.resolutions.clear()
    assert simulation.everything_again() == []


def test_statuses_are_in_the_order_of_the_containers() -> None:
    simulation = Simulation()
    containers = [{"name": "b", "image": "x"}, {"name": "a", "image": "y"}]
    spec = {"template": {"spec": {"containers": containers, "initContainers": [{"name": "i", "image": "z"}]}}}
    simulation.apply(kinds.CONFIGURATION, "two", spec)
    simulation.settle()
    body = simulation.get(kinds.REVISION, "two-00001")
    images = tuple(builds.Resolved(name, "img", f"r/{name}@{SHA}") for name in ("a", "b", "i"))
    simulation.state.resolutions["default/two-00001"] = Resolution(body["metadata"]["uid"], images)
    simulation._dirty[kinds.REVISION.id, "default", "two-00001"] = None
    simulation.settle()
    status = simulation.get(kinds.REVISION, "two-00001")["status"]
    assert [container["name"] for container in status["containerStatuses"]] == ["b", "a"]
    assert status["initContainerStatuses"] == [{"name": "i", "imageDigest": f"r/i@{SHA}"}]


def a_build() -> Json:
    return {
        "apiVersion": BUILD.api_version, "kind": "Build", "spec": {"tag": "x:1"},
        "metadata": {"name": "b", "namespace": "default", "uid": "u", "generation": 1, "resourceVersion": "1",
                     "creationTimestamp": timestamp(NOW)},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("progress", "phase", "ready", "reason"),
    [
        (None, "Queued", "Unknown", "Queued"),
        (BuildProgress("u", BuildPhase.RUNNING, started=NOW), "Running", "Unknown", "Running"),
        (BuildProgress("u", BuildPhase.SUCCEEDED, digest=f"r@{SHA}", size=9, finished=NOW), "Succeeded", "True", ""),
        (
            BuildProgress("u", BuildPhase.FAILED, reason="BuildFailed", message="step 3"),
            "Failed",
            "False",
            "BuildFailed",
        ),
        (BuildProgress("u", BuildPhase.FAILED), "Failed", "False", "BuildFailed"),
        (BuildProgress("other", BuildPhase.FAILED), "Queued", "Unknown", "Queued"),
    ],
)
def test_the_status_of_a_build_shows_its_progress(
    progress: BuildProgress | None, phase: str, ready: str, reason: str
) -> None:
    outcome = build.reconcile(build.BuildInputs(a_build(), progress, asked=NOW), NOW)
    (written,) = [action for action in outcome.actions if not isinstance(action, ResolveImages | Emit)]
    after: Json = written.body  # type: ignore[union-attr]
    succeeded = objects.condition(after) or {}
    assert (after["status"]["phase"], succeeded["status"], succeeded.get("reason", "")) == (phase, ready, reason)
    again = build.reconcile(build.BuildInputs(after, progress, asked=NOW), NOW)
    assert again.actions == []


def test_the_status_of_a_queued_build_has_its_position() -> None:
    outcome = build.reconcile(build.BuildInputs(a_build(), asked=NOW, position=3), NOW)
    (after,) = [action.body for action in outcome.actions if isinstance(action, UpdateStatus)]
    assert after["status"]["queuePosition"] == 3
    assert "position 3" in after["status"]["conditions"][0]["message"]
    assert outcome.requeue_after == build.QUEUE_SECONDS
    begun = build.reconcile(
        build.BuildInputs(after, BuildProgress("u", BuildPhase.RUNNING, step="1/2 FROM x"), NOW), NOW
    )
    (running,) = [action.body for action in begun.actions if isinstance(action, UpdateStatus)]
    assert "queuePosition" not in running["status"]
    assert running["status"]["step"] == "1/2 FROM x"


def old_build(number: int, phase: str, tag: str = "x:1") -> Json:
    status = {"Succeeded": "True", "Failed": "False"}.get(phase, "Unknown")
    meta = {**a_build()["metadata"], "name": f"b{number}", "uid": f"u{number}",
            "creationTimestamp": timestamp(NOW - 1000 + number)}  # fmt: skip
    conditions = [{"type": "Succeeded", "status": status}]
    return {**a_build(), "metadata": meta, "spec": {"tag": tag}, "status": {"phase": phase, "conditions": conditions}}


def test_of_builds_that_are_over_the_newest_are_kept() -> None:
    siblings = [old_build(number, "Succeeded" if number % 2 else "Failed") for number in range(5)]
    siblings.append(old_build(9, "Running"))
    observed = build.BuildInputs(
        a_build(), BuildProgress("u", BuildPhase.SUCCEEDED), NOW, siblings=siblings, most_finished=3
    )
    gone = [action.name for action in build.reconcile(observed, NOW).actions if isinstance(action, Delete)]
    assert gone == ["b2", "b1", "b0"]


def test_builds_are_kept_when_there_is_no_bound_and_while_one_is_not_over() -> None:
    siblings = [old_build(number, "Succeeded") for number in range(5)]
    for progress, most in (
        (BuildProgress("u", BuildPhase.SUCCEEDED), None),
        (BuildProgress("u", BuildPhase.RUNNING), 1),
    ):
        observed = build.BuildInputs(a_build(), progress, NOW, siblings=siblings, most_finished=most)
        assert not any(isinstance(action, Delete) for action in build.reconcile(observed, NOW).actions)


def test_a_build_is_handed_over_again_only_while_it_is_not_over() -> None:
    def handed_over(progress: BuildProgress | None, asked_at: float, now: float) -> bool:
        actions = build.reconcile(build.BuildInputs(a_build(), progress, asked_at), now).actions
        return any(isinstance(action, Enqueue) for action in actions)

    assert handed_over(None, 0.0, NOW)
    assert not handed_over(None, NOW, NOW + 1)
    assert handed_over(BuildProgress("u", BuildPhase.RUNNING), NOW, NOW + build.LOST_SECONDS)
    assert not handed_over(BuildProgress("u", BuildPhase.SUCCEEDED), 0.0, NOW)


def test_a_finished_build_keeps_its_status_when_the_table_is_lost() -> None:
    done = build.reconcile(build.BuildInputs(a_build(), BuildProgress("u", BuildPhase.SUCCEEDED)), NOW).actions
    after: Json = next(action.body for action in done if not isinstance(action, Enqueue | Emit))  # type: ignore[union-attr]
    assert build.reconcile(build.BuildInputs(after), NOW).actions == []


def test_the_events_of_a_services_life() -> None:
    simulation = Simulation()
    simulation.service()
    simulation.ready(REV)
    emitted = [(event.about["kind"], event.type, event.reason) for event in simulation.events]
    assert emitted == [
        ("Service", "Normal", "Created"),
        ("Service", "Normal", "Created"),
        ("Configuration", "Normal", "Created"),
        ("Revision", "Normal", "RevisionReady"),
        ("Configuration", "Normal", "ConfigurationReady"),
        ("Configuration", "Normal", "LatestReadyUpdate"),
    ]


def test_a_failing_revision_warns() -> None:
    simulation = Simulation()
    simulation.service()
    simulation.settle()
    simulation.resolved(REV, error="no such image")
    simulation.settle()
    warnings = {(event.about["kind"], event.reason) for event in simulation.events if event.type == "Warning"}
    assert warnings == {("Revision", "ContainerMissing"), ("Configuration", "LatestCreatedFailed")}


async def test_the_same_event_again_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    store, now = MemoryStore(), NOW
    monkeypatch.setattr(recorder, "MAX_EVENTS", 2)
    made = recorder.Recorder(store, lambda: now)
    about = {**a_build(), "metadata": {**a_build()["metadata"], "name": "thing"}}
    task = asyncio.create_task(made.run())
    for message in ("one", "two", "two", "two", "three"):
        made.emit(Emit(about, "Warning", "Broken", message))

    async def counts() -> dict[str, int]:
        return {event["message"]: event["count"] for event in (await store.list(kinds.EVENT.id)).items}

    async def are_counted() -> bool:
        return await counts() == {"two": 3, "three": 1}

    await eventually(are_counted, condition="the newest two, counted")
    (event, *_) = (await store.list(kinds.EVENT.id)).items
    assert event["involvedObject"]["uid"] == "u"
    assert event["involvedObject"]["kind"] == "Build"
    task.cancel()
