"""Parts of every cold start bench: the image, `docker run`, the clock and the report."""

import asyncio
import math
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SOCKET = Path("/var/run/docker.sock")
IMAGE = "knoll-bench/hello:1"
PORT = 8080
AT_ONCE = 25
NETWORK_OPTIONS = ("--subnet", "10.213.0.0/16", "--ip-range", "10.213.0.0/18")
"""With a separate subnet, `docker run --ip` sets the address in advance, so no time is spent on looking it up."""
SERVER = """package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
)

func main() {
	http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if steps, err := strconv.Atoi(r.URL.RawQuery); err == nil {
			x := uint64(1)
			for ; steps > 0; steps-- {
				x ^= x << 13
				x ^= x >> 7
				x ^= x << 17
			}
			fmt.Fprint(w, x)
			return
		}
		io.WriteString(w, "hello")
	}))
}
"""
"""Responds at once, or with a number in the query after as many steps of computation."""
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"

Samples = dict[str, list[float]]
"""Seconds of each start, by kind of start."""


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values are at or below (nearest rank); `values` is not empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def first_byte(address: str, port: int = PORT, request: bytes = REQUEST) -> None:
    """Send a request each millisecond until one gets a response."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(request)
                if await reader.read(1):
                    return
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.001)


def command(*args: str) -> str:
    done = subprocess.run(args, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def _build_image() -> None:
    """Build a static Go server in an empty image, with Go of this machine or of an image."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "main.go").write_text(SERVER)
        (directory / "go.mod").write_text("module hello\n\ngo 1.21\n")
        build = ["go", "build", "-ldflags=-s -w", "-o", "server", "."]
        if shutil.which("go"):
            command("env", "CGO_ENABLED=0", "GOTOOLCHAIN=local", *build[:1], "-C", name, *build[1:])
        else:
            inside = ["docker", "run", "--rm", "-v", f"{name}:/src", "-w", "/src", "-e", "CGO_ENABLED=0"]
            command(*inside, "golang:1.24", *build)
        command("tar", "-C", name, "-cf", f"{name}/server.tar", "server")
        command("docker", "import", "--change", 'ENTRYPOINT ["/server"]', f"{name}/server.tar", IMAGE)


@contextmanager
def image() -> Iterator[None]:
    """Provide the image, and remove it unless a platform still has it under another name."""
    _build_image()
    try:
        yield
    finally:
        subprocess.run(["docker", "rmi", "-f", IMAGE], capture_output=True)


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 120.0) -> None:
    """Wait for a condition, checked ten times a second."""
    async with asyncio.timeout(seconds):
        while True:
            if await check():
                return
            await asyncio.sleep(0.1)


async def docker_run(name: str, network: str, address: str) -> float:
    """Start and remove a container with `docker run`; returns the seconds to the first byte.

    The first request is sent after the command has returned: a packet to an address that does not exist yet makes the
    kernel wait a second before it tries again, which would distort the measurement.
    """
    began = time.perf_counter()
    run = await asyncio.create_subprocess_exec(
        *("docker", "run", "-d", "--name", name, "--network", network, "--ip", address, IMAGE),
        stdout=subprocess.DEVNULL,
    )
    await run.wait()
    await first_byte(address)
    took = time.perf_counter() - began
    remove = await asyncio.create_subprocess_exec("docker", "rm", "-f", name, stdout=subprocess.DEVNULL)
    await remove.wait()
    return took


def report(samples: Samples) -> None:
    """A table for people, `RESULT` lines for machines."""
    print(f"{'start':<16} {'median':>9} {'p95':>9} {'samples':>8}")
    for kind, values in samples.items():
        if kind != "armed_bytes":
            print(f"{kind:<16} {_ms(statistics.median(values))} {_ms(quantile(values, 0.95))} {len(values):>8}")
    results = _ratios(samples)
    for name, value in results.items():
        print(f"RESULT {name} {value:.3f} ratio")
    for kind, prefix in (("zero", ""), ("unarmed", "unarmed_")):
        if samples.get(f"{kind}_own"):
            own = statistics.median(samples[f"{kind}_own"])
            print(f"RESULT coldstart.{prefix}own_share_ms {own * 1000:.2f} ms")
        if samples.get(f"{kind}_told"):
            pairs = zip(samples[f"{kind}_told"], samples[f"{kind}_waited"], strict=True)
            shares = [reported / waited for reported, waited in pairs]
            print(f"RESULT coldstart.{prefix}told_by_server_timing {statistics.median(shares):.3f} ratio")
    if samples.get("armed_bytes"):
        print(f"RESULT coldstart.armed_mib {samples['armed_bytes'][0] / 1024**2:.2f} MiB")


def _ratios(samples: Samples) -> dict[str, float]:
    run = samples["docker_run"]
    plain, plain_p95 = statistics.median(run), quantile(run, 0.95)
    results: dict[str, float] = {}
    if samples.get("zero"):
        results["coldstart.zero_vs_docker_run"] = statistics.median(samples["zero"]) / plain
        results["coldstart.zero_p95_vs_docker_run"] = quantile(samples["zero"], 0.95) / plain_p95
    if samples.get("unarmed"):
        results["coldstart.unarmed_vs_docker_run"] = statistics.median(samples["unarmed"]) / plain
    if samples.get("engine: start"):
        pairs = zip(samples["engine: create"], samples["engine: start"], strict=True)
        engine = statistics.median(create + start for create, start in pairs)
        results["coldstart.engine_vs_docker_run"] = engine / plain
        results["coldstart.unarmed_vs_engine"] = statistics.median(samples["unarmed"]) / engine
    if "engine_run" in samples:
        api = statistics.median(samples["engine_run"])
        results["coldstart.zero_vs_engine_run"] = statistics.median(samples["zero"]) / api
    if samples.get("paused"):
        results["coldstart.paused_vs_docker_run"] = statistics.median(samples["paused"]) / plain
    for kind, name in (("zero_25", "wake25"), ("zero_25_unlearned", "wake25_first")):
        if samples.get(kind):
            woken, at_once = quantile(samples[kind], 0.95), quantile(samples["docker_run_25"], 0.95)
            results[f"coldstart.{name}_p95_vs_docker_run"] = woken / at_once
    return results


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:>7.1f}ms"
