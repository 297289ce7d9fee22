"""The interface to HTTP/2 libraries: one end of a connection turns bytes into calls of a handler, and calls into bytes.

`http2_h2.H2Codec` implements it on the h2 library, on top of `http2_base`. Nothing else of the activator knows which
library keeps the states of streams, their windows and the compression of headers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from activator.wire.http2_errors import Setting
from activator.wire.http2_fields import Fields, HeaderList
from activator.wire.http2_frames import Budget

MAX_HEADER_LIST = 65_536
"""Bytes of a header list after decompression, counted as in RFC 9113 §6.5.2; a longer request gets a 431."""
MAX_DECODED_HEADER_LIST = 2 * MAX_HEADER_LIST
"""A longer list is not decompressed to its end, so the connection ends."""
DATA_SENT, ANSWERED = 2, 2
"""Charges earned by a sent DATA frame, and by a response of an instance."""

UNREADABLE_HEAD = "its response headers cannot be parsed"
WRONG_LENGTH = "its response does not have the declared length"
"""Why a response of an instance is not passed on."""


class RequestNotSent(Exception):  # noqa: N818 - not a fault of the connection
    """A request cannot be sent on this connection."""


class FrameHandler(Protocol):
    """Receives the events of a connection: `Http2Connection` of a client, `Http2Upstream` of an instance."""

    def headers_received(self, stream: int, headers: HeaderList, done: bool) -> None:
        """The head of a request or of a response (also 1xx) arrived."""
        ...

    def body_received(self, stream: int, data: bytes, size: int, done: bool) -> None:
        """Part of a body arrived. Args: size: bytes that count for flow control."""
        ...

    def trailers_received(self, stream: int, lines: bytes) -> None:
        """Trailer fields arrived, and with them the end of the message."""
        ...

    def stream_reset(self, stream: int, code: int, fault: str) -> None:
        """The stream was reset. Args: fault: the stream error of the peer; empty if the peer reset it."""
        ...

    def window_updated(self, stream: int) -> None:
        """More may be sent on a stream; on all of them if it is 0."""
        ...

    def goaway_received(self, last: int) -> None:
        """GOAWAY arrived. Args: last: the highest stream that the peer processes."""
        ...

    def connection_failed(self, text: str) -> None:
        """The connection must end; GOAWAY is ready to be sent."""
        ...

    def stream_failed(self, stream: int) -> None:
        """Handling a frame of a stream (0: of none) raised an unexpected exception: end the stream."""
        ...


class Codec(Protocol):
    """One end of a connection. Its methods may be called while it calls its handler."""

    budget: Budget
    frames: int
    """Frames that reached the library: the part of the work that costs the most."""
    ended: bool
    """The connection has failed or was lost: nothing is received any more."""

    @property
    def mid_block(self) -> bool:
        """Whether the preface or a header block is incomplete."""
        ...

    @property
    def pending(self) -> bool:
        """Whether `work` has something to do though nothing was received, and is not running."""
        ...

    @property
    def max_streams(self) -> int:
        """Streams that the peer allows us to have open at once."""
        ...

    def feed(self, data: bytes) -> None:
        """Append received bytes, for `work`."""
        ...

    def work(self, until: float) -> bool:
        """Process frames until a time of the clock; returns whether there are more. Raises nothing."""
        ...

    def fail(self, code: int, text: str) -> None:
        """End the connection. Args: code: of GOAWAY. text: the reason, for the log."""
        ...

    def request(self, fields: Fields, done: bool) -> int:
        """Open a stream; returns its number. Raises: RequestNotSent."""
        ...

    def send_head(self, stream: int, fields: Fields, done: bool) -> bool:
        """Send the head of a final response; returns False if the peer has closed the stream."""
        ...

    def send_interim(self, stream: int, fields: Fields) -> None:
        """Send a 1xx response, unless the stream is closed."""
        ...

    def sendable(self, stream: int) -> int:
        """Return how many bytes of a body `send_data` takes now; -1 if the stream is closed."""
        ...

    def send_data(self, stream: int, data: bytes, done: bool) -> bool:
        """Send part of a body, of at most `sendable` bytes; returns False if the stream is closed."""
        ...

    def send_trailers(self, stream: int, fields: Fields) -> bool:
        """Send trailers, the end of a stream; returns False if the stream is closed."""
        ...

    def reset(self, stream: int, code: int) -> None:
        """Reset a stream, unless it is closed already."""
        ...

    def acknowledge(self, size: int, stream: int) -> None:
        """Allow the peer to send as many more bytes of bodies."""
        ...

    def send_goaway(self, code: int) -> None:
        """Send GOAWAY. Open streams continue."""
        ...

    def output(self) -> bytes:
        """Return the bytes to be written."""
        ...


@dataclass(frozen=True, slots=True)
class CodecOptions:
    """What one end of a connection announces to the other."""

    client: bool
    """The peer is a server."""
    settings: Mapping[Setting, int]
    window: int
    """Bytes of bodies that the peer may send on the whole connection before they are acknowledged."""


CodecFactory = Callable[[FrameHandler, Callable[[], float], CodecOptions], Codec]
"""Makes a codec. The second argument is a clock: seconds, monotonic."""
