"""Cold starts across machines: served by another machine than the one asked, and with resource requests."""

import asyncio
import itertools
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack

from bench.machines.cluster import ClusterClient, MachineClient, Response, Service
from bench.machines.figures import Figure

PAUSE_SECONDS = 0.3
"""Between two starts: the engine is busy with the end of the one before."""
FEWEST, MOST = 3, 9
"""Services of `remote`: as many as it takes until each machine has one of their armed instances."""


async def remote(cluster: ClusterClient, rounds: int) -> list[Figure]:
    """From zero, with an armed instance: asked at the machine that has it, and at the others in turn."""
    local, other = list[Response](), list[Response]()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(cluster.quick())
        services: list[Service] = []
        at: dict[str, MachineClient] = {}
        while len(services) < FEWEST or (len({node.name for node in at.values()}) < 3 and len(services) < MOST):
            service = await stack.enter_async_context(cluster.service(f"remote-{len(services)}"))
            services.append(service)
            at[service.name] = await cluster.armed_node(service)
        asked = itertools.count()
        for number in range(2 * rounds + 2):
            for order, service in enumerate(services):
                node = await cluster.armed_node(service)
                await asyncio.sleep(PAUSE_SECONDS)
                is_local = (number + order) % 2 == 0
                asker = node if is_local else cluster.others(node.name)[next(asked) % 2]
                response = await asker.ask(service)
                if number > 1:
                    (local if is_local else other).append(response)
                    print(f"armed on {node.name}, asked {asker.name}: {_line(response)}", flush=True)
    for kind, responses in (("local", local), ("remote", other)):
        print(f"{kind}: {_summary(responses)}")
    return [Figure("machines.remote_cold_vs_local", _median(other) / _median(local), "ratio")]


async def placed(cluster: ClusterClient, rounds: int) -> list[Figure]:
    """From zero, of a Revision with resource requests for which no place was kept: Swarm decides at that moment."""
    starts, plain = list[Response](), list[float]()
    async with cluster.quick(**{"allow-zero-initial-scale": "true"}):
        for number in range(rounds + 1):
            node = cluster.nodes[number % len(cluster.nodes)]
            # Places of one size are interchangeable and kept for a while, so each Revision requests another amount.
            resources = {"requests": {"cpu": f"{50 + number}m", "memory": f"{32 + number}Mi"}}
            scale = {"autoscaling.knative.dev/initial-scale": "0"}
            async with cluster.service(f"placed-{number}", scale, resources=resources) as service:
                await cluster.armed_node(service)
                await asyncio.sleep(PAUSE_SECONDS)
                took, container = await node.plain()
                await node.engine.remove(container)
                await asyncio.sleep(PAUSE_SECONDS)
                response = await node.ask(service)
                if number:
                    starts.append(response)
                    plain.append(took)
                    print(f"asked {node.name}: {_line(response)}; plain {took * 1000:.0f} ms", flush=True)
    print(f"placed: {_summary(starts)}; create and start on the engine: {statistics.median(plain) * 1000:.0f} ms")
    return [Figure("machines.placed_cold_vs_engine", _median(starts) / statistics.median(plain), "ratio")]


def _median(responses: Sequence[Response]) -> float:
    return statistics.median(each.seconds for each in responses)


def _line(response: Response) -> str:
    parts = ", ".join(f"{name} {seconds * 1000:.1f}" for name, seconds in response.parts.items())
    return f"{response.seconds * 1000:.1f} ms ({parts})"


def _summary(responses: Sequence[Response]) -> str:
    names = dict.fromkeys(name for each in responses for name in each.parts)
    parts = {name: statistics.median(each.parts.get(name, 0.0) for each in responses) for name in names}
    return f"{_line(Response(_median(responses), parts))}, median of {len(responses)}"
