"""What the autoscaler needs from a container engine, as one protocol."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

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
    PullProgress,
    RuntimeEvent,
    Usage,
)
from knoll.auth.registry_secrets import RegistryCredentials


class Runtime(Protocol):
    """A container engine. All methods but `close` raise RuntimeUnavailableError when it does not respond in time.

    Use it as `async with runtime:`; entering connects, creates what is missing (network, pause image, sandboxes) and
    adopts what exists. Methods may run concurrently; the caller orders the calls for one instance.
    """

    async def __aenter__(self) -> "Runtime": ...

    async def __aexit__(self, *_: object) -> None: ...

    async def take_over(self) -> None:
        """Lead from now on: only this process starts instances of the platform and owns the spare sandboxes.

        Needed only after `standby=True` and after `step_down`.
        """
        ...

    async def step_down(self) -> None:
        """Stop leading: leave the spare sandboxes to the next leader; queries remain possible."""
        ...

    async def start(
        self,
        spec: InstanceSpec,
        *,
        scheduled: Callable[[Instance], None] | None = None,
        admit: Callable[[str], Awaitable[None]] | None = None,
    ) -> Instance:
        """Start an instance: take a sandbox, run the init containers, start the containers.

        Returns when every process runs, ready or not; `events` reports a process that ends at once. Cancelling the
        call removes what was created.

        Args:
            spec: what to start.
            scheduled: called once when there is a sandbox, before containers are created in it: the address is
                known from here on (state `starting`), so probing may begin before `start` returns.
            admit: called with the address before any container runs, and awaited; its errors end the start.

        Raises:
            AlreadyExistsError: an instance of that name exists.
            ImageError: an image is not on the engine; see `ensure_image`.
            InstanceStartError: the engine refused it, a command cannot be run, an init container failed.
        """
        ...

    async def arm(self, spec: InstanceSpec, *, admit: Callable[[str], Awaitable[None]] | None = None) -> Instance:
        """Create an instance up to the execution of its programs, which `release` triggers.

        It waits until no instance is being started, before each call of the engine. Its state is `armed`: it counts as
        no instance, and `remove` removes it. Cancelling the call removes what was created.

        Args:
            spec: what to start later; without init containers, which have to run at the start.
            admit: as in `start`.

        Raises:
            ArmingUnavailableError: this engine cannot arm instances, see `arming_problem`.
            AlreadyExistsError, ImageError, InstanceStartError: as in `start`; also for a program that is not found.
        """
        ...

    async def release(self, name: str) -> Instance:
        """Let an armed instance execute its programs; returns as soon as its containers have received the command.

        Times count from now on.

        Raises:
            NotArmedError: it is gone, or a program cannot be executed: `start` gives the reason.
        """
        ...

    def arming_problem(self) -> str:
        """Return why no instance can be armed, as far as known; empty when they can."""
        ...

    def set_warm_demand(self, revisions: int) -> None:
        """Prepare for as many starts at once as there are Revisions without an instance that may be woken.

        Args:
            revisions: how many there are now, >= 0; called whenever that may have changed.
        """
        ...

    async def remove(self, name: str, grace_seconds: float | None = None) -> None:
        """Stop an instance (SIGTERM to each container, SIGKILL after the grace period), then remove all of it.

        The volumes that it owns are removed as well.

        Does nothing when there is none. A paused instance is resumed first, so that it can end by itself.

        Args:
            name: the instance.
            grace_seconds: >= 0; 0 sends SIGKILL at once; None is the spec's.
        """
        ...

    async def restart_container(self, name: str, container: str, grace_seconds: float | None = None) -> ContainerState:
        """Restart one container of an instance in place, with a fresh file system and `restarts` raised by one.

        A container that still runs is stopped first, as in `remove`. Address and the other containers stay.

        Raises:
            NotFoundError: no such instance or container.
            InstanceStartError: it cannot be started; the container is then as it was, not running.
        """
        ...

    async def stop_container(self, name: str, container: str, grace_seconds: float | None = None) -> ContainerState:
        """Stop one container of an instance as in `remove`, and keep it for `restart_container`.

        `events` does not report it. One that has ended already stays as it is.

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

    async def stop(self, name: str, grace_seconds: float | None = None) -> None:
        """Stop an instance's processes as in `remove`, and keep the rest: sandbox, address, file systems.

        Its state is then `exited`. A paused instance is resumed first. NotFoundError when there is none.
        """
        ...

    async def start_stopped(self, name: str) -> tuple[ContainerState, ...]:
        """Undo `stop`: start what does not run, on the existing file systems; `restarts` stay as they are.

        Returns:
            Each container's state, in the order of the spec.

        Raises:
            NotFoundError: there is no such instance.
            InstanceStartError: a container cannot be started; those that were started keep running.
        """
        ...

    async def instances(self) -> list[Instance]:
        """Return every instance of this platform, by name, as the engine has it now."""
        ...

    def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Yield what happens to instances, forever; begins with a `Resync`. Reconnects to the engine by itself."""
        ...

    async def exec(self, name: str, container: str, command: Sequence[str], timeout_seconds: float) -> ExecResult:
        """Run a command in a container.

        Raises:
            NotFoundError: no such instance or container, or it does not run.
            TimeoutError: it did not end in time; it may still run.
        """
        ...

    async def listening(self, name: str) -> tuple[Listener, ...]:
        """Return the TCP sockets that accept connections in an instance, loopback addresses included.

        Empty when the engine cannot inspect them. NotFoundError when there is no such instance.
        """
        ...

    async def forward(self, name: str, port: int, family: Family) -> None:
        """Accept connections at the instance's address and a port, and forward them to the same port of loopback.

        Forwarding ends when nothing listens there any more, and with the instance.

        Args:
            port: a program listens on it, on loopback only.
            family: which loopback address: `4` is 127.0.0.1, `6` is ::1.

        Raises:
            NotFoundError: there is no such instance.
        """
        ...

    async def unforward(self, name: str) -> None:
        """Undo `forward`, also that of an earlier process; does nothing when there is nothing to undo."""
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
        """Yield what a container wrote to stdout and stderr.

        Args:
            name: the instance.
            container: its container.
            follow: go on until the container ends.
            tail: number of last lines, >= 0; None is all that are kept.
            since: epoch seconds; None is from the start.
            timestamps: begin each line with its time, RFC 3339 with nanoseconds, and a space.

        Raises:
            NotFoundError: on the first iteration, when there is no such container.
        """
        ...

    async def ensure_image(
        self,
        reference: str,
        progress: Callable[[PullProgress], None] | None = None,
        credentials: Callable[[], Awaitable[RegistryCredentials]] | None = None,
    ) -> str:
        """Pull an image when it is missing on the engine; concurrent calls for one image share a pull.

        Args:
            credentials: called before a pull, and only then; returns credentials for registries.

        Returns:
            The engine's id of the image.

        Raises:
            ImageError: it is missing and cannot be pulled.
        """
        ...

    async def put_files(self, volume: EngineVolume, files: Mapping[str, File]) -> None:
        """Write a volume that holds exactly these files; created when missing.

        Containers that mount all of it see the change at once and as a whole; those that mount a part of it
        (`sub_path`) keep what they have.

        Args:
            volume: a volume of files; nothing else writes to it.
            files: relative path to content; no path begins with `..` or is below another.
        """
        ...

    async def ensure_volume(self, volume: EngineVolume, folders: Sequence[str] = ()) -> None:
        """Create a volume that containers of any user write to, when it is missing.

        Args:
            volume: its name and owner.
            folders: relative paths of folders in it, created when missing.
        """
        ...

    async def volumes(self) -> list[EngineVolume]:
        """Return every volume of this platform, by name."""
        ...

    async def remove_volume(self, name: str) -> bool:
        """Remove a volume and its content, if it exists; returns False while a container has it mounted."""
        ...

    async def disk_bytes(self, name: str) -> Mapping[str, int]:
        """Return how many bytes each container of an instance has written into its own file system, by name.

        The engine walks through all of the files.

        Raises:
            NotFoundError: no such instance.
        """
        ...

    async def scratch_bytes(self) -> Mapping[str, int]:
        """Return the size of each `scratch` volume of the platform, by name, in bytes.

        The engine walks through every volume that it has.
        """
        ...

    async def free_disk_bytes(self) -> int:
        """Return the free bytes on the engine's disk."""
        ...

    async def memory_bytes(self, name: str) -> int:
        """Return the memory that an instance uses now, without reclaimable file cache. Raises: NotFoundError."""
        ...

    def network(self) -> Network:
        """Return the network of instances, as the engine last described it."""
        ...

    async def usage(self, name: str) -> Usage:
        """Return what an instance uses now. NotFoundError when there is none."""
        ...

    async def capacity(self) -> Capacity:
        """Return the cores and memory of the machine."""
        ...

    async def destroy(self) -> None:
        """Remove everything of this platform from the engine: instances, spare sandboxes, the network, volumes.

        Volumes of claims stay: their objects may be kept, and the content exists nowhere else.
        """
        ...

    async def close(self) -> None:
        """Disconnect from the engine. Instances keep running; spare sandboxes are removed."""
        ...
