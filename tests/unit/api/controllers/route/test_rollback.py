"""A new Revision that does worse gives its traffic back, once, and says why."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from api.controllers.reconciler import objects
from api.controllers.route.rollback import encode_trials, evaluate, policy_of, trials_of
from api.controllers.route.traffic import RouteTarget
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json
from tests.unit.api.controllers.simulation import NOW, Simulation

HOST = "hello.default.localhost"
FIRST, SECOND, THIRD = "hello-00001", "hello-00002", "hello-00003"
WHY = "12.0 % of 50 requests failed, compared with 0.0 % of 400 of hello-00001; limit: +5 percentage points"
POLICY = {well_known.ROLLBACK_ON: "error-rate>5%, window=60s"}


def deploy(simulation: Simulation, name: str, policy: dict[str, str] | None = None, seconds: str = "100s") -> None:
    """Apply another version and take it to its first share."""
    spec: dict[str, Any] = {"containers": [{"name": "user-container", "image": name}], "timeoutSeconds": 300}
    template = {"metadata": {"annotations": POLICY if policy is None else policy}, "spec": spec}
    body = {"template": template, "traffic": [{"latestRevision": True, "percent": 100}]}
    meta = {well_known.CREATOR: "admin", well_known.LAST_MODIFIER: "admin", well_known.ROLLOUT_DURATION: seconds}
    simulation.apply(kinds.SERVICE, "hello", body, annotations=meta, labels={})
    simulation.ready(name)


def later(simulation: Simulation, seconds: float) -> None:
    simulation.now += seconds
    simulation._dirty[kinds.ROUTE.id, "default", "hello"] = None
    simulation.settle()


def note(simulation: Simulation, name: str) -> str | None:
    return objects.annotations(simulation.get(kinds.REVISION, name)).get("knoll.dev/rollout-from")


def test_a_revision_that_does_worse_is_rolled_back_in_the_midst_of_its_rollout() -> None:
    simulation = Simulation()
    deploy(simulation, FIRST)
    deploy(simulation, SECOND)
    assert simulation.shares(HOST) == {FIRST: 99, SECOND: 1}
    assert note(simulation, SECOND) == FIRST
    simulation.scaled(SECOND, rollback=WHY)
    simulation.settle()
    assert simulation.shares(HOST) == {FIRST: 100}
    assert note(simulation, SECOND) is None
    assert simulation.conditions(kinds.SERVICE)["Ready"] == ("False", "RolledBack")
    assert simulation.message(kinds.SERVICE) == f"Traffic was rolled back from {SECOND} to {FIRST}: {WHY}."
    (event,) = [event for event in simulation.events if event.reason == "RolledBack"]
    assert (event.type, event.message) == ("Warning", f"Traffic was rolled back from {SECOND} to {FIRST}: {WHY}")


def test_what_was_rolled_back_stays_without_traffic_until_the_next_generation() -> None:
    simulation = Simulation()
    deploy(simulation, FIRST)
    deploy(simulation, SECOND)
    simulation.scaled(SECOND, rollback=WHY)
    simulation.settle()
    simulation.acknowledge()
    for _ in range(5):
        simulation.scaled(SECOND)  # the autoscaler has forgotten, or begun anew
        later(simulation, 1000)
        assert simulation.shares(HOST) == {FIRST: 100}
    assert simulation.everything_again() == []
    labels = objects.labels(simulation.get(kinds.REVISION, SECOND))
    assert labels[well_known.ROUTING_STATE] == well_known.RESERVE, "its min-scale holds nothing up"
    deploy(simulation, THIRD)
    assert simulation.shares(HOST) == {FIRST: 99, THIRD: 1}
    assert note(simulation, THIRD) == FIRST
    assert simulation.conditions(kinds.ROUTE)["AllTrafficAssigned"] == ("True",)
    assert len([event for event in simulation.events if event.reason == "RolledBack"]) == 1


def test_a_revision_that_got_everything_at_once_can_still_go_back_for_a_window() -> None:
    simulation = Simulation()
    deploy(simulation, FIRST, seconds="0s")
    deploy(simulation, SECOND, seconds="0s")
    assert simulation.shares(HOST) == {SECOND: 100}
    assert note(simulation, SECOND) == FIRST
    simulation.scaled(SECOND, rollback=WHY)
    later(simulation, 30)
    assert simulation.shares(HOST) == {FIRST: 100}


def test_nothing_is_rolled_back_after_the_trial() -> None:
    simulation = Simulation()
    deploy(simulation, FIRST, seconds="0s")
    deploy(simulation, SECOND, seconds="0s")
    later(simulation, 61)
    assert note(simulation, SECOND) is None
    simulation.scaled(SECOND, rollback=WHY)
    later(simulation, 1)
    assert simulation.shares(HOST) == {SECOND: 100}
    assert simulation.conditions(kinds.SERVICE)["Ready"] == ("True",)
    assert "annotations" not in simulation.get(kinds.ROUTE)["status"]
    assert simulation.everything_again() == []


def test_the_trial_ends_by_itself() -> None:
    simulation = Simulation()
    deploy(simulation, FIRST, seconds="0s")
    deploy(simulation, SECOND, seconds="0s")
    (trial,) = trials_of(simulation.get(kinds.ROUTE))
    assert (trial.revision, trial.good, trial.until) == (SECOND, FIRST, simulation.now + 60)


def test_a_rollback_never_goes_to_a_revision_on_trial() -> None:
    simulation = Simulation()
    deploy(simulation, FIRST)
    deploy(simulation, SECOND)
    deploy(simulation, THIRD)
    (trial,) = trials_of(simulation.get(kinds.ROUTE))
    assert (trial.revision, trial.good) == (THIRD, FIRST)
    simulation.scaled(THIRD, rollback=WHY)
    simulation.settle()
    assert simulation.shares(HOST) == {FIRST: 100}


def test_without_the_annotation_nothing_is_watched() -> None:
    simulation = Simulation()
    deploy(simulation, FIRST)
    deploy(simulation, SECOND, policy={})
    simulation.scaled(SECOND, rollback=WHY)
    simulation.settle()
    assert simulation.shares(HOST) == {FIRST: 99, SECOND: 1}
    assert not trials_of(simulation.get(kinds.ROUTE))


def test_a_rollback_never_goes_to_a_deleted_revision() -> None:
    simulation = Simulation()
    deploy(simulation, FIRST, seconds="0s")
    deploy(simulation, SECOND, seconds="0s")
    simulation.delete(kinds.REVISION, FIRST)
    simulation.settle()
    simulation.scaled(SECOND, rollback=WHY)
    later(simulation, 1)
    assert simulation.shares(HOST) == {SECOND: 100}


def revision(name: str, policy: str = "error-rate>5%") -> Json:
    ready = [{"type": "Ready", "status": "True"}]
    meta = {"name": name, "generation": 1, "annotations": {well_known.ROLLBACK_ON: policy} if policy else {}}
    return {"metadata": meta, "status": {"observedGeneration": 1, "conditions": ready}}


STEPS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0, 100), st.booleans()), min_size=1, max_size=30)


@given(STEPS)
def test_a_revision_that_fell_gets_no_traffic_while_it_is_the_latest(
    steps: list[tuple[int, bool, float, bool]],
) -> None:
    """Whatever becomes the latest, is found worse or not, and however fast traffic moves."""
    route: Json = {"metadata": {"name": "r", "namespace": "n"}, "status": {}}
    names = ["a", "b", "c", "d"]
    revisions = {name: revision(name) for name in names}
    now, latest, rolled_back = NOW, 0, ""
    for jump, worse, seconds, moves in steps:
        now += seconds
        if jump and latest < 3:
            latest += 1
            rolled_back = ""
        newest = names[latest]
        decision = evaluate(
            [RouteTarget(newest, 100, latest=True, configuration="c")],
            route,
            revisions,
            {newest: "why"} if worse else {},
            now,
        )
        (target,) = decision.targets
        assert target.revision in names[: latest + 1]
        if rolled_back:
            assert target.revision != rolled_back
        if decision.rolled_back:
            assert not rolled_back, "it falls once"
            rolled_back = newest
        shown = target.revision if moves or not route["status"].get("traffic") else None
        if shown:
            route["status"]["traffic"] = [{"revisionName": shown, "latestRevision": True, "percent": 100}]
        route["status"]["annotations"] = (
            {well_known.ROLLBACK: encode_trials(decision.trials)} if decision.trials else {}
        )


def test_an_invalid_policy_disables_rollbacks() -> None:
    assert policy_of(revision("a", "nonsense")) is None
    assert policy_of(None) is None
