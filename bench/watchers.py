"""200 watchers and 50 writers for a minute: events per second, and the memory of the API at the start and the end.

A real API process and a real Redis. At the end each watcher must have seen every write, once and in order; otherwise
the measurement fails.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.lib.crowd import Crowd
from knoll.cli.up import redis_command
from tests.component.api.processes import ApiProcess
from tests.waiting import eventually, eventually_sync

SAMPLES = 12
"""Number of times that memory is measured."""


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run Redis as `knoll up` does, and yield its URL."""
    socket = folder / "redis.sock"
    with subprocess.Popen(redis_command(folder), stdout=subprocess.DEVNULL) as server:
        try:
            eventually_sync(socket.exists, condition="Redis")
            yield f"unix://{socket}?db=0"
        finally:
            server.terminate()


async def measure(api: ApiProcess, watchers: int, writers: int, seconds: float) -> list[str]:
    """Print the figures; returns the faults."""
    with Crowd(api.url).closing() as crowd:
        await crowd.watch(watchers)
        resident = [api.rss_mib()]
        begun = time.monotonic()
        for _ in range(SAMPLES):
            await crowd.write(writers, seconds / SAMPLES)
            resident.append(api.rss_mib())
        await eventually(lambda: crowd.behind() <= 0, within=120, condition="the watchers")
        took = time.monotonic() - begun
        seen = sum(len(watcher.versions) for watcher in crowd.watchers)
        print(f"{watchers} watchers, {writers} writers, {took:.0f} s: {len(crowd.written)} writes, {seen} events")
        print("resident MiB: " + " ".join(f"{value:.0f}" for value in resident) + f", at most {api.peak_mib():.0f}")
        print(f"RESULT watchers.writes {len(crowd.written) / took:.0f} /s")
        print(f"RESULT watchers.events {seen / took:.0f} /s")
        print(f"RESULT watchers.rss_start {resident[0]:.0f} MiB")
        print(f"RESULT watchers.rss_end {resident[-1]:.0f} MiB")
        return crowd.faults()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.watchers", description=__doc__)
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--writers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="knoll-bench-") as directory,
        redis(Path(directory)) as url,
        ApiProcess(url, Path(directory)) as api,
    ):
        faults = asyncio.run(measure(api, options.watchers, options.writers, options.seconds))
    if faults:
        sys.exit("\n".join(faults[:20]))


if __name__ == "__main__":
    main()
