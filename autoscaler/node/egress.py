"""The firewall's policy from the configuration, the namespaces and the addresses of instances. Pure."""

from collections.abc import Mapping
from typing import Literal, cast

from autoscaler.runtime.model import Network
from knoll.config.egress import EgressRule, parse_egress
from knoll.config.security import EGRESS_ALLOW_ANNOTATION, EGRESS_ANNOTATION, VERDICTS, SecurityConfig
from knoll.firewall.policy import EgressVerdict, FirewallPolicy, NamespaceEgress
from knoll.values.destinations import Destinations

Annotations = Mapping[str, str]


def egress_of(annotations: Annotations, config: SecurityConfig) -> NamespaceEgress | None:
    """Return what the instances of one namespace may reach, without their addresses; None for the default policy.

    Args:
        annotations: of the Namespace. A value that is not valid allows nothing.
    """
    if not {EGRESS_ANNOTATION, EGRESS_ALLOW_ANNOTATION} & annotations.keys():
        return None
    verdict = annotations.get(EGRESS_ANNOTATION, config.egress)
    if verdict not in VERDICTS:
        verdict = "deny"
    try:
        listed = parse_egress(annotations.get(EGRESS_ALLOW_ANNOTATION, ""))
    except ValueError:
        listed = ()
    if annotations.get(EGRESS_ANNOTATION) != "deny":
        listed = tuple(dict.fromkeys((*config.egress_allow, *listed)))
    return NamespaceEgress(egress=cast("EgressVerdict", verdict), allow=listed)


def policy_of(
    config: SecurityConfig,
    namespaces: Mapping[str, NamespaceEgress],
    instances: Mapping[str, tuple[str, str]],
    network: Network,
) -> FirewallPolicy:
    """Return the whole policy.

    Args:
        namespaces: by name, those with their own policy; see `egress_of`.
        instances: name to namespace and address. Of two with the same address, the later one counts.
        network: of all instances.
    """
    if config.network_isolation == "disabled":
        return FirewallPolicy(isolated=False)
    owners = {address: namespace for namespace, address in instances.values()}
    addresses: dict[str, list[str]] = {}
    for address, namespace in sorted(owners.items()):
        addresses.setdefault(namespace, []).append(address)
    return FirewallPolicy(
        bridge=network.bridge,
        subnets=network.subnets,
        egress=cast("Literal['allow', 'deny']", config.egress),
        allow=config.egress_allow,
        build_allow=_build_rules(config.build_destinations),
        namespaces={
            name: NamespaceEgress(egress=egress.egress, allow=egress.allow, addresses=tuple(addresses[name]))
            for name, egress in sorted(namespaces.items())
            if name in addresses
        },
    )


def restricts(config: SecurityConfig, egress: NamespaceEgress | None) -> bool:
    """Return whether the operator denies the instances of a namespace egress, which only a firewall can enforce."""
    return (egress.egress if egress else config.egress) == "deny"


def _build_rules(destinations: Destinations) -> tuple[EgressRule, ...]:
    """IPv4 only: builds have nothing else. Wildcard names have no address."""
    if destinations.everything:
        return (EgressRule("0.0.0.0/0"),)
    networks = [EgressRule(str(network)) for network in destinations.networks if network.version == 4]
    names = [EgressRule(name.rstrip(".")) for name in sorted(destinations.names) if not name.startswith(".")]
    return (*networks, *names)
