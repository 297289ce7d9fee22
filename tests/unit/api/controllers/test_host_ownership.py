"""Services, tags and mappings that want the same host: one owner, whatever came and went before."""

import random
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from activator.routing.routing import Routing
from api.controllers.common import objects
from api.controllers.common.conditions import REFUSED
from api.controllers.route import hosts
from knoll.config.network import NetworkConfig
from knoll.values import kinds
from knoll.values.json import Json
from tests.unit.api.controllers.simulation import Simulation

FLAT = NetworkConfig(domain_template="{{.Name}}-{{.Namespace}}.{{.Domain}}")
"""Under this template `a` in `b-c` and `a-b` in `c` have the same host."""
LATEST: list[Json] = [{"latestRevision": True, "percent": 100}]


def deploy(world: Simulation, name: str, namespace: str = "default", tag: str = "") -> None:
    """Apply a Service whose instances start at once."""
    traffic = [*LATEST, {"latestRevision": True, "percent": 0, "tag": tag}] if tag else LATEST
    template = {"spec": {"containers": [{"name": "user-container", "image": "img"}], "timeoutSeconds": 300}}
    world.now += 1
    world.apply(kinds.SERVICE, name, {"template": template, "traffic": traffic}, namespace=namespace)
    serve(world)


def serve(world: Simulation) -> None:
    for _ in range(3):
        world.settle()
        for namespace, revision in world.world.cache.names(kinds.REVISION.id):
            if f"{namespace}/{revision}" not in world.world.resolutions:
                world.resolved(revision, namespace=namespace)
        world.settle()
        for namespace, revision in world.world.cache.names(kinds.REVISION.id):
            if f"{namespace}/{revision}" not in world.world.scale:
                world.scaled(revision, namespace=namespace)
        world.settle()
        for path in list(world.world.routing):
            namespace, _, name = path.partition("/")
            if world.world.acknowledged.get(path) != world.world.routing[path][0]:
                world.acknowledge(name, namespace)
    world.settle()


def remove(world: Simulation, name: str, namespace: str = "default") -> None:
    world.delete(kinds.SERVICE, name, namespace)
    serve(world)
    for table in (world.world.resolutions, world.world.scale):
        for path in [path for path in table if world.world.cache.get(kinds.REVISION.id, *path.split("/")) is None]:
            del table[path]


def table(world: Simulation) -> Routing[str]:
    """The routing table as an activator has it."""
    made: Routing[str] = Routing(lambda name: name, random.random)
    made.replace({path: entry for path, (_, entry) in world.world.routing.items()})
    return made


def owner(world: Simulation, host: str, local: bool = False) -> str:
    found = table(world).find(host.encode(), local)
    return found.route if found else ""


def ingress(world: Simulation, name: str, namespace: str = "default") -> str:
    found = objects.condition(world.get(kinds.ROUTE, name, namespace), "IngressReady") or {}
    return str(found.get("reason") or found.get("status"))


def test_a_new_service_does_not_take_the_host_of_a_tag_and_gets_it_when_the_tag_goes() -> None:
    world = Simulation()
    deploy(world, "shop", tag="v2")
    deploy(world, "v2-shop")
    host = "v2-shop.default.localhost"
    assert (owner(world, host), ingress(world, "v2-shop")) == ("default/shop", "NotOwned")
    deploy(world, "shop")
    assert (owner(world, host), ingress(world, "v2-shop")) == ("default/v2-shop", "True")


def test_a_new_tag_does_not_take_the_host_of_a_service_and_gets_it_when_the_service_goes() -> None:
    world = Simulation()
    deploy(world, "v2-shop")
    deploy(world, "shop")
    deploy(world, "shop", tag="v2")
    host = "v2-shop.default.localhost"
    assert (owner(world, host), ingress(world, "shop")) == ("default/v2-shop", "NotOwned")
    assert owner(world, "shop.default.localhost") == "default/shop"
    remove(world, "v2-shop")
    assert (owner(world, host), ingress(world, "shop")) == ("default/shop", "True")


def test_a_service_gets_its_name_when_the_core_service_that_had_it_goes() -> None:
    world = Simulation()
    core = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "namespace": "default", "uid": "u"}}
    world.store(kinds.CORE_SERVICE.id, {**core, "spec": {"type": "ClusterIP"}})
    deploy(world, "shop")
    assert ingress(world, "shop") == "NotOwned"
    world.delete(kinds.CORE_SERVICE, "shop")
    serve(world)
    assert (owner(world, "shop.default.localhost"), ingress(world, "shop")) == ("default/shop", "True")


def test_services_of_two_namespaces_with_one_host_are_served_in_the_order_they_came() -> None:
    world = Simulation()
    world.world.naming = replace(world.world.naming, network=FLAT)
    deploy(world, "a", "b-c")
    deploy(world, "a-b", "c")
    assert (owner(world, "a-b-c.localhost"), ingress(world, "a-b", "c")) == ("b-c/a", "DomainConflict")
    message = (objects.condition(world.get(kinds.ROUTE, "a-b", "c"), "IngressReady") or {})["message"]
    assert message == "Ingress rejected as its domain conflicts with another ingress: a-b-c.localhost"
    remove(world, "a", "b-c")
    assert (owner(world, "a-b-c.localhost"), ingress(world, "a-b", "c")) == ("c/a-b", "True")


def test_the_order_holds_when_the_table_was_lost() -> None:
    world = Simulation()
    world.world.naming = replace(world.world.naming, network=FLAT)
    deploy(world, "a", "b-c")
    deploy(world, "a-b", "c")
    world.world.routing.clear()
    world._dirty.update(dict.fromkeys(reversed(world.keys())))
    serve(world)
    assert (owner(world, "a-b-c.localhost"), ingress(world, "a-b", "c")) == ("b-c/a", "DomainConflict")


NAMES = st.sampled_from(["shop", "v2-shop", "v2-v2-shop", "c-shop"])
NAMESPACES = st.sampled_from(["default", "c-default", "other"])
MAPPED = st.sampled_from(["www.example.org", "v2-shop.default"])


class AnyOrder(RuleBasedStateMachine):
    """Two templates' worth of Services, tags and mappings come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.world = Simulation()
        self.world.world.naming = replace(self.world.world.naming, network=FLAT)

    @rule(name=NAMES, namespace=NAMESPACES, tag=st.sampled_from(["", "v2"]))
    def deploy(self, name: str, namespace: str, tag: str) -> None:
        deploy(self.world, name, namespace, tag)

    @rule(name=NAMES, namespace=NAMESPACES)
    def remove(self, name: str, namespace: str) -> None:
        if self.world.world.cache.get(kinds.SERVICE.id, namespace, name):
            remove(self.world, name, namespace)

    @rule(host=MAPPED, namespace=NAMESPACES)
    def map(self, host: str, namespace: str) -> None:
        ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "shop", "namespace": namespace}
        self.world.now += 1
        self.world.apply(kinds.DOMAIN_MAPPING, host, {"ref": ref}, namespace=namespace)
        serve(self.world)

    @rule(host=MAPPED, namespace=NAMESPACES)
    def unmap(self, host: str, namespace: str) -> None:
        if self.world.world.cache.get(kinds.DOMAIN_MAPPING.id, namespace, host):
            self.world.delete(kinds.DOMAIN_MAPPING, host, namespace)
            serve(self.world)

    @invariant()
    def a_route_that_is_ready_has_all_its_hosts(self) -> None:
        cache, naming = self.world.world.cache, self.world.world.naming
        for namespace, name in cache.names(kinds.ROUTE.id):
            body = self.world.get(kinds.ROUTE, name, namespace)
            if not objects.is_ready(body):
                assert ingress(self.world, name, namespace) in REFUSED
                continue
            for target in [{}, *body["spec"]["traffic"]]:
                tag = target.get("tag", "")
                path = f"{namespace}/{name}"
                assert owner(self.world, hosts.public_host(body, naming, tag)) == path
                assert {owner(self.world, host, local=True) for host in hosts.local_hosts(body, naming, tag)} == {path}

    @invariant()
    def a_route_that_is_refused_has_a_rival(self) -> None:
        cache, naming = self.world.world.cache, self.world.world.naming
        for namespace, name in cache.names(kinds.ROUTE.id):
            body = self.world.get(kinds.ROUTE, name, namespace)
            tags = [target.get("tag", "") for target in [{}, *body["spec"]["traffic"]]]
            if ingress(self.world, name, namespace) == "DomainConflict":
                owners = {owner(self.world, hosts.public_host(body, naming, tag)) for tag in tags}
                assert owners - {f"{namespace}/{name}", ""}
            elif ingress(self.world, name, namespace) == "NotOwned":
                names = {hosts.tag_name(body, tag, naming) for tag in tags}
                found = [cache.get(kinds.CORE_SERVICE.id, namespace, wanted) for wanted in names]
                assert any(core and not objects.is_controlled_by(core, body) for core in found)

    @invariant()
    def a_mapped_host_has_one_owner_which_exists(self) -> None:
        cache = self.world.world.cache
        for host in ("www.example.org", "v2-shop.default"):
            mappings = {
                place: self.world.get(kinds.DOMAIN_MAPPING, host, place) for place in cache.mappings_of_host(host)
            }
            claimed = [
                place for place, body in mappings.items() if objects.condition_status(body, "DomainClaimed") == "True"
            ]
            assert len(claimed) == min(1, len(mappings))
            found = owner(self.world, host)
            assert found in {"", *(f"{place}/domainmapping:{host}" for place in claimed)}
        assert self.world.everything_again() == []


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
