"""The throughput of a program that needs only the CPU, on three machines and on one, each limited to half a core."""

import asyncio
import re
import statistics
import time
from collections.abc import Sequence

from bench.coldstart_parts import until
from bench.machines.cluster import ClusterClient, MachineClient, Service
from bench.machines.figures import Figure
from tests.cluster_processes import GATEWAY_PORT

CORES = 0.5
WORK_SECONDS = 0.02
"""CPU time of a request: large beside what activators need."""
CONNECTIONS = 4
"""Clients of each machine, which send one request after the other."""
ROUND_SECONDS, SETTLE_SECONDS = 10.0, 2.0
STEPS = 2_000_000
"""Steps of computation of a request that is timed to find out how many take WORK_SECONDS."""


async def throughput(cluster: ClusterClient, rounds: int) -> list[Figure]:
    """Send as many requests as are answered to one machine, and to all of them."""
    first, ratios = cluster.nodes[0], list[float]()
    one_instance = {"autoscaling.knative.dev/min-scale": "1", "autoscaling.knative.dev/max-scale": "1"}
    three_instances = {"autoscaling.knative.dev/min-scale": "3", "autoscaling.knative.dev/max-scale": "3"}
    on_first = {"nodeSelector": {"kubernetes.io/hostname": first.name}}
    async with (
        cluster.configured("config-features", {"kubernetes.podspec-nodeselector": "enabled"}),
        cluster.service("one", one_instance, on_first) as alone,
        cluster.service("three", three_instances) as spread,
    ):
        await until(lambda: _runs_on(cluster, spread, len(cluster.nodes)))
        steps = await _steps(first, alone)
        for node in cluster.nodes:
            node.machine.limit_cpu(CORES)
        try:
            await asyncio.sleep(SETTLE_SECONDS)
            for number in range(rounds):
                rates = {}
                for nodes, service in sorted(
                    (([first], alone), (cluster.nodes, spread)), key=lambda pair: len(pair[0]), reverse=bool(number % 2)
                ):
                    rates[service] = await _rate(nodes, service, steps)
                    await asyncio.sleep(SETTLE_SECONDS)
                print(f"round {number + 1}: one {rates[alone]:.1f}/s, three {rates[spread]:.1f}/s", flush=True)
                ratios.append(rates[spread] / rates[alone])
        finally:
            for node in cluster.nodes:
                node.machine.limit_cpu(None)
    return [Figure("machines.three_vs_one", statistics.median(ratios), "ratio")]


async def _runs_on(cluster: ClusterClient, service: Service, machines: int) -> bool:
    running = [len((await node.instances(service))[0]) for node in cluster.nodes]
    return sum(map(bool, running)) == machines


async def _steps(node: MachineClient, service: Service) -> int:
    """Return how many steps take WORK_SECONDS."""
    took = [(await node.ask(service, f"/?{STEPS}")).seconds for _ in range(9)]
    return round(STEPS * WORK_SECONDS / statistics.median(took))


async def _rate(nodes: Sequence[MachineClient], service: Service, steps: int) -> float:
    """Return how many requests the machines answer per second, each of which is asked by its own clients."""
    ends = time.perf_counter() + ROUND_SECONDS
    counts = await asyncio.gather(
        *(_requests(node, service, steps, ends) for node in nodes for _ in range(CONNECTIONS))
    )
    return sum(counts) / ROUND_SECONDS


async def _requests(node: MachineClient, service: Service, steps: int, ends: float) -> float:
    """Send requests until a moment; returns how many were answered, with the part of the last one."""
    reader, writer = await node.client.connect(node.machine.address, GATEWAY_PORT)
    count = 0.0
    try:
        while True:
            began = time.perf_counter()
            writer.write(f"GET /?{steps} HTTP/1.1\r\nHost: {service.host}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if not head.startswith(b"HTTP/1.1 200") or length is None:
                raise SystemExit(f"{service.name} responded with {head[:300]!r}")
            await reader.readexactly(int(length[1]))
            now = time.perf_counter()
            if now >= ends:
                return count + (ends - began) / (now - began)
            count += 1
    finally:
        writer.close()
