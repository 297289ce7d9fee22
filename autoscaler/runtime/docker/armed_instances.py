"""Armed instances on the engine: creating them, releasing them, and recognising those of an earlier process."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from autoscaler.runtime.docker import arm_payload, labels
from autoscaler.runtime.docker.arm_connection import ArmConnection, ArmedContainer, armed_container
from autoscaler.runtime.docker.calm import Calm
from autoscaler.runtime.docker.create_containers import Admit, ContainerCreator
from autoscaler.runtime.docker.engine import Engine
from autoscaler.runtime.docker.images import Image
from autoscaler.runtime.docker.listing import ListedContainer
from autoscaler.runtime.docker.own_image import architecture_of
from autoscaler.runtime.docker.pool import Sandbox
from autoscaler.runtime.docker.programs import build
from autoscaler.runtime.docker.volumes import Volumes
from autoscaler.runtime.model import (
    ArmingUnavailableError,
    ContainerSpec,
    EngineVolume,
    File,
    Instance,
    InstanceSpec,
    InstanceStartError,
    NotArmedError,
)
from knoll.values.json import Json


@dataclass(slots=True)
class _Armed:
    instance: Instance
    containers: tuple[ArmedContainer, ...]
    connections: list[ArmConnection]


class _Arming:
    """One instance that is being armed; see `create_containers.Arming`."""

    def __init__(self, spec: InstanceSpec, address: str, volume: str, turn: Callable[[], Awaitable[None]]) -> None:
        self._turn = turn
        self.places = {
            container.name: ArmedContainer(address, arm_payload.FIRST_PORT - number, secrets.token_hex(16))
            for number, container in enumerate(spec.containers)
        }
        self.connections: list[ArmConnection] = []
        self._digest, self._volume = spec.digest, volume

    async def turn(self) -> None:
        await self._turn()

    def change(self, container: ContainerSpec, body: Json, image: Image) -> Json:
        place, argv = self.places[container.name], arm_payload.arguments(body, image.entrypoint, image.command)
        if not argv:
            raise InstanceStartError(
                f"container {container.name} cannot be created: no command specified",
                container=container.name,
                cause="CreateContainerConfigError",
            )
        return arm_payload.armed(
            body, argv, token=place.token, port=place.port, digest=self._digest, volume=self._volume
        )

    async def confirm(self) -> None:
        for place in self.places.values():
            self.connections.append(await place.listening())


class ArmedContainers:
    """The armed instances of one platform."""

    def __init__(self, engine: Engine, creator: ContainerCreator, volumes: Volumes, calm: Calm, platform: str) -> None:
        self._engine, self._creator, self._volumes = engine, creator, volumes
        self._calm, self._platform = calm, platform
        self._armed: dict[str, _Armed] = {}
        self._released: dict[str, float] = {}
        """Instances that were armed and run now, to the epoch second of their release; 0 when that is not known."""
        self._volume = ""
        """The engine's name of the volume that holds the program; empty until it is written."""
        self.problem = ""
        """Why no instance can be armed; empty when they can, or when none was tried yet."""

    async def arm(self, spec: InstanceSpec, sandbox: Sandbox, admit: Admit | None) -> Instance:
        """Create an instance in a sandbox; see `Runtime.arm`. When it fails, nothing is left, sandbox included."""
        arming = _Arming(spec, sandbox.address, self._volume, self._calm.wait)
        try:
            instance = await self._creator.start(spec, sandbox, None, admit, arming=arming)
        except NotArmedError as error:
            _close(arming.connections)
            raise self._unavailable(f"a prepared container cannot be reached: {error}") from error
        except BaseException:
            _close(arming.connections)
            raise
        instance = _as_armed(replace(instance, armed=spec.digest))
        self._armed[spec.name] = _Armed(instance, tuple(arming.places.values()), arming.connections)
        return instance

    async def release(self, name: str) -> Instance:
        """See `Runtime.release`."""
        armed = self._armed.pop(name, None)
        if armed is None:
            raise NotArmedError(f"there is no prepared instance {name}")
        now = self._released[name] = time.time()
        try:
            await asyncio.gather(*map(_release, armed.containers, armed.connections))
        except BaseException:
            _close(armed.connections)
            raise
        started = tuple(replace(state, running=True, started_at=now) for state in armed.instance.containers)
        return replace(armed.instance, state="running", containers=started, created=now)

    def forget(self, name: str) -> None:
        """An instance is being removed."""
        self._released.pop(name, None)
        if armed := self._armed.pop(name, None):
            _close(armed.connections)

    def forget_all(self) -> None:
        """This process ends or no longer leads: the next one queries the containers."""
        for name in list(self._armed):
            self.forget(name)

    async def prepare(self) -> None:
        """Make the program available to containers.

        Raises:
            ArmingUnavailableError: it is not built for this engine and cannot be compiled.
        """
        if self._volume:
            return
        architecture = architecture_of((await self._engine.get("/version"))["Arch"])
        try:
            program = await asyncio.to_thread(partial(build.program, build.ARM, architecture))
        except build.ProgramError as error:
            raise self._unavailable(str(error)) from error
        files = {"arm": File(program, 0o755)}
        volume = EngineVolume(f"program.{hashlib.sha256(program).hexdigest()[:12]}", "program", self._platform)
        await self._volumes.put_files(volume, files)
        for other in await self._volumes.programs():
            if other.name != volume.name:  # of an earlier version; one that is in use stays
                await self._volumes.remove(other.name)
        self._volume = labels.volume_name(self._platform, volume.name)

    def volume_gone(self) -> None:
        """Write the program again before the next use: the engine was unavailable, or is another one."""
        self._volume = ""

    async def recognised(
        self, instances: Iterable[Instance], containers: Mapping[str, Sequence[ListedContainer]], *, keep: bool
    ) -> list[Instance]:
        """Return instances with the state of those that wait for their release; each unknown one is queried.

        Args:
            containers: by instance.
            keep: stay connected to those that wait: this process may release them.
        """
        return await asyncio.gather(*(self._recognised(each, containers[each.name], keep) for each in instances))

    async def _recognised(self, instance: Instance, containers: Sequence[ListedContainer], keep: bool) -> Instance:
        if instance.name in self._released:
            return _since(instance, self._released[instance.name])
        if not instance.armed or instance.state != "running":
            return instance
        if instance.name not in self._armed:
            places = tuple(map(armed_container, _apps(instance, containers)))
            connections = [each for each in await asyncio.gather(*map(_connected, places)) if each]
            if not connections:
                self._released[instance.name] = 0.0
                return instance
            if len(connections) < len(places):
                # An earlier process ended while it released this one: some programs run, the others never will.
                _close(connections)
                return replace(instance, state="lost")
            if not keep:
                _close(connections)
                return _as_armed(instance)
            self._armed[instance.name] = _Armed(_as_armed(instance), places, connections)
        return self._armed[instance.name].instance

    def _unavailable(self, problem: str) -> ArmingUnavailableError:
        self.problem = problem
        return ArmingUnavailableError(problem)


async def _release(container: ArmedContainer, connection: ArmConnection) -> None:
    if not connection.is_open:
        try:
            connection = await container.connect()
        except ConnectionRefusedError as error:
            raise NotArmedError("it is no longer waiting") from error
    await connection.release()


async def _connected(container: ArmedContainer) -> ArmConnection | None:
    try:
        return await container.connect()
    except (NotArmedError, ConnectionRefusedError):
        return None


def _apps(instance: Instance, containers: Sequence[ListedContainer]) -> list[ListedContainer]:
    """Return the newest container of each name that was armed; one that was restarted in place is not armed."""
    newest = {each.labels[labels.CONTAINER]: each for each in reversed(containers)}
    return [
        newest[state.name] for state in instance.containers if labels.ARM_TOKEN in newest[state.name].labels
    ]  # fmt: skip


def _since(instance: Instance, released: float) -> Instance:
    """Count the times of an instance from its release; the engine's labels have those of the arming."""
    containers = tuple(
        replace(state, started_at=max(state.started_at, released)) if state.started_at else state
        for state in instance.containers
    )
    return replace(instance, containers=containers, created=max(instance.created, released))


def _as_armed(instance: Instance) -> Instance:
    waiting = tuple(replace(state, running=False, started_at=0.0) for state in instance.containers)
    return replace(instance, state="armed", containers=waiting)


def _close(connections: Iterable[ArmConnection]) -> None:
    for connection in connections:
        connection.close()
