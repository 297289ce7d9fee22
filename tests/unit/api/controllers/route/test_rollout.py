"""Gradual rollout: one percent first, then equal steps; rollback at once; never more or less than all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.controllers.reconciler import objects
from api.controllers.route.hosts import Naming
from api.controllers.route.rollout import RolloutClock, advance, duration_of, encode_clocks
from api.controllers.route.traffic import RouteTarget, status_of
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json
from tests.unit.api.controllers.simulation import NOW, Simulation

HOST = "hello.default.localhost"
SLOW = {well_known.ROLLOUT_DURATION: "100s"}


def rolling(simulation: Simulation) -> None:
    """Version 1 serves, version 2 has its first percent and every activator knows."""
    simulation.service(annotations=SLOW)
    simulation.ready("hello-00001")
    simulation.service(image="v2", annotations=SLOW)
    simulation.settle()
    simulation.resolved("hello-00002")
    simulation.settle()
    simulation.scaled("hello-00002")
    simulation.settle()


def later(simulation: Simulation, seconds: float) -> None:
    simulation.now += seconds
    simulation._dirty[kinds.ROUTE.id, "default", "hello"] = None
    simulation.settle()


def step(simulation: Simulation, seconds: float) -> dict[str, int]:
    later(simulation, seconds)
    simulation.acknowledge()
    simulation.settle()
    return simulation.shares(HOST)


def test_the_first_revision_gets_everything_at_once() -> None:
    simulation = Simulation()
    simulation.service(annotations=SLOW)
    simulation.ready("hello-00001")
    assert simulation.shares(HOST) == {"hello-00001": 100}
    assert simulation.conditions(kinds.SERVICE)["Ready"] == ("True",)


def test_a_new_revision_begins_with_one_percent() -> None:
    simulation = Simulation()
    rolling(simulation)
    assert simulation.shares(HOST) == {"hello-00001": 99, "hello-00002": 1}
    assert simulation.conditions(kinds.ROUTE)["IngressReady"] == ("Unknown", "RolloutInProgress")
    assert simulation.conditions(kinds.SERVICE)["RoutesReady"] == ("Unknown", "RolloutInProgress")
    assert simulation.traffic() == [
        {"revisionName": "hello-00001", "latestRevision": True, "percent": 99},
        {"revisionName": "hello-00002", "latestRevision": True, "percent": 1},
    ]


def test_the_steps_are_as_many_as_the_first_one_leaves_time_for() -> None:
    """The first percent took 25 of 100 seconds to be known: four steps follow, as Knative documents."""
    simulation = Simulation()
    rolling(simulation)
    simulation.now += 25
    simulation.acknowledge()
    simulation.settle()
    seen = [simulation.shares(HOST).get("hello-00002")]
    seen += [step(simulation, 25).get("hello-00002") for _ in range(4)]
    assert seen == [1, 26, 51, 76, 100]
    assert simulation.conditions(kinds.SERVICE)["Ready"] == ("True",)
    assert "annotations" not in simulation.get(kinds.ROUTE)["status"]
    assert simulation.everything_again() == []


def test_nothing_moves_before_its_time_nor_without_the_activators() -> None:
    simulation = Simulation()
    rolling(simulation)
    later(simulation, 1000)
    assert simulation.shares(HOST) == {"hello-00001": 99, "hello-00002": 1}, "not acknowledged"
    simulation.acknowledge()
    simulation.settle()
    later(simulation, 0.5)
    assert simulation.shares(HOST) == {"hello-00001": 99, "hello-00002": 1}, "not yet due"


def test_the_old_revision_stays_active_until_it_has_nothing() -> None:
    simulation = Simulation()
    rolling(simulation)
    state = objects.labels(simulation.get(kinds.REVISION, "hello-00001"))[well_known.ROUTING_STATE]
    assert state == "active"


def test_a_newer_revision_takes_over_from_one_that_is_rolled_out() -> None:
    simulation = Simulation()
    rolling(simulation)
    simulation.now += 25
    simulation.acknowledge()
    simulation.settle()
    assert step(simulation, 25) == {"hello-00001": 74, "hello-00002": 26}
    simulation.service(image="v3", annotations=SLOW)
    simulation.ready("hello-00003")
    assert simulation.shares(HOST) == {"hello-00001": 74, "hello-00002": 25, "hello-00003": 1}
    for _ in range(99):
        step(simulation, 100 / 99)
    assert simulation.shares(HOST) == {"hello-00003": 100}


def test_going_back_to_the_revision_that_is_being_left_is_at_once() -> None:
    simulation = Simulation()
    simulation.service(annotations=SLOW, revision="hello-a", image="a")
    simulation.ready("hello-a")
    simulation.service(annotations=SLOW, revision="hello-b", image="b")
    simulation.ready("hello-b")
    assert simulation.shares(HOST) == {"hello-a": 99, "hello-b": 1}
    simulation.service(annotations=SLOW, revision="hello-a", image="a")
    simulation.settle()
    assert simulation.shares(HOST) == {"hello-a": 100}


def test_pinned_traffic_moves_at_once_in_a_rollout() -> None:
    simulation = Simulation()
    rolling(simulation)
    simulation.service(image="v2", annotations=SLOW, traffic=[{"revisionName": "hello-00002", "percent": 100}])
    simulation.settle()
    assert simulation.shares(HOST) == {"hello-00002": 100}


def test_only_the_share_of_the_latest_target_is_rolled_out() -> None:
    simulation = Simulation()
    simulation.service(annotations=SLOW)
    simulation.ready("hello-00001")
    split = [{"latestRevision": True, "percent": 40, "tag": "new"}, {"revisionName": "hello-00001", "percent": 60}]
    simulation.service(image="v2", annotations=SLOW, traffic=split)
    simulation.settle()
    simulation.acknowledge()
    simulation.ready("hello-00002")
    assert simulation.shares(HOST) == {"hello-00001": 99, "hello-00002": 1}
    assert sum(simulation.shares("new-" + HOST).values()) == 100


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, 7.0), ("0s", 0.0), ("90s", 90.0), ("2m", 120.0), ("nonsense", 7.0)]
)
def test_the_duration_is_the_routes_own_or_the_platforms(text: str | None, seconds: float) -> None:
    annotations = {} if text is None else {well_known.ROLLOUT_DURATION: text}
    assert duration_of({"metadata": {"annotations": annotations}}, 7.0) == seconds


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 60)), min_size=1, max_size=4, unique_by=lambda s: s[0]),
    st.sampled_from("abcd"),
    st.integers(0, 100),
    st.floats(0, 500),
    st.booleans(),
    st.sampled_from([0.0, 1.0, 30.0, 600.0]),
)
def test_whatever_the_state_all_of_the_share_is_given_out(
    shown: list[tuple[str, int]], newest: str, percent: int, passed: float, acknowledged: bool, duration: float
) -> None:
    revisions: dict[str, Json] = {
        name: {"metadata": {"generation": 1}, "status": {
            "observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}}
        for name in "abcd"
    }  # fmt: skip
    before = [RouteTarget(name, share, latest=True, configuration="c") for name, share in shown]
    route: Json = {"metadata": {"name": "r", "namespace": "n"}}
    clock = RolloutClock("c", shown[-1][0], start=NOW, next_step=NOW + 10, step_seconds=10, step_percent=25)
    route["status"] = {
        "traffic": status_of(before, route, Naming()),
        "annotations": {well_known.ROLLOUT_IN_PROGRESS: encode_clocks([clock])},
    }
    target = RouteTarget(newest, percent, latest=True, configuration="c")
    progress = advance([target], route, revisions, duration, acknowledged, NOW + passed)
    assert sum(target.percent for target in progress.targets) == percent
    assert all(target.percent >= 0 for target in progress.targets)
    assert progress.targets[-1].revision == newest
    names = [target.revision for target in progress.targets]
    assert len(names) == len(set(names))
    if not progress.clocks:
        assert names == [newest]
