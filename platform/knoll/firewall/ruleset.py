"""Converts a policy to a ruleset for `nft -f`. Pure.

A platform has two tables, named after it. `inet` filters packets that pass the machine's IP layer: from the bridge of
instances or builds to this machine (hook input) or through it (hook forward), and to instances from elsewhere. `bridge`
filters packets between instances on their bridge, which pass the IP layer only on engines with br_netfilter; there,
`inet` responds with a reset before `bridge` drops them.

Rules of `bridge` match instances by subnet and not by bridge, because not every kernel has `meta ibrname`. Instances
cannot change or spoof their address, because they have neither NET_ADMIN nor NET_RAW.

There are no named sets and no maps: nft 1.0 (Debian 12) crashes when it lists any table while there are some that
nft 1.1 created, which would be the case whenever the platform runs in containers on such a machine.

Replies on connections that were opened by the other side are accepted (`ct direction reply`); packets in the direction
in which an instance opened a connection are checked one by one, so that a policy applies to open connections too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses

from knoll.config.egress import EgressRule
from knoll.firewall.policy import EgressVerdict, FirewallPolicy

PRIVATE = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
"""Networks that are not the Internet. Source: IANA IPv4 Special-Purpose Address Registry, without the documentation
networks, which are not routed, and with multicast."""
DNS_PORT = 53
PRIORITY = -10
"""Before the rules of Docker and of most hosts; packets accepted here still have to pass those."""
BRIDGE_PRIORITY = 10
"""After br_netfilter, so that `inet` responds first."""
_SYN = "tcp flags & (fin | syn | rst | ack) == syn"

HostAddresses = Mapping[str, tuple[str, ...]]
"""Host name to its IPv4 addresses."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """Parameters that do not change while the process runs."""

    platform: str
    """Name of the platform, also used for its tables."""
    gateways: tuple[tuple[str, int], ...] = ()
    """Addresses and TCP ports of the gateways, as instances reach them."""
    dns: str = ""
    """Address of the DNS server of instances; empty if they use the engine's."""
    own: tuple[str, ...] = ()
    """Parts of the instance network, in CIDR form, that the platform's own containers use."""
    relays: tuple[str, ...] = ()
    """Addresses on the instance network of activators that connect to those of other machines, which may be private:
    the engine routes what leaves the machine through the instance network if its name sorts first."""
    resolvers: tuple[str, ...] = ()
    """Addresses of the machine's DNS servers; the engine's DNS server queries them from the container's address."""
    build_bridge: str = ""
    """Linux bridge of the build network."""

    @property
    def table(self) -> str:
        return f"knoll-{self.platform}"


def removal(wiring: Wiring) -> str:
    """Commands that remove both tables, whether or not they exist."""
    return "".join(
        f"add table {family} {wiring.table}\ndelete table {family} {wiring.table}\n" for family in ("inet", "bridge")
    )


def ruleset(wiring: Wiring, policy: FirewallPolicy, resolved: HostAddresses) -> str:
    """Commands that replace both tables in one transaction.

    Args:
        wiring: see there.
        policy: see there.
        resolved: addresses of the policy's host names; a missing host name allows nothing.
    """
    text = removal(wiring)
    if not policy.isolated:
        return text
    text += _table("inet", wiring.table, [*_inet(wiring, policy, resolved)])
    if policy.bridge and policy.subnets:
        text += _table("bridge", wiring.table, [*_bridge(wiring, policy)])
    return text


def _inet(wiring: Wiring, policy: FirewallPolicy, resolved: HostAddresses) -> Iterable[str]:
    instances, builds = policy.bridge, wiring.build_bridge
    from_bridges, to_bridges, to_host = [], [], []
    if instances:
        from_bridges += [f'iifname "{instances}" oifname "{instances}" goto between_instances']
        from_bridges += [f'iifname "{instances}" goto from_instances']
        to_bridges += [f'oifname "{instances}" goto to_instances']
        to_host += [f'iifname "{instances}" goto instances_to_host']
    if builds:
        from_bridges += [f'iifname "{builds}" goto from_builds']
        to_bridges += [f'oifname "{builds}" goto answers_only']
        to_host += [f'iifname "{builds}" goto builds_to_host']
    forward = [*from_bridges, *to_bridges]
    yield _chain("forward", [f"type filter hook forward priority {PRIORITY}; policy accept;", *forward])
    yield _chain("input", [f"type filter hook input priority {PRIORITY}; policy accept;", *to_host])
    if instances:
        yield from _instances(wiring, policy, resolved)
    if builds:
        yield _chain("builds_listed", _listed(policy.build_allow, resolved))
        opened = ["jump builds_listed", *_dns(wiring.resolvers)]
        yield _chain("from_builds", [*_ANSWERS, *opened, *_INTERNET])
        yield _chain("builds_to_host", [*_ANSWERS, *opened, "goto refused"])
    yield _chain("answers_only", ["ct state established,related accept", "drop"])
    yield _chain("refused", ["meta l4proto tcp reject with tcp reset", "reject with icmpx type admin-prohibited"])


_ANSWERS = ("ct state related accept", "ct direction reply ct state established accept")
_INTERNET = ("meta nfproto ipv6 goto refused", f"ip daddr {{ {', '.join(PRIVATE)} }} goto refused", "accept")


def _instances(wiring: Wiring, policy: FirewallPolicy, resolved: HostAddresses) -> Iterable[str]:
    names = sorted(policy.namespaces)
    for number, name in enumerate(names):
        namespace = policy.namespaces[name]
        yield _chain(f"listed_{number}", _listed(namespace.allow, resolved))
        yield _chain(f"egress_{number}", _egress(f"listed_{number}", namespace.egress))
    for chain, rest in (("listed", _listed(policy.allow, resolved)), ("egress", _egress("listed", policy.egress))):
        own = [
            f"ip saddr {{ {', '.join(policy.namespaces[name].addresses)} }} goto {chain}_{number}"
            for number, name in enumerate(names)
            if policy.namespaces[name].addresses
        ]
        yield _chain(chain, [*own, *rest])
    platform = [*_gateways(wiring), *_dns((wiring.dns,) if wiring.dns else wiring.resolvers)]
    # Instances have at most link-local IPv6 addresses; all IPv6 is refused.
    own_address = ["meta nfproto ipv6 goto refused", f"ip saddr != {_networks(policy.subnets)} drop"]
    yield _chain("between_instances", [*_between(wiring), "goto refused"])
    # Ports that the engine publishes for the platform's own containers are open to all.
    published = [f"ct status dnat ip daddr {_networks(wiring.own)} accept"] if wiring.own else []
    yield _chain("to_instances", ["ct state established,related accept", *published, "drop"])
    relays = [f"ip saddr {_networks(wiring.relays)} meta l4proto tcp accept"] if wiring.relays else []
    yield _chain("from_instances", [*own_address, *_ANSWERS, *platform, *relays, "goto egress"])
    yield _chain("instances_to_host", [*own_address, *_ANSWERS, *platform, "jump listed", "goto refused"])


def _bridge(wiring: Wiring, policy: FirewallPolicy) -> Iterable[str]:
    instances, own = _networks(policy.subnets), _networks(wiring.own)
    yield _chain(
        "forward",
        [
            f"type filter hook forward priority {BRIDGE_PRIORITY}; policy accept;",
            f"ether type arp arp daddr ip {instances} goto arp_between",
            f"ether type ip ip daddr {instances} goto between",
            f"ether type ip ip saddr {instances} goto between",  # broadcast and multicast too
        ],
    )
    arp = [f"arp saddr ip {own} accept", f"arp daddr ip {own} accept"] if wiring.own else []
    yield _chain("arp_between", [*arp, "drop"])
    yield _chain("between", [*_between(wiring), "drop"])


def _between(wiring: Wiring) -> list[str]:
    """Rules for packets between two addresses of the instance network."""
    passed = [*_gateways(wiring), *_dns((wiring.dns,) if wiring.dns else ())]
    if not wiring.own:
        return passed
    own = _networks(wiring.own)
    # Stateless, so that the kernel need not track connections on bridges: a reply is never a first packet.
    return [f"ip saddr {own} accept", *passed, f"ip daddr {own} meta l4proto tcp {_SYN.replace('==', '!=')} accept"]


def _egress(listed: str, verdict: EgressVerdict) -> list[str]:
    return [f"jump {listed}", *(_INTERNET if verdict == "allow" else ("goto refused",))]


def _listed(destinations: Iterable[EgressRule], resolved: HostAddresses) -> list[str]:
    """Rules that accept destinations as the sender addresses them: before the engine translates the address and port
    of a published one."""
    by_port: dict[int, list[IPv4Network]] = {}
    for destination in destinations:
        network = destination.network
        networks = [network] if network else [IPv4Network(address) for address in resolved.get(destination.host, ())]
        if networks:
            by_port.setdefault(destination.port or 0, []).extend(networks)
    return [
        f"ct original ip daddr {{ {', '.join(map(str, collapse_addresses(networks)))} }} "
        + (f"meta l4proto {{ tcp, udp }} ct original proto-dst {port} accept" if port else "accept")
        for port, networks in sorted(by_port.items())
    ]


def _gateways(wiring: Wiring) -> list[str]:
    return [f"ip daddr {address} tcp dport {port} accept" for address, port in wiring.gateways]


def _dns(addresses: Iterable[str]) -> list[str]:
    return [f"ip daddr {address} meta l4proto {{ tcp, udp }} th dport {DNS_PORT} accept" for address in addresses]


def _networks(networks: Iterable[str]) -> str:
    """An anonymous set."""
    return f"{{ {', '.join(map(str, collapse_addresses(IPv4Network(text) for text in networks)))} }}"


def _chain(name: str, rules: Iterable[str]) -> str:
    return _block(f"chain {name}", rules)


def _table(family: str, name: str, blocks: Iterable[str]) -> str:
    return _block(f"table {family} {name}", blocks)


def _block(head: str, lines: Iterable[str]) -> str:
    inner = "".join(f"{line.rstrip()}\n" for line in lines)
    return f"{head} {{\n{inner}}}\n"
