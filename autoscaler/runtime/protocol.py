"""What the autoscaler needs of a container engine. Plain values and one protocol; no engine is named here.

An instance is a *sandbox* (owns network namespace, address and host name) and the containers that join it, as a Pod.
Everything that a runtime knows can be rebuilt from the labels of what runs, so its process may die at any moment.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from knoll.auth.registry_secrets import RegistryCredentials
from knoll.values.errors import KnollError

ADDRESS = "\0address\0"
"""Stands in a container's variables, command and arguments for the instance's IP address, which is known once it has a
sandbox. No value that a user writes can hold it."""


@dataclass(frozen=True, slots=True)
class Network:
    """The instances' network as it is on the machine."""

    bridge: str = ""
    """Linux bridge; empty when it is of another kind, whose packets cannot be filtered here."""
    subnets: tuple[str, ...] = ()
    """IPv4, in CIDR form."""


LogStream = Literal["stdout", "stderr"]


Family = Literal["4", "6"]
"""Of IP addresses."""


class InstanceStartError(KnollError):
    """An instance could not be started; nothing of it is left behind."""

    code, reason = 500, "StartError"

    def __init__(
        self, message: str, *, container: str, cause: str = "StartError", exit_code: int | None = None
    ) -> None:
        super().__init__(message)
        self.container = container
        """Name of the container that could not be started; empty when it was the sandbox."""
        self.cause = cause
        """`StartError` (the process cannot be run), `InitContainerError` or `CreateContainerConfigError`."""
        self.exit_code = exit_code
        """Exit code of a failed init container; None in the other cases."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Requests and limits of one container; None is unset."""

    cpu_request: float | None = None
    """Cores, > 0."""
    cpu_limit: float | None = None
    """Cores, > 0."""
    memory_request: int | None = None
    """Bytes, > 0."""
    memory_limit: int | None = None
    """Bytes, > 0. Swap is not on top of it."""
    storage_request: int | None = None
    """Bytes of the disk."""
    storage_limit: int | None = None
    """Bytes of the disk; the runtime enforces it only where the engine can, see `Runtime.disk_bytes`."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One ready-made volume of a container."""

    target: str
    """Absolute path in the container."""
    kind: Literal["bind", "tmpfs", "volume", "own"]
    source: str = ""
    """Path as the engine's host sees it (bind), name on the engine (volume), of a `Volume` (own), empty (tmpfs)."""
    read_only: bool = False
    sub_path: str = ""
    """One file or folder of an own volume instead of its root."""
    size_bytes: int | None = None
    """Bound of a tmpfs, None is half of the memory; of an own volume its limit, which the runtime does not enforce."""
    mode: int = 0o1777
    """Permission bits of a tmpfs."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a volume."""

    data: bytes
    mode: int = 0o644
    """Permission bits."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of this platform on the engine. All that is said here can be read back from it."""

    name: str
    """Unique on the platform; letters, digits, `_`, `.` and `-`, at most 200."""
    kind: Literal["files", "scratch", "claim"]
    owner: str
    """uid of the Revision or of the claim, or name of the instance, that it is for."""
    about: str = ""
    """`namespace/name` of the Revision or claim, for people."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container of an instance."""

    name: str
    image: str
    """`repo@sha256:X` where X is a repository digest or an image id of the engine, or any other reference."""
    command: Sequence[str] = ()
    """Replaces the image's entrypoint *and* command, as in Kubernetes; empty leaves them."""
    args: Sequence[str] = ()
    """Replaces the image's command; empty leaves it unless `command` is given."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Final values: nothing but `ADDRESS` is put in here. `HOSTNAME` is added by the runtime: the instance's name."""
    resources: Resources = Resources()
    mounts: Sequence[Mount] = ()
    user: int | None = None
    group: int | None = None
    """Numeric. None leaves the image's user, and the image's group or group 0 beside a given user."""
    groups: Sequence[int] = ()
    """Further groups of its processes."""
    non_root: bool = False
    """Refuse to run as user 0, whether that is asked for or the image's."""
    working_dir: str = ""
    read_only_root: bool = False
    add_capabilities: Sequence[str] = ()
    """Beside the runtime's own short list, without the `CAP_` prefix."""
    drop_capabilities: Sequence[str] = ()
    """Taken off the runtime's own list; `ALL` empties it."""


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """One instance to start."""

    name: str
    """The emulated Pod's name: unique on the platform for all time, letters, digits, `-` and `.`, at most 253."""
    revision: str
    """`namespace/name`."""
    uid: str
    """uid of the Revision object."""
    containers: Sequence[ContainerSpec]
    """At least one; names are unique, init containers included."""
    port: int
    """Port of the serving container, 1-65535."""
    init_containers: Sequence[ContainerSpec] = ()
    """Run one after the other before `containers`; each must end with exit code 0."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Kept with the instance; keys under `knoll.dev/` that the runtime uses itself win over these."""
    grace_seconds: float = 300.0
    """From SIGTERM to SIGKILL where `stop` is not told otherwise."""
    serving: str = ""
    """Name of the container that listens on `port`; empty is the first."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What one container of an instance is doing."""

    name: str
    running: bool
    exit_code: int | None = None
    """Of the last run; None while it runs."""
    oom_killed: bool = False
    restarts: int = 0
    """How many times it was started again in place."""
    started_at: float = 0.0
    """Epoch seconds of the last start; 0 when it was never started."""
    message: str = ""
    """Why it does not run, in the engine's words; empty for a plain exit."""
    image: str = ""


InstanceState = Literal["starting", "running", "paused", "exited", "lost"]
"""`running`: each container's process runs. `exited`: at least one has ended. `paused`: frozen, memory kept.
`lost`: its sandbox is gone or a container of it is missing, so that it can only be stopped."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance as the engine knows it."""

    name: str
    revision: str
    """`namespace/name`."""
    uid: str
    address: str
    """IP address that probes and activators reach it at; empty when lost."""
    port: int
    """Port of the serving container at `address`."""
    state: InstanceState
    containers: tuple[ContainerState, ...]
    """In the order of the spec, init containers left out."""
    labels: Mapping[str, str]
    """Those of the spec."""
    created: float
    """Epoch seconds."""
    grace_seconds: float


@dataclass(frozen=True, slots=True)
class ContainerDied:
    """A container of an instance ended by itself; nothing that `stop` or `restart` does is told."""

    instance: str
    """Name."""
    revision: str
    container: str
    exit_code: int
    oom_killed: bool
    at: float
    """Epoch seconds on the engine's clock."""


@dataclass(frozen=True, slots=True)
class InstanceLost:
    """An instance's sandbox ended or was removed by somebody else: stop it and start another."""

    instance: str
    revision: str
    at: float


@dataclass(frozen=True, slots=True)
class Resync:
    """Events may have been missed (the stream began, or the engine was away): read `instances()` again."""

    reason: str


RuntimeEvent = ContainerDied | InstanceLost | Resync


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command in a container ended."""

    exit_code: int
    """126 and 127 when it could not be run, as in a shell."""
    output: bytes
    """stdout and stderr as they came, the first 64 KiB."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A TCP socket that accepts connections in an instance."""

    address: str
    """IP address; `0.0.0.0` and `::` are all of them."""
    port: int


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Some bytes that a container wrote, in its order."""

    stream: LogStream
    data: bytes


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is."""

    status: str
    """In the engine's words."""
    done_bytes: int
    total_bytes: int
    """Of the layers known so far; 0 when unknown."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the machine has, not what is free."""

    cores: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What the containers of an instance use of the machine."""

    cpu_seconds: float
    """Of processor time since they were started; less than before when one was started again."""
    memory_bytes: int
    """As `Runtime.memory_bytes`."""


class Runtime(Protocol):
    """A container engine. All methods but `close` raise RuntimeUnavailableError when it does not answer in time.

    Use it as `async with runtime:`; entering connects, makes what is missing (network, pause image, sandboxes) and
    adopts what it finds. Methods may run at the same time; those of one instance are the caller's to put in order.
    """

    async def __aenter__(self) -> "Runtime": ...

    async def __aexit__(self, *_: object) -> None: ...

    async def take_over(self) -> None:
        """This process leads from now on: it alone starts instances of the platform, and keeps the spare sandboxes.

        Needed after `standby=True` and after `step_down` only.
        """
        ...

    async def step_down(self) -> None:
        """Another process may lead from now on: leave the spare sandboxes to it, go on looking."""
        ...

    async def start(
        self,
        spec: InstanceSpec,
        *,
        scheduled: Callable[[Instance], None] | None = None,
        admit: Callable[[str], Awaitable[None]] | None = None,
    ) -> Instance:
        """Start an instance: take a sandbox, run the init containers, start the containers.

        Returns when every process runs, which says nothing of readiness; a process that ends at once is told by
        `events`. Cancelling it removes what was made.

        Args:
            spec: what to start.
            scheduled: called once when a sandbox is in hand, before the engine is asked for a container: the address
                is known from here on (state `starting`), so probing may begin before `start` returns.
            admit: called with the address before any container runs, and waited for; what it raises ends the start.

        Raises:
            AlreadyExistsError: an instance of that name is there.
            ImageError: an image is not on the engine; see `ensure_image`.
            InstanceStartError: the engine refused it, a command cannot be run, an init container failed.
        """
        ...

    def expect(self, asleep: int) -> None:
        """Be ready for as many starts at once as there are Revisions without an instance that may be woken.

        Args:
            asleep: how many those are now, >= 0; said again whenever it may have changed.
        """
        ...

    async def stop(self, name: str, grace_seconds: float | None = None) -> None:
        """End an instance: SIGTERM to each container, SIGKILL when the grace is over, then remove all of it.

        The volumes that it owns go with it.

        Does nothing when there is none. A paused instance is resumed first, so that it can end by itself.

        Args:
            name: the instance.
            grace_seconds: >= 0; 0 kills at once; None takes the spec's.
        """
        ...

    async def restart(self, name: str, container: str, grace_seconds: float | None = None) -> ContainerState:
        """Start one container of an instance again in place, with a fresh file system and `restarts` raised by one.

        A container that still runs is stopped first, as `stop` does. Address and the other containers stay.

        Raises:
            NotFoundError: no such instance or container.
            InstanceStartError: it cannot be started again; the container is then as it was, not running.
        """
        ...

    async def end(self, name: str, container: str, grace_seconds: float | None = None) -> ContainerState:
        """End one container of an instance as `stop` does, and keep it for `restart`; `events` do not report it.

        One that has ended already stays as it is.

        Returns:
            How it ended.

        Raises:
            NotFoundError: no such instance or container.
        """
        ...

    async def pause(self, name: str) -> None:
        """Freeze all processes of an instance; memory is kept. NotFoundError when there is none."""
        ...

    async def resume(self, name: str) -> None:
        """Undo `pause`; an instance that is not paused stays as it is. NotFoundError when there is none."""
        ...

    async def halt(self, name: str, grace_seconds: float | None = None) -> None:
        """End an instance's processes as `stop` does, and keep the rest: sandbox, address, file systems.

        Its state is `exited` then. A paused instance is resumed first. NotFoundError when there is none.
        """
        ...

    async def unhalt(self, name: str) -> tuple[ContainerState, ...]:
        """Undo `halt`: run what does not run, on the file systems that are there; `restarts` stay as they are.

        Returns:
            Each container's state, in the order of the spec.

        Raises:
            NotFoundError: there is no such instance.
            InstanceStartError: a container cannot be started; what was started meanwhile runs on.
        """
        ...

    async def instances(self) -> list[Instance]:
        """Every instance of this platform, by name, from what the engine says now and nothing else."""
        ...

    def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """What happens to instances, for ever; the first event is a `Resync`. Heals by itself when the engine goes."""
        ...

    async def exec(self, name: str, container: str, command: Sequence[str], timeout_seconds: float) -> ExecResult:
        """Run a command in a container.

        Raises:
            NotFoundError: no such instance or container, or it does not run.
            TimeoutError: it did not end in time; it may still run.
        """
        ...

    async def listening(self, name: str) -> tuple[Listener, ...]:
        """The TCP sockets that accept connections in an instance, its loopback addresses included.

        Empty when the engine cannot look. NotFoundError when there is no such instance.
        """
        ...

    async def forward(self, name: str, port: int, family: Family) -> None:
        """Accept connections at the instance's address and a port, and forward them to the same port of loopback.

        It ends by itself when nothing listens there any more, and with the instance.

        Args:
            port: something listens on, on loopback alone.
            family: which loopback address: `4` is 127.0.0.1, `6` is ::1.

        Raises:
            NotFoundError: there is no such instance.
        """
        ...

    async def unforward(self, name: str) -> None:
        """Undo `forward`, also of an earlier process of ours; does nothing when there is nothing to undo."""
        ...

    def logs(
        self,
        name: str,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        timestamps: bool = False,
    ) -> AsyncGenerator[LogChunk, None]:
        """What a container wrote to stdout and stderr.

        Args:
            name: the instance.
            container: its container.
            follow: go on until the container ends.
            tail: only that many last lines, >= 0; None is all that is kept.
            since: epoch seconds; None is from the start.
            timestamps: begin each line with its time, RFC 3339 with nanoseconds, and a space.

        Raises:
            NotFoundError: at the first step, when there is none.
        """
        ...

    async def ensure_image(
        self,
        reference: str,
        progress: Callable[[PullProgress], None] | None = None,
        credentials: Callable[[], Awaitable[RegistryCredentials]] | None = None,
    ) -> str:
        """Have an image on the engine, pulling it when it is missing; several calls for one image share a pull.

        Args:
            credentials: asked before a pull, and only then, for what registries may be shown.

        Returns:
            The engine's id of the image.

        Raises:
            ImageError: it is neither here nor can it be pulled.
        """
        ...

    async def put_files(self, volume: Volume, files: Mapping[str, File]) -> None:
        """Have a volume that holds exactly these files; made when missing.

        Who has all of it mounted sees the change at once and as a whole; who has a part of it mounted (`sub_path`)
        keeps what it has.

        Args:
            volume: a volume of files; nobody else writes to it.
            files: relative path to content; no path begins with `..` or is below another.
        """
        ...

    async def ensure_volume(self, volume: Volume, folders: Sequence[str] = ()) -> None:
        """Have a volume that containers write to, every user of theirs; a new one is empty.

        Args:
            volume: what it is.
            folders: relative paths of folders that it must have, made when missing.
        """
        ...

    async def volumes(self) -> list[Volume]:
        """Every volume of this platform, by name."""
        ...

    async def remove_volume(self, name: str) -> bool:
        """Remove a volume with what is in it; False while a container has it mounted. One that is gone is fine."""
        ...

    async def disk_bytes(self, name: str) -> Mapping[str, int]:
        """What each container of an instance has written into its own file system, by name, in bytes.

        Costs the engine a walk through all of it.

        Raises:
            NotFoundError: no such instance.
        """
        ...

    async def scratch_bytes(self) -> Mapping[str, int]:
        """What is in each `scratch` volume of the platform, by name, in bytes.

        Costs the engine a walk through every volume that it has.
        """
        ...

    async def free_disk_bytes(self) -> int:
        """What is free on the disk of the engine's files."""
        ...

    async def memory_bytes(self, name: str) -> int:
        """Memory in use by an instance now, file cache that can be dropped left out. NotFoundError when none."""
        ...

    def network(self) -> Network:
        """The network of instances, as the engine described it last."""
        ...

    async def usage(self, name: str) -> Usage:
        """What an instance uses now. NotFoundError when there is none."""
        ...

    async def capacity(self) -> Capacity:
        """Cores and memory of the machine."""
        ...

    async def destroy(self) -> None:
        """Remove everything of this platform from the engine: instances at once, spare sandboxes, the network, volumes.

        Volumes of claims stay: the objects that stand for them may be kept, and their content is nowhere else.
        """
        ...

    async def close(self) -> None:
        """Let go of the engine. Instances go on running; spare sandboxes are removed."""
        ...
