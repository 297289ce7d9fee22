"""The policy that the autoscaler sends to the firewall. Pure."""

from typing import Literal

import msgspec

from knoll.config.egress import EgressRule

EgressVerdict = Literal["allow", "deny"]
PATH = "/policy"
"""PUT replaces the whole policy; the response is sent when the kernel has applied it."""


class NamespaceEgress(msgspec.Struct, frozen=True, kw_only=True):
    """What the instances of one namespace can reach, if it differs from the default."""

    egress: EgressVerdict
    allow: tuple[EgressRule, ...] = ()
    """The complete list of destinations that they can always reach."""
    addresses: tuple[str, ...] = ()
    """IPv4 addresses of its instances; each is in one namespace only."""


class FirewallPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What is filtered on this machine."""

    isolated: bool = True
    """If false, no packet is filtered."""
    bridge: str = ""
    """Linux bridge of the instances' network."""
    subnets: tuple[str, ...] = ()
    """IPv4 subnets of that network, in CIDR form."""
    egress: EgressVerdict = "allow"
    """Whether instances can reach the Internet."""
    allow: tuple[EgressRule, ...] = ()
    """Destinations that instances can always reach."""
    build_allow: tuple[EgressRule, ...] = ()
    """Destinations that builds can reach besides the Internet."""
    namespaces: dict[str, NamespaceEgress] = {}
    """By name: namespaces that differ from the default."""

    def destinations(self) -> set[EgressRule]:
        """All destinations of the policy."""
        lists = [self.allow, self.build_allow, *(each.allow for each in self.namespaces.values())]
        return {destination for each in lists for destination in each}


class AppliedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The response to an applied policy."""

    unresolved: tuple[str, ...] = ()
    """Host names that could not be resolved; they are retried."""
