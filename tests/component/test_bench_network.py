"""What a bench leaves on the engine: nothing when a signal ends it; the next one removes what a killed one left."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.coldstart_network import remove_leftovers
from tests.conftest import need
from tests.waiting import eventually_sync

ROOT = Path(__file__).parents[2]
BENCH = """
import asyncio
import subprocess
import sys
from bench.coldstart_network import network
from bench.lib.stopping import stoppable

async def measure(name):
    with network(name):
        words = ["docker", "create", "--network", name, "--name", f"{name}-hello", sys.argv[2], "/hello"]
        subprocess.run(words, check=True, capture_output=True)
        print("measuring", flush=True)
        await asyncio.sleep(600)

with stoppable():
    asyncio.run(measure(sys.argv[1]))
"""


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def prefix() -> Iterator[str]:
    need("DOCKER", subprocess.run(["docker", "info"], capture_output=True).returncode == 0)
    prefix = f"knoll-test-{uuid.uuid4().hex[:8]}"
    subprocess.run(["bash", "-c", f"tar -c --files-from=/dev/null | docker import - {prefix}/empty:1"], check=True)
    try:
        yield prefix
    finally:
        remove_leftovers(prefix)
        docker("image", "rm", f"{prefix}/empty:1")


@pytest.fixture
def bench(prefix: str) -> Iterator[subprocess.Popen[str]]:
    """A bench in the network `PREFIX-a`, with a container there."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "platform"), str(ROOT)))}
    command = [sys.executable, "-c", BENCH, f"{prefix}-a", f"{prefix}/empty:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "measuring\n"
        try:
            yield process
        finally:
            process.kill()


def left(prefix: str) -> list[str]:
    containers = docker("ps", "--all", "--filter", f"name={prefix}", "--format={{.Names}}").split()
    return [*containers, *docker("network", "ls", "--filter", f"name={prefix}", "--format={{.Name}}").split()]


@pytest.mark.parametrize("numbers", [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGINT, signal.SIGTERM)])
def test_signals_end_a_bench_in_order(
    prefix: str, bench: subprocess.Popen[str], numbers: tuple[signal.Signals, ...]
) -> None:
    assert left(prefix) == [f"{prefix}-a-hello", f"{prefix}-a"]
    for number in numbers:
        bench.send_signal(number)
    assert bench.wait(60) == 128 + signal.SIGINT
    assert left(prefix) == []


def test_what_a_killed_bench_left_is_removed_and_what_a_running_one_has_is_not(
    prefix: str, bench: subprocess.Popen[str]
) -> None:
    with pytest.raises(SystemExit, match=f"process {bench.pid} measures already, in the network {prefix}-a"):
        remove_leftovers(prefix)
    bench.kill()
    bench.wait(60)
    assert left(prefix) == [f"{prefix}-a-hello", f"{prefix}-a"]
    remove_leftovers(prefix)
    eventually_sync(lambda: left(prefix) == [], condition="the end of the container")
