"""Sends load to a port and measures the responses."""

import asyncio
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.lib.stage import HOST, LOAD_CORE

PAIRS, PAIR_SECONDS = 3, 1
"""Pairs in a round, and seconds of one measurement: many short measurements vary less than few long ones."""
VARIED = """
local n = 0
request = function()
  n = n + 1
  return wrk.format("GET", "/items/" .. n .. "?page=" .. (n % 7), {
    ["Accept"] = "application/json", ["User-Agent"] = "bench/1.0", ["X-Request-Id"] = "req-" .. n,
    ["Accept-Encoding"] = "gzip, deflate", ["Cookie"] = "session=" .. (n * 7919),
    ["Traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01" })
end
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """Figures of one round."""

    per_second: float
    p99_ms: float
    errors: int


def wrk(port: int, connections: int, seconds: float, script: Path | None = None, cores: str = LOAD_CORE) -> Rate:
    """Run wrk for one round, on the core for load."""
    command = ["taskset", "-c", cores, "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}", "--latency"]
    if script is not None:
        command += ["-s", str(script)]
    text = subprocess.run([*command, f"http://{HOST}:{port}/"], check=True, capture_output=True, text=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", text)
    assert rate is not None
    assert p99 is not None, text
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]]
    wrong = [int(n) for n in re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", text)]
    return Rate(float(rate[1]), float(p99[1]) * scale, sum(wrong))


def h2load(port: int, seconds: float, *more: str, path: str = "/") -> Rate:
    """Run h2load for one round with 16 streams on each of 4 connections, on the core for load.

    Its latencies are not read, and p99 is 1. Args: more: options of h2load.
    """
    command = ["taskset", "-c", LOAD_CORE, "h2load", "-t1", "-c4", "-m16", f"-D{seconds:g}", *more]
    text = subprocess.run([*command, f"http://{HOST}:{port}{path}"], check=True, capture_output=True, text=True).stdout
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", text)
    counts = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    failed = re.search(r"(\d+) failed, (\d+) errored", text)
    assert rate is not None
    assert counts is not None
    assert failed is not None
    return Rate(float(rate[1]), 1.0, sum(map(int, counts.groups()[1:])) + sum(map(int, failed.groups())))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rates of the activator and of another proxy, and their ratios."""

    ours: Rate
    """Medians of all pairs; errors are added up."""
    other: Rate
    rate: float
    """Median of the ratios of rates, one for each pair."""
    p99: float
    """The same for the 99th percentiles."""


def compare(measure: Callable[[int, float], Rate], ours: int, other: int, rounds: int) -> Comparison:
    """Measure two ports in pairs: a disturbance of both halves of a pair does not change its ratio.

    The order changes with each pair, so that neither port always has the first turn.

    Args:
        measure: measures a port (first argument) for a number of seconds.
        rounds: how many times `PAIRS` pairs are measured.
    """
    pairs: list[tuple[Rate, Rate]] = []
    for port in (ours, other):
        measure(port, 1)
    for number in range(rounds * PAIRS):
        if number % 2:
            theirs = measure(other, PAIR_SECONDS)
            pairs.append((measure(ours, PAIR_SECONDS), theirs))
        else:
            pairs.append((measure(ours, PAIR_SECONDS), measure(other, PAIR_SECONDS)))
    return Comparison(
        _medians([pair[0] for pair in pairs]),
        _medians([pair[1] for pair in pairs]),
        rate=median(first.per_second / second.per_second for first, second in pairs),
        p99=median(first.p99_ms / second.p99_ms for first, second in pairs),
    )


def _medians(rates: Sequence[Rate]) -> Rate:
    return Rate(
        median(each.per_second for each in rates),
        median(each.p99_ms for each in rates),
        sum(each.errors for each in rates),
    )


async def paced(port: int, per_second: int, seconds: float, connections: int = 20, host: str = HOST) -> list[float]:
    """Send requests at a fixed rate; returns latencies in seconds, with the time until a connection is free."""
    idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(connections):
        idle.put_nowait(await asyncio.open_connection(HOST, port))
    latencies: list[float] = []

    async def request(due: float) -> None:
        reader, writer = await idle.get()
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
        latencies.append(time.perf_counter() - due)
        idle.put_nowait((reader, writer))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(per_second * seconds)):
            due = began + number / per_second
            if due > time.perf_counter():
                await asyncio.sleep(due - time.perf_counter())
            tasks.create_task(request(time.perf_counter()))
    while not idle.empty():
        idle.get_nowait()[1].close()
    return latencies


def percentile(values: list[float], fraction: float) -> float:
    return sorted(values)[int(len(values) * fraction)]


def result(name: str, value: float, unit: str) -> None:
    """Print a result in the machine-readable form."""
    print(f"RESULT {name} {value:.4g} {unit}", flush=True)
