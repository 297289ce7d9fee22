"""Machines of a platform that lose their power or their network under load, and what was lost.

`tests/e2e/machines/test_power_cuts.py` asserts the counts, `bench/powercut.py` measures the times.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from knoll.auth import redis_acl
from knoll.redis import keys as redis_keys
from knoll.redis.client import connected
from tests.cluster_load import (
    ALONE,
    REPEATABLE,
    SERVICES,
    SETTINGS,
    Request,
    Sample,
    Seen,
    Work,
    is_of,
    url_of,
)
from tests.cluster_processes import Cluster, ClusterNode, host_of, service
from tests.waiting import eventually


@dataclass(frozen=True, slots=True)
class Cut:
    """One power cut, or a cable that was pulled. Times are seconds on the monotonic clock."""

    node: str
    roles: tuple[str, ...]
    """See `PowerCuts.roles`."""
    endpoints: int
    """How many it had."""
    began: float
    withdrawn: float
    """When none of its endpoints was in the table."""
    back: float
    """When all Services had their number of endpoints again."""
    healed: float
    """When it was connected, or its engine ran again."""
    ended: float
    """When the machine took part again, and exactly the required instances ran."""


class PowerCuts:
    """Work on a platform, and machines that are lost one after the other."""

    def __init__(self, cluster: Cluster, seed: int = 0) -> None:
        self.cluster = cluster
        self.seen = Seen()
        self.cuts: list[Cut] = []
        self._work = Work(cluster, self.seen, seed or random.randrange(10**6))

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Apply the Services, wait until they are Ready, and run clients, writers and the observer in the block."""
        image = self.cluster.images[0]
        await self.cluster.apply(SETTINGS)
        for name, count in SERVICES.items():
            await self.cluster.apply(service(name, image, instances=count, concurrency=int(name == ALONE)))
        await self.cluster.wait_ready(*SERVICES)
        self._work.start()
        try:
            await eventually(self._has_begun, 60, "requests and samples")
            yield
        finally:
            await asyncio.to_thread(self._work.end)

    async def cut_power(self, node: ClusterNode, within: float = 60.0) -> Cut:
        """Cut a machine's power, boot it when its instances are back elsewhere, and wait until all is as before."""
        return await self._cut(node, node.power_cut, node.boot, within)

    async def cut_cable(
        self, node: ClusterNode, seconds: float, meanwhile: Sequence[Callable[[], Awaitable[None]]] = (),
        within: float = 60.0,
    ) -> Cut:  # fmt: skip
        """Pull the cable of a machine.

        Args:
            seconds: for at least how long.
            meanwhile: called, one after the other, when its endpoints are withdrawn and its instances replaced.
        """
        pulled = time.monotonic()

        async def pull() -> None:
            nonlocal pulled
            pulled = time.monotonic()
            node.machine.cut_off()

        async def plug() -> None:
            for work in meanwhile:
                await work()
            await asyncio.sleep(max(0.0, pulled + seconds - time.monotonic()))
            node.machine.heal()

        return await self._cut(node, pull, plug, within)

    async def _cut(
        self, node: ClusterNode, cut: Callable[[], Awaitable[None]], heal: Callable[[], Awaitable[None]], within: float
    ) -> Cut:
        roles = await self.roles(node)
        # A client cannot tell a gateway that is lost from one that does not respond.
        self._work.switch_off(node.name)
        await eventually(lambda: self._is_idle(node), 60, f"no request at the gateway of {node.name}")
        endpoints = self.seen.samples[-1].on(node.name)
        began = time.monotonic()
        await cut()
        withdrawn = await self._sampled(began, lambda sample: not sample.on(node.name), within, "endpoints withdrawn")
        back = await self._sampled(withdrawn, _is_complete, within, "instances back")
        await heal()
        healed = time.monotonic()
        await eventually(lambda: self.is_settled(node), within * 2, f"{node.name} is back, with exact numbers")
        self._work.switch_on(node.name)
        made = Cut(node.name, roles, endpoints, began, withdrawn, back, healed, time.monotonic())
        self.cuts.append(made)
        return made

    async def serves_inside(self, node: ClusterNode) -> None:
        """Check that a machine that is cut off serves clients of its own with the instances that it has."""
        here = node.instances().values()
        for name in SERVICES:
            if any(is_of(revision, name) for revision in here):
                command = ["curl", "-sS", "-m", "30", "-H", f"Host: {host_of(name)}", f"{node.gateway}/work"]
                done = await asyncio.to_thread(node.machine.run, *command, check=False)
                assert name in done.stdout, (name, done)

    async def is_settled(self, node: ClusterNode) -> bool:
        """Whether a machine is a node again, and on all machines exactly the required instances run."""
        if node.name not in await self.cluster.registered():
            return False
        counts = await asyncio.to_thread(self.cluster.counts)
        running = {name: sum(n for key, n in counts.items() if is_of(key, name)) for name in SERVICES}
        assert running == dict(SERVICES), running
        # Otherwise the next machine that is lost would leave no majority.
        return await self.cluster.redis.is_ready() and await asyncio.to_thread(self._all_manage, node)

    def _all_manage(self, node: ClusterNode) -> bool:
        """Whether all engines take part in the Swarm, according to the one of a machine."""
        listed = node.machine.docker("node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}", check=False).stdout
        states = listed.splitlines()
        good = ("Ready Leader", "Ready Reachable")
        return len(states) == len(self.cluster.nodes) and all(state in good for state in states)

    async def _sampled(self, after: float, condition: Callable[[Sample], bool], within: float, text: str) -> float:
        """Return when a sample of the endpoints first satisfied a condition."""

        def first() -> float:
            if self._work.error is not None:
                raise self._work.error
            recent = itertools.takewhile(lambda sample: sample.at >= after, reversed(list(self.seen.samples)))
            return min((sample.at for sample in recent if condition(sample)), default=0.0)

        return await eventually(first, within, text)

    def _has_begun(self) -> bool:
        if self._work.error is not None:
            raise self._work.error
        return bool(self.seen.samples and self.seen.requests)

    def _is_idle(self, node: ClusterNode) -> bool:
        """Whether no request is in flight at the gateway of a machine."""
        return self._work.in_flight[node.name] == 0

    async def roles(self, node: ClusterNode) -> tuple[str, ...]:
        """Return what a machine is: `leader`, `controllers` (leader of the API servers), `primary` (of Redis)."""
        roles = []
        async with connected(url_of(self.cluster, redis_acl.API), "observer") as redis:
            for role, lease in (("leader", "autoscaler"), ("controllers", "controllers")):
                holder = await redis.execute("GET", redis_keys.lease(lease)) or b""
                if holder.decode().startswith(f"{node.name}-"):
                    roles.append(role)
        if await self.cluster.redis.primary() == node.machine.address:
            roles.append("primary")
        return tuple(roles)

    async def node_with(self, role: str) -> ClusterNode:
        """Return the machine that has a role. Args: role: see `roles`; empty for a machine with few."""
        roles = [(node, await self.roles(node)) for node in self.cluster]
        if not role:
            endpoints = self.seen.samples[-1]
            return min(roles, key=lambda each: (len(each[1]), -endpoints.on(each[0].name)))[0]
        return next(node for node, names in roles if role in names)

    # Results

    def failed(self, *, repeatable: bool) -> list[Request]:
        """Return the requests without a good response at gateways of machines that were not cut meanwhile."""
        return [
            request for request in self.seen.requests
            if request.status != 200 and (request.method in REPEATABLE) == repeatable
        ]  # fmt: skip

    def shared(self) -> list[Request]:
        """Return the requests that an instance with containerConcurrency 1 got while it had another one."""
        responded = (each for each in self.seen.requests if each.service == ALONE and each.status == 200)
        return [each for each in responded if each.text.split()[1] != "1"]

    def versions_twice(self) -> list[int]:
        """Return the resource versions of more than one acknowledged write."""
        versions = Counter(write.version for write in self.seen.writes)
        return [version for version, count in versions.items() if count > 1]

    async def lost_writes(self) -> list[str]:
        """Return acknowledged writes that are not stored, or whose object has an older version."""
        stored = {}
        for kind, path in (
            ("ConfigMap", "/api/v1/configmaps"), ("Service", "/apis/serving.knative.dev/v1/services"),
        ):  # fmt: skip
            for item in await eventually(partial(self._listed, path), 60, f"a list of {kind}s"):
                stored[f"{kind} {item['metadata']['name']}"] = item
        lost = []
        for write in self.seen.writes:
            item = stored.get(write.name)
            if item is None:
                lost.append(f"{write}: no object")
            elif int(item["metadata"]["resourceVersion"]) < write.version:
                lost.append(f"{write}: version {item['metadata']['resourceVersion']} is stored")
            elif item["kind"] == "ConfigMap" and int(item["data"]["number"]) < write.number:
                lost.append(f"{write}: number {item['data']['number']} is stored")
        return lost

    async def _listed(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.cluster.request("GET", path)).json()["items"]
        return items

    def slowest(self, cut: Cut) -> float:
        """Return the longest time that a repeatable request took which was in flight during a cut."""
        during = [
            request.ended - request.began for request in self.seen.requests
            if request.method in REPEATABLE and request.began < cut.back and request.ended > cut.began
        ]  # fmt: skip
        return max(during, default=0.0)


def _is_complete(sample: Sample) -> bool:
    return all(sample.total(name) == count for name, count in SERVICES.items())
