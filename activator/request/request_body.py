"""The body of a request: sent on as it arrives, or kept while there is no connection, or until it is needed no more."""

from activator.interfaces import UpstreamConnection
from activator.request.client_side import ClientSide

MAX_PENDING = 16_384
"""Bytes of a body that are read ahead while a request is queued."""
MAX_REPLAY = 65_536
"""Bytes of a body that are kept so that the request can be sent again."""


class RequestBody(ClientSide):
    """The part of an exchange that has the body."""

    __slots__ = ("body_done", "pending", "pending_size", "trailers", "upstream")

    def __init__(self) -> None:
        self.upstream: UpstreamConnection | None = None
        """The connection to the instance, while it carries the request."""
        self.pending: list[bytes] = []
        """Parts of the body that were not sent yet, or that are kept to be sent again."""
        self.pending_size = 0
        self.body_done = True
        self.trailers = b""

    def request_body(self, data: bytes, done: bool, trailers: bytes = b"") -> None:
        """More of the request's body arrived."""
        self.body_done = done
        self.trailers = trailers
        if self.upstream is not None:
            self.upstream.send(data, done, trailers)
            return
        self.keep_body(data, done)

    def keep_body(self, data: bytes, done: bool) -> None:
        """Keep a part of the body that cannot be sent yet."""
        if data:
            self.pending.append(data)
            self.pending_size += len(data)
        if self.pending_size > MAX_PENDING and not done:
            self.pause_body()

    def send_pending_body(self, upstream: UpstreamConnection) -> None:
        """Send the pending parts of the body over a connection."""
        done = self.body_done
        data = b"".join(self.pending)
        if done and len(data) <= MAX_REPLAY:
            upstream.send(data, True, self.trailers)
            return
        self.pending = []
        if data or done:
            upstream.send(data, done, self.trailers)
        if self.pending_size > MAX_PENDING and not done:
            self.resume_body()
        self.pending_size = MAX_REPLAY + 1

    def can_be_resent(self) -> bool:
        """Whether the whole body is buffered."""
        return self.body_done and self.pending_size <= MAX_REPLAY
