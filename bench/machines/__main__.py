"""Figures of a platform on several machines, which are simulated on this one (`tests/machines.py`); needs root.

`python -m bench.machines`, or `--only NAME,NAME`. See machines.md for what is measured. At the end, a table of all
figures beside their bounds, and a `RESULT` line for each.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from activator.frontend.listeners import raise_file_limit
from bench import redis_failover
from bench.lib.stopping import stoppable
from bench.machines import cold_start, powercut, relay
from bench.machines.cluster import ClusterClient, platform
from bench.machines.figures import Figure, table
from bench.machines.placement import placement
from bench.machines.throughput import throughput
from bench.machines.wake import wake
from tests.machines import Machines, machines

MACHINES = 3
Part = Callable[[ClusterClient, int], Awaitable[list[Figure]]]
ALONE: dict[str, Callable[[int], list[Figure]]] = {
    "relay": relay.measure,
    "failover": lambda _: redis_failover.measure(),
}
"""Parts that need no machines; the argument is the number of rounds."""
ON_PLATFORM: dict[str, tuple[Part, int]] = {
    "remote": (cold_start.remote, 6),
    "placed": (cold_start.placed, 12),
    "wake": (wake, 4),
    "throughput": (throughput, 5),
}
"""Parts that share one platform, each with its usual number of rounds."""
NAMES = (*ALONE, "placement", *ON_PLATFORM, "powercut")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.machines", description=__doc__)
    parser.add_argument("--only", default=",".join(NAMES), help="parts, separated by commas (%(default)s)")
    parser.add_argument("--rounds", type=int, help="rounds of each part; default: what the part needs")
    parser.add_argument("--count", type=int, default=200, help="containers of each kind in `placement` (%(default)s)")
    options = parser.parse_args()
    only = options.only.split(",")
    if unknown := sorted(set(only) - set(NAMES)):
        parser.error(f"unknown part {unknown[0]!r}; valid are {', '.join(NAMES)}")
    figures: list[Figure] = []
    raise_file_limit()
    with stoppable(), reported(figures):
        for name, measure in ALONE.items():
            if name in only:
                print(f"== {name}", flush=True)
                figures += measure(options.rounds or 5)
        if "placement" in only:
            print("== placement", flush=True)
            with machines(MACHINES) as lab:
                lab.form_swarm(managers=MACHINES)
                figures += asyncio.run(placement(lab, options.rounds or 2, options.count))
        if parts := [name for name in ON_PLATFORM if name in only]:
            with machines(MACHINES) as lab:
                asyncio.run(_on_platform(lab, parts, options.rounds, figures))
        if "powercut" in only:
            print("== powercut", flush=True)
            figures += powercut.measure(options.rounds or powercut.CUTS)


async def _on_platform(lab: Machines, parts: Sequence[str], rounds: int | None, figures: list[Figure]) -> None:
    async with platform(lab) as cluster:
        for name in parts:
            print(f"== {name}", flush=True)
            part, usual = ON_PLATFORM[name]
            figures += await part(cluster, rounds or usual)


@contextmanager
def reported(figures: list[Figure]) -> Iterator[None]:
    """Print the figures at the end, also when a part fails."""
    try:
        yield
    finally:
        print(table(figures))
        print("\n".join(each.line() for each in figures), flush=True)


if __name__ == "__main__":
    main()
