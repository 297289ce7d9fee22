"""A `Runtime` without Docker: held to the same tests, with real sockets on loopback and failures on demand.

`fake_engine.FakeEngine` is the machine and keeps the containers; a `FakeRuntime` may end and another one take over, as
with Docker.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from autoscaler.runtime.model import (
    KILLED,
    ArmingUnavailableError,
    Capacity,
    ContainerSpec,
    ContainerState,
    EngineVolume,
    ExecResult,
    Family,
    File,
    Instance,
    InstanceSpec,
    InstanceStartError,
    Listener,
    LogChunk,
    Network,
    NotArmedError,
    PullProgress,
    Resync,
    RuntimeEvent,
    Usage,
)
from autoscaler.runtime.termination_message import LINES, tail_of
from knoll.auth.registry_secrets import RegistryCredentials
from knoll.values.errors import AlreadyExistsError, ImageError, NotFoundError
from tests.doubles.fake_engine import FakeContainer, FakeEngine, FakeInstance, FakeVolume

TERMINATED = 143
NETWORK = Network("br-fake", ("127.0.0.0/8",))


class FakeRuntime:
    """The driver of a FakeEngine; see `protocol.Runtime`."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    async def __aenter__(self) -> "FakeRuntime":
        self.engine.check("open")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def take_over(self) -> None:
        self.engine.check("take_over")

    async def step_down(self) -> None:
        self.engine.check("step_down")

    async def start(
        self,
        spec: InstanceSpec,
        *,
        scheduled: Callable[[Instance], None] | None = None,
        admit: Callable[[str], Awaitable[None]] | None = None,
    ) -> Instance:
        self.engine.check("start")
        if spec.name in self.engine.instances:
            raise AlreadyExistsError(f"instance {spec.name} is there already")
        instance = FakeInstance(spec, self.engine.next_address(), time.time())
        self.engine.instances[spec.name] = instance
        try:
            if scheduled:
                scheduled(_as_instance(instance))
            if admit:
                await admit(instance.address)
            for each in spec.init_containers:
                await self._run_init(instance, each)
            for each in spec.containers:
                instance.containers[each.name] = self._create(instance, each)
            await asyncio.sleep(self.engine.start_seconds)
            for container in instance.containers.values():
                await self.engine.begin(container)
        except BaseException:
            self._remove(instance)
            raise
        instance.starting = False
        return _as_instance(instance)

    async def arm(self, spec: InstanceSpec, *, admit: Callable[[str], Awaitable[None]] | None = None) -> Instance:
        self.engine.check("arm")
        if self.engine.arming_problem:
            raise ArmingUnavailableError(self.engine.arming_problem)
        if spec.init_containers:
            raise NotArmedError(f"instance {spec.name} has init containers")
        if spec.name in self.engine.instances:
            raise AlreadyExistsError(f"instance {spec.name} is there already")
        instance = FakeInstance(spec, self.engine.next_address(), time.time(), armed=True, digest=spec.digest)
        self.engine.instances[spec.name] = instance
        try:
            if admit:
                await admit(instance.address)
            for each in spec.containers:
                instance.containers[each.name] = self._create(instance, each)
            await asyncio.sleep(self.engine.start_seconds)
        except BaseException:
            self._remove(instance)
            raise
        for container in instance.containers.values():
            container.armed = True
        instance.starting = False
        return _as_instance(instance)

    async def release(self, name: str) -> Instance:
        self.engine.check("release")
        instance = self.engine.instances.get(name)
        if instance is None or instance.state() != "armed":
            raise NotArmedError(f"there is no prepared instance {name}")
        instance.armed, instance.created = False, time.time()
        for container in instance.containers.values():
            container.armed = False
            try:
                await self.engine.begin(container)
            except InstanceStartError as error:
                raise NotArmedError(str(error)) from error
        return _as_instance(instance)

    def arming_problem(self) -> str:
        return self.engine.arming_problem

    def set_warm_demand(self, revisions: int) -> None:
        self.engine.warm_demand = revisions

    async def remove(self, name: str, grace_seconds: float | None = None) -> None:
        self.engine.check("remove")
        instance = self.engine.instances.get(name)
        if instance is None:
            return
        await self.resume(name)
        grace = instance.spec.grace_seconds if grace_seconds is None else grace_seconds
        self.engine.graces[name] = grace
        await asyncio.gather(*(self._end(container, grace) for container in instance.containers.values()))
        self._remove(instance)
        for owned in [each.volume for each in self.engine.volumes.values() if each.volume.owner == name]:
            del self.engine.volumes[owned.name]

    async def restart_container(self, name: str, container: str, grace_seconds: float | None = None) -> ContainerState:
        self.engine.check("restart_container")
        target = self._container(name, container)
        await self._end(target, target.instance.spec.grace_seconds if grace_seconds is None else grace_seconds)
        again = self._create(target.instance, target.spec)
        again.restarts = target.restarts + 1
        await self.engine.begin(again)
        target.instance.containers[container] = again
        return again.state()

    async def stop_container(self, name: str, container: str, grace_seconds: float | None = None) -> ContainerState:
        self.engine.check("stop_container")
        target = self._container(name, container)
        grace = target.instance.spec.grace_seconds if grace_seconds is None else grace_seconds
        self.engine.graces[f"{name}/{container}"] = grace
        await self._end(target, grace)
        return target.state()

    async def pause(self, name: str) -> None:
        self._freeze("pause", name, True)

    async def resume(self, name: str) -> None:
        self._freeze("resume", name, False)

    async def stop(self, name: str, grace_seconds: float | None = None) -> None:
        self.engine.check("stop")
        instance = self._instance(name)
        await self.resume(name)
        grace = instance.spec.grace_seconds if grace_seconds is None else grace_seconds
        await asyncio.gather(*(self._end(container, grace) for container in instance.containers.values()))

    async def start_stopped(self, name: str) -> tuple[ContainerState, ...]:
        self.engine.check("start_stopped")
        instance = self._instance(name)
        for container in instance.containers.values():
            if not container.running:
                await self.engine.begin(container)
        return tuple(container.state() for container in instance.containers.values())

    async def instances(self) -> list[Instance]:
        self.engine.check("instances")
        return [_as_instance(self.engine.instances[name]) for name in sorted(self.engine.instances)]

    async def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self.engine.listeners.add(queue)
        try:
            yield Resync("the stream begins")
            while True:
                yield await queue.get()
        finally:
            self.engine.listeners.discard(queue)

    async def exec(self, name: str, container: str, command: Sequence[str], timeout_seconds: float) -> ExecResult:
        self.engine.check("exec")
        target = self._container(name, container)
        if not target.running:
            raise NotFoundError(f"container {container} of instance {name} is not running")
        program = self.engine.behave(replace(target.spec, command=(), args=tuple(command[1:])))
        if program.refusal:
            return ExecResult(126, program.refusal.encode())
        self.engine.wrote(target, program)
        async with asyncio.timeout(timeout_seconds):
            await asyncio.Event().wait() if program.exits_after is None else await asyncio.sleep(program.exits_after)
        return ExecResult(program.exit_code, program.output)

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
        self.engine.check("logs")
        target = self._container(name, container)

        def written(at: float, line: bytes) -> bytes:
            return _stamp(at) + line if timestamps else line

        kept = [written(at, line) for at, line in target.output if since is None or at >= since]
        read = len(target.output)
        for line in kept if tail is None else kept[len(kept) - tail if tail < len(kept) else 0 :]:
            yield LogChunk("stdout", line)
        while follow and target.running:
            await target.news.wait()
            for at, line in target.output[read:]:
                yield LogChunk("stdout", written(at, line))
            read = len(target.output)

    async def listening(self, name: str) -> tuple[Listener, ...]:
        self.engine.check("listening")
        listening = [
            container
            for container in self._instance(name).containers.values()
            if container.running and container.server
        ]
        places = {
            ("127.0.0.1" if endpoint.program.loopback else "0.0.0.0", self.engine.port(endpoint))
            for endpoint in listening
        }
        return tuple(Listener(*place) for place in sorted(places, key=lambda place: (place[1], place[0])))

    async def forward(self, name: str, port: int, family: Family) -> None:
        self.engine.check("forward")
        instance = self._instance(name)
        for container in instance.containers.values():
            if container.server and container.program.loopback and self.engine.port(container) == port:
                await container.server.listen(instance.address, port)

    async def unforward(self, name: str) -> None:
        self.engine.check("unforward")
        for container in self._instance(name).containers.values():
            if container.server and container.program.loopback:
                container.server.stop_listening()

    async def ensure_image(
        self,
        reference: str,
        progress: Callable[[PullProgress], None] | None = None,
        credentials: Callable[[], Awaitable[RegistryCredentials]] | None = None,
    ) -> str:
        self.engine.check("ensure_image")
        images = self.engine.images
        if images is not None and reference not in images:
            if reference not in self.engine.registry:
                raise ImageError(f"image {reference} cannot be pulled: no such image")
            if credentials:
                await credentials()
            if progress:
                progress(PullProgress("Pull complete", 1, 1))
            images.add(reference)
        return f"sha256:{reference}"

    async def put_files(self, volume: EngineVolume, files: Mapping[str, File]) -> None:
        self.engine.check("put_files")
        held = self.engine.volumes.setdefault(volume.name, FakeVolume(volume))
        if held.files != dict(files):
            held.files = dict(files)
            held.changes += 1

    async def ensure_volume(self, volume: EngineVolume, folders: Sequence[str] = ()) -> None:
        self.engine.check("ensure_volume")
        self.engine.volumes.setdefault(volume.name, FakeVolume(volume)).folders.update(folders)

    async def volumes(self) -> list[EngineVolume]:
        self.engine.check("volumes")
        return [self.engine.volumes[name].volume for name in sorted(self.engine.volumes)]

    async def remove_volume(self, name: str) -> bool:
        self.engine.check("remove_volume")
        for instance in self.engine.instances.values():
            if any(each.source == name for spec in _all_of(instance) for each in spec.mounts if each.kind == "own"):
                return False
        self.engine.volumes.pop(name, None)
        return True

    async def memory_bytes(self, name: str) -> int:
        self.engine.check("memory_bytes")
        return self.engine.memory_of_each * len(self._instance(name).containers)

    async def disk_bytes(self, name: str) -> Mapping[str, int]:
        self.engine.check("disk_bytes")
        return {
            container: self.engine.written.get((name, container), 0) for container in self._instance(name).containers
        }

    async def scratch_bytes(self) -> Mapping[str, int]:
        self.engine.check("scratch_bytes")
        kept = (each.volume for each in self.engine.volumes.values())
        return {volume.name: self.engine.in_volume(volume.name) for volume in kept if volume.kind == "scratch"}

    async def free_disk_bytes(self) -> int:
        self.engine.check("free_disk_bytes")
        return self.engine.free_disk

    async def usage(self, name: str) -> Usage:
        self.engine.check("usage")
        containers = self._instance(name).containers.values()
        seconds = sum(time.time() - container.started_at for container in containers if container.running)
        return Usage(self.engine.cores_of_each * seconds, self.engine.memory_of_each * len(containers))

    async def capacity(self) -> Capacity:
        self.engine.check("capacity")
        return self.engine.capacity

    def network(self) -> Network:
        return NETWORK

    async def destroy(self) -> None:
        self.engine.check("destroy")
        for instance in list(self.engine.instances.values()):
            self._remove(instance)
        kept = {name: each for name, each in self.engine.volumes.items() if each.volume.kind == "claim"}
        self.engine.volumes = kept

    async def close(self) -> None:
        await asyncio.sleep(0)

    def _instance(self, name: str) -> FakeInstance:
        if name not in self.engine.instances:
            raise NotFoundError(f"instance {name} does not exist")
        return self.engine.instances[name]

    def _container(self, name: str, container: str) -> FakeContainer:
        instance = self._instance(name)
        target = instance.containers.get(container) or instance.inits.get(container)
        if target is None:
            raise NotFoundError(f"container {container} of instance {name} does not exist")
        return target

    def _create(self, instance: FakeInstance, spec: ContainerSpec) -> FakeContainer:
        if self.engine.images is not None and spec.image not in self.engine.images:
            raise ImageError(f"image {spec.image} is not on the engine")
        return FakeContainer(spec, self.engine.behave(spec), instance)

    async def _run_init(self, instance: FakeInstance, spec: ContainerSpec) -> None:
        container = instance.inits[spec.name] = self._create(instance, spec)
        await self.engine.begin(container)
        await container.ended.wait()
        if container.exit_code:
            output = await tail_of(self.logs(instance.spec.name, spec.name, tail=LINES))
            raise InstanceStartError(
                f"init container {spec.name} ended with exit code {container.exit_code}"
                + (f": {output}" if output else ""),
                container=spec.name,
                cause="InitContainerError",
                exit_code=container.exit_code,
            )

    async def _end(self, container: FakeContainer, grace: float) -> None:
        """SIGTERM, the grace, SIGKILL: a server ends when it is idle, anything else at once."""
        code = KILLED
        if container.running and grace > 0:
            try:
                async with asyncio.timeout(grace):
                    code = await self._terminated(container)
            except TimeoutError:
                code = KILLED
        self.engine.end(container, code)

    async def _terminated(self, container: FakeContainer) -> int:
        if container.program.ignores_term:
            await container.ended.wait()
        if container.server is None:
            return TERMINATED
        await container.server.drain()
        return 0

    def _freeze(self, method: str, name: str, paused: bool) -> None:
        self.engine.check(method)
        instance = self._instance(name)
        instance.paused = paused
        for container in instance.containers.values():
            if container.server and paused:
                container.server.running.clear()
            elif container.server:
                container.server.running.set()

    def _remove(self, instance: FakeInstance) -> None:
        for container in [*instance.containers.values(), *instance.inits.values()]:
            self.engine.end(container, KILLED)
        self.engine.instances.pop(instance.spec.name, None)


def _all_of(instance: FakeInstance) -> tuple[ContainerSpec, ...]:
    return (*instance.spec.containers, *instance.spec.init_containers)


def _as_instance(instance: FakeInstance) -> Instance:
    return Instance(
        name=instance.spec.name,
        revision=instance.spec.revision,
        uid=instance.spec.uid,
        address="" if instance.lost else instance.address,
        port=instance.spec.port,
        state=instance.state(),
        containers=tuple(container.state() for container in instance.containers.values())
        or tuple(ContainerState(each.name, False, image=each.image) for each in instance.spec.containers),
        labels=dict(instance.spec.labels),
        created=instance.created,
        grace_seconds=float(instance.spec.grace_seconds),
        armed=instance.digest,
    )


def _stamp(at: float) -> bytes:
    """As Docker writes it before a line."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}000Z ".encode()
