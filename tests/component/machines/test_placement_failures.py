"""Placement while machines of the Swarm lose their power."""

from collections.abc import AsyncIterator, Iterator

import pytest

from autoscaler.decision.capacity import ResourceRequest
from autoscaler.placement.protocol import Constraints
from knoll.values.errors import RuntimeUnavailableError
from tests.component.machines.swarms import RealMachines, Stage, leading, stage
from tests.machines import Machine, Machines
from tests.waiting import eventually, eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.machines]

SOME = ResourceRequest(0.1, 16 * 1024**2)


@pytest.fixture
async def real(whole_lab: Machines) -> AsyncIterator[RealMachines]:
    async with RealMachines.opened(whole_lab) as opened:
        yield opened


@pytest.fixture
def whole_lab(swarm_lab: Machines) -> Iterator[Machines]:
    """The Swarm of the machines; all are switched on and ready afterwards."""
    yield swarm_lab
    for machine in swarm_lab:
        if machine.process is None:
            machine.boot()
    eventually_sync(lambda: len(swarm_lab.ready_nodes(swarm_lab[2])) == 3, 120, "all machines are ready again")


async def test_instances_are_placed_while_a_machine_is_off_and_there_again_after_it_boots(
    whole_lab: Machines, real: RealMachines
) -> None:
    running = dict(real.nodes)
    async with stage(real) as platform, leading(platform.leader(ahead=3, nodes=lambda: running)) as leader:
        leader.placer.place("a-1", SOME, Constraints(node="n3"))
        await leader.all_bound("a-1")
        await eventually(lambda: _ran(platform, 4), 60, "three places and one with requests")
        whole_lab[3].power_cut()
        off = frozenset({"n3"})
        # As in the table of nodes three seconds later, long before Swarm notices.
        del running["n3"]
        leader.placer.withdraw("a-1")
        for number in range(4):
            leader.placer.place(f"b-{number}", SOME, Constraints(excluded=off))
            leader.placer.place(f"c-{number}", ResourceRequest(), Constraints(excluded=off))
        await leader.all_bound(*(f"{kind}-{number}" for number in range(4) for kind in "bc"))
        assert "n3" not in {leader.bound[name] for name in leader.bound if name != "a-1"}
        leader.placer.place("d-1", SOME, Constraints(node="n3", excluded=off))
        await eventually(lambda: leader.problems.get("d-1"))
        whole_lab[3].boot()
        running["n3"] = real.nodes["n3"]
        leader.placer.place("d-1", SOME, Constraints(node="n3"))
        await leader.all_bound("d-1")
        assert leader.bound["d-1"] == "n3"
        await eventually(lambda: _runs_on(platform, "n3"), 120, "its place runs there")


async def test_places_made_ahead_are_used_while_managers_elect_a_leader_and_others_follow(
    whole_lab: Machines, real: RealMachines
) -> None:
    lost = _machine(whole_lab, await real.leading_manager())
    other = next(machine for machine in whole_lab if machine is not lost)
    real.use(other.name)
    running = dict(real.nodes)
    async with stage(real) as platform, leading(platform.leader(ahead=4, nodes=lambda: running)) as leader:
        await eventually(lambda: _ran(platform, 4), 60, "four places")
        lost.power_cut()
        del running[lost.name]
        off = frozenset({lost.name})
        leader.placer.place("a-1", ResourceRequest(), Constraints(excluded=off))
        assert leader.bound["a-1"] != lost.name, "it has one that was placed ahead"
        leader.placer.place("b-1", SOME, Constraints(excluded=off))
        await leader.all_bound("b-1")
        assert leader.bound["b-1"] != lost.name
        assert leader.problems.get("b-1", "") == ""
        lost.boot()
        await eventually(lambda: len(whole_lab.ready_nodes(other)) == 3, 120, "the machine is ready again")


def _machine(lab: Machines, name: str) -> Machine:
    return next(machine for machine in lab if machine.name == name)


async def _running(platform: Stage) -> dict[str, int]:
    """Return how many places run on each machine; none while managers elect a leader."""
    try:
        return await platform.running()
    except RuntimeUnavailableError:
        return {}


async def _ran(platform: Stage, count: int) -> bool:
    return sum((await _running(platform)).values()) == count


async def _runs_on(platform: Stage, node: str) -> bool:
    return (await _running(platform)).get(node, 0) > 0
