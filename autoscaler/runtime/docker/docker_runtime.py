"""The `Runtime` on Docker Engine. Holds no truth: labels do, and what is kept in memory only saves time."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from autoscaler.runtime.docker import inspect, labels, payloads
from autoscaler.runtime.docker.create_containers import Admit, SandboxGoneError, Scheduled, Starter
from autoscaler.runtime.docker.engine import Engine, EngineError
from autoscaler.runtime.docker.images import Images
from autoscaler.runtime.docker.limiter import Limiter, limit_for
from autoscaler.runtime.docker.listing import Found, Listed, listed, network_of, sort_out
from autoscaler.runtime.docker.net import Net
from autoscaler.runtime.docker.own_image import OwnImage
from autoscaler.runtime.docker.pool import Pool
from autoscaler.runtime.docker.volumes import Volumes
from autoscaler.runtime.docker.watch import Watch
from autoscaler.runtime.protocol import (
    Capacity,
    ContainerState,
    ExecResult,
    Family,
    File,
    Instance,
    InstanceSpec,
    Listener,
    LogChunk,
    Network,
    PullProgress,
    RuntimeEvent,
    Usage,
    Volume,
)
from knoll.auth.registry_secrets import RegistryCredentials
from knoll.process import disk
from knoll.values.errors import AlreadyExistsError, KnollError, NotFoundError, RuntimeUnavailableError

log = structlog.get_logger()

KILL_SECONDS = 60.0
"""Beyond the grace, for the engine to kill and tell."""
_SANDBOX_TRIES = 3


class DockerRuntime:
    """Instances of one platform on one Docker Engine; see `protocol.Runtime`.

    Several processes may have one open for a platform, to look; one at a time leads, and keeps the spare sandboxes.
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
    ) -> None:
        """
        Args:
            socket: the engine's unix socket.
            platform: name of the platform, put on everything as a label.
            network: name of the instance network; made when missing.
            warm_sandboxes: bound of the spare sandboxes, 0 turns them off.
            dns: address of the DNS server that instances ask; empty for the engine's.
            standby: begin without leading; see `take_over`.
            engine: client to use instead of one for `socket`; closed with the runtime.
        """
        self._engine = engine or Engine(socket)
        self._platform, self._network, self._dns = platform, network, dns
        self._images = Images(self._engine, platform)
        self._own_image = OwnImage(self._engine)
        self._pool = Pool(self._engine, self._own_image, platform, network, warm_sandboxes, dns)
        self._watch = Watch(self._engine, platform, on_sandbox_died=self._sandbox_died, on_resync=self._adopt)
        self._starter = Starter(self._engine, self._images, self._watch, platform)
        self._volumes = Volumes(self._engine, self._own_image, platform)
        self._net = Net(self._engine)
        self._limiter = Limiter(limit_for(1))
        self._busy: set[str] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._leads, self._prepared = not standby, False
        self._seen_network = Network()
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
            log.warning("the container engine is away; it is waited for", error=str(error))
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
            await self._engine.agree()
            await self._prepare()
        self._leads = True
        await self._adopt()
        if self._pooling is None:
            self._pooling = asyncio.create_task(self._pool.keep())

    async def step_down(self) -> None:
        self._leads = False
        self._pool.forget_all()
        if self._pooling:  # promptly: another may begin; what it is making now is removed or adopted
            self._pooling.cancel()
            self._spawn(_ended(self._pooling))
            self._pooling = None

    # --- life of an instance

    async def start(
        self, spec: InstanceSpec, *, scheduled: Scheduled | None = None, admit: Admit | None = None
    ) -> Instance:
        if spec.name in self._busy:
            raise AlreadyExistsError(f"instance {spec.name} is being started")
        self._busy.add(spec.name)
        self._pool.asked()
        try:
            async with self._limiter.slot():
                return await self._start(spec, scheduled, admit)
        finally:
            self._busy.discard(spec.name)

    def expect(self, asleep: int) -> None:
        self._pool.expect(asleep)

    async def stop(self, name: str, grace_seconds: float | None = None) -> None:
        found = await self._found(name)
        group = found.members.get(name, [])
        if not group:
            return
        grace = float(group[0].labels[labels.GRACE]) if grace_seconds is None else grace_seconds
        self._watch.expect({one.id for one in group} | {found.sandboxes[name]})
        await asyncio.gather(*(self._end(one, grace) for one in group))
        await asyncio.gather(*(self._engine.remove(one.id) for one in group))
        await self._engine.remove(found.sandboxes[name])
        for volume in await self._volumes.of(name):
            await self._volumes.remove(volume.name)

    async def restart(self, name: str, container: str, grace_seconds: float | None = None) -> ContainerState:
        one = await self._member(name, container)
        grace = float(one.labels[labels.GRACE]) if grace_seconds is None else grace_seconds
        self._watch.expect({one.id})
        await self._end(one, grace)
        self._busy.add(name)
        try:
            return await self._starter.again(one)
        finally:
            self._busy.discard(name)

    async def end(self, name: str, container: str, grace_seconds: float | None = None) -> ContainerState:
        one = await self._member(name, container)
        grace = float(one.labels[labels.GRACE]) if grace_seconds is None else grace_seconds
        self._watch.expect({one.id})
        await self._end(one, grace)
        state = ContainerState(
            container, False, restarts=int(one.labels[labels.RESTARTS]), image=one.labels[labels.IMAGE]
        )
        return await inspect.with_reason(self._engine, one.id, state)

    async def pause(self, name: str) -> None:
        group = await self._apps(name)
        await asyncio.gather(*(self._freeze(one, "pause") for one in group if one.state == "running"))

    async def resume(self, name: str) -> None:
        group = await self._apps(name)
        await asyncio.gather(*(self._freeze(one, "unpause") for one in group if one.state == "paused"))

    async def halt(self, name: str, grace_seconds: float | None = None) -> None:
        group = await self._apps(name)
        grace = float(group[0].labels[labels.GRACE]) if grace_seconds is None else grace_seconds
        self._watch.expect_once({one.id for one in group if one.alive})
        await asyncio.gather(*(self._end(one, grace) for one in group))

    async def unhalt(self, name: str) -> tuple[ContainerState, ...]:
        group = {one.labels[labels.CONTAINER]: one for one in reversed(await self._apps(name))}
        now = time.time()
        # All of them: the list may still say of one that ended just now that it runs.
        await asyncio.gather(*(self._starter.once_more(one) for one in group.values()))
        names = next(iter(group.values())).labels[labels.CONTAINERS].split(",")
        return tuple(
            ContainerState(each, True, None, restarts=int(group[each].labels[labels.RESTARTS]), started_at=now,
                           image=group[each].labels[labels.IMAGE])
            for each in names
        )  # fmt: skip

    # --- what there is

    async def instances(self) -> list[Instance]:
        found = await self._found()
        return list(await asyncio.gather(*(self._with_reasons(one, found) for one in found.instances)))

    def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        return self._watch.events()

    async def capacity(self) -> Capacity:
        told = await self._engine.get("/info")
        return Capacity(cores=float(told["NCPU"]), memory_bytes=int(told["MemTotal"]))

    def network(self) -> Network:
        return self._seen_network

    async def gateway(self) -> str:
        """This machine's address on the instance network, where instances reach what runs beside the engine.

        Raises:
            RuntimeUnavailableError: the network has none.
        """
        network = await self._engine.get(f"/networks/{self._network}")
        for config in network["IPAM"]["Config"] or ():
            if address := config.get("Gateway"):
                return str(address).partition("/")[0]
        raise RuntimeUnavailableError(f"network {self._network} has no gateway; remove it, and a new one is made")

    async def memory_bytes(self, name: str) -> int:
        return (await self.usage(name)).memory_bytes

    async def usage(self, name: str) -> Usage:
        group = [one for one in await self._apps(name) if one.alive]
        each = await asyncio.gather(*(inspect.usage(self._engine, one.id) for one in group))
        return Usage(sum(one.cpu_seconds for one in each), sum(one.memory_bytes for one in each))

    async def disk_bytes(self, name: str) -> Mapping[str, int]:
        sizes = {}
        for one in await self._apps(name):
            sizes[one.labels[labels.CONTAINER]] = await inspect.written_bytes(self._engine, one.id)
        return sizes

    async def scratch_bytes(self) -> Mapping[str, int]:
        return await self._volumes.scratch_bytes()

    async def free_disk_bytes(self) -> int:
        root = str((await self._engine.get("/info")).get("DockerRootDir") or "")
        return await asyncio.to_thread(lambda: disk.free_bytes(disk.of_engine(root)))

    # --- volumes

    async def put_files(self, volume: Volume, files: Mapping[str, File]) -> None:
        await self._volumes.put_files(volume, files)

    async def ensure_volume(self, volume: Volume, folders: Sequence[str] = ()) -> None:
        await self._volumes.ensure(volume, folders)

    async def volumes(self) -> list[Volume]:
        return await self._volumes.all()

    async def remove_volume(self, name: str) -> bool:
        return await self._volumes.remove(name)

    # --- inside a container

    async def exec(self, name: str, container: str, command: Sequence[str], timeout_seconds: float) -> ExecResult:
        one = await self._member(name, container)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await inspect.run(self._engine, one.id, command)
        except EngineError as error:
            raise NotFoundError(f"container {container} of instance {name} does not run: {error}") from error

    async def listening(self, name: str) -> tuple[Listener, ...]:
        return await self._net.listening((await self._sandbox(name))[0])

    async def forward(self, name: str, port: int, family: Family) -> None:
        await self._net.forward(*await self._sandbox(name), port, family)

    async def unforward(self, name: str) -> None:
        await self._net.stop((await self._sandbox(name))[0])

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
        one = await self._member(name, container)
        query: dict[str, str | int] = {"follow": int(follow), "tail": "all" if tail is None else tail}
        if since is not None:
            query["since"] = f"{since:.9f}"
        if timestamps:
            query["timestamps"] = 1
        async for chunk in inspect.read_log(self._engine, one.id, query):
            yield chunk

    async def ensure_image(
        self,
        reference: str,
        progress: Callable[[PullProgress], None] | None = None,
        credentials: Callable[[], Awaitable[RegistryCredentials]] | None = None,
    ) -> str:
        return await self._images.ensure(reference, progress, credentials)

    # --- the end

    async def destroy(self) -> None:
        await self._stop_keepers()
        found = await self._containers()
        self._watch.expect({one.id for one in found})
        await asyncio.gather(*(self._engine.remove(one.id) for one in found))
        self._pool.forget_all()
        for volume in await self._volumes.all():
            if volume.kind != "claim":
                await self._volumes.remove(volume.name)
        query = {"filters": _labelled(f"{labels.PLATFORM}={self._platform}")}
        for network in await self._engine.get("/networks", query):
            with contextlib.suppress(EngineError):  # an activator of somebody else's is still on it
                await self._engine.delete(f"/networks/{network['Id']}")

    async def close(self) -> None:
        await self._stop_keepers()
        for task in list(self._background):
            with contextlib.suppress(KnollError, asyncio.CancelledError):
                await task
        try:
            await self._pool.drain()
        except KnollError as error:
            log.warning("spare sandboxes are left behind; the next start adopts them", error=str(error))
        await self._engine.close()

    async def _start(self, spec: InstanceSpec, scheduled: Scheduled | None, admit: Admit | None) -> Instance:
        for _ in range(_SANDBOX_TRIES):
            sandbox = await self._pool.take(spec.name)
            try:
                instance = await self._starter.start(spec, sandbox, scheduled, admit)
            except SandboxGoneError as error:
                log.warning("a sandbox was gone, taking another", instance=spec.name, error=str(error))
                continue
            finally:
                self._pool.done(sandbox)
            self._watch.know(sandbox.id, spec.name, spec.revision)
            self._spawn(self._starter.rename(sandbox, spec.name))
            return instance
        raise RuntimeUnavailableError(f"instance {spec.name}: each sandbox ends before it can be used")

    # --- ending

    async def _end(self, one: Listed, grace: float) -> None:
        if one.state == "paused":
            await self._freeze(one, "unpause")
        if not one.alive:
            return
        try:
            if grace <= 0:
                await self._engine.post(f"/containers/{one.id}/kill")
            await self._engine.post(
                f"/containers/{one.id}/stop", query={"t": max(0, round(grace))}, seconds=grace + KILL_SECONDS
            )
        except EngineError as error:
            if error.status not in (304, 404, 409):  # it has ended by itself meanwhile
                raise RuntimeUnavailableError(f"the engine cannot stop {one.name}: {error}") from error

    async def _freeze(self, one: Listed, how: str) -> None:
        try:
            await self._engine.post(f"/containers/{one.id}/{how}")
        except EngineError as error:
            if error.status not in (404, 409, 500) or "paused" not in str(error):
                raise RuntimeUnavailableError(f"the engine cannot {how} {one.name}: {error}") from error

    # --- looking

    async def _containers(self, instance: str | None = None) -> list[Listed]:
        wanted = [f"{labels.PLATFORM}={self._platform}"]
        if instance is not None:
            wanted.append(f"{labels.INSTANCE}={instance}")
        answer = await self._engine.get("/containers/json", {"all": 1, "filters": _labelled(*wanted)})
        return [listed(item) for item in answer]

    async def _found(self, instance: str | None = None) -> Found:
        return sort_out(self._platform, self._network, await self._containers(instance), self._busy, self._dns)

    async def _apps(self, name: str) -> list[Listed]:
        group = (await self._found(name)).members.get(name, [])
        if not group:
            raise NotFoundError(f"there is no instance {name}")
        return [one for one in group if one.labels[labels.ROLE] == "app"]

    async def _sandbox(self, name: str) -> tuple[str, str]:
        """The engine's id of an instance's sandbox, and its address."""
        one = (await self._apps(name))[0]
        return one.labels[labels.SANDBOX], one.labels[labels.ADDRESS]

    async def _member(self, name: str, container: str) -> Listed:
        for one in (await self._found(name)).members.get(name, []):
            if one.labels[labels.CONTAINER] == container:
                return one
        raise NotFoundError(f"there is no container {container} of an instance {name}")

    async def _with_reasons(self, instance: Instance, found: Found) -> Instance:
        """Ask about each container that ended; the list does not say enough of those."""
        ids = {one.labels[labels.CONTAINER]: one for one in reversed(found.members[instance.name])}

        async def told(state: ContainerState) -> ContainerState:
            one = ids[state.name]
            return state if one.state != "exited" else await inspect.with_reason(self._engine, one.id, state)

        if all(one.running for one in instance.containers):
            return instance
        return replace(instance, containers=tuple([await told(one) for one in instance.containers]))

    # --- keeping

    async def _adopt(self) -> None:
        """Take over what runs, remove what nobody can use; at the start and whenever the engine was away."""
        await self._ensure_network()
        found = await self._found()
        instances = {one.name: one for one in found.instances}
        for name, sandbox_id in found.sandboxes.items():
            self._watch.know(sandbox_id, name, instances[name].revision)
        if not self._leads:
            return
        self._volumes.forget()
        await self._volumes.sweep()
        busy = {labels.sandbox_name(self._platform, name) for name in self._busy}
        self._pool.forget_all()
        self._pool.adopt(found.spare)
        for one in found.leftovers:
            if one.name not in busy:
                await self._engine.remove(one.id)

    async def _prepare(self) -> None:
        """Make what is missing on an engine that is seen for the first time."""
        self._own_image.forget()
        self._starter.quotas = await self._images.has_quotas(await self._own_image.id())
        await self._ensure_network()
        await self._adopt()
        self._limiter.resize(limit_for((await self.capacity()).cores))
        self._prepared = True

    async def _ensure_network(self) -> None:
        try:
            found = await self._engine.get(f"/networks/{self._network}")
        except EngineError as error:
            if error.status != 404:
                raise RuntimeUnavailableError(f"network {self._network} cannot be looked up: {error}") from error
            try:
                await self._engine.post("/networks/create", payloads.network(self._network, self._platform))
            except EngineError as refused:
                if refused.status != 409:  # somebody else made it meanwhile
                    raise RuntimeUnavailableError(f"network {self._network} cannot be made: {refused}") from refused
            found = await self._engine.get(f"/networks/{self._network}")
        self._seen_network = network_of(found)

    def _sandbox_died(self, sandbox_id: str) -> None:
        if self._pool.forget(sandbox_id):
            self._spawn(self._starter.remove_all([sandbox_id]))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _stop_keepers(self) -> None:
        await _ended(self._watching)
        await _ended(self._pooling)
        self._watching = self._pooling = None


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _labelled(*wanted: str) -> str:
    return json.dumps({"label": list(wanted)})
