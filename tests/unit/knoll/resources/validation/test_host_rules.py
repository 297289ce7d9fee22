"""Hosts that belong to Routes, and therefore to no DomainMapping."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.config.domain import DomainConfig
from knoll.config.network import NetworkConfig
from knoll.resources.models.meta import ObjectMeta
from knoll.resources.validation.host_rules import host_problem, names_of_namespace, route_host_problem, unclaimable
from knoll.values import names
from knoll.values.names import TemplateValues

TEMPLATES = (
    "{{.Name}}.{{.Namespace}}.{{.Domain}}",
    "{{.Name}}-{{.Namespace}}.{{.Domain}}",
    "{{.Name}}.{{.Domain}}",
    "{{.Name}}.{{.Namespace}}.apps.{{.Domain}}",
    '{{.Name}}.{{index .Annotations "sub"}}.{{.Domain}}',
)
DOMAINS = DomainConfig(
    (("example.com", ()), ("shop.example.org", (("app", "shop"),)), ("svc.cluster.local", (("x", "y"),)))
)
label = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)


@given(
    template=st.sampled_from(TEMPLATES), name=label, namespace=label, tag=st.one_of(st.just(""), label),
    domain=st.sampled_from(["example.com", "shop.example.org"]), sub=label,
)  # fmt: skip
def test_no_host_that_a_route_could_have_can_be_claimed(
    template: str, name: str, namespace: str, tag: str, domain: str, sub: str
) -> None:
    network = NetworkConfig(domain_template=template)
    named = names.render(network.tag_template, TemplateValues(name, namespace, domain, tag)) if tag else name
    host = names.render(template, TemplateValues(named, namespace, domain, tag, {"sub": sub}))
    assert unclaimable(host, DOMAINS, network)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.1", "a.0x7f", "svc.cluster.local", "cluster.local", "shop.sec-b.svc", "kubernetes.default.svc",
     "kubernetes.default", "kubernetes.default.svc.cluster.local", "shop.sec-b.localhost", "v2-shop.sec-b.localhost"],
)  # fmt: skip
def test_hosts_of_the_platform_cannot_be_claimed(host: str) -> None:
    assert unclaimable(host, DomainConfig(), NetworkConfig())


@pytest.mark.parametrize(
    "host", ["www.example.org", "example.dev", "shop.localhost", "a.b.c.localhost", "a.svc.example.org", "x1.0a.net"]
)
def test_other_hosts_can(host: str) -> None:
    assert not unclaimable(host, DomainConfig(), NetworkConfig())


@pytest.mark.parametrize(
    ("host", "namespace", "refused"),
    [
        ("vic.sec-b", "sec-a", True),
        ("vic.sec-b", "sec-b", False),
        ("vic.sec-c", "sec-a", False),
        ("www.vic.sec-b", "sec-a", False),
        ("activator-service.knative-serving", "knative-serving", True),
    ],
)
def test_names_inside_belong_to_the_owner_of_the_namespace(host: str, namespace: str, refused: bool) -> None:
    assert bool(names_of_namespace(host, namespace, {"sec-a", "sec-b", "knative-serving"})) == refused


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.example.com", ""),
        (f"{'a' * 64}.example.com", f'url: Invalid value: "{"a" * 64}": must be no more than 63 characters'),
        (".".join(["a" * 60] * 5), "must be no more than 253 characters"),
        ("a..b", 'url: Invalid value: "": a lowercase RFC 1123 label'),
        ("a.-b.c", 'url: Invalid value: "-b": a lowercase RFC 1123 label'),
    ],
)
def test_hosts_that_dns_cannot_hold(host: str, expected: str) -> None:
    problem = host_problem(host)
    assert expected in problem if expected else not problem


def test_a_local_route_is_judged_by_its_local_name() -> None:
    local = {"networking.knative.dev/visibility": "cluster-local"}
    network = NetworkConfig(domain_template='{{.Name}}.{{index .Annotations "sub"}}.{{.Domain}}')
    meta = ObjectMeta(name="hello", namespace="team", labels=local)
    assert route_host_problem(meta, "v1", DomainConfig(), network) == ""
    assert "invalid domain name" in route_host_problem(meta.changed(labels={}), "v1", DomainConfig(), network)
