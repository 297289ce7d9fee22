"""Policies of every sort, for properties."""

from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from hypothesis import strategies as st

from knoll.config.egress import EgressRule
from knoll.firewall.policy import FirewallPolicy, NamespaceEgress

HOSTS = ("db.example.com", "git.example.com", "registry")
_NUMBERS = st.integers(0, 2**32 - 1)
_PORTS = st.none() | st.integers(1, 65535)
_VERDICTS: st.SearchStrategy[Literal["allow", "deny"]] = st.sampled_from(["allow", "deny"])


@st.composite
def networks(draw: st.DrawFn) -> str:
    """In CIDR form, often one within another."""
    base = draw(_NUMBERS | st.just(int(IPv4Address("192.168.7.7"))))
    return str(IPv4Network((base, draw(st.integers(0, 32))), strict=False))


def destinations() -> st.SearchStrategy[tuple[EgressRule, ...]]:
    rules = st.builds(EgressRule, networks() | st.sampled_from(HOSTS), _PORTS)
    return st.lists(rules, max_size=6, unique=True).map(tuple)


def resolutions() -> st.SearchStrategy[dict[str, tuple[str, ...]]]:
    """Host names and their addresses; some have none."""
    addresses = st.lists(_NUMBERS.map(lambda number: str(IPv4Address(number))), min_size=1, max_size=3).map(tuple)
    return st.dictionaries(st.sampled_from(HOSTS), addresses)


@st.composite
def policies(draw: st.DrawFn) -> FirewallPolicy:
    """Isolated ones, with up to three namespaces whose instances share no address."""
    ends = draw(st.lists(st.integers(1, 60000), max_size=8, unique=True))
    addresses = [f"10.201.{128 + end // 1000}.{end % 250 + 1}" for end in ends]
    addresses = list(dict.fromkeys(addresses))
    namespaces = {}
    for name in draw(st.lists(st.sampled_from(["a", "b-2", "c"]), unique=True)):
        taken = draw(st.integers(0, len(addresses)))
        own, addresses = addresses[:taken], addresses[taken:]
        namespaces[name] = NamespaceEgress(egress=draw(_VERDICTS), allow=draw(destinations()), addresses=tuple(own))
    return FirewallPolicy(
        bridge="instances",
        subnets=("10.201.0.0/16",),
        egress=draw(_VERDICTS),
        allow=draw(destinations()),
        build_allow=draw(destinations()),
        namespaces=namespaces,
    )
