"""The firewall's policy from ConfigMap, Namespaces and instances."""

import pytest

from autoscaler.node.egress import egress_of, policy_of, restricts
from autoscaler.runtime.model import Network
from knoll.config.egress import EgressRule
from knoll.config.security import EGRESS_ALLOW_ANNOTATION, EGRESS_ANNOTATION, SecurityConfig
from knoll.firewall.policy import FirewallPolicy, NamespaceEgress

EVERYWHERE, HERE = EgressRule("10.0.0.0/8"), EgressRule("db.example.com", 5432)
LISTED = SecurityConfig(egress_allow=(EVERYWHERE,))
NETWORK = Network("br-1", ("10.201.0.0/16",))


def annotated(egress: str = "", allow: str = "") -> dict[str, str]:
    given = {EGRESS_ANNOTATION: egress, EGRESS_ALLOW_ANNOTATION: allow, "other": "x"}
    return {key: value for key, value in given.items() if value}


@pytest.mark.parametrize(
    ("annotations", "config", "egress"),
    [
        (annotated(), LISTED, None),
        (annotated("deny"), LISTED, NamespaceEgress(egress="deny")),
        (annotated("deny", "db.example.com:5432"), LISTED, NamespaceEgress(egress="deny", allow=(HERE,))),
        (annotated("allow"), LISTED, NamespaceEgress(egress="allow", allow=(EVERYWHERE,))),
        (annotated("", "db.example.com:5432"), LISTED, NamespaceEgress(egress="allow", allow=(EVERYWHERE, HERE))),
        (annotated("", "10.0.0.0/8"), LISTED, NamespaceEgress(egress="allow", allow=(EVERYWHERE,))),
        (annotated("", "db.example.com:5432"), SecurityConfig(egress="deny"),
         NamespaceEgress(egress="deny", allow=(HERE,))),
        (annotated("allow"), SecurityConfig(egress="deny"), NamespaceEgress(egress="allow")),
        (annotated("maybe"), LISTED, NamespaceEgress(egress="deny", allow=(EVERYWHERE,))),
        (annotated("", "10.0.0.1/8"), LISTED, NamespaceEgress(egress="allow", allow=(EVERYWHERE,))),
    ],
    ids=["like all others", "closed", "closed but for a list", "open", "a list more", "a list that says the same",
         "a list in a closed platform", "open in a closed platform", "an unknown word closes",
         "a bad list opens nothing"],
)  # fmt: skip
def test_annotations_of_a_namespace_limit_what_its_instances_reach(
    annotations: dict[str, str], config: SecurityConfig, egress: NamespaceEgress | None
) -> None:
    assert egress_of(annotations, config) == egress


def test_addresses_of_other_namespaces_are_left_out() -> None:
    closed = NamespaceEgress(egress="deny")
    instances = {"a-1": ("a", "10.201.128.1"), "b-1": ("b", "10.201.128.2"), "a-2": ("a", "10.201.128.3")}
    policy = policy_of(SecurityConfig(), {"a": closed, "empty": closed}, instances, NETWORK)
    expected = NamespaceEgress(egress="deny", addresses=("10.201.128.1", "10.201.128.3"))
    assert policy == FirewallPolicy(bridge="br-1", subnets=("10.201.0.0/16",), namespaces={"a": expected})


def test_a_reused_address_belongs_to_its_present_instance() -> None:
    closed = NamespaceEgress(egress="deny")
    instances = {"a-1": ("a", "10.201.128.1"), "b-1": ("b", "10.201.128.1")}
    assert policy_of(SecurityConfig(), {"a": closed}, instances, NETWORK).namespaces == {}


def test_disabled_filters_nothing() -> None:
    config = SecurityConfig(network_isolation="disabled", egress="deny")
    assert policy_of(config, {}, {}, NETWORK) == FirewallPolicy(isolated=False)


@pytest.mark.parametrize(
    ("default", "own", "restricted"),
    [("allow", None, False), ("deny", None, True), ("deny", "allow", False), ("allow", "deny", True)],
)
def test_what_restricts(default: str, own: str | None, restricted: bool) -> None:
    egress = NamespaceEgress(egress=own) if own else None  # type: ignore[arg-type]
    assert restricts(SecurityConfig(egress=default), egress) is restricted
