"""Shortages are reported in the words of Kubernetes' scheduler."""

import pytest

from autoscaler.decision.capacity import ResourceRequest
from autoscaler.placement.protocol import ANYWHERE, Constraints
from autoscaler.placement.swarm.model import Cluster, SwarmNode
from autoscaler.placement.swarm.reasons import explain, is_impossible
from autoscaler.placement.swarm.services import PlaceSize, node_constraints, size_of

CORE, GIB = 10**9, 2**30


def cluster(**changes: dict[str, str]) -> Cluster:
    """Three machines of 2 cores and 4 GiB; `changes` are fields of some of them."""
    machines = {}
    for name in ("n1", "n2", "n3"):
        state = {"availability": "active", "state": "ready", **changes.get(name, {})}
        machines[f"id-{name}"] = SwarmNode(
            f"id-{name}", name, "manager", state["availability"], state["state"], 2.0, 4 * GIB
        )
    return Cluster({name: f"id-{name}" for name in ("n1", "n2", "n3")}, machines)


@pytest.mark.parametrize(
    ("changes", "size", "constraints", "reserved", "expected"),
    [
        ({}, PlaceSize(3 * CORE), ANYWHERE, {}, "3 Insufficient cpu"),
        ({}, PlaceSize(0, 5 * GIB), ANYWHERE, {}, "3 Insufficient memory"),
        ({}, PlaceSize(3 * CORE, 5 * GIB), ANYWHERE, {}, "3 Insufficient cpu, 3 Insufficient memory"),
        ({}, PlaceSize(CORE, GIB), ANYWHERE,
         {"id-n1": PlaceSize(2 * CORE, GIB), "id-n2": PlaceSize(CORE, 4 * GIB), "id-n3": PlaceSize(2 * CORE, 4 * GIB)},
         "2 Insufficient cpu, 2 Insufficient memory"),
        ({}, PlaceSize(CORE), ANYWHERE, {}, "3 Insufficient cpu"),
        ({}, PlaceSize(0, GIB), ANYWHERE, {}, "3 Insufficient memory"),
        ({"n1": {"availability": "pause"}, "n2": {"availability": "drain"}, "n3": {"state": "down"}}, PlaceSize(),
         ANYWHERE, {},
         "1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }, 2 node(s) were unschedulable"),
        ({}, PlaceSize(), Constraints(node="n1", excluded=frozenset({"n1"})), {},
         "1 node(s) were unschedulable, 2 node(s) had volume node affinity conflict"),
        ({}, PlaceSize(3 * CORE), Constraints(excluded=frozenset({"n2"})), {},
         "1 node(s) were unschedulable, 2 Insufficient cpu"),
        ({"n3": {"state": "down"}}, PlaceSize(3 * CORE), Constraints(unsuitable=frozenset({"n2", "n3"})), {},
         "1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector, "
         "1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }"),
    ],
    ids=["cpu", "memory", "both", "by what is reserved", "cpu of others", "memory of others", "unusable", "volume",
         "excluded", "unsuitable"],
)  # fmt: skip
def test_why_no_node_takes_an_instance(
    changes: dict[str, dict[str, str]],
    size: PlaceSize,
    constraints: Constraints,
    reserved: dict[str, PlaceSize],
    expected: str,
) -> None:
    assert explain(cluster(**changes), size, constraints, reserved) == f"0/3 nodes are available: {expected}."


def test_without_nodes_there_is_nothing_to_choose() -> None:
    assert explain(Cluster(), PlaceSize(), ANYWHERE, {}) == "no nodes available to schedule pods"


@pytest.mark.parametrize(
    ("size", "constraints", "impossible"),
    [
        (PlaceSize(2 * CORE, 4 * GIB), ANYWHERE, False),
        (PlaceSize(2 * CORE + 1), ANYWHERE, True),
        (PlaceSize(0, 4 * GIB + 1), ANYWHERE, True),
        (PlaceSize(CORE), Constraints(node="n9"), True),
        (PlaceSize(CORE), Constraints(node="n1"), False),
    ],
)
def test_what_does_not_fit_on_an_empty_node_is_impossible(
    size: PlaceSize, constraints: Constraints, impossible: bool
) -> None:
    assert is_impossible(cluster(), size, constraints) is impossible


@pytest.mark.parametrize(
    ("request_", "size"),
    [
        (ResourceRequest(), PlaceSize()),
        (ResourceRequest(0.25, 64 * 2**20), PlaceSize(CORE // 4, 64 * 2**20)),
        (ResourceRequest(0.0001, 1), PlaceSize(10**6, 4 * 2**20)),
    ],
)
def test_a_place_has_what_is_requested_and_at_least_what_swarm_accepts(
    request_: ResourceRequest, size: PlaceSize
) -> None:
    assert size_of(request_) == size


@pytest.mark.parametrize(
    ("allowed", "constraints"),
    [("a", ("node.id==a",)), ("abc", ()), ("ab", ("node.id!=c",)), ("ax", ("node.id!=b", "node.id!=c"))],
)
def test_constraints_leave_the_allowed_nodes(allowed: str, constraints: tuple[str, ...]) -> None:
    assert node_constraints(allowed, "abc") == constraints
