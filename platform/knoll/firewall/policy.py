"""What the firewall is told by the autoscaler. Pure."""

from typing import Literal

import msgspec

from knoll.config.egress import EgressRule

EgressVerdict = Literal["allow", "deny"]
PATH = "/policy"
"""PUT there replaces the whole policy; the answer comes when the kernel has it."""


class NamespaceEgress(msgspec.Struct, frozen=True, kw_only=True):
    """What the instances of one namespace reach, where that differs from the others."""

    egress: EgressVerdict
    allow: tuple[EgressRule, ...] = ()
    """What they reach in any case: the whole list."""
    addresses: tuple[str, ...] = ()
    """Of its instances: IPv4, each in one namespace only."""


class FirewallPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What is filtered on this machine."""

    isolated: bool = True
    """False: no packet is."""
    bridge: str = ""
    """Linux bridge of the instances' network."""
    subnets: tuple[str, ...] = ()
    """Of that network: IPv4, in CIDR form."""
    egress: EgressVerdict = "allow"
    """Whether instances reach the Internet."""
    allow: tuple[EgressRule, ...] = ()
    """What instances reach in any case."""
    build_allow: tuple[EgressRule, ...] = ()
    """What builds reach besides the Internet."""
    namespaces: dict[str, NamespaceEgress] = {}
    """By name: those that differ."""

    def destinations(self) -> set[EgressRule]:
        """Every destination that is named anywhere."""
        lists = [self.allow, self.build_allow, *(each.allow for each in self.namespaces.values())]
        return {destination for each in lists for destination in each}


class AppliedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a policy that the kernel has."""

    unresolved: tuple[str, ...] = ()
    """Host names that could not be looked up; they are tried again."""
