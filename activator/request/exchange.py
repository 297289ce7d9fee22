"""One request on its way: admission, its instance, its answer, its time-outs. Knows no sockets.

A client's side (`server.Client`, `h2_server.Stream`) subclasses `Exchange` and writes what it is told to write; an
instance's side (`upstream.Origin`, `h2_upstream`) calls `answer` and `more`. They are one object on the client's side
because each call between two objects costs a hundredth of a request.
"""

from abc import ABC, abstractmethod

import structlog

from activator.backend.revision import Revision
from activator.interfaces import Backend, UpstreamConnection
from activator.request import local_responses, timing
from activator.request.states import IDLE, QUEUED, SENT, STREAMING, TUNNEL, State
from activator.routing.proxy_state import ProxyState
from activator.routing.routing_table import normal
from activator.wire.forwarding import Peer
from activator.wire.http1_parser import RequestHead, ResponseHead, split
from activator.wire.websocket import GOING_AWAY, Frames
from knoll.values.errors import QueueFullError

log = structlog.get_logger()

RETRY_CONNECT_SECONDS = 10.0
"""How long an instance of the table may refuse connections before its requests are answered with 502."""
MAX_PENDING = 16_384
"""Bytes of a body that are read ahead while a request waits."""
MAX_REPLAY = 65_536
"""Bytes of a body that are kept to be sent again."""

FOREVER = float("inf")


class Exchange(ABC):
    """State of one request; reused for the next one of the same HTTP/1.1 connection."""

    __slots__ = (
        "_cold", "_extra", "_first_refusal", "_retried", "_waited", "app", "arrived", "began", "body_done", "deadline",
        "frames", "head", "instance", "local", "number", "origin", "outgoing", "pending", "pending_size", "revision",
        "size", "started", "state", "status", "touched", "trailers",
    )  # fmt: skip

    head: RequestHead
    outgoing: bytes
    """The head as the instance gets it; set by the client's side before `begin`."""
    revision: Revision

    def __init__(self, app: ProxyState) -> None:
        self.app = app
        self.state: State = IDLE
        self.number = 0
        """Raised with each end, so that what was meant for an earlier request of this connection is recognised."""
        self.origin: UpstreamConnection | None = None
        self.instance: Backend | None = None
        self.pending: list[bytes] = []
        """Of the body: what was not sent yet, or what is kept to be sent again."""
        self.pending_size = 0
        self.body_done = True
        self.trailers = b""
        self.deadline = 0.0
        self.local = False
        """It came to the gateway for cluster-local hosts."""
        self.began = 0.0
        """When it arrived, on the loop's clock; `arrived` is the same in epoch seconds, for requests that waited."""
        self.arrived = 0.0
        self.started = 0.0
        """When it got its slot."""
        self.touched = 0.0
        """When bytes came last, where there is an idle time-out."""
        self.status = 0
        self.size = 0
        """Bytes of the answer's body until now."""
        self.frames: Frames | None = None
        """Of a WebSocket, what the client gets."""
        self._waited = False
        self._cold = False
        self._extra = b""
        self._retried = False
        self._first_refusal = 0.0

    @property
    @abstractmethod
    def peer(self) -> Peer:
        """The client's address, and how it came here."""

    @property
    def protocol(self) -> str:
        """As Go says it: `HTTP/1.1`."""
        return f"HTTP/1.{self.head.version}"

    # --- the client's side writes

    @abstractmethod
    def put(self, head: ResponseHead, data: bytes, done: bool, trailers: bytes) -> None:
        """Write the head and the first bytes of an answer; `done` when that is all of it."""

    @abstractmethod
    def put_more(self, data: bytes, done: bool, trailers: bytes) -> None:
        """Write more of the answer's body."""

    @abstractmethod
    def put_interim(self, head: ResponseHead) -> None:
        """Write a 1xx."""

    @abstractmethod
    def put_tunnel(self, data: bytes) -> None:
        """Write bytes of the protocol that was changed to."""

    @abstractmethod
    def put_cut(self) -> None:
        """End the answer early, as a whole one where its framing can say so."""

    @abstractmethod
    def put_reset(self) -> None:
        """Break the answer off so that the client sees it is not whole."""

    @abstractmethod
    def put_abort(self) -> None:
        """End it whatever its state: a bug showed."""

    @abstractmethod
    def pause_body(self) -> None:
        """Read no more from the client."""

    @abstractmethod
    def resume_body(self) -> None:
        """Read on."""

    @abstractmethod
    def ended(self) -> None:
        """The exchange is over."""

    # --- the client's side calls

    def begin(self) -> None:
        """Route and admit. `head`, `outgoing`, `body_done` and `pending` are set."""
        app = self.app
        now = self.began = app.now = app.time()
        self.status = self.size = 0
        route = app.route(self.head, self.local)
        if route is None:
            self.state = SENT
            self._reply(*local_responses.unknown_host(self.head.authority, app.wall_clock()))
            return
        if route.redirect and app.proxies.scheme(self.peer, self.head) == b"http":
            self.state = SENT
            host = normal(self.head.authority)
            self._reply(*local_responses.over_https(host, self.head.target, route.redirect, app.wall_clock()))
            return
        if route.cookie:
            cookies = b";".join(value for name, value in split(self.head.block) if name.lower() == b"cookie")
            revision, self._extra = route.pick_for(cookies)
        else:
            revision = route.pick()
        self.revision = revision
        if not revision.awake:
            app.wake(revision)
        revision.stats.enter(now)
        app.live[self] = None
        try:
            instance = revision.breaker.enter(self)
        except QueueFullError as error:
            self._fail(app.overload_status, str(error))
            return
        if instance is None:
            self._wait(now)
            return
        self.state = SENT
        self.instance = instance
        self.started = now
        self.deadline = now + revision.answer_by
        instance.carry(self)

    def _wait(self, now: float) -> None:
        self.state = QUEUED
        if self.revision.gone:
            self.forsaken(self.revision.gone)
            return
        self._waited = True
        self._cold = self.revision.cold
        self.arrived = self.app.wall_clock()
        timeout = self.revision.plane.timeout
        self.deadline = now + timeout if timeout else FOREVER
        self.revision.waits()

    def body(self, data: bytes, done: bool, trailers: bytes = b"") -> None:
        """More of the request's body came."""
        self.body_done = done
        self.trailers = trailers
        if self.origin is not None:
            self.origin.send(data, done, trailers)
            return
        if data:
            self.pending.append(data)
            self.pending_size += len(data)
        if self.pending_size > MAX_PENDING and not done:
            self.pause_body()

    def flush(self, origin: UpstreamConnection) -> None:
        """Send what there is of the body to the connection that was found."""
        done = self.body_done
        data = b"".join(self.pending)
        if done and len(data) <= MAX_REPLAY:
            origin.send(data, True, self.trailers)
            return
        self.pending = []
        if data or done:
            origin.send(data, done, self.trailers)
        if self.pending_size > MAX_PENDING and not done:
            self.resume_body()
        self.pending_size = MAX_REPLAY + 1

    def forsaken(self, reason: str) -> None:
        """What it waits for was deleted, so no instance will come."""
        self.reject(404, reason)

    def gone(self) -> None:
        """The client has gone: leave the queue or the instance."""
        if self.state is IDLE:
            return
        if self.state is QUEUED:
            self.revision.breaker.abandon(self)
        self._finish(499 if self.status == 0 else self.status)

    def reject(self, status: int, text: str) -> None:
        """What came of the request's body cannot be read: answer, if nothing was answered yet."""
        if self.state is QUEUED:
            self.revision.breaker.abandon(self)
        self._fail(status, text)

    # --- admission calls

    def admitted(self, instance: Backend) -> None:
        """A slot was counted in for a request that waited."""
        app = self.app
        now = app.now = app.time()
        self.state = SENT
        self.instance = instance
        self.started = now
        self.deadline = now + self.revision.answer_by
        instance.carry(self)

    def unreachable(self, error: Exception) -> None:
        """The instance refused a connection: nothing was sent, so another may serve this."""
        instance, revision, now = self.instance, self.revision, self.app.time()
        assert instance is not None
        self.instance = None
        self._first_refusal = self._first_refusal or now
        if now - self._first_refusal > RETRY_CONNECT_SECONDS:
            self._fail(502, f"the instance cannot be reached: {error or 'no answer'}")
            revision.leave(instance)
            return
        self.state = QUEUED
        self._waited = True
        if not self.arrived:
            self.arrived = self.app.wall_clock()
        timeout = revision.plane.timeout
        self.deadline = self.began + timeout if timeout else FOREVER
        revision.breaker.put_first(self)
        revision.suspend(instance)
        revision.leave(instance)
        if self.state is QUEUED and revision.gone:
            self.forsaken(revision.gone)
        elif self.state is QUEUED:
            revision.waits()

    # --- the instance's side calls

    def answer(self, head: ResponseHead, data: bytes, done: bool, trailers: bytes = b"") -> None:
        """The head of the answer came; `done` when that is all of it, and the connection is free again."""
        self.status = head.status
        self.size = len(data)
        if self._cold or self._extra:
            head = self._with_more(head)
        if done:
            self.put(head, data, True, trailers)
            self._finish(head.status)
            return
        self.state = STREAMING
        if self.revision.plane.idle_timeout:
            self.touched = self.app.time()
        self._put_off()
        self.put(head, data, False, trailers)

    def more(self, data: bytes, done: bool, trailers: bytes = b"") -> None:
        """More of the answer's body came."""
        self.size += len(data)
        if done:
            self.put_more(data, True, trailers)
            self._finish(self.status)
        else:
            if self.revision.plane.idle_timeout:
                self.touched = self.app.time()
            self.put_more(data, False, trailers)

    def interim(self, head: ResponseHead) -> None:
        """A 1xx came."""
        self.put_interim(head)

    def switched(self, head: ResponseHead, data: bytes) -> None:
        """101 came: bytes pass in both directions from now on. Time-outs stay as they are, as in Knative."""
        self.state = TUNNEL
        self.status = 101
        if self.instance is not None:
            self.instance.tunnels += 1
        if head.upgrade.lower() == b"websocket":
            self.frames = Frames()
        self.put_interim(head)
        if data:
            self.tunnelled(data)

    def tunnelled(self, data: bytes) -> None:
        """Bytes came through the tunnel from the instance."""
        if self.frames is not None:
            self.frames.feed(data)
        self.put_tunnel(data)

    def say_goodbye(self) -> None:
        """Tell a WebSocket's client that its server goes, unless it was told or is in the middle of a frame."""
        frames = self.frames
        if frames is not None and frames.between and not frames.closed:
            frames.closed = True
            self.put_tunnel(GOING_AWAY)

    def _cut_tunnel(self) -> None:
        """End it towards the client; in the instance's name where that is on its way out."""
        if self.instance is not None and self.instance.retired:
            self.say_goodbye()
        self.put_reset()
        self._finish(self.status)

    def tunnel_closed(self) -> None:
        """The instance closed the tunnel."""
        self.origin = None
        self._cut_tunnel()

    def broken(self, why: str, reused: bool, unsent: bool = False) -> None:
        """The instance's connection broke.

        Args:
            reused: it had carried another exchange before, and nothing of this answer came: most likely the instance
                closed it for being idle just as we wrote.
            unsent: it said itself that it did not look at this request.
        """
        self.origin = None
        instance = self.instance
        again = unsent or (reused and self.head.idempotent)
        if again and not self._retried and self.state is SENT and self._replayable() and instance is not None:
            self._retried = True
            instance.carry(self, fresh=True)
            return
        if self.state is SENT:
            self._fail(502, f"the instance broke off: {why}")
        else:
            self.put_reset()
            self._finish(self.status)

    def crashed(self, error: Exception) -> None:
        """A bug of ours showed while this was carried: end it, and nothing else. Called in an `except`."""
        log.exception("bug in a request", state=self.state.value, error=repr(error))
        try:
            if self.state in (QUEUED, SENT):
                self.reject(500, "internal error")
            elif self.state is not IDLE:
                self._drop_origin()
                self.put_reset()
                self._finish(self.status)
        except Exception as again:
            log.exception("bug while ending a request", error=repr(again))
            self.put_abort()

    def _replayable(self) -> bool:
        return self.body_done and self.pending_size <= MAX_REPLAY

    # --- the clock calls

    def check(self, now: float) -> None:
        """`deadline` has passed: end the exchange, unless bytes came meanwhile that put it off."""
        if self.state is QUEUED:
            self.revision.breaker.abandon(self)
            self._fail(503, local_responses.QUEUE_TIMEOUT)
        elif self.state is SENT:
            self._fail(504, local_responses.REQUEST_TIMEOUT)
        elif self.state is TUNNEL:
            self._drop_origin()
            self._cut_tunnel()
        else:
            self._put_off()
            if now < self.deadline:
                return
            # After the first byte the status stands.
            self._drop_origin()
            self.put_cut()
            self._finish(self.status)

    def _put_off(self) -> None:
        """The deadline of an answer that has begun."""
        plane = self.revision.plane
        whole = self.started + plane.timeout if plane.timeout else FOREVER
        self.deadline = min(whole, self.touched + plane.idle_timeout) if plane.idle_timeout else whole

    # --- ends

    def _with_more(self, head: ResponseHead) -> ResponseHead:
        """The head with the fields that we add: a cookie, the parts of a cold start."""
        lines, self._extra = self._extra, b""
        if self._cold:
            self.revision.stats.cold += 1
            times = self.instance.timing if self.instance is not None else None
            if times is not None:
                lines += timing.field(timing.parts(self.arrived, self.arrived + self.started - self.began, times))
        return head.with_fields(lines) if lines else head

    def _fail(self, status: int, text: str) -> None:
        """Answer in the place of the instance."""
        self._drop_origin()
        extra = b"Retry-After: 1\r\n" if status in (429, 503) else b""
        self._reply(*local_responses.reply(status, text, self.app.wall_clock(), extra))

    def _reply(self, head: ResponseHead, body: bytes) -> None:
        self.status = head.status
        if self.head.is_head:
            body = b""
        self.size = len(body)
        self.put(head, body, True, b"")
        self._finish(head.status)

    def _drop_origin(self) -> None:
        origin, self.origin = self.origin, None
        if origin is not None:
            origin.cancel()

    def _finish(self, status: int) -> None:
        """Give everything back."""
        app = self.app
        tunnel, self.state = self.state is TUNNEL, IDLE
        self.number += 1
        if self.origin is not None:
            self._drop_origin()
        if app.live.pop(self, self) is None:
            revision = self.revision
            now = app.now = app.time()
            revision.stats.leave(now, self.began, status)
            if self._waited and self.started > self.began:
                revision.stats.queued.add(self.started - self.began)
            if app.log_request is not None:
                app.log_request(self, status, now)
            instance = self.instance
            if instance is not None:
                self.instance = None
                if tunnel:
                    instance.tunnels -= 1
                    self.frames = None
                revision.leave(instance)
        if self.pending_size or self._waited or self._retried:
            self.pending, self.pending_size, self.trailers = [], 0, b""
            self._waited = self._cold = self._retried = False
            self._extra = b""
            self._first_refusal = self.arrived = 0.0
        self.ended()
