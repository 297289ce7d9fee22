"""What one applied Service costs, from the apply until it is Ready and back at zero: CPU time, writes, reconciliations.

The same Services are applied to this checkout and to an earlier commit, in alternating rounds, and the CPU times of all
processes with Redis are compared. Counts are exact; CPU time is higher on a busy machine, but its ratio hardly changes.
"""

import argparse
import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.lib.fleet import BASELINE, OWN, Processes, Watch, applied, checkout, reconciles, until_zero
from bench.lib.stopping import stoppable

SETTLE_SECONDS = 3.0
"""Time after the last Pod is gone in which statuses are still written."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one Service, on average."""

    cpu_ms: dict[str, float]
    """By process."""
    writes: float
    reconciles: float
    """0 for a commit that does not count them."""
    by_kind: dict[str, float]
    """Writes by kind and event type, and reconciliations by kind."""

    @property
    def total_ms(self) -> float:
        return sum(self.cpu_ms.values())


async def cost(source: Path, count: int, rate: float) -> Cost:
    """Apply `count` Services to a new platform that runs the code of a checkout."""
    with tempfile.TemporaryDirectory(prefix="knoll-bench-") as directory:
        platform = Processes(Path(directory), source)
        async with platform.up(), platform.client() as client:
            cpu, writes, events = platform.cpu(), await platform.writes(), await platform.writes_by_kind()
            reconciled = await reconciles(client)
            async with Watch(client).running() as watch:
                await applied(client, count, rate)
                await watch.count(count)
            await until_zero(client)
            await asyncio.sleep(SETTLE_SECONDS)
            spent, written = platform.cpu(), await platform.writes()
            again, by_kind = await reconciles(client) - reconciled, await platform.writes_by_kind() - events
    return Cost(
        {name: (spent[name] - cpu[name]) * 1000 / count for name in cpu},
        (written - writes) / count,
        again.total() / count,
        {kind: number / count for kind, number in sorted((by_kind + again).items())},
    )


def show(name: str, each: Cost) -> None:
    parts = ", ".join(f"{part} {value:.1f}" for part, value in each.cpu_ms.items())
    print(f"{name}: {each.total_ms:.1f} ms ({parts}), {each.writes:.1f} writes, {each.reconciles:.1f} reconciliations")


async def measure(count: int, rate: float, rounds: int, commit: str) -> None:
    """Args: commit: the one to compare with; empty measures this checkout alone."""
    with tempfile.TemporaryDirectory(prefix="knoll-baseline-") as folder:
        sources = {"this": OWN}
        if commit:
            sources = {commit: checkout(commit, Path(folder) / "source"), **sources}
        costs: dict[str, list[Cost]] = {name: [] for name in sources}
        for _ in range(rounds):
            for name, source in sources.items():
                costs[name].append(await cost(source, count, rate))
                show(name, costs[name][-1])
    report(costs["this"], costs.get(commit) if commit else None)


def report(own: list[Cost], baseline: list[Cost] | None) -> None:
    for kind, number in own[-1].by_kind.items():
        print(f"  {kind:60} {number:6.2f}")
    print(f"RESULT scale.cpu_ms_per_service {median(each.total_ms for each in own):.1f} ms")
    if baseline:
        ratios = [mine.total_ms / theirs.total_ms for mine, theirs in zip(own, baseline, strict=True)]
        print(f"RESULT scale.cpu_vs_baseline {median(ratios):.3f} ratio")
    print(f"RESULT scale.writes_per_service {median(each.writes for each in own):.1f} count")
    print(f"RESULT scale.reconciles_per_service {median(each.reconciles for each in own):.1f} count")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.scale_cost", description=__doc__)
    parser.add_argument("--services", type=int, default=60, help="number of Services (%(default)s)")
    parser.add_argument("--rate", type=float, default=4.0, help="Services applied per second (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each commit (%(default)s)")
    parser.add_argument("--baseline", default=BASELINE, help="commit to compare with; '' for none (%(default)s)")
    options = parser.parse_args()
    with stoppable():
        asyncio.run(measure(options.services, options.rate, options.rounds, options.baseline))


if __name__ == "__main__":
    main()
