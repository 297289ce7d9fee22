"""What holds for every Service, whatever happens to it in whatever order."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from api.controllers.engine import dispatch
from api.controllers.reconciler import objects
from api.controllers.route import rollback, traffic
from api.controllers.route.hosts import Naming
from api.controllers.route.traffic import RouteTarget
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json
from tests.unit.api.controllers.simulation import Simulation

VERSIONS = ("v1", "v2", "v3")


@st.composite
def splits(draw: st.DrawFn, most: int = 5) -> list[int]:
    """Percents that sum to 100."""
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=0, max_size=most - 1)))
    return [high - low for low, high in zip([0, *cuts], [*cuts, 100], strict=True)]


@st.composite
def targets(draw: st.DrawFn) -> list[RouteTarget]:
    percents = draw(splits())
    revisions = draw(st.lists(st.sampled_from("abc"), min_size=len(percents), max_size=len(percents)))
    tags = draw(st.lists(st.sampled_from(["", "", "t1", "t2", "t3"]), min_size=len(percents), max_size=len(percents)))
    latest = draw(st.lists(st.booleans(), min_size=len(percents), max_size=len(percents)))
    return [
        RouteTarget(revision, percent, tag, is_latest)
        for revision, percent, tag, is_latest in zip(revisions, percents, tags, latest, strict=True)
    ]


def route(name: str = "r") -> Json:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {}}


def revisions() -> dict[str, Json]:
    return {name: {"spec": {"containers": [{"name": "c"}]}} for name in "abc"}


@given(targets(), st.frozensets(st.sampled_from(["", "t1", "t2"])))
def test_the_shares_of_every_host_sum_to_100(given: Sequence[RouteTarget], local: frozenset[str]) -> None:
    entry = traffic.entry_of(traffic.merged(given), route(), revisions(), Naming(), local)
    for shares in (*entry.hosts.values(), *entry.local_hosts.values()):
        assert sum(share.percent for share in shares) == 100
        assert all(0 < share.percent <= 100 for share in shares)
        assert {share.revision for share in shares} <= set(entry.revisions)
    assert set(entry.revisions) == {f"default/{target.revision}" for target in given}


@given(targets())
def test_every_revision_gets_exactly_its_percents(given: Sequence[RouteTarget]) -> None:
    entry = traffic.entry_of(traffic.merged(given), route(), revisions(), Naming())
    expected = {name: sum(target.percent for target in given if target.revision == name) for name in "abc"}
    actual = {share.revision.removeprefix("default/"): share.percent for share in entry.hosts["r.default.localhost"]}
    assert actual == {name: percent for name, percent in expected.items() if percent}


@given(targets())
def test_merging_keeps_the_sum_and_leaves_no_two_alike(given: Sequence[RouteTarget]) -> None:
    merged = traffic.merged(given)
    assert sum(target.percent for target in merged) == sum(target.percent for target in given)
    same = [(target.tag, target.revision, target.latest) for target in merged]
    assert len(same) == len(set(same))
    assert traffic.merged(merged) == merged


class AnyOrder(RuleBasedStateMachine):
    """A user, a builder, an autoscaler and activators do what they do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation = Simulation()
        self.simulation.service(revision="hello-v1")
        self.ever_ready: set[str] = set()

    @rule(version=st.sampled_from(VERSIONS), percents=splits(3), named=st.booleans())
    def apply(self, version: str, percents: list[int], named: bool) -> None:
        if not self.there():
            return
        traffic: list[Json] = [
            {"revisionName": f"hello-{VERSIONS[i]}", "percent": percent, "tag": f"t{i}", "latestRevision": False}
            for i, percent in enumerate(percents)
        ]
        latest: list[Json] = [{"latestRevision": True, "percent": 100}]
        self.simulation.service(
            revision=f"hello-{version}",
            image=version,
            traffic=traffic if named else latest,
            template_annotations={well_known.ROLLBACK_ON: "error-rate>5%"} if version != "v1" else {},
        )

    @rule(label=st.sampled_from(["", "cluster-local"]))
    def make_local(self, label: str) -> None:
        if self.there():
            body = self.simulation.get(kinds.SERVICE)
            labels = {well_known.VISIBILITY: label} if label else {}
            self.simulation.store(kinds.SERVICE.id, objects.changed(body, new_labels=labels))

    @rule()
    def some_work(self) -> None:
        """The controllers are stopped in the middle: only what is written counts afterwards."""
        for key in list(self.simulation._dirty)[:2]:
            del self.simulation._dirty[key]
            self.simulation.reconcile(key)
        self.remember()

    @rule(actions=st.integers(0, 6))
    def die(self, actions: int) -> None:
        """The process of the controllers dies between two writes, and another one takes over."""
        for key in list(self.simulation._dirty)[:1]:
            del self.simulation._dirty[key]
            self.simulation.reconcile(key, most=actions)
        self.remember()

    @rule()
    def settle(self) -> None:
        """Whatever a change does not affect needed no reconciliation."""
        self.simulation.settle()
        simulation = self.simulation
        for key in set(simulation.keys()) - simulation.timed:
            assert dispatch.decide(key, simulation.state, simulation.now).actions == []
        self.remember()

    @rule(version=st.sampled_from(VERSIONS), error=st.booleans())
    def resolve(self, version: str, error: bool) -> None:
        if self.has(version):
            self.simulation.resolved(f"hello-{version}", error="no such image" if error else "")

    @rule(seconds=st.sampled_from([1.0, 30.0, 100.0]))
    def wait(self, seconds: float) -> None:
        """What waits for a time is looked at again."""
        self.simulation.now += seconds
        self.simulation._dirty.update(dict.fromkeys(self.simulation.keys()))

    @rule(
        version=st.sampled_from(VERSIONS),
        actual=st.integers(0, 2),
        by_load=st.integers(0, 3),
        worse=st.sampled_from(["", "", "it fails more often"]),
    )
    def scale(self, version: str, actual: int, by_load: int = 0, worse: str = "") -> None:
        if self.has(version) and objects.status(self.simulation.get(kinds.REVISION, f"hello-{version}")).get(
            "containerStatuses"
        ):
            self.simulation.scaled(
                f"hello-{version}",
                actual=actual,
                active="True" if actual else "False",
                reason="",
                by_load=by_load,
                rollback=worse,
            )

    @rule(version=st.sampled_from(VERSIONS), acknowledged=st.booleans())
    def bring_up(self, version: str, acknowledged: bool) -> None:
        """All that it takes, so that what comes after is often about something that serves."""
        self.settle()
        if self.has(version):
            self.resolve(version, error=False)
            self.settle()
            self.scale(version, 1)
            self.settle()
        if acknowledged and "default/hello" in self.simulation.state.routing:
            self.simulation.acknowledge()
            self.settle()

    @rule(version=st.sampled_from(VERSIONS), by_load=st.integers(0, 3), worse=st.sampled_from(["", "it fails more"]))
    def roll_out(self, version: str, by_load: int, worse: str) -> None:
        """A new latest Revision, while what serves has that load; then it may do worse."""
        for serving in VERSIONS:
            if f"hello-{serving}" in self.ever_ready:
                self.scale(serving, by_load or 1, by_load)
        self.apply(version, [100], named=False)
        self.bring_up(version, acknowledged=True)
        self.scale(version, 1, 0, worse)

    @rule(version=st.sampled_from(VERSIONS))
    def fail(self, version: str) -> None:
        revision = f"hello-{version}"
        if self.has(version) and revision not in self.ever_ready:
            self.simulation.fails(revision, "ContainerHealthy", "ExitCode1", "it exited")

    @precondition(lambda self: "default/hello" in self.simulation.state.routing)
    @rule()
    def acknowledge(self) -> None:
        self.simulation.acknowledge()

    @rule()
    def delete_and_make_again(self) -> None:
        if not self.there():
            self.ever_ready.clear()
            self.simulation.service(revision="hello-v1")
        else:
            self.simulation.delete(kinds.SERVICE, "hello")
            self.simulation.settle()
            assert self.simulation.state.routing == {}
            assert self.simulation.names(kinds.REVISION) == []

    @invariant()
    def ready_means_acknowledged(self) -> None:
        current_route = self.simulation.state.cache.get(kinds.ROUTE.id, "default", "hello")
        if current_route and objects.is_ready(current_route):
            version, entry = self.simulation.state.routing["default/hello"]
            assert self.simulation.acknowledged_versions.get("default/hello") == version
            percents = [target["percent"] for target in objects.status(current_route)["traffic"]]
            assert sum(percents) == 100
            assert entry.local_hosts

    @invariant()
    def only_revisions_that_were_ready_are_routed_to(self) -> None:
        if "default/hello" in self.simulation.state.routing:
            routed = self.simulation.state.routing["default/hello"][1].revisions
            assert {name.removeprefix("default/") for name in routed} <= self.ever_ready

    @invariant()
    def percents_sum_to_100(self) -> None:
        for _, entry in self.simulation.state.routing.values():
            for shares in (*entry.hosts.values(), *entry.local_hosts.values()):
                assert sum(share.percent for share in shares) == 100

    def teardown(self) -> None:
        """Once all is settled there is nothing left to do, and a ready Service says what is routed."""
        self.look_at_routes()
        self.simulation.settle()
        assert self.simulation.everything_again() == []

    @invariant()
    def what_fell_gets_nothing(self) -> None:
        current_route = self.simulation.state.cache.get(kinds.ROUTE.id, "default", "hello")
        if current_route and not self.simulation._dirty:
            fallen = {watch.revision for watch in rollback.trials_of(current_route) if watch.why}
            latest = [target for target in objects.status(current_route).get("traffic", ()) if target["latestRevision"]]
            assert not fallen & {target["revisionName"] for target in latest}

    def look_at_routes(self) -> None:
        if self.simulation.state.cache.get(kinds.ROUTE.id, "default", "hello"):
            self.simulation._dirty[kinds.ROUTE.id, "default", "hello"] = None

    def remember(self) -> None:
        for name in self.simulation.names(kinds.REVISION):
            if objects.is_ready(self.simulation.get(kinds.REVISION, name)):
                self.ever_ready.add(name)

    def there(self) -> bool:
        return self.simulation.names(kinds.SERVICE) == ["hello"]

    def has(self, version: str) -> bool:
        return f"hello-{version}" in self.simulation.names(kinds.REVISION)


TestAnyOrder = AnyOrder.TestCase
