"""Which registries a namespace may contact: what is refused by its name, and what after its resolution."""

from collections.abc import Collection
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.images.access import ImageAccess, registry_host
from knoll.config.security import SecurityConfig
from knoll.values.destinations import Destinations, IPAddress, is_internal
from knoll.values.errors import ImageError

PRIVATE = "must not be an address of this machine or of a private or link-local network"
IN_FULL = "must be a host name or a complete IP address"
UNKNOWN = "must have an address"

NAMES = {
    "registry.example": ("1.1.1.1", "2606:4700::1"),
    "rebound.example": ("127.0.0.1",),
    "half.example": ("1.1.1.1", "10.0.0.7"),
    "metadata.example": ("169.254.169.254",),
    "mapped.example": ("::ffff:127.0.0.1",),
    "unique-local.example": ("fd00::5",),
    "git.corp": ("10.9.9.9",),
}
"""What a resolver answers."""


def resolve(host: str) -> Collection[IPAddress]:
    return [ip_address(text) for text in NAMES.get(host, ())]


def problem(access: ImageAccess, reference: str) -> str:
    """Why the registry of an image is refused; empty when it is not. The wording around the reason is the same."""
    try:
        access.check_registry(reference, resolve)
    except ImageError as error:
        before, after = (
            f'image "{reference}": the registry ',
            ", unless registry-destinations in config-security allows it",
        )
        text = str(error)
        assert text.startswith(before), text
        assert text.endswith(after), text
        return text.removeprefix(before).removesuffix(after)
    return ""


def tenant(allowed: str | None = None) -> ImageAccess:
    """A namespace on a platform with tenants. Args: allowed: registry-destinations; None is `auto`."""
    destinations = None if allowed is None else Destinations.parse(allowed)
    return ImageAccess(tenants=True, security=SecurityConfig(registry_destinations=destinations))


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        pytest.param("golang:1.24", "", id="Docker Hub by default"),
        pytest.param("team/app:v1", "", id="a repository of Docker Hub"),
        pytest.param("registry.example/app", "", id="a name with public addresses"),
        pytest.param("registry.example:5000/app:v1", "", id="and a port"),
        pytest.param("1.1.1.1:5000/app", "", id="a public address"),
        pytest.param("127.0.0.1:19099/x:y", PRIVATE, id="loopback"),
        pytest.param("127.8.8.8/x", PRIVATE, id="all of loopback"),
        pytest.param("[::1]:5000/x", PRIVATE, id="loopback in IPv6"),
        pytest.param("[::ffff:127.0.0.1]:5000/x", PRIVATE, id="loopback, IPv4 in IPv6"),
        pytest.param("0.0.0.0:5000/x", PRIVATE, id="this host"),
        pytest.param("10.0.0.7:5000/x", PRIVATE, id="a private network"),
        pytest.param("172.17.0.1:5000/x", PRIVATE, id="the engine's bridge"),
        pytest.param("169.254.169.254/x", PRIVATE, id="link-local"),
        pytest.param("localhost/x", PRIVATE, id="localhost"),
        pytest.param("LocalHost:5000/x", PRIVATE, id="localhost in any case"),
        pytest.param("api.default.localhost:80/x", PRIVATE, id="a name under localhost"),
        pytest.param("127.1:5000/x", IN_FULL, id="an address in short"),
        pytest.param("2130706433:80/x", IN_FULL, id="an address as one number"),
        pytest.param("0x7f000001:80/x", IN_FULL, id="an address in hexadecimal"),
        pytest.param("rebound.example/x", PRIVATE, id="a name that resolves to loopback"),
        pytest.param("half.example/x", PRIVATE, id="a name with one private address among public ones"),
        pytest.param("metadata.example/x", PRIVATE, id="a name that resolves to link-local"),
        pytest.param("mapped.example/x", PRIVATE, id="a name that resolves to IPv4 in IPv6"),
        pytest.param("unique-local.example/x", PRIVATE, id="a name that resolves to a private IPv6 network"),
        pytest.param("unknown.example/x", UNKNOWN, id="a name without address"),
    ],
)
def test_a_tenants_registry_is_on_the_internet(reference: str, reason: str) -> None:
    assert problem(tenant(), reference) == reason


@pytest.mark.parametrize("port", ["", ":22", ":5000", ":65535"])
@pytest.mark.parametrize("suffix", ["", ":y", "@sha256:" + "a" * 64])
@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.7", "rebound.example"])
def test_the_refusal_is_the_same_at_every_port_and_name(host: str, port: str, suffix: str) -> None:
    assert problem(tenant(), f"{host}{port}/x{suffix}") == PRIVATE


@pytest.mark.parametrize(
    ("allowed", "passes", "refused"),
    [
        ("10.0.0.0/8", ("10.0.0.7:5000/x", "half.example/x", "git.corp/x"), ("127.0.0.1:5000/x", "192.168.0.1/x")),
        ("10.0.0.7", ("10.0.0.7/x", "[::ffff:10.0.0.7]/x", "half.example/x"), ("10.0.0.8/x", "git.corp/x")),
        ("git.corp", ("git.corp/x", "git.corp:5000/x", "GIT.corp/x"), ("10.9.9.9/x", "a.git.corp/x", "xgit.corp/x")),
        (".corp", ("git.corp/x", "a.b.corp/x"), ("rebound.example/x",)),
        ("localhost", ("localhost:5000/x",), ("127.0.0.1:5000/x", "a.localhost/x")),
        ("*", ("127.0.0.1:5000/x", "localhost/x", "unknown.example/x", "127.1:80/x"), ()),
        ("", ("registry.example/x",), ("127.0.0.1/x", "git.corp/x")),
    ],
)  # fmt: skip
def test_an_operator_allows_registries(allowed: str, passes: tuple[str, ...], refused: tuple[str, ...]) -> None:
    assert [reference for reference in passes if problem(tenant(allowed), reference)] == []
    assert [reference for reference in refused if not problem(tenant(allowed), reference)] == []


def test_the_only_user_of_a_platform_may_ask_every_registry_unless_the_list_says_otherwise() -> None:
    for reference in ("127.0.0.1:5000/x", "rebound.example/x", "unknown.example/x"):
        assert problem(ImageAccess(), reference) == ""
    owner = ImageAccess(security=SecurityConfig(registry_destinations=Destinations.parse("10.0.0.0/8")))
    assert problem(owner, "10.0.0.7/x") == ""
    assert problem(owner, "127.0.0.1:5000/x") == PRIVATE


@pytest.mark.parametrize("path", ["knoll-images/knoll:x", "knoll-images/other@sha256:" + "a" * 64])
def test_the_platforms_own_registry_is_closed_to_users_whatever_is_allowed(path: str) -> None:
    for access in (ImageAccess(), tenant("*")):
        with pytest.raises(ImageError, match="the platform's own registry"):
            access.check_registry(f"127.0.0.1:7445/{path}", resolve)


@given(st.lists(st.ip_addresses(), min_size=1, max_size=4))
def test_a_name_passes_only_when_all_of_its_addresses_do(addresses: list[IPAddress]) -> None:
    access, reference = tenant(), "some.example:5000/x"
    if any(is_internal(address) for address in addresses):
        with pytest.raises(ImageError, match=PRIVATE):
            access.check_registry(reference, lambda _: addresses)
    else:
        access.check_registry(reference, lambda _: addresses)


@pytest.mark.parametrize(
    ("reference", "host"),
    [
        ("golang", ""),
        ("team/app:5000", ""),
        ("registry.example/team/app:v1", "registry.example"),
        ("registry.example:5000/app", "registry.example"),
        ("[fd00::5]/app", "[fd00::5]"),
        ("[fd00::5]:5000/app", "[fd00::5]"),
    ],
)
def test_the_host_of_a_registry(reference: str, host: str) -> None:
    assert registry_host(reference) == host
