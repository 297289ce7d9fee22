"""Which addresses and hosts count as this machine's and its networks', and which are allowed."""

import contextlib
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.values.destinations import INTERNAL_ADDRESS, Destinations, host_problem, is_internal

NOTHING = Destinations()


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
     "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1",
     "64:ff9b::7f00:1", "2002:7f00:1::"],
)  # fmt: skip
def test_internal_addresses(text: str) -> None:
    assert is_internal(ip_address(text))


@pytest.mark.parametrize("text", ["1.1.1.1", "172.32.0.1", "11.0.0.1", "2606:4700::1", "::ffff:1.1.1.1", "100.128.0.1"])
def test_addresses_of_the_internet(text: str) -> None:
    assert not is_internal(ip_address(text))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_wrapped_in_ipv6_counts_as_itself(address: IPv4Address) -> None:
    number = int(address)
    for wrapped in (IPv6Address(0xFFFF << 32 | number), IPv6Address((0x64FF9B << 96) | number)):
        assert is_internal(wrapped) == is_internal(address)


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("example.com", ""),
        ("127.0.0.1", INTERNAL_ADDRESS),
        ("[::1]", INTERNAL_ADDRESS),
        ("[::ffff:10.0.0.1]", INTERNAL_ADDRESS),
        ("localhost", INTERNAL_ADDRESS),
        ("LOCALHOST.", INTERNAL_ADDRESS),
        ("shop.sec-b.localhost", INTERNAL_ADDRESS),
        ("127.1", "must be a host name or a complete IP address"),
        ("2130706433", "must be a host name or a complete IP address"),
        ("0x7f000001", "must be a host name or a complete IP address"),
        ("1.1.1.1", ""),
    ],
)
def test_hosts_as_they_are_written(host: str, problem: str) -> None:
    assert host_problem(host, NOTHING) == problem


def test_an_operator_allows_ranges_addresses_and_names() -> None:
    allowed = Destinations.parse("10.1.0.0/16, 192.168.7.7,[fd00::5], git.corp , .internal.corp")
    for text in ("10.1.9.9", "192.168.7.7", "fd00::5", "::ffff:10.1.2.3"):
        assert allowed.allow_address(ip_address(text)), text
    for text in ("10.2.0.1", "192.168.7.8", "127.0.0.1"):
        assert not allowed.allow_address(ip_address(text)), text
    assert allowed.allow_all("git.corp", [ip_address("10.9.9.9")])
    assert allowed.allow_all("a.b.internal.corp", [ip_address("10.9.9.9")])
    assert not allowed.allow_all("xgit.corp", [ip_address("10.9.9.9")])
    assert not allowed.allow_all("mixed.example", [ip_address("1.1.1.1"), ip_address("10.9.9.9")])
    assert host_problem("10.1.0.1", allowed) == ""
    assert Destinations.parse("*").allow_address(ip_address("127.0.0.1"))


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "a b", "http://x", "a/b", "::1/x"])
def test_what_is_no_destination_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="neither an address"):
        Destinations.parse(text)


@given(st.text(alphabet="abc01./:,*[]- \n") | st.text())
def test_any_text_gives_destinations_or_a_reason(text: str) -> None:
    with contextlib.suppress(ValueError):
        parsed = Destinations.parse(text)
        assert parsed.everything == ("*" in [part.strip() for part in text.split(",")])
