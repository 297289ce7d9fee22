"""Instances, containers and volumes as plain values, for any container engine. Pure.

An instance is a *sandbox* (owns network namespace, address and host name) and the containers that join it, as in a Pod.
Everything that a runtime knows can be rebuilt from the labels of the containers, so its process may die at any moment.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from knoll.values.errors import KnollError

KILLED = 137
"""Exit code of a program that was ended by SIGKILL."""
ADDRESS = "\0address\0"
"""Placeholder in a container's variables, command and arguments for the instance's IP address, which is known once it
has a sandbox. No value that a user writes can contain it."""


@dataclass(frozen=True, slots=True)
class Network:
    """The network of the instances on this machine."""

    bridge: str = ""
    """Linux bridge; empty for a network of another kind, whose packets cannot be filtered here."""
    subnets: tuple[str, ...] = ()
    """IPv4, in CIDR form."""


LogStream = Literal["stdout", "stderr"]


Family = Literal["4", "6"]
"""Version of an IP address."""


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


class NotArmedError(KnollError):
    """An armed instance cannot be released: it is to be removed and an instance started as usual."""

    code, reason = 500, "NotArmed"


class ArmingUnavailableError(KnollError):
    """No instance can be armed on this engine; starts are not affected."""

    code, reason = 500, "ArmingUnavailable"


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
    """Bytes, > 0; swap included."""
    storage_request: int | None = None
    """Bytes on disk."""
    storage_limit: int | None = None
    """Bytes on disk; the runtime enforces it only where the engine can, see `Runtime.disk_bytes`."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One volume of a container."""

    target: str
    """Absolute path in the container."""
    kind: Literal["bind", "tmpfs", "volume", "own"]
    source: str = ""
    """Path as the engine's host sees it (bind), name on the engine (volume), of a `Volume` (own), empty (tmpfs)."""
    read_only: bool = False
    sub_path: str = ""
    """One file or folder of an own volume instead of its root."""
    size_bytes: int | None = None
    """Size of a tmpfs, None is half of the memory; of an own volume its limit, which the runtime does not enforce."""
    mode: int = 0o1777
    """Permission bits of a tmpfs."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a volume."""

    data: bytes
    mode: int = 0o644
    """Permission bits."""


@dataclass(frozen=True, slots=True)
class EngineVolume:
    """A volume of this platform on the engine. All of these fields can be read back from it."""

    name: str
    """Unique on the platform; letters, digits, `_`, `.` and `-`, at most 200."""
    kind: Literal["files", "scratch", "claim", "program"]
    owner: str
    """uid of the Revision or of the claim, or name of the instance, that owns it. A `program` is the runtime's own."""
    about: str = ""
    """`namespace/name` of the Revision or claim, for operators."""


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
    """Final values: only `ADDRESS` is replaced. `HOSTNAME` is added by the runtime: the instance's name."""
    resources: Resources = Resources()
    mounts: Sequence[Mount] = ()
    user: int | None = None
    group: int | None = None
    """Numeric. None is the image's user, and the image's group, or group 0 with a given user."""
    groups: Sequence[int] = ()
    """Supplementary groups of its processes."""
    non_root: bool = False
    """Refuse to run as user 0, whether requested or the image's."""
    working_dir: str = ""
    read_only_root: bool = False
    add_capabilities: Sequence[str] = ()
    """In addition to the runtime's own short list, without the `CAP_` prefix."""
    drop_capabilities: Sequence[str] = ()
    """Removed from the runtime's own list; `ALL` empties it."""


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
    """Kept with the instance; keys under `knoll.dev/` that the runtime uses take precedence."""
    grace_seconds: float = 300.0
    """From SIGTERM to SIGKILL, unless a call gives another time."""
    serving: str = ""
    """Name of the container that listens on `port`; empty is the first."""

    @property
    def digest(self) -> str:
        """A digest of all of it: what an instance was armed with, compared with what it would be started with."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What one container of an instance is doing."""

    name: str
    running: bool
    exit_code: int | None = None
    """Of the last run; None while it runs."""
    oom_killed: bool = False
    restarts: int = 0
    """How many times it was restarted in place."""
    started_at: float = 0.0
    """Epoch seconds of the last start; 0 when it was never started."""
    message: str = ""
    """The engine's message about why it does not run; empty for a plain exit."""
    image: str = ""


InstanceState = Literal["starting", "armed", "running", "paused", "exited", "lost"]
"""`armed`: none of its programs runs yet; it counts as no instance. `running`: each container's process runs.
`exited`: at least one has ended. `paused`: frozen, memory kept. `lost`: its sandbox is gone or a container of it is
missing, so it can only be removed."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance as the engine knows it."""

    name: str
    revision: str
    """`namespace/name`."""
    uid: str
    address: str
    """IP address for probes and activators; empty when lost."""
    port: int
    """Port of the serving container at `address`."""
    state: InstanceState
    containers: tuple[ContainerState, ...]
    """In the order of the spec, without init containers."""
    labels: Mapping[str, str]
    """The labels of the spec."""
    created: float
    """Epoch seconds."""
    grace_seconds: float
    armed: str = ""
    """Digest of the spec that it was armed with; kept after its release. Empty when it was started at once."""


@dataclass(frozen=True, slots=True)
class ContainerDied:
    """A container of an instance ended by itself; what the runtime stops is not reported."""

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
    """An instance's sandbox ended or was removed by someone else: remove the instance and start another."""

    instance: str
    revision: str
    at: float


@dataclass(frozen=True, slots=True)
class Resync:
    """Events may have been missed (the stream began, or the engine was unavailable): read `instances()` again."""

    reason: str


RuntimeEvent = ContainerDied | InstanceLost | Resync


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command in a container ended."""

    exit_code: int
    """126 and 127 when it could not be run, as in a shell."""
    output: bytes
    """stdout and stderr, interleaved, the first 64 KiB."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A TCP socket that accepts connections in an instance."""

    address: str
    """IP address; `0.0.0.0` and `::` are all addresses."""
    port: int


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Some bytes of a container's output, in order."""

    stream: LogStream
    data: bytes


@dataclass(frozen=True, slots=True)
class PullProgress:
    """Progress of a pull."""

    status: str
    """The engine's message."""
    done_bytes: int
    total_bytes: int
    """Of the layers known so far; 0 when unknown."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The machine's total resources, not what is free."""

    cores: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What the containers of an instance use."""

    cpu_seconds: float
    """CPU time since they were started; less than before when one was restarted."""
    memory_bytes: int
    """As `Runtime.memory_bytes`."""
