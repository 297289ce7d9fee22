"""The `Runtime` on Docker Engine. Labels hold all state; what is kept in memory only saves time."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from autoscaler.runtime.docker import arm_payload, inspect, labels, payloads
from autoscaler.runtime.docker.armed_instances import ArmedContainers
from autoscaler.runtime.docker.calm import Calm
from autoscaler.runtime.docker.create_containers import Admit, ContainerCreator, SandboxGoneError, Scheduled
from autoscaler.runtime.docker.engine import Engine, EngineError
from autoscaler.runtime.docker.images import Images
from autoscaler.runtime.docker.inventory import Inventory
from autoscaler.runtime.docker.limiter import Limiter, limit_for
from autoscaler.runtime.docker.listing import ListedContainer, label_filter, network_of
from autoscaler.runtime.docker.net import Net
from autoscaler.runtime.docker.own_image import OwnImage
from autoscaler.runtime.docker.pool import Pool
from autoscaler.runtime.docker.stop_containers import ContainerStopper
from autoscaler.runtime.docker.volumes import Volumes
from autoscaler.runtime.docker.watch import EventWatch
from autoscaler.runtime.model import (
    Capacity,
    ContainerState,
    EngineVolume,
    ExecResult,
    Family,
    File,
    Instance,
    InstanceSpec,
    Listener,
    LogChunk,
    Network,
    NotArmedError,
    PullProgress,
    RuntimeEvent,
    Usage,
)
from knoll.auth.registry_secrets import RegistryCredentials
from knoll.process import disk
from knoll.values.errors import AlreadyExistsError, KnollError, NotFoundError, RuntimeUnavailableError

log = structlog.get_logger()

_SANDBOX_TRIES = 3


class DockerRuntime:
    """Instances of one platform on one Docker Engine; see `protocol.Runtime`.

    Several processes may have one open for a platform, to read; one at a time leads and owns the spare sandboxes.
    It has more attributes than the style allows: it implements the protocol by its parts, each a class of its own.
    """

    def __init__(
        self,
        socket: Path,
        *,
        platform: str,
        network: str,
        warm_sandboxes: int,
        dns: str = "",
        standby: bool = False,
        engine: Engine | None = None,
        registry: str = "",
    ) -> None:
        """
        Args:
            socket: the engine's unix socket.
            platform: name of the platform, put on everything as a label.
            network: name of the instance network; created when missing.
            warm_sandboxes: maximum number of spare sandboxes; 0 turns them off.
            dns: address of the DNS server of the instances; empty for the engine's.
            standby: begin without leading; see `take_over`.
            engine: client to use instead of one for `socket`; closed with the runtime.
            registry: the platform's, on several machines: `HOST:PORT` at which the engine reaches it.
        """
        self._engine = engine or Engine(socket)
        self._platform, self._network = platform, network
        self._images = Images(self._engine, platform, registry)
        self._own_image = OwnImage(self._engine)
        self._pool = Pool(self._engine, self._own_image, platform, network, warm_sandboxes, dns)
        self._watch = EventWatch(self._engine, platform, on_sandbox_died=self._sandbox_died, on_resync=self._adopt)
        self._stopper = ContainerStopper(self._engine)
        self._creator = ContainerCreator(self._engine, self._images, self._watch, self._stopper, platform)
        self._volumes = Volumes(self._engine, self._own_image, platform)
        self._net = Net(self._engine)
        self._calm = Calm()
        self._armed = ArmedContainers(self._engine, self._creator, self._volumes, self._calm, platform)
        self._limiter = Limiter(limit_for(1))
        self._busy: set[str] = set()
        """Names of instances that are being started."""
        self._inventory = Inventory(self._engine, platform, network, dns, self._busy)
        self._background: set[asyncio.Task[Any]] = set()
        self._leads, self._prepared = not standby, False
        self._current_network = Network()
        self._watching: asyncio.Task[None] | None = None
        self._pooling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "DockerRuntime":
        try:
            await self._engine.open()
            await self._prepare()
        except BaseException as error:
            if self._leads or not isinstance(error, RuntimeUnavailableError):
                await self._engine.close()
                raise
            log.warning("container engine unavailable, waiting", error=str(error))
        self._watching = asyncio.create_task(self._watch.run())
        if self._leads:
            self._pooling = asyncio.create_task(self._pool.keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def spare_sandboxes(self) -> int:
        """Sandboxes ready for the next instances."""
        return self._pool.spare

    async def take_over(self) -> None:
        if not self._prepared:
            await self._engine.negotiate()
            await self._prepare()
        self._leads = True
        await self._adopt()
        if self._pooling is None:
            self._pooling = asyncio.create_task(self._pool.keep())

    async def step_down(self) -> None:
        self._leads = False
        self._pool.forget_all()
        self._armed.forget_all()
        if self._pooling:  # at once: the next leader may begin; it removes or adopts a sandbox in the making
            self._pooling.cancel()
            self._spawn(_cancelled(self._pooling))
            self._pooling = None

    # --- start and removal of an instance

    async def start(
        self, spec: InstanceSpec, *, scheduled: Scheduled | None = None, admit: Admit | None = None
    ) -> Instance:
        with self._starting(spec.name), self._calm.start():
            self._pool.start_requested()
            async with self._limiter.slot():
                for _ in range(_SANDBOX_TRIES):
                    sandbox = await self._pool.take(spec.name)
                    try:
                        instance = await self._creator.start(spec, sandbox, scheduled, admit)
                    except SandboxGoneError as error:
                        log.warning("sandbox disappeared, using another", instance=spec.name, error=str(error))
                        continue
                    finally:
                        self._pool.done(sandbox)
                    self._watch.add_sandbox(sandbox.id, spec.name, spec.revision)
                    self._spawn(self._creator.rename(sandbox, spec.name))
                    return instance
                raise RuntimeUnavailableError(f"instance {spec.name}: every sandbox exited before it could be used")

    async def arm(self, spec: InstanceSpec, *, admit: Admit | None = None) -> Instance:
        if spec.init_containers or not arm_payload.can_be_armed(spec.containers):
            raise NotArmedError(f"instance {spec.name} has init containers or a volume at {arm_payload.TARGET}")
        with self._starting(spec.name):
            await self._armed.prepare()
            await self._calm.wait()
            # Not a spare one: its host name would not be the instance's.
            sandbox = await self._pool.create_for(spec.name)
            self._watch.add_sandbox(sandbox.id, spec.name, spec.revision)
            return await self._armed.arm(spec, sandbox, admit)

    async def release(self, name: str) -> Instance:
        with self._calm.start():
            return await self._armed.release(name)

    def arming_problem(self) -> str:
        return self._armed.problem

    @contextlib.contextmanager
    def _starting(self, name: str) -> Iterator[None]:
        """An instance is being started, armed or restarted as long as the block lasts."""
        if name in self._busy:
            raise AlreadyExistsError(f"instance {name} is being started")
        self._busy.add(name)
        try:
            yield
        finally:
            self._busy.discard(name)

    def set_warm_demand(self, revisions: int) -> None:
        self._pool.set_warm_demand(revisions)

    async def remove(self, name: str, grace_seconds: float | None = None) -> None:
        classified = await self._inventory.classified(name)
        containers = classified.by_instance.get(name, [])
        if not containers:
            return
        self._armed.forget(name)
        grace = _grace(containers[0], grace_seconds)
        self._watch.expect({container.id for container in containers} | {classified.sandboxes[name]})
        await asyncio.gather(*(self._stopper.stop(container, grace) for container in containers))
        await asyncio.gather(*(self._engine.remove(container.id) for container in containers))
        await self._engine.remove(classified.sandboxes[name])
        for volume in await self._volumes.of(name):
            await self._volumes.remove(volume.name)

    async def restart_container(self, name: str, container: str, grace_seconds: float | None = None) -> ContainerState:
        present = await self._inventory.container(name, container)
        self._watch.expect({present.id})
        await self._stopper.stop(present, _grace(present, grace_seconds))
        self._busy.add(name)
        try:
            return await self._creator.recreate(present)
        finally:
            self._busy.discard(name)

    async def stop_container(self, name: str, container: str, grace_seconds: float | None = None) -> ContainerState:
        present = await self._inventory.container(name, container)
        self._watch.expect({present.id})
        await self._stopper.stop(present, _grace(present, grace_seconds))
        state = ContainerState(
            container, False, restarts=int(present.labels[labels.RESTARTS]), image=present.labels[labels.IMAGE]
        )
        return await inspect.with_reason(self._engine, present.id, state)

    # --- idle states

    async def pause(self, name: str) -> None:
        running = [each for each in await self._inventory.app_containers(name) if each.state == "running"]
        await asyncio.gather(*(self._stopper.freeze(container, "pause") for container in running))

    async def resume(self, name: str) -> None:
        paused = [each for each in await self._inventory.app_containers(name) if each.state == "paused"]
        await asyncio.gather(*(self._stopper.freeze(container, "unpause") for container in paused))

    async def stop(self, name: str, grace_seconds: float | None = None) -> None:
        containers = await self._inventory.app_containers(name)
        grace = _grace(containers[0], grace_seconds)
        self._watch.expect_once({container.id for container in containers if container.alive})
        await asyncio.gather(*(self._stopper.stop(container, grace) for container in containers))

    async def start_stopped(self, name: str) -> tuple[ContainerState, ...]:
        present = await self._inventory.app_containers(name)
        by_name = {container.labels[labels.CONTAINER]: container for container in reversed(present)}
        now = time.time()
        # All of them: the list may still show one as running that has just ended.
        await asyncio.gather(*(self._creator.start_stopped(container) for container in by_name.values()))
        names = present[0].labels[labels.CONTAINERS].split(",")
        return tuple(
            ContainerState(each, True, None, restarts=int(by_name[each].labels[labels.RESTARTS]), started_at=now,
                           image=by_name[each].labels[labels.IMAGE])
            for each in names
        )  # fmt: skip

    # --- queries

    async def instances(self) -> list[Instance]:
        containers = await self._inventory.classified()
        instances = await self._inventory.with_reasons(containers)
        return await self._armed.recognised(instances, containers.by_instance, keep=self._leads)

    def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        return self._watch.events()

    async def capacity(self) -> Capacity:
        info = await self._engine.get("/info")
        return Capacity(cores=float(info["NCPU"]), memory_bytes=int(info["MemTotal"]))

    def network(self) -> Network:
        return self._current_network

    async def gateway(self) -> str:
        """Return this machine's address on the instance network, where instances reach what runs beside the engine.

        Raises:
            RuntimeUnavailableError: the network has none.
        """
        network = await self._engine.get(f"/networks/{self._network}")
        for config in network["IPAM"]["Config"] or ():
            if address := config.get("Gateway"):
                return str(address).partition("/")[0]
        raise RuntimeUnavailableError(f"network {self._network} has no gateway; remove it, and a new one is created")

    async def memory_bytes(self, name: str) -> int:
        return (await self.usage(name)).memory_bytes

    async def usage(self, name: str) -> Usage:
        alive = [container for container in await self._inventory.app_containers(name) if container.alive]
        usages = await asyncio.gather(*(inspect.usage(self._engine, container.id) for container in alive))
        return Usage(sum(usage.cpu_seconds for usage in usages), sum(usage.memory_bytes for usage in usages))

    async def disk_bytes(self, name: str) -> Mapping[str, int]:
        sizes = {}
        for container in await self._inventory.app_containers(name):
            sizes[container.labels[labels.CONTAINER]] = await inspect.written_bytes(self._engine, container.id)
        return sizes

    async def scratch_bytes(self) -> Mapping[str, int]:
        return await self._volumes.scratch_bytes()

    async def free_disk_bytes(self) -> int:
        root = str((await self._engine.get("/info")).get("DockerRootDir") or "")
        return await asyncio.to_thread(lambda: disk.free_bytes(disk.of_engine(root)))

    # --- volumes

    async def put_files(self, volume: EngineVolume, files: Mapping[str, File]) -> None:
        await self._volumes.put_files(volume, files)

    async def ensure_volume(self, volume: EngineVolume, folders: Sequence[str] = ()) -> None:
        await self._volumes.ensure(volume, folders)

    async def volumes(self) -> list[EngineVolume]:
        return await self._volumes.all()

    async def remove_volume(self, name: str) -> bool:
        return await self._volumes.remove(name)

    # --- inside a container

    async def exec(self, name: str, container: str, command: Sequence[str], timeout_seconds: float) -> ExecResult:
        present = await self._inventory.container(name, container)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await inspect.run(self._engine, present.id, command)
        except EngineError as error:
            raise NotFoundError(f"container {container} of instance {name} is not running: {error}") from error

    async def listening(self, name: str) -> tuple[Listener, ...]:
        return await self._net.listening((await self._inventory.sandbox(name))[0])

    async def forward(self, name: str, port: int, family: Family) -> None:
        await self._net.forward(*await self._inventory.sandbox(name), port, family)

    async def unforward(self, name: str) -> None:
        await self._net.stop((await self._inventory.sandbox(name))[0])

    async def logs(
        self,
        name: str,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        timestamps: bool = False,
    ) -> AsyncGenerator[LogChunk, None]:
        present = await self._inventory.container(name, container)
        query: dict[str, str | int] = {"follow": int(follow), "tail": "all" if tail is None else tail}
        if since is not None:
            query["since"] = f"{since:.9f}"
        if timestamps:
            query["timestamps"] = 1
        async for chunk in inspect.read_log(self._engine, present.id, query):
            yield chunk

    async def ensure_image(
        self,
        reference: str,
        progress: Callable[[PullProgress], None] | None = None,
        credentials: Callable[[], Awaitable[RegistryCredentials]] | None = None,
    ) -> str:
        return await self._images.ensure(reference, progress, credentials)

    # --- removal of the platform

    async def destroy(self) -> None:
        await self._stop_tasks()
        containers = await self._inventory.containers()
        self._watch.expect({container.id for container in containers})
        await asyncio.gather(*(self._engine.remove(container.id) for container in containers))
        self._pool.forget_all()
        for volume in await self._volumes.all():
            if volume.kind != "claim":
                await self._volumes.remove(volume.name)
        self._armed.forget_all()
        for volume in await self._volumes.programs():
            await self._volumes.remove(volume.name)
        query = {"filters": label_filter(f"{labels.PLATFORM}={self._platform}")}
        for network in await self._engine.get("/networks", query):
            with contextlib.suppress(EngineError):  # another platform's activator is still on it
                await self._engine.delete(f"/networks/{network['Id']}")

    async def close(self) -> None:
        await self._stop_tasks()
        for task in list(self._background):
            with contextlib.suppress(KnollError, asyncio.CancelledError):
                await task
        self._armed.forget_all()
        try:
            await self._pool.drain()
        except KnollError as error:
            log.warning("spare sandboxes left behind; the next start adopts them", error=str(error))
        await self._engine.close()

    # --- preparation of the engine

    async def _adopt(self) -> None:
        """Adopt what runs and remove useless sandboxes, at the start and whenever the engine was unavailable."""
        await self._ensure_network()
        classified = await self._inventory.classified()
        instances = {instance.name: instance for instance in classified.instances}
        for name, sandbox_id in classified.sandboxes.items():
            self._watch.add_sandbox(sandbox_id, name, instances[name].revision)
        if not self._leads:
            return
        self._volumes.forget()
        self._armed.volume_gone()
        await self._volumes.sweep()
        busy = {labels.sandbox_name(self._platform, name) for name in self._busy}
        self._pool.forget_all()
        self._pool.adopt(classified.spare)
        for sandbox in classified.leftovers:
            if sandbox.name not in busy:
                await self._engine.remove(sandbox.id)

    async def _prepare(self) -> None:
        """Create what is missing on an engine that this process has not used before."""
        self._own_image.forget()
        self._creator.quotas = await self._images.has_quotas(await self._own_image.id())
        await self._ensure_network()
        await self._adopt()
        self._limiter.resize(limit_for((await self.capacity()).cores))
        self._prepared = True

    async def _ensure_network(self) -> None:
        try:
            network = await self._engine.get(f"/networks/{self._network}")
        except EngineError as error:
            if error.status != 404:
                raise RuntimeUnavailableError(f"network {self._network} cannot be looked up: {error}") from error
            try:
                await self._engine.post("/networks/create", payloads.network(self._network, self._platform))
            except EngineError as refused:
                if refused.status != 409:  # another process created it meanwhile
                    raise RuntimeUnavailableError(f"network {self._network} cannot be created: {refused}") from refused
            network = await self._engine.get(f"/networks/{self._network}")
        self._current_network = network_of(network)

    def _sandbox_died(self, sandbox_id: str) -> None:
        if self._pool.forget(sandbox_id):
            self._spawn(self._stopper.remove_all([sandbox_id]))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _stop_tasks(self) -> None:
        await _cancelled(self._watching)
        await _cancelled(self._pooling)
        self._watching = self._pooling = None


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _grace(container: ListedContainer, grace_seconds: float | None) -> float:
    """Return the grace period of an instance from a container's label, unless another one is given."""
    return float(container.labels[labels.GRACE]) if grace_seconds is None else grace_seconds
