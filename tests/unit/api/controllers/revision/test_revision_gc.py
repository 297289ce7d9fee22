"""Which Revisions are deleted once nothing is routed to them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.controllers.revision.revision_gc import superfluous
from knoll.config.gc import GCConfig
from knoll.config.platform import PlatformConfig
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json
from knoll.values.timestamps import timestamp
from tests.unit.api.controllers.simulation import NOW, Simulation

HOUR = 3600.0
CONFIGURATION: Json = {
    "metadata": {"name": "c"}, "status": {"latestReadyRevisionName": "ready", "latestCreatedRevisionName": "created"}
}  # fmt: skip


def revision(name: str, created: float = 100, left: float = 100, state: str = "reserve", **notes: str) -> Json:
    """Args: created, left: hours ago."""
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": timestamp(NOW - created * HOUR),
            "labels": {well_known.ROUTING_STATE: state},
            "annotations": {
                well_known.ROUTING_STATE_MODIFIED: timestamp(NOW - left * HOUR),
                **{f"serving.knative.dev/{key.replace('_', '-')}": value for key, value in notes.items()},
            },
        }
    }


def config(**values: Any) -> GCConfig:
    return GCConfig(**{"min_non_active_revisions": 0, **values})


def names(revisions: list[Json], rules: GCConfig) -> list[str]:
    return [body["metadata"]["name"] for body in superfluous(CONFIGURATION, revisions, rules, NOW)[0]]


@pytest.mark.parametrize(
    ("kept", "body"),
    [
        ("the latest ready one", revision("ready")),
        ("the latest created one", revision("created")),
        ("an active one", revision("a", state="active")),
        ("one that waits for its first route", revision("a", state="pending")),
        ("one that its user preserves", revision("a", no_gc="true")),
        ("a young one", revision("a", created=47)),
        ("one that was active not long ago", revision("a", left=14)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kept(kept: str, body: Json) -> None:
    assert names([body], config()) == []


def test_an_old_unused_revision_is_deleted() -> None:
    assert names([revision("a", created=49, left=16)], config()) == ["a"]


def test_the_least_number_stays_and_the_longest_unused_go_first() -> None:
    revisions = [revision(f"r{hours}", left=hours) for hours in (20, 50, 30, 40)]
    assert names(revisions, config(min_non_active_revisions=2)) == ["r50", "r40"]


def test_more_than_the_most_go_though_they_be_young() -> None:
    revisions = [revision(f"r{hours}", created=hours, left=hours) for hours in (1, 2, 3, 4)]
    assert names(revisions, config(max_non_active_revisions=3)) == ["r4"]


def test_with_everything_disabled_nothing_goes() -> None:
    off = config(retain_since_create_seconds=None, retain_since_last_active_seconds=None, max_non_active_revisions=None)
    assert names([revision(f"r{number}", created=10_000, left=10_000) for number in range(50)], off) == []


def test_one_disabled_age_leaves_the_other() -> None:
    assert names([revision("a", created=1, left=16)], config(retain_since_create_seconds=None)) == ["a"]


def test_the_time_of_the_next_deletion_is_returned() -> None:
    gone, wait = superfluous(CONFIGURATION, [revision("a", created=47.5)], config(), NOW)
    assert gone == []
    assert wait == pytest.approx(0.5 * HOUR)


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200), st.sampled_from(["active", "reserve"])), max_size=12),
    st.integers(0, 5),
    st.integers(5, 8) | st.none(),
)
def test_neither_bound_is_ever_broken(ages: list[tuple[int, int, str]], least: int, most: int | None) -> None:
    revisions = [revision(f"r{i}", *ages_) for i, ages_ in enumerate(ages)]
    gone = names(revisions, config(min_non_active_revisions=least, max_non_active_revisions=most))
    idle = [body for body in revisions if body["metadata"]["labels"][well_known.ROUTING_STATE] == "reserve"]
    assert set(gone) <= {body["metadata"]["name"] for body in idle}
    left = len(idle) - len(gone)
    assert left >= min(least, len(idle))
    assert most is None or left <= most


def test_the_configuration_deletes_them() -> None:
    simulation = Simulation()
    simulation.state.config = PlatformConfig(gc=GCConfig(min_non_active_revisions=1))
    for number in range(1, 5):
        simulation.service(image=f"v{number}")
        simulation.ready(f"hello-{number:05d}")
    assert len(simulation.names(kinds.REVISION)) == 4
    simulation.now += 49 * HOUR
    simulation._dirty[kinds.CONFIGURATION.id, "default", "hello"] = None
    simulation.settle()
    assert simulation.names(kinds.REVISION) == ["hello-00003", "hello-00004"]
    assert simulation.everything_again() == []
