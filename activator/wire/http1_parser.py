"""Strict parsing of HTTP/1 heads, and which fields are forwarded. Pure.

One compiled expression with possessive quantifiers matches a whole head: it is linear, runs in C, and rejects whatever
RFC 9112 forbids (bare CR or LF, obs-fold, blanks before the colon, control bytes). A second one finds the few fields
that a proxy must interpret; all others are forwarded unchanged.
"""

import re

from activator.wire.http1_heads import CHUNKED, MAX_HEAD, UNTIL_CLOSE, HeadError, RequestHead, ResponseHead
from knoll.config.network import Underscores

MAX_TARGET = 16_384
"""Bytes of a request target; longer ones get a 414."""
MAX_FIELDS = 256
"""Field lines of a head; more get a 431."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_WITHOUT_UNDERSCORE = rb"[!#$%&'*+\-.^`|~0-9A-Za-z]"
_VALUE = rb":[\t\x20-\x7e\x80-\xff]*+\r\n"
_FIELDS = rb"((?:" + _TOKEN + rb"++" + _VALUE + rb")*+)\r\n"
_REQUEST_LINE = rb"(" + _TOKEN + rb"{1,64}+) ([\x21-\x7e\x80-\xff]++) HTTP/(\d\.\d)\r\n"
_request = re.compile(_REQUEST_LINE + rb"((?:" + _WITHOUT_UNDERSCORE + rb"++" + _VALUE + rb")*+)\r\n").fullmatch
_request_with_underscores = re.compile(_REQUEST_LINE + _FIELDS).fullmatch
_strip_underscores = re.compile(rb"\n[^:\r\n_]*+_[^:\r\n]*+:[^\r]*+\r(?=\n)").sub
_response = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*+))?\r\n" + _FIELDS).fullmatch
_fields_only = re.compile(_FIELDS).fullmatch
_blank_line = re.compile(rb"\n\r?+\n").search
_line_end = re.compile(rb"\r?+\n").sub

# In these expressions, alternatives share their first letters, so that most fields are rejected at the second one.
_STRIPPED_NAMES = (
    rb"connection|keep-alive|te|trailer|transfer-encoding|upgrade|http2-settings"
    # CGI programs take `Proxy` for their own configuration (CVE-2016-5385).
    rb"|proxy(?:-connection|-authenticate|-authorization)?"
    # Fields between Knative's own components must not come from outside.
    rb"|k-(?:proxy-request|original-host|network-probe|network-hash|passthrough-lb)|knative-serving-[^:\r\n]*+"
    # Forwarding fields are rewritten: see `forwarding`.
    rb"|forwarded|x-(?:forwarded-[^:\r\n]*+|real-ip)"
)
# Each expression starts with the line feed before the field: a literal first byte lets `re` skip ahead with memchr.
_INTERPRETED_NAMES = (
    rb"[cC](?i:on(?:nection|tent-length))|[eE](?i:xpect)|[fF](?i:orwarded)|[hH](?i:ost|ttp2-settings)"
    rb"|[kK](?i:eep-alive|-(?:proxy-request|original-host|network-probe|network-hash|passthrough-lb)"
    rb"|native-serving-[^:\r\n]*+)"
    rb"|[pP](?i:roxy(?:-connection|-authenticate|-authorization)?)|[tT](?i:e|railer|ransfer-encoding)|[uU](?i:pgrade)"
    rb"|[xX]-(?i:forwarded-[^:\r\n]*+|real-ip)"
)
_request_fields = re.compile(rb"\n(" + _INTERPRETED_NAMES + rb"):[ \t]*+([^\r]*)").findall
# The first letter rules out most fields, so that not every name is tried.
_PLAIN_FIELD = rb"(?!(?=[cCeEfFhHkKpPtTuUxX])(?:" + _INTERPRETED_NAMES + rb"):)" + _WITHOUT_UNDERSCORE + rb"++" + _VALUE
_plain_request = re.compile(
    rb"(" + _TOKEN + rb"{1,64}+) (/[\x21-\x7e\x80-\xff]*+) HTTP/1\.1\r\n"
    rb"((?:" + _PLAIN_FIELD + rb")*+[hH](?i:ost):[ \t]*+([^\r]*+)\r\n(?:" + _PLAIN_FIELD + rb")*+)\r\n"
).fullmatch
_strip_request = re.compile(rb"\n(?i:" + _STRIPPED_NAMES + rb"):[^\r]*+\r(?=\n)").sub
_response_fields = re.compile(
    rb"\n(?=[cktupCKTUP])(?i:(content-length|connection|keep-alive|proxy-connection|transfer-encoding|upgrade|te"
    rb"|proxy-authenticate))"
    rb":[ \t]*+([^\r]*)"
).findall
_strip_response = re.compile(
    rb"\n(?i:connection|keep-alive|proxy-connection|transfer-encoding|upgrade|content-length|te|proxy-authenticate)"
    rb":[^\r]*+\r(?=\n)"
).sub
_split_fields = re.compile(rb"([^:\r\n]++):[ \t]*+([^\r]*)\r\n").findall
_host = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]++|\[[0-9A-Fa-f:.]++\])(?::\d{0,5}+)?").fullmatch
_absolute = re.compile(rb"(?i:https?)://([^/?#@]++)([/?][^#]*+)?").fullmatch
_is_token = re.compile(_TOKEN + rb"+").fullmatch
_digits = re.compile(rb"\d{1,18}").fullmatch
_keep_alive_timeout = re.compile(rb"(?i:timeout)=(\d{1,6})").search

_NEVER_NOMINATED = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"expect",
    )
)
_ORIGIN_NAMES = (b"forwarded", b"x-forwarded-", b"x-real-ip")
_HARMLESS_OPTIONS = frozenset((b"close", b"keep-alive", b"upgrade", b"te", b"http2-settings", b""))
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))
"""Methods that may be sent again if there was no response (RFC 9110 §9.2.2)."""


def read_plain_request(wire: bytes, valid_host: bytes | None = None) -> RequestHead | None:
    """Parse an HTTP/1.1 head in which a proxy interprets no field except Host, as in most requests.

    Returns the same as `read_request`, in half the time; None for other heads, and for data that is not one head.

    Args:
        wire: all that has been received.
        valid_host: a Host that was accepted before.
    """
    match = _plain_request(wire)
    if match is None or len(wire) > MAX_HEAD:
        return None
    head = RequestHead()
    head.method, head.target, head.block, host = match.groups()
    if host != valid_host:
        host = host.rstrip(b" \t")
        if not _host(host):
            return None
    # The shortest field line has four bytes.
    if len(wire) > 4 * MAX_FIELDS and (head.block.count(b"\n") > MAX_FIELDS or len(head.target) > MAX_TARGET):
        return None
    if head.method != b"GET":
        if head.method == b"CONNECT":
            return None
        head.idempotent, head.is_head = head.method in IDEMPOTENT, head.method == b"HEAD"
    head.wire, head.authority = wire, host
    return head


def read_request(wire: bytes, underscores: Underscores = "drop") -> RequestHead:
    """Parse the head of a request.

    Args:
        wire: from the request line to the empty line.
        underscores: how fields with an underscore in their name are treated. A program that gets fields as CGI
            variables cannot distinguish `X_Real_IP` from `X-Real-IP`, so they could forge forwarding fields.

    Raises:
        HeadError: with the status of the response; the connection must be closed after it.
    """
    match = _request(wire)
    plain = match is not None
    if match is None:
        match = _request_with_underscores(wire)
        if match is None:
            raise _syntax_error(wire)
        if underscores == "reject":
            raise HeadError(400, "the name of a header field has an underscore")
    head = RequestHead()
    head.wire = wire
    head.method, head.target, version, head.block = match.groups()
    if version == b"1.0":
        head.version, head.keep_alive = 0, False
    elif version != b"1.1":
        raise HeadError(505, "this port speaks HTTP/1.0, HTTP/1.1 and HTTP/2")
    if len(head.target) > MAX_TARGET:
        raise HeadError(414, f"the request target is longer than {MAX_TARGET} bytes")
    if head.method not in IDEMPOTENT:
        head.idempotent = False
    elif head.method == b"HEAD":
        head.is_head = True
    _parse_proxy_fields(head, _request_fields(wire))
    if not plain and underscores == "drop":
        head.block = _strip_underscores(b"", b"\r\n" + head.block)[2:]
    return head


def _parse_proxy_fields(head: RequestHead, fields: list[tuple[bytes, bytes]]) -> None:
    """Interpret the fields that concern a proxy, and remove those that it must not forward."""
    if len(fields) == 1 and fields[0][0] in (b"Host", b"host"):
        head.authority = fields[0][1].rstrip(b" \t")
    else:
        values: dict[bytes, list[bytes]] = {}
        for name, value in fields:
            values.setdefault(name.lower(), []).append(value.rstrip(b" \t"))
        _read_fields(head, values)
    if not _host(head.authority) and (head.authority or head.version):
        raise HeadError(400, "the request must have exactly one valid Host header")
    if head.target[:1] != b"/" or head.method == b"CONNECT":
        _read_target(head)
    # The shortest field line has four bytes.
    if len(head.block) > 4 * MAX_FIELDS and head.block.count(b"\n") > MAX_FIELDS:
        raise HeadError(431, f"the request has more than {MAX_FIELDS} header fields")


def _read_fields(head: RequestHead, fields: dict[bytes, list[bytes]]) -> None:
    hosts = fields.get(b"host", ())
    if len(hosts) > 1:
        raise HeadError(400, "the request has more than one Host header")
    head.authority = hosts[0] if hosts else b""
    head.length = _request_length(fields, head.version)
    options = _options(fields.get(b"connection", []))
    if b"close" in options:
        head.keep_alive = False
    elif b"keep-alive" in options:
        head.keep_alive = True
    if b"expect" in fields:
        if [value.lower() for value in fields[b"expect"]] != [b"100-continue"]:
            raise HeadError(417, "the only supported Expect value is 100-continue")
        head.expects = head.version == 1 and head.length != 0
    upgrade = fields.get(b"upgrade")
    # No upgrade to h2c (RFC 9113 §3.1 deprecates it), and none in a request with a body or in HTTP/1.0.
    if upgrade and b"upgrade" in options and head.version and head.length == 0 and upgrade[0].lower() != b"h2c":
        head.upgrade = upgrade[0]
    head.trailers = b"trailers" in _options(fields.get(b"te", []))
    forwarded = {name: b", ".join(values) for name, values in fields.items() if name.startswith(_ORIGIN_NAMES)}
    if forwarded:
        head.forwarded = forwarded
    head.tag = fields.get(b"knative-serving-tag", [b""])[0]
    kept = (b"host" in fields) + (b"content-length" in fields) + (b"expect" in fields)
    if len(fields) > kept:
        head.block = _strip_request(b"", b"\r\n" + head.block)[2:]
    nominated = options - _HARMLESS_OPTIONS
    if nominated:
        # RFC 9110 §7.6.1: fields named in Connection are removed, so essential fields must not be named.
        if len(nominated) > 32 or not nominated.isdisjoint(_NEVER_NOMINATED):
            raise HeadError(400, "Connection names a field that is not hop-by-hop")
        head.block = _without(head.block, nominated)


def _request_length(fields: dict[bytes, list[bytes]], version: int) -> int:
    """RFC 9112 §6.3: whatever two parsers could read differently is rejected."""
    lengths, codings = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if codings is not None:
        if lengths is not None:
            raise HeadError(400, "a request must not have both Content-Length and Transfer-Encoding")
        if not version:
            raise HeadError(400, "HTTP/1.0 has no Transfer-Encoding")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            if b"chunked" in codings[-1].lower() and len(codings) == 1 and b"," not in codings[0]:
                raise HeadError(400, "invalid Transfer-Encoding")
            raise HeadError(501, "the only supported Transfer-Encoding is chunked")
        return CHUNKED
    if lengths is None:
        return 0
    if len(lengths) != 1 or not _digits(lengths[0]):
        raise HeadError(400, "Content-Length must be a single number")
    return int(lengths[0])


def _read_target(head: RequestHead) -> None:
    """RFC 9112 §3.2: origin-form is usual; absolute-form must be supported; other forms are for other methods."""
    if head.target == b"*" and head.method == b"OPTIONS":
        return
    if head.method == b"CONNECT":
        raise HeadError(405, "CONNECT is not supported")
    match = _absolute(head.target)
    if match is None or not _host(match[1]):
        raise HeadError(400, "the request target must start with a slash")
    # §3.2.2: the target's authority replaces Host.
    authority, path = match.groups()
    path = path or b"/"
    head.target = path if path[:1] == b"/" else b"/" + path
    if authority != head.authority:
        head.block = b"Host: " + authority + b"\r\n" + _without(head.block, {b"host"})
        head.authority = authority


def _options(values: list[bytes]) -> set[bytes]:
    return {option.strip(b" \t").lower() for value in values for option in value.split(b",")}


def _without(block: bytes, names: set[bytes]) -> bytes:
    return b"".join(
        line + b"\r\n" for line in block.split(b"\r\n") if line and line.partition(b":")[0].lower() not in names
    )


def _syntax_error(wire: bytes) -> HeadError:
    """Return an error for a head that the expression does not match."""
    line = wire.partition(b"\r\n")[0]
    if not re.fullmatch(rb"(" + _TOKEN + rb"+) ([\x21-\x7e\x80-\xff]+) HTTP/\d\.\d", line):
        return HeadError(400, "invalid request line")
    return HeadError(400, "invalid header fields")


def response_end(data: bytes) -> int:
    """Return the size of a response's head, whose lines may end with LF alone; 0 if it is incomplete."""
    end = _blank_line(data)
    return end.end() if end is not None else 0


def read_response(wire: bytes) -> ResponseHead | None:
    """Parse the head of a response; None if it is not HTTP/1.

    Lines may end with LF alone, as in Go and nginx (RFC 9112 §2.2): the head is never forwarded as received.
    """
    match = _response(wire) or _response(_line_end(b"\r\n", wire))
    if match is None:
        return None
    wire = match[0]
    minor, code, reason, block = match.groups()
    status, length, keep_alive, keep_alive_seconds, upgrade = int(code), UNTIL_CLOSE, minor == b"1", 0, b""
    lengths: set[bytes] = set()
    fields = _response_fields(wire)
    for name, value in fields:
        name = name.lower()
        value = value.rstrip(b" \t")
        if name == b"content-length":
            lengths.add(value)
        elif name == b"connection":
            options = _options([value])
            keep_alive = b"close" not in options and (keep_alive or b"keep-alive" in options)
            nominated = options - _HARMLESS_OPTIONS - _NEVER_NOMINATED
            if nominated:
                block = _without(block, nominated)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or length == CHUNKED:
                return None
            length = CHUNKED
        elif name == b"keep-alive":
            keep_alive_seconds = _keep_alive_seconds(value)
        elif name == b"upgrade":
            upgrade = value
    if lengths:
        declared = lengths.pop()
        if lengths or not _digits(declared):
            return None
        if length == CHUNKED:
            keep_alive = False  # RFC 9112 §6.3: chunked has precedence, and the peer is not to be trusted
        else:
            length = int(declared)
    if fields:
        block = _strip_response(b"", b"\r\n" + block)[2:]
    head = ResponseHead(status, reason or b"", block, length)
    head.wire, head.keep_alive, head.keep_alive_seconds, head.upgrade = wire, keep_alive, keep_alive_seconds, upgrade
    return head


def _keep_alive_seconds(value: bytes) -> int:
    timeout = _keep_alive_timeout(value)
    return int(timeout[1]) if timeout else 0


def valid_fields(block: bytes) -> bool:
    """Whether a block of field lines is well-formed; for trailers and for fields from HTTP/2."""
    return _fields_only(block + b"\r\n") is not None


def split_fields(block: bytes) -> list[tuple[bytes, bytes]]:
    """Split a valid block into (name, value) pairs, without blanks around the values."""
    return [(name, value.rstrip(b" \t")) for name, value in _split_fields(block)]
