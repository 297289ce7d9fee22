"""Fail-overs of a Redis with replicas under four writers: lost writes, versions given out twice, and the time without
an acknowledged write; and the cost of a write beside one plain Redis.

Each round has a new primary, two replicas and three sentinels. The primary is killed, frozen for a while, or cut off
together with half of the writers (in network namespaces, which needs root). tests/failover.py has the writers and their
checks; `tests/component/knoll/test_redis_failover.py` runs each kind once.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Any, get_args

import structlog

from bench.lib.stopping import stoppable
from bench.machines.figures import Figure
from knoll.redis.client import connected
from knoll.store.redis_store import RedisStore
from tests.component.knoll.conftest import RedisProcess
from tests.failover import Kind, Outcome, fail_over
from tests.redis_group import may_simulate_machines, running

FAILOVERS = 20
WRITES, WRITERS, ROUNDS = 100, 32, 4
NEVER = ("machines.failover_lost_writes", "machines.versions_twice")


def fail_overs(count: int, kinds: Sequence[Kind], server: str) -> list[Outcome]:
    outcomes = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        with tempfile.TemporaryDirectory(prefix="knoll-bench-") as folder:
            outcome = fail_over(Path(folder), kind, server)
        outcomes.append(outcome)
        print(f"{number + 1:3} {kind:10} {outcome}", flush=True)
    return outcomes


async def write(store: RedisStore, name: str, writer: int, seconds: list[float]) -> None:
    """Update one object `WRITES` times, and append the seconds of each update."""
    body: dict[str, Any] = {"metadata": {"namespace": "bench", "name": f"{name}-{writer}", "uid": name}, "data": {}}
    stored = await store.create("configmaps", body)
    for number in range(WRITES):
        stored["data"]["n"] = str(number)
        began = time.perf_counter()
        stored = await store.update("configmaps", stored)
        seconds.append(time.perf_counter() - began)


async def latencies(urls: dict[str, str]) -> dict[str, dict[str, list[float]]]:
    """Return by Redis: `alone`, the seconds of one writer's writes, and `rates`, the writes per second of many."""
    measured: dict[str, dict[str, list[float]]] = {name: {"alone": [], "rates": []} for name in urls}
    async with AsyncExitStack() as stack:
        stores = {name: RedisStore(await stack.enter_async_context(connected(url))) for name, url in urls.items()}
        for turn in range(ROUNDS):
            for name, store in stores.items():
                await write(store, f"alone{turn}{name}", 0, measured[name]["alone"])
                began, together = time.perf_counter(), list[float]()
                await asyncio.gather(
                    *(write(store, f"many{turn}{name}", writer, together) for writer in range(WRITERS))
                )
                measured[name]["rates"].append(len(together) / (time.perf_counter() - began))
    return measured


def measure_latencies() -> dict[str, dict[str, list[float]]]:
    with tempfile.TemporaryDirectory(prefix="knoll-bench-") as folder:
        plain = RedisProcess(Path(folder))
        plain.start()
        try:
            (Path(folder) / "group").mkdir()
            with running(Path(folder) / "group") as group:
                return asyncio.run(
                    latencies({"one plain Redis": plain.url, "replicas=1": group.url(1), "replicas=2": group.url(2)})
                )
        finally:
            plain.close()


def show_latencies(measured: dict[str, dict[str, list[float]]]) -> None:
    plain = measured["one plain Redis"]
    for name, values in measured.items():
        p50, p99 = median(values["alone"]), quantiles(values["alone"], n=100)[-1]
        print(
            f"{name:16} one writer: p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms, "
            f"{p50 / median(plain['alone']):.2f} of plain; {WRITERS} writers: {median(values['rates']):.0f}/s"
        )
    for result, key in (("p50", "alone"), ("rate", "rates")):
        ratio = median(measured["replicas=1"][key]) / median(plain[key])
        print(f"RESULT machines.replicated_write_{result}_vs_plain {ratio:.2f} ratio")


def show_fail_overs(outcomes: Sequence[Outcome]) -> list[Figure]:
    away = sorted(outcome.unavailable_seconds for outcome in outcomes)
    p95 = quantiles(away, n=20, method="inclusive")[-1] if len(away) > 1 else away[0]
    print(
        f"{len(outcomes)} fail-overs, {sum(outcome.acknowledged for outcome in outcomes)} acknowledged writes; without "
        f"one for {median(away):.1f} s (at most {away[-1]:.1f} s); leases held twice: "
        f"{sum(outcome.led_twice for outcome in outcomes)}"
    )
    lost = sum(outcome.lost + outcome.lost_puts for outcome in outcomes)
    twice = sum(outcome.versions_twice + outcome.went_back for outcome in outcomes)
    return [
        Figure("machines.failover_lost_writes", lost, "count"),
        Figure("machines.versions_twice", twice, "count"),
        Figure("machines.leases_twice", sum(outcome.led_twice for outcome in outcomes), "count"),
        Figure("machines.unavailable_p95_s", p95, "s"),
    ]


def possible_kinds() -> list[Kind]:
    """Return the kinds of fail-overs that this user can cause."""
    return [kind for kind in get_args(Kind) if kind != "partition" or may_simulate_machines()]


def measure() -> list[Figure]:
    """Measure twenty fail-overs, without the cost of writes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    return show_fail_overs(fail_overs(FAILOVERS, possible_kinds(), "redis-server"))


def main() -> None:
    kinds = possible_kinds()
    parser = argparse.ArgumentParser(prog="bench.redis_failover", description=__doc__)
    parser.add_argument(
        "--failovers", type=int, default=FAILOVERS, help="fail-overs, of each kind in turn (%(default)s)"
    )
    parser.add_argument("--kind", action="append", choices=kinds, help="only these kinds (all)")
    parser.add_argument("--server", default="redis-server", help="program of servers and sentinels (%(default)s)")
    parser.add_argument("--no-latencies", action="store_true", help="leave out what a write costs")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with stoppable():
        measured = {} if options.no_latencies else measure_latencies()
        outcomes = fail_overs(options.failovers, options.kind or kinds, options.server)
    if measured:
        show_latencies(measured)
    figures = show_fail_overs(outcomes) if outcomes else []
    for figure in figures:
        print(figure.line())
    if any(figure.value for figure in figures if figure.name in NEVER):
        sys.exit("a fail-over lost what was acknowledged, or gave a version out twice")


if __name__ == "__main__":
    main()
