"""The contract of placers that need no engine: that of a single machine, and the one for tests."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from autoscaler.decision.capacity import Reservations, ResourceRequest
from autoscaler.placement.protocol import Constraints, Placer
from autoscaler.placement.single import SinglePlacer
from autoscaler.runtime.model import Capacity
from tests.doubles.spread_placer import SpreadPlacer
from tests.waiting import eventually

CORE = ResourceRequest(1.0, 0)


class Bindings:
    """What a placer has reported."""

    def __init__(self) -> None:
        self.bound: dict[str, str] = {}
        self.problems: list[tuple[str, str]] = []

    def on_bound(self, instance: str, node: str) -> None:
        assert instance not in self.bound, "an instance is bound once"
        self.bound[instance] = node

    def on_problem(self, instance: str, problem: str) -> None:
        self.problems.append((instance, problem))


def single() -> Placer:
    return SinglePlacer(Reservations(Capacity(2.0, 1 << 30)), "n1")


def spread() -> Placer:
    return SpreadPlacer(lambda: ["n1"], per_node=2)


@pytest.fixture(params=[single, spread], ids=["single", "spread"])
async def placed(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Placer, Bindings]]:
    placer, bindings = request.param(), Bindings()
    placer.begin(bindings.on_bound, bindings.on_problem)
    running = asyncio.create_task(placer.run())
    try:
        yield placer, bindings
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_instances_that_fit_are_bound_and_others_wait_for_room(placed: tuple[Placer, Bindings]) -> None:
    placer, bindings = placed
    for name in ("a", "b", "c"):
        placer.place(name, CORE)
    await eventually(lambda: set(bindings.bound) == {"a", "b"}, condition="two are bound")
    await eventually(lambda: placer.problem("c"), condition="the third has a problem")
    assert placer.problem("c") == "0/1 nodes are available: 1 Insufficient cpu."
    assert placer.problem("a") == ""
    placer.withdraw("a")
    await eventually(lambda: bindings.bound.get("c") == "n1", condition="the third is bound")
    assert bindings.problems == [("c", "0/1 nodes are available: 1 Insufficient cpu."), ("c", "")]
    assert placer.problem("c") == ""


async def test_an_instance_that_is_withdrawn_is_no_longer_bound(placed: tuple[Placer, Bindings]) -> None:
    placer, bindings = placed
    for name in ("a", "b", "c", "d"):
        placer.place(name, CORE)
    placer.withdraw("c")
    placer.withdraw("never known")
    placer.withdraw("a")
    await eventually(lambda: "d" in bindings.bound, condition="the next one gets the place")
    assert "c" not in bindings.bound


async def test_running_instances_keep_their_places_and_are_not_reported(placed: tuple[Placer, Bindings]) -> None:
    placer, bindings = placed
    for name in ("a", "b"):
        placer.restore(name, "n1", CORE)
    placer.place("c", CORE, Constraints(node="n1"))
    await eventually(lambda: placer.problem("c"), condition="there is no room")
    placer.withdraw("b")
    await eventually(lambda: bindings.bound == {"c": "n1"}, condition="it is bound")
