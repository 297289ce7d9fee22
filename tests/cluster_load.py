"""Clients, writers and an observer on a platform of several machines (`tests/cluster_processes.py`).

Clients call Services at the gateways of all machines, writers change objects through the APIs of all machines, and the
observer reads the endpoints twenty times a second.
"""

import asyncio
import contextlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from knoll.auth import key_files, redis_acl
from knoll.cli import keys as key_folders
from knoll.messages.endpoints import ENDPOINTS, RevisionEndpoints
from knoll.redis.client import connected
from knoll.tables.redis_tables import RedisTable
from knoll.values.errors import KnollError
from tests.cluster_processes import Cluster, ClusterNode, inside, path_of, service

SERVICES: Mapping[str, int] = {"three": 3, "six": 6, "alone": 3}
"""Name to the number of instances."""
ALONE = "alone"
"""The Service with containerConcurrency 1."""
SETTINGS = {
    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config-autoscaler", "namespace": "knative-serving"},
    "data": {"allow-zero-initial-scale": "true"},
}  # fmt: skip
METHODS = ("GET", "PUT", "GET", "POST")
REPEATABLE = frozenset({"GET", "PUT"})
CLIENTS_PER_NODE = 3
PAUSE = 0.05
"""Between two requests of a client, in seconds."""
POLL = 0.05
TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a client. Times are seconds on the monotonic clock."""

    node: str
    """Machine of the gateway."""
    service: str
    method: str
    began: float
    ended: float
    status: int
    """0: no response."""
    text: str
    """Its first bytes, or the error."""


@dataclass(frozen=True, slots=True)
class Write:
    """One acknowledged write."""

    name: str
    number: int
    version: int
    ended: float


@dataclass(frozen=True, slots=True)
class Sample:
    """The endpoints that are ready at one time."""

    at: float
    revisions: Mapping[str, Counter[str]]
    """By Revision: node to number of endpoints."""

    def on(self, node: str) -> int:
        return sum(counts[node] for counts in self.revisions.values())

    def total(self, name: str) -> int:
        return sum(sum(counts.values()) for revision, counts in self.revisions.items() if is_of(revision, name))


@dataclass
class Seen:
    """What all clients, writers and the observer observed."""

    requests: list[Request] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    refused_writes: int = 0
    samples: list[Sample] = field(default_factory=list)


class Work(threading.Thread):
    """Clients, writers and the observer: a thread with an event loop in the network of the machines."""

    def __init__(self, cluster: Cluster, seen: Seen, seed: int) -> None:
        super().__init__(daemon=True)
        self._cluster, self._seen, self._seed = cluster, seen, seed
        self._ending = threading.Event()
        self._off: set[str] = set()
        self.in_flight = Counter[str]()
        """By machine: requests at its gateway."""
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with inside(self._cluster.machines):
                asyncio.run(self._main())
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        """End everything after the requests in flight. Raises: what a client raised."""
        self._ending.set()
        self.join(TIMEOUT * 2)
        if self.error is not None:
            raise self.error
        assert not self.is_alive()

    def switch_off(self, node: str) -> None:
        """Begin no request at the gateway of a machine."""
        self._off.add(node)

    def switch_on(self, node: str) -> None:
        self._off.discard(node)

    async def _main(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for node in self._cluster:
                for number in range(CLIENTS_PER_NODE):
                    tasks.create_task(self._call(node, number))
                tasks.create_task(self._write(node))
            tasks.create_task(self._apply_services())
            tasks.create_task(self._observe())

    async def _call(self, node: ClusterNode, number: int) -> None:
        dice = random.Random(f"{self._seed} {node.name} {number}")
        name = list(SERVICES)[number % len(SERVICES)]
        async with node.http(name, limits=httpx.Limits(max_connections=1)) as client:
            for method in itertools.cycle(METHODS):
                if self._ending.is_set():
                    return
                if node.name not in self._off:
                    self.in_flight[node.name] += 1
                    self._seen.requests.append(await self._request(client, node.name, name, method, dice.randrange(40)))
                    self.in_flight[node.name] -= 1
                await asyncio.sleep(PAUSE)

    @staticmethod
    async def _request(client: httpx.AsyncClient, node: str, name: str, method: str, millis: int) -> Request:
        began = time.monotonic()
        body = b"x" * 2000 if method != "GET" else None
        try:
            response = await client.request(method, f"/work?sleep={millis}", content=body, timeout=TIMEOUT)
            status, text = response.status_code, response.text[:300]
        except httpx.HTTPError as error:
            status, text = 0, repr(error)
        return Request(node, name, method, began, time.monotonic(), status, text)

    async def _write(self, node: ClusterNode) -> None:
        """Change one ConfigMap and create others, through the API of one machine."""
        async with node.api() as api:
            for number in itertools.count(1):
                if self._ending.is_set():
                    return
                for name in (f"w-{node.name}", *([f"c-{node.name}-{number}"] if number % 5 == 0 else [])):
                    await self._put(api, config_map(name, number), number)
                await asyncio.sleep(PAUSE)

    async def _apply_services(self) -> None:
        """Create Services through the APIs of all machines in turn."""
        for number in itertools.count(1):
            node = self._cluster.nodes[number % len(self._cluster.nodes) + 1]
            if self._ending.is_set():
                return
            body = service(f"s-{number % 10}", str(self._cluster.images[0]), initial_scale="0", turn=str(number))
            async with node.api() as api:
                await self._put(api, body, number)
            await asyncio.sleep(1)

    async def _put(self, api: httpx.AsyncClient, body: Mapping[str, Any], number: int) -> None:
        parameters = {"fieldManager": "writer", "force": "true"}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        try:
            response = await api.patch(path_of(body), content=orjson.dumps(body), params=parameters, headers=headers)
        except httpx.HTTPError:
            self._seen.refused_writes += 1
            return
        if response.is_success:
            meta = response.json()["metadata"]
            name = f"{body['kind']} {meta['name']}"
            self._seen.writes.append(Write(name, number, int(meta["resourceVersion"]), time.monotonic()))
        else:
            assert response.status_code in (409, 429, 500, 503, 504), response.text
            self._seen.refused_writes += 1

    async def _observe(self) -> None:
        async with connected(url_of(self._cluster, redis_acl.AUTOSCALER), "observer") as redis:
            table = RedisTable(redis, ENDPOINTS, RevisionEndpoints)
            while not self._ending.is_set():
                with contextlib.suppress(KnollError, TimeoutError):
                    async with asyncio.timeout(1):
                        _, entries = await table.snapshot()
                    counts = {
                        key: Counter(each.node for each in entry.endpoints if each.state == "ready")
                        for key, (_, entry) in entries.items()
                    }
                    self._seen.samples.append(Sample(time.monotonic(), counts))
                await asyncio.sleep(POLL)


def config_map(name: str, number: int) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"number": str(number)}}


def url_of(cluster: Cluster, process: str) -> str:
    """Return the URL of Redis with the login of a process."""
    password = (cluster.keys / process / key_files.PASSWORD).read_text().strip()
    return key_folders.as_user(cluster.redis.url, f"{process}:{password}")


def is_of(revision: str, name: str) -> bool:
    return revision.partition("/")[2].rpartition("-")[0] == name
