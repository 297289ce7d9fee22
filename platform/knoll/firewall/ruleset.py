"""From a policy to the text of a ruleset for `nft -f`. Pure.

Two tables for a platform, named after it. `inet` holds the law for whatever passes the machine's IP layer: what comes
from the bridge of instances or of builds to this machine (hook input) or through it (hook forward), and what comes to
instances from elsewhere. `bridge` holds it for what goes from one instance to another on their bridge, which passes the
IP layer on engines with br_netfilter alone; where it does, `inet` answers it with a reset before `bridge` drops it.

Rules of `bridge` know instances by their subnet and not by the bridge: not every kernel has `meta ibrname`. Instances
cannot take another address or send as another: they have neither NET_ADMIN nor NET_RAW.

Sets have no names and there are no maps: nft 1.0 (Debian 12) ends with a segmentation fault when it lists those that
nft 1.1 made, whichever table it was asked for: with a platform in containers on such a machine that would be always.

Connections that something else opened are let answer (`ct direction reply`); packets in the direction in which an
instance opened one are judged each, so that a policy holds for open connections too.
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
"""What is not the Internet. Source: IANA IPv4 Special-Purpose Address Registry, without documentation networks, which
lead nowhere, and with multicast."""
DNS_PORT = 53
PRIORITY = -10
"""Before the rules of Docker and of most hosts; packets that pass here still have to pass theirs."""
BRIDGE_PRIORITY = 10
"""After br_netfilter, which has `inet` answer first."""
_SYN = "tcp flags & (fin | syn | rst | ack) == syn"

HostAddresses = Mapping[str, tuple[str, ...]]
"""Host name to its IPv4 addresses."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What does not change while the process runs."""

    platform: str
    """Name of the platform: that of its tables, too."""
    gateways: tuple[tuple[str, int], ...] = ()
    """Addresses and TCP ports of the gateways, as instances reach them."""
    dns: str = ""
    """Address of the DNS server of instances; empty when they ask the engine's."""
    own: tuple[str, ...] = ()
    """Networks in CIDR form, within that of the instances: addresses of the platform's own containers."""
    resolvers: tuple[str, ...] = ()
    """Addresses of the machine's DNS servers, which the engine's own asks as the container that asks it."""
    build_bridge: str = ""
    """Linux bridge of the network of builds."""

    @property
    def table(self) -> str:
        return f"knoll-{self.platform}"


def removal(wiring: Wiring) -> str:
    """Text that takes both tables away, whether they are there or not."""
    return "".join(
        f"add table {family} {wiring.table}\ndelete table {family} {wiring.table}\n" for family in ("inet", "bridge")
    )


def ruleset(wiring: Wiring, policy: FirewallPolicy, resolved: HostAddresses) -> str:
    """The whole text: the tables as they were go, and come as they are to be, in one transaction.

    Args:
        wiring: see there.
        policy: see there.
        resolved: of each host name that the policy names; one that is missing opens nothing.
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
    # Of IPv6 there are link-local addresses at most; nothing of theirs leaves.
    own_address = ["meta nfproto ipv6 goto refused", f"ip saddr != {_networks(policy.subnets)} drop"]
    yield _chain("between_instances", [*_between(wiring), "goto refused"])
    # Ports that the engine publishes for the platform's own containers are for all.
    published = [f"ct status dnat ip daddr {_networks(wiring.own)} accept"] if wiring.own else []
    yield _chain("to_instances", ["ct state established,related accept", *published, "drop"])
    yield _chain("from_instances", [*own_address, *_ANSWERS, *platform, "goto egress"])
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
    """What passes from one address of the instances' network to another."""
    passed = [*_gateways(wiring), *_dns((wiring.dns,) if wiring.dns else ())]
    if not wiring.own:
        return passed
    own = _networks(wiring.own)
    # Without state, so that no kernel needs to track connections on bridges: who answers sends no first packet.
    return [f"ip saddr {own} accept", *passed, f"ip daddr {own} meta l4proto tcp {_SYN.replace('==', '!=')} accept"]


def _egress(listed: str, verdict: EgressVerdict) -> list[str]:
    return [f"jump {listed}", *(_INTERNET if verdict == "allow" else ("goto refused",))]


def _listed(destinations: Iterable[EgressRule], resolved: HostAddresses) -> list[str]:
    """Rules that let destinations pass, as their sender names them: before the engine translates the address and port
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
    """A set without a name."""
    return f"{{ {', '.join(map(str, collapse_addresses(IPv4Network(text) for text in networks)))} }}"


def _chain(name: str, rules: Iterable[str]) -> str:
    return _block(f"chain {name}", rules)


def _table(family: str, name: str, blocks: Iterable[str]) -> str:
    return _block(f"table {family} {name}", blocks)


def _block(head: str, lines: Iterable[str]) -> str:
    inner = "".join(f"{line.rstrip()}\n" for line in lines)
    return f"{head} {{\n{inner}}}\n"
