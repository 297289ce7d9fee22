"""Traffic moves to instances that are there: each share waits for them, but not for ever."""

import math

from hypothesis import given
from hypothesis import strategies as st

from api.controllers.common import objects
from api.controllers.route import rollout
from api.controllers.route.readiness import WAIT_SECONDS, Standing, wanted
from knoll.values import kinds
from knoll.values import labels as well_known
from tests.unit.api.controllers.simulation import Simulation

HOST = "hello.default.localhost"
OLD, NEW = "hello-00001", "hello-00002"


def loaded(by_load: int, seconds: str = "0s") -> Simulation:
    """The first Revision has load; the second is there and has one instance."""
    world = Simulation()
    annotations = {well_known.ROLLOUT_DURATION: seconds}
    world.service(annotations=annotations)
    world.ready(OLD)
    world.scaled(OLD, by_load, by_load, by_load=by_load)
    world.service(image="v2", annotations=annotations)
    world.settle()
    world.resolved(NEW)
    world.settle()
    world.scaled(NEW)
    world.settle()
    return world


def wants(world: Simulation) -> str | None:
    return objects.annotations(world.get(kinds.REVISION, NEW)).get("knoll.dev/rollout-scale")


def later(world: Simulation, seconds: float) -> None:
    world.now += seconds
    world._dirty[kinds.ROUTE.id, "default", "hello"] = None
    world.settle()


def test_traffic_waits_until_the_new_revision_has_what_the_load_wants() -> None:
    world = loaded(4)
    assert world.shares(HOST) == {OLD: 100}
    assert wants(world) == "4"
    assert world.conditions(kinds.ROUTE)["IngressReady"] == ("Unknown", "RolloutInProgress")
    assert world.message(kinds.ROUTE) == f"{NEW} gets its share when 4 of its instances are ready."
    world.scaled(NEW, 4, 3)
    world.settle()
    assert world.shares(HOST) == {OLD: 100}
    world.scaled(NEW, 4, 4)
    world.settle()
    assert world.shares(HOST) == {NEW: 100}
    assert wants(world) is None
    world.acknowledge()
    world.settle()
    assert world.conditions(kinds.SERVICE)["Ready"] == ("True",)
    assert world.everything_again() == []


def test_without_load_traffic_moves_at_once() -> None:
    assert loaded(0).shares(HOST) == {NEW: 100}
    assert loaded(1).shares(HOST) == {NEW: 100}


def test_traffic_moves_in_the_end_also_when_there_is_no_room_for_instances() -> None:
    world = loaded(4)
    later(world, WAIT_SECONDS - 1)
    assert world.shares(HOST) == {OLD: 100}
    later(world, 1)
    assert world.shares(HOST) == {NEW: 100}


def test_the_deadline_wakes_a_route_that_waits() -> None:
    world = loaded(4)
    route = world.get(kinds.ROUTE)
    (clock,) = rollout.clocks_of(route)
    assert clock.waits_since == world.now
    later(world, 20)
    (clock,) = rollout.clocks_of(world.get(kinds.ROUTE))
    assert clock.waits_since == world.now - 20


def test_each_step_of_a_rollout_waits_for_its_instances() -> None:
    world = loaded(10, "100s")
    assert world.shares(HOST) == {OLD: 99, NEW: 1}
    world.now += 25
    world.acknowledge()
    world.settle()
    assert wants(world) == "3"  # of ten, for 26 percent: asked for before its time
    later(world, 25)
    assert world.shares(HOST) == {OLD: 99, NEW: 1}
    world.scaled(NEW, 3, 3)
    world.settle()
    assert world.shares(HOST) == {OLD: 74, NEW: 26}
    assert wants(world) == "6"
    world.scaled(OLD, 8, 8, by_load=8)
    world.scaled(NEW, 6, 6, by_load=2)
    world.acknowledge()
    later(world, 25)
    assert world.shares(HOST) == {OLD: 49, NEW: 51}
    assert world.everything_again() == []


def test_a_revision_that_is_left_again_is_asked_for_nothing() -> None:
    world = loaded(4)
    world.service(image="v3")
    world.settle()
    world.resolved("hello-00003")
    world.settle()
    world.scaled("hello-00003", 4, 4)
    world.settle()
    assert world.shares(HOST) == {"hello-00003": 100}
    assert wants(world) is None


STANDINGS = st.builds(
    Standing,
    by_load=st.integers(0, 1000),
    target=st.floats(0.01, 1000),
    metric=st.sampled_from(["concurrency", "rps"]),
    ready=st.just(0),
    most=st.integers(0, 50),
)


@given(STANDINGS, STANDINGS, st.integers(1, 100), st.integers(1, 100))
def test_more_of_the_traffic_never_wants_fewer_instances(old: Standing, new: Standing, one: int, other: int) -> None:
    both = {OLD: old, NEW: new}
    less, more = sorted((one, other))
    assert wanted(NEW, [OLD], less / 100, both) <= wanted(NEW, [OLD], more / 100, both)


@given(STANDINGS, STANDINGS, st.integers(1, 100))
def test_what_is_wanted_can_take_the_share_of_the_load_and_is_within_max_scale(
    old: Standing, new: Standing, percent: int
) -> None:
    want = wanted(NEW, [OLD], percent / 100, {OLD: old, NEW: new})
    assert not new.most or want <= new.most
    if old.metric == new.metric and not (new.most and want == new.most):
        load = (old.by_load * old.target + new.by_load * new.target) * percent / 100
        assert want * new.target >= load - 1e-6 * max(1.0, load)
        assert (want - 1) * new.target < load or want == 0


@given(st.integers(0, 100), st.sampled_from([0.7, 0.07, 7.0, 70.0, 1.1]))
def test_the_same_target_wants_the_same_instances_for_all_of_the_traffic(by_load: int, target: float) -> None:
    old, new = Standing(by_load, target, "rps", 0, 0), Standing(0, target, "rps", 0, 0)
    assert wanted(NEW, [OLD], 1.0, {OLD: old, NEW: new}) == by_load
    assert wanted(NEW, [OLD], 0.5, {OLD: old, NEW: new}) == math.ceil(by_load / 2)


def test_metrics_that_cannot_be_compared_count_by_instances() -> None:
    both = {OLD: Standing(4, 70.0, "concurrency", 4, 0), NEW: Standing(0, 150.0, "rps", 0, 0)}
    assert wanted(NEW, [OLD], 1.0, both) == 4
    assert wanted("unknown", [OLD], 1.0, both) == 0
