"""Requests to an instance of another machine beside requests to a local instance.

Two activators relay requests over mutual TLS. The CPU time of both activators and of the app under the same load is
divided by the number of requests; latency is measured at a fixed rate.
"""

import asyncio
import tempfile
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import uvloop

from activator.sync.node_certificate import AUTHORITY, CERTIFICATE, KEY
from bench.lib import load
from bench.lib.stage import HOST, LOAD_CORE, PROXY_CORE, Activator, Stage, free_port
from bench.machines.figures import Figure
from knoll.auth import certificates
from knoll.messages.endpoints import Endpoint
from knoll.messages.nodes import NODES, Node
from knoll.messages.routing import RequestPolicy
from knoll.redis.client import connected
from knoll.tables.redis_tables import RedisTable

LOCAL, REMOTE = "local.bench", "remote.bench"
NAMES = ("n1", "n2")


def certify(folder: Path, name: str, authority: certificates.Issued) -> None:
    """Write the certificate of a node."""
    folder.mkdir()
    key = certificates.new_key()
    signed = certificates.issue_node(authority, name, certificates.node_request(name, key), datetime.now(UTC))
    (folder / AUTHORITY).write_bytes(authority.certificate_pem)
    (folder / CERTIFICATE).write_bytes(signed)
    (folder / KEY).write_bytes(certificates.key_pem(key))


async def publish_nodes(stage: Stage, ports: dict[str, int]) -> None:
    """Write the table of nodes."""
    async with connected(stage.redis_url) as redis:
        table = RedisTable(redis, NODES, Node)
        for name, port in ports.items():
            await table.put(name, Node(name, HOST, port, 1, cores=1, memory_bytes=1, version="1"))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process from the scheduler, which is finer than clock ticks."""
    return sum(
        int(Path(task, "schedstat").read_text().split()[0]) / 1e9 for task in Path(f"/proc/{pid}/task").iterdir()
    )


def script(stage: Stage, host: str) -> Path:
    """Return a script for wrk that sets the Host header."""
    file = stage.directory / f"{host}.lua"
    file.write_text(f'wrk.headers["Host"] = "{host}"\n')
    return file


def cpu(stage: Stage, activators: list[Activator], rounds: int) -> Figure:
    """Measure the CPU time of a request on both paths."""
    pids = [pid for activator in activators for pid in activator.workers()] + [stage.app_pid]
    costs: dict[str, list[float]] = {LOCAL: [], REMOTE: []}
    for number in range(rounds + 1):
        for host, measured in costs.items():
            before = sum(map(cpu_seconds, pids))
            rate = load.wrk(activators[0].port, 64, 3, script(stage, host))
            used = sum(map(cpu_seconds, pids)) - before
            assert not rate.errors, f"{rate.errors} errors on the path {host}"
            if number:  # the first one warms up
                measured.append(used / (rate.per_second * 3))
    local, remote = (median(costs[host]) * 1e6 for host in (LOCAL, REMOTE))
    print(f"CPU time of a request: {local:.1f} us here, {remote:.1f} us through the relay")
    ratio = median(through / here for here, through in zip(costs[LOCAL], costs[REMOTE], strict=True))
    return Figure("machines.relay_cpu_vs_local", ratio, "ratio")


def latency(activators: list[Activator], rounds: int) -> Figure:
    """Measure the latency that the relay adds at a fixed rate."""
    seen: dict[str, list[float]] = {LOCAL: [], REMOTE: []}
    for _ in range(rounds):
        for host, measured in seen.items():
            measured.append(load.percentile(uvloop.run(load.paced(activators[0].port, 1000, 3, host=host)), 0.5))
    local, remote = (median(measured) * 1000 for measured in seen.values())
    print(f"median at 1000/s: {local:.2f} ms here, {remote:.2f} ms through the relay")
    return Figure("machines.relay_added_p50_ms", remote - local, "ms")


def measure(rounds: int) -> list[Figure]:
    """Measure both. Args: rounds: of each measurement."""
    with tempfile.TemporaryDirectory() as directory:
        stage = Stage(Path(directory))
        try:
            stage.start()
            return _measure(stage, rounds)
        finally:
            stage.close()


def _measure(stage: Stage, rounds: int) -> list[Figure]:
    authority = certificates.new_authority(datetime.now(UTC))
    relays = {name: free_port() for name in NAMES}
    asyncio.run(publish_nodes(stage, relays))
    stage.route(LOCAL, (Endpoint("app-1", HOST, stage.app, node="n1"),), RequestPolicy())
    stage.route(REMOTE, (Endpoint("app-2", HOST, stage.app, node="n2"),), RequestPolicy())

    def node(name: str, core: str) -> AbstractContextManager[Activator]:
        folder = stage.directory / name
        certify(folder, name, authority)
        return stage.activator(core, KNOLL_NODE=name, KNOLL_RELAY_PORT=str(relays[name]), KNOLL_NODE_DIR=str(folder))

    with node("n1", PROXY_CORE) as first, node("n2", LOAD_CORE) as second:
        return [cpu(stage, [first, second], rounds), latency([first, second], rounds)]
