"""Header lists of HTTP/2: validation (RFC 9113 §8.1.1) and conversion to HTTP/1. Pure."""

import re
from collections.abc import Sequence

from activator.wire.chunked import allowed_trailers
from activator.wire.http1_heads import CHUNKED, HeadError, ResponseHead
from activator.wire.http1_parser import valid_fields

Fields = Sequence[tuple[bytes, bytes]]


class HeaderList:
    """A received header list. Equal ones of a connection are one object, which keeps what was computed for it."""

    __slots__ = ("fields", "parsed", "size", "valid_if_done")

    def __init__(self, fields: Fields, size: int) -> None:
        """Args: size: in bytes, as in RFC 9113 §6.5.2."""
        self.fields = fields
        self.size = size
        self.valid_if_done: bool | None = None
        """True for a valid request without a body, False for a valid one with a body; None if it was not validated."""
        self.parsed: object = None
        """The receiver's interpretation of the list."""


_names = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]++(?:\n[!#$%&'*+\-.^_`|~0-9a-z]++)*+").fullmatch
_length = re.compile(rb"[0-9]{1,18}").fullmatch
_values = re.compile(rb"[\0\t\x20-\x7e\x80-\xff]*+").fullmatch
_method = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++").fullmatch
_scheme = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*+").fullmatch
_path = re.compile(rb"[\x21-\x7e\x80-\xff]++").fullmatch
_authority = re.compile(rb"[!$%&'()*+,\-.0-9:;=A-Z\[\]_a-z~]++").fullmatch
_OF_HTTP1 = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
"""§8.2.2: connection-specific fields, which HTTP/2 does not have."""
NOT_IN_HTTP2 = _OF_HTTP1 | {b"host"}
"""Fields that are not sent in HTTP/2."""
_PSEUDO = (b":method", b":path", b":authority", b":scheme")


def request_fault(fields: Fields, done: bool) -> str:
    """Return why a request is malformed; empty if it is not.

    Args:
        done: it has no body.
    """
    pseudo, hosts, length, at = {}, [], b"", 0
    for name, value in fields:
        if name[:1] != b":":
            break
        if name not in _PSEUDO:
            return "an unknown pseudo-header field"
        if name in pseudo:
            return "a pseudo-header field is repeated"
        pseudo[name] = value
        at += 1
    names = [name for name, _ in fields[at:]]
    fault = _fields_fault(fields, names)
    if fault:
        return fault
    if b"host" in names or b"content-length" in names:
        for name, value in fields[at:]:
            if name == b"host":
                hosts.append(value)
            elif name == b"content-length":
                if length or not _length(value):
                    return "content-length is not a single number"
                length = value
        if length and done and int(length):
            return "content-length without a body"
    authority = pseudo.get(b":authority")
    if not _authority(authority if authority is not None else b"".join(hosts)):
        return "there is no valid :authority or host"
    if len(hosts) > 1 or (hosts and authority is not None and hosts[0].lower() != authority.lower()):
        return "host differs from :authority"
    return _target_fault(pseudo)


def _target_fault(pseudo: dict[bytes, bytes]) -> str:
    """§8.3.1, and §8.5 for CONNECT."""
    method = pseudo.get(b":method")
    if not method or not _method(method):
        return ":method is missing or no token"
    if method == b"CONNECT":
        if b":path" in pseudo or b":scheme" in pseudo or not pseudo.get(b":authority"):
            return "CONNECT must have :authority only"
        return ""
    if not _scheme(pseudo.get(b":scheme", b"")):
        return ":scheme is missing or invalid"
    path = pseudo.get(b":path", b"")
    if not _path(path):
        return ":path is missing, or has characters that must be encoded"
    if path[:1] != b"/" and not (path == b"*" and method == b"OPTIONS"):
        return ":path does not start with a slash"
    return ""


def _fields_fault(fields: Fields, names: list[bytes]) -> str:
    """Check all values, and the names of fields that are not pseudo-header fields."""
    if not fields:
        return ""
    # All at once: a call for each field costs more than its bytes.
    if not _valid_names(names):
        return "invalid field name"
    values = b"\0" + b"\0".join([value for _, value in fields]) + b"\0"
    if values.count(b"\0") != len(fields) + 1 or not _values(values):
        return "invalid field value"
    if b"\0 " in values or b" \0" in values or b"\0\t" in values or b"\t\0" in values:
        return "field value with leading or trailing whitespace"
    if not _OF_HTTP1.isdisjoint(names):
        return "connection-specific field"
    if b"te" in names and any(name == b"te" and value.lower() != b"trailers" for name, value in fields):
        return "te header with a value other than trailers"
    return ""


def _valid_names(names: list[bytes]) -> bool:
    joined = b"\n".join(names)
    return not names or (_names(joined) is not None and joined.count(b"\n") == len(names) - 1)


def trailers(fields: Fields) -> bytes | None:
    """Return trailer fields as lines, without those allowed in a head only; None if they are malformed."""
    if _fields_fault(fields, [name for name, _ in fields]):
        return None
    block = b"".join([b"%b: %b\r\n" % field for field in fields])
    return allowed_trailers(block) if valid_fields(block) else None


def as_http1(fields: Fields, done: bool) -> bytes:
    """Convert a well-formed request to an HTTP/1.1 head. Raises: HeadError."""
    pseudo: dict[bytes, bytes] = {}
    lines, cookies, lengths, length = [b""], [], 0, b""
    for name, value in fields:
        if name[:1] == b":":
            pseudo[name] = value
        elif name == b"cookie":
            cookies.append(value)  # RFC 9113 §8.2.3: joined into one field for HTTP/1.1
        elif name == b"content-length":
            length, lengths = value, lengths + 1
        elif name != b"host" or b":authority" not in pseudo:
            lines.append(b"%b: %b" % (name, value))
    method = pseudo[b":method"]
    if method == b"CONNECT":
        raise HeadError(405, "CONNECT is not supported")
    lines[0] = b"%b %b HTTP/1.1" % (method, pseudo[b":path"])
    if b":authority" in pseudo:
        lines.insert(1, b"Host: " + pseudo[b":authority"])
    if cookies:
        lines.append(b"cookie: " + b"; ".join(cookies))
    if lengths:
        lines.append(b"content-length: " + length)
    elif not done:
        lines.append(b"Transfer-Encoding: chunked")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def response_head(fields: Fields) -> ResponseHead | None:
    """Convert an instance's response to a head; None if it is malformed."""
    status, length, lines = 0, CHUNKED, []
    for name, value in fields:
        if name == b":status":
            if status or len(value) != 3 or not value.isdigit():
                return None
            status = int(value)
        elif name == b"content-length":
            if not _length(value) or length not in (CHUNKED, int(value)):
                return None
            length = int(value)
        elif name not in NOT_IN_HTTP2:
            lines.append(b"%b: %b\r\n" % (name, value))
    if not _valid_names([name for name, _ in fields if name != b":status"]):
        return None
    block = b"".join(lines)
    if not 100 <= status <= 599 or not valid_fields(block):
        return None
    return ResponseHead(status, b"", block, length)
