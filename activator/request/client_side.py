"""What an exchange calls on the connection of its client. Pure."""

from abc import ABC, abstractmethod

from activator.wire.forwarding import Peer
from activator.wire.http1_heads import ResponseHead


class ClientSide(ABC):
    """Implemented by `frontend.http1_server.Http1Connection` and `frontend.http2_stream.Http2Stream`."""

    __slots__ = ()

    @property
    @abstractmethod
    def peer(self) -> Peer:
        """The client's address and scheme."""

    @abstractmethod
    def write_response(self, head: ResponseHead, data: bytes, done: bool, trailers: bytes) -> None:
        """Write a response's head and the first bytes of its body; `done` if the response is complete."""

    @abstractmethod
    def write_body(self, data: bytes, done: bool, trailers: bytes) -> None:
        """Write more of the response's body."""

    @abstractmethod
    def write_informational(self, head: ResponseHead) -> None:
        """Write a 1xx response."""

    @abstractmethod
    def write_tunnel(self, data: bytes) -> None:
        """Write bytes of an upgraded connection."""

    @abstractmethod
    def write_truncated_end(self) -> None:
        """End the response early, as a complete one where its framing allows it."""

    @abstractmethod
    def reset_response(self) -> None:
        """Abort the response so that the client sees that it is incomplete."""

    @abstractmethod
    def abort_response(self) -> None:
        """Abort in any state, after an unexpected exception."""

    @abstractmethod
    def pause_body(self) -> None:
        """Stop reading the body from the client."""

    @abstractmethod
    def resume_body(self) -> None:
        """Continue reading the body from the client."""

    @abstractmethod
    def finished(self) -> None:
        """The exchange is over; the state is `IDLE`."""
