"""Which instance is evicted for its disk usage, with Kubernetes' messages."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision.disk_eviction import (
    DiskUsage,
    measures_volumes,
    overrun,
    pressure_message,
    requested,
    to_evict,
)
from autoscaler.runtime.model import ContainerSpec, InstanceSpec, Mount, Resources
from autoscaler.spec.instance_spec import instance_spec
from knoll.process import disk
from tests.unit.autoscaler.sample_revisions import revision

MI, GI = 1024**2, 1024**3


def container(name: str = "app", request: int | None = None, limit: int | None = None, *mounts: Mount) -> ContainerSpec:
    resources = Resources(storage_request=request, storage_limit=limit)
    return ContainerSpec(name, "image", resources=resources, mounts=mounts)


def spec(*containers: ContainerSpec) -> InstanceSpec:
    return InstanceSpec("app-1", "default/app", "uid", containers or (container(),), 8080)


CACHE = Mount("/cache", "own", "scratch.app-1.cache", size_bytes=100 * MI)


@pytest.mark.parametrize(
    ("instance", "usage", "message"),
    [
        (spec(container(limit=GI)), DiskUsage({"app": GI}), ""),
        (spec(container(limit=GI)), DiskUsage({"app": GI + 1}),
         'Container app exceeded its local ephemeral storage limit "1Gi". '),
        (spec(container(limit=1500 * MI)), DiskUsage({"app": 2 * GI}),
         'Container app exceeded its local ephemeral storage limit "1500Mi". '),
        (spec(container(limit=10**9)), DiskUsage({"app": 2 * GI}),
         'Container app exceeded its local ephemeral storage limit "1G". '),
        (spec(container()), DiskUsage({"app": 3 * GI}),
         'Container app exceeded its local ephemeral storage limit "2Gi". '),
        (spec(container(limit=GI), container("side", limit=GI)), DiskUsage({"app": GI + 1, "side": 0}),
         'Container app exceeded its local ephemeral storage limit "1Gi". '),
        (spec(container(limit=GI), container("side", limit=GI)), DiskUsage({"app": GI, "side": GI + 1}),
         "Pod ephemeral local storage usage exceeds the total limit of containers 2Gi. "),
        (spec(container("app", None, GI, CACHE)), DiskUsage({"app": 0}, {"scratch.app-1.cache": 100 * MI + 1}),
         'Usage of EmptyDir volume "cache" exceeds the limit "100Mi". '),
        (spec(container("app", None, 50 * MI, CACHE)), DiskUsage({"app": 0}, {"scratch.app-1.cache": 60 * MI}),
         "Pod ephemeral local storage usage exceeds the total limit of containers 50Mi. "),
    ],
)  # fmt: skip
def test_what_is_over_its_limit_is_evicted_with_the_reason(
    instance: InstanceSpec, usage: DiskUsage, message: str
) -> None:
    assert overrun(instance, usage, 2 * GI) == message


def test_without_any_limit_nothing_is_evicted() -> None:
    assert overrun(spec(container()), DiskUsage({"app": 500 * GI}), None) == ""


@given(st.integers(0, 3 * GI), st.integers(0, 3 * GI), st.none() | st.integers(1, 2 * GI), st.integers(1, 2 * GI))
def test_within_every_limit_nothing_is_ever_evicted(app: int, side: int, limit: int | None, other: int) -> None:
    instance = spec(container(limit=limit), container("side", limit=other))
    message = overrun(instance, DiskUsage({"app": app, "side": side}), None)
    within = (limit is None or app <= limit) and side <= other
    assert not (within and message)
    assert within or message


def test_under_pressure_the_instance_furthest_above_its_request_is_evicted_first() -> None:
    used = {
        "small": (spec(container()), DiskUsage({"app": 50 * MI})),
        "large": (spec(container(request=2 * GI)), DiskUsage({"app": 2 * GI})),
        "over": (spec(container(request=MI)), DiskUsage({"app": 200 * MI})),
    }
    assert to_evict(used) == "over"
    del used["over"]
    assert to_evict(used) == "small"
    del used["small"]
    assert to_evict(used) is None, "it uses what it asked for"
    assert to_evict({"tiny": (spec(), DiskUsage({"app": MI}))}) is None, "nothing would be gained"


def test_the_reason_names_what_each_container_used() -> None:
    instance = spec(container(request=GI), container("side", request=GI))
    assert pressure_message(instance, DiskUsage({"app": 3 * GI, "side": 5}), 2 * GI, GI) == (
        "The node was low on resource: ephemeral-storage. Threshold quantity: 2Gi, available: 1048576Ki. "
        "Container app was using 3145728Ki, request is 1Gi, has larger consumption of ephemeral-storage. "
    )


def test_a_limit_without_a_request_is_a_request() -> None:
    assert requested(spec(container(limit=GI), container("side", request=MI, limit=GI), container("none"))) == GI + MI


def test_requests_and_limits_are_read_from_the_revision() -> None:
    container = {
        "name": "user-container", "image": "app",
        "resources": {"requests": {"ephemeral-storage": "500M"}, "limits": {"ephemeral-storage": "1Gi"}},
    }  # fmt: skip
    made = instance_spec(revision(spec={"containers": [container]}), "app-1").containers[0]
    assert (made.resources.storage_request, made.resources.storage_limit) == (500 * 10**6, GI)


def test_volumes_are_measured_only_where_one_lies_on_the_disk() -> None:
    plain = spec(container("app", None, None, Mount("/tmp", "tmpfs"), Mount("/c", "own", "claim.uid")))
    assert not measures_volumes([plain])
    assert measures_volumes([plain, spec(container("app", None, None, replace(CACHE, size_bytes=None)))])


@pytest.mark.parametrize(
    ("size", "text"),
    [(GI, "1Gi"), (1500 * MI, "1500Mi"), (10**9, "1G"), (750 * 10**6, "750M"), (0, "0"), (1023, "1023")],
)
def test_sizes_are_written_as_quantities(size: int, text: str) -> None:
    assert disk.quantity(size) == text
