"""Several nodes and one leader: what happens when one of them dies, is cut off, or comes back."""

import asyncio
import random
from collections.abc import AsyncIterator

import msgspec
import pytest
import structlog

from autoscaler.decision.arming_nodes import distribute
from autoscaler.kubelet.registration import NodeNameTakenError
from autoscaler.roles import cluster_node
from knoll.messages.assignments import ASSIGNMENTS
from knoll.messages.members import MEMBERS
from knoll.redis import keys
from knoll.resources.disruption import EVICTED
from knoll.values import kinds
from tests.component.autoscaler.cluster import Cluster, Machine, cluster_on
from tests.component.autoscaler.conftest import AutoscalerHarness
from tests.doubles.fake_runtime import FakeRuntime
from tests.waiting import eventually

THREE = {"autoscaling.knative.dev/min-scale": "3", "autoscaling.knative.dev/initial-scale": "3"}


@pytest.fixture
async def cluster(redis_url: str) -> AsyncIterator[Cluster]:
    async with cluster_on(redis_url) as cluster:
        yield cluster


async def test_instances_run_on_all_nodes_and_every_endpoint_names_its_node(cluster: Cluster) -> None:
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    await cluster.ready(key, 3, on={"n1", "n2", "n3"})

    async def shown() -> bool:
        _, rows = await cluster.rows.snapshot()
        return {row.node for row in rows[key][1].instances} == {"n1", "n2", "n3"} if key in rows else False

    await eventually(shown, condition="each Pod names its node")
    _, assignments = await cluster.assignments.snapshot()
    assert {each.node for _, each in assignments.values()} == {"n1", "n2", "n3"}


async def test_an_instance_on_another_node_is_drained_and_nothing_of_it_stays(cluster: Cluster) -> None:
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    await cluster.ready(key, 3)
    await cluster.store.delete(kinds.REVISION.id, "default", "hello-00001")

    async def gone() -> bool:
        tables = [await table.snapshot() for table in (cluster.assignments, cluster.members)]
        instances = [name for machine in cluster.machines.values() for name in machine.engine.instances]
        return not instances and all(not entries for _, entries in tables)

    await eventually(gone, condition="no instance, assignment or member")


async def test_a_machine_that_loses_its_power_is_replaced_and_comes_back_empty(cluster: Cluster) -> None:
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    await cluster.ready(key, 3, on={"n1", "n2", "n3"})
    await cluster.machines["n3"].lose_power()
    await cluster.ready(key, 3, on={"n1", "n2"})
    await cluster.registered("n1", "n2")
    await cluster.machines["n3"].start()
    await cluster.registered("n1", "n2", "n3")
    await cluster.ready(key, 3, on={"n1", "n2"})


async def test_a_node_that_was_cut_off_keeps_its_instances_until_it_is_connected_again(cluster: Cluster) -> None:
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    before = await cluster.ready(key, 3, on={"n1", "n2", "n3"})
    (cut_off,) = (each.id for each in before if each.node == "n3")
    cluster.machines["n3"].cable.cut()

    async def replaced() -> bool:
        _, entries = await cluster.endpoints.snapshot()
        endpoints = entries[key][1].endpoints
        return {each.node for each in endpoints if each.state == "ready"} == {"n1", "n2"} and len(endpoints) == 3

    await eventually(replaced, condition="the endpoint is withdrawn and another one takes its place")
    assert cluster.machines["n3"].instances() == [cut_off], "a node without a leader keeps everything running"
    cluster.machines["n3"].cable.mend()
    await cluster.registered("n1", "n2", "n3")
    after = await cluster.ready(key, 3)
    assert cut_off not in {each.id for each in after}


async def test_a_process_that_restarts_keeps_its_assigned_instances(cluster: Cluster) -> None:
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    before = await cluster.ready(key, 3)
    await cluster.machines["n2"].stop()
    await cluster.machines["n2"].start()
    assert {each.id for each in await cluster.ready(key, 3)} == {each.id for each in before}


async def away(cluster: Cluster, name: str) -> None:
    """Kill the process of a node whose machine runs, and wait until the leader knows that it is away."""
    for machine in cluster.machines.values():
        machine.serve(cluster.redis)
    await cluster.machines[name].kill()
    leader = cluster.leader.node
    assert leader is not None
    assert leader.leader is not None
    follower = leader.leader.node_follower
    await eventually(lambda: follower.excluded == {name}, condition="nothing is placed there")


async def test_the_instances_of_a_process_that_is_away_for_seconds_are_kept(cluster: Cluster) -> None:
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    before = await cluster.ready(key, 3, on={"n1", "n2", "n3"})
    least = asyncio.create_task(fewest_ready(cluster, key))
    await away(cluster, "n2")
    await cluster.registered("n1", "n2", "n3")
    await cluster.machines["n2"].start()
    assert cluster.leader.node is not None
    assert cluster.leader.node.leader is not None
    follower = cluster.leader.node.leader.node_follower
    await eventually(lambda: not follower.excluded, condition="it responds again")
    assert {each.id for each in await cluster.ready(key, 3)} == {each.id for each in before}
    least.cancel()
    assert fewest[key] == 3


async def test_the_instances_of_a_process_that_is_away_for_long_are_replaced(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoscaler.decision.node_presence.ABSENT_SECONDS", 4.0)
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    before = await cluster.ready(key, 3, on={"n1", "n2", "n3"})
    (left,) = (each.id for each in before if each.node == "n2")
    await away(cluster, "n2")
    await cluster.registered("n1", "n3")

    async def replaced() -> bool:
        _, entries = await cluster.endpoints.snapshot()
        return {each.node for each in entries[key][1].endpoints if each.state == "ready"} == {"n1", "n3"}

    await eventually(replaced, condition="its instance is replaced")
    await cluster.machines["n2"].start()
    await cluster.registered("n1", "n2", "n3")
    assert left not in {each.id for each in await cluster.ready(key, 3)}


async def test_an_instance_that_is_starting_while_its_process_goes_away_starts_elsewhere(cluster: Cluster) -> None:
    await cluster.start()
    cluster.machines["n2"].engine.start_seconds = 3600.0
    key = await cluster.apply(annotations=THREE)

    async def placed() -> bool:
        _, assignments = await cluster.assignments.snapshot()
        return {each.node for _, each in assignments.values()} == {"n1", "n2", "n3"}

    await eventually(placed, condition="an instance starts on each node")
    await away(cluster, "n2")

    async def serve() -> bool:
        _, entries = await cluster.endpoints.snapshot()
        return sum(each.state == "ready" for each in entries[key][1].endpoints) == 3

    await eventually(serve, condition="three serve")
    cluster.machines["n2"].engine.start_seconds = 0.0
    await cluster.machines["n2"].start()
    await cluster.registered("n1", "n2", "n3")
    await cluster.ready(key, 3, on={"n1", "n3"})


async def test_an_idle_instance_of_a_process_that_is_away_is_not_woken(cluster: Cluster) -> None:
    await cluster.start()
    paused = {"knoll.dev/paused-retention-period": "1h", "autoscaling.knative.dev/window": "1s"}
    keys_of = [await cluster.apply(f"r{number}-00001", annotations=paused) for number in range(3)]

    async def node_of(key: str) -> str:
        _, rows = await cluster.rows.snapshot()
        instances = rows[key][1].instances if key in rows else ()
        return next((row.node for row in instances if row.stage == "paused"), "")

    async def all_paused() -> list[str]:
        nodes = [await node_of(key) for key in keys_of]
        return nodes if all(nodes) else []

    nodes = await eventually(all_paused, condition="all are paused")
    key = keys_of[nodes.index("n2")]
    await away(cluster, "n2")
    await cluster.poke(key)

    async def served() -> bool:
        _, entries = await cluster.endpoints.snapshot()
        endpoints = entries[key][1].endpoints if key in entries else ()
        return any(each.state == "ready" and each.node != "n2" for each in endpoints)

    await eventually(served, condition="another node serves it")


async def test_a_second_process_with_the_name_of_a_node_waits_for_the_end_of_the_first(
    cluster: Cluster, redis_url: str
) -> None:
    await cluster.start("n1", "n2")
    key = await cluster.apply(annotations=THREE)
    before = await cluster.ready(key, 3, on={"n1", "n2"})
    second = Machine("n2", redis_url)
    second.host = "other"
    with structlog.testing.capture_logs() as logs:
        await second.start()
        taken = await eventually(
            lambda: [each for each in logs if each["event"] == "node name taken, waiting"], condition="it waits"
        )
    assert taken[0]["conflict"] == (
        "two machines have the name n2: this process runs on host other at 10.77.0.1, the other one on host n2 at "
        "10.77.0.1; set another KNOLL_NODE on one of them"
    )
    assert {each.id for each in await cluster.ready(key, 3)} == {each.id for each in before}
    assert not second.instances()
    await cluster.machines["n2"].stop()

    async def registered() -> bool:
        _, entries = await cluster.nodes.snapshot()
        return entries["n2"][1].process == "other" if "n2" in entries else False

    await eventually(registered, condition="the second one has the name")
    await second.stop()
    await FakeRuntime(second.engine).destroy()  # it may run instances by now


async def test_a_node_of_a_distant_version_neither_registers_nor_leads(
    cluster: Cluster, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.start("n1")
    key = await cluster.apply(annotations=THREE)
    before = await cluster.ready(key, 3, on={"n1"})
    monkeypatch.setattr(cluster_node, "__version__", "9.9.9")
    machine = Machine("n2", redis_url)
    await machine.start()
    assert machine.node is not None
    node = machine.node
    await eventually(lambda: "upgrade one minor version at a time" in node.problem, condition="it is refused")
    assert "n1 runs v" in node.problem
    _, entries = await cluster.nodes.snapshot()
    assert set(entries) == {"n1"}
    assert not machine.leads
    assert {each.id for each in await cluster.ready(key, 3)} == {each.id for each in before}
    await machine.stop()


async def test_a_process_whose_name_another_one_has_taken_ends(cluster: Cluster) -> None:
    await cluster.start("n1", "n2")
    _, entries = await cluster.nodes.snapshot()
    running = cluster.machines["n2"].running
    assert running is not None
    await cluster.nodes.put("n2", msgspec.structs.replace(entries["n2"][1], process="other", address="192.0.2.2"))
    (ended,) = await asyncio.gather(running, return_exceptions=True)
    assert isinstance(ended, ExceptionGroup)
    (error,) = ended.exceptions
    assert isinstance(error, NodeNameTakenError)
    assert "host n2 at 10.77.0.1, the other one on host other at 192.0.2.2" in str(error)


async def test_an_instance_that_was_lost_while_its_node_was_down_is_replaced_and_not_started_twice(
    cluster: Cluster,
) -> None:
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    before = await cluster.ready(key, 3, on={"n1", "n2", "n3"})
    (lost,) = (each.id for each in before if each.node == "n2")
    await cluster.machines["n2"].lose_power()
    await cluster.machines["n2"].start()  # at once, before it is considered lost
    after = await cluster.ready(key, 3)
    assert lost not in {each.id for each in after}


async def test_the_lease_moves_while_instances_run(cluster: Cluster) -> None:
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    before = await cluster.ready(key, 3)
    # The process continues as a node; another one takes the lease.
    await cluster.redis.execute("SET", "knoll:lease:autoscaler", "another", "PX", 2500)
    await eventually(lambda: not cluster.machines["n1"].leads, condition="n1 does not lead")
    await eventually(lambda: any(each.leads for each in cluster.machines.values()), condition="there is a leader")
    assert {each.id for each in await cluster.ready(key, 3)} == {each.id for each in before}
    await cluster.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await eventually(lambda: not any(each.instances() for each in cluster.machines.values()), condition="they end")


async def test_a_machine_leads_while_it_manages_the_swarm(cluster: Cluster) -> None:
    n1, n2 = cluster.machines["n1"], cluster.machines["n2"]
    n1.swarm.change("m1", may_place=True)
    n2.swarm.change("m2", may_place=False)
    await cluster.start("n1", "n2")
    key = await cluster.apply(annotations=THREE)
    before = await cluster.ready(key, 3)
    n1.swarm.change("m1", may_place=False)
    await eventually(lambda: not n1.leads, condition="a machine that was demoted gives the leadership up")
    assert not n2.leads
    n2.swarm.change("m2", may_place=True)
    await eventually(lambda: n2.leads, condition="a machine that was promoted leads")
    n1.swarm.change("m3", may_place=True)

    async def entered() -> bool:
        _, entries = await cluster.nodes.snapshot()
        return entries["n1"][1].engine_id == "m3"

    await eventually(entered, condition="its new id in the Swarm is known")
    assert {each.id for each in await cluster.ready(key, 3)} == {each.id for each in before}


async def test_the_leader_dies_with_its_machine_and_another_one_takes_over(cluster: Cluster) -> None:
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    await cluster.ready(key, 3, on={"n1", "n2", "n3"})
    await cluster.machines["n1"].lose_power()
    await eventually(lambda: any(each.leads for each in cluster.machines.values()), condition="another one leads")
    await cluster.ready(key, 3, on={"n2", "n3"})


async def test_a_leader_that_dies_between_command_and_publication_starts_no_instance_twice(cluster: Cluster) -> None:
    await cluster.start()
    engine = cluster.machines["n2"].engine
    engine.start_seconds = cluster.machines["n3"].engine.start_seconds = 1.0
    key = await cluster.apply(annotations=THREE)

    async def assigned() -> bool:
        _, assignments = await cluster.assignments.snapshot()
        return len(assignments) == 3

    await eventually(assigned, condition="the assignments are written")
    await cluster.machines["n1"].kill()  # before the result is published
    await eventually(lambda: any(each.leads for each in cluster.machines.values()), condition="another one leads")
    await cluster.machines["n1"].start()
    await cluster.ready(key, 3)


async def test_a_command_of_the_last_leader_is_carried_out_once(cluster: Cluster) -> None:
    await cluster.start()
    paused = {"knoll.dev/paused-retention-period": "1h", "autoscaling.knative.dev/window": "1s"}
    key = await cluster.apply(annotations=paused)
    (endpoint,) = await cluster.ready(key, 1)
    machine = cluster.machines[endpoint.node]
    await eventually(lambda: machine.engine.instances[endpoint.id].state() == "paused", condition="it is paused")
    (leader,) = (each for each in cluster.machines.values() if each.leads)
    await leader.kill()
    await eventually(lambda: any(each.leads for each in cluster.machines.values()), condition="another one leads")
    if not machine.node:
        await machine.start()
    await cluster.poke(key)
    (again,) = await cluster.ready(key, 1)
    assert again.id == endpoint.id


async def cordon(cluster: Cluster, name: str) -> None:
    """Close a node to new instances, and wait until the leader knows."""
    await cluster.store.create(kinds.NODE.id, {"metadata": {"name": name}, "spec": {"unschedulable": True}})
    leader = cluster.leader.node
    assert leader is not None
    assert leader.leader is not None
    follower = leader.leader.node_follower
    await eventually(lambda: follower.excluded == {name}, condition="the cordon is known")


async def test_a_cordoned_node_gets_nothing_new(cluster: Cluster) -> None:
    await cluster.start()
    await cordon(cluster, "n2")
    key = await cluster.apply(annotations=THREE)
    await cluster.ready(key, 3, on={"n1", "n3"})


async def test_a_revision_runs_on_the_nodes_that_its_selector_matches(cluster: Cluster) -> None:
    await cluster.start()
    for name, disk in (("n1", "hdd"), ("n2", "ssd"), ("n3", "ssd")):
        await cluster.store.create(kinds.NODE.id, {"metadata": {"name": name, "labels": {"disk": disk}}})
    leader = cluster.leader.node
    assert leader is not None
    assert leader.leader is not None
    follower = leader.leader.node_follower
    await eventually(lambda: len(follower.labels) == 3, condition="the labels of all nodes are known")
    container = {"name": "user-container", "image": "app"}
    key = await cluster.apply(annotations=THREE, spec={"containers": [container], "nodeSelector": {"disk": "ssd"}})
    await cluster.ready(key, 3, on={"n2", "n3"})


async def test_draining_a_node_replaces_its_instances_before_they_end(cluster: Cluster) -> None:
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    before = await cluster.ready(key, 3, on={"n1", "n2", "n3"})
    await cordon(cluster, "n2")
    (leaving,) = (each.id for each in before if each.node == "n2")
    least = asyncio.create_task(fewest_ready(cluster, key))
    pod = {"metadata": {"namespace": "default", "name": leaving, "finalizers": ["knoll.dev/instance"]}}
    await cluster.store.create(kinds.POD.id, pod)
    await cluster.store.delete(kinds.POD.id, "default", leaving)
    after = await cluster.ready(key, 3, on={"n1", "n3"})
    assert leaving not in {each.id for each in after}
    least.cancel()
    assert fewest[key] == 3


async def test_an_instance_that_is_starting_on_a_drained_node_serves_until_it_is_replaced(cluster: Cluster) -> None:
    await cluster.start()
    engines = [machine.engine for machine in cluster.machines.values()]
    for engine in engines:
        engine.start_seconds = 2.0
    key = await cluster.apply(annotations=THREE)

    async def placed() -> str:
        _, assignments = await cluster.assignments.snapshot()
        assert {each.node for _, each in assignments.values()} == {"n1", "n2", "n3"}
        return next(each.instance for _, each in assignments.values() if each.node == "n2")

    leaving = await eventually(placed, condition="an instance starts on each node")
    for engine in engines:
        engine.start_seconds = 3600.0
    await cordon(cluster, "n2")
    pod = {"metadata": {"namespace": "default", "name": leaving, "finalizers": ["knoll.dev/instance"]}}
    await cluster.store.create(kinds.POD.id, pod)
    await cluster.store.delete(kinds.POD.id, "default", leaving)

    async def serves() -> bool:
        _, entries = await cluster.endpoints.snapshot()
        endpoints = entries[key][1].endpoints if key in entries else ()
        return any(each.id == leaving and each.state == "ready" for each in endpoints)

    await eventually(serves, condition="it serves")


async def test_an_evicted_instance_is_replaced_before_it_ends(cluster: Cluster) -> None:
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    before = await cluster.ready(key, 3, on={"n1", "n2", "n3"})
    (leaving,) = (each.id for each in before if each.node == "n2")
    least = asyncio.create_task(fewest_ready(cluster, key))
    pod = {"metadata": {"namespace": "default", "name": leaving}, "status": {"conditions": [dict(EVICTED)]}}
    await cluster.store.create(kinds.POD.id, pod)

    async def replaced() -> bool:
        return leaving not in {each.id for each in await cluster.ready(key, 3)}

    await eventually(replaced, condition="another instance")
    least.cancel()
    assert fewest[key] == 3


fewest: dict[str, int] = {}


async def fewest_ready(cluster: Cluster, key: str) -> None:
    """Record the smallest number of ready endpoints that is published from now on."""
    fewest.pop(key, None)
    async for _ in cluster.endpoints.follow():
        _, entries = await cluster.endpoints.snapshot()
        ready = sum(each.state == "ready" for each in entries[key][1].endpoints)
        fewest[key] = min(fewest.get(key, ready), ready)


async def test_an_instance_that_starts_elsewhere_is_released_where_it_is_armed(cluster: Cluster) -> None:
    for machine in cluster.machines.values():
        machine.armed_instances = 3
    await cluster.start()
    revisions = [
        await cluster.apply(f"r{number}-00001", annotations={"autoscaling.knative.dev/window": "1s"})
        for number in range(4)
    ]

    def armed(key: str) -> list[str]:
        return [
            machine.name
            for machine in cluster.machines.values()
            for each in machine.engine.instances.values()
            if each.state() == "armed" and each.spec.revision == key
        ]

    def is_reported(key: str) -> bool:
        assert cluster.leader.node is not None
        return any(scaler.key == key and scaler.armed_count for scaler in cluster.leader.node.scalers.values())

    used = set()
    for key in revisions:

        async def one_is_armed(key: str = key) -> bool:
            return len(armed(key)) == 1 and is_reported(key)

        await eventually(one_is_armed, condition="one instance is armed")
        (node,) = armed(key)
        used.add(node)
        await cluster.poke(key)

        async def released(key: str = key, node: str = node) -> bool:
            _, entries = await cluster.rows.snapshot()
            rows = entries[key][1].instances if key in entries else ()
            return any(row.node == node and row.events for row in rows)

        await eventually(released, condition="it is released on its node")
    assert len(used) > 1, "they are spread"


async def test_tables_that_redis_loses_are_written_again_and_no_instance_ends(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoscaler.link.outbox.CHECK_SECONDS", 0.5)
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    before = await cluster.ready(key, 3, on={"n1", "n2", "n3"})
    tables = (cluster.assignments, cluster.members)
    entries = [set((await table.snapshot())[1]) for table in tables]
    for name in (ASSIGNMENTS, MEMBERS):
        await cluster.redis.execute("DEL", keys.table(name), keys.table_version(name), keys.table_changes(name))

    async def written() -> bool:
        return [set((await table.snapshot())[1]) for table in tables] == entries

    await eventually(written, condition="the tables are complete again")
    assert {each.id for each in await cluster.ready(key, 3)} == {each.id for each in before}


async def test_a_leader_that_is_cut_off_stops_leading_and_its_instances_are_replaced(cluster: Cluster) -> None:
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    before = await cluster.ready(key, 3, on={"n1", "n2", "n3"})
    (cut_off,) = (each.id for each in before if each.node == "n1")
    cluster.machines["n1"].cable.cut()
    await eventually(lambda: not cluster.machines["n1"].leads, condition="it does not lead")
    await eventually(lambda: any(each.leads for each in cluster.machines.values()), condition="another one leads")

    async def replaced() -> bool:
        _, entries = await cluster.endpoints.snapshot()
        return cut_off not in {each.id for each in entries[key][1].endpoints}

    await eventually(replaced, condition="the endpoint is withdrawn")
    assert cluster.machines["n1"].instances() == [cut_off]
    cluster.machines["n1"].cable.mend()
    after = await cluster.ready(key, 3)
    assert cut_off not in {each.id for each in after}


async def test_an_instance_with_a_volume_claim_runs_on_the_node_with_its_data(cluster: Cluster) -> None:
    await cluster.start()
    claim = {"metadata": {"namespace": "default", "name": "data", "uid": "uid-data"}}
    await cluster.store.create(kinds.VOLUME_CLAIM.id, claim)
    container = {"name": "user-container", "image": "app", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    key = await cluster.apply(annotations=THREE, spec={"containers": [container], "volumes": volumes})
    endpoints = await cluster.ready(key, 3)
    assert len({each.node for each in endpoints}) == 1
    _, places = await cluster.claims.snapshot()
    assert places["uid-data"][1].node == endpoints[0].node
    await cluster.redis.execute("SET", "knoll:lease:autoscaler", "another", "PX", 2500)
    await eventually(lambda: not cluster.machines["n1"].leads, condition="n1 does not lead")
    await eventually(lambda: any(each.leads for each in cluster.machines.values()), condition="there is a leader")
    other = await cluster.apply("other-00001", annotations=THREE, spec={"containers": [container], "volumes": volumes})

    async def placed() -> bool:
        _, assignments = await cluster.assignments.snapshot()
        nodes = [each.node for _, each in assignments.values() if each.revision == other]
        return len(nodes) == 3 and set(nodes) == {endpoints[0].node}

    await eventually(placed, condition="they are assigned to the node of the claim")


async def test_the_only_machine_becomes_the_first_node_and_keeps_what_runs(
    harness: AutoscalerHarness, redis_url: str
) -> None:
    await harness.start()
    key = await harness.apply(annotations=THREE)
    before = await harness.ready(key, 3)
    await harness.stop()
    async with cluster_on(redis_url) as cluster:
        cluster.machines["n1"].engine = harness.engine
        await cluster.start("n1", "n2")
        after = await cluster.ready(key, 3, on={"n1"})
        assert {each.id for each in after} == {each.id for each in before}
        assert all(each.timing for each in after), "they stay in service while they are taken over"


@pytest.mark.parametrize("seed", [1, 2])
async def test_after_any_sequence_of_failures_exactly_the_required_number_runs(cluster: Cluster, seed: int) -> None:
    dice = random.Random(seed)
    await cluster.start()
    key = await cluster.apply(annotations=THREE)
    await cluster.ready(key, 3)

    async def serves() -> bool:
        _, entries = await cluster.endpoints.snapshot()
        return sum(each.state == "ready" for each in entries[key][1].endpoints) == 3

    for _ in range(8):
        machine = cluster.machines[dice.choice(["n1", "n2", "n3"])]
        match dice.choice(["cut", "mend", "restart", "power", "lease"]):
            case "cut":
                machine.cable.cut()
            case "mend":
                machine.cable.mend()
            case "restart":
                await machine.kill()
                await machine.start()
            case "power":
                await machine.lose_power()
                await machine.start()
            case "lease":
                # Not deleted: another process would lead before this one notices.
                await cluster.redis.execute("SET", "knoll:lease:autoscaler", "another", "PX", 1500)
        if dice.random() < 0.5:
            # Otherwise the next failure occurs while this one is being handled.
            for other in cluster.machines.values():
                other.cable.mend()
            await eventually(serves, condition="three instances serve")
    for machine in cluster.machines.values():
        machine.cable.mend()
    await eventually(lambda: any(each.leads for each in cluster.machines.values()), condition="one leads")
    await cluster.registered("n1", "n2", "n3")
    await cluster.ready(key, 3)


async def at_zero_and_armed_on(cluster: Cluster, node: str) -> str:
    """Have an instance of a Revision at zero armed on a node; returns `namespace/name`."""
    for machine in cluster.machines.values():
        machine.armed_instances = 3
    await cluster.start()
    names = (f"r{number}-00001" for number in range(100))
    nodes = list(cluster.machines)
    name = next(name for name in names if distribute({f"uid-{name}": nodes}, nodes, {})[f"uid-{name}"] == node)
    key = await cluster.apply(name, annotations={"autoscaling.knative.dev/window": "1s"})
    leader = cluster.leader.node
    assert leader is not None

    def is_armed() -> bool:
        return bool(armed_on(cluster, node)) and any(scaler.armed_count for scaler in leader.scalers.values())

    await eventually(is_armed, condition=f"one instance is armed on {node}")
    return key


def armed_on(cluster: Cluster, node: str) -> list[str]:
    instances = cluster.machines[node].engine.instances
    return [name for name, each in instances.items() if each.state() == "armed"]


async def test_an_instance_that_is_armed_on_a_cordoned_node_starts_nowhere(cluster: Cluster) -> None:
    key = await at_zero_and_armed_on(cluster, "n2")
    armed = armed_on(cluster, "n2")
    await cordon(cluster, "n2")
    await cluster.poke(key)
    (endpoint,) = await cluster.ready(key, 1)
    assert endpoint.node != "n2"
    assert endpoint.id not in armed


async def test_a_node_that_is_cordoned_while_an_armed_instance_waits_keeps_its_name(cluster: Cluster) -> None:
    key = await at_zero_and_armed_on(cluster, "n2")
    armed = armed_on(cluster, "n2")
    leader, placer = cluster.leader.node, cluster.leader.placer
    assert leader is not None
    assert placer is not None
    (scaler,) = leader.scalers.values()
    placer.per_node = 0
    await cluster.poke(key)
    await eventually(lambda: list(scaler.instances) == armed, condition="the armed instance waits")
    await cordon(cluster, "n2")
    await eventually(lambda: list(scaler.instances) != armed, condition="another instance replaces it")
    placer.per_node = 1
    (endpoint,) = await cluster.ready(key, 1)
    assert endpoint.node != "n2"
    assert endpoint.id not in armed


async def test_a_cordoned_node_arms_nothing(cluster: Cluster) -> None:
    await at_zero_and_armed_on(cluster, "n2")
    await cordon(cluster, "n2")
    await eventually(lambda: not armed_on(cluster, "n2"), condition="n2 has no armed instance")
    await eventually(lambda: armed_on(cluster, "n1") + armed_on(cluster, "n3"), condition="another node has one")


@pytest.mark.parametrize("node", ["n1", "n3"])
async def test_the_first_instance_starts_on_the_machine_that_asked(cluster: Cluster, node: str) -> None:
    await cluster.start()
    key = await cluster.apply(annotations={"autoscaling.knative.dev/window": "1s"})
    await cluster.ready(key, 1)
    await eventually(lambda: not any(machine.instances() for machine in cluster.machines.values()))
    await cluster.poke(key, node)
    await cluster.ready(key, 1, on={node})
