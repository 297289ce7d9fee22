"""DomainMappings: who owns a host, where it leads, when it is ready."""

from dataclasses import replace

import pytest

from api.controllers.reconciler import objects
from knoll.config.domain import DomainConfig
from knoll.config.network import NetworkConfig
from knoll.values import kinds
from knoll.values.json import Json
from tests.unit.api.controllers.simulation import Simulation

DM, HOST = kinds.DOMAIN_MAPPING, "www.example.org"
PATH = f"default/domainmapping:{HOST}"


def mapped(simulation: Simulation, namespace: str = "default", name: str = "hello", **spec: Json) -> None:
    ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": name, "namespace": namespace}
    simulation.apply(DM, HOST, {"ref": ref, **spec}, namespace=namespace)
    simulation.settle()


@pytest.fixture
def simulation() -> Simulation:
    simulation = Simulation()
    simulation.service()
    simulation.ready("hello-00001")
    return simulation


def test_a_mapped_host_gets_what_the_service_gets(simulation: Simulation) -> None:
    mapped(simulation)
    assert simulation.conditions(DM, HOST)["IngressReady"] == ("Unknown", "IngressNotConfigured")
    simulation.acknowledge(f"domainmapping:{HOST}")
    simulation.settle()
    assert simulation.conditions(DM, HOST) == {
        "CertificateProvisioned": ("True", "TLSNotEnabled"),
        "DomainClaimed": ("True",),
        "IngressReady": ("True",),
        "Ready": ("True",),
        "ReferenceResolved": ("True",),
    }
    assert simulation.get(DM, HOST)["status"]["url"] == f"http://{HOST}"
    assert simulation.get(DM, HOST)["status"]["address"] == {"url": f"http://{HOST}"}
    entry = simulation.state.routing[PATH][1]
    assert {share.revision: share.percent for share in entry.hosts[HOST]} == {"default/hello-00001": 100}
    assert set(entry.revisions) == {"default/hello-00001"}
    assert simulation.everything_again() == []


def test_the_host_follows_the_traffic_of_the_service(simulation: Simulation) -> None:
    mapped(simulation)
    simulation.service(image="v2")
    simulation.ready("hello-00002")
    assert [share.revision for share in simulation.state.routing[PATH][1].hosts[HOST]] == ["default/hello-00002"]


def test_without_the_service_the_reference_is_not_resolved_until_it_comes() -> None:
    simulation = Simulation()
    mapped(simulation)
    assert simulation.conditions(DM, HOST)["ReferenceResolved"] == ("False", "ResolveFailed")
    assert '"hello"' in simulation.message(DM, HOST)
    simulation.service()
    simulation.settle()
    assert simulation.conditions(DM, HOST)["Ready"] == ("Unknown", "IngressNotConfigured")
    simulation.ready("hello-00001")
    simulation.acknowledge(f"domainmapping:{HOST}")
    simulation.settle()
    assert objects.is_ready(simulation.get(DM, HOST))


def test_the_first_namespace_owns_a_host_and_the_other_takes_over_when_it_goes(simulation: Simulation) -> None:
    mapped(simulation)
    simulation.now += 5
    simulation.apply(DM, HOST, {"ref": {"kind": "Service", "name": "hello", "namespace": "a"}}, namespace="a")
    simulation.apply(kinds.SERVICE, "hello", simulation.get(kinds.SERVICE)["spec"], namespace="a")
    simulation.settle()
    other = simulation.get(DM, HOST, "a")
    claimed = objects.condition(other, "DomainClaimed")
    assert claimed is not None
    assert (claimed["status"], claimed["reason"]) == ("False", "DomainAlreadyClaimed")
    assert not simulation.is_routed(f"a/domainmapping:{HOST}")
    simulation.delete(DM, HOST)
    simulation.settle()
    assert not simulation.is_routed(PATH)
    assert objects.condition_status(simulation.get(DM, HOST, "a"), "DomainClaimed") == "True"


def test_a_host_that_was_claimed_stays_with_its_owner_though_a_rival_be_as_old(simulation: Simulation) -> None:
    mapped(simulation)
    simulation.apply(DM, HOST, {"ref": {"kind": "Service", "name": "hello", "namespace": "a"}}, namespace="a")
    simulation.settle()
    assert objects.condition_status(simulation.get(DM, HOST), "DomainClaimed") == "True"
    assert objects.condition_status(simulation.get(DM, HOST, "a"), "DomainClaimed") == "False"


def test_hosts_are_not_claimed_automatically_when_the_platform_disables_it(simulation: Simulation) -> None:
    simulation.state.naming = replace(
        simulation.state.naming, network=NetworkConfig(autocreate_cluster_domain_claims=False)
    )
    mapped(simulation)
    assert simulation.conditions(DM, HOST)["DomainClaimed"] == ("False", "DomainAlreadyClaimed")
    assert "no ClusterDomainClaim found" in simulation.message(DM, HOST, "DomainClaimed")
    assert not simulation.is_routed(PATH)


def test_a_certificate_of_ones_own_makes_the_address_https(simulation: Simulation) -> None:
    mapped(simulation, tls={"secretName": "cert"})
    assert simulation.get(DM, HOST)["status"]["url"] == f"https://{HOST}"
    assert simulation.conditions(DM, HOST)["CertificateProvisioned"] == ("True", "CertificateExternallyProvided")


def test_the_address_shows_the_port_that_users_reach_https_on(simulation: Simulation) -> None:
    simulation.state.naming = replace(simulation.state.naming, port=8080, https_port=8443)
    mapped(simulation, tls={"secretName": "cert"})
    assert simulation.get(DM, HOST)["status"]["url"] == f"https://{HOST}:8443"


def test_plain_http_is_redirected_where_there_is_a_certificate_and_the_platform_enables_it(
    simulation: Simulation,
) -> None:
    network = NetworkConfig(http_redirected=True)
    simulation.state.naming = replace(simulation.state.naming, network=network, https_port=8443)
    mapped(simulation)
    assert simulation.state.routing[PATH][1].redirect == 0
    mapped(simulation, tls={"secretName": "cert"})
    assert simulation.state.routing[PATH][1].redirect == 8443


@pytest.mark.parametrize(
    ("platforms", "own", "port"),
    [(False, "Redirected", 443), (False, "enabled", 0), (True, "Enabled", 0), (True, "redirected", 443)],
)
def test_a_mapping_may_override_the_redirect_of_plain_http(
    simulation: Simulation, platforms: bool, own: str, port: int
) -> None:
    simulation.state.naming = replace(simulation.state.naming, network=NetworkConfig(http_redirected=platforms))
    mapped(simulation, tls={"secretName": "cert"})
    body = simulation.get(DM, HOST)
    body["metadata"]["annotations"] = {"networking.knative.dev/http-protocol": own}
    simulation.store(DM.id, body)
    simulation.settle()
    assert simulation.state.routing[PATH][1].redirect == port


def test_the_scheme_of_addresses_is_the_platforms(simulation: Simulation) -> None:
    simulation.state.naming = replace(simulation.state.naming, network=NetworkConfig(default_external_scheme="https"))
    mapped(simulation)
    assert simulation.get(DM, HOST)["status"]["url"] == f"https://{HOST}"
    assert simulation.state.routing[PATH][1].redirect == 0


def test_deleting_the_service_ends_the_routing_of_the_host(simulation: Simulation) -> None:
    mapped(simulation)
    simulation.delete(kinds.SERVICE, "hello")
    simulation.settle()
    assert not simulation.is_routed(PATH)
    assert simulation.conditions(DM, HOST)["ReferenceResolved"] == ("False", "ResolveFailed")


def test_a_deleted_mapping_leaves_nothing_in_the_routing_table(simulation: Simulation) -> None:
    mapped(simulation)
    simulation.delete(DM, HOST)
    simulation.settle()
    assert not simulation.is_routed(PATH)
    assert simulation.is_routed("default/hello")


CLAIM = kinds.CLUSTER_DOMAIN_CLAIM


def binding(simulation: Simulation) -> None:
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    body = {"apiVersion": kinds.ROLE_BINDING.api_version, "kind": "RoleBinding", "roleRef": role,
            "metadata": {"name": "ci", "namespace": "a", "uid": "b"}}  # fmt: skip
    simulation.store(kinds.ROLE_BINDING.id, body)
    simulation.settle()


def namespace(simulation: Simulation, name: str) -> None:
    simulation.store(
        kinds.NAMESPACE.id, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name}}
    )


def claimed(simulation: Simulation, namespace: str, host: str = HOST) -> tuple[str, str]:
    condition = objects.condition(simulation.get(DM, host, namespace), "DomainClaimed")
    assert condition is not None
    return condition["status"], condition.get("reason", "")


def test_a_single_user_gets_a_claim_with_the_mapping_and_loses_it_with_the_mapping(simulation: Simulation) -> None:
    mapped(simulation)
    assert simulation.get(CLAIM, HOST, "")["spec"] == {"namespace": "default"}
    simulation.delete(DM, HOST)
    simulation.settle()
    assert simulation.names(CLAIM) == []


def test_once_there_are_tenants_hosts_are_claimed_by_administrators(simulation: Simulation) -> None:
    binding(simulation)
    mapped(simulation)
    assert claimed(simulation, "default") == ("False", "DomainAlreadyClaimed")
    assert "no ClusterDomainClaim found for domain" in simulation.message(DM, HOST, "DomainClaimed")
    simulation.apply(CLAIM, HOST, {"namespace": "default"}, namespace="")
    simulation.settle()
    assert claimed(simulation, "default") == ("True", "")
    assert simulation.is_routed(PATH)
    simulation.delete(DM, HOST)
    simulation.settle()
    assert simulation.names(CLAIM) == [HOST]


def test_a_claim_made_for_a_single_user_stays_when_tenants_come(simulation: Simulation) -> None:
    mapped(simulation)
    binding(simulation)
    assert claimed(simulation, "default") == ("True", "")
    mapped(simulation, "a")
    assert claimed(simulation, "a") == ("False", "DomainAlreadyClaimed")


def test_config_network_applies_to_tenants_too(simulation: Simulation) -> None:
    binding(simulation)
    simulation.state.naming = replace(
        simulation.state.naming, network=NetworkConfig(autocreate_cluster_domain_claims=True)
    )
    mapped(simulation)
    assert claimed(simulation, "default") == ("True", "")


def test_the_claim_of_another_namespace_takes_the_host_away_and_its_removal_gives_it_back(
    simulation: Simulation,
) -> None:
    mapped(simulation)
    simulation.apply(CLAIM, HOST, {"namespace": "a"}, namespace="")
    simulation.settle()
    assert claimed(simulation, "default") == ("False", "DomainAlreadyClaimed")
    assert simulation.message(DM, HOST, "DomainClaimed") == "The domain name is already in use by another DomainMapping"
    assert not simulation.is_routed(PATH)
    simulation.delete(CLAIM, HOST, "")
    simulation.settle()
    assert claimed(simulation, "default") == ("True", "")
    assert simulation.is_routed(PATH)


def test_the_name_of_a_service_inside_is_not_given_to_another_namespace(simulation: Simulation) -> None:
    for name in ("sec-b", "default"):
        simulation.store(
            kinds.NAMESPACE.id, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name}}
        )
    ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello", "namespace": "default"}
    simulation.apply(DM, "vic.sec-b", {"ref": ref})
    simulation.apply(DM, "vic.sec-c", {"ref": ref})
    simulation.settle()
    assert claimed(simulation, "default", "vic.sec-b") == ("False", "DomainClaimFailed")
    assert not simulation.is_routed("default/domainmapping:vic.sec-b")
    assert claimed(simulation, "default", "vic.sec-c") == ("True", "")
    simulation.store(
        kinds.NAMESPACE.id, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "sec-c", "uid": "c"}}
    )
    simulation.settle()
    assert not simulation.is_routed("default/domainmapping:vic.sec-c")


def test_a_host_that_routes_get_by_a_new_domain_leaves_its_mapping(simulation: Simulation) -> None:
    host = "shop.sec-b.example.org"
    ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello", "namespace": "default"}
    simulation.apply(DM, host, {"ref": ref})
    simulation.settle()
    assert simulation.is_routed(f"default/domainmapping:{host}")
    simulation.state.naming = replace(simulation.state.naming, domain=DomainConfig((("example.org", ()),)))
    simulation._dirty.update(dict.fromkeys(simulation.keys()))
    simulation.settle()
    assert claimed(simulation, "default", host) == ("False", "DomainClaimFailed")
    assert not simulation.is_routed(f"default/domainmapping:{host}")


def test_the_platforms_own_hosts_are_not_given_away(simulation: Simulation) -> None:
    simulation.state.naming = replace(simulation.state.naming, reserved=frozenset({HOST}))
    mapped(simulation)
    assert claimed(simulation, "default") == ("False", "DomainClaimFailed")
