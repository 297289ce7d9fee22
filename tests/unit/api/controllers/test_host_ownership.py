"""Services, tags and mappings that want the same host: one owner, whatever came and went before."""

import random
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from activator.routing.routing_table import RoutingTable
from api.controllers.reconciler import objects
from api.controllers.reconciler.conditions import REFUSED
from api.controllers.route import hosts
from knoll.config.network import NetworkConfig
from knoll.values import kinds
from knoll.values.json import Json
from tests.unit.api.controllers.simulation import Simulation

FLAT = NetworkConfig(domain_template="{{.Name}}-{{.Namespace}}.{{.Domain}}")
"""Under this template `a` in `b-c` and `a-b` in `c` have the same host."""
LATEST: list[Json] = [{"latestRevision": True, "percent": 100}]


def deploy(simulation: Simulation, name: str, namespace: str = "default", tag: str = "") -> None:
    """Apply a Service whose instances start at once."""
    traffic = [*LATEST, {"latestRevision": True, "percent": 0, "tag": tag}] if tag else LATEST
    template = {"spec": {"containers": [{"name": "user-container", "image": "img"}], "timeoutSeconds": 300}}
    simulation.now += 1
    simulation.apply(kinds.SERVICE, name, {"template": template, "traffic": traffic}, namespace=namespace)
    serve(simulation)


def serve(simulation: Simulation) -> None:
    for _ in range(3):
        simulation.settle()
        for namespace, revision in simulation.state.cache.names(kinds.REVISION.id):
            if f"{namespace}/{revision}" not in simulation.state.resolutions:
                simulation.resolved(revision, namespace=namespace)
        simulation.settle()
        for namespace, revision in simulation.state.cache.names(kinds.REVISION.id):
            if f"{namespace}/{revision}" not in simulation.state.scale:
                simulation.scaled(revision, namespace=namespace)
        simulation.settle()
        for path in list(simulation.state.routing):
            namespace, _, name = path.partition("/")
            if simulation.state.acknowledged.get(path) != simulation.state.routing[path][0]:
                simulation.acknowledge(name, namespace)
    simulation.settle()


def remove(simulation: Simulation, name: str, namespace: str = "default") -> None:
    simulation.delete(kinds.SERVICE, name, namespace)
    serve(simulation)
    for table in (simulation.state.resolutions, simulation.state.scale):
        for path in [path for path in table if simulation.state.cache.get(kinds.REVISION.id, *path.split("/")) is None]:
            del table[path]


def table(simulation: Simulation) -> RoutingTable[str]:
    """The routing table as an activator has it."""
    made: RoutingTable[str] = RoutingTable(lambda name: name, random.random)
    made.replace({path: entry for path, (_, entry) in simulation.state.routing.items()})
    return made


def owner(simulation: Simulation, host: str, local: bool = False) -> str:
    entry = table(simulation).find(host.encode(), local)
    return entry.route if entry else ""


def ingress(simulation: Simulation, name: str, namespace: str = "default") -> str:
    condition = objects.condition(simulation.get(kinds.ROUTE, name, namespace), "IngressReady") or {}
    return str(condition.get("reason") or condition.get("status"))


def test_a_new_service_does_not_take_the_host_of_a_tag_and_gets_it_when_the_tag_goes() -> None:
    simulation = Simulation()
    deploy(simulation, "shop", tag="v2")
    deploy(simulation, "v2-shop")
    host = "v2-shop.default.localhost"
    assert (owner(simulation, host), ingress(simulation, "v2-shop")) == ("default/shop", "NotOwned")
    deploy(simulation, "shop")
    assert (owner(simulation, host), ingress(simulation, "v2-shop")) == ("default/v2-shop", "True")


def test_a_new_tag_does_not_take_the_host_of_a_service_and_gets_it_when_the_service_goes() -> None:
    simulation = Simulation()
    deploy(simulation, "v2-shop")
    deploy(simulation, "shop")
    deploy(simulation, "shop", tag="v2")
    host = "v2-shop.default.localhost"
    assert (owner(simulation, host), ingress(simulation, "shop")) == ("default/v2-shop", "NotOwned")
    assert owner(simulation, "shop.default.localhost") == "default/shop"
    remove(simulation, "v2-shop")
    assert (owner(simulation, host), ingress(simulation, "shop")) == ("default/shop", "True")


def test_a_service_gets_its_name_when_the_core_service_that_had_it_goes() -> None:
    simulation = Simulation()
    core = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "namespace": "default", "uid": "u"}}
    simulation.store(kinds.CORE_SERVICE.id, {**core, "spec": {"type": "ClusterIP"}})
    deploy(simulation, "shop")
    assert ingress(simulation, "shop") == "NotOwned"
    simulation.delete(kinds.CORE_SERVICE, "shop")
    serve(simulation)
    assert (owner(simulation, "shop.default.localhost"), ingress(simulation, "shop")) == ("default/shop", "True")


def test_services_of_two_namespaces_with_one_host_are_served_in_the_order_they_came() -> None:
    simulation = Simulation()
    simulation.state.naming = replace(simulation.state.naming, network=FLAT)
    deploy(simulation, "a", "b-c")
    deploy(simulation, "a-b", "c")
    assert (owner(simulation, "a-b-c.localhost"), ingress(simulation, "a-b", "c")) == ("b-c/a", "DomainConflict")
    message = (objects.condition(simulation.get(kinds.ROUTE, "a-b", "c"), "IngressReady") or {})["message"]
    assert message == "Ingress rejected as its domain conflicts with another ingress: a-b-c.localhost"
    remove(simulation, "a", "b-c")
    assert (owner(simulation, "a-b-c.localhost"), ingress(simulation, "a-b", "c")) == ("c/a-b", "True")


def test_the_order_holds_when_the_table_was_lost() -> None:
    simulation = Simulation()
    simulation.state.naming = replace(simulation.state.naming, network=FLAT)
    deploy(simulation, "a", "b-c")
    deploy(simulation, "a-b", "c")
    simulation.state.routing.clear()
    simulation._dirty.update(dict.fromkeys(reversed(simulation.keys())))
    serve(simulation)
    assert (owner(simulation, "a-b-c.localhost"), ingress(simulation, "a-b", "c")) == ("b-c/a", "DomainConflict")


NAMES = st.sampled_from(["shop", "v2-shop", "v2-v2-shop", "c-shop"])
NAMESPACES = st.sampled_from(["default", "c-default", "other"])
MAPPED = st.sampled_from(["www.example.org", "v2-shop.default"])


class AnyOrder(RuleBasedStateMachine):
    """Two templates' worth of Services, tags and mappings come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation = Simulation()
        self.simulation.state.naming = replace(self.simulation.state.naming, network=FLAT)

    @rule(name=NAMES, namespace=NAMESPACES, tag=st.sampled_from(["", "v2"]))
    def deploy(self, name: str, namespace: str, tag: str) -> None:
        deploy(self.simulation, name, namespace, tag)

    @rule(name=NAMES, namespace=NAMESPACES)
    def remove(self, name: str, namespace: str) -> None:
        if self.simulation.state.cache.get(kinds.SERVICE.id, namespace, name):
            remove(self.simulation, name, namespace)

    @rule(host=MAPPED, namespace=NAMESPACES)
    def map(self, host: str, namespace: str) -> None:
        ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "shop", "namespace": namespace}
        self.simulation.now += 1
        self.simulation.apply(kinds.DOMAIN_MAPPING, host, {"ref": ref}, namespace=namespace)
        serve(self.simulation)

    @rule(host=MAPPED, namespace=NAMESPACES)
    def unmap(self, host: str, namespace: str) -> None:
        if self.simulation.state.cache.get(kinds.DOMAIN_MAPPING.id, namespace, host):
            self.simulation.delete(kinds.DOMAIN_MAPPING, host, namespace)
            serve(self.simulation)

    @invariant()
    def a_route_that_is_ready_has_all_its_hosts(self) -> None:
        cache, naming = self.simulation.state.cache, self.simulation.state.naming
        for namespace, name in cache.names(kinds.ROUTE.id):
            body = self.simulation.get(kinds.ROUTE, name, namespace)
            if not objects.is_ready(body):
                assert ingress(self.simulation, name, namespace) in REFUSED
                continue
            for target in [{}, *body["spec"]["traffic"]]:
                tag = target.get("tag", "")
                path = f"{namespace}/{name}"
                assert owner(self.simulation, hosts.public_host(body, naming, tag)) == path
                assert {owner(self.simulation, host, local=True) for host in hosts.local_hosts(body, naming, tag)} == {
                    path
                }

    @invariant()
    def a_route_that_is_refused_has_a_rival(self) -> None:
        cache, naming = self.simulation.state.cache, self.simulation.state.naming
        for namespace, name in cache.names(kinds.ROUTE.id):
            body = self.simulation.get(kinds.ROUTE, name, namespace)
            tags = [target.get("tag", "") for target in [{}, *body["spec"]["traffic"]]]
            if ingress(self.simulation, name, namespace) == "DomainConflict":
                owners = {owner(self.simulation, hosts.public_host(body, naming, tag)) for tag in tags}
                assert owners - {f"{namespace}/{name}", ""}
            elif ingress(self.simulation, name, namespace) == "NotOwned":
                names = {hosts.tag_name(body, tag, naming) for tag in tags}
                core_services = [cache.get(kinds.CORE_SERVICE.id, namespace, core_name) for core_name in names]
                assert any(core and not objects.is_controlled_by(core, body) for core in core_services)

    @invariant()
    def a_mapped_host_has_one_owner_which_exists(self) -> None:
        cache = self.simulation.state.cache
        for host in ("www.example.org", "v2-shop.default"):
            mappings = {
                place: self.simulation.get(kinds.DOMAIN_MAPPING, host, place) for place in cache.mappings_of_host(host)
            }
            claimed = [
                place for place, body in mappings.items() if objects.condition_status(body, "DomainClaimed") == "True"
            ]
            assert len(claimed) == min(1, len(mappings))
            host_owner = owner(self.simulation, host)
            assert host_owner in {"", *(f"{place}/domainmapping:{host}" for place in claimed)}
        assert self.simulation.everything_again() == []


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
