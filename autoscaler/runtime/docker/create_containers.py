"""Creating and starting the containers of an instance in a sandbox, and recreating one of them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from autoscaler.runtime.docker import arm_payload, labels, payloads
from autoscaler.runtime.docker.arm_connection import release_again
from autoscaler.runtime.docker.engine import NOT_MODIFIED, Engine, EngineError
from autoscaler.runtime.docker.images import Image, Images
from autoscaler.runtime.docker.inspect import read_log
from autoscaler.runtime.docker.listing import ListedContainer
from autoscaler.runtime.docker.pool import Sandbox
from autoscaler.runtime.docker.stop_containers import ContainerStopper
from autoscaler.runtime.docker.watch import EventWatch
from autoscaler.runtime.model import (
    ContainerSpec,
    ContainerState,
    Instance,
    InstanceSpec,
    InstanceStartError,
    NotArmedError,
)
from autoscaler.runtime.termination_message import LINES, tail_of
from knoll.values.errors import AlreadyExistsError, ImageError, KnollError
from knoll.values.json import Json

log = structlog.get_logger()

INIT_SECONDS = 24 * 3600.0
"""An init container may run for long; the caller bounds the start by cancelling it."""
_NO_SANDBOX = ("cannot join network", "failed to join IPC", "joining network namespace")

Scheduled = Callable[[Instance], None]
Admit = Callable[[str], Awaitable[None]]


class SandboxGoneError(KnollError):
    """The sandbox ended before a container could join it; the start may be tried with another one."""


class Arming(Protocol):
    """What a start that arms an instance does differently."""

    async def turn(self) -> None:
        """Wait before a call of the engine."""
        ...

    def change(self, container: ContainerSpec, body: Json, image: Image) -> Json:
        """Return the request for a container, from that for the same container in a plain start."""
        ...

    async def confirm(self) -> None:
        """Wait until the containers are armed."""
        ...


class ContainerCreator:
    """Creates and starts containers; keeps nothing."""

    def __init__(
        self, engine: Engine, images: Images, watch: EventWatch, stopper: ContainerStopper, platform: str
    ) -> None:
        self._engine, self._images, self._watch, self._platform = engine, images, watch, platform
        self._stopper = stopper
        self.quotas = False
        """The engine limits the size of a container's file system."""

    async def start(
        self,
        spec: InstanceSpec,
        sandbox: Sandbox,
        scheduled: Scheduled | None,
        admit: Admit | None,
        *,
        arming: "Arming | None" = None,
    ) -> Instance:
        """Start an instance in a sandbox; see `Runtime.start`. When it fails, nothing is left, sandbox included.

        Args:
            arming: start it only up to the execution of its programs.

        Raises:
            SandboxGoneError: in addition to the errors of `Runtime.start`.
        """
        created: list[str] = []
        now = time.time()
        if scheduled:
            scheduled(_instance(spec, sandbox, now, running=False))
        try:
            if admit:
                await admit(sandbox.address)
            for container in spec.init_containers:
                await self._run_init(spec, container, sandbox, created, now)
            for container in spec.containers:
                if arming:
                    await arming.turn()
                created.append(await self._create(spec, container, "app", sandbox, now, arming))
            for container, container_id in zip(spec.containers, created[len(spec.init_containers) :], strict=True):
                if arming:
                    await arming.turn()
                await self._start(container_id, container.name)
            if arming:
                await arming.confirm()
        except BaseException:
            self._watch.expect([*created, sandbox.id])
            await asyncio.shield(asyncio.ensure_future(self._stopper.remove_all([*created, sandbox.id])))
            raise
        return _instance(spec, sandbox, now, running=True)

    async def recreate(self, ended: ListedContainer) -> ContainerState:
        """Replace a container that has ended by a new one, under its name and with a fresh file system.

        Raises:
            InstanceStartError: it cannot be started.
        """
        container = ended.labels[labels.CONTAINER]
        restarts, now = int(ended.labels[labels.RESTARTS]) + 1, time.time()
        old_name = f"{ended.name}.{restarts - 1}"
        try:
            inspected = await self._engine.get(f"/containers/{ended.id}/json")
            body = arm_payload.unarmed(payloads.recreate(inspected, restarts=restarts, now=now))
            await self._engine.post(f"/containers/{ended.id}/rename", query={"name": old_name})
            created = await self._engine.create(body, ended.name)
        except EngineError as error:
            raise InstanceStartError(f"{container}: {error}", container=container) from error
        try:
            await self._start(created, container)
        except (SandboxGoneError, InstanceStartError) as error:
            await self._engine.remove(created)
            await self._engine.post(f"/containers/{ended.id}/rename", query={"name": ended.name})
            raise InstanceStartError(str(error), container=container) from error
        await self._engine.remove(ended.id)
        return ContainerState(container, True, restarts=restarts, started_at=now, image=ended.labels[labels.IMAGE])

    async def start_stopped(self, stopped: ListedContainer) -> None:
        """Start a container that was stopped, as it is; one that runs keeps running.

        Raises:
            InstanceStartError: it cannot be started.
        """
        container = stopped.labels[labels.CONTAINER]
        try:
            if await self._start(stopped.id, container) and labels.ARM_TOKEN in stopped.labels:
                await release_again(stopped)
        except (SandboxGoneError, NotArmedError) as error:
            raise InstanceStartError(str(error), container=container) from error

    async def rename(self, sandbox: Sandbox, instance: str) -> None:
        """Name a sandbox after its instance: a later process must not take it for a spare one."""
        name = labels.sandbox_name(self._platform, instance)
        if sandbox.name == name:
            return
        query = {"name": name}
        try:
            await self._engine.post(f"/containers/{sandbox.id}/rename", query=query)
        except KnollError as error:
            log.debug("sandbox not renamed", instance=instance, error=str(error))

    async def _create(
        self,
        spec: InstanceSpec,
        container: ContainerSpec,
        role: str,
        sandbox: Sandbox,
        now: float,
        arming: "Arming | None" = None,
    ) -> str:
        image = await self._images.get(container.image)
        if refusal := payloads.refusal(container, image.user, self._engine.api):
            raise InstanceStartError(refusal, container=container.name, cause="CreateContainerConfigError")
        body = payloads.container(
            spec,
            container,
            platform=self._platform,
            role=role,
            sandbox_id=sandbox.id,
            group=sandbox.group,
            address=sandbox.address,
            image_id=image.id,
            image_has_tmp=image.has_tmp,
            now=now,
            image_user=image.user,
        )
        if self.quotas and container.resources.storage_limit is not None:
            body["HostConfig"] |= payloads.quota(container.resources.storage_limit)
        if arming:
            body = arming.change(container, body, image)
        name = labels.container_name(self._platform, spec.name, container.name)
        try:
            return await self._engine.create(body, name)
        except EngineError as error:
            if error.status == 409 and "already in use" in str(error):
                raise AlreadyExistsError(f"instance {spec.name} exists already: {error}") from error
            if error.status == 404 and "No such image" in str(error):
                self._images.forget(container.image)
                raise ImageError(f"image {container.image} is no longer on the engine") from error
            if sandbox.id in str(error):
                raise SandboxGoneError(str(error)) from error
            raise InstanceStartError(
                f"container {container.name} cannot be created: {error}",
                container=container.name,
                cause="CreateContainerConfigError",
            ) from error

    async def _start(self, container_id: str, container: str) -> bool:
        """Start a container; returns False when it runs already."""
        try:
            await self._engine.post(f"/containers/{container_id}/start")
        except EngineError as error:
            if error.status == NOT_MODIFIED:
                return False
            if any(message in str(error) for message in _NO_SANDBOX):
                raise SandboxGoneError(str(error)) from error
            message = f"container {container} cannot be started: {_cause(str(error))}"
            raise InstanceStartError(message, container=container) from error
        return True

    async def _run_init(
        self, spec: InstanceSpec, container: ContainerSpec, sandbox: Sandbox, created: list[str], now: float
    ) -> None:
        container_id = await self._create(spec, container, "init", sandbox, now)
        created.append(container_id)
        await self._start(container_id, container.name)
        result = await self._engine.post(f"/containers/{container_id}/wait", seconds=INIT_SECONDS)
        if code := int(result["StatusCode"]):
            output = await tail_of(read_log(self._engine, container_id, {"tail": LINES}))
            raise InstanceStartError(
                f"init container {container.name} ended with exit code {code}" + (f": {output}" if output else ""),
                container=container.name,
                cause="InitContainerError",
                exit_code=code,
            )


def _cause(message: str) -> str:
    """Return the engine's message without the names of the layers that it went through."""
    return message.rsplit("runc create failed: ", 1)[-1].removesuffix(": unknown")


def _instance(spec: InstanceSpec, sandbox: Sandbox, now: float, *, running: bool) -> Instance:
    return Instance(
        name=spec.name,
        revision=spec.revision,
        uid=spec.uid,
        address=sandbox.address,
        port=spec.port,
        state="running" if running else "starting",
        containers=tuple(
            ContainerState(container.name, running, started_at=now if running else 0.0, image=container.image)
            for container in spec.containers
        ),
        labels=dict(spec.labels),
        created=now,
        grace_seconds=float(spec.grace_seconds),
    )
