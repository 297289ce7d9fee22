"""The contract between leader and node, in memory and over tables in Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
import pytest
import structlog

from autoscaler.decision.armed_pool import ArmingCandidate
from autoscaler.instances.transitions import LifecycleState
from autoscaler.kubelet.adoption import LastPublished
from autoscaler.kubelet.kubelet import Kubelet, NodeOptions
from autoscaler.kubelet.node_tables import NodeTables
from autoscaler.kubelet.registration import NodeRegistration
from autoscaler.link.memory import MemoryLink
from autoscaler.link.outbox import Outbox
from autoscaler.link.protocol import InstanceReport, NodeLink
from autoscaler.link.tables import LinkTables, TableLink
from autoscaler.probes.checks import Checker
from knoll.messages import nodes
from knoll.messages.assignments import Assignment, Goal, Preparation, RecentRevision
from knoll.messages.nodes import NODES
from knoll.redis.client import RedisClient, connected
from knoll.redis.heartbeats import Heartbeats
from knoll.store.redis_store import RedisStore
from knoll.tables.follower import follow_table
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from tests.doubles.fake_engine import FakeEngine
from tests.doubles.fake_runtime import FakeRuntime
from tests.unit.autoscaler.sample_revisions import body
from tests.waiting import eventually

NODE = "n1"
KEY, UID = "default/hello-00001", "uid-hello-00001"
ASSIGNED = Assignment("hello-1", NODE, KEY, UID, 1000.0)


class RecordingLeader:
    """Records what a node reports and asks; waits for requests end when `drained` is set."""

    def __init__(self, link: NodeLink) -> None:
        self.link = link
        self.reports = {report.name: report for report in link.reports()}
        self.changed: list[str] = []
        self.removed: list[str] = []
        self.waits: list[tuple[str, str, float]] = []
        self.drained = asyncio.Event()
        self.problem: Exception | None = None
        """Raised by waits for requests."""
        self.candidates: list[ArmingCandidate] = []
        link.connect(self)

    def arming_candidates(self) -> Iterator[ArmingCandidate]:
        return iter(self.candidates)

    def arming_nodes(self, uid: str, nodes: frozenset[str]) -> frozenset[str]:
        return frozenset(sorted(nodes)[:1])

    def instance_changed(self, revision: str) -> None:
        self.changed.append(revision)

    def instance_removed(self, name: str) -> None:
        self.removed.append(name)
        self.link.withdraw(name)

    def instance_reported(self, report: InstanceReport) -> None:
        self.reports[report.name] = report

    async def wait_until_drained(self, name: str, revision: str, grace_seconds: float) -> bool:
        self.waits.append((name, revision, grace_seconds))
        if self.problem is not None:
            raise self.problem
        await self.drained.wait()
        return True

    def capacity_short(self) -> None: ...
    def sources_changed(self, uid: str) -> None: ...

    def assign(self, assignment: Assignment) -> None:
        report = self.link.assign(assignment)
        if report is not None:
            self.reports[report.name] = report

    async def reaches(self, state: LifecycleState, name: str = "hello-1") -> InstanceReport:
        """Wait until the node reports an instance in a state."""

        async def does() -> InstanceReport:
            assert name in self.reports
            assert self.reports[name].state is state, self.reports[name].state
            return self.reports[name]

        return await eventually(does, condition=f"{name} is {state.value}")


class Form(Protocol):
    """One implementation of the link, and its node."""

    engine: FakeEngine
    kubelet: Kubelet

    async def lead(self) -> RecordingLeader:
        """Begin to lead; an earlier leader has ended."""
        ...

    def prepare(self, leader: RecordingLeader, candidates: Iterable[ArmingCandidate]) -> None: ...


class Node:
    """A node with one Revision."""

    def __init__(self, redis: RedisClient, tasks: asyncio.TaskGroup, runtime: FakeRuntime, checker: Checker) -> None:
        self.engine, self.store = runtime.engine, RedisStore(redis)
        options = NodeOptions(name=NODE, armed_instances=2, memory=lambda: (16 * 1024**3, 8 * 1024**3))
        self.kubelet = Kubelet(runtime, checker, self.store, redis, options)
        self.redis, self._tasks = redis, tasks
        self.running: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.store.create(kinds.REVISION.id, body())

        async def nothing() -> LastPublished:
            return LastPublished()

        self.spawn(self.kubelet.run(nothing))
        await self.kubelet.adopted.wait()

    def spawn(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._tasks.create_task(work)  # type: ignore[arg-type]
        self.running.append(task)
        return task

    async def stop(self) -> None:
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        await FakeRuntime(self.engine).destroy()
        await self.store.close()


class InMemory(Node):
    """Leader and node call each other."""

    async def lead(self) -> RecordingLeader:
        link = MemoryLink(self.kubelet)
        self.spawn(link.run())
        await link.synced()
        return RecordingLeader(link)

    def prepare(self, leader: RecordingLeader, candidates: Iterable[ArmingCandidate]) -> None:
        leader.candidates = list(candidates)
        leader.link.candidates_changed()


class OverTables(Node):
    """Leader and node communicate through tables in Redis."""

    async def start(self) -> None:
        await super().start()
        self.tables = LinkTables.of(self.redis)
        node_tables = NodeTables(self.kubelet, self.tables, self.kubelet.deps.clock)
        await node_tables.last_published()
        self.spawn(node_tables.run())
        await node_tables.compared.wait()

    async def lead(self) -> RecordingLeader:
        link = TableLink(self.tables, lambda node: node == NODE)
        self.spawn(link.run())
        await link.synced()
        return RecordingLeader(link)

    def prepare(self, leader: RecordingLeader, candidates: Iterable[ArmingCandidate]) -> None:
        assert isinstance(leader.link, TableLink)
        leader.link.prepare(NODE, candidates)


N = TypeVar("N", InMemory, OverTables)


@asynccontextmanager
async def running(make: Callable[..., N], redis_url: str) -> AsyncIterator[N]:
    async with (
        connected(redis_url, "link-test") as redis,
        FakeRuntime(FakeEngine()) as runtime,
        Checker() as checker,
        asyncio.TaskGroup() as tasks,
    ):
        node = make(redis, tasks, runtime, checker)
        await node.start()
        try:
            yield node
        finally:
            await node.stop()


@pytest.fixture(params=[InMemory, OverTables], ids=["memory", "tables"])
async def form(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Form]:
    async with running(request.param, redis_url) as node:
        yield node


@pytest.fixture
async def over_tables(redis_url: str) -> AsyncIterator[OverTables]:
    async with running(OverTables, redis_url) as node:
        yield node


async def serving(leader: RecordingLeader) -> InstanceReport:
    leader.assign(ASSIGNED)
    return await leader.reaches(LifecycleState.READY)


def then(goal: str, generation: int, requested: float = 1000.0) -> Assignment:
    return msgspec.structs.replace(ASSIGNED, goal=goal, generation=generation, requested=requested)


async def test_an_assigned_instance_starts_and_its_report_is_complete(form: Form) -> None:
    leader = await form.lead()
    report = await serving(leader)
    assert (report.name, report.node, report.revision, report.uid) == ("hello-1", NODE, KEY, UID)
    assert (report.created, report.generation, report.was_in_service, report.failure) == (1000.0, 1, True, None)
    endpoint, row = report.endpoint(), report.row()
    assert endpoint is not None
    assert (endpoint.id, endpoint.state, endpoint.node, endpoint.host) == ("hello-1", "ready", NODE, row.address)
    assert (row.stage, row.node, row.containers[0].running) == ("ready", NODE, True)
    assert KEY in leader.changed
    assert {each.name for each in leader.link.reports()} == {"hello-1"}


async def test_an_instance_is_removed_once_the_leader_knows_that_no_request_is_left(form: Form) -> None:
    leader = await form.lead()
    await serving(leader)
    leader.assign(then("removed", 2))
    await eventually(lambda: leader.waits, condition="the node asks for the wait")
    assert leader.waits == [("hello-1", KEY, 300.0)]
    report = await leader.reaches(LifecycleState.DRAINING)
    endpoint = report.endpoint()
    assert endpoint is not None
    assert endpoint.state == "draining"
    assert "hello-1" in form.engine.instances
    leader.drained.set()
    await eventually(lambda: leader.removed, condition="its end is reported")
    assert leader.removed == ["hello-1"]
    assert report.state is LifecycleState.REMOVED
    assert not form.engine.instances


async def test_an_instance_is_paused_and_serves_again(form: Form) -> None:
    leader = await form.lead()
    leader.drained.set()
    await serving(leader)
    leader.assign(then("paused", 2))
    report = await leader.reaches(LifecycleState.PAUSED)
    assert report.endpoint() is None
    assert report.idle_since > 0
    assert report.kept_bytes > 0
    leader.assign(then("serving", 3, requested=2000.0))
    report = await leader.reaches(LifecycleState.READY)
    endpoint = report.endpoint()
    assert endpoint is not None
    assert endpoint.timing is not None
    assert endpoint.timing.requested == 2000.0


async def test_a_paused_instance_is_stopped(form: Form) -> None:
    leader = await form.lead()
    leader.drained.set()
    await serving(leader)
    leader.assign(then("paused", 2))
    await leader.reaches(LifecycleState.PAUSED)
    leader.assign(then("stopped", 3))
    await leader.reaches(LifecycleState.STOPPED)


async def test_an_assignment_that_arrives_again_or_late_changes_nothing(form: Form) -> None:
    leader = await form.lead()
    leader.drained.set()
    await serving(leader)
    leader.assign(then("paused", 3))
    await leader.reaches(LifecycleState.PAUSED)
    form.kubelet.assign(then("removed", 2))
    form.kubelet.assign(ASSIGNED)
    assert form.kubelet.instances["hello-1"].state is LifecycleState.PAUSED


async def test_an_instance_that_is_not_ready_any_more_is_removed_instead_of_paused(form: Form) -> None:
    leader = await form.lead()
    leader.drained.set()
    form.engine.start_seconds = 3600.0
    leader.assign(ASSIGNED)
    await leader.reaches(LifecycleState.STARTING)
    leader.assign(then("paused", 2))
    await eventually(lambda: leader.removed == ["hello-1"], condition="it is removed")


async def test_an_instance_whose_sandbox_is_lost_is_reported(form: Form) -> None:
    leader = await form.lead()
    await serving(leader)
    form.engine.lose("hello-1")
    await eventually(lambda: leader.removed == ["hello-1"], condition="its end is reported")


async def test_instances_keep_running_without_a_leader_and_the_next_one_takes_them_over(form: Form) -> None:
    first = await form.lead()
    await serving(first)
    first.link.disconnect()
    second = await form.lead()
    report = second.reports["hello-1"]
    assert (report.state, report.generation) == (LifecycleState.READY, 1)
    second.drained.set()
    second.assign(then("removed", 2))
    await eventually(lambda: second.removed == ["hello-1"], condition="the new leader removes it")
    assert not first.waits
    assert not first.removed


async def test_a_wait_of_a_former_leader_begins_again_with_the_next_one(form: Form) -> None:
    first = await form.lead()
    await serving(first)
    first.assign(then("removed", 2))
    await eventually(lambda: first.waits, condition="the first leader waits")
    first.link.disconnect()
    second = await form.lead()
    await eventually(lambda: second.waits, condition="the second leader waits")
    first.drained.set()
    await asyncio.sleep(0)
    assert "hello-1" in form.engine.instances
    second.drained.set()
    await eventually(lambda: not form.engine.instances, condition="it ends")


async def test_an_armed_instance_is_offered_and_an_assignment_of_its_name_releases_it(form: Form) -> None:
    leader = await form.lead()
    form.prepare(leader, [ArmingCandidate(UID, form.kubelet.deps.clock())])
    await eventually(lambda: leader.link.armed(UID), condition="one is armed")
    (offer,) = leader.link.armed(UID)
    assert offer.node == NODE
    assert leader.link.armed_total() == 1
    assert list(leader.link.reports()) == []
    leader.link.hold(offer.name)
    leader.assign(msgspec.structs.replace(ASSIGNED, instance=offer.name))
    report = await leader.reaches(LifecycleState.READY, offer.name)
    assert report.was_armed
    await eventually(lambda: not leader.link.armed(UID), condition="it is not offered again")


async def test_an_instance_of_a_revision_that_the_node_does_not_know_yet_starts_later(over_tables: OverTables) -> None:
    leader = await over_tables.lead()
    leader.assign(Assignment("later-1", NODE, "default/later-00001", "uid-later-00001", 1000.0))
    await over_tables.store.create(kinds.REVISION.id, body("later-00001"))
    await leader.reaches(LifecycleState.READY, "later-1")


async def test_an_instance_ends_although_the_leader_fails_to_wait_for_its_requests(over_tables: OverTables) -> None:
    leader = await over_tables.lead()
    await serving(leader)
    leader.problem = RuntimeError("a bug")
    leader.assign(then("removed", 2))
    await eventually(lambda: leader.removed == ["hello-1"], condition="its end is reported")
    assert not over_tables.engine.instances


async def assigned_while_down(node: InMemory, goal: Goal) -> tuple[str, LinkTables]:
    """Arm an instance, and assign it before the node reads its assignments; returns its name."""
    candidate = ArmingCandidate(UID, node.kubelet.deps.clock())
    node.kubelet.armed.follow(lambda: [candidate])
    await eventually(lambda: node.kubelet.armed.armed(), condition="one is armed")
    node.kubelet.armed.follow(None)
    name, tables = node.kubelet.armed.armed()[0].spec.name, LinkTables.of(node.redis)
    await tables.assignments.put(name, msgspec.structs.replace(ASSIGNED, instance=name, goal=goal))
    node_tables = NodeTables(node.kubelet, tables, node.kubelet.deps.clock)
    await node_tables.last_published()
    node.spawn(node_tables.run())
    await node_tables.compared.wait()
    return name, tables


async def test_an_armed_instance_that_was_assigned_while_its_node_was_down_is_released(redis_url: str) -> None:
    async with running(InMemory, redis_url) as node:
        name, tables = await assigned_while_down(node, "serving")
        link = TableLink(tables, lambda node: node == NODE)
        node.spawn(link.run())
        await link.synced()
        report = await RecordingLeader(link).reaches(LifecycleState.READY, name)
        assert report.was_armed


async def test_an_armed_instance_that_is_not_needed_any_more_ends(redis_url: str) -> None:
    async with running(InMemory, redis_url) as node:
        name, tables = await assigned_while_down(node, "removed")

        async def reported() -> bool:
            _, members = await tables.members.snapshot()
            return name in members and members[name][1].state == "REMOVED"

        await eventually(lambda: not node.engine.instances, condition="nothing of it is left")
        await eventually(reported, condition="its end is reported")


async def test_a_node_that_gets_no_instances_prepares_nothing(over_tables: OverTables) -> None:
    recent = RecentRevision(UID, over_tables.kubelet.deps.clock())
    for node in (NODE, "gone"):
        await over_tables.tables.preparations.put(node, Preparation(3, (recent,)))
    await eventually(lambda: over_tables.kubelet.armed.armed(), condition="one is armed")
    leader = await over_tables.lead()
    assert isinstance(leader.link, TableLink)
    leader.link.prepare_only([])
    await eventually(lambda: not over_tables.engine.instances, condition="none is armed")
    leader.link.forget("gone")

    async def forgotten() -> bool:
        _, entries = await over_tables.tables.preparations.snapshot()
        return {node: entry for node, (_, entry) in entries.items()} == {NODE: Preparation()}

    await eventually(forgotten, condition="the entry of an earlier leader is removed")


async def test_a_table_is_followed_once_redis_permits_it(redis_url: str) -> None:
    async with connected(redis_url, "link-test") as redis, asyncio.TaskGroup() as tasks:
        await redis.execute("ACL", "SETUSER", "older", "on", ">secret", "~*", "&*", "+@all", "-hgetall", "-subscribe")
        parts = urlsplit(redis_url)
        url = parts._replace(netloc=f"older:secret@{parts.hostname}:{parts.port}").geturl()
        entry = nodes.Node("n9", "192.0.2.9", 1, 1, 1.0, 1, "v1")
        await RedisTable(redis, NODES, nodes.Node).put("n9", entry)
        async with connected(url, "link-test") as limited:
            table, entries, acknowledged = RedisTable(limited, NODES, nodes.Node), dict[str, nodes.Node](), list[str]()

            async def collect() -> None:
                async for follower, _ in table.acknowledgements():
                    acknowledged.append(follower)

            following = follow_table(table, entries, lambda _: None, asyncio.Event())
            with structlog.testing.capture_logs() as logs:
                running = [tasks.create_task(following), tasks.create_task(collect())]
                await eventually(lambda: logs, condition="it is refused")
                await redis.execute("ACL", "SETUSER", "older", "+@all")
                await eventually(lambda: entries == {"n9": entry}, condition="it is read")
            await RedisTable(redis, NODES, nodes.Node).acknowledge("f", 1)
            await eventually(lambda: "f" in acknowledged, condition="the acknowledgement is received")
            assert [each["event"] for each in logs] == ["table interrupted"]
            for task in running:
                task.cancel()
        await redis.execute("ACL", "DELUSER", "older")


async def test_a_table_is_written_once_redis_permits_it(redis_url: str) -> None:
    async with connected(redis_url, "link-test") as redis, asyncio.TaskGroup() as tasks:
        await redis.execute("ACL", "SETUSER", "old", "on", ">secret", "~*", "&*", "+@all", "-hset")
        parts = urlsplit(redis_url)
        url = parts._replace(netloc=f"old:secret@{parts.hostname}:{parts.port}").geturl()
        async with connected(url, "link-test") as limited:
            entry = nodes.Node("n9", "192.0.2.9", 1, 1, 1.0, 1, "v1")
            table = RedisTable(limited, NODES, nodes.Node)
            heartbeats = Heartbeats(limited, NODES)
            outbox = Outbox(table)
            outbox.put("n8", entry)
            registration = NodeRegistration(heartbeats, table, lambda: entry)
            running = [tasks.create_task(outbox.run()), tasks.create_task(registration.run())]
            with structlog.testing.capture_logs() as logs:
                await eventually(
                    lambda: {"table not written yet", "node not registered yet"} <= {each["event"] for each in logs},
                    condition="both are refused",
                )
                await redis.execute("ACL", "SETUSER", "old", "+@all")

                async def written() -> bool:
                    _, entries = await table.snapshot()
                    return {"n8", "n9"} <= set(entries)

                await eventually(written, condition="both are written")
            for task in running:
                task.cancel()
        await redis.execute("ACL", "DELUSER", "old")


async def test_a_node_of_a_distant_version_is_refused_until_the_others_are_upgraded(redis_url: str) -> None:
    async with connected(redis_url, "link-test") as redis, asyncio.TaskGroup() as tasks:
        table, heartbeats = RedisTable(redis, NODES, nodes.Node), Heartbeats(redis, NODES)
        entry = nodes.Node("n7", "192.0.2.7", 1, 1, 1.0, 1, "v1.6.0")
        for name, version in (("silent", "v1.3.0"), ("n8", "v1.4.0")):
            await table.put(name, nodes.Node(name, "192.0.2.8", 1, 1, 1.0, 1, version))
        await heartbeats.beat("n8")  # the other one is in the table, but it does not run
        registration = NodeRegistration(heartbeats, table, lambda: entry)

        async def keeping() -> None:
            while True:
                await heartbeats.beat("n8")
                await asyncio.sleep(0)

        running = [tasks.create_task(keeping()), tasks.create_task(registration.run())]
        await eventually(lambda: bool(registration.problem), condition="it is refused")
        assert "n8 runs v1.4.0" in registration.problem
        assert "silent" not in registration.problem
        assert "n7" not in (await table.snapshot())[1]
        assert "n7" not in await heartbeats.ages()
        await table.put("n8", nodes.Node("n8", "192.0.2.8", 1, 1, 1.0, 1, "v1.5.0"))
        await asyncio.wait_for(registration.admitted.wait(), 20)
        assert not registration.problem

        async def registered() -> bool:
            return "n7" in (await table.snapshot())[1]

        await eventually(registered, condition="it is registered")
        for task in running:
            task.cancel()
