"""Docker Engine's REST API over its unix socket, kept alive. Knows HTTP and errors, nothing of instances.

aiohttp and not httpx: measured on one core, a call costs 0.1 ms of CPU instead of 0.65, and a cold start is calls.
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
"""What is spoken at most, and what is needed at least (Docker 20.10)."""
CALL_SECONDS = 120.0
"""An engine that is busy with dozens of starts answers late; one that takes this long is gone."""
CONNECT_SECONDS = 5.0

Query = Mapping[str, str | int | Sequence[str]]
"""A sequence becomes a parameter that is given several times."""


class EngineError(KnollError):
    """The engine refused a call; drivers turn it into the error that fits what they wanted."""

    code, reason = 500, "EngineError"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of the engine's answer."""


class Engine:
    """One connection pool to one engine.

    Every method raises EngineError when the engine refuses and RuntimeUnavailableError when it is not there, does not
    answer in time or says that it broke (5xx on reads).
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None
        self._version: str | None = None

    @property
    def api(self) -> tuple[int, int]:
        """Version of the API that is spoken; (0, 0) before `open`."""
        return _parsed(self._version) if self._version else (0, 0)

    async def open(self) -> None:
        """Connect and agree on an API version; when it raises, `agree` may be tried again until `close`."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self._socket), limit=0, keepalive_timeout=300),
            base_url="http://engine",
            timeout=aiohttp.ClientTimeout(total=CALL_SECONDS, connect=CONNECT_SECONDS),
        )
        await self.agree()

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def get(self, path: str, query: Query | None = None) -> Any:
        return await self.call("GET", path, query=query)

    async def post(
        self, path: str, body: object = None, query: Query | None = None, seconds: float | None = None
    ) -> Any:
        return await self.call("POST", path, body=body, query=query, seconds=seconds)

    async def delete(self, path: str, query: Query | None = None) -> Any:
        return await self.call("DELETE", path, query=query)

    async def create(self, body: object, name: str = "") -> str:
        """Make a container; returns its id. One whose making was cancelled is removed before the cancellation goes on:
        the engine goes on with what it was asked, and nobody would know the id."""
        query = {"name": name} if name else {}
        making = asyncio.ensure_future(self.post("/containers/create", body, query))
        try:
            return str((await asyncio.shield(making))["Id"])
        except asyncio.CancelledError:
            with contextlib.suppress(KnollError):
                await self.remove((await making)["Id"])
            raise

    async def remove(self, container: str) -> None:
        """Remove a container, running or not, with its anonymous volumes; one that is gone already is fine."""
        try:
            await self.delete(f"/containers/{container}", {"force": 1, "v": 1})
        except EngineError as error:
            if error.status not in (404, 409):  # 409: its removal is under way
                raise RuntimeUnavailableError(f"the engine cannot remove container {container}: {error}") from error

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Query | None = None,
        seconds: float | None = None,
    ) -> Any:
        """One call; returns the JSON of the answer, None when it is empty.

        Args:
            method: of HTTP.
            path: with its leading slash, without the version.
            body: sent as JSON, or as it is when bytes.
            query: parameters.
            seconds: bound of the whole call, > 0; None is `CALL_SECONDS`.
        """
        async with self.stream(method, path, body=body, query=query, seconds=seconds or CALL_SECONDS) as answer:
            with self._broken():
                content = await answer.read()
        return json.loads(content) if content.strip() else None

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Query | None = None,
        seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One call whose answer is read by the caller; `seconds` None means that it may go on for ever."""
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
            answer = await self._session.request(
                method, url, params=parameters, headers=headers, timeout=timeout, **data
            )
        try:
            if answer.status >= 400:
                with self._broken():
                    refusal = _refusal(answer.status, await answer.text())
                if answer.status >= 500 and method == "GET":
                    raise RuntimeUnavailableError(f"the container engine at {self._socket} is broken: {refusal}")
                raise refusal
            yield answer
        finally:
            answer.release()

    async def chunks(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The bytes of an answer as they come."""
        with self._broken():
            async for data in answer.content.iter_any():
                yield data

    async def lines(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The lines of an answer as they come."""
        with self._broken():
            async for line in answer.content:
                yield line

    def _broken(self) -> "_Broken":
        return _Broken(self._socket)

    async def agree(self) -> None:
        """Agree on an API version, also with an engine that came back as another."""
        self._version = None
        told = await self.get("/version")
        newest = _parsed(told["ApiVersion"])
        if newest < OLDEST_API:
            raise RuntimeUnavailableError(
                f"the container engine at {self._socket} speaks API {told['ApiVersion']}; "
                f"{'.'.join(map(str, OLDEST_API))} or newer is needed: update Docker to 20.10 or newer"
            )
        self._version = ".".join(map(str, min(newest, NEWEST_API)))


class _Broken:
    """Turns the HTTP client's errors into ours."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, TimeoutError | asyncio.TimeoutError):
            raise RuntimeUnavailableError(f"the container engine at {self._socket} does not answer") from error
        if isinstance(error, aiohttp.ClientError | OSError):
            raise RuntimeUnavailableError(
                f"the container engine at {self._socket} cannot be reached ({error or type(error).__name__}): "
                "is Docker running, and may this user use its socket?"
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
