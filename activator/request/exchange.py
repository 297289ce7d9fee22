"""One request: admission, its endpoint, its response, time-outs and retries. No sockets; clocks come from the proxy.

A client's connection (`frontend.http1_server.Http1Connection`, `frontend.http2_stream.Http2Stream`) subclasses
`Exchange` and implements `ClientSide`; the connection to an instance (`interfaces.UpstreamConnection`) calls
`response_head` and `response_body`. Client and exchange are one object because each call between two objects costs one
percent of the time of a request. States and transitions are specified in `states`.
"""

import structlog

from activator.backend.revision import RevisionBackend
from activator.interfaces import Backend, NotRunThereError, ProxiedRequest
from activator.request import local_responses, timing
from activator.request.states import IDLE, QUEUED, SENT, STREAMING, TUNNEL
from activator.request.tunnel import Tunnel
from activator.routing.proxy_state import ProxyState
from activator.routing.routing_table import normal
from activator.wire.http1_heads import RequestHead, ResponseHead
from activator.wire.http1_parser import split_fields
from knoll.values.errors import QueueFullError

log = structlog.get_logger()

RETRY_CONNECT_SECONDS = 10.0
"""How long a request is retried while instances refuse connections, before it gets a 502."""
UNREAD_SECONDS = 0.002
"""Delay before the second attempt at an instance that its node does not know: it may read of it a moment later."""

FOREVER = float("inf")


class Exchange(Tunnel):
    """State of one request; reused for the next one of the same HTTP/1.1 connection.

    More attributes than usual: all are read or written once for each request, and a second object would cost a look-up
    for each access.
    """

    __slots__ = (
        "_cold_start", "_first_refusal", "_resent", "_set_cookie", "_was_queued", "arrived_at", "arrived_epoch",
        "deadline", "generation", "head", "last_byte_at", "local", "outgoing", "proxy", "revision", "size", "started",
        "ticket",
    )  # fmt: skip

    head: RequestHead
    outgoing: bytes
    """The head as it is sent to the instance; set by the subclass before `begin`."""
    revision: RevisionBackend

    def __init__(self, proxy: ProxyState) -> None:
        super().__init__()
        self.proxy = proxy
        self.generation = 0
        """Incremented at each end, so that a late call for an earlier request of this connection is recognised."""
        self.deadline = 0.0
        self.local = False
        """It arrived at the gateway for cluster-local hosts."""
        self.arrived_at = 0.0
        """Arrival on the loop's clock; `arrived_epoch` is the same in epoch seconds, for requests that were queued."""
        self.arrived_epoch = 0.0
        self.started = 0.0
        """When it got its slot, on the loop's clock."""
        self.last_byte_at = 0.0
        """When the last bytes arrived, if there is an idle time-out."""
        self.size = 0
        """Bytes of the response's body so far."""
        self._was_queued = False
        self._cold_start = False
        self._set_cookie = b""
        self._resent = False
        self._first_refusal = 0.0
        self.ticket = (-1, 0)

    @property
    def protocol(self) -> str:
        """HTTP version of the client's connection, as in Go: `HTTP/1.1`."""
        return f"HTTP/1.{self.head.version}"

    # --- called by the client's connection

    def begin(self) -> None:
        """Route and admit the request. `head`, `outgoing`, `body_done` and `pending` must be set."""
        proxy = self.proxy
        now = self.arrived_at = proxy.now = proxy.time()
        self.status = self.size = 0
        routing = proxy.routing
        route = (routing.local if self.local else routing.public).get(self.head.authority)
        if route is None or proxy.tag_header:
            route = proxy.route(self.head, self.local)
        if route is None:
            self.state = SENT
            self._reply(*local_responses.unknown_host(self.head.authority, proxy.wall_clock()))
            return
        if route.redirect and proxy.proxies.scheme(self.peer, self.head) == b"http":
            self.state = SENT
            host = normal(self.head.authority)
            self._reply(*local_responses.https_redirect(host, self.head.target, route.redirect, proxy.wall_clock()))
            return
        if route.cookie:
            cookies = b";".join(value for name, value in split_fields(self.head.block) if name.lower() == b"cookie")
            revision, self._set_cookie = route.pick_for(cookies)
        else:
            revision = route.only or route.pick()
        self.revision = revision
        if not revision.tracked:
            proxy.track(revision)
        stats = revision.stats
        stats.area -= now - stats.since  # as `enter`
        stats.active += 1
        stats.arrived += 1
        requests = proxy.requests
        if not requests:
            proxy.first_request()
        requests[self] = None
        endpoint = revision.breaker.sole
        if endpoint is not None:
            endpoint.in_flight += 1
        else:
            try:
                endpoint = revision.breaker.enter(self)
            except QueueFullError as error:
                self._fail(proxy.overload_status, str(error))
                return
            if endpoint is None:
                self._wait(now)
                return
        self.state = SENT
        self.endpoint = endpoint
        self.started = now
        self.deadline = now + revision.response_timeout
        idle = endpoint.idle
        if idle and not endpoint.h2c:
            idle.pop().start(self)  # as `forward`
        else:
            endpoint.forward(self)

    def _wait(self, now: float) -> None:
        self.state = QUEUED
        if self.revision.deleted_reason:
            self.revision_deleted(self.revision.deleted_reason)
            return
        self._was_queued = True
        self._cold_start = self.revision.cold
        self.arrived_epoch = self.proxy.wall_clock()
        timeout = self.revision.policy.timeout
        self.deadline = now + timeout if timeout else FOREVER
        self.revision.request_queued()

    def revision_deleted(self, reason: str) -> None:
        """The revision was deleted, so no instance will start for this request."""
        self.reject(404, reason)

    def client_gone(self) -> None:
        """The client disconnected: leave the queue, or cancel at the instance."""
        if self.state is IDLE:
            return
        if self.state is QUEUED:
            self.revision.breaker.remove(self)
        self._finish(499 if self.status == 0 else self.status)

    def reject(self, status: int, text: str) -> None:
        """Respond with an error, because the body is malformed or handling failed. No response was started yet."""
        if self.state is QUEUED:
            self.revision.breaker.remove(self)
        self._fail(status, text)

    # --- called by the revision

    def admitted(self, endpoint: Backend) -> None:
        """A slot was taken for this queued request."""
        proxy = self.proxy
        now = proxy.now = proxy.time()
        self.state = SENT
        self.endpoint = endpoint
        self.started = now
        self.deadline = now + self.revision.response_timeout
        endpoint.forward(self)

    def connection_refused(self, error: Exception) -> None:
        """The instance refused a connection: nothing was sent, so another instance can get the request."""
        endpoint, revision, now = self.endpoint, self.revision, self.proxy.time()
        assert endpoint is not None
        self.endpoint = None
        self._first_refusal = self._first_refusal or now
        if now - self._first_refusal > RETRY_CONNECT_SECONDS:
            self._fail(502, f"the instance cannot be reached: {error or 'timed out'}")
            revision.release(endpoint)
            return
        self._queue_again()
        revision.breaker.requeue(self)
        if isinstance(error, NotRunThereError):
            revision.suspend(endpoint, UNREAD_SECONDS)
        else:
            revision.suspend(endpoint)
        self._leave(endpoint)

    def not_taken(self, *, busy: bool) -> None:
        """Called when the node of the instance did not accept the request; it returns to its place in the queue.

        Args: busy: whether no slot was free. Otherwise the connection accepts no more requests.
        """
        endpoint, revision = self.endpoint, self.revision
        assert endpoint is not None
        self._queue_again()
        revision.breaker.requeue(self, self._arrived_after)
        if busy:
            revision.set_busy(endpoint)
        self._leave(endpoint)

    def _arrived_after(self, other: ProxiedRequest) -> bool:
        """Whether it arrived after another request that was also sent to another node and came back."""
        return other.ticket[0] == other.generation and other.ticket[1] < self.ticket[1]

    def _queue_again(self) -> None:
        revision = self.revision
        self.endpoint = None
        self.state = QUEUED
        self._was_queued = True
        if not self.arrived_epoch:
            self.arrived_epoch = self.proxy.wall_clock()
        timeout = revision.policy.timeout
        self.deadline = self.arrived_at + timeout if timeout else FOREVER

    def _leave(self, endpoint: Backend) -> None:
        """Release a slot that was not used; the request waits for another one, unless it already has one."""
        revision = self.revision
        revision.release(endpoint)
        if self.state is QUEUED and revision.deleted_reason:
            self.revision_deleted(revision.deleted_reason)
        elif self.state is QUEUED:
            revision.request_queued()

    # --- called by the connection to the instance

    def response_head(self, head: ResponseHead, data: bytes, done: bool, trailers: bytes = b"") -> None:
        """The response's head arrived; `done` if the response is complete and the connection can be reused."""
        self.status = head.status
        self.size = len(data)
        if self._cold_start or self._set_cookie:
            head = self._with_added_fields(head)
        if done:
            self.write_response(head, data, True, trailers)
            self._finish(head.status)
            return
        self.state = STREAMING
        if self.revision.policy.idle_timeout:
            self.last_byte_at = self.proxy.time()
        self._extend_deadline()
        self.write_response(head, data, False, trailers)

    def response_body(self, data: bytes, done: bool, trailers: bytes = b"") -> None:
        """More of the response's body arrived."""
        self.size += len(data)
        if done:
            self.write_body(data, True, trailers)
            self._finish(self.status)
        else:
            if self.revision.policy.idle_timeout:
                self.last_byte_at = self.proxy.time()
            self.write_body(data, False, trailers)

    def informational(self, head: ResponseHead) -> None:
        """A 1xx response arrived."""
        self.write_informational(head)

    def upstream_lost(self, why: str, reused: bool, unsent: bool = False) -> None:
        """The connection to the instance failed.

        Args:
            reused: it had carried another request before, and nothing of this response arrived: most likely the
                instance closed the idle connection while the request was being written.
            unsent: the instance declared that it did not process this request.
        """
        self.upstream = None
        endpoint = self.endpoint
        again = unsent or (reused and self.head.idempotent)
        if again and not self._resent and self.state is SENT and self.can_be_resent() and endpoint is not None:
            self._resent = True
            if endpoint.node:
                self.not_taken(busy=False)  # the node was lost, and not just a connection
            else:
                endpoint.forward(self, fresh=True)
            return
        if self.state is SENT:
            self._fail(502, f"the connection to the instance failed: {why}")
        else:
            self.reset_response()
            self._finish(self.status)

    def internal_error(self, error: Exception) -> None:
        """An unexpected exception was raised while handling this request: end this one only. Called in an `except`."""
        log.exception("request handling failed", state=self.state.value, error=repr(error))
        try:
            if self.state in (QUEUED, SENT):
                self.reject(500, "internal error")
            elif self.state is not IDLE:
                self._cancel_upstream()
                self.reset_response()
                self._finish(self.status)
        except Exception as again:
            log.exception("request clean-up failed", error=repr(again))
            self.abort_response()

    # --- called by the deadline watch

    def deadline_passed(self, now: float) -> None:
        """`deadline` has passed: end the exchange, unless bytes arrived since then that extend it."""
        if self.state is QUEUED:
            self.revision.breaker.remove(self)
            self._fail(503, local_responses.QUEUE_TIMEOUT)
        elif self.state is SENT:
            self._fail(504, local_responses.REQUEST_TIMEOUT)
        elif self.state is TUNNEL:
            self._cancel_upstream()
            self._close_tunnel()
        else:
            self._extend_deadline()
            if now < self.deadline:
                return
            # The status was sent already; only the body can be ended.
            self._cancel_upstream()
            self.write_truncated_end()
            self._finish(self.status)

    def _extend_deadline(self) -> None:
        """Set the deadline of a response that has started."""
        policy = self.revision.policy
        whole = self.started + policy.timeout if policy.timeout else FOREVER
        self.deadline = min(whole, self.last_byte_at + policy.idle_timeout) if policy.idle_timeout else whole

    # --- internals

    def _with_added_fields(self, head: ResponseHead) -> ResponseHead:
        """Return the head with the fields that the activator adds: Set-Cookie, and Server-Timing after a cold start."""
        lines, self._set_cookie = self._set_cookie, b""
        if self._cold_start:
            self.revision.stats.cold += 1
            times = self.endpoint.timing if self.endpoint is not None else None
            if times is not None:
                # The loop's clock does not go back.
                epoch = self.arrived_epoch - self.arrived_at
                parts = timing.parts(self.arrived_epoch, epoch + self.started, epoch + self.proxy.time(), times)
                lines += timing.field(parts)
        return head.with_fields(lines) if lines else head

    def _fail(self, status: int, text: str) -> None:
        """Respond with an error instead of the instance."""
        self._cancel_upstream()
        extra = b"Retry-After: 1\r\n" if status in (429, 503) else b""
        self._reply(*local_responses.reply(status, text, self.proxy.wall_clock(), extra))

    def _reply(self, head: ResponseHead, body: bytes) -> None:
        self.status = head.status
        if self.head.is_head:
            body = b""
        self.size = len(body)
        self.write_response(head, body, True, b"")
        self._finish(head.status)

    def _finish(self, status: int) -> None:
        """Release the slot, count the request and reset the state."""
        proxy = self.proxy
        tunnel, self.state = self.state is TUNNEL, IDLE
        self.generation += 1
        if self.upstream is not None:
            self._cancel_upstream()
        if proxy.requests.pop(self, self) is None:
            revision = self.revision
            now = proxy.now = proxy.time()
            revision.stats.leave(now, self.arrived_at, status)
            if self._was_queued and self.started > self.arrived_at:
                revision.stats.queued.add(self.started - self.arrived_at)
            if proxy.log_request is not None:
                proxy.log_request(self, status, now)
            endpoint = self.endpoint
            if endpoint is not None:
                self.endpoint = None
                if tunnel:
                    endpoint.tunnels -= 1
                    self.frames = None
                endpoint.release_slot()  # as `revision.release`
                if revision.awaited_by_others or revision.breaker.queue:
                    revision.slot_released(endpoint)
        if self.pending_size or self._was_queued or self._resent:
            self.pending, self.pending_size, self.trailers = [], 0, b""
            self._was_queued = self._cold_start = self._resent = False
            self._set_cookie = b""
            self._first_refusal = self.arrived_epoch = 0.0
        self.finished()
