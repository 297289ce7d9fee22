"""Thousands of Services at zero: time until each is Ready, and the cost of all of them while idle.

Services are applied to a whole platform with a fake runtime (`bench.lib.fleet`) at a steady rate; a watch shows when
each is Ready. When all are at zero, the processor time and the memory of all processes are read: resident memory as the
kernel shares it out (PSS), because the processes share most of their code. The processor time includes the
engine's for the health checks of Compose (`bench.lib.health_checks`).
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from bench.lib.fleet import Processes, Watch, applied, cpu_seconds, memory_kib, until_zero
from bench.lib.health_checks import checks_of, idle_percent
from bench.lib.stopping import stoppable
from bench.tick import tick_ms


async def measure(count: int, rate: float, idle_seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="knoll-bench-") as directory:
        platform = Processes(Path(directory))
        async with platform.up(), platform.client() as client:
            empty = {name: memory_kib(pids) for name, pids in platform.trees().items()}
            async with Watch(client).running() as watch:
                begun = await applied(client, count, rate)
                await watch.count(count)
            took = sorted(watch.ready[name] - begun[name] for name in begun)
            await until_zero(client)
            await asyncio.sleep(10)
            trees = platform.trees()
            before, at = {name: cpu_seconds(pids) for name, pids in trees.items()}, time.monotonic()
            await asyncio.sleep(idle_seconds)
            spent = time.monotonic() - at
            cpu = {name: (cpu_seconds(pids) - before[name]) / spent * 100 for name, pids in trees.items()}
            full = {name: memory_kib(pids) for name, pids in trees.items()}
            port = int(platform.api.rpartition(":")[2])
            cpu["checks"] = await asyncio.to_thread(idle_percent, checks_of(), port)
    report(count, rate, took, cpu, empty, full)


def report(
    count: int, rate: float, took: list[float], cpu: dict[str, float], empty: dict[str, int], full: dict[str, int]
) -> None:
    print(f"{count} services at {rate:g} per second: Ready after median {median(took):.2f} s, most {took[-1]:.2f} s")
    print(f"{'':12}{'idle CPU':>10}{'empty':>10}{'full':>10}{'per service':>12}")
    for name in full:
        each = (full[name] - empty[name]) / count
        sizes = f"{empty[name] / 1024:>6.1f} MiB{full[name] / 1024:>6.1f} MiB"
        print(f"{name:12}{cpu[name]:>8.2f} %{sizes}{each:>8.1f} KiB")
    print(f"{'checks':12}{cpu['checks']:>8.2f} %")
    p95 = quantiles(took, n=20)[-1] if len(took) > 1 else took[0]
    ours = [name for name in full if name != "redis"]
    print(f"RESULT scale.ready_p95_s {p95:.2f} s")
    print(f"RESULT scale.ready_median_s {median(took):.3f} s")
    print(f"RESULT scale.idle_cpu_percent {sum(cpu.values()):.2f} percent")
    print(f"RESULT scale.rss_mib {sum(full[name] for name in ours) / 1024:.0f} MiB")
    print(f"RESULT scale.redis_mib {full['redis'] / 1024:.0f} MiB")
    growth = sum(full.values()) - sum(empty.values())
    print(f"RESULT scale.rss_kib_per_service {growth / count:.1f} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.scale", description=__doc__)
    parser.add_argument("--services", type=int, default=1000, help="number of Services (%(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="Services applied per second (%(default)s)")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of measuring while idle (%(default)s)")
    options = parser.parse_args()
    with stoppable():
        asyncio.run(measure(options.services, options.rate, options.idle))
    print(f"RESULT scale.tick1000_ms {tick_ms(1000):.1f} ms")
    if options.services != 1000:
        print(f"a tick of {options.services} active Revisions takes {tick_ms(options.services):.1f} ms")


if __name__ == "__main__":
    main()
