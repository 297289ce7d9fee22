"""No user code runs before the firewall enforces the policy of its namespace."""

import asyncio

import pytest

from autoscaler.node.errors import IsolationError
from knoll.firewall.policy import AppliedPolicy, FirewallPolicy
from knoll.values import kinds
from knoll.values.labels import SYSTEM_NAMESPACE
from tests.component.autoscaler.conftest import AutoscalerHarness
from tests.waiting import eventually


class Rules:
    """A firewall that records policies, and refuses them on demand."""

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
async def rules(harness: AutoscalerHarness) -> Rules:
    harness.firewall = Rules()
    return harness.firewall


async def annotate(harness: AutoscalerHarness, egress: str, namespace: str = "default") -> None:
    body = {"metadata": {"name": namespace, "annotations": {"knoll.dev/egress": egress}}}
    await harness.store.create(kinds.NAMESPACE.id, {"apiVersion": "v1", "kind": "Namespace", **body})


async def configure(harness: AutoscalerHarness, **data: str) -> None:
    body = {"metadata": {"name": "config-security", "namespace": SYSTEM_NAMESPACE},
            "data": {key.replace("_", "-"): value for key, value in data.items()}}  # fmt: skip
    await harness.store.create(kinds.CONFIG_MAP.id, {"apiVersion": "v1", "kind": "ConfigMap", **body})


async def failure(harness: AutoscalerHarness, key: str) -> str:
    status = await harness.status(key)
    return f"{status.failure.reason}: {status.failure.message}" if status and status.failure else ""


async def test_the_instance_network_is_published_before_the_first_instance(
    harness: AutoscalerHarness, rules: Rules
) -> None:
    rules.free.clear()
    await harness.start()
    key = await harness.apply()
    await eventually(lambda: harness.engine.instances, condition="an instance")
    assert not next(iter(harness.engine.instances.values())).containers
    rules.free.set()
    await harness.ready(key)
    assert {(policy.bridge, policy.subnets) for policy in rules.policies} == {("br-fake", ("127.0.0.0/8",))}


async def test_a_namespace_like_all_others_costs_no_call(harness: AutoscalerHarness, rules: Rules) -> None:
    await harness.start()
    await harness.ready(await harness.apply())
    # A start that called the firewall would wait for it. The policy that is sent again now and then may wait.
    rules.free.clear()
    await harness.ready(await harness.apply("other-00001"))
    assert not any(policy.namespaces for policy in rules.policies)


async def test_an_instance_of_a_closed_namespace_waits_for_the_answer(harness: AutoscalerHarness, rules: Rules) -> None:
    await annotate(harness, "deny")
    await harness.start()
    await eventually(lambda: rules.policies, condition="the first policy")
    rules.free.clear()
    key = await harness.apply()
    await eventually(lambda: harness.engine.instances, condition="an instance")
    (instance,) = harness.engine.instances.values()
    assert not instance.containers
    rules.free.set()
    (endpoint,) = await harness.ready(key)
    assert rules.policies[-1].namespaces["default"].addresses == (endpoint.host,)


async def test_it_does_not_start_while_the_firewall_refuses(harness: AutoscalerHarness, rules: Rules) -> None:
    rules.refuses = "the kernel has no nftables"
    await harness.start()
    key = await harness.apply()

    async def is_reported() -> bool:
        return await failure(harness, key) == "NetworkNotIsolated: the kernel has no nftables"

    await eventually(is_reported, condition="the reason")
    assert all(not instance.containers for instance in harness.engine.instances.values())
    rules.refuses = ""
    await harness.ready(key)


async def test_without_a_firewall_what_asks_for_one_is_refused(harness: AutoscalerHarness) -> None:
    await annotate(harness, "deny")
    await harness.start()
    key = await harness.apply()

    async def is_reported() -> bool:
        return (await failure(harness, key)).startswith("NetworkNotIsolated: this platform has no firewall")

    await eventually(is_reported, condition="the reason")


@pytest.mark.parametrize(("mode", "starts"), [("auto", True), ("disabled", True), ("required", False)])
async def test_without_a_firewall_the_configuration_decides(
    harness: AutoscalerHarness, mode: str, starts: bool
) -> None:
    await configure(harness, network_isolation=mode)
    await harness.start()
    key = await harness.apply()
    if starts:
        await harness.ready(key)
        return

    async def is_reported() -> bool:
        return (await failure(harness, key)).startswith("NetworkNotIsolated")

    await eventually(is_reported, condition="the reason")


async def test_a_change_reaches_instances_that_run(harness: AutoscalerHarness, rules: Rules) -> None:
    await harness.start()
    (endpoint,) = await harness.ready(await harness.apply())
    await annotate(harness, "deny")
    await eventually(lambda: "default" in rules.policies[-1].namespaces, condition="the namespace is in the policy")
    assert rules.policies[-1].namespaces["default"].addresses == (endpoint.host,)
    await configure(harness, network_isolation="disabled")
    await eventually(lambda: rules.policies[-1] == FirewallPolicy(isolated=False), condition="isolation is off")


async def test_a_new_leader_reports_the_instances_that_it_adopts(harness: AutoscalerHarness, rules: Rules) -> None:
    await annotate(harness, "deny")
    await harness.start()
    (endpoint,) = await harness.ready(await harness.apply())
    await harness.stop()
    rules.policies.clear()
    await harness.start()
    await eventually(lambda: rules.policies, condition="the policy")
    assert rules.policies[0].namespaces["default"].addresses == (endpoint.host,)
