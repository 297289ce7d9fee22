"""Heads: which are refused with which status, and what reaches an instance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.wire.http1_heads import CHUNKED, MAX_HEAD, UNTIL_CLOSE, HeadError, RequestHead, upstream_head
from activator.wire.http1_parser import (
    MAX_FIELDS,
    MAX_TARGET,
    read_plain_request,
    read_request,
    read_response,
    response_end,
    valid_fields,
)

H = b"Host: a\r\n"

REFUSED = {
    "no request line": (b"\r\n\r\n", 400),
    "no target": (b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two blanks in the request line": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "blank before the method": (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "blank after the version": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    "tab in the request line": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "blank in the target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "method that is no token": (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "endless method": (b"G" * 65 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    "lower case version": (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    "long target": (b"GET /" + b"a" * MAX_TARGET + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "many fields": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * MAX_FIELDS + b"\r\n", 431),
    "bare LF": (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    "bare CR": (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
    "obs-fold": (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
    "obs-fold first": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "blank before the colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    "tab before the colon": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 3\r\n\r\n", 400),
    "no colon": (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    "empty name": (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
    "NUL in a value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
    "control byte in a value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x1b\r\n\r\n", 400),
    "DEL in a value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400),
    "byte above ASCII in a name": (b"GET / HTTP/1.1\r\nHost: a\r\n\xe9: b\r\n\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\nX: a\r\n\r\n", 400),
    "empty Host": (b"GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "two Hosts, one in capitals": (b"GET / HTTP/1.1\r\nHost: a\r\nHOST: b\r\n\r\n", 400),
    "Host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "Host with a user": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    "Host with a comma and blank": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "Host with a port that is no number": (b"GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", 400),
    "two lengths that differ": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "two lengths that agree": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
    "lengths in a list": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
    "signed length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
    "negative length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    "hexadecimal length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", 400),
    "length with an underscore": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n", 400),
    "empty length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", 400),
    "endless length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
    "length and coding": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "two codings": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    "gzip, chunked": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "chunked, gzip": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 501),
    "identity": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501),
    "xchunked": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
    "chunked with a vertical tab": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400),
    "quoted coding": (b'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "chunked"\r\n\r\n', 400),
    "coding in HTTP/1.0": (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "CONNECT of a path": (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "CONNECT of a URL": (b"CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "authority-form": (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
    "authority-form of GET": (b"GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400),
    "asterisk-form of GET": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "absolute-form of ftp": (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "absolute-form with a user": (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "absolute-form without a host": (b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "unknown expectation": (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: cake\r\n\r\n", 417),
    "Connection names Host": (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", 400),
    "Connection names Content-Length": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: content-length\r\n\r\n", 400),
}  # fmt: skip


@pytest.mark.parametrize(("wire", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_what_can_be_misunderstood_is_refused(wire: bytes, status: int) -> None:
    with pytest.raises(HeadError) as error:
        read_request(wire)
    assert error.value.status == status


@pytest.mark.parametrize(
    ("wire", "outgoing"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"),
        (
            b"GET http://b:1/x?y HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n",
            b"GET /x?y HTTP/1.1\r\nHost: b:1\r\nX: 1\r\n\r\n",
        ),
        (b"GET http://b?y HTTP/1.1\r\nHost: b\r\n\r\n", b"GET /?y HTTP/1.1\r\nHost: b\r\n\r\n"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nHost: a\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            b"GET / HTTP/1.1\r\nConnection: Keep-Alive, X-B\r\nx-b: 1\r\nX-Bc: 2\r\nHost: a\r\nKeep-Alive: 1\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-Bc: 2\r\nHost: a\r\n\r\n",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AA\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTE: trailers, gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: TE\r\nTE: trailers\r\n\r\n",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nK-Original-Host: b\r\nKnative-Serving-Tag: t\r\nK-Proxy-Request: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ],
)
def test_the_instance_gets_one_plain_message(wire: bytes, outgoing: bytes) -> None:
    assert upstream_head(read_request(wire), b"") == outgoing


tokens = st.from_regex(rb"\A[A-Za-z][A-Za-z0-9-]{0,20}\Z")
values = st.from_regex(rb"\A[!-~\x80-\xff]([\t -~\x80-\xff]{0,30}[!-~])?\Z")


@given(st.lists(st.tuples(tokens, values), max_size=20))
def test_a_composed_head_reads_as_itself(fields: list[tuple[bytes, bytes]]) -> None:
    wire = b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%b: %b\r\n" % field for field in fields) + b"\r\n"
    once = upstream_head(read_request(wire), b"")
    assert once == wire
    assert upstream_head(read_request(once), b"") == once


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for wire in (data, b"GET / HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n"):
        try:
            out = upstream_head(read_request(wire), b"")
        except HeadError:
            continue
        assert out.endswith(b"\r\n\r\n")
        assert out.count(b"\r\n\r\n") == 1
        assert out.count(b"\n") == out.count(b"\r\n") == out.count(b"\r")
    read_response(data)


@pytest.mark.parametrize(
    ("wire", "length", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 3, True),
        (b"HTTP/1.1 200\r\ncontent-length: 3\r\nConnection: close\r\n\r\n", 3, False),
        (b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", CHUNKED, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", CHUNKED, False),
        (b"HTTP/1.0 200 OK\r\n\r\n", UNTIL_CLOSE, False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", 0, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", 3, True),
    ],
)
def test_responses(wire: bytes, length: int, keep_alive: bool) -> None:
    head = read_response(wire)
    assert head is not None
    assert (head.length, head.keep_alive) == (length, keep_alive)
    assert head.plain.lower().count(b"content-length") + head.plain.lower().count(b"transfer-encoding") == 1
    assert b"connection" not in head.plain.lower()


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a\0b\r\n\r\n",
    ],
)
def test_broken_responses_are_none(wire: bytes) -> None:
    assert read_response(wire) is None


@pytest.mark.parametrize(
    "lines",
    [
        b"Proxy: http://evil/",
        b"PROXY: http://evil/",
        b"Proxy-Connection: close",
        b"Knative-Serving-Revision: other",
        b"knative-serving-namespace: other",
        b"Knative-Serving-Default-Route: true",
        b"X-Forwarded-For: 1.2.3.4",
        b"x-forwarded-port: 1",
        b"X-Forwarded-Anything: 1",
        b"X-Real-IP: 1.2.3.4",
        b"Forwarded: for=1.2.3.4",
        b"Keep-Alive: timeout=5",
        b"TE: gzip",
        b"Trailer: X",
        b"Proxy-Authorization: Basic eDp5",
        b"X_Forwarded_For: 1.2.3.4",
        b"Content_Length: 3",
        b"_: 1",
        b"A_B: 1\r\nC_D: 2",
    ],
)
def test_fields_that_clients_must_not_set_are_removed(lines: bytes) -> None:
    wire = b"GET / HTTP/1.1\r\nHost: a\r\nX-A: some_thing\r\n" + lines + b"\r\nX-B: 1\r\n\r\n"
    outgoing = upstream_head(read_request(wire), b"")
    assert outgoing == b"GET / HTTP/1.1\r\nHost: a\r\nX-A: some_thing\r\nX-B: 1\r\n\r\n"


STRIPPED = [
    "keep-alive", "te", "trailer", "upgrade", "http2-settings", "proxy", "proxy-connection", "proxy-authenticate",
    "proxy-authorization", "k-proxy-request", "k-original-host", "k-network-probe", "k-network-hash",
    "k-passthrough-lb", "knative-serving-revision", "forwarded", "x-forwarded-for", "x-real-ip",
]  # fmt: skip


@given(st.sampled_from(STRIPPED), st.data())
def test_a_field_is_stripped_in_any_spelling_but_not_one_with_a_longer_or_shorter_name(
    name: str, data: st.DataObject
) -> None:
    upper = data.draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
    spelled = "".join(c.upper() if big else c for c, big in zip(name, upper, strict=True)).encode()
    wire = b"GET / HTTP/1.1\r\nHost: a\r\n%b: v\r\n\r\n"
    assert upstream_head(read_request(wire % spelled), b"") == b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    prefixes = ("x-forwarded-", "knative-serving-")
    others = [spelled + b"x"] * (not name.startswith(prefixes)) + [b"a" + spelled, spelled[:-1]]
    for other in others:
        if other.lower().decode() not in STRIPPED and not other.lower().decode().startswith(prefixes):
            assert upstream_head(read_request(wire % other), b"") == wire % other


PLAIN = {
    "Host alone": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "blanks around the host": b"GET / HTTP/1.1\r\nhOST:\t a:80 \t\r\n\r\n",
    "Host last": b"HEAD /a?b HTTP/1.1\r\nX: 1\r\nCookie: a=b\r\nHost: a\r\n\r\n",
    "names that begin like interpreted ones": (
        b"POST /a HTTP/1.1\r\nCookie: 1\r\nExpires: 1\r\nFrom: a\r\nHost: a\r\nHosts: b\r\nKeep: 1\r\nPragma: a\r\n"
        b"Traceparent: 1\r\nTea: 1\r\nUser-Agent: a\r\nX-Request-Id: 1\r\nX-Real-IPs: 1\r\nContent-Type: a\r\n\r\n"
    ),
    "as many fields as are allowed": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * (MAX_FIELDS - 1) + b"\r\n",
    "as long a target as is allowed": b"GET /" + b"a" * (MAX_TARGET - 1) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
}
NOT_PLAIN = {
    **{name: wire for name, (wire, _) in REFUSED.items()},
    **{f"{name} is interpreted": b"GET / HTTP/1.1\r\nHost: a\r\n%b: 1\r\n\r\n" % name.encode() for name in STRIPPED},
    "Content-Length": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "Expect": b"GET / HTTP/1.1\r\nExpect: 100-continue\r\nHost: a\r\n\r\n",
    "Knative-Serving-Tag": b"GET / HTTP/1.1\r\nHost: a\r\nKnative-Serving-Tag: a\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
    "absolute-form": b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "underscore": b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: 1\r\n\r\n",
    "a second request behind it": PLAIN["Host alone"] * 2,
    "a body behind it": PLAIN["Host alone"] + b"a\r\n\r\n",
    "an empty line before it": b"\r\n" + PLAIN["Host alone"],
    "incomplete": PLAIN["Host alone"][:-1],
    "too long": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * MAX_HEAD + b"\r\n\r\n",
}


def contents(head: RequestHead) -> dict[str, object]:
    return {name: getattr(head, name) for name in vars(RequestHead) if not name.startswith("__")}


@pytest.mark.parametrize("wire", PLAIN.values(), ids=PLAIN)
def test_a_head_with_nothing_to_interpret_is_read_in_one_step(wire: bytes) -> None:
    head = read_plain_request(wire)
    assert head is not None
    assert contents(head) == contents(read_request(wire))
    assert upstream_head(head, b"") == wire, "what is sent to an instance is what was received"


@pytest.mark.parametrize("wire", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_no_other_head_is_read_in_one_step(wire: bytes) -> None:
    assert read_plain_request(wire) is None
    assert read_plain_request(wire, b"a") is None


heads = st.lists(
    st.sampled_from(
        [b"Host: a", b"Host:  b:1 ", b"HOST: a/b", b"X: 1", b"Te: a", b"Tea: \t", b"x_y: 1", b"", b" a", b"a\r"]
    ),
    max_size=6,
)


@given(st.sampled_from([b"GET / ", b"POST /a ", b"HEAD * ", b"G(T / ", b"CONNECT a:1 "]), heads, st.binary(max_size=6))
def test_reading_in_one_step_never_differs(start: bytes, lines: list[bytes], rest: bytes) -> None:
    wire = start + b"HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + rest
    head = read_plain_request(wire)
    if head is not None:
        assert contents(head) == contents(read_request(wire))
        assert upstream_head(head, b"F: 1\r\n") == wire[:-2] + b"F: 1\r\n\r\n"


def test_names_with_underscores_pass_or_are_refused_where_it_is_configured() -> None:
    wire = b"GET / HTTP/1.1\r\nHost: a\r\napi_key: x\r\n\r\n"
    assert upstream_head(read_request(wire, "allow"), b"") == wire
    with pytest.raises(HeadError, match="underscore") as error:
        read_request(wire, "reject")
    assert error.value.status == 400
    plain = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a_b=c_d\r\n\r\n"
    assert upstream_head(read_request(plain, "reject"), b"") == plain


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\nX: 1\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\nX: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\nX: 1\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: 1\r\n\n",
    ],
)
def test_lines_of_a_response_may_end_with_bare_lf(wire: bytes) -> None:
    assert response_end(wire + b"ab\r\n\r\n") == len(wire)
    head = read_response(wire)
    assert head is not None
    assert head.plain == b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 2\r\n\r\n"


@given(st.binary(max_size=200))
def test_a_response_that_is_passed_on_has_whole_lines(data: bytes) -> None:
    head = read_response(b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n")
    if head is not None:
        assert head.plain.endswith(b"\r\n\r\n")
        assert head.plain.count(b"\r\n\r\n") == 1
        assert head.plain.count(b"\n") == head.plain.count(b"\r\n") == head.plain.count(b"\r")


def test_fields_of_trailers_are_checked() -> None:
    assert valid_fields(b"A: b\r\nC: d\r\n")
    assert not valid_fields(b"A: b\r\nC d\r\n")
    assert not valid_fields(b"A: b\nC: d\r\n")
