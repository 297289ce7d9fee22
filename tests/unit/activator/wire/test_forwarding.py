"""Fields that tell an instance where a request came from."""

from ipaddress import ip_network

import pytest

from activator.wire.connection_limit import ConnectionLimiter
from activator.wire.forwarding import Peer, Proxies
from activator.wire.http1_parser import read_request, split_fields

PEER = Peer(b"10.1.1.1")
LIES = b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n"


def fields_for(lines: bytes, proxies: Proxies, peer: Peer = PEER) -> dict[bytes, bytes]:
    head = read_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
    fields = split_fields(proxies.fields(peer, head))
    assert len(dict(fields)) == len(fields), "each field comes once"
    return dict(fields)


def trusting(*networks: str) -> Proxies:
    return Proxies([ip_network(network) for network in networks])


@pytest.mark.parametrize("proxies", [Proxies(), trusting("10.2.0.0/16", "::/0")], ids=["none", "others"])
def test_forwarding_headers_of_a_client_are_ignored(proxies: Proxies) -> None:
    assert (
        fields_for(LIES, proxies)
        == fields_for(b"", proxies)
        == {
            b"X-Forwarded-For": b"10.1.1.1",
            b"X-Forwarded-Proto": b"http",
            b"X-Forwarded-Host": b"a",
            b"Forwarded": b"for=10.1.1.1;host=a;proto=http",
        }
    )


@pytest.mark.parametrize(
    ("lines", "for_", "forwarded"),
    [
        (b"", b"10.1.1.1", b"for=10.1.1.1;host=a;proto=http"),
        (b"X-Forwarded-For: 1.1.1.1, ::1\r\n", b"1.1.1.1, ::1, 10.1.1.1",
         b'for=1.1.1.1;host=a;proto=http, for="[::1]", for=10.1.1.1'),
        (b"X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n", b"1.1.1.1, 2.2.2.2, 10.1.1.1",
         b"for=1.1.1.1;host=a;proto=http, for=2.2.2.2, for=10.1.1.1"),
        (b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n", b"10.1.1.1", b"for=10.1.1.1;host=b;proto=https"),
        (b"Forwarded: for=7.7.7.7\r\n", b"10.1.1.1", b"for=7.7.7.7"),
    ],
)  # fmt: skip
def test_forwarding_headers_of_a_trusted_proxy_are_kept(lines: bytes, for_: bytes, forwarded: bytes) -> None:
    fields = fields_for(lines, trusting("10.0.0.0/8"))
    assert (fields[b"X-Forwarded-For"], fields[b"Forwarded"]) == (for_, forwarded)


def test_further_fields_of_a_trusted_proxy_are_kept() -> None:
    fields = fields_for(b"X-Real-IP: 1.1.1.1\r\nX-Forwarded-Port: 443\r\n", trusting("10.1.1.1/32"))
    assert (fields[b"X-Real-Ip"], fields[b"X-Forwarded-Port"]) == (b"1.1.1.1", b"443")


@pytest.mark.parametrize(
    ("address", "trusted"),
    [(b"10.1.1.1", True), (b"::ffff:10.1.1.1", True), (b"10.2.1.1", False), (b"fd00::1", True), (b"unknown", False)],
)
def test_networks_hold_addresses_of_both_kinds(address: bytes, trusted: bool) -> None:
    proxies = trusting("10.1.0.0/16", "fd00::/8")
    assert [proxies.trusts(address) for _ in range(2)] == [trusted, trusted]


def test_the_scheme_of_a_proxy_counts_only_if_it_is_trusted() -> None:
    head = read_request(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: HTTPS, http\r\n\r\n")
    assert Proxies().scheme(PEER, head) == b"http"
    assert trusting("10.1.1.1").scheme(PEER, head) == b"https"


def test_an_address_has_so_many_connections_and_no_more() -> None:
    connection_limit = ConnectionLimiter(2)
    assert [
        connection_limit.enter(b"a"),
        connection_limit.enter(b"a"),
        connection_limit.enter(b"a"),
        connection_limit.enter(b"b"),
    ] == [True, True, False, True]
    connection_limit.leave(b"a")
    assert [connection_limit.enter(b"a"), connection_limit.enter(b"a")] == [True, False]


def test_a_trusted_proxy_has_as_many_connections_as_it_needs() -> None:
    connection_limit = ConnectionLimiter(1)
    connection_limit.proxies = trusting("10.0.0.0/8")
    assert [connection_limit.enter(b"10.1.1.1") for _ in range(3)] == [True] * 3
    assert [connection_limit.enter(b"11.1.1.1") for _ in range(2)] == [True, False]


def test_no_bound_is_no_bound() -> None:
    connection_limit = ConnectionLimiter()
    assert all(connection_limit.enter(b"a") for _ in range(1000))
