"""A fake and a real Swarm of three machines, with one interface for tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from autoscaler.placement.swarm import placer, reservation_image
from autoscaler.placement.swarm.client import EngineSwarm, Swarm
from autoscaler.placement.swarm.model import SwarmNode
from autoscaler.placement.swarm.placer import SwarmPlacer
from autoscaler.placement.swarm.places import PlaceOptions
from autoscaler.placement.swarm.services import platform_label
from autoscaler.runtime.docker.engine import Engine
from knoll.engine_proxy.policy import AUTOSCALER, ProxyPolicy
from knoll.engine_proxy.proxy import Gate, serve
from tests.doubles.fake_swarm import FakeSwarm
from tests.images import platform_name
from tests.machines import Machines
from tests.waiting import eventually

NAMES = ("n1", "n2", "n3")


@dataclass
class FakeMachines:
    """In memory. The methods are those of `RealMachines`."""

    platform: str = "test-0"
    swarm: FakeSwarm = field(
        default_factory=lambda: FakeSwarm(
            {f"id-{name}": SwarmNode(f"id-{name}", name, "manager", "active", "ready", 2.0, 2**34) for name in NAMES}
        )
    )
    nodes: dict[str, str] = field(default_factory=lambda: {name: f"id-{name}" for name in NAMES})
    cores: int = 2

    async def image(self) -> str:
        return "sha256:1"

    async def availability(self, name: str, availability: str) -> None:
        self.swarm.change(self.nodes[name], availability=availability)

    async def end_container(self, service: str) -> None:
        self.swarm.end(service)


@dataclass
class RealMachines:
    """Through the engine of the second machine, unless `use` names another, and through engine proxies."""

    lab: Machines
    platform: str
    proxies: list[asyncio.Server]
    engines: dict[str, Engine]
    swarm: Swarm
    nodes: dict[str, str]
    """Name to id."""
    cores: int
    """Of each machine."""

    @classmethod
    @asynccontextmanager
    async def opened(cls, lab: Machines) -> AsyncIterator["RealMachines"]:
        """Provide the machines, through proxies that end afterwards."""
        made = await cls.open(lab)
        try:
            yield made
        finally:
            await made.close()

    @classmethod
    async def open(cls, lab: Machines) -> "RealMachines":
        platform, proxies, engines = platform_name("test"), [], {}
        for machine in lab:
            path = machine.folder / "proxy.sock"
            policy = ProxyPolicy(AUTOSCALER, platform, f"{platform}-instances", swarm=True)
            proxies.append(await serve(Gate(policy, machine.socket), path))
            engines[machine.name] = Engine(path)
            await engines[machine.name].open()
            await reservation_image.ensure(engines[machine.name])
        swarm = EngineSwarm(engines["n2"])
        machines = await swarm.nodes()
        nodes = {machine.hostname: machine.id for machine in machines}
        return cls(lab, platform, proxies, engines, swarm, nodes, int(machines[0].cores))

    def use(self, name: str) -> None:
        """Ask the engine of another machine."""
        self.swarm = EngineSwarm(self.engines[name])

    async def leading_manager(self) -> str:
        """Return the name of the machine whose manager leads the others."""
        return next(machine.hostname for machine in await self.swarm.nodes() if machine.leader)

    async def close(self) -> None:
        for engine in self.engines.values():
            await engine.close()
        for proxy in self.proxies:
            proxy.close()

    async def image(self) -> str:
        return await reservation_image.ensure(self.engines["n2"])

    async def availability(self, name: str, availability: str) -> None:
        self.lab[2].docker("node", "update", "--availability", availability, self.nodes[name])

    async def end_container(self, service: str) -> None:
        """Remove the container of a service on its machine."""
        for machine in self.lab:
            ids = machine.docker(
                "ps", "--quiet", "--filter", f"label=com.docker.swarm.service.id={service}"
            ).stdout.split()
            if ids:
                machine.docker("rm", "--force", *ids)


@dataclass
class Leader:
    """Records what a placer reports to its leader."""

    placer: SwarmPlacer
    bound: dict[str, str] = field(default_factory=dict)
    bindings: list[tuple[str, str]] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    def on_bound(self, instance: str, node: str) -> None:
        self.bindings.append((instance, node))
        self.bound[instance] = node

    def on_problem(self, instance: str, problem: str) -> None:
        self.problems[instance] = problem

    async def all_bound(self, *instances: str) -> None:
        await eventually(lambda: self.bound.keys() >= {*instances}, 60, f"binding of {instances}")


@dataclass
class Stage:
    """A platform on the machines."""

    machines: FakeMachines | RealMachines

    @property
    def platform(self) -> str:
        return self.machines.platform

    def leader(
        self,
        ahead: int = 0,
        per_node: int = 8,
        nodes: Callable[[], dict[str, str]] | None = None,
        image: Callable[[], Awaitable[str]] | None = None,
    ) -> Leader:
        """Return a leader that has not been started."""
        names = nodes or (lambda: self.machines.nodes)
        options = PlaceOptions(ahead, per_node)
        leader = Leader(SwarmPlacer(self.machines.swarm, self.platform, image or self.machines.image, names, options))
        leader.placer.begin(leader.on_bound, leader.on_problem)
        return leader

    async def services(self) -> set[str]:
        """Return the ids of all services of the platform."""
        return {each.id for each in await self.machines.swarm.services(self.label)}

    async def running(self) -> dict[str, int]:
        """Return how many places run on each machine."""
        names = {machine: name for name, machine in self.machines.nodes.items()}
        counts = dict.fromkeys(self.machines.nodes, 0)
        for task in await self.machines.swarm.tasks(self.label):
            if task.state == "running" and not task.ended:
                counts[names[task.node]] += 1
        return counts

    @property
    def label(self) -> str:
        return platform_label(self.platform)


@asynccontextmanager
async def leading(leader: Leader) -> AsyncIterator[Leader]:
    """Run a leader during the block; when it ends, it changes nothing."""
    working = asyncio.create_task(leader.placer.run())
    try:
        yield leader
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


@asynccontextmanager
async def stage(machines: FakeMachines | RealMachines) -> AsyncIterator[Stage]:
    """Provide a platform, and remove all of it afterwards."""
    made = Stage(machines)
    try:
        yield made
    finally:
        await placer.remove_all(machines.swarm, made.platform)
    assert not await made.services()
