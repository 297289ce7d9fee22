import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.resources.conditions import SETS, Conditions, ConditionStatus, ConditionValues, conditions_of
from knoll.resources.models.meta import Condition
from knoll.resources.models.revision import RevisionStatus
from knoll.values import kinds

REVISION = SETS[kinds.REVISION.id]
ROUTE = SETS[kinds.ROUTE.id]


def _at(conditions: Conditions, now: float) -> Conditions:
    return Conditions(conditions.kinds, conditions.items, now)


def _shown(conditions: Conditions) -> dict[str, str]:
    return {item.type: f"{item.status} {item.reason}".strip() for item in conditions.items}


def test_at_first_everything_that_feeds_is_unknown() -> None:
    assert _shown(REVISION.initial(0)) == {
        "ContainerHealthy": "Unknown", "Ready": "Unknown", "ResourcesAvailable": "Unknown",
    }  # fmt: skip


def test_all_true_makes_it_ready_without_a_reason() -> None:
    conditions = REVISION.initial(0).mark_unknown("ContainerHealthy", "Deploying", "wait")
    conditions = conditions.mark_true("ContainerHealthy").mark_true("ResourcesAvailable")
    assert _shown(conditions) == {"ContainerHealthy": "True", "Ready": "True", "ResourcesAvailable": "True"}
    assert conditions.is_happy


def test_any_false_makes_it_not_ready_with_that_reason() -> None:
    conditions = REVISION.initial(0).mark_true("ResourcesAvailable").mark_false("ContainerHealthy", "ExitCode5", "boom")
    ready = conditions.get("Ready")
    assert ready is not None
    assert (ready.status, ready.reason, ready.message) == ("False", "ExitCode5", "boom")


def test_unknown_does_not_hide_a_false() -> None:
    conditions = REVISION.initial(0).mark_false("ContainerHealthy", "ExitCode5")
    conditions = _at(conditions, 9).mark_unknown("ResourcesAvailable", "Deploying")
    assert _shown(conditions)["Ready"] == "False ExitCode5"


def test_of_several_false_the_one_that_changed_last_speaks() -> None:
    conditions = ROUTE.initial(0)
    conditions = _at(conditions, 1).mark_false("IngressReady", "First")
    conditions = _at(conditions, 2).mark_false("AllTrafficAssigned", "Second")
    assert _shown(conditions)["Ready"] == "False Second"
    conditions = _at(conditions, 3).mark_true("AllTrafficAssigned")
    assert _shown(conditions)["Ready"] == "False First"


def test_of_several_unknown_since_the_same_second_the_one_that_explains_it_speaks() -> None:
    conditions = REVISION.initial(0).mark_unknown("ContainerHealthy", "Deploying")
    conditions = conditions.mark_unknown(
        "ResourcesAvailable", "CreateContainerConfigError", 'configmap "absent" not found'
    )
    assert _shown(conditions)["Ready"] == "Unknown CreateContainerConfigError"
    conditions = _at(conditions, 3).mark_unknown("ContainerHealthy", "Unhealthy", "Readiness probe failed: …")
    assert _shown(conditions)["Ready"] == "Unknown Unhealthy"


def test_what_only_informs_has_severity_info_and_leaves_ready_alone() -> None:
    conditions = REVISION.initial(0).mark_true("ContainerHealthy").mark_true("ResourcesAvailable")
    conditions = _at(conditions, 5).mark_false("Active", "NoTraffic", "idle")
    active = conditions.get("Active")
    assert active is not None
    assert active.severity == "Info"
    assert conditions.is_happy
    assert all(item.severity == "" for item in conditions.items if item.type != "Active")


def test_the_time_changes_only_with_something_else() -> None:
    conditions = REVISION.initial(0).mark_unknown("ContainerHealthy", "Deploying", "a")
    again = _at(conditions, 60).mark_unknown("ContainerHealthy", "Deploying", "a")
    assert again.items == conditions.items
    changed = _at(conditions, 60).mark_unknown("ContainerHealthy", "Deploying", "b")
    times = {item.type: item.last_transition_time for item in changed.items}
    assert times == {
        "ContainerHealthy": "1970-01-01T00:01:00Z",
        "Ready": "1970-01-01T00:01:00Z",
        "ResourcesAvailable": "1970-01-01T00:00:00Z",
    }


def test_a_configuration_has_one_condition_that_is_marked_itself() -> None:
    conditions = SETS[kinds.CONFIGURATION.id].initial(0)
    assert _shown(conditions) == {"Ready": "Unknown"}
    assert _shown(conditions.mark_false("Ready", "RevisionFailed", "m")) == {"Ready": "False RevisionFailed"}
    assert _shown(conditions.mark_true("Ready")) == {"Ready": "True"}


def test_a_new_generation_that_was_not_reconciled_is_reported() -> None:
    conditions = REVISION.initial(0).mark_true("ContainerHealthy").mark_true("ResourcesAvailable")
    assert _shown(_at(conditions, 1).new_generation()) == {
        "ContainerHealthy": "True", "Ready": "Unknown NewObservedGenFailure", "ResourcesAvailable": "True",
    }  # fmt: skip


def test_a_build_is_ready_when_it_succeeded() -> None:
    conditions = SETS[kinds.BUILD_KIND.id].initial(0)
    assert _shown(conditions) == {"Ready": "Unknown", "Succeeded": "Unknown"}
    assert conditions.mark_true("Succeeded").is_happy


def test_conditions_go_on_from_a_status() -> None:
    status = RevisionStatus(conditions=(Condition(type="Ready", status="True", last_transition_time="x"),))
    conditions = conditions_of(kinds.REVISION, status, 7)
    assert conditions.is_happy
    assert conditions.status_of("Active") == "Unknown"
    assert conditions.initialized().get("Ready") == ConditionValues("Ready", "True", last_transition_time="x")


@pytest.mark.parametrize("kind", sorted(SETS))
@given(
    marks=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["True", "False", "Unknown"]), st.sampled_from(["", "A", "B"])),
        max_size=12,
    )
)
def test_ready_always_sums_up_the_others(kind: str, marks: list[tuple[int, ConditionStatus, str]]) -> None:
    kinds_ = SETS[kind]
    types = [*kinds_.feeding, *kinds_.informing] or [kinds_.happy]
    conditions = kinds_.initial(0)
    for now, (at, status, reason) in enumerate(marks, 1):
        conditions = _at(conditions, now)
        type_ = types[at % len(types)]
        conditions = (
            conditions.mark_true(type_) if status == "True"
            else conditions.mark_false(type_, reason) if status == "False"
            else conditions.mark_unknown(type_, reason)
        )  # fmt: skip
        assert [item.type for item in conditions.items] == sorted(item.type for item in conditions.items)
        feeding = [conditions.status_of(name) for name in kinds_.feeding]
        if feeding:
            expected = "False" if "False" in feeding else "Unknown" if "Unknown" in feeding else "True"
            assert conditions.status_of(kinds_.happy) == expected
