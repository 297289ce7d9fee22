"""The place book with events in any order: invariants at each moment, and the final state."""

import itertools
from collections import Counter
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from autoscaler.placement.protocol import Constraints
from autoscaler.placement.swarm.model import Cluster, SwarmNode, SwarmService, SwarmTask
from autoscaler.placement.swarm.place_book import PlaceBook
from autoscaler.placement.swarm.places import PlaceOptions
from autoscaler.placement.swarm.services import PlaceSize

CORE = 10**9
NAMES = ("n1", "n2", "n3")
SIZES = (PlaceSize(), PlaceSize(CORE), PlaceSize(2 * CORE, 2**30))
OPTIONS = PlaceOptions(ahead=2, per_node=2, keep_seconds=600)
CONSTRAINTS = st.builds(
    Constraints,
    node=st.none() | st.sampled_from(NAMES),
    excluded=st.frozensets(st.sampled_from(NAMES), max_size=2),
    preferred=st.none() | st.sampled_from(NAMES),
    instances=st.dictionaries(st.sampled_from(NAMES), st.integers(1, 2)),
)


class AnyOrder(RuleBasedStateMachine):
    """A Swarm that responds in any order and loses tasks, and a leader that uses its places in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.instances: dict[str, Constraints] = {}
        self.nodes: dict[str, str] = {}
        self.services: dict[str, SwarmService] = {}
        self.tasks: dict[str, SwarmTask] = {}
        self.unanswered: list[tuple[str, PlaceSize, tuple[str, ...]]] = []
        self.constraints: dict[str, tuple[str, ...]] = {}
        self.numbers, self.names = itertools.count(), itertools.count()
        self.book = self.new_book()

    def new_book(self) -> PlaceBook:
        book = PlaceBook(OPTIONS, lambda: f"place-{next(self.names)}")
        book.cluster = Cluster(
            {name: f"id-{name}" for name in NAMES},
            {f"id-{name}": SwarmNode(f"id-{name}", name, "manager", "active", "ready", 4.0, 2**33) for name in NAMES},
        )
        book.sync(self.services.values(), list(self.tasks.values()), frozenset(), self.now)
        return book

    @rule(size=st.sampled_from(SIZES), constraints=CONSTRAINTS)
    def place(self, size: PlaceSize, constraints: Constraints) -> None:
        name = f"instance-{next(self.numbers)}"
        self.instances[name] = constraints
        self.book.place(name, size, constraints)
        self.take_bound()

    @precondition(lambda self: self.instances)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.instances)))
        del self.instances[name]
        self.nodes.pop(name, None)
        self.book.withdraw(name, self.now)
        self.take_bound()

    @rule(seconds=st.sampled_from([0.1, 2.0, 700.0]))
    def plan(self, seconds: float) -> None:
        self.now += seconds
        plan = self.book.plan(self.now)
        for place in plan.create:
            self.unanswered.append((place.name, place.size, place.constraints))
        for service in plan.remove:
            self.services.pop(service, None)
            self.tasks.pop(service, None)
            self.book.removed(service)
        self.take_bound()

    @precondition(lambda self: self.unanswered)
    @rule(outcome=st.sampled_from(["created", "refused", "lost"]))
    def answer(self, outcome: str) -> None:
        name, size, constraints = self.unanswered.pop(0)
        if outcome == "refused":
            self.book.refused(name, "refused", self.now)
            return
        service = f"service-{name}"
        self.services[service] = SwarmService(service, name, {}, size.nano_cpus, size.memory_bytes)
        self.tasks[service] = SwarmTask(f"task-{name}", service, "", "new", "running")
        self.constraints[service] = constraints
        if outcome == "created":
            self.book.created(name, service)
        else:
            self.book.refused(name, "", self.now)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), state=st.sampled_from(["pending", "starting", "running", "failed", "rejected"]))
    def task_changes(self, data: st.DataObject, state: str) -> None:
        service = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[service]
        node = task.node
        if state == "pending":
            if node:
                return
            task = replace(task, state=state, error="no suitable node")
        else:
            allowed = [name for name in NAMES if self._allows(service, f"id-{name}")]
            if not node and not allowed:
                return
            node = node or f"id-{data.draw(st.sampled_from(allowed))}"
            ended = state in ("failed", "rejected")
            task = replace(task, state=state, node=node, error="", desired="shutdown" if ended else "running")
        self.tasks[service] = task
        self.book.observe([task], self.now)
        self.take_bound()

    @precondition(lambda self: not self.unanswered)  # the placer waits for the answers
    @rule()
    def sync(self) -> None:
        before = self.book.services()
        self.book.sync(list(self.services.values()), list(self.tasks.values()), before, self.now)
        self.take_bound()

    @rule(decides=st.booleans())
    def managers_elect_a_leader(self, decides: bool) -> None:
        self.book.swarm_decides = decides

    @rule()
    def another_leader(self) -> None:
        """It knows the running instances, but not what an earlier leader requested."""
        self.unanswered.clear()
        self.book = self.new_book()
        self.instances = {name: each for name, each in self.instances.items() if name in self.nodes}
        for name, node in self.nodes.items():
            self.book.restore(name, node, SIZES[0])

    def take_bound(self) -> None:
        for instance, node in self.book.bound:
            assert instance not in self.nodes, "bound once"
            assert instance in self.instances, "not after it was withdrawn"
            constraints = self.instances[instance]
            assert node not in constraints.excluded
            assert constraints.node in (None, node)
            self.nodes[instance] = node
        self.book.bound.clear()

    def _allows(self, service: str, machine: str) -> bool:
        for each in self.constraints[service]:
            if (each.startswith("node.id==")) is not (each[len("node.id==") :] == machine):
                return False
        return True

    @invariant()
    def an_instance_has_a_node_or_waits(self) -> None:
        assert set(self.book.unbound()) == self.instances.keys() - self.nodes.keys()

    @invariant()
    def a_machine_is_not_flooded(self) -> None:
        assert len(self.unanswered) <= OPTIONS.per_node * len(NAMES)

    def teardown(self) -> None:
        """Once all responses have arrived and no place is needed, only the places ahead remain."""
        for name in list(self.instances):
            self.book.withdraw(name, self.now)
        self.instances, self.nodes = {}, {}
        for _ in range(30):
            self.plan(700.0)
            while self.unanswered:
                self.answer("created")
            for service, task in list(self.tasks.items()):
                node = task.node or next(f"id-{n}" for n in NAMES if self._allows(service, f"id-{n}"))
                if not task.ended:
                    self.tasks[service] = replace(task, node=node, state="running", error="")
            self.sync()
        sizes = sorted(PlaceSize(each.nano_cpus, each.memory_bytes) for each in self.services.values())
        assert sizes == [PlaceSize()] * OPTIONS.ahead


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_an_instance_without_requests_is_bound_while_the_swarm_does_not_decide() -> None:
    """A new leader has not read any place yet. The nodes with the fewest instances come first."""
    book = PlaceBook(OPTIONS, map(str, itertools.count()).__next__)
    machines = {"id-n3": SwarmNode("id-n3", "n3", "manager", "pause", "ready")}
    book.cluster = Cluster({name: f"id-{name}" for name in (*NAMES, "n4")}, machines)
    book.restore("before", "n1", PlaceSize())
    book.place("waits", PlaceSize(), Constraints())
    assert not book.bound
    book.swarm_decides = False
    for name, size, constraints in (
        ("waits", PlaceSize(), Constraints(excluded=frozenset({"n4"}))),
        ("next", PlaceSize(), Constraints(excluded=frozenset({"n4"}))),
        ("pinned", PlaceSize(), Constraints(node="n3")),
        ("large", PlaceSize(CORE), Constraints()),
        ("nowhere", PlaceSize(), Constraints(excluded=frozenset({"n1", "n2", "n4"}))),
    ):
        book.place(name, size, constraints)
    assert book.bound == [("waits", "n2"), ("next", "n1"), ("pinned", "n3")], "and none on n3, which is paused"
    assert book.unbound() == ["large", "nowhere"]
    ready = {f"id-{name}": SwarmNode(f"id-{name}", name, "manager", "active", "ready", 4.0) for name in NAMES}
    book.cluster, book.swarm_decides = Cluster(book.cluster.names, ready), True
    book.sync([], [], frozenset(), 20.0)
    created = {place.instance: place.constraints for place in book.plan(20.0).create}
    assert created["waits"] == ("node.id==id-n2",), "they get their places afterwards"
    assert created.keys() >= {"next", "pinned", "before"}


def three_machines(cores: float) -> PlaceBook:
    book = PlaceBook(OPTIONS, map(str, itertools.count()).__next__)
    nodes = [SwarmNode(f"id-{name}", name, "worker", "active", "ready", cores, 2**33) for name in NAMES]
    machines = {node.id: node for node in nodes}
    book.cluster = Cluster({name: f"id-{name}" for name in NAMES}, machines)
    book.sync([], [], frozenset(), 0.0)
    return book


def answer(book: PlaceBook, now: float) -> list[str]:
    """Have Swarm create all places of a plan, and place none of them; returns the instances that they are for."""
    created = [place for place in book.plan(now).create if place.instance]
    for place in created:
        book.created(place.name, f"service-{place.name}")
    tasks = [
        SwarmTask(f"t-{place.name}", f"service-{place.name}", "", "pending", "running", "no suitable node")
        for place in created
    ]
    book.observe(tasks, now)
    return [place.instance for place in created]


def test_few_of_the_places_that_do_not_fit_wait_in_swarm_and_all_have_a_reason() -> None:
    book, large = three_machines(1.0), PlaceSize(2 * CORE)
    for number in range(500):
        book.place(f"i{number}", large, Constraints(), "a")
    requested = [name for step in range(20) for name in answer(book, float(step))]
    assert len(requested) == OPTIONS.per_node * len(NAMES)
    reasons = {book.problem(f"i{number}") for number in range(500)}
    assert reasons == {"0/3 nodes are available: 3 Insufficient cpu."}


def test_a_place_that_fits_does_not_wait_for_those_that_do_not() -> None:
    book = three_machines(1.0)
    for number in range(50):
        book.place(f"large{number}", PlaceSize(2 * CORE), Constraints(), "a")
    for step in range(20):
        answer(book, float(step))
    book.place("small", PlaceSize(CORE // 2), Constraints(), "a")
    assert answer(book, 20.0) == ["small"]
    # Swarm knows reservations that are not ours: it does not fit, and another one like it waits here.
    for number in range(50):
        book.place(f"small{number}", PlaceSize(CORE // 2), Constraints(), "a")
    assert [answer(book, 21.0 + step) for step in range(5)] == [[]] * 5


def test_namespaces_take_turns() -> None:
    book = three_machines(100.0)
    for number in range(20):
        book.place(f"a{number}", PlaceSize(CORE), Constraints(), "a")
    for number in range(2):
        book.place(f"b{number}", PlaceSize(CORE), Constraints(), "b")
    created = [place.instance for place in book.plan(0.0).create]
    assert created == ["a0", "b0", "a1", "b1", "a2", "a3"]


def run_all(book: PlaceBook, services: dict[str, SwarmService], tasks: dict[str, SwarmTask], now: float) -> None:
    """Carry the plan out as Swarm does: a place without a constraint goes to the machine with the fewest tasks."""
    plan = book.plan(now)
    for service in plan.remove:
        services.pop(service)
        tasks.pop(service)
        book.removed(service)
    for place in plan.create:
        active = [name for name, machine in book.cluster.names.items() if machine in book.cluster.machines]
        only = [each.removeprefix("node.id==") for each in place.constraints if each.startswith("node.id==")]
        used = Counter(task.node for task in tasks.values())
        node = only[0] if only else min((book.cluster.names[name] for name in active), key=lambda each: used[each])
        services[place.name] = SwarmService(place.name, place.name, {}, 0, 0)
        tasks[place.name] = SwarmTask(f"task-{place.name}", place.name, node, "running", "running")
        book.created(place.name, place.name)
    book.observe(tasks.values(), now)


def test_free_places_are_spread_again_when_a_machine_joins_and_stay_then() -> None:
    book = PlaceBook(PlaceOptions(ahead=8, per_node=8), map(str, itertools.count()).__next__)
    services: dict[str, SwarmService] = {}
    tasks: dict[str, SwarmTask] = {}
    nodes = {f"id-{name}": SwarmNode(f"id-{name}", name, "manager", "active", "ready", 4.0) for name in NAMES}
    book.cluster = Cluster({"n1": "id-n1"}, nodes)
    book.sync([], [], frozenset(), 0.0)
    run_all(book, services, tasks, 0.0)
    assert Counter(task.node for task in tasks.values()) == {"id-n1": 8}
    book.cluster = Cluster({name: f"id-{name}" for name in NAMES}, nodes)
    run_all(book, services, tasks, 1.0)
    assert Counter(task.node for task in tasks.values()) == {"id-n1": 8}, "they have just become free"
    for at in range(6, 12):
        run_all(book, services, tasks, float(at))
        spread = Counter(task.node for task in tasks.values())
        assert sorted(spread.values()) == [2, 3, 3], "at once, and without a change afterwards"
    names = set(services)
    run_all(book, services, tasks, 60.0)
    assert set(services) == names
    # Two instances that may run anywhere run on two machines.
    book.place("a", PlaceSize(), Constraints())
    book.place("b", PlaceSize(), Constraints())
    assert len({node for _, node in book.bound}) == 2
