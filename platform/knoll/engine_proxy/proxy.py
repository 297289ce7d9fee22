"""A filter in front of the container engine's socket: `python -m knoll.engine_proxy`.

The autoscaler and the builder each get their own socket, which forwards only the calls in `rules`, so that they run
without root and without the engine's socket. Requests and responses are streamed. A call whose response affects later
permissions (the id of a created object) gets its own connection to the engine, so that no bytes written by a client or
a container can be mistaken for that response.
"""

import asyncio
import contextlib
import json
import re
import signal
import socket
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httptools
import structlog
import uvloop

from knoll.engine_proxy import rules
from knoll.engine_proxy.policy import (
    AUTOSCALER,
    BUILDER,
    CAPABILITIES,
    MissingError,
    PathTarget,
    ProxyPolicy,
    RefusedError,
)
from knoll.engine_proxy.rules import AllowedCall
from knoll.process import logs
from knoll.process.settings import EngineProxySettings

log = structlog.get_logger()

HEAD_BYTES = 64 * 1024
BODY_BYTES = 4 * 1024**2
"""Maximum size of a checked body; Secrets and ConfigMaps reach containers as files, not in such a body."""
PIECE = 256 * 1024
KNOWN = 50_000
"""Maximum number of cached ids that belong to the platform."""
CHECK_SECONDS = 30.0
_LINE = re.compile(rb"(?P<method>[A-Z]+) (?P<target>/[!-~]*) HTTP/1\.1")
_FIELD = re.compile(rb"(?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(?P<value>[\t -~\x80-\xff]*?)[ \t]*")
_PASSED = frozenset({
    "accept", "connection", "content-type", "user-agent", "x-registry-auth", "x-registry-config",
})  # fmt: skip
"""Header fields that are forwarded; the length is set by the proxy."""


@dataclass(frozen=True, slots=True)
class Request:
    """Request line and header fields of a request."""

    method: str
    target: str
    fields: Mapping[str, str]
    """By lower-case name; no name occurs twice."""
    length: int | None
    """Of the body in bytes; None if it is chunked."""

    def head(self, length: int | None) -> bytes:
        """Return the request line and header fields to send to the engine."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: engine"]
        lines += [f"{name}: {value}" for name, value in self.fields.items() if name in _PASSED]
        if length is None:
            lines.append("Transfer-Encoding: chunked")
        elif length or self.method in ("POST", "PUT"):
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def parse(head: bytes) -> Request:
    """Parse the request line and header fields strictly. Raises: RefusedError."""
    first, *lines = head[:-4].split(b"\r\n")
    match = _LINE.fullmatch(first)
    if match is None:
        raise RefusedError("not an HTTP/1.1 request")
    fields: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise RefusedError("invalid header field")
        name = field["name"].decode().lower()
        if name in fields:
            raise RefusedError(f"repeated header field {name}")
        fields[name] = field["value"].decode("latin-1")
    coding, length = fields.get("transfer-encoding"), fields.get("content-length")
    if coding is not None and (coding.lower() != "chunked" or length is not None):
        raise RefusedError("Transfer-Encoding must be chunked, without Content-Length")
    if length is not None and not re.fullmatch(r"\d{1,15}", length):
        raise RefusedError("Content-Length is not a number")
    if "form" in fields.get("content-type", "").lower():
        raise RefusedError("form bodies are not allowed: the engine would read query parameters from them")
    size = None if coding else int(length or 0)
    return Request(match["method"].decode(), match["target"].decode(), fields, size)


class Gate:
    """The rules of one role, and a cache of ids that belong to the platform."""

    def __init__(self, policy: ProxyPolicy, engine: Path) -> None:
        """Args: engine: the engine's socket."""
        self.policy, self._engine = policy, engine
        self._own_ids: OrderedDict[str, None] = OrderedDict()
        self._idle: list[_Backend] = []

    async def allow(self, asked: AllowedCall) -> None:
        """Check the targets of a call. Raises: RefusedError: one does not belong to the platform."""
        if not await self._is_ours(asked.call.target, asked.name):
            raise RefusedError(f"{asked.name[:100]} is not {asked.call.target.value}")
        for name in asked.containers:
            if not await self._is_ours(PathTarget.CONTAINER, name):
                raise RefusedError(f"{name[:100]} is not {PathTarget.CONTAINER.value}")

    async def ask(self, data: bytes) -> tuple[int, bytes, bytes]:
        """Make one call on a separate connection; returns status, body, and the whole response as received."""
        backend = self._idle.pop() if self._idle else await _Backend.open(self._engine)
        try:
            answer = await backend.exchange(data)
        except (OSError, EOFError):
            # The engine closes connections that are idle for long; it has not received this call then.
            backend.close()
            backend = await _Backend.open(self._engine)
            answer = await backend.exchange(data)
        if backend.reusable and len(self._idle) < 16:
            self._idle.append(backend)
        else:
            backend.close()
        return answer

    def learn(self, body: bytes) -> None:
        """Remember the id in the engine's response as the platform's."""
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            created = json.loads(body)
            self._remember(str(created.get("Id") or created["ID"]))  # services have `ID`

    def connect(self) -> "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]":
        return asyncio.ensure_future(asyncio.open_unix_connection(str(self._engine), limit=PIECE))

    async def _is_ours(self, target: PathTarget, name: str) -> bool:
        if target is PathTarget.NONE or name in self._own_ids:
            return True
        if target is PathTarget.VOLUME:
            return name.startswith(f"{self.policy.platform}.")
        if target is PathTarget.NETWORK and name == self.policy.network:
            return True
        paths = {
            PathTarget.CONTAINER: "/containers/{}/json",
            PathTarget.EXEC: "/exec/{}/json",
            PathTarget.NETWORK: "/networks/{}",
            PathTarget.SERVICE: "/services/{}",
        }
        path = paths[target].format(quote(name, safe=""))
        async with asyncio.timeout(CHECK_SECONDS):
            status, body, _ = await self.ask(f"GET {path} HTTP/1.1\r\nHost: engine\r\n\r\n".encode())
        if status == 404:
            raise MissingError(f"no such {target.name.lower()}: {name[:100]}")
        description: Any = json.loads(body) if status == 200 else {}
        if target is PathTarget.EXEC:
            container = str(description.get("ContainerID") or "")
            ours = bool(container) and await self._is_ours(PathTarget.CONTAINER, container)
        else:
            ours = status == 200 and rules.is_ours(self.policy, target, description)
        if ours and rules.is_id(name):
            self._remember(name)
        return ours

    def _remember(self, name: str) -> None:
        self._own_ids[name] = None
        while len(self._own_ids) > KNOWN:
            self._own_ids.popitem(last=False)


class _Backend:
    """A connection to the engine for calls whose whole response is read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.reusable = False

    @classmethod
    async def open(cls, engine: Path) -> "_Backend":
        return cls(*await asyncio.open_unix_connection(str(engine)))

    def close(self) -> None:
        self._writer.close()

    async def exchange(self, data: bytes) -> tuple[int, bytes, bytes]:
        self._writer.write(data)
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        whole = b""
        while not answer.done:
            piece = await self._reader.read(PIECE)
            if not piece:
                raise EOFError("the engine closed the connection")
            whole += piece
            parser.feed_data(piece)
        self.reusable = parser.should_keep_alive()
        return parser.get_status_code(), answer.body, whole


class _Answer:
    def __init__(self) -> None:
        self.body, self.done = b"", False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.done = True


class ProxyConnection:
    """One client's connection. Its requests are checked one after the other."""

    def __init__(self, gate: Gate, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._gate, self._reader, self._writer = gate, reader, writer
        self._engine: asyncio.StreamWriter | None = None
        self._answers: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Forward requests until one of the two sides closes."""
        try:
            while True:
                try:
                    head = await self._reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError:
                    return None
                except asyncio.LimitOverrunError:
                    return await self._refuse(RefusedError("the request headers are too long"))
                try:
                    if not await self._carry(parse(head)):
                        return None
                except RefusedError as error:
                    # The rest of the request is not read, so the connection has to be closed.
                    return await self._refuse(error)
        except (OSError, EOFError, TimeoutError) as error:
            log.debug("connection broken", role=self._gate.policy.role, error=str(error))
        finally:
            self._close()

    async def _carry(self, request: Request) -> bool:
        """Forward one request; False when the connection is over. Raises: RefusedError."""
        policy = self._gate.policy
        asked = rules.judge(policy, request.method, request.target)
        call = asked.call
        if call.body is None and not call.contents:
            if not call.has_body and request.length != 0:
                raise RefusedError(f"{request.method} {request.target.partition('?')[0][:100]} must not have a body")
            await self._gate.allow(asked)
            engine = await self._open()
            engine.write(request.head(request.length))
            await self._pass_body(request, engine)
            return True
        body, joined = rules.rewritten(policy, call, await self._whole_body(request))
        await self._gate.allow(AllowedCall(call, asked.name, joined))
        data = request.head(len(body)) + body
        if call.makes is PathTarget.NONE:
            (await self._open()).write(data)
            return True
        status, answer_head, answer = await self._gate.ask(data)
        if status == 201:
            self._gate.learn(answer_head)
        self._writer.write(answer)
        await self._writer.drain()
        return True

    async def _open(self) -> asyncio.StreamWriter:
        if self._engine is None:
            reader, self._engine = await self._gate.connect()
            self._answers = asyncio.create_task(self._pump(reader, self._writer))
        return self._engine

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Copy bytes as they arrive; closes the sink at the end of the source."""
        with contextlib.suppress(OSError):
            while data := await source.read(PIECE):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def _pass_body(self, request: Request, engine: asyncio.StreamWriter) -> None:
        if request.length is None:
            while size := await self._chunk(engine):
                await self._pass(size + 2, engine)
            await self._pass(2, engine)
        else:
            await self._pass(request.length, engine)

    async def _chunk(self, engine: asyncio.StreamWriter) -> int:
        """Forward the first line of a chunk; returns the chunk's size."""
        line = await self._reader.readuntil(b"\r\n")
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}\r\n", line):
            raise RefusedError("invalid chunk size")
        engine.write(line)
        return int(line, 16)

    async def _pass(self, size: int, engine: asyncio.StreamWriter) -> None:
        while size:
            data = await self._reader.read(min(size, PIECE))
            if not data:
                raise EOFError("the client closed the connection")
            engine.write(data)
            await engine.drain()
            size -= len(data)

    async def _whole_body(self, request: Request) -> bytes:
        if request.length is not None:
            if request.length > BODY_BYTES:
                raise RefusedError(f"the body is larger than {BODY_BYTES} bytes")
            return await self._reader.readexactly(request.length)
        body = b""
        while True:
            line = await self._reader.readuntil(b"\r\n")
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}\r\n", line) or len(body) + int(line, 16) > BODY_BYTES:
                raise RefusedError(f"invalid chunk size, or the body is larger than {BODY_BYTES} bytes")
            body += (await self._reader.readexactly(int(line, 16) + 2))[:-2]
            if int(line, 16) == 0:
                return body

    async def _refuse(self, why: RefusedError) -> None:
        if not isinstance(why, MissingError):
            log.warning("call refused", role=self._gate.policy.role, why=str(why))
        body = json.dumps({"message": f"engine proxy: {why}"}).encode()
        head = f"HTTP/1.1 {why.code} {why.reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def _close(self) -> None:
        if self._answers is not None:
            self._answers.cancel()
        for writer in (self._engine, self._writer):
            if writer is not None:
                writer.close()


async def serve(gate: Gate, path: Path) -> asyncio.Server:
    """Listen for one role on a socket that only the container or the user of that role can reach."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # When the process ends, the loop cancels this task and would log that as an error.
        with contextlib.suppress(asyncio.CancelledError):
            await ProxyConnection(gate, reader, writer).run()

    return await asyncio.start_unix_server(connected, sock=_listening(path), limit=HEAD_BYTES)


def _listening(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    path.chmod(0o666)  # access is controlled by the permissions of the folder
    return listening


async def run(settings: EngineProxySettings) -> None:
    """Serve both roles until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    capabilities = CAPABILITIES | set(settings.engine_capabilities.upper().replace(" ", "").split(",")) - {""}
    for role in (AUTOSCALER, BUILDER):
        policy = ProxyPolicy(
            role, settings.platform, settings.instance_network, frozenset(capabilities), swarm=bool(settings.node)
        )
        path = settings.engine_sockets_dir / role / "docker.sock"
        await serve(Gate(policy, settings.docker_socket), path)
        log.info("engine proxy started", role=role, socket=str(path))
    await stop.wait()


def main() -> None:
    """Entry point of `python -m knoll.engine_proxy`."""
    settings = EngineProxySettings.or_exit()
    logs.set_up(settings.log_level, settings.log_format, "engine-proxy")
    uvloop.run(run(settings))
