"""Docker Engine's REST API over its unix socket, with keep-alive. Knows HTTP and errors, not instances.

aiohttp and not httpx: measured on one core, a call takes 0.1 ms of CPU instead of 0.65, and a cold start is many calls.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from knoll.values.errors import KnollError, RuntimeUnavailableError

NEWEST_API, OLDEST_API = (1, 47), (1, 41)
"""The newest API version that is used, and the oldest that is supported (Docker 20.10)."""
CALL_SECONDS = 120.0
"""An engine that is busy with dozens of starts responds late; one that takes this long is gone."""
CONNECT_SECONDS = 5.0
NOT_MODIFIED = 304
"""A container that is to be started runs already, or one that is to be stopped does not run."""

EngineQuery = Mapping[str, str | int | Sequence[str]]
"""A sequence becomes a repeated parameter."""


class EngineError(KnollError):
    """The engine refused a call; drivers translate it into the error of their operation."""

    code, reason = 500, "EngineError"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of the engine's response."""


class Engine:
    """One connection pool to one engine.

    Every method raises EngineError when the engine refuses, and RuntimeUnavailableError when it cannot be reached, does
    not respond in time or fails (5xx on reads).
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None
        self._version: str | None = None

    @property
    def api(self) -> tuple[int, int]:
        """The API version in use; (0, 0) before `open`."""
        return _parsed(self._version) if self._version else (0, 0)

    async def open(self) -> None:
        """Connect and agree on an API version; when it raises, `negotiate` may be called again until `close`."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self._socket), limit=0, keepalive_timeout=300),
            base_url="http://engine",
            timeout=aiohttp.ClientTimeout(total=CALL_SECONDS, connect=CONNECT_SECONDS),
        )
        await self.negotiate()

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def get(self, path: str, query: EngineQuery | None = None) -> Any:
        return await self.call("GET", path, query=query)

    async def post(
        self, path: str, body: object = None, query: EngineQuery | None = None, seconds: float | None = None
    ) -> Any:
        return await self.call("POST", path, body=body, query=query, seconds=seconds)

    async def delete(self, path: str, query: EngineQuery | None = None) -> Any:
        return await self.call("DELETE", path, query=query)

    async def create(self, body: object, name: str = "") -> str:
        """Create a container; returns its id.

        When the call is cancelled, the container is removed before the cancellation continues: the engine finishes the
        call in any case, and its id would be lost.
        """
        query = {"name": name} if name else {}
        creating = asyncio.ensure_future(self.post("/containers/create", body, query))
        try:
            return str((await asyncio.shield(creating))["Id"])
        except asyncio.CancelledError:
            with contextlib.suppress(KnollError):
                await self.remove((await creating)["Id"])
            raise

    async def remove(self, container: str) -> None:
        """Remove a container, running or not, with its anonymous volumes, if it exists."""
        try:
            await self.delete(f"/containers/{container}", {"force": 1, "v": 1})
        except EngineError as error:
            if error.status not in (404, 409):  # 409: it is being removed already
                raise RuntimeUnavailableError(f"the engine cannot remove container {container}: {error}") from error

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: EngineQuery | None = None,
        seconds: float | None = None,
    ) -> Any:
        """Make a call; returns the JSON of the response, None when it is empty.

        Args:
            method: HTTP method.
            path: with leading slash, without the version.
            body: sent as JSON, bytes as they are.
            query: parameters.
            seconds: timeout of the whole call, > 0; None is `CALL_SECONDS`.
        """
        async with self.stream(method, path, body=body, query=query, seconds=seconds or CALL_SECONDS) as response:
            with self._broken():
                content = await response.read()
        return json.loads(content) if content.strip() else None

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: EngineQuery | None = None,
        seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a call whose response the caller reads; `seconds` None is without a timeout."""
        if self._session is None:
            raise RuntimeUnavailableError("the connection to the container engine is closed")
        data: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        headers = {**(headers or {}), **({"Content-Type": "application/x-tar"} if isinstance(body, bytes) else {})}
        timeout = aiohttp.ClientTimeout(total=seconds, connect=CONNECT_SECONDS)
        url = f"/v{self._version}{path}" if self._version else path
        parameters = [
            (key, str(value))
            for key, values in (query or {}).items()
            for value in ([values] if isinstance(values, str | int) else values)
        ]
        with self._broken():
            response = await self._session.request(
                method, url, params=parameters, headers=headers, timeout=timeout, **data
            )
        try:
            if response.status >= 400 or response.status == NOT_MODIFIED:
                with self._broken():
                    refusal = _refusal(response.status, await response.text())
                if response.status >= 500 and method == "GET":
                    raise RuntimeUnavailableError(f"the container engine at {self._socket} failed: {refusal}")
                raise refusal
            yield response
        finally:
            response.release()

    async def chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield the bytes of a response as they arrive."""
        with self._broken():
            async for data in response.content.iter_any():
                yield data

    async def lines(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield the lines of a response as they arrive."""
        with self._broken():
            async for line in response.content:
                yield line

    def _broken(self) -> "_Broken":
        return _Broken(self._socket)

    async def negotiate(self) -> None:
        """Agree on an API version, also with an engine that was replaced."""
        self._version = None
        version = await self.get("/version")
        newest = _parsed(version["ApiVersion"])
        if newest < OLDEST_API:
            raise RuntimeUnavailableError(
                f"the container engine at {self._socket} has API version {version['ApiVersion']}; "
                f"{'.'.join(map(str, OLDEST_API))} or newer is required: update Docker to 20.10 or newer"
            )
        self._version = ".".join(map(str, min(newest, NEWEST_API)))


class _Broken:
    """Translates the HTTP client's errors into ours."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, TimeoutError | asyncio.TimeoutError):
            raise RuntimeUnavailableError(f"the container engine at {self._socket} does not respond") from error
        if isinstance(error, aiohttp.ClientError | OSError):
            raise RuntimeUnavailableError(
                f"the container engine at {self._socket} cannot be reached ({error or type(error).__name__}): "
                "check that Docker is running and that this user may use its socket"
            ) from error


def _refusal(status: int, text: str) -> EngineError:
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text.strip() or f"status {status} without a message"
    return EngineError(status, message)


def _parsed(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
