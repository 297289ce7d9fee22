"""Machines that lose their power or their network under load (`tests/power_cuts.py`).

Machines are cut in turn, by their role: the leader, the primary of Redis, a machine with neither.
"""

import asyncio
import itertools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.machines.figures import Figure
from tests.cluster_processes import platform_on
from tests.component.runtime.harness import IMAGE, build_image
from tests.images import clean_up
from tests.machines import Machines, machines
from tests.power_cuts import Cut, PowerCuts

CUTS = 20
CABLE_EVERY = 5
"""Of so many cuts, one is a cable that is pulled for `CABLE_SECONDS`."""
CABLE_SECONDS = 10.0
ROLES = ("leader", "primary", "")


def p95(values: Sequence[float]) -> float:
    """Return the value that 95 % do not exceed; 0 for none."""
    return sorted(values)[math.ceil(len(values) * 0.95) - 1] if values else 0.0


def describe(run: PowerCuts, cut: Cut) -> str:
    """Return one line about a cut."""
    parts = (
        f"{cut.node} ({', '.join(cut.roles) or 'no role'}; {cut.endpoints} endpoints)",
        f"endpoints withdrawn after {cut.withdrawn - cut.began:.1f} s",
        f"instances back after {cut.back - cut.began:.1f} s",
        f"whole {cut.ended - cut.healed:.1f} s after it was connected again",
        f"slowest request {run.slowest(cut):.1f} s",
    )
    return ", ".join(parts)


async def powercut(lab: Machines, cuts: int) -> list[Figure]:
    """Cut machines one after the other."""
    async with platform_on(lab, "replicas", [IMAGE]) as cluster:
        run = PowerCuts(cluster)
        cables: list[Cut] = []
        async with run.working():
            for number, role in zip(range(1, cuts + 1), itertools.cycle(ROLES), strict=False):
                node = await run.node_with(role)
                if number % CABLE_EVERY == 0:
                    cut = await run.cut_cable(node, CABLE_SECONDS)
                    cables.append(cut)
                else:
                    cut = await run.cut_power(node)
                print(f"cut {number}: {describe(run, cut)}", flush=True)
        lost = await run.lost_writes()
    for problem in [*lost, *run.failed(repeatable=True), *run.shared()]:
        print(problem)
    return [*times(run.cuts), *healed(cables), *counts(run, len(lost))]


def times(cuts: Sequence[Cut]) -> list[Figure]:
    """Return how long endpoints and instances of a lost machine were missing, where it had some.

    The loss of the primary of Redis counts by itself: nothing can be written before sentinels promote a replica.
    """
    figures = []
    for suffix, with_primary in (("", False), ("_primary", True)):
        chosen = [cut for cut in cuts if cut.endpoints and ("primary" in cut.roles) == with_primary]
        if chosen:
            withdrawn, back = [cut.withdrawn - cut.began for cut in chosen], [cut.back - cut.began for cut in chosen]
            figures.append(Figure(f"machines.powercut{suffix}_withdrawn_p95_s", p95(withdrawn), "s"))
            figures.append(Figure(f"machines.powercut{suffix}_back_p95_s", p95(back), "s"))
    return figures


def healed(cables: Sequence[Cut]) -> list[Figure]:
    """Return how long it took until exactly the required instances ran after a cable was plugged in again."""
    seconds = [cut.ended - cut.healed for cut in cables]
    return [Figure("machines.powercut_healed_p95_s", p95(seconds), "s")] if seconds else []


def counts(run: PowerCuts, lost_writes: int) -> list[Figure]:
    """Return what was lost."""
    return [
        Figure("machines.powercut_lost_writes", lost_writes + len(run.versions_twice()), "count"),
        Figure("machines.powercut_writes", len(run.seen.writes), "count"),
        Figure("machines.powercut_repeatable_5xx", len(run.failed(repeatable=True)), "count"),
        Figure("machines.powercut_other_failures", len(run.failed(repeatable=False)), "count"),
        Figure("machines.powercut_requests", len(run.seen.requests), "count"),
        Figure("machines.powercut_shared_slots", len(run.shared()), "count"),
        Figure("machines.powercut_slowest_s", max((run.slowest(cut) for cut in run.cuts), default=0.0), "s"),
    ]


def measure(cuts: int) -> list[Figure]:
    """Measure on machines of its own. Args: cuts: how many machines are lost."""
    with tempfile.TemporaryDirectory() as folder:
        build_image(Path(folder))
    try:
        with machines(3) as lab:
            return asyncio.run(powercut(lab, cuts))
    finally:
        clean_up()
