"""Which Revisions a tick looks at, and which may have an armed instance."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.leader.registry import RevisionRegistry
from autoscaler.leader.scaler_index import ScalerIndex
from autoscaler.revisions.revision_scaler import RevisionScaler
from knoll.config.platform import PlatformConfig
from knoll.messages.reports import RevisionReport
from knoll.messages.scale import ScaleChange, ScaleStatus
from knoll.resources.scaling import scaling_spec
from tests.unit.autoscaler.sample_revisions import revision

CONFIG = PlatformConfig()
NOW = 1_800_000_000.0


class Clock:
    """A clock that is set by hand."""

    now = NOW

    def __call__(self) -> float:
        return self.now


def scaler(clock: Clock, name: str, last_used: float = NOW) -> RevisionScaler:
    """A Revision at zero that was deployed once."""
    subject = revision(name)
    before = ScaleStatus(
        "uid", 0, 0, initial_reached=True, active="False", changes=(ScaleChange(last_used, 0, "idle"),)
    )
    deps: Any = SimpleNamespace(clock=clock)
    created = RevisionScaler(subject, scaling_spec(subject, CONFIG), deps, before=before)
    created.uid = name
    return created


def uids(index: ScalerIndex) -> list[str]:
    return [candidate.uid for candidate in index.candidates()]


def test_a_settled_revision_is_not_looked_at_again_before_an_input() -> None:
    clock, index = Clock(), ScalerIndex()
    subject = scaler(clock, "a")
    index.note(subject)
    assert index.unsettled() == [subject]
    clock.now += 3600
    assert index.unsettled() == []
    subject.report("activator-1", RevisionReport(subject.key, 1.0, 1, 1, 0, {}), clock.now, 1.0)
    index.unsettle(subject)
    assert index.unsettled() == [subject]


def test_a_revision_that_was_not_deployed_yet_is_looked_at_at_every_tick() -> None:
    clock, index = Clock(), ScalerIndex()
    subject = scaler(clock, "a")
    subject.progress.initial_reached = False
    index.note(subject)
    clock.now += 3600
    assert index.unsettled() == [subject]
    assert index.unsettled() == [subject]


def test_candidates_for_arming_come_in_the_order_of_their_last_use() -> None:
    clock, index = Clock(), ScalerIndex()
    for name, ago in (("old", 30.0), ("new", 10.0), ("middle", 20.0)):
        index.note(scaler(clock, name, NOW - ago))
    assert [(each.uid, each.last_used) for each in index.candidates()] == [
        ("new", NOW - 10),
        ("middle", NOW - 20),
        ("old", NOW - 30),
    ]
    assert index.without_instance == 3


@pytest.mark.parametrize("change", ["deleted", "gave_up", "removed"])
def test_a_revision_that_no_request_wakes_is_no_candidate(change: str) -> None:
    clock, registry = Clock(), RevisionRegistry()
    subject = scaler(clock, "a")
    registry.add(subject)
    assert uids(registry.index) == ["a"]
    match change:
        case "deleted":
            subject.deleted = True
            assert registry.index.note(subject)
        case "gave_up":
            subject.progress.gave_up = True
            assert registry.index.note(subject)
        case _:
            registry.remove(subject)
    assert uids(registry.index) == []
    assert registry.index.without_instance == 0


def test_noting_an_unchanged_candidate_reports_no_change() -> None:
    clock, index = Clock(), ScalerIndex()
    subject = scaler(clock, "a")
    assert index.note(subject)
    assert not index.note(subject)
    subject.changes = (*subject.changes, ScaleChange(NOW + 5, 0, "idle"))
    assert index.note(subject)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["use", "delete", "remove", "restore"])), max_size=40))
def test_candidates_equal_a_walk_over_all_revisions(steps: list[tuple[int, str]]) -> None:
    clock, index = Clock(), ScalerIndex()
    scalers = {number: scaler(clock, f"r{number}") for number in range(10)}
    there = dict(scalers)
    for subject in scalers.values():
        index.note(subject)
    for number, step in steps:
        clock.now += 1
        subject = scalers[number]
        match step:
            case "use":
                subject.changes = (*subject.changes, ScaleChange(clock.now, 0, "idle"))
            case "delete":
                subject.deleted = True
            case "restore":
                subject.deleted = False
            case _:
                index.remove(subject)
                there.pop(number, None)
                continue
        index.note(subject)
        there[number] = subject
    expected = [each for each in there.values() if each.may_be_armed()]
    expected.sort(key=lambda each: (-each.last_used, each.uid))
    assert uids(index) == [each.uid for each in expected]
    assert index.without_instance == sum(each.may_wake() for each in there.values())
