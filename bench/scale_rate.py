"""The highest rate of applies at which Services are Ready within a second, beside that of an earlier commit, and what
happens at twice that rate.

A rate counts as steady if the 95th percentile from apply to Ready is at most a second. Rates rise by a third until one
is not; the Services of earlier steps scale to zero meanwhile. Then one minute at twice the highest rate, on a new
platform: leases lost, the time of `kubectl get`, the order in which Services become Ready, Services that never do, and
cold starts of other Services beside those that they had before.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import median, quantiles

import httpx

from bench.coldstart_platform import SERVICES
from bench.lib.cold_starts import ColdStarts
from bench.lib.fleet import BASELINE, OWN, Processes, Watch, applied, checkout
from bench.lib.stopping import stoppable

FIRST_RATE, STEP = 4.0, 4 / 3
READY_SECONDS = 1.0
QUIET_ROUNDS = 2
START_PAUSE = 1.0
"""Seconds between two cold starts under load."""
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
"""What kubectl accepts for `get`."""


def p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20)[-1] if len(values) > 1 else values[0]


@contextlib.asynccontextmanager
async def running(source: Path) -> AsyncIterator[tuple[Processes, httpx.AsyncClient]]:
    """A new platform that runs the code of a checkout."""
    with tempfile.TemporaryDirectory(prefix="knoll-bench-") as directory:
        platform = Processes(Path(directory), source)
        async with platform.up(), platform.client() as client:
            yield platform, client


async def highest_rate(source: Path, seconds: float) -> float:
    """Return the highest steady rate per second. Args: seconds: how long each rate is kept up."""
    best, rate, first = 0.0, FIRST_RATE, 0
    async with running(source) as (_, client), Watch(client).running() as watch:
        while True:
            count = round(rate * seconds)
            begun = await applied(client, count, rate, first, retry=True)
            first += count
            await watch.count(first)
            took = p95([watch.ready[name] - at for name, at in begun.items()])
            print(f"  {rate:5.1f}/s: Ready after {took:.2f} s (p95)", flush=True)
            if took > READY_SECONDS:
                return best
            best, rate = rate, rate * STEP


class Gets:
    """Repeats what `kubectl get ksvc NAME` requests, and keeps the times."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.seconds: list[float] = []

    async def run(self, name: str) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=60) as client:
            while True:
                begun = time.monotonic()
                answer = await client.get(f"{SERVICES}/{name}", headers={"Accept": TABLE})
                answer.raise_for_status()
                self.seconds.append(time.monotonic() - begun)
                await asyncio.sleep(0.1)


def disorder(begun: dict[str, float], ready: dict[str, float]) -> float:
    """Return how far Services are from becoming Ready in the order of their arrival: 1 is in order.

    The time from the first apply until a Service is Ready is compared with that until as many Services are Ready as
    arrived up to it. Returns the 95th percentile of the ratios, whichever of the two is longer.
    """
    start = min(begun.values())
    order = sorted(begun, key=lambda name: begun[name])
    moments = sorted(ready[name] - start for name in order)
    ratios = []
    for place, name in enumerate(order):
        own, due = ready[name] - start, moments[place]
        ratios.append(max(own / due, due / own))
    return p95(ratios)


async def overload(source: Path, rate: float, seconds: float) -> list[str]:
    """Apply at a rate that is too high, and return the results."""
    async with (
        running(source) as (platform, client),
        httpx.AsyncClient(base_url=platform.api, timeout=60) as others,
        Watch(client).running() as watch,
    ):
        starts = ColdStarts(platform, others)
        await starts.prepare(watch)
        quiet = median(await starts.rounds(QUIET_ROUNDS))
        earlier = len(watch.ready)
        gets = Gets(platform.api)
        background = [asyncio.create_task(gets.run("cold-0")), asyncio.create_task(starts.run(START_PAUSE))]
        count = round(rate * seconds)
        lost = platform.count_in_logs("leadership lost")
        begun = await applied(client, count, rate, retry=True)
        busy, answered = list(starts.seconds), list(gets.seconds)
        with contextlib.suppress(TimeoutError):
            await watch.count(count + earlier)
        for task in background:
            task.cancel()
        for result in await asyncio.gather(*background, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        lost = platform.count_in_logs("leadership lost") - lost
    late = [name for name in begun if name not in watch.ready]
    done = {name: at for name, at in begun.items() if name in watch.ready}
    took = [watch.ready[name] - at for name, at in done.items()]
    print(f"{count} Services at {rate:.1f}/s: Ready after median {median(took):.1f} s, p95 {p95(took):.1f} s")
    print(f"{len(busy)} cold starts beside them took {', '.join(f'{each * 1000:.0f}' for each in sorted(busy))} ms")
    return [
        f"RESULT scale.overload_leases_lost {lost} count",
        f"RESULT scale.overload_get_p95_ms {p95(answered) * 1000:.0f} ms",
        f"RESULT scale.overload_order {disorder(done, watch.ready):.2f} ratio",
        f"RESULT scale.overload_dropped {len(late)} count",
        f"RESULT scale.quiet_cold_start_ms {quiet * 1000:.1f} ms",
        f"RESULT scale.overload_cold_start_ms {median(busy) * 1000:.1f} ms",
        f"RESULT scale.overload_cold_start_ratio {median(busy) / quiet:.2f} ratio",
    ]


async def measure(seconds: float, overload_seconds: float, rounds: int, commit: str) -> None:
    """Args: commit: the one to compare with; empty measures this checkout alone."""
    with tempfile.TemporaryDirectory(prefix="knoll-baseline-") as folder:
        sources = {"this": OWN}
        if commit:
            sources = {commit: checkout(commit, Path(folder) / "source"), **sources}
        rates: dict[str, list[float]] = {name: [] for name in sources}
        for _ in range(rounds):
            for name, source in sources.items():
                rates[name].append(await highest_rate(source, seconds))
                print(f"{name}: {rates[name][-1]:.1f}/s", flush=True)
    best = median(rates["this"])
    print(f"RESULT scale.max_rate {best:.1f} /s")
    if commit:
        print(f"RESULT scale.max_rate_vs_baseline {best / median(rates[commit]):.2f} ratio")
    if overload_seconds:
        print("\n".join(await overload(OWN, 2 * best, overload_seconds)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.scale_rate", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each rate is kept up (%(default)s)")
    parser.add_argument("--overload", type=float, default=60.0, help="seconds at twice the rate (%(default)s)")
    parser.add_argument("--rate", type=float, default=0.0, help="only the overload, at this rate")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each commit (%(default)s)")
    parser.add_argument("--baseline", default=BASELINE, help="commit to compare with; '' for none (%(default)s)")
    options = parser.parse_args()
    with stoppable():
        if options.rate:
            print("\n".join(asyncio.run(overload(OWN, options.rate, options.overload))))
            return
        asyncio.run(measure(options.seconds, options.overload, options.rounds, options.baseline))


if __name__ == "__main__":
    main()
