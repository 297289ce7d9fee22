"""Images of the engines of other machines: each builder lists those of its engine for the others, and pushes them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import structlog
from docker.errors import APIError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from builder.images.engine_images import EngineImages, LocalImage, engine_at
from knoll.auth import process_tokens
from knoll.cluster.node_folder import NodeFolderError
from knoll.cluster.other_machines import OtherMachines, RemoteService
from knoll.process.settings import BuilderSettings
from knoll.redis.client import RedisClient
from knoll.values.errors import ImageError, KnollError, RuntimeUnavailableError

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger()

ASK_SECONDS = 5.0
"""How long another machine may take to say what its engine has."""
MAX_REFERENCES = 100
_SUBJECT = "engine images"


@dataclass(frozen=True, slots=True)
class ImagesElsewhere:
    """What other engines have."""

    by_reference: Mapping[str, Sequence[LocalImage]]
    silent: tuple[str, ...] = ()
    """Machines that run and did not respond."""


class OtherEngines:
    """The engines of the other machines, through their builders."""

    def __init__(self, settings: BuilderSettings, redis: RedisClient) -> None:
        self._keyring = settings.keyring
        self._machines = OtherMachines(redis, settings.node, settings.node_dir, "builder")

    async def images(self, references: Iterable[str]) -> "ImagesElsewhere":
        """Return the images of other engines. Raises: RuntimeUnavailableError, StoreUnavailableError."""
        asked = list(dict.fromkeys(references))[:MAX_REFERENCES]
        try:
            machines = await self._machines.all()
        except NodeFolderError as error:
            raise RuntimeUnavailableError(f"other machines cannot be asked: {error}") from error
        answers = await asyncio.gather(*(self._of(machine, asked) for machine in machines))
        merged: dict[str, list[LocalImage]] = {}
        for images in answers:
            for reference, image in (images or {}).items():
                merged.setdefault(reference, []).append(image)
        silent = [machine.name for machine, images in zip(machines, answers, strict=True) if images is None]
        return ImagesElsewhere(merged, tuple(silent))

    async def _of(self, machine: RemoteService, references: Sequence[str]) -> Mapping[str, LocalImage] | None:
        import httpx  # only where there are several machines

        try:
            async with asyncio.timeout(ASK_SECONDS):
                response = await self._post(machine, "/images/find", references)
            response.raise_for_status()
            return msgspec.json.decode(response.content, type=dict[str, LocalImage])
        except (httpx.HTTPError, OSError, KnollError, msgspec.MsgspecError) as error:
            log.warning("images of a machine unknown", node=machine.name, error=str(error) or type(error).__name__)
            return None

    async def push(self, node: str, image_id: str) -> None:
        """Let the builder of a machine push an image to the platform's registry.

        Raises: RuntimeUnavailableError: it does not respond, or cannot. StoreUnavailableError.
        """
        import httpx

        machine = await self._machines.of(node)
        if machine is None:
            raise RuntimeUnavailableError(f"{image_id} is on this machine")
        try:
            response = await self._post(machine, "/images/push", [image_id])
        except (httpx.HTTPError, OSError) as error:
            raise RuntimeUnavailableError(f"the builder of {node} does not respond: {error}") from error
        if not response.is_success:
            raise RuntimeUnavailableError(f"{node} cannot push {image_id}: {response.text[:500]}")

    async def _post(self, machine: RemoteService, path: str, content: Sequence[str]) -> "httpx.Response":
        token = process_tokens.mint_shared(self._keyring, _SUBJECT, time.time())
        request = machine.client.build_request(
            "POST",
            f"{machine.url}{path}",
            content=msgspec.json.encode(content),
            headers={"Authorization": f"Bearer {token}"},
            extensions={"sni_hostname": machine.name},
        )
        return await machine.client.send(request)

    async def close(self) -> None:
        await self._machines.close()


def routes(settings: BuilderSettings, push: Callable[[str], Awaitable[None]]) -> list[Route]:
    """Return what a builder serves to those of other machines, and to no other client.

    Args: push: pushes an image of the engine here to the platform's registry, by its id.
    """

    async def asked(request: Request) -> list[str]:
        header = request.headers.get("authorization", "")
        process_tokens.check_shared(settings.keyring, header, _SUBJECT, time.time())
        return msgspec.json.decode(await request.body(), type=list[str])[:MAX_REFERENCES]

    async def find(request: Request) -> Response:
        references = await asked(request)
        images = await asyncio.to_thread(_local_images, settings, references)
        return JSONResponse(msgspec.to_builtins(images))

    async def push_all(request: Request) -> Response:
        for image_id in await asked(request):
            await push(image_id)
        return PlainTextResponse("ok")

    def answered(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except KnollError as error:
                return PlainTextResponse(str(error), error.code)
            except msgspec.MsgspecError as error:
                return PlainTextResponse(str(error), 400)

        return answer

    return [
        Route("/images/find", answered(find), methods=["POST"]),
        Route("/images/push", answered(push_all), methods=["POST"]),
    ]


def _local_images(settings: BuilderSettings, references: Iterable[str]) -> dict[str, LocalImage]:
    """Return the images of the engine here by reference or id."""
    images = {}
    with engine_at(settings.docker_socket) as engine:
        local = EngineImages(engine, settings.platform)
        for reference in references:
            _, _, digest = reference.partition("@")
            for name in filter(None, (digest, reference)):
                try:
                    images[reference] = replace(local.describe(name)[0], node=settings.node)
                    break
                except (ImageError, APIError):
                    continue
    return images
