"""Nodes as kubectl shows and changes them, from what machines report."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from api.controllers.nodes.node_sync import NodeSync, single_machine
from api.controllers.reconciler import objects
from knoll.messages.nodes import NODES, REMOVED_NODES, Node, RemovedNode
from knoll.redis import keys
from knoll.redis.client import RedisClient, connected
from knoll.resources.disruption import is_evicted
from knoll.store.informer import Informer, Informers
from knoll.store.protocol import Store
from knoll.store.redis_store import RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.json import Json
from tests.component.api.conftest import Kubectl, Running
from tests.waiting import eventually

pytestmark = [pytest.mark.kubectl, pytest.mark.redis]


def machine(name: str, number: int) -> Node:
    address = f"192.0.2.{number}"
    return Node(name, address, 7444, 7443, 2.0, 4 * 1024**3, "v1.0.0", labels={"disk": "fast"} if number == 1 else {})


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisClient]:
    async with connected(redis_url, "test") as client:
        yield client


@pytest.fixture
async def store(redis: RedisClient) -> AsyncIterator[Store]:
    store = RedisStore(redis)
    yield store
    await store.close()


@pytest.fixture
def table(redis: RedisClient) -> RedisTable[Node]:
    return RedisTable(redis, NODES, Node)


def removed_nodes(redis: RedisClient) -> RedisTable[RemovedNode]:
    return RedisTable(redis, REMOVED_NODES, RemovedNode)


@contextlib.asynccontextmanager
async def synchronized(store: Store, sync: NodeSync, informers: Informers) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(informers.run()), asyncio.create_task(sync.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def cluster(redis: RedisClient, store: Store, table: RedisTable[Node]) -> AsyncIterator[RedisTable[Node]]:
    informers = Informers(store, [Informer(store, kinds.NODE.id)])
    for number in (1, 2):
        await table.put(f"n{number}", machine(f"n{number}", number))
    async with synchronized(store, NodeSync(store, informers, table, removed_nodes(redis), time.time), informers):

        async def listed() -> bool:
            return len((await store.list(kinds.NODE.id)).items) == 2

        await eventually(listed, condition="two nodes")
        yield table


async def pod(store: Store, name: str, node: str) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "ownerReferences": [
                {
                    "apiVersion": "serving.knative.dev/v1",
                    "kind": "Revision",
                    "name": "r",
                    "uid": "u",
                    "controller": True,
                }
            ],
        },
        "spec": {"nodeName": node, "containers": [{"name": "user-container", "image": "i"}]},
        "status": {"phase": "Running"},
    }
    await store.create(kinds.POD.id, objects.with_identity(body, time.time()))


async def test_nodes_are_listed_described_and_watched(
    api: Running, kubectl: Kubectl, cluster: RedisTable[Node]
) -> None:
    lines = [line.split() for line in (await kubectl("get", "nodes")).splitlines()]
    assert lines[0] == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert [(line[0], line[1], line[2], line[4]) for line in lines[1:]] == [
        ("n1", "Ready", "<none>", "v1.0.0"),
        ("n2", "Ready", "<none>", "v1.0.0"),
    ]
    assert "192.0.2.2" in await kubectl("get", "no", "-o", "wide")
    assert (await kubectl("get", "nodes", "-l", "disk=fast", "-o", "name")).strip() == "node/n1"
    await pod(api.store, "p1", "n1")
    described = await kubectl("describe", "node", "n1")
    assert "KubeletReady" in described
    assert "InternalIP:  192.0.2.1" in described
    assert "p1" in described
    assert "p1" not in await kubectl("describe", "node", "n2")
    assert await kubectl("get", "pods", "-o", "wide", "--field-selector", "spec.nodeName=n1") != ""


async def test_a_machine_that_is_silent_is_not_ready_and_comes_back(
    kubectl: Kubectl, cluster: RedisTable[Node]
) -> None:
    async def state() -> str:
        return (await kubectl("get", "node", "n2", "--no-headers")).split()[1]

    await cluster.remove("n2")

    async def lost() -> bool:
        return await state() == "NotReady"

    async def back() -> bool:
        return await state() == "Ready"

    await eventually(lost, condition="a node that is not ready")
    await cluster.put("n2", machine("n2", 2))
    await eventually(back, condition="a node that is ready")


async def test_cordon_taints_labels_and_uncordon(kubectl: Kubectl, cluster: RedisTable[Node]) -> None:
    assert await kubectl("cordon", "n1") == "node/n1 cordoned\n"
    assert (await kubectl("get", "node", "n1", "--no-headers")).split()[1] == "Ready,SchedulingDisabled"
    taints = "jsonpath={.spec.taints[*].key}"
    assert await kubectl("get", "node", "n1", "-o", taints) == "node.kubernetes.io/unschedulable"
    # A heartbeat does not change it.
    await cluster.put("n1", msgspec.structs.replace(machine("n1", 1), cores=8.0))

    async def reported() -> bool:
        return await kubectl("get", "node", "n1", "-o", "jsonpath={.status.capacity.cpu}") == "8"

    await eventually(reported, condition="the new capacity")
    assert await kubectl("get", "node", "n1", "-o", "jsonpath={.spec.unschedulable}") == "true"
    assert await kubectl("uncordon", "n1") == "node/n1 uncordoned\n"
    assert await kubectl("get", "node", "n1", "-o", taints) == ""
    assert await kubectl("label", "node", "n1", "disk=slow", "--overwrite") == "node/n1 labeled\n"
    assert await kubectl("taint", "node", "n1", "team=a:NoSchedule") == "node/n1 tainted\n"
    assert await kubectl("get", "node", "n1", "-o", taints) == "team"
    assert await kubectl("taint", "node", "n1", "team=a:NoSchedule-") == "node/n1 untainted\n"
    refused = await kubectl.run("taint", "node", "n1", "team=a:Never")
    assert refused.code


async def test_drain_cordons_and_deletes_the_pods_of_one_node(
    api: Running, kubectl: Kubectl, cluster: RedisTable[Node]
) -> None:
    await pod(api.store, "p1", "n1")
    await pod(api.store, "p2", "n2")
    output = await kubectl("drain", "n1", "--ignore-daemonsets")
    assert output.splitlines()[-1] == "node/n1 drained"
    assert "pod/p1 evicted" in output
    assert [body["metadata"]["name"] for body in (await api.store.list(kinds.POD.id)).items] == ["p2"]
    assert (await kubectl("get", "node", "n1", "--no-headers")).split()[1] == "Ready,SchedulingDisabled"


async def test_an_evicted_pod_is_marked_before_it_is_deleted(api: Running, cluster: RedisTable[Node]) -> None:
    await pod(api.store, "p1", "n1")
    body = await api.store.get(kinds.POD.id, "default", "p1")
    await api.store.update(kinds.POD.id, objects.changed(body, finalizers=["knoll.dev/instance"]))
    path = "/api/v1/namespaces/default/pods/p1/eviction"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p1", "namespace": "default"}}

    async def post(more: Json, at: str = path) -> tuple[int, str]:
        response = await api.client.post(at, json={**eviction, **more})
        answer = response.json()
        return response.status_code, answer.get("message") or answer["status"]

    assert await post({"kind": "Pod"}) == (400, "the body must be an Eviction of policy/v1")
    assert await post({"metadata": {"name": "p2"}}) == (400, "name in URL does not match name in Eviction object")
    assert (await post({"deleteOptions": {"preconditions": {"uid": "other"}}}))[0] == 409
    assert await post({"deleteOptions": {"dryRun": ["All"]}}) == (201, "Success")
    assert not is_evicted(await api.store.get(kinds.POD.id, "default", "p1"))
    for _ in range(2):
        assert await post({}) == (201, "Success")
        evicted = await api.store.get(kinds.POD.id, "default", "p1")
        assert is_evicted(evicted)
        assert evicted["metadata"]["deletionTimestamp"]
    missing = {"metadata": {"name": "p3"}}
    assert await post(missing, path.replace("p1", "p3")) == (404, 'pods "p3" not found')
    assert (await api.client.get(path)).status_code == 405


async def test_users_with_a_role_in_a_namespace_do_not_see_nodes(kubectl: Kubectl, cluster: RedisTable[Node]) -> None:
    await kubectl("create", "serviceaccount", "ci")
    await kubectl("create", "rolebinding", "ci", "--clusterrole=admin", "--serviceaccount=default:ci")
    robot = "--as=system:serviceaccount:default:ci"
    for verb in ("get", "list", "patch", "delete"):
        assert (await kubectl.run("auth", "can-i", verb, "nodes", robot)).out.strip() == "no"


async def test_nodes_cannot_be_created_by_clients(api: Running, cluster: RedisTable[Node]) -> None:
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n9"}}
    assert (await api.client.post("/api/v1/nodes", json=body)).status_code == 405


async def test_a_single_machine_is_one_node(
    api: Running, kubectl: Kubectl, redis: RedisClient, table: RedisTable[Node]
) -> None:
    informers = Informers(api.store, [Informer(api.store, kinds.NODE.id)])
    await redis.execute("SET", keys.lease("autoscaler"), "held")
    single = single_machine(redis, "192.0.2.7")
    nodes = NodeSync(api.store, informers, table, removed_nodes(redis), time.time, single)
    async with synchronized(api.store, nodes, informers):

        async def listed() -> bool:
            return "Ready" in await kubectl("get", "nodes", "--no-headers", "-o", "wide")

        await eventually(listed, condition="the node")
        line = (await kubectl("get", "nodes", "--no-headers", "-o", "wide")).split()
        assert (line[0], line[1], line[5]) == ("knoll", "Ready", "192.0.2.7")
        assert await kubectl("get", "node", "knoll", "-o", "jsonpath={.status.capacity.cpu}") != ""
    # When machines are added, the first one gets a name of its own.
    await table.put("n1", machine("n1", 1))
    informers = Informers(api.store, [Informer(api.store, kinds.NODE.id)])
    nodes = NodeSync(api.store, informers, table, removed_nodes(redis), time.time)
    async with synchronized(api.store, nodes, informers):

        async def replaced() -> bool:
            return (await kubectl("get", "nodes", "-o", "name")).split() == ["node/n1"]

        await eventually(replaced, condition="the first node of a cluster")


async def test_a_running_machine_whose_node_is_deleted_stays_away_until_it_starts_again(
    api: Running, kubectl: Kubectl, cluster: RedisTable[Node]
) -> None:
    async def names() -> list[str]:
        return [body["metadata"]["name"] for body in (await api.store.list(kinds.NODE.id)).items]

    async def stays_away() -> bool:
        return await names() == ["n1", "n3"]

    async def is_back() -> bool:
        return await names() == ["n1", "n2", "n3"]

    await kubectl("delete", "node", "n2")
    # Its heartbeats go on; the Node of n3 shows that the deletion was handled.
    await cluster.put("n2", msgspec.structs.replace(machine("n2", 2), cores=8.0))
    await cluster.put("n3", machine("n3", 3))
    await eventually(stays_away, condition="the node of n3 only")
    await cluster.put("n2", msgspec.structs.replace(machine("n2", 2), started=2.0))
    await eventually(is_back, condition="the node of a machine that has started again")


async def test_a_removed_machine_stays_away_when_another_process_leads(
    api: Running, redis: RedisClient, table: RedisTable[Node]
) -> None:
    async def names() -> list[str]:
        return [body["metadata"]["name"] for body in (await api.store.list(kinds.NODE.id)).items]

    async def recorded() -> bool:
        return "n1" in (await removed_nodes(redis).snapshot())[1]

    def sync() -> contextlib.AbstractAsyncContextManager[None]:
        informers = Informers(api.store, [Informer(api.store, kinds.NODE.id)])
        nodes = NodeSync(api.store, informers, table, removed_nodes(redis), time.time)
        return synchronized(api.store, nodes, informers)

    async def is_shown() -> bool:
        return await names() == ["n1"]

    await table.put("n1", machine("n1", 1))
    async with sync():
        await eventually(is_shown, condition="its node")
        await api.store.delete(kinds.NODE.id, "", "n1")
        await eventually(recorded, condition="the removal is recorded")
    async with sync():
        await table.put("n2", machine("n2", 2))

        async def n2_alone() -> bool:
            return await names() == ["n2"]

        await eventually(n2_alone, condition="the node of n2 only")
        await table.put("n1", msgspec.structs.replace(machine("n1", 1), started=2.0))

        async def both() -> bool:
            return await names() == ["n1", "n2"]

        await eventually(both, condition="the node of a machine that has started again")
    assert not await recorded()
