"""Rulesets: what holds for every policy. Component tests show that the kernel accepts them, and which packets pass."""

import re

from hypothesis import given

from knoll.config.egress import EgressRule
from knoll.firewall.policy import FirewallPolicy, NamespaceEgress
from knoll.firewall.ruleset import PRIVATE, Wiring, removal, ruleset
from tests.firewall_policies import policies, resolutions

WIRING = Wiring(
    "knoll",
    gateways=(("10.201.0.2", 80),),
    dns="10.201.0.3",
    own=("10.201.0.0/17",),
    resolvers=("192.168.1.1",),
    build_bridge="knoll-builds",
)


def chains(text: str) -> dict[str, list[str]]:
    """Name to rules, of both tables; names of the family `bridge` begin with its name."""
    read: dict[str, list[str]] = {}
    family, chain = "", ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"table (\w+) \S+ {", line):
            family = "" if heading[1] == "inet" else "bridge "
        elif heading := re.fullmatch(r"chain (\w+) {", line):
            chain = family + heading[1]
            read[chain] = []
        elif line == "}":
            chain = ""
        elif chain:
            read[chain].append(line)
    return read


@given(policies(), resolutions())
def test_every_jump_leads_to_an_existing_chain(policy: FirewallPolicy, resolved: dict[str, tuple[str, ...]]) -> None:
    text = ruleset(WIRING, policy, resolved)
    for part in text.split("table bridge knoll-knoll {"):
        targets = set(re.findall(r"(?:goto|jump) (\w+)", part))
        assert targets <= set(re.findall(r"chain (\w+) {", part))


@given(policies(), resolutions())
def test_chains_for_instances_never_end_in_the_chain_that_led_there(
    policy: FirewallPolicy, resolved: dict[str, tuple[str, ...]]
) -> None:
    """A chain that is gone to and ends accepts: each that must not ends with a verdict of its own."""
    for name, rules in chains(ruleset(WIRING, policy, resolved)).items():
        if not re.fullmatch(r"(bridge )?forward|input|listed(_\d+)?|builds_listed", name):
            assert rules[-1] in (
                "drop",
                "accept",
                "goto refused",
                "goto egress",
                "reject with icmpx type admin-prohibited",
            )


@given(policies(), resolutions())
def test_private_addresses_are_refused_wherever_the_internet_is_open(
    policy: FirewallPolicy, resolved: dict[str, tuple[str, ...]]
) -> None:
    for rules in chains(ruleset(WIRING, policy, resolved)).values():
        if rules[-1:] == ["accept"]:
            assert rules[-2] == f"ip daddr {{ {', '.join(PRIVATE)} }} goto refused"


@given(policies(), resolutions())
def test_the_same_policy_gives_the_same_text(policy: FirewallPolicy, resolved: dict[str, tuple[str, ...]]) -> None:
    assert ruleset(WIRING, policy, resolved) == ruleset(WIRING, policy, dict(reversed(resolved.items())))


@given(policies(), resolutions())
def test_each_address_has_the_egress_of_its_namespace(
    policy: FirewallPolicy, resolved: dict[str, tuple[str, ...]]
) -> None:
    text = ruleset(WIRING, policy, resolved)
    read = chains(text)
    for namespace in policy.namespaces.values():
        for address in namespace.addresses:
            targets = re.findall(rf"^ip saddr {{[^}}]*\b{re.escape(address)}\b[^}}]*}} goto (egress_\d+)$", text, re.M)
            assert len(targets) == 1
            assert read[targets[0]][-1] == ("accept" if namespace.egress == "allow" else "goto refused")


def test_only_relays_open_connections_to_private_addresses() -> None:
    policy = FirewallPolicy(bridge="b", subnets=("10.201.0.0/16",))
    rule = "ip saddr { 10.201.0.2/32 } meta l4proto tcp accept"
    relays = Wiring("knoll", own=("10.201.0.0/17",), relays=("10.201.0.2",))
    assert chains(ruleset(relays, policy, {}))["from_instances"][-2:] == [rule, "goto egress"]
    assert rule not in ruleset(WIRING, policy, {})


def test_a_host_that_has_no_address_opens_nothing() -> None:
    policy = FirewallPolicy(bridge="b", subnets=("10.201.0.0/16",), allow=(EgressRule("db.example.com", 5432),))
    assert "5432" not in ruleset(WIRING, policy, {})
    assert "192.168.1.9" in ruleset(WIRING, policy, {"db.example.com": ("192.168.1.9",)})


def test_disabled_takes_the_tables_away() -> None:
    policy = FirewallPolicy(isolated=False, bridge="b", subnets=("10.201.0.0/16",))
    assert ruleset(WIRING, policy, {}) == removal(WIRING)


def test_each_platform_has_its_own_tables() -> None:
    namespace = NamespaceEgress(egress="deny", addresses=("10.201.128.1",))
    policy = FirewallPolicy(bridge="b", subnets=("10.201.0.0/16",), namespaces={"a": namespace})
    names = set(re.findall(r"table \w+ (\S+)", ruleset(Wiring("other"), policy, {})))
    assert names == {"knoll-other"}
    assert '"b"' in ruleset(Wiring("other"), policy, {})
    assert "knoll-builds" not in ruleset(Wiring("other"), policy, {})


@given(policies(), resolutions())
def test_nothing_is_made_that_an_older_nft_cannot_list(
    policy: FirewallPolicy, resolved: dict[str, tuple[str, ...]]
) -> None:
    """Named sets, and maps."""
    assert not re.search(r"^(set|map) |vmap|@", ruleset(WIRING, policy, resolved), re.M)
