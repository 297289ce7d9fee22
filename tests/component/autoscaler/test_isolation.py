"""No user code runs before the firewall holds what its namespace says."""

import asyncio

import pytest

from autoscaler.node.isolation import IsolationError
from knoll.firewall.policy import AppliedPolicy, FirewallPolicy
from knoll.values import kinds
from knoll.values.labels import SYSTEM_NAMESPACE
from tests.component.autoscaler.conftest import World
from tests.waiting import eventually


class Rules:
    """A firewall that keeps what it is told, at whose pleasure it answers."""

    def __init__(self) -> None:
        self.policies: list[FirewallPolicy] = []
        self.refuses = ""
        self.free = asyncio.Event()
        self.free.set()

    async def put(self, policy: FirewallPolicy) -> AppliedPolicy:
        await self.free.wait()
        if self.refuses:
            raise IsolationError(self.refuses)
        self.policies.append(policy)
        return AppliedPolicy()


@pytest.fixture
async def rules(world: World) -> Rules:
    world.firewall = Rules()
    return world.firewall


async def annotate(world: World, egress: str, namespace: str = "default") -> None:
    body = {"metadata": {"name": namespace, "annotations": {"knoll.dev/egress": egress}}}
    await world.store.create(kinds.NAMESPACE.id, {"apiVersion": "v1", "kind": "Namespace", **body})


async def configure(world: World, **data: str) -> None:
    body = {"metadata": {"name": "config-security", "namespace": SYSTEM_NAMESPACE},
            "data": {key.replace("_", "-"): value for key, value in data.items()}}  # fmt: skip
    await world.store.create(kinds.CONFIG_MAP.id, {"apiVersion": "v1", "kind": "ConfigMap", **body})


async def failure(world: World, key: str) -> str:
    status = await world.status(key)
    return f"{status.failure.reason}: {status.failure.message}" if status and status.failure else ""


async def test_the_network_of_instances_is_told_before_the_first_of_them(world: World, rules: Rules) -> None:
    rules.free.clear()
    await world.start()
    key = await world.apply()
    await eventually(lambda: world.engine.instances, condition="an instance")
    assert not next(iter(world.engine.instances.values())).containers
    rules.free.set()
    await world.ready(key)
    assert {(policy.bridge, policy.subnets) for policy in rules.policies} == {("br-fake", ("127.0.0.0/8",))}


async def test_a_namespace_like_all_others_costs_no_call(world: World, rules: Rules) -> None:
    await world.start()
    await world.ready(await world.apply())
    before = len(rules.policies)
    rules.free.clear()
    await world.ready(await world.apply("other-00001"))
    assert len(rules.policies) == before


async def test_an_instance_of_a_closed_namespace_waits_for_the_answer(world: World, rules: Rules) -> None:
    await annotate(world, "deny")
    await world.start()
    await eventually(lambda: rules.policies, condition="the first policy")
    rules.free.clear()
    key = await world.apply()
    await eventually(lambda: world.engine.instances, condition="an instance")
    (one,) = world.engine.instances.values()
    assert not one.containers
    rules.free.set()
    (endpoint,) = await world.ready(key)
    assert rules.policies[-1].namespaces["default"].addresses == (endpoint.host,)


async def test_it_does_not_start_while_the_firewall_refuses(world: World, rules: Rules) -> None:
    rules.refuses = "the kernel has no nftables"
    await world.start()
    key = await world.apply()

    async def told() -> bool:
        return await failure(world, key) == "NetworkNotIsolated: the kernel has no nftables"

    await eventually(told, condition="the reason")
    assert all(not one.containers for one in world.engine.instances.values())
    rules.refuses = ""
    await world.ready(key)


async def test_without_a_firewall_what_asks_for_one_is_refused(world: World) -> None:
    await annotate(world, "deny")
    await world.start()
    key = await world.apply()

    async def told() -> bool:
        return (await failure(world, key)).startswith("NetworkNotIsolated: this platform has no firewall")

    await eventually(told, condition="the reason")


@pytest.mark.parametrize(("mode", "starts"), [("auto", True), ("disabled", True), ("required", False)])
async def test_without_a_firewall_the_configuration_decides(world: World, mode: str, starts: bool) -> None:
    await configure(world, network_isolation=mode)
    await world.start()
    key = await world.apply()
    if starts:
        await world.ready(key)
        return

    async def told() -> bool:
        return (await failure(world, key)).startswith("NetworkNotIsolated")

    await eventually(told, condition="the reason")


async def test_a_change_reaches_instances_that_run(world: World, rules: Rules) -> None:
    await world.start()
    (endpoint,) = await world.ready(await world.apply())
    await annotate(world, "deny")
    await eventually(lambda: "default" in rules.policies[-1].namespaces, condition="the namespace is told")
    assert rules.policies[-1].namespaces["default"].addresses == (endpoint.host,)
    await configure(world, network_isolation="disabled")
    await eventually(lambda: rules.policies[-1] == FirewallPolicy(isolated=False), condition="isolation is off")


async def test_a_new_leader_tells_of_the_instances_that_it_adopts(world: World, rules: Rules) -> None:
    await annotate(world, "deny")
    await world.start()
    (endpoint,) = await world.ready(await world.apply())
    await world.stop()
    rules.policies.clear()
    await world.start()
    await eventually(lambda: rules.policies, condition="the policy")
    assert rules.policies[0].namespaces["default"].addresses == (endpoint.host,)
