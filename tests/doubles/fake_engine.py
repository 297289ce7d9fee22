"""The container engine behind the fake runtime: its containers, its resources and its failures."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from autoscaler.runtime.model import (
    KILLED,
    Capacity,
    ContainerDied,
    ContainerSpec,
    ContainerState,
    EngineVolume,
    File,
    InstanceLost,
    InstanceSpec,
    InstanceStartError,
    InstanceState,
    Mount,
    Resync,
    RuntimeEvent,
)
from knoll.values.errors import KnollError, RuntimeUnavailableError
from tests.doubles.fake_server import Answer, FakeAnswer, FakeRequest, FakeServer


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
    """None responds with `<instance name>\\n` after the milliseconds of `?sleep=`."""
    writes: Mapping[str, bytes] = field(default_factory=dict)
    """By path, what it writes there at its start; files outside of its own volumes are not kept."""
    refusal: str = ""
    """The engine's message when it cannot be run at all."""


Behave = Callable[[ContainerSpec], FakeProgram]


def serve(_: ContainerSpec) -> FakeProgram:
    """Every image is an HTTP server."""
    return FakeProgram()


@dataclass
class FakeContainer:
    spec: ContainerSpec
    program: FakeProgram
    instance: "FakeInstance"
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
class FakeInstance:
    spec: InstanceSpec
    address: str
    created: float
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    inits: dict[str, FakeContainer] = field(default_factory=dict)
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
    """How many times its files were replaced."""


class FakeEngine:
    """The machine: its containers, its resources and its failures."""

    def __init__(self, behave: Behave = serve, capacity: Capacity = Capacity(8.0, 16 * 1024**3)) -> None:  # noqa: B008
        """
        Args:
            behave: what the process of a container does.
            capacity: what the machine has.
        """
        self.behave, self.capacity = behave, capacity
        self.instances: dict[str, FakeInstance] = {}
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
        # Networks of its own for each engine: many may run side by side, each with all of its instances on one port.
        self._network = random.randrange(16 << 8, 255 << 8)
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
        """The engine no longer responds; running containers keep running."""
        self.away = True

    def come_back(self) -> None:
        self.away = False
        self.tell(Resync("the container engine is available again"))

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
        network, subnet = divmod(self._network + high, 256)
        return f"127.{network}.{subnet}.{low + 1}"

    async def begin(self, container: FakeContainer) -> None:
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

    def _part(self, container: FakeContainer, mount: Mount) -> dict[str, File]:
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

    def _held(self, container: FakeContainer, path: str) -> tuple[dict[str, File], str] | None:
        """The files of the volume that a path is in, and its name there."""
        for mount in container.spec.mounts:
            if mount.kind == "own" and f"{path}/".startswith(f"{mount.target}/"):
                files = container.parts[mount.target] if mount.sub_path else self.volumes[mount.source].files
                return files, path[len(mount.target) + 1 :]
        return None

    def in_volume(self, name: str) -> int:
        """Bytes in a volume."""
        return self.filled.get(name, 0) + sum(len(file.data) for file in self.volumes[name].files.values())

    def wrote(self, container: FakeContainer, program: FakeProgram) -> None:
        """A program has left its files, in a volume or in the container's own file system."""
        for path, data in program.writes.items():
            if held := self._held(container, path):
                held[0][held[1]] = File(data)
            else:
                place = (container.instance.spec.name, container.spec.name)
                self.written[place] = self.written.get(place, 0) + len(data)

    def say(self, container: FakeContainer, data: bytes) -> None:
        container.output += [(time.time(), line) for line in data.splitlines(keepends=True)]
        container.changed()

    def end(self, container: FakeContainer, exit_code: int, *, oom: bool = False, reported: bool = False) -> None:
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

    async def _listen(self, container: FakeContainer, after: float = 0.0) -> None:
        if after:
            await asyncio.sleep(after)
        serving = container.spec is container.instance.spec.containers[0] or "PORT" in container.spec.env
        if not serving or container.spec.name in container.instance.inits:
            return
        server = FakeServer(container.program.answer or _answer_of(container.instance.spec.name))
        if not container.program.loopback:
            await server.listen(container.instance.address, self.port(container))
        container.server = server

    def port(self, container: FakeContainer) -> int:
        """Where a container listens."""
        return container.program.port or int(container.spec.env.get("PORT", container.instance.spec.port))

    async def _end_later(self, container: FakeContainer, after: float) -> None:
        await asyncio.sleep(after)
        self.end(
            container,
            KILLED if container.program.oom else container.program.exit_code,
            oom=container.program.oom,
            reported=is_app(container),
        )


def is_app(container: FakeContainer) -> bool:
    return container.spec.name not in container.instance.inits


def _answer_of(name: str) -> Answer:
    async def answer(request: FakeRequest) -> FakeAnswer:
        sleep = parse_qs(urlsplit(request.target).query).get("sleep", ["0"])[0]
        await asyncio.sleep(float(sleep) / 1000)
        return FakeAnswer(f"{name}\n".encode())

    return answer
