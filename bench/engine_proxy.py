"""Cost of the engine proxy in a cold start: alternating starts with and without it, in one run on one engine.

`python -m bench.engine_proxy --rounds 30`. The proxy is a process of its own, as with Compose.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from autoscaler.probes.checks import Checker
from autoscaler.runtime.docker.docker_runtime import DockerRuntime
from autoscaler.runtime.docker.engine import Engine
from bench import coldstart_network
from bench.coldstart_parts import IMAGE, SOCKET, image
from bench.coldstart_runtime import Bench
from bench.lib.stopping import stoppable
from tests.waiting import eventually_sync

SUBNETS = ("10.213.0.0/17", "10.213.128.0/17")


@contextlib.contextmanager
def proxy(folder: Path, platform: str, network: str) -> Iterator[Path]:
    """Run a proxy, and yield its socket for the autoscaler."""
    environment = {
        **os.environ, "KNOLL_ENGINE_SOCKETS_DIR": str(folder), "KNOLL_PLATFORM": platform,
        "KNOLL_INSTANCE_NETWORK": network, "KNOLL_DOCKER_SOCKET": str(SOCKET), "KNOLL_LOG_LEVEL": "error",
    }  # fmt: skip
    socket = folder / "autoscaler" / "docker.sock"
    with subprocess.Popen([sys.executable, "-m", "knoll.engine_proxy"], env=environment) as process:
        try:
            eventually_sync(socket.exists, within=30, condition="the engine proxy")
            yield socket
        finally:
            process.terminate()


@contextlib.asynccontextmanager
async def bench(platform: str, network: str, socket: Path, checker: Checker) -> AsyncIterator[Bench]:
    """Provide a runtime on a separate platform, which is removed afterwards."""
    async with DockerRuntime(socket, platform=platform, network=network, warm_sandboxes=32) as runtime:
        await runtime.ensure_image(IMAGE)
        yield Bench(runtime, Engine(SOCKET), checker, platform, network)
        await runtime.destroy()


async def measure(rounds: int, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of each start, in alternating order; the first round is dropped."""
    names = [f"bench-{uuid.uuid4().hex[:6]}" for _ in SUBNETS]
    networks = [f"knoll-{name}" for name in names]
    samples: dict[str, list[float]] = {"direct": [], "proxied": []}
    with contextlib.ExitStack() as stack:
        for network, subnet in zip(networks, SUBNETS, strict=True):
            stack.enter_context(coldstart_network.network(network, "--subnet", subnet))
        with proxy(folder, names[1], networks[1]) as socket:
            async with (
                Checker() as checker,
                bench(names[0], networks[0], SOCKET, checker) as direct,
                bench(names[1], networks[1], socket, checker) as proxied,
            ):
                kinds = [("direct", direct), ("proxied", proxied)]
                for number in range(rounds + 1):
                    for kind, each in kinds if number % 2 else reversed(kinds):
                        await each.calm(1)
                        samples[kind].append((await each.from_zero())[0])
    return {kind: values[1:] for kind, values in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.engine_proxy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="starts of each kind")
    options = parser.parse_args()
    with stoppable(), image(), tempfile.TemporaryDirectory(prefix="knoll-") as folder:
        samples = asyncio.run(measure(options.rounds, Path(folder)))
    medians = {kind: statistics.median(values) for kind, values in samples.items()}
    for kind, median in medians.items():
        print(f"RESULT engine_proxy.{kind} {median * 1000:.1f} ms")
    print(f"RESULT engine_proxy.ratio {medians['proxied'] / medians['direct']:.3f} x")


if __name__ == "__main__":
    main()
