"""Placement by Docker Swarm: the same tests for a Swarm in memory and a real one of three machines."""

from collections import Counter

import pytest

from autoscaler.decision.capacity import ResourceRequest
from autoscaler.placement.protocol import Constraints
from knoll.values.errors import RuntimeUnavailableError
from knoll.values.json import Json
from tests.component.machines.swarms import FakeMachines, Stage, leading
from tests.doubles.fake_swarm import FakeSwarm
from tests.waiting import eventually

NOTHING = ResourceRequest()
CORE = ResourceRequest(1.0)
MIB = 1024**2


async def test_places_are_made_ahead_and_an_instance_without_requests_takes_one_at_once(swarm_stage: Stage) -> None:
    async with leading(swarm_stage.leader(ahead=3)) as leader:
        await eventually(lambda: _ran(swarm_stage, 3), 60, "three places")
        *_, node = nodes = [name for name, count in (await swarm_stage.running()).items() if count]
        assert len(nodes) > 1, "Swarm spreads them"
        leader.placer.place("a-1", NOTHING, Constraints(preferred=node))
        assert leader.bound == {"a-1": node}, "without waiting for anything"
        leader.placer.place("a-2", NOTHING, Constraints(preferred=node))
        assert leader.bound.keys() == {"a-1", "a-2"}, "also one that may be on another node"
        await eventually(lambda: _ran(swarm_stage, 5), 60, "two more places")


async def test_instances_of_one_revision_are_spread(swarm_stage: Stage) -> None:
    async with leading(swarm_stage.leader(ahead=9)) as leader:
        await eventually(lambda: _ran(swarm_stage, 9), 60, "nine places")
        for number in range(6):
            counts = Counter(leader.bound.values())
            leader.placer.place(f"a-{number}", NOTHING, Constraints(preferred="n1", instances=counts))
        assert Counter(leader.bound.values()) == {"n1": 2, "n2": 2, "n3": 2}


async def test_requests_fill_the_nodes_and_the_shortage_is_reported(swarm_stage: Stage) -> None:
    total = 3 * swarm_stage.machines.cores
    names = [f"a-{number}" for number in range(total)]
    async with leading(swarm_stage.leader()) as leader:
        for name in names:
            leader.placer.place(name, CORE)
        await leader.all_bound(*names)
        assert all(list(leader.bound.values()).count(node) == swarm_stage.machines.cores for node in ("n1", "n2", "n3"))
        leader.placer.place("b-1", CORE)
        await eventually(lambda: leader.problems.get("b-1") == "0/3 nodes are available: 3 Insufficient cpu.")
        assert leader.placer.problem("b-1") == leader.problems["b-1"]
        leader.placer.withdraw(names[0])
        await leader.all_bound("b-1")
        assert leader.bound["b-1"] == leader.bound[names[0]], "it has the place that became free"
        assert leader.problems["b-1"] == leader.placer.problem("b-1") == ""
        assert len(leader.bindings) == total + 1, "each is reported once"


@pytest.mark.parametrize(
    ("request_", "shortage"),
    [
        pytest.param(ResourceRequest(0, 2**50), "3 Insufficient memory", id="memory"),
        pytest.param(ResourceRequest(1000, 2**50), "3 Insufficient cpu, 3 Insufficient memory", id="both"),
    ],
)
async def test_an_instance_too_large_for_every_node_waits(
    swarm_stage: Stage, request_: ResourceRequest, shortage: str
) -> None:
    async with leading(swarm_stage.leader()) as leader:
        leader.placer.place("a-1", request_)
        await eventually(lambda: leader.problems.get("a-1") == f"0/3 nodes are available: {shortage}.")
        leader.placer.place("b-1", CORE)
        await leader.all_bound("b-1")
        leader.placer.withdraw("a-1")
        assert leader.placer.problem("a-1") == ""
        await eventually(lambda: _has_services(swarm_stage, 1), condition="the end of its service")


async def test_an_instance_is_placed_on_an_allowed_node_only(swarm_stage: Stage) -> None:
    async with leading(swarm_stage.leader()) as leader:
        leader.placer.place("a-1", CORE, Constraints(node="n3"))
        leader.placer.place("a-2", CORE, Constraints(excluded=frozenset({"n1", "n3"})))
        leader.placer.place("a-3", NOTHING, Constraints(unsuitable=frozenset({"n2", "n3"})))
        await leader.all_bound("a-1", "a-2", "a-3")
        assert leader.bound == {"a-1": "n3", "a-2": "n2", "a-3": "n1"}
        await eventually(lambda: _ran(swarm_stage, 3), 60, "its reservations")
        assert await swarm_stage.running() == {"n1": 1, "n2": 1, "n3": 1}


async def test_an_instance_without_an_allowed_node_waits_for_one(swarm_stage: Stage) -> None:
    async with leading(swarm_stage.leader()) as leader:
        leader.placer.place("a-1", CORE, Constraints(excluded=frozenset({"n1", "n2", "n3"})))
        message = "0/3 nodes are available: 3 node(s) were unschedulable."
        await eventually(lambda: leader.problems.get("a-1") == message)
        assert not await swarm_stage.services()
        leader.placer.place("a-1", CORE, Constraints(excluded=frozenset({"n1", "n2"})))
        await leader.all_bound("a-1")
        assert leader.bound == {"a-1": "n3"}


async def test_the_place_of_an_instance_is_kept_for_the_next_like_it(swarm_stage: Stage) -> None:
    async with leading(swarm_stage.leader()) as leader:
        leader.placer.place("a-1", CORE)
        await leader.all_bound("a-1")
        before = await swarm_stage.services()
        leader.placer.withdraw("a-1")
        leader.placer.place("a-2", CORE)
        assert leader.bound["a-2"] == leader.bound["a-1"], "without waiting for anything"
        assert await swarm_stage.services() == before


async def test_kept_places_make_room_for_an_instance_that_does_not_fit(swarm_stage: Stage) -> None:
    names = [f"a-{number}" for number in range(3 * swarm_stage.machines.cores)]
    async with leading(swarm_stage.leader()) as leader:
        for name in names:
            leader.placer.place(name, CORE)
        await leader.all_bound(*names)
        for name in names:
            leader.placer.withdraw(name)
        whole = ResourceRequest(float(swarm_stage.machines.cores))
        leader.placer.place("b-1", whole)
        await leader.all_bound("b-1")
        await eventually(lambda: _has_services(swarm_stage, 1), condition="the end of the others")


async def test_a_new_leader_takes_over_places_and_removes_undecided_ones(swarm_stage: Stage) -> None:
    async with leading(swarm_stage.leader()) as first:
        first.placer.place("a-1", CORE)
        first.placer.place("a-2", NOTHING)
        await first.all_bound("a-1", "a-2")
        first.placer.place("a-3", ResourceRequest(1000.0))
        await eventually(lambda: first.problems.get("a-3"))
    before = await swarm_stage.services()
    second = swarm_stage.leader()
    for name in ("a-1", "a-2"):
        second.placer.restore(name, first.bound[name], CORE if name == "a-1" else NOTHING)
    async with leading(second):
        await eventually(lambda: _has_services(swarm_stage, 2), condition="the end of the place without an instance")
        assert await swarm_stage.services() < before
        second.placer.place("a-1", CORE)
        second.placer.withdraw("a-1")
        second.placer.place("b-1", CORE)
        assert second.bindings == [("b-1", first.bound["a-1"])], "what was restored is not reported again"


async def test_an_instance_that_was_restored_without_a_place_gets_one_on_its_node(swarm_stage: Stage) -> None:
    leader = swarm_stage.leader()
    leader.placer.restore("a-1", "n2", CORE)
    async with leading(leader):
        await eventually(lambda: _ran(swarm_stage, 1), 60, "its place")
        assert await swarm_stage.running() == {"n1": 0, "n2": 1, "n3": 0}
        assert leader.bindings == []


async def test_a_place_that_ends_is_replaced_and_its_instance_stays(swarm_stage: Stage) -> None:
    async with leading(swarm_stage.leader()) as leader:
        leader.placer.place("a-1", CORE, Constraints(node="n2"))
        await leader.all_bound("a-1")
        await eventually(lambda: _ran(swarm_stage, 1), 60, "its place")
        (service,) = await swarm_stage.services()
        await swarm_stage.machines.end_container(service)
        leader.placer.place("b-1", CORE)  # while an instance waits, the tasks are read often
        await eventually(lambda: _replaced(swarm_stage, service), 60, "another place")
        await eventually(lambda: _ran(swarm_stage, 2), 60, "both places")
        assert [name for name, _ in leader.bindings] == ["a-1", "b-1"]


async def test_a_paused_node_gets_nothing_and_keeps_what_it_has(swarm_stage: Stage) -> None:
    machines = swarm_stage.machines
    async with leading(swarm_stage.leader()) as leader:
        leader.placer.place("a-1", CORE, Constraints(node="n1"))
        await leader.all_bound("a-1")
        await machines.availability("n1", "pause")
        try:
            leader.placer.place("b-1", CORE, Constraints(node="n1"))
            expected = (
                "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) had volume node affinity conflict."
            )
            await eventually(lambda: leader.problems.get("b-1") == expected)
            assert (await swarm_stage.running())["n1"] == 1
        finally:
            await machines.availability("n1", "active")
        await leader.all_bound("b-1")


async def test_draining_a_node_in_the_swarm_ends_reservations_and_binds_nothing_again(swarm_stage: Stage) -> None:
    machines = swarm_stage.machines
    async with leading(swarm_stage.leader()) as leader:
        leader.placer.place("a-1", CORE, Constraints(node="n1"))
        await leader.all_bound("a-1")
        await eventually(lambda: _ran(swarm_stage, 1), 60, "its place")
        await machines.availability("n1", "drain")
        try:
            leader.placer.place("b-1", CORE)
            await leader.all_bound("b-1")
            await eventually(lambda: _counts(swarm_stage, "n1", 0), 60, "the end of the reservation")
            assert leader.bound["b-1"] != "n1"
        finally:
            await machines.availability("n1", "active")
        await eventually(lambda: _counts(swarm_stage, "n1", 1), 60, "its place again")
        assert [name for name, _ in leader.bindings] == ["a-1", "b-1"], "the instance has run all the time"


async def test_machines_that_are_not_nodes_of_the_platform_get_no_places(swarm_stage: Stage) -> None:
    own = {name: swarm_stage.machines.nodes[name] for name in ("n1", "n3")}
    async with leading(swarm_stage.leader(ahead=2, nodes=lambda: own)) as leader:
        for number in range(4):
            leader.placer.place(f"a-{number}", ResourceRequest(0.1, 8 * MIB))
        await leader.all_bound(*(f"a-{number}" for number in range(4)))
        await eventually(lambda: _ran(swarm_stage, 6), 60, "all places")
        assert (await swarm_stage.running())["n2"] == 0


async def test_the_smallest_requests_are_placed(swarm_stage: Stage) -> None:
    """Docker Swarm refuses to reserve less than 0.001 cores and 4 MiB."""
    async with leading(swarm_stage.leader()) as leader:
        leader.placer.place("a-1", ResourceRequest(0.0001, 1))
        await leader.all_bound("a-1")


async def test_only_some_places_are_created_at_a_time() -> None:
    machines = FakeMachines()
    stage = Stage(machines)
    names = [f"a-{number}" for number in range(40)]
    async with leading(stage.leader(per_node=4)) as leader:
        for name in names:
            leader.placer.place(name, ResourceRequest(0.01))
        for number in range(20):
            leader.placer.place(f"b-{number}", ResourceRequest(0.01), Constraints(node="n1"))
        await leader.all_bound(*names)
    # Swarm may place a few more on one machine than on another.
    assert machines.swarm.most_starting <= 4 + 2
    await machines.swarm.close()


async def test_nothing_is_lost_while_no_manager_responds() -> None:
    machines = FakeMachines()
    stage = Stage(machines)
    async with leading(stage.leader(ahead=1)) as leader:
        await eventually(lambda: _ran(stage, 1))
        machines.swarm.unavailable = "The swarm does not have a leader."
        leader.placer.place("a-1", NOTHING)
        assert leader.bound.keys() == {"a-1"}, "what was placed ahead is used"
        leader.placer.place("b-1", CORE)
        await eventually(lambda: "does not have a leader" in leader.problems.get("b-1", ""))
        leader.placer.withdraw("a-1")
        machines.swarm.unavailable = ""
        await leader.all_bound("b-1")
        assert leader.problems["b-1"] == ""
    await machines.swarm.close()


async def test_nothing_is_lost_while_the_image_cannot_be_provided() -> None:
    machines = FakeMachines()
    missing = True

    async def image() -> str:
        if missing:
            raise RuntimeUnavailableError("the container engine does not respond")
        return "sha256:1"

    stage = Stage(machines)
    async with leading(stage.leader(image=image)) as leader:
        leader.placer.place("a-1", CORE)
        await eventually(lambda: "does not respond" in leader.problems.get("a-1", ""))
        missing = False
        await leader.all_bound("a-1")
    await machines.swarm.close()


class UnansweredSwarm(FakeSwarm):
    """The response to the first creation is lost."""

    lost = False

    async def create_service(self, body: Json) -> str:
        service = await super().create_service(body)
        if not self.lost:
            self.lost = True
            raise RuntimeUnavailableError("the container engine does not respond")
        return service


async def test_a_service_whose_creation_got_no_response_is_used() -> None:
    machines = FakeMachines(swarm=UnansweredSwarm(FakeMachines().swarm.machines))
    stage = Stage(machines)
    async with leading(stage.leader()) as leader:
        leader.placer.place("a-1", CORE)
        await leader.all_bound("a-1")
        assert len(machines.swarm.all_services()) == 1
    await machines.swarm.close()


async def test_a_node_without_the_image_does_not_block_instances_on_other_nodes() -> None:
    machines = FakeMachines()
    machines.swarm.images = set()
    stage = Stage(machines)
    async with leading(stage.leader()) as leader:
        leader.placer.place("a-1", CORE)
        await leader.all_bound("a-1")
        machines.swarm.images = None
        await eventually(lambda: _ran(stage, 1), condition="its place, requested again")
        assert len(leader.bindings) == 1
    await machines.swarm.close()


async def _ran(stage: Stage, count: int) -> bool:
    return sum((await stage.running()).values()) == count


async def _counts(stage: Stage, node: str, count: int) -> bool:
    return (await stage.running())[node] == count


async def _has_services(stage: Stage, count: int) -> bool:
    return len(await stage.services()) == count


async def _replaced(stage: Stage, service: str) -> bool:
    services = await stage.services()
    return service not in services and len(services) == 2
