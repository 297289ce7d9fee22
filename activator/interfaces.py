"""Protocols for calls from a lower layer of the data path to a higher one.

`request` imports `routing` and `backend`; these see a request, and a request's connection sees its endpoint, through
the protocols below. They exist for the type checker: at run time every call goes straight to the object.
"""

from collections.abc import Sequence
from typing import Protocol

from activator.wire.forwarding import Peer
from activator.wire.http1_heads import RequestHead, ResponseHead
from activator.wire.read_scheduler import ReadScheduler
from knoll.messages.endpoints import StartTiming


class NotRunThereError(ConnectionError):
    """The node of an instance does not run it: it has ended, or that node has not read of its start yet."""


class UpstreamConnection(Protocol):
    """A connection to an instance, or one HTTP/2 stream of it, while it carries a request."""

    def send(self, data: bytes, done: bool, trailers: bytes = b"") -> None:
        """Send more of the request's body; `done` with its last part."""
        ...

    def tunnel(self, data: bytes) -> None:
        """Send bytes of an upgraded connection."""
        ...

    def cancel(self) -> None:
        """Stop: the request is over."""
        ...

    def pause_reading(self) -> None:
        """Read no more of the response until `resume_reading`."""
        ...

    def resume_reading(self) -> None:
        """Continue to read the response."""
        ...


class Backend(Protocol):
    """An endpoint of a revision, as a request sees it."""

    id: str
    host: str
    node: str
    timing: StartTiming | None
    tunnels: int
    retired: bool
    suspended: bool
    busy: bool
    failures: int
    relayed: int

    def load_reported(self, requests: int) -> None:
        """The other node that runs the instance reported how many requests it has."""
        ...

    def forward(self, exchange: "ProxiedRequest", fresh: bool = False) -> None:
        """Send a request that has a slot here; with `fresh`, over a new connection."""
        ...

    def release_slot(self) -> None:
        """Release the slot of a request."""
        ...


class Proxy(Protocol):
    """The part of the worker's state that connections to instances use."""

    @property
    def now(self) -> float:
        """The loop's clock when it was last read."""
        ...

    @property
    def read_scheduler(self) -> ReadScheduler:
        """Divides the time for reading HTTP/2 among connections."""
        ...


class NamedRevision(Protocol):
    """A revision, as the request log sees it."""

    @property
    def name(self) -> str:
        """`namespace/name`."""
        ...


class ProxiedRequest(Protocol):
    """A request on its way; `request.exchange.Exchange` implements it."""

    head: RequestHead
    outgoing: bytes
    body_done: bool
    trailers: bytes
    generation: int
    upstream: UpstreamConnection | None
    deadline: float
    ticket: tuple[int, int]
    """The generation for which the second number is valid, and the request's order among those sent to other nodes."""
    size: int
    arrived_at: float
    started: float

    @property
    def proxy(self) -> Proxy:
        """State of the worker."""
        ...

    @property
    def pending(self) -> Sequence[bytes]:
        """Parts of the body that were not sent yet."""
        ...

    @property
    def revision(self) -> NamedRevision:
        """The revision that it was routed to."""
        ...

    @property
    def endpoint(self) -> Backend | None:
        """The endpoint that has a slot for it."""
        ...

    @property
    def peer(self) -> Peer:
        """The client."""
        ...

    @property
    def protocol(self) -> str:
        """HTTP version of the client's connection, as in Go: `HTTP/1.1`."""
        ...

    def admitted(self, endpoint: Backend) -> None:
        """A slot became free for a request in the queue."""
        ...

    def revision_deleted(self, reason: str) -> None:
        """The revision was deleted while the request was in the queue."""
        ...

    def send_pending_body(self, upstream: UpstreamConnection) -> None:
        """Send the pending parts of the body."""
        ...

    def can_be_resent(self) -> bool:
        """Whether the whole body is buffered."""
        ...

    def keep_body(self, data: bytes, done: bool) -> None:
        """Keep a part of the body that cannot be sent yet."""
        ...

    def pause_body(self) -> None:
        """Stop reading the body from the client."""
        ...

    def resume_body(self) -> None:
        """Continue reading the body from the client."""
        ...

    def not_taken(self, *, busy: bool) -> None:
        """Called when the node of the instance did not accept the request; `busy`: because it has no free slot."""
        ...

    def connection_refused(self, error: Exception) -> None:
        """The instance refused the connection."""
        ...

    def response_head(self, head: ResponseHead, data: bytes, done: bool, trailers: bytes = b"") -> None:
        """The response's head arrived, with the first bytes of its body."""
        ...

    def response_body(self, data: bytes, done: bool, trailers: bytes = b"") -> None:
        """More of the response's body arrived."""
        ...

    def informational(self, head: ResponseHead) -> None:
        """A 1xx response arrived."""
        ...

    def protocol_switched(self, head: ResponseHead, data: bytes) -> None:
        """101 arrived: the connection is a tunnel."""
        ...

    def tunnel_data(self, data: bytes) -> None:
        """Bytes arrived through the tunnel."""
        ...

    def tunnel_closed(self) -> None:
        """The instance closed the tunnel."""
        ...

    def upstream_lost(self, why: str, reused: bool, unsent: bool = False) -> None:
        """The connection to the instance failed."""
        ...

    def internal_error(self, error: Exception) -> None:
        """An unexpected exception was raised while handling this request."""
        ...

    def __hash__(self) -> int: ...

    def deadline_passed(self, now: float) -> None:
        """The deadline has passed."""
        ...
