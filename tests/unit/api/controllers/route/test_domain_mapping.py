"""DomainMappings: who owns a host, where it leads, when it is ready."""

from dataclasses import replace

import pytest

from api.controllers.common import objects
from knoll.config.domain import DomainConfig
from knoll.config.network import NetworkConfig
from knoll.values import kinds
from knoll.values.json import Json
from tests.unit.api.controllers.simulation import Simulation

DM, HOST = kinds.DOMAIN_MAPPING, "www.example.org"
PATH = f"default/domainmapping:{HOST}"


def mapped(world: Simulation, namespace: str = "default", name: str = "hello", **spec: Json) -> None:
    ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": name, "namespace": namespace}
    world.apply(DM, HOST, {"ref": ref, **spec}, namespace=namespace)
    world.settle()


@pytest.fixture
def world() -> Simulation:
    made = Simulation()
    made.service()
    made.ready("hello-00001")
    return made


def test_a_mapped_host_gets_what_the_service_gets(world: Simulation) -> None:
    mapped(world)
    assert world.conditions(DM, HOST)["IngressReady"] == ("Unknown", "IngressNotConfigured")
    world.acknowledge(f"domainmapping:{HOST}")
    world.settle()
    assert world.conditions(DM, HOST) == {
        "CertificateProvisioned": ("True", "TLSNotEnabled"),
        "DomainClaimed": ("True",),
        "IngressReady": ("True",),
        "Ready": ("True",),
        "ReferenceResolved": ("True",),
    }
    assert world.get(DM, HOST)["status"]["url"] == f"http://{HOST}"
    assert world.get(DM, HOST)["status"]["address"] == {"url": f"http://{HOST}"}
    entry = world.world.routing[PATH][1]
    assert {share.revision: share.percent for share in entry.hosts[HOST]} == {"default/hello-00001": 100}
    assert set(entry.revisions) == {"default/hello-00001"}
    assert world.everything_again() == []


def test_the_host_follows_the_traffic_of_the_service(world: Simulation) -> None:
    mapped(world)
    world.service(image="v2")
    world.ready("hello-00002")
    assert [share.revision for share in world.world.routing[PATH][1].hosts[HOST]] == ["default/hello-00002"]


def test_without_the_service_the_reference_is_not_resolved_until_it_comes() -> None:
    world = Simulation()
    mapped(world)
    assert world.conditions(DM, HOST)["ReferenceResolved"] == ("False", "ResolveFailed")
    assert '"hello"' in world.message(DM, HOST)
    world.service()
    world.settle()
    assert world.conditions(DM, HOST)["Ready"] == ("Unknown", "IngressNotConfigured")
    world.ready("hello-00001")
    world.acknowledge(f"domainmapping:{HOST}")
    world.settle()
    assert objects.is_ready(world.get(DM, HOST))


def test_the_first_namespace_owns_a_host_and_the_other_takes_over_when_it_goes(world: Simulation) -> None:
    mapped(world)
    world.now += 5
    world.apply(DM, HOST, {"ref": {"kind": "Service", "name": "hello", "namespace": "a"}}, namespace="a")
    world.apply(kinds.SERVICE, "hello", world.get(kinds.SERVICE)["spec"], namespace="a")
    world.settle()
    other = world.get(DM, HOST, "a")
    claimed = objects.condition(other, "DomainClaimed")
    assert claimed is not None
    assert (claimed["status"], claimed["reason"]) == ("False", "DomainAlreadyClaimed")
    assert not world.is_routed(f"a/domainmapping:{HOST}")
    world.delete(DM, HOST)
    world.settle()
    assert not world.is_routed(PATH)
    assert objects.condition_status(world.get(DM, HOST, "a"), "DomainClaimed") == "True"


def test_a_host_that_was_claimed_stays_with_its_owner_though_a_rival_be_as_old(world: Simulation) -> None:
    mapped(world)
    world.apply(DM, HOST, {"ref": {"kind": "Service", "name": "hello", "namespace": "a"}}, namespace="a")
    world.settle()
    assert objects.condition_status(world.get(DM, HOST), "DomainClaimed") == "True"
    assert objects.condition_status(world.get(DM, HOST, "a"), "DomainClaimed") == "False"


def test_hosts_are_not_given_away_when_the_platform_says_so(world: Simulation) -> None:
    world.world.naming = replace(world.world.naming, network=NetworkConfig(autocreate_cluster_domain_claims=False))
    mapped(world)
    assert world.conditions(DM, HOST)["DomainClaimed"] == ("False", "DomainAlreadyClaimed")
    assert "no ClusterDomainClaim found" in world.message(DM, HOST, "DomainClaimed")
    assert not world.is_routed(PATH)


def test_a_certificate_of_ones_own_makes_the_address_https(world: Simulation) -> None:
    mapped(world, tls={"secretName": "cert"})
    assert world.get(DM, HOST)["status"]["url"] == f"https://{HOST}"
    assert world.conditions(DM, HOST)["CertificateProvisioned"] == ("True", "CertificateExternallyProvided")


def test_the_address_shows_the_port_that_users_reach_https_on(world: Simulation) -> None:
    world.world.naming = replace(world.world.naming, port=8080, https_port=8443)
    mapped(world, tls={"secretName": "cert"})
    assert world.get(DM, HOST)["status"]["url"] == f"https://{HOST}:8443"


def test_plain_http_is_sent_on_to_https_where_there_is_a_certificate_and_the_platform_says_so(
    world: Simulation,
) -> None:
    network = NetworkConfig(http_redirected=True)
    world.world.naming = replace(world.world.naming, network=network, https_port=8443)
    mapped(world)
    assert world.world.routing[PATH][1].redirect == 0
    mapped(world, tls={"secretName": "cert"})
    assert world.world.routing[PATH][1].redirect == 8443


@pytest.mark.parametrize(
    ("platforms", "own", "port"),
    [(False, "Redirected", 443), (False, "enabled", 0), (True, "Enabled", 0), (True, "redirected", 443)],
)
def test_a_mapping_may_say_itself_what_becomes_of_plain_http(
    world: Simulation, platforms: bool, own: str, port: int
) -> None:
    world.world.naming = replace(world.world.naming, network=NetworkConfig(http_redirected=platforms))
    mapped(world, tls={"secretName": "cert"})
    body = world.get(DM, HOST)
    body["metadata"]["annotations"] = {"networking.knative.dev/http-protocol": own}
    world.store(DM.id, body)
    world.settle()
    assert world.world.routing[PATH][1].redirect == port


def test_the_scheme_of_addresses_is_the_platforms(world: Simulation) -> None:
    world.world.naming = replace(world.world.naming, network=NetworkConfig(default_external_scheme="https"))
    mapped(world)
    assert world.get(DM, HOST)["status"]["url"] == f"https://{HOST}"
    assert world.world.routing[PATH][1].redirect == 0


def test_deleting_the_service_ends_the_routing_of_the_host(world: Simulation) -> None:
    mapped(world)
    world.delete(kinds.SERVICE, "hello")
    world.settle()
    assert not world.is_routed(PATH)
    assert world.conditions(DM, HOST)["ReferenceResolved"] == ("False", "ResolveFailed")


def test_a_deleted_mapping_leaves_nothing_in_the_routing_table(world: Simulation) -> None:
    mapped(world)
    world.delete(DM, HOST)
    world.settle()
    assert not world.is_routed(PATH)
    assert world.is_routed("default/hello")


CLAIM = kinds.CLUSTER_DOMAIN_CLAIM


def binding(world: Simulation) -> None:
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    body = {"apiVersion": kinds.ROLE_BINDING.api_version, "kind": "RoleBinding", "roleRef": role,
            "metadata": {"name": "ci", "namespace": "a", "uid": "b"}}  # fmt: skip
    world.store(kinds.ROLE_BINDING.id, body)
    world.settle()


def namespace(world: Simulation, name: str) -> None:
    world.store(kinds.NAMESPACE.id, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name}})


def claimed(world: Simulation, namespace: str, host: str = HOST) -> tuple[str, str]:
    found = objects.condition(world.get(DM, host, namespace), "DomainClaimed")
    assert found is not None
    return found["status"], found.get("reason", "")


def test_a_single_user_gets_a_claim_with_the_mapping_and_loses_it_with_the_mapping(world: Simulation) -> None:
    mapped(world)
    assert world.get(CLAIM, HOST, "")["spec"] == {"namespace": "default"}
    world.delete(DM, HOST)
    world.settle()
    assert world.names(CLAIM) == []


def test_once_there_are_tenants_hosts_are_claimed_by_administrators(world: Simulation) -> None:
    binding(world)
    mapped(world)
    assert claimed(world, "default") == ("False", "DomainAlreadyClaimed")
    assert "no ClusterDomainClaim found for domain" in world.message(DM, HOST, "DomainClaimed")
    world.apply(CLAIM, HOST, {"namespace": "default"}, namespace="")
    world.settle()
    assert claimed(world, "default") == ("True", "")
    assert world.is_routed(PATH)
    world.delete(DM, HOST)
    world.settle()
    assert world.names(CLAIM) == [HOST]


def test_a_claim_made_for_a_single_user_stays_when_tenants_come(world: Simulation) -> None:
    mapped(world)
    binding(world)
    assert claimed(world, "default") == ("True", "")
    mapped(world, "a")
    assert claimed(world, "a") == ("False", "DomainAlreadyClaimed")


def test_config_network_says_it_for_tenants_too(world: Simulation) -> None:
    binding(world)
    world.world.naming = replace(world.world.naming, network=NetworkConfig(autocreate_cluster_domain_claims=True))
    mapped(world)
    assert claimed(world, "default") == ("True", "")


def test_the_claim_of_another_namespace_takes_the_host_away_and_its_removal_gives_it_back(world: Simulation) -> None:
    mapped(world)
    world.apply(CLAIM, HOST, {"namespace": "a"}, namespace="")
    world.settle()
    assert claimed(world, "default") == ("False", "DomainAlreadyClaimed")
    assert world.message(DM, HOST, "DomainClaimed") == "The domain name is already in use by another DomainMapping"
    assert not world.is_routed(PATH)
    world.delete(CLAIM, HOST, "")
    world.settle()
    assert claimed(world, "default") == ("True", "")
    assert world.is_routed(PATH)


def test_the_name_of_a_service_inside_is_not_given_to_another_namespace(world: Simulation) -> None:
    for name in ("sec-b", "default"):
        world.store(
            kinds.NAMESPACE.id, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name}}
        )
    ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello", "namespace": "default"}
    world.apply(DM, "vic.sec-b", {"ref": ref})
    world.apply(DM, "vic.sec-c", {"ref": ref})
    world.settle()
    assert claimed(world, "default", "vic.sec-b") == ("False", "DomainClaimFailed")
    assert not world.is_routed("default/domainmapping:vic.sec-b")
    assert claimed(world, "default", "vic.sec-c") == ("True", "")
    world.store(
        kinds.NAMESPACE.id, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "sec-c", "uid": "c"}}
    )
    world.settle()
    assert not world.is_routed("default/domainmapping:vic.sec-c")


def test_a_host_that_routes_get_by_a_new_domain_leaves_its_mapping(world: Simulation) -> None:
    host = "shop.sec-b.example.org"
    ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello", "namespace": "default"}
    world.apply(DM, host, {"ref": ref})
    world.settle()
    assert world.is_routed(f"default/domainmapping:{host}")
    world.world.naming = replace(world.world.naming, domain=DomainConfig((("example.org", ()),)))
    world._dirty.update(dict.fromkeys(world.keys()))
    world.settle()
    assert claimed(world, "default", host) == ("False", "DomainClaimFailed")
    assert not world.is_routed(f"default/domainmapping:{host}")


def test_the_platforms_own_hosts_are_not_given_away(world: Simulation) -> None:
    world.world.naming = replace(world.world.naming, reserved=frozenset({HOST}))
    mapped(world)
    assert claimed(world, "default") == ("False", "DomainClaimFailed")
