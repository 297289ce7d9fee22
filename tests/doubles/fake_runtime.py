"""A `Runtime` without Docker: held to the same tests, with real sockets on loopback and failures on demand.

`FakeEngine` is the machine and keeps what runs; a `FakeRuntime` may end and another one take over, as with Docker.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from autoscaler.runtime.model import (
    KILLED,
    ArmingUnavailableError,
    Capacity,
    ContainerDied,
    ContainerSpec,
    ContainerState,
    EngineVolume,
    ExecResult,
    Family,
    File,
    Instance,
    InstanceLost,
    InstanceSpec,
    InstanceStartError,
    InstanceState,
    Listener,
    LogChunk,
    Mount,
    Network,
    NotArmedError,
    PullProgress,
    Resync,
    RuntimeEvent,
    Usage,
)
from autoscaler.runtime.termination_message import LINES, tail_of
from knoll.auth.registry_secrets import RegistryCredentials
from knoll.values.errors import AlreadyExistsError, ImageError, KnollError, NotFoundError, RuntimeUnavailableError
from tests.doubles.fake_server import Answer, FakeAnswer, FakeRequest, FakeServer

TERMINATED = 143
NETWORK = Network("br-fake", ("127.0.0.0/8",))


@dataclass(frozen=True, slots=True)
class FakeProgram:
    """What a container's process does."""

    listens_after: float | None = 0.0
    """Seconds until it listens on the instance's port; None is never."""
    port: int | None = None
    """Where it listens instead."""
    loopback: bool = False
    """It listens on the instance's loopback address only."""
    exits_after: float | None = None
    """Seconds until it ends by itself; None is never."""
    exit_code: int = 0
    oom: bool = False
    """It ends because it used too much memory."""
    ignores_term: bool = False
    output: bytes = b""
    answer: Answer | None = None
    """None answers `<instance name>\\n` after the milliseconds of `?sleep=`."""
    writes: Mapping[str, bytes] = field(default_factory=dict)
    """Path to what it writes there at its start; what lies in no own volume of its is not kept."""
    refusal: str = ""
    """The engine's words when it cannot be run at all."""


Behave = Callable[[ContainerSpec], FakeProgram]


def serve(_: ContainerSpec) -> FakeProgram:
    """Every image is an HTTP server."""
    return FakeProgram()


@dataclass
class _Container:
    spec: ContainerSpec
    program: FakeProgram
    instance: "_Instance"
    restarts: int = 0
    running: bool = False
    armed: bool = False
    exit_code: int | None = None
    oom_killed: bool = False
    started_at: float = 0.0
    output: list[tuple[float, bytes]] = field(default_factory=list)
    server: FakeServer | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    parts: dict[str, dict[str, File]] = field(default_factory=dict)
    """Target of each mount of a part of a volume to the files there as they were at the start."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once, at the next output or the end, and replaced by a new one."""

    def changed(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def state(self) -> ContainerState:
        return ContainerState(
            self.spec.name,
            self.running,
            exit_code=None if self.running else self.exit_code,
            oom_killed=self.oom_killed,
            restarts=self.restarts,
            started_at=self.started_at,
            image=self.spec.image,
        )


@dataclass
class _Instance:
    spec: InstanceSpec
    address: str
    created: float
    containers: dict[str, _Container] = field(default_factory=dict)
    inits: dict[str, _Container] = field(default_factory=dict)
    starting: bool = True
    paused: bool = False
    lost: bool = False
    armed: bool = False
    """None of its programs runs yet."""
    digest: str = ""
    """What it was armed with."""

    def state(self) -> InstanceState:
        if self.starting:
            return "starting"
        if self.lost:
            return "lost"
        if self.armed:
            return "armed" if all(container.armed for container in self.containers.values()) else "exited"
        if not all(container.running for container in self.containers.values()):
            return "exited"
        return "paused" if self.paused else "running"


@dataclass
class FakeVolume:
    """A volume and what is in it."""

    volume: EngineVolume
    files: dict[str, File] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    changes: int = 0
    """How many times its files became others."""


class FakeEngine:
    """The machine: what runs on it, what it has, and what goes wrong."""

    def __init__(self, behave: Behave = serve, capacity: Capacity = Capacity(8.0, 16 * 1024**3)) -> None:  # noqa: B008
        """
        Args:
            behave: what the process of a container does.
            capacity: what the machine has.
        """
        self.behave, self.capacity = behave, capacity
        self.instances: dict[str, _Instance] = {}
        self.images: set[str] | None = None
        """References of the images on the engine; None is every image."""
        self.registry: set[str] = set()
        """References that can be pulled."""
        self.volumes: dict[str, FakeVolume] = {}
        self.written: dict[tuple[str, str], int] = {}
        """Bytes that a container of an instance has written."""
        self.filled: dict[str, int] = {}
        """Bytes in a scratch volume."""
        self.free_disk = 1 << 40
        """By name."""
        self.start_seconds = 0.0
        """How long a start takes."""
        self.arming_problem = ""
        """Why no instance can be armed."""
        self.warm_demand = 0
        """Last value of `set_warm_demand`."""
        self.graces: dict[str, float] = {}
        """Seconds from SIGTERM to SIGKILL of each instance stopped, or `instance/container` ended."""
        self.memory_of_each = 8 * 1024**2
        self.cores_of_each = 0.0
        """Cores that each container keeps busy, since it was started."""
        self.away = False
        self.listeners: set[asyncio.Queue[RuntimeEvent]] = set()
        self._failures: dict[str, list[KnollError]] = defaultdict(list)
        # A network of its own for each engine: two may run side by side, each with all of its instances on one port.
        self._network = random.randint(16, 254)
        self._addresses = 0

    def server(self, name: str, container: str | None = None) -> FakeServer:
        """The server of an instance's (first) container: how many requests are in it, and were."""
        containers = self.instances[name].containers
        server = (containers[container] if container else next(iter(containers.values()))).server
        assert server is not None, f"{name} does not listen"
        return server

    def read(self, name: str, path: str, container: str | None = None) -> bytes | None:
        """What an instance's (first) container finds in a file of an own volume; None when there is none."""
        containers = self.instances[name].containers
        target = containers[container] if container else next(iter(containers.values()))
        held = self._held(target, path)
        return held[0][held[1]].data if held and held[1] in held[0] else None

    def fail(self, method: str, error: KnollError, times: int = 1) -> None:
        """The next calls of a method of `Runtime` (`start`, `stop`, …) raise `error`."""
        self._failures[method].extend([error] * times)

    def kill(self, name: str, container: str | None = None, exit_code: int = KILLED, oom: bool = False) -> None:
        """A container's process ends by itself."""
        containers = self.instances[name].containers
        target = containers[container] if container else next(iter(containers.values()))
        self.end(target, exit_code, oom=oom, reported=True)

    def lose(self, name: str) -> None:
        """An instance's sandbox is removed by another program."""
        instance = self.instances[name]
        instance.lost = True
        self.tell(InstanceLost(name, instance.spec.revision, time.time()))

    def go_away(self) -> None:
        """The engine does not answer any more; what runs goes on."""
        self.away = True

    def come_back(self) -> None:
        self.away = False
        self.tell(Resync("the container engine is back"))

    # --- for FakeRuntime

    def check(self, method: str) -> None:
        if self.away:
            raise RuntimeUnavailableError("the container engine cannot be reached")
        if self._failures[method]:
            raise self._failures[method].pop(0)

    def tell(self, event: RuntimeEvent) -> None:
        for queue in self.listeners:
            queue.put_nowait(event)

    def next_address(self) -> str:
        high, low = divmod(self._addresses, 250)
        self._addresses += 1
        return f"127.{self._network}.{high % 250}.{low + 1}"

    async def begin(self, container: _Container) -> None:
        """Run a container's process."""
        if container.program.refusal:
            raise InstanceStartError(
                f"container {container.spec.name} cannot be started: {container.program.refusal}",
                container=container.spec.name,
            )
        container.running, container.exit_code, container.started_at = True, None, time.time()
        container.ended.clear()
        for mount in container.spec.mounts:
            if mount.kind == "own" and mount.sub_path:
                container.parts[mount.target] = self._part(container, mount)
        self.wrote(container, container.program)
        self.say(container, container.program.output)
        if container.program.listens_after == 0:
            await self._listen(container)
        elif container.program.listens_after is not None:
            container.tasks.append(asyncio.create_task(self._listen(container, container.program.listens_after)))
        if container.program.exits_after is not None:
            container.tasks.append(asyncio.create_task(self._end_later(container, container.program.exits_after)))

    def _part(self, container: _Container, mount: Mount) -> dict[str, File]:
        volume, inner = self.volumes[mount.source], mount.sub_path
        if inner in volume.files:
            return {"": volume.files[inner]}
        files = {path[len(inner) + 1 :]: file for path, file in volume.files.items() if path.startswith(f"{inner}/")}
        if not files and inner not in volume.folders:
            message = f"{inner} is not in volume {mount.source}"
            raise InstanceStartError(
                f"container {container.spec.name} cannot be started: {message}", container=container.spec.name
            )
        return files

    def _held(self, container: _Container, path: str) -> tuple[dict[str, File], str] | None:
        """The files of the volume that a path is in, and its name there."""
        for mount in container.spec.mounts:
            if mount.kind == "own" and f"{path}/".startswith(f"{mount.target}/"):
                files = container.parts[mount.target] if mount.sub_path else self.volumes[mount.source].files
                return files, path[len(mount.target) + 1 :]
        return None

    def in_volume(self, name: str) -> int:
        """Bytes in a volume."""
        return self.filled.get(name, 0) + sum(len(file.data) for file in self.volumes[name].files.values())

    def wrote(self, container: _Container, program: FakeProgram) -> None:
        """A program has left its files, in a volume or in the container's own file system."""
        for path, data in program.writes.items():
            if held := self._held(container, path):
                held[0][held[1]] = File(data)
            else:
                place = (container.instance.spec.name, container.spec.name)
                self.written[place] = self.written.get(place, 0) + len(data)

    def say(self, container: _Container, data: bytes) -> None:
        container.output += [(time.time(), line) for line in data.splitlines(keepends=True)]
        container.changed()

    def end(self, container: _Container, exit_code: int, *, oom: bool = False, reported: bool = False) -> None:
        if not container.running and not container.armed:
            return
        container.running = container.armed = False
        container.exit_code, container.oom_killed = exit_code, oom
        if container.server:
            container.server.kill()
        for task in container.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        container.tasks.clear()
        container.ended.set()
        container.changed()
        if reported:
            spec = container.instance.spec
            self.tell(ContainerDied(spec.name, spec.revision, container.spec.name, exit_code, oom, time.time()))

    async def _listen(self, container: _Container, after: float = 0.0) -> None:
        if after:
            await asyncio.sleep(after)
        serving = container.spec is container.instance.spec.containers[0] or "PORT" in container.spec.env
        if not serving or container.spec.name in container.instance.inits:
            return
        server = FakeServer(container.program.answer or _answer_of(container.instance.spec.name))
        if not container.program.loopback:
            await server.listen(container.instance.address, self.port(container))
        container.server = server

    def port(self, container: _Container) -> int:
        """Where a container listens."""
        return container.program.port or int(container.spec.env.get("PORT", container.instance.spec.port))

    async def _end_later(self, container: _Container, after: float) -> None:
        await asyncio.sleep(after)
        self.end(
            container,
            KILLED if container.program.oom else container.program.exit_code,
            oom=container.program.oom,
            reported=_is_app(container),
        )


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
        instance = _Instance(spec, self.engine.next_address(), time.time())
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
        instance = _Instance(spec, self.engine.next_address(), time.time(), armed=True, digest=spec.digest)
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
            raise NotArmedError(f"there is no armed instance {name}")
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
            raise NotFoundError(f"container {container} of instance {name} does not run")
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

    def _instance(self, name: str) -> _Instance:
        if name not in self.engine.instances:
            raise NotFoundError(f"instance {name} does not exist")
        return self.engine.instances[name]

    def _container(self, name: str, container: str) -> _Container:
        instance = self._instance(name)
        target = instance.containers.get(container) or instance.inits.get(container)
        if target is None:
            raise NotFoundError(f"container {container} of instance {name} does not exist")
        return target

    def _create(self, instance: _Instance, spec: ContainerSpec) -> _Container:
        if self.engine.images is not None and spec.image not in self.engine.images:
            raise ImageError(f"image {spec.image} is not on the engine")
        return _Container(spec, self.engine.behave(spec), instance)

    async def _run_init(self, instance: _Instance, spec: ContainerSpec) -> None:
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

    async def _end(self, container: _Container, grace: float) -> None:
        """SIGTERM, the grace, SIGKILL: a server ends when it is idle, anything else at once."""
        code = KILLED
        if container.running and grace > 0:
            try:
                async with asyncio.timeout(grace):
                    code = await self._terminated(container)
            except TimeoutError:
                code = KILLED
        self.engine.end(container, code)

    async def _terminated(self, container: _Container) -> int:
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

    def _remove(self, instance: _Instance) -> None:
        for container in [*instance.containers.values(), *instance.inits.values()]:
            self.engine.end(container, KILLED)
        self.engine.instances.pop(instance.spec.name, None)


def _all_of(instance: _Instance) -> tuple[ContainerSpec, ...]:
    return (*instance.spec.containers, *instance.spec.init_containers)


def _is_app(container: _Container) -> bool:
    return container.spec.name not in container.instance.inits


def _as_instance(instance: _Instance) -> Instance:
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


def _answer_of(name: str) -> Answer:
    async def answer(request: FakeRequest) -> FakeAnswer:
        sleep = parse_qs(urlsplit(request.target).query).get("sleep", ["0"])[0]
        await asyncio.sleep(float(sleep) / 1000)
        return FakeAnswer(f"{name}\n".encode())

    return answer


def _stamp(at: float) -> bytes:
    """As Docker writes it before a line."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}000Z ".encode()
