"""A platform on several machines of `tests/machines.py`, without an image: its processes run there directly.

Each machine runs `knoll up` with the settings that `knoll cluster init` and `knoll node join` would write: API,
builder, autoscaler, activator, firewall and DNS server, with the machine's own engine. All engines manage one Swarm.
Redis runs on the first machine, or as a primary with replicas and sentinels on all of them. There are no agents:
processes reach Redis at the addresses of the machines, and logs of instances of another machine are not available.

This takes less time than `tests/clusters.py`, which sets a platform up by a user's commands.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httpx

from api import authority
from autoscaler.runtime.docker import labels
from knoll.auth import certificates, key_files, redis_acl
from knoll.auth.certificates import Issued
from knoll.cli import keys as key_folders
from knoll.cli.cluster import HEARTBEAT
from knoll.cluster.node_folder import NodeFolder
from knoll.redis.client import connected
from knoll.redis.encryption import Keyring
from knoll.store.redis_store import RedisStore
from knoll.values.errors import KnollError
from tests.cluster_redis import OneRedis, ReplicatedRedis, spawn
from tests.e2e.armed import is_armed
from tests.machines import Machine, Machines
from tests.waiting import eventually

Redis = Literal["one", "replicas"]
GATEWAY_PORT, RELAY_PORT = 8080, 7444
START_SECONDS = 120.0
NAMESPACE = "default"
_PREFIX = "10.201"
_CLONE_NEWNET = 0x40000000
_SERVING = "apis/serving.knative.dev/v1"
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class ClusterNode:
    """One machine of the platform."""

    machine: Machine
    cluster: "Cluster"
    working: bool = False
    """Whether its processes have been started; with the machine off, whether they start with it."""

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def folder(self) -> Path:
        """The data folder of its `knoll up`."""
        return self.machine.folder / "up"

    @property
    def gateway(self) -> str:
        """Base URL of its activator, for clients in the network of the machines."""
        return f"http://{self.machine.address}:{GATEWAY_PORT}"

    @property
    def log(self) -> str:
        """Output of all processes since the cluster began."""
        return (self.machine.folder / "up.log").read_text(errors="replace")

    def api(self) -> httpx.AsyncClient:
        """A client of its API, with the owner's rights. It works even while the machine is cut off."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.folder / "api.sock"))
        return httpx.AsyncClient(base_url="http://localhost", transport=transport, timeout=30)

    def http(self, service: str = "", **options: Any) -> httpx.AsyncClient:
        """A client of its gateway. Args: service: whose host all requests have."""
        headers = {"Host": host_of(service)} if service else {}
        return httpx.AsyncClient(base_url=self.gateway, headers=headers, **{"timeout": 60, **options})

    def start(self) -> None:
        """Start the processes of a machine that is switched on."""
        self.working = True
        self.cluster.redis.start(self.machine)
        # `knoll up` ends if a process is not ready in time, as while Redis has no primary.
        again = ["sh", "-c", 'until "$@"; do sleep 1; done', "sh"]
        command = [
            sys.executable, "-m", "knoll.cli", "up", "--data", str(self.folder), "--platform", self.cluster.platform,
            "--redis-url", self.cluster.redis.url, "--redis-users", "--keep-instances", "--verbose",
        ]  # fmt: skip
        spawn(self.machine, "up", *again, *command, env={**os.environ, **self.cluster.settings(self)})

    def stop(self) -> None:
        """End its processes in order; instances keep running, and so does its Redis."""
        self.working = False
        self._signal("TERM", "until")
        pid = json.loads((self.folder / "up.json").read_text())["pid"]
        self.machine.run("sh", "-c", f"kill -TERM {pid}; while kill -0 {pid}; do sleep 0.05; done 2>/dev/null")

    def kill(self, process: str) -> None:
        """Kill -9 a process, such as `autoscaler`; it is started again."""
        self._signal("KILL", f"-m {process}")

    def _signal(self, name: str, pattern: str) -> None:
        self.machine.run("pkill", f"-{name}", "-f", "--", pattern, check=False)

    async def power_cut(self) -> None:
        """Switch the machine off."""
        await asyncio.to_thread(self.machine.power_cut)

    async def boot(self) -> None:
        """Switch the machine on; if it had processes, they start again. Returns when its engine responds."""
        self.machine.switch_on()
        await asyncio.to_thread(self.machine.wait_until_ready)
        if self.working:
            self.start()

    async def is_ready(self) -> bool:
        """Whether its API and its gateway respond."""
        try:
            async with self.api() as api, self.http(timeout=5) as gateway:
                if (await api.get("/readyz")).status_code != 200:
                    return False
                await gateway.get("/", headers={"Host": "unknown.example.com"})
        except httpx.HTTPError:
            return False
        return True

    def instances(self) -> dict[str, str]:
        """Return the instances that run, according to the engine, with their Revisions; without armed ones."""
        platform, columns = f"label={labels.PLATFORM}={self.cluster.platform}", (labels.INSTANCE, labels.REVISION)
        listed = self.machine.docker(
            "ps", "--filter", platform, "--filter", f"label={labels.ROLE}=app", "--filter", "status=running",
            "--format", " ".join(["{{.ID}}", *(f'{{{{.Label "{name}"}}}}' for name in columns)]),
        ).stdout  # fmt: skip
        rows = [line.split() for line in listed.splitlines()]
        return {instance: revision for container, instance, revision in rows if not self._is_armed(container)}

    def _is_armed(self, container: str) -> bool:
        return is_armed(container, lambda *arguments: self.machine.docker(*arguments, check=False).stdout)


@dataclass
class Cluster:
    """A platform on several machines."""

    platform: str
    machines: Machines
    images: Sequence[str]
    """Images that all machines have, in addition to the platform's own."""
    keys: Path
    """Folder with the keys of all processes."""
    redis: OneRedis | ReplicatedRedis
    environment: Mapping[str, str]
    """Settings in addition to those of each machine."""
    nodes: dict[int, ClusterNode] = field(default_factory=dict)
    """By number of the machine, from 1."""

    def __iter__(self) -> Iterator[ClusterNode]:
        return iter(self.nodes.values())

    def settings(self, node: ClusterNode) -> dict[str, str]:
        """Return the settings of a machine."""
        address = node.machine.address
        return {
            "KNOLL_NODE": node.name,
            "KNOLL_NODE_DIR": str(node.machine.folder / "certificate"),
            "KNOLL_NODE_ADDRESS": address,
            "KNOLL_NODE_RELAY_PORT": str(RELAY_PORT),
            "KNOLL_RELAY_HOST": address,
            "KNOLL_RELAY_PORT": str(RELAY_PORT),
            "KNOLL_ACTIVATOR_HOST": f"127.0.0.1,{address}",
            "KNOLL_GATEWAY_ADDRESS": address,
            "KNOLL_DOCKER_SOCKET": str(node.machine.socket),
            # Nothing listens there: builds are not available, and no daemon is started.
            "KNOLL_BUILDKIT_SOCKET": str(node.folder / "no-buildkit.sock"),
            "KNOLL_WARM_SANDBOXES": "4",
            "KNOLL_ARMED_INSTANCES": "4",
            "NO_COLOR": "1",
            "COLUMNS": "400",
            **self.environment,
        }

    async def api(self) -> httpx.AsyncClient:
        """Return a client of any API that is ready."""
        ready = await eventually(self._ready_nodes, START_SECONDS, "an API")
        return ready[0].api()

    async def apply(self, *bodies: Mapping[str, Any]) -> None:
        """Apply objects, as `kubectl apply --server-side` does; again while the API is not available."""
        parameters = {"fieldManager": "tests", "force": "true"}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        for body in bodies:
            await self._send("PATCH", path_of(body), content=json.dumps(body), params=parameters, headers=headers)

    async def delete(self, *bodies: Mapping[str, Any]) -> None:
        """Delete objects."""
        for body in bodies:
            await self._send("DELETE", path_of(body))

    async def _send(self, method: str, path: str, **options: Any) -> None:
        async def sent() -> bool:
            response = await self.request(method, path, **options)
            if response.is_error and not (method == "DELETE" and response.status_code == 404):
                raise RuntimeError(response.text)
            return True

        await eventually(sent, START_SECONDS, f"{method} {path}")

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Call an API that is ready. Raises: AssertionError: it is not available, or asks to try again."""
        try:
            async with await self.api() as api:
                response = await api.request(method, path, **options)
        except httpx.TransportError as error:
            raise AssertionError(repr(error)) from error
        try_again = response.status_code >= 500 or response.status_code in (409, 429)
        assert not try_again, response.text
        return response

    async def wait_ready(self, *services: str, within: float = 60.0) -> None:
        """Wait until Services are Ready."""
        for name in services:
            await eventually(partial(self._is_ready, name), within, f"{name} is Ready")

    async def _is_ready(self, name: str) -> bool:
        body = (await self.request("GET", f"/{_SERVING}/namespaces/{NAMESPACE}/services/{name}")).json()
        status = body.get("status", {})
        if status.get("observedGeneration") != body["metadata"]["generation"]:
            return False
        conditions = {each["type"]: each for each in status.get("conditions", ())}
        assert conditions.get("Ready", {}).get("status") == "True", conditions.get("Ready")
        return True

    def instances(self, service: str = "") -> dict[str, list[str]]:
        """Return the running instances of each machine that is on, according to its engine.

        Args: service: only those of its Revisions.
        """
        listed = {}
        for node in self:
            if node.machine.process is not None:
                chosen = [
                    name for name, revision in node.instances().items()
                    if not service or revision.rpartition("/")[2].rpartition("-")[0] == service
                ]  # fmt: skip
                listed[node.name] = sorted(chosen)
        return listed

    def counts(self) -> Counter[str]:
        """Return how many instances of each Revision run on all machines, according to their engines."""
        return Counter(
            revision for node in self if node.machine.process is not None for revision in node.instances().values()
        )

    async def registered(self) -> set[str]:
        """Return the nodes that are Ready, according to the API."""
        listed = (await self.request("GET", "/api/v1/nodes")).json()["items"]
        return {
            node["metadata"]["name"] for node in listed
            if any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])
        }  # fmt: skip

    async def _ready_nodes(self) -> list[ClusterNode]:
        on = [node for node in self if node.working and node.machine.process is not None]
        return [node for node in on if await node.is_ready()]

    async def wait_until_whole(self, within: float = START_SECONDS) -> None:
        """Wait until all machines are ready."""

        async def whole() -> bool:
            return (
                len(await self._ready_nodes()) == len(self.nodes)
                and await self.redis.is_ready()
                and await self.registered() == {node.name for node in self}
            )

        try:
            await eventually(whole, within, "all machines are ready")
        except AssertionError as error:
            logs = "\n".join(f"{node.name}:\n{node.log[-4000:]}" for node in self)
            raise AssertionError(f"{error}\n{logs}") from None


@contextlib.asynccontextmanager
async def platform_on(
    machines: Machines, redis: Redis = "one", images: Sequence[str] = (), **environment: str
) -> AsyncIterator[Cluster]:
    """Start a platform on machines that have none, and wait until all of them are ready.

    During the block this thread is in the network of the machines. Afterwards the machines still have their containers.

    Args:
        machines: switched on. They become a Swarm whose managers all of them are, unless they are one.
        redis: one server on the first machine, or one on each with sentinels, so that any machine may be switched off.
        images: of this machine's own engine, copied to all machines.
        environment: additional settings of all processes.
    """
    keys = machines[1].site.folder / "keys"
    key_files.prepare(keys)
    server = OneRedis(machines, keys) if redis == "one" else ReplicatedRedis(machines, keys)
    cluster = Cluster("cluster", machines, images, keys, server, environment)
    cluster.nodes = {machine.number: ClusterNode(machine, cluster) for machine in machines}
    with inside(machines):
        for machine in machines:
            server.start(machine)
        await asyncio.to_thread(_prepare_engines, machines, cluster.platform, images)
        await _certify(cluster)
        for node in cluster:
            own = key_folders.folder_of(node.folder)
            own.parent.mkdir(parents=True)
            own.symlink_to(keys)
            node.start()
        await cluster.wait_until_whole()
        yield cluster


@contextlib.contextmanager
def inside(machines: Machines) -> Iterator[None]:
    """Move this thread into the network of the machines, for the sockets that it creates."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{machines[1].site.switch}", os.O_RDONLY)
    try:
        _enter(there)
        yield
    finally:
        _enter(before)
        os.close(there)
        os.close(before)


def host_of(service: str) -> str:
    """Return the host of a Service in requests."""
    return f"{service}.{NAMESPACE}.localhost"


def service(name: str, image: str, *, instances: int = 0, concurrency: int = 0, **annotations: str) -> dict[str, Any]:
    """Return a Service.

    Args:
        instances: how many it always has; 0: it scales to zero.
        concurrency: containerConcurrency.
        annotations: of the template, without `autoscaling.knative.dev/`, underscores for hyphens.
    """
    scale = {"min_scale": str(instances), "max_scale": str(instances)} if instances else {}
    chosen = {
        f"autoscaling.knative.dev/{key.replace('_', '-')}": text for key, text in {**scale, **annotations}.items()
    }
    spec = {"containerConcurrency": concurrency, "containers": [{"image": image}]}
    return {
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"template": {"metadata": {"annotations": chosen}, "spec": spec}},
    }  # fmt: skip


def path_of(body: Mapping[str, Any]) -> str:
    """Return the path of an object in the API."""
    meta, version = body["metadata"], body["apiVersion"]
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{base}/namespaces/{meta.get('namespace', NAMESPACE)}/{body['kind'].lower()}s/{meta['name']}"


def _prepare_engines(machines: Machines, platform: str, images: Sequence[str]) -> None:
    if images:
        machines.copy_images(*images)
    if not machines.ready_nodes(machines[1]):
        machines.form_swarm(managers=len(machines.all))
    machines[1].docker("swarm", "update", "--dispatcher-heartbeat", HEARTBEAT)
    for machine in machines:
        # The same addresses on each machine, as with compose.yaml.
        machine.docker(
            "network", "create", "--label", f"knoll.dev/platform={platform}", "--subnet", f"{_PREFIX}.0.0/16",
            "--gateway", f"{_PREFIX}.0.1", "--ip-range", f"{_PREFIX}.128.0/17", f"{platform}-instances",
        )  # fmt: skip


async def _certify(cluster: Cluster) -> None:
    """Give each machine a certificate of the platform's authority, which is stored in Redis."""
    user = key_files.PASSWORD
    password = (cluster.keys / redis_acl.API / user).read_text().strip()
    url = key_folders.as_user(cluster.redis.url, f"{redis_acl.API}:{password}")
    keyring = Keyring(cluster.keys / redis_acl.API / key_files.SECRETS)

    async def issuer() -> Issued | None:
        try:
            async with connected(url, "tests") as redis:
                store = RedisStore(redis, keyring=keyring)
                try:
                    return await authority.synchronise(store, cluster.keys.parent / "authority", datetime.now(UTC))
                finally:
                    await store.close()
        except KnollError as error:
            raise AssertionError(str(error)) from error

    issued = await eventually(issuer, START_SECONDS, "Redis")
    assert issued is not None
    for node in cluster:
        folder = NodeFolder(node.machine.folder / "certificate")
        certificate = certificates.issue_node(issued, node.name, folder.request(node.name), datetime.now(UTC))
        folder.keep(issued.certificate_pem, certificate, "no agent uses it")


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
