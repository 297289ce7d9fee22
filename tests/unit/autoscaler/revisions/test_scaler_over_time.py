"""A Revision's scaler over time, without an engine: warm windows, shares of a rollout, comparisons."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from autoscaler.revisions.revision_scaler import RevisionScaler
from autoscaler.revisions.revision_status import scale_status
from autoscaler.spec.compressed_revision import CompressedRevision
from knoll.config.platform import PlatformConfig
from knoll.messages.reports import RevisionReport, latency_bucket
from knoll.messages.scale import ScaleStatus
from knoll.resources.scaling import scaling_spec
from tests.unit.autoscaler.sample_revisions import revision

MONDAY = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
CONFIG = PlatformConfig()
REACHED = ScaleStatus("uid", 0, 0, initial_reached=True, active="False")


class Clock:
    """A clock that is set by hand."""

    now = MONDAY

    def __call__(self) -> float:
        return self.now


def scaler(clock: Clock, name: str = "hello-00001", **annotations: str) -> RevisionScaler:
    annotated = revision(
        name, annotations={f"knoll.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    )
    deps: Any = SimpleNamespace(clock=clock)
    return RevisionScaler(annotated, scaling_spec(annotated, CONFIG), deps, before=REACHED)


def annotate(subject: RevisionScaler, **annotations: str) -> None:
    named = {f"knoll.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    annotated = revision(subject.revision.metadata.name, annotations=named)
    subject.change(CompressedRevision(annotated), scaling_spec(annotated, CONFIG))


def reported(subject: RevisionScaler, at: float, answers: int, errors: int = 0, seconds: float = 0.01) -> None:
    latency = {latency_bucket(seconds): answers}
    subject.report(
        "activator-1", RevisionReport(subject.key, 1.0, answers, 0, 0, {}, answers, errors, latency), at, 1.0
    )


def test_a_revision_at_zero_is_looked_at_again_when_its_window_opens() -> None:
    clock = Clock()
    subject = scaler(clock, warm_schedule="0 8 * * mon-fri 10h min-scale=2")
    clock.now = MONDAY + 8 * 3600 - 1
    assert subject.quiet
    clock.now += 1
    assert not subject.quiet
    clock.now = MONDAY + 18 * 3600
    assert subject.quiet


def test_a_clock_that_is_set_back_is_followed() -> None:
    clock = Clock()
    subject = scaler(clock, warm_schedule="0 8 * * mon-fri 10h min-scale=2")
    clock.now = MONDAY + 12 * 3600
    assert not subject.quiet
    clock.now = MONDAY + 6 * 3600
    assert subject._warm(clock.now) == 0


def test_unreachable_revisions_are_not_kept_warm() -> None:
    clock = Clock()
    meta = {"annotations": {"knoll.dev/warm-schedule": "* * * * * 2m min-scale=2"}}
    unreachable = revision("hello-00001", labels={"serving.knative.dev/routingState": "reserve"}, **meta)
    deps: Any = SimpleNamespace(clock=clock)
    subject = RevisionScaler(unreachable, scaling_spec(unreachable, CONFIG), deps, before=REACHED)
    clock.now += 3600
    assert subject.quiet


def test_a_share_is_kept_for_a_window_after_it_was_asked_for() -> None:
    clock = Clock()
    subject = scaler(clock, rollout_scale="4")
    clock.now += 3600
    assert not subject.quiet
    annotate(subject, rollout_scale="2")
    assert subject._rollout(clock.now) == 4
    annotate(subject)
    clock.now += subject.spec.window_seconds - 1
    assert subject._rollout(clock.now) == 4
    clock.now += 1
    assert subject._rollout(clock.now) == 0
    assert subject.quiet


def test_a_new_revision_is_compared_with_what_the_old_one_was_before_its_traffic_left() -> None:
    clock = Clock()
    old = scaler(clock, "hello-00001", rollback_on="error-rate>5%")
    new = scaler(clock, "hello-00002", rollback_on="error-rate>5%", rollout_from="hello-00001")
    reported(old, clock.now, 200, 20)
    assert not new.compare(old)
    clock.now += 120  # nothing of it is in the window any more
    reported(old, clock.now, 1)
    reported(new, clock.now, 100, 14)
    assert not new.compare(old)
    reported(new, clock.now, 100, 40)
    assert new.compare(old)
    assert new.comparison.worse == (
        "27.0 % of 200 requests failed, compared with 10.0 % of 200 of hello-00001; limit: +5 percentage points"
    )
    assert scale_status(new).rollback == new.comparison.worse
    assert not new.compare(old), "it is said once"


def test_a_trial_that_is_over_leaves_no_verdict() -> None:
    clock = Clock()
    new = scaler(clock, "hello-00002", rollback_on="error-rate>5%", rollout_from="hello-00001")
    reported(new, clock.now, 100, 100)
    assert new.compare(None)
    annotate(new, rollback_on="error-rate>5%")
    assert new.comparison.worse == ""
    assert scale_status(new).rollback == ""


def test_an_old_revision_without_the_annotation_is_watched_from_the_trial_on() -> None:
    clock = Clock()
    old = scaler(clock, "hello-00001")
    new = scaler(clock, "hello-00002", rollback_on="p95>2x", rollout_from="hello-00001")
    reported(old, clock.now, 100)
    assert not new.compare(old)
    reported(old, clock.now, 100, seconds=0.01)
    reported(new, clock.now, 100, seconds=0.05)
    assert new.compare(old)
    assert "p95 is" in new.comparison.worse
