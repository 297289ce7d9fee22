"""Which hosts and addresses a Route has, by the platform's domains and templates."""

import pytest

from api.controllers.route import hosts
from api.controllers.route.hosts import Naming
from knoll.config.domain import DomainConfig
from knoll.config.network import NetworkConfig
from knoll.values.json import Json

LOCAL = {"networking.knative.dev/visibility": "cluster-local"}
SECURE = NetworkConfig(default_external_scheme="https")
TWO = DomainConfig((("example.com", ()), ("shop.example.com", (("app", "shop"),))))


def route(labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None) -> Json:
    meta = {"name": "hello", "namespace": "team", "labels": labels or {}, "annotations": annotations or {}}
    return {"metadata": meta}


@pytest.mark.parametrize(
    ("labels", "naming", "tag", "url"),
    [
        ({}, Naming(), "", "http://hello.team.localhost"),
        ({}, Naming(port=8080), "", "http://hello.team.localhost:8080"),
        ({}, Naming(port=8080), "v1", "http://v1-hello.team.localhost:8080"),
        ({}, Naming(TWO), "", "http://hello.team.example.com"),
        ({}, Naming(TWO, SECURE, port=8080), "v1", "https://v1-hello.team.example.com"),
        ({}, Naming(TWO, SECURE, https_port=8443), "", "https://hello.team.example.com:8443"),
        (LOCAL, Naming(TWO, SECURE), "", "http://hello.team.svc.cluster.local"),
        ({"app": "shop"}, Naming(TWO), "", "http://hello.team.shop.example.com"),
        ({"app": "other"}, Naming(TWO), "", "http://hello.team.example.com"),
        (LOCAL, Naming(TWO, port=8080), "", "http://hello.team.svc.cluster.local"),
        (LOCAL, Naming(), "v1", "http://v1-hello.team.svc.cluster.local"),
        ({}, Naming(DomainConfig((("svc.cluster.local", ()),))), "", "http://hello.team.svc.cluster.local"),
        ({}, Naming(network=NetworkConfig(domain_template="{{.Name}}-{{.Namespace}}.{{.Domain}}")), "",
         "http://hello-team.localhost"),
        ({}, Naming(network=NetworkConfig(tag_template="{{.Name}}-{{.Tag}}")), "v1", "http://hello-v1.team.localhost"),
        ({"sub": "eu"}, Naming(network=NetworkConfig(domain_template='{{.Name}}.{{index .Labels "sub"}}.{{.Domain}}')),
         "", "http://hello.eu.localhost"),
    ],
    ids=["default", "port", "tag", "other domain", "https", "port of https",
         "cluster-local without https", "by label", "label that does not match", "cluster-local",
         "tag of a cluster-local", "cluster domain", "domain template", "tag template", "label in the template"],
)  # fmt: skip
def test_the_address_users_see(labels: dict[str, str], naming: Naming, tag: str, url: str) -> None:
    assert hosts.url(route(labels), naming, tag) == url


def test_a_tag_made_local_by_itself_has_its_inner_address() -> None:
    assert hosts.url(route(), Naming(port=8080), "v1", local=True) == "http://v1-hello.team.svc.cluster.local"


def test_the_inner_names_have_three_forms() -> None:
    assert hosts.local_hosts(route(), Naming(), "v1") == (
        "v1-hello.team.svc.cluster.local", "v1-hello.team.svc", "v1-hello.team"
    )  # fmt: skip
