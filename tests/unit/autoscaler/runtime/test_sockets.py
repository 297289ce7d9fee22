"""Listening sockets of an instance: parsed from the kernel's tables, and explained to the user."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.runtime.model import Listener
from autoscaler.runtime.sockets import hint, loopback_family, parse

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B00007F:8E35 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0100007F:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
   3: 020011AC:0BB8 010011AC:D431 01 00000000:00000000 00:00000000 00000000     0        0 4 1 0 20 4 30 10 -1
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue rx_queue tr
   0: 00000000000000000000000000000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
   1: 00000000000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
   2: 0000000000000000FFFF00000100007F:1F93 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
"""


def test_listening_sockets_are_read_and_dockers_name_server_is_left_out() -> None:
    assert parse(TCP + TCP6) == (
        Listener("0.0.0.0", 3000),
        Listener("::", 8081),
        Listener("::1", 8082),
        Listener("127.0.0.1", 8083),
        Listener("127.0.0.1", 9000),
    )


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_address_is_read_as_the_kernel_writes_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    integers = struct.unpack(f"<{len(address.packed) // 4}I", address.packed)
    text = "".join(f"{word:08X}" for word in integers)
    listeners = parse(f"  0: {text}:{port:04X} 00000000:0000 0A 0 0 0")
    if str(address) != "127.0.0.11":
        mapped = getattr(address, "ipv4_mapped", None)
        assert listeners == (Listener(str(mapped or address), port),)


@given(st.text())
def test_other_text_has_no_sockets_and_no_errors(text: str) -> None:
    parse(text)


@pytest.mark.parametrize(
    ("addresses", "family"),
    [
        ((), None),
        (("127.0.0.1",), "4"),
        (("::1",), "6"),
        (("::1", "127.0.0.1"), "4"),
        (("127.0.0.1", "0.0.0.0"), None),
        (("127.0.0.1", "172.17.0.2"), None),
        (("127.0.0.9",), None),
        (("::",), None),
    ],
)
def test_a_port_is_forwarded_only_when_it_listens_only_on_loopback(
    addresses: tuple[str, ...], family: str | None
) -> None:
    listeners = [*(Listener(listener, 8080) for listener in addresses), Listener("127.0.0.1", 9000)]
    assert loopback_family(8080, listeners) == family


def test_the_hint_names_where_the_container_listens_and_what_to_do() -> None:
    listeners = [Listener("::", 3000), Listener("0.0.0.0", 3000), Listener("127.0.0.1", 9000)]
    assert hint(8080, listeners) == (
        "nothing listens on 8080; the container listens on 3000 and 127.0.0.1:9000; "
        "set ports[0].containerPort or read $PORT"
    )
    assert hint(8080, [Listener("::1", 5000)]) == (
        "nothing listens on 8080; the container listens on [::1]:5000; set ports[0].containerPort or read $PORT"
    )
    assert hint(8080, []) == ""
