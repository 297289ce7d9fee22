"""Heads of HTTP/1 messages, as `http1_parser` reads them and connections write them. Pure."""

from activator.wire.relay_lines import Target
from knoll.values.errors import BadRequestError

MAX_HEAD = 65_536
"""Bytes of a head; longer ones get a 431."""
MAX_CACHED_HEAD = 4096
"""Bytes of a head that is cached to recognise an identical next one; longer ones cost more than they save."""

CHUNKED = -1
"""Length of a chunked body."""
UNTIL_CLOSE = -2
"""Length of a response body that ends with the connection."""


class HeadError(BadRequestError):
    """A request that is rejected because of its head, with the status of the response."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


class RequestHead:
    """The parsed head of a request. Never changed afterwards.

    A record, hence its many attributes; in slots, because reading a default of the class takes much longer.
    """

    __slots__ = (
        "authority", "block", "expects", "forwarded", "idempotent", "is_head", "keep_alive", "length", "method",
        "relayed", "tag", "target", "trailers", "upgrade", "version", "wire",
    )  # fmt: skip

    def __init__(self) -> None:
        self.wire = b""
        """The head as received."""
        self.method = b""
        self.target = b""
        """Origin-form, or `*`."""
        self.version = 1
        """Minor version: 0 or 1."""
        self.authority = b""
        """Host as received, with its port; empty only in HTTP/1.0."""
        self.block = b""
        """Field lines to forward, each with its CRLF."""
        self.length = 0
        """Bytes of the body, or CHUNKED."""
        self.keep_alive = True
        self.upgrade = b""
        """The protocol to upgrade to; empty if none was requested."""
        self.expects = False
        """The client waits for 100 Continue before sending the body."""
        self.trailers = False
        """The client sent `TE: trailers`."""
        self.forwarded: dict[bytes, bytes] | None = None
        """Forwarding fields of the client (Forwarded, X-Forwarded-*, X-Real-IP): lower-case name to joined values."""
        self.tag = b""
        """Knative-Serving-Tag."""
        self.relayed: Target | None = None
        """The instance that another node chose; None for a request of a client."""
        self.idempotent = True
        self.is_head = False


class ResponseHead:
    """The parsed head of a response."""

    __slots__ = (
        "block", "has_body", "keep_alive", "keep_alive_seconds", "length", "plain", "reason", "status", "upgrade",
        "wire",
    )  # fmt: skip

    def __init__(self, status: int, reason: bytes, block: bytes, length: int) -> None:
        self.wire = b""
        self.status = status
        self.reason = reason
        self.block = block
        """Field lines to forward, without those that frame the body."""
        self.length = length
        """Bytes of the body, CHUNKED or UNTIL_CLOSE, as the head declares, also for HEAD and 304."""
        self.has_body = status != 204 and status != 304
        """Whether its status allows a body; a response to HEAD has none in any case."""
        self.keep_alive = True
        self.keep_alive_seconds = 0
        """Seconds that the instance keeps an idle connection (`Keep-Alive: timeout=`); 0 if it did not declare any."""
        self.upgrade = b""
        framing = b"Transfer-Encoding: chunked\r\n" if length < 0 else b"Content-Length: %d\r\n" % length
        if status < 200 or status == 204 or (status == 304 and length < 0):
            framing = b""
        self.plain = b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (status, reason, block, framing)
        """The head for an HTTP/1.1 client on a persistent connection."""

    def with_fields(self, lines: bytes) -> "ResponseHead":
        """Return a copy with more field lines."""
        return ResponseHead(self.status, self.reason, self.block + lines, self.length)


def upstream_head(head: RequestHead, forwarded: bytes) -> bytes:
    """Return the head as it is sent to an instance."""
    extra = b""
    if head.length == CHUNKED:
        extra = b"Transfer-Encoding: chunked\r\n"
    if head.upgrade:
        extra += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade
    if head.trailers:
        extra += b"TE: trailers\r\n" if head.upgrade else b"Connection: TE\r\nTE: trailers\r\n"
    return b"%b %b HTTP/1.1\r\n%b%b%b\r\n" % (head.method, head.target, head.block, forwarded, extra)
