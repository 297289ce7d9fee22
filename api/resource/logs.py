"""Serves logs: of builds from Redis, of instances through the autoscaler, which has access to the engine, and of
requests from the activators."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import StreamingResponse

from api.resource import request_log
from api.resource.build_pods import pod_or_build
from api.wire.paths import ResourcePath
from knoll.auth import process_tokens, token_key
from knoll.builds import build_log
from knoll.cluster.other_machines import OtherMachines
from knoll.redis.client import RedisClient
from knoll.redis.encryption import PLAIN, Keyring
from knoll.store.protocol import Store
from knoll.values import log_options
from knoll.values.errors import BadRequestError, NotFoundError, RuntimeUnavailableError
from knoll.values.json import Json
from knoll.values.kinds import BUILD_KIND, POD
from knoll.values.log_options import LogOptions
from knoll.values.names import QUEUE_PROXY

if TYPE_CHECKING:
    import httpx


TEXT = "text/plain; charset=utf-8"


class Logs:
    """The subresource `log`."""

    def __init__(
        self,
        store: Store,
        redis: RedisClient | None,
        autoscaler_url: str,
        keyring: Keyring = PLAIN,
        machines: OtherMachines | None = None,
    ) -> None:
        """Args: machines: reach the logs of instances on other machines; None on a single machine."""
        self._machines = machines or OtherMachines(None, "", None)
        self._store = store
        self._redis = redis
        self._autoscaler_url = autoscaler_url
        self._keyring = keyring
        self.closing = asyncio.Event()

    @cached_property
    def _client(self) -> "httpx.AsyncClient":
        # Created when the first log is read: with the system's certificates it takes 5 MB.
        import httpx

        return httpx.AsyncClient(base_url=self._autoscaler_url, timeout=httpx.Timeout(10.0, read=None))

    async def close(self) -> None:
        self.closing.set()
        if "_client" in self.__dict__:
            await self._client.aclose()
        await self._machines.close()

    # The autoscaler serves GET /namespaces/NS/pods/NAME/log in plain text and accepts the API's query parameters:
    # container, follow, tailLines, sinceSeconds, timestamps, previous, limitBytes.

    async def log(self, request: Request, target: ResourcePath) -> StreamingResponse:
        """Raises: NotFoundError: no such object. RuntimeUnavailableError: the autoscaler does not respond."""
        place = target.place
        if place.kind.id == POD.id:
            body = await pod_or_build(self._store, place.namespace, place.name)
        else:
            body = await self._store.get(place.kind.id, place.namespace, place.name)
        if body.get("kind") == BUILD_KIND.kind:
            return StreamingResponse(self._build_log(request, body), media_type=TEXT)
        options = log_options.parse(request.query_params, time.time())
        if options.container == QUEUE_PROXY:
            return StreamingResponse(self._request_log(options, place.namespace, place.name), media_type=TEXT)
        return await self._instance_log(request, body)

    async def _request_log(self, options: LogOptions, namespace: str, name: str) -> AsyncIterator[bytes]:
        async def is_over() -> bool:
            try:
                await self._store.get(POD.id, namespace, name)
            except NotFoundError:
                return True
            return self.closing.is_set()

        if self._redis is not None:
            lines = request_log.read(self._redis, f"{namespace}/{name}", options, is_over)
            async with aclosing(lines):
                async for line in lines:
                    yield line

    async def _build_log(self, request: Request, body: Json) -> AsyncIterator[bytes]:
        if self._redis is None:
            return
        follow, tail = request.query_params.get("follow", "false") == "true", request.query_params.get("tailLines", "")
        newest = int(tail) if tail.isdigit() else None
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        async for line in build_log.read(self._redis, namespace, name, follow=follow, newest=newest):
            if line is not None:
                yield line.encode() + b"\n"
            elif self.closing.is_set() or await self._finished(namespace, name):
                return

    async def _finished(self, namespace: str, name: str) -> bool:
        """Whether the Build is finished; its log has no end if the worker died."""
        body = await self._store.get(BUILD_KIND.id, namespace, name)
        return (body.get("status") or {}).get("phase") in ("Succeeded", "Failed")

    async def _instance_log(self, request: Request, body: Json) -> StreamingResponse:
        metadata = body["metadata"]
        path = f"/namespaces/{metadata['namespace']}/pods/{metadata['name']}/log"
        import httpx

        headers = {}
        if self._redis is not None:
            key = await token_key.shared_key(self._redis, self._keyring)
            headers["Authorization"] = f"Bearer {process_tokens.mint(key, time.time())}"
        remote = await self._machines.of((body.get("spec") or {}).get("nodeName", ""))
        client, url = (remote.client, f"{remote.url}{path}") if remote else (self._client, path)
        extensions = {"sni_hostname": remote.name} if remote else {}
        try:
            answer = await client.send(
                client.build_request(
                    "GET", url, params=dict(request.query_params), headers=headers, extensions=extensions
                ),
                stream=True,
            )
        except httpx.HTTPError as error:
            raise RuntimeUnavailableError(f"the logs of instances cannot be read at the moment: {error}") from None
        if answer.status_code != 200:
            text = (await answer.aread()).decode(errors="replace")[:1000]
            await answer.aclose()
            if answer.status_code < 500:
                raise BadRequestError(text)
            raise RuntimeUnavailableError(text or f"the autoscaler responded with status {answer.status_code}")

        async def lines() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.aiter_raw():
                    yield chunk
            except httpx.HTTPError as error:
                yield f"\nthe log was interrupted: {error or type(error).__name__}\n".encode()
            finally:
                await answer.aclose()

        return StreamingResponse(lines(), media_type=TEXT)
