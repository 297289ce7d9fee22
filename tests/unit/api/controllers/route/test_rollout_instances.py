"""Traffic moves to ready instances: each share waits for them, but not forever."""

import math

from hypothesis import given
from hypothesis import strategies as st

from api.controllers.reconciler import objects
from api.controllers.route import rollout
from api.controllers.route.rollout_instances import WAIT_SECONDS, RevisionLoad, instances_needed
from knoll.values import kinds
from knoll.values import labels as well_known
from tests.unit.api.controllers.simulation import Simulation

HOST = "hello.default.localhost"
OLD, NEW = "hello-00001", "hello-00002"


def loaded(by_load: int, seconds: str = "0s") -> Simulation:
    """The first Revision has load; the second is there and has one instance."""
    simulation = Simulation()
    annotations = {well_known.ROLLOUT_DURATION: seconds}
    simulation.service(annotations=annotations)
    simulation.ready(OLD)
    simulation.scaled(OLD, by_load, by_load, by_load=by_load)
    simulation.service(image="v2", annotations=annotations)
    simulation.settle()
    simulation.resolved(NEW)
    simulation.settle()
    simulation.scaled(NEW)
    simulation.settle()
    return simulation


def wants(simulation: Simulation) -> str | None:
    return objects.annotations(simulation.get(kinds.REVISION, NEW)).get("knoll.dev/rollout-scale")


def later(simulation: Simulation, seconds: float) -> None:
    simulation.now += seconds
    simulation._dirty[kinds.ROUTE.id, "default", "hello"] = None
    simulation.settle()


def test_traffic_waits_until_the_new_revision_has_what_the_load_wants() -> None:
    simulation = loaded(4)
    assert simulation.shares(HOST) == {OLD: 100}
    assert wants(simulation) == "4"
    assert simulation.conditions(kinds.ROUTE)["IngressReady"] == ("Unknown", "RolloutInProgress")
    assert simulation.message(kinds.ROUTE) == f"{NEW} gets its share of traffic when 4 of its instances are ready."
    simulation.scaled(NEW, 4, 3)
    simulation.settle()
    assert simulation.shares(HOST) == {OLD: 100}
    simulation.scaled(NEW, 4, 4)
    simulation.settle()
    assert simulation.shares(HOST) == {NEW: 100}
    assert wants(simulation) is None
    simulation.acknowledge()
    simulation.settle()
    assert simulation.conditions(kinds.SERVICE)["Ready"] == ("True",)
    assert simulation.everything_again() == []


def test_without_load_traffic_moves_at_once() -> None:
    assert loaded(0).shares(HOST) == {NEW: 100}
    assert loaded(1).shares(HOST) == {NEW: 100}


def test_traffic_moves_in_the_end_also_when_there_is_no_room_for_instances() -> None:
    simulation = loaded(4)
    later(simulation, WAIT_SECONDS - 1)
    assert simulation.shares(HOST) == {OLD: 100}
    later(simulation, 1)
    assert simulation.shares(HOST) == {NEW: 100}


def test_the_deadline_wakes_a_route_that_waits() -> None:
    simulation = loaded(4)
    route = simulation.get(kinds.ROUTE)
    (clock,) = rollout.clocks_of(route)
    assert clock.waits_since == simulation.now
    later(simulation, 20)
    (clock,) = rollout.clocks_of(simulation.get(kinds.ROUTE))
    assert clock.waits_since == simulation.now - 20


def test_each_step_of_a_rollout_waits_for_its_instances() -> None:
    simulation = loaded(10, "100s")
    assert simulation.shares(HOST) == {OLD: 99, NEW: 1}
    simulation.now += 25
    simulation.acknowledge()
    simulation.settle()
    assert wants(simulation) == "3"  # of ten, for 26 percent: asked for before its time
    later(simulation, 25)
    assert simulation.shares(HOST) == {OLD: 99, NEW: 1}
    simulation.scaled(NEW, 3, 3)
    simulation.settle()
    assert simulation.shares(HOST) == {OLD: 74, NEW: 26}
    assert wants(simulation) == "6"
    simulation.scaled(OLD, 8, 8, by_load=8)
    simulation.scaled(NEW, 6, 6, by_load=2)
    simulation.acknowledge()
    later(simulation, 25)
    assert simulation.shares(HOST) == {OLD: 49, NEW: 51}
    assert simulation.everything_again() == []


def test_a_revision_that_is_left_again_is_asked_for_nothing() -> None:
    simulation = loaded(4)
    simulation.service(image="v3")
    simulation.settle()
    simulation.resolved("hello-00003")
    simulation.settle()
    simulation.scaled("hello-00003", 4, 4)
    simulation.settle()
    assert simulation.shares(HOST) == {"hello-00003": 100}
    assert wants(simulation) is None


LOADS = st.builds(
    RevisionLoad,
    by_load=st.integers(0, 1000),
    target=st.floats(0.01, 1000),
    metric=st.sampled_from(["concurrency", "rps"]),
    ready=st.just(0),
    most=st.integers(0, 50),
)


@given(LOADS, LOADS, st.integers(1, 100), st.integers(1, 100))
def test_more_of_the_traffic_never_wants_fewer_instances(
    old: RevisionLoad, new: RevisionLoad, first: int, second: int
) -> None:
    both = {OLD: old, NEW: new}
    less, more = sorted((first, second))
    assert instances_needed(NEW, [OLD], less / 100, both) <= instances_needed(NEW, [OLD], more / 100, both)


@given(LOADS, LOADS, st.integers(1, 100))
def test_what_is_wanted_can_take_the_share_of_the_load_and_is_within_max_scale(
    old: RevisionLoad, new: RevisionLoad, percent: int
) -> None:
    want = instances_needed(NEW, [OLD], percent / 100, {OLD: old, NEW: new})
    assert not new.most or want <= new.most
    if old.metric == new.metric and not (new.most and want == new.most):
        load = (old.by_load * old.target + new.by_load * new.target) * percent / 100
        assert want * new.target >= load - 1e-6 * max(1.0, load)
        assert (want - 1) * new.target < load or want == 0


@given(st.integers(0, 100), st.sampled_from([0.7, 0.07, 7.0, 70.0, 1.1]))
def test_the_same_target_wants_the_same_instances_for_all_of_the_traffic(by_load: int, target: float) -> None:
    old, new = RevisionLoad(by_load, target, "rps", 0, 0), RevisionLoad(0, target, "rps", 0, 0)
    assert instances_needed(NEW, [OLD], 1.0, {OLD: old, NEW: new}) == by_load
    assert instances_needed(NEW, [OLD], 0.5, {OLD: old, NEW: new}) == math.ceil(by_load / 2)


def test_metrics_that_cannot_be_compared_count_by_instances() -> None:
    both = {OLD: RevisionLoad(4, 70.0, "concurrency", 4, 0), NEW: RevisionLoad(0, 150.0, "rps", 0, 0)}
    assert instances_needed(NEW, [OLD], 1.0, both) == 4
    assert instances_needed("unknown", [OLD], 1.0, both) == 0
