"""Many Revisions woken at once over all machines, beside as many plain containers spread evenly over the engines."""

import asyncio
import statistics
from contextlib import AsyncExitStack

from bench.coldstart_parts import AT_ONCE, quantile
from bench.machines.cluster import ClusterClient, MachineClient
from bench.machines.figures import Figure

SETTLE_SECONDS = 5.0
"""Pause after the removal of many containers: the engines are still busy with it."""


async def wake(cluster: ClusterClient, rounds: int) -> list[Figure]:
    """Wake all Services at once; each machine is asked for its part of them."""
    woken, plain, most = list[float](), list[float](), 0
    nodes = [cluster.nodes[number % len(cluster.nodes)] for number in range(AT_ONCE)]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(cluster.quick())
        applied = (stack.enter_async_context(cluster.service(f"wake-{number}")) for number in range(AT_ONCE))
        services = [await each for each in applied]
        for number in range(rounds):
            armed = await asyncio.gather(*(cluster.armed_node(each) for each in services))
            started = await asyncio.gather(*(node.plain() for node in nodes))
            await asyncio.gather(*(node.engine.remove(each) for node, (_, each) in zip(nodes, started, strict=True)))
            await asyncio.sleep(SETTLE_SECONDS)
            asked = (node.ask(service) for node, service in zip(nodes, services, strict=True))
            responses = await asyncio.gather(*asked)
            running = [sum([bool((await node.instances(each))[0]) for each in services]) for node in cluster.nodes]
            most = max(most, *running)
            woken += [each.seconds for each in responses]
            plain += [seconds for seconds, _ in started]
            print(
                f"round {number + 1}: armed {_per_machine(armed, cluster)}, run {running}; p95 "
                f"{quantile([each.seconds for each in responses], 0.95) * 1000:.0f} ms, "
                f"plain {quantile([each for each, _ in started], 0.95) * 1000:.0f} ms",
                flush=True,
            )
    print(f"median {statistics.median(woken) * 1000:.0f} ms, plain {statistics.median(plain) * 1000:.0f} ms")
    return [
        Figure("machines.wake25_p95_vs_plain", quantile(woken, 0.95) / quantile(plain, 0.95), "ratio"),
        Figure("machines.wake25_most_on_one", most, "count"),
    ]


def _per_machine(nodes: list[MachineClient], cluster: ClusterClient) -> list[int]:
    return [sum(each is node for each in nodes) for node in cluster.nodes]
