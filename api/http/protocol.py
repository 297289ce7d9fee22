"""HTTP/1.1 for the API: uvicorn's protocol with limits on the size and duration of heads and bodies.

uvicorn with httptools has neither: llhttp accepts a head of any size, and only connections that are idle after a
request are ever closed. The limits are those of kube-apiserver and nginx, where these have any.
"""

import asyncio
import re
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from api.http.connections import HEALTH, Connections
from api.http.headers import ALWAYS
from api.wire import status
from knoll.values.errors import (
    BadRequestError,
    HeadTooLargeError,
    KnollError,
    RequestTimeoutError,
    TooManyRequestsError,
)

MAX_HEAD_BYTES = 64 * 1024
"""Request line and header fields. nginx: 32 KiB (`large_client_header_buffers`); h11: 64 KiB; Go: 1 MiB."""
HEAD_SECONDS = 32.0
"""Time limit of a head. kube-apiserver: `ReadHeaderTimeout`, 32 s; nginx: 60 s."""
BODY_SECONDS = 60.0
"""Time limit of a body; for uploads, of a pause in it. kube-apiserver:
`--request-timeout`, 60 s; nginx: `client_body_timeout`, 60 s between two reads."""
SEND_SECONDS = 60.0
"""How long a client may read nothing of a waiting response before it is disconnected. nginx: `send_timeout`, 60 s."""
OVER_BOUND_SECONDS = 5.0
"""As HEAD_SECONDS, for a connection over the limit."""
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")
CONNECTION = "knoll.connection"
"""Key of the ApiProtocol in the scope of a request."""


class ApiProtocol(HttpToolsProtocol):
    """One connection.

    It has more attributes than usual because uvicorn creates one object per connection: an object for each of the two
    timers and the state of the request would cost memory and calls on every one of thousands of connections.
    """

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._connections = connections
        self._application = self.app
        self.peer_refusal: str | None = None
        """Why the client is not the administrator on a port without tokens; empty if it is, None before the check."""
        self._over_bound = False
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._error: KnollError | None = None
        """Why the request that is being received is refused."""
        self._refused = False
        self._has_sent = False
        """Whether the client sent anything since the last request."""
        self._in_head = False
        self._in_body = False
        self._head_size = self._raw_size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._over_bound = not self._connections.add(self, self.client[0] if self.client else "")
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        self._stop_timer()
        self._stop_stall()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection without waiting for the client to read what was sent."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if not self._in_head and not self._in_body and self._is_idle():
            self._begin_head()
        self._has_sent = True
        head_began_earlier = self._in_head
        super().data_received(data)
        if self._in_head and not self._refused:
            # A header field reaches `on_header` only when it is complete.
            self._raw_size += len(data) if head_began_earlier else 0
            if self._raw_size > MAX_HEAD_BYTES:
                self._refuse(_head_too_large())

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn when a request cannot be parsed or a callback of the parser raised."""
        self._refuse(self._error or BadRequestError(f"{msg} It must be HTTP/1.1 (RFC 9112)."))

    # Called by the parser.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CONNECTION] = self  # type: ignore[literal-required]
        if not self._in_head:
            self._begin_head()
        self._has_sent = True
        self._head_size = self._raw_size = 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body = False, True
        self._connections.works(self)
        path = self.url.partition(b"?")[0].decode("latin-1")
        error: KnollError | None = host_error(self.url, self.parser.get_http_version(), self.headers)
        if error is None and self._over_bound and path not in HEALTH:
            error = TooManyRequestsError(
                "too many open connections from this address: close some, or try again later "
                "(max-connections-per-address in the ConfigMap config-security)"
            )
        self.app = self._application if error is None else _answering(error)
        super().on_headers_complete()
        if self._over_bound:
            self.cycle.keep_alive = False
        self._start_timer(BODY_SECONDS)

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self.scope["path"].startswith("/uploads"):
            self._start_timer(BODY_SECONDS)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = self._has_sent = False
        self._stop_timer()

    # Called by the transport.

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_stall()

    def resume_writing(self) -> None:
        self._stop_stall()
        super().resume_writing()

    def _watch_stall(self) -> None:
        self._stop_stall()
        self._stall = self.loop.call_later(SEND_SECONDS, self._stalled, self.transport.get_write_buffer_size())

    def _stalled(self, left: int) -> None:
        """Args: left: bytes that were waiting for the client at the last check."""
        if self.transport.get_write_buffer_size() < left:
            self._watch_stall()
        else:
            self.transport.abort()

    def _stop_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    # Called by uvicorn.

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_idle():
            self._connections.waits(self)

    def _is_idle(self) -> bool:
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def _begin_head(self) -> None:
        self._in_head = True
        self._head_size = self._raw_size = 0
        self._start_timer(OVER_BOUND_SECONDS if self._over_bound else HEAD_SECONDS)

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD_BYTES:
            self._error = _head_too_large()
            raise self._error

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if self._in_body and self.flow.read_paused:
            # The application is not reading.
            self._start_timer(BODY_SECONDS)
        elif self._has_sent:
            part = "body" if self._in_body else "head"
            self._refuse(RequestTimeoutError(f"the {part} of the request did not arrive in time"))
        else:
            self.transport.close()

    def _refuse(self, error: KnollError) -> None:
        """Respond, unless another response has started, and close the connection."""
        self._refused = True
        self._stop_timer()
        if self.transport.is_closing():
            return
        answered = self.cycle is None or self.cycle.response_complete
        if not answered and self._in_body and not self.cycle.response_started and not self.pipeline:
            self.cycle.disconnected = answered = True
            self.cycle.message_event.set()
        if answered:
            body = orjson.dumps(status.failure(error))
            fields = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
                *((name.lower().encode(), value.encode()) for name, value in ALWAYS.items()),
                *self.server_state.default_headers,
            ]
            head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
            self.transport.write(STATUS_LINE[error.code] + head + b"\r\n" + body)
        self.transport.close()


def protocol(connections: Connections) -> Any:
    """Return the protocol factory that `uvicorn.Config` takes as `http`."""
    return partial(ApiProtocol, connections)


def host_error(url: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> BadRequestError | None:
    """Return what is wrong with the host of a request; None if nothing is.

    Source: RFC 9112, sections 3.2 and 3.2.2.
    """
    hosts = [value.strip() for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return BadRequestError(f"a request must have one Host header, this one has {len(hosts)}")
    host = hosts[0] if hosts else b""
    if not _HOST.fullmatch(host):
        return BadRequestError("the Host header is not a valid host")
    if url.startswith((b"/", b"*")):
        return None
    try:
        target = urlsplit(url.decode("latin-1"))
    except ValueError:
        return BadRequestError("the target of the request is not a valid URL")
    if target.netloc.lower() != host.decode("latin-1").lower():
        return BadRequestError("the host in the request target differs from the Host header")
    return None


def _head_too_large() -> HeadTooLargeError:
    return HeadTooLargeError(f"the request headers are larger than {MAX_HEAD_BYTES} bytes")


def _answering(error: KnollError) -> ASGIApp:
    """An ASGI application that refuses a request and closes its connection."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = status.respond(error)
        response.headers["Connection"] = "close"
        await response(scope, receive, send)

    return answer
