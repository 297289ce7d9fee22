"""Making the containers of an instance in a sandbox, and making one of them again."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from autoscaler.runtime.docker import labels, payloads
from autoscaler.runtime.docker.engine import Engine, EngineError
from autoscaler.runtime.docker.images import Images
from autoscaler.runtime.docker.inspect import read_log
from autoscaler.runtime.docker.listing import Listed
from autoscaler.runtime.docker.pool import Sandbox
from autoscaler.runtime.docker.watch import Watch
from autoscaler.runtime.protocol import ContainerSpec, ContainerState, Instance, InstanceSpec, InstanceStartError
from autoscaler.runtime.termination_message import LINES, tail_of
from knoll.values.errors import AlreadyExistsError, ImageError, KnollError

log = structlog.get_logger()

INIT_SECONDS = 24 * 3600.0
"""An init container may work for long; who starts the instance bounds it by cancelling."""
RUNS_ALREADY = 304
_NO_SANDBOX = ("cannot join network", "failed to join IPC", "joining network namespace")

Scheduled = Callable[[Instance], None]
Admit = Callable[[str], Awaitable[None]]


class SandboxGoneError(KnollError):
    """The sandbox ended before it could be joined; another one will do."""


class Starter:
    """Makes containers; keeps nothing."""

    def __init__(self, engine: Engine, images: Images, watch: Watch, platform: str) -> None:
        self._engine, self._images, self._watch, self._platform = engine, images, watch, platform
        self.quotas = False
        """The engine bounds the file systems of containers."""

    async def start(
        self, spec: InstanceSpec, sandbox: Sandbox, scheduled: Scheduled | None, admit: Admit | None
    ) -> Instance:
        """Run an instance in a sandbox; see `Runtime.start`. When it fails, sandbox included nothing is left.

        Raises:
            SandboxGoneError: beside those of `Runtime.start`.
        """
        made: list[str] = []
        now = time.time()
        if scheduled:
            scheduled(_instance(spec, sandbox, now, running=False))
        try:
            if admit:
                await admit(sandbox.address)
            for one in spec.init_containers:
                await self._run_init(spec, one, sandbox, made, now)
            for one in spec.containers:
                made.append(await self._create(spec, one, "app", sandbox, now))
            for one, container_id in zip(spec.containers, made[len(spec.init_containers) :], strict=True):
                await self._launch(container_id, one.name)
        except BaseException:
            self._watch.expect([*made, sandbox.id])
            await asyncio.shield(asyncio.ensure_future(self.remove_all([*made, sandbox.id])))
            raise
        return _instance(spec, sandbox, now, running=True)

    async def again(self, one: Listed) -> ContainerState:
        """Make a container that has ended anew, under its name and with a fresh file system.

        Raises:
            InstanceStartError: it cannot be started.
        """
        container = one.labels[labels.CONTAINER]
        restarts, now = int(one.labels[labels.RESTARTS]) + 1, time.time()
        aside = f"{one.name}.{restarts - 1}"
        try:
            inspected = await self._engine.get(f"/containers/{one.id}/json")
            body = payloads.again(inspected, restarts=restarts, now=now)
            await self._engine.post(f"/containers/{one.id}/rename", query={"name": aside})
            made = await self._engine.create(body, one.name)
        except EngineError as error:
            raise InstanceStartError(f"{container}: {error}", container=container) from error
        try:
            await self._launch(made, container)
        except (SandboxGoneError, InstanceStartError) as error:
            await self._engine.remove(made)
            await self._engine.post(f"/containers/{one.id}/rename", query={"name": one.name})
            raise InstanceStartError(str(error), container=container) from error
        await self._engine.remove(one.id)
        return ContainerState(container, True, restarts=restarts, started_at=now, image=one.labels[labels.IMAGE])

    async def once_more(self, one: Listed) -> None:
        """Run a container that was ended, as it is; one that runs goes on.

        Raises:
            InstanceStartError: it cannot be started.
        """
        container = one.labels[labels.CONTAINER]
        try:
            await self._launch(one.id, container)
        except SandboxGoneError as error:
            raise InstanceStartError(str(error), container=container) from error

    async def rename(self, sandbox: Sandbox, instance: str) -> None:
        """Show whose a sandbox is, and that it is no spare one, to who reads the list after us."""
        name = labels.sandbox_name(self._platform, instance)
        if sandbox.name == name:
            return
        query = {"name": name}
        try:
            await self._engine.post(f"/containers/{sandbox.id}/rename", query=query)
        except KnollError as error:
            log.debug("sandbox not renamed", instance=instance, error=str(error))

    async def remove_all(self, ids: Sequence[str]) -> None:
        """Remove containers; what cannot be removed now is found by its label later."""
        for each in ids:
            try:
                await self._engine.remove(each)
            except KnollError as error:
                log.warning("a container is left behind", container=each, error=str(error))

    async def _create(self, spec: InstanceSpec, one: ContainerSpec, role: str, sandbox: Sandbox, now: float) -> str:
        image = await self._images.get(one.image)
        if refusal := payloads.refusal(one, image.user, self._engine.api):
            raise InstanceStartError(refusal, container=one.name, cause="CreateContainerConfigError")
        body = payloads.container(
            spec,
            one,
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
        if self.quotas and one.resources.storage_limit is not None:
            body["HostConfig"] |= payloads.quota(one.resources.storage_limit)
        name = labels.container_name(self._platform, spec.name, one.name)
        try:
            return await self._engine.create(body, name)
        except EngineError as error:
            if error.status == 409 and "already in use" in str(error):
                raise AlreadyExistsError(f"instance {spec.name} is there already: {error}") from error
            if error.status == 404 and "No such image" in str(error):
                self._images.forget(one.image)
                raise ImageError(f"image {one.image} is not on the engine any more") from error
            if sandbox.id in str(error):
                raise SandboxGoneError(str(error)) from error
            raise InstanceStartError(
                f"container {one.name} cannot be made: {error}",
                container=one.name,
                cause="CreateContainerConfigError",
            ) from error

    async def _launch(self, container_id: str, container: str) -> None:
        try:
            await self._engine.post(f"/containers/{container_id}/start")
        except EngineError as error:
            if error.status == RUNS_ALREADY:
                return
            if any(sign in str(error) for sign in _NO_SANDBOX):
                raise SandboxGoneError(str(error)) from error
            message = f"container {container} cannot be started: {_essence(str(error))}"
            raise InstanceStartError(message, container=container) from error

    async def _run_init(
        self, spec: InstanceSpec, one: ContainerSpec, sandbox: Sandbox, made: list[str], now: float
    ) -> None:
        container_id = await self._create(spec, one, "init", sandbox, now)
        made.append(container_id)
        await self._launch(container_id, one.name)
        told = await self._engine.post(f"/containers/{container_id}/wait", seconds=INIT_SECONDS)
        if code := int(told["StatusCode"]):
            words = await tail_of(read_log(self._engine, container_id, {"tail": LINES}))
            raise InstanceStartError(
                f"init container {one.name} ended with exit code {code}" + (f": {words}" if words else ""),
                container=one.name,
                cause="InitContainerError",
                exit_code=code,
            )


def _essence(message: str) -> str:
    """The engine's message without the names of the layers it went through."""
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
            ContainerState(one.name, running, started_at=now if running else 0.0, image=one.image)
            for one in spec.containers
        ),
        labels=dict(spec.labels),
        created=now,
        grace_seconds=float(spec.grace_seconds),
    )
