"""Reservations of the machine's capacity and of quotas."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision.capacity import Reservations, ResourceRequest, request_of
from autoscaler.runtime.model import Capacity, ContainerSpec, InstanceSpec, Resources

GIB = 1024**3


def container(name: str, **resources: float) -> ContainerSpec:
    return ContainerSpec(name, "image", resources=Resources(**resources))  # type: ignore[arg-type]


def instance(*containers: ContainerSpec, init: tuple[ContainerSpec, ...] = ()) -> InstanceSpec:
    return InstanceSpec("i", "default/r", "uid", containers, 8080, init)


def test_containers_count_together_and_init_containers_by_the_largest() -> None:
    spec = instance(
        container("a", cpu_request=0.5, memory_request=100),
        container("b", cpu_request=0.25),
        init=(container("c", cpu_request=0.5, memory_request=300), container("d", memory_request=200)),
    )
    assert request_of(spec) == ResourceRequest(0.75, 300)


def test_a_limit_without_a_request_is_a_request() -> None:
    assert request_of(instance(container("a", cpu_limit=2, memory_limit=50))) == ResourceRequest(2, 50)
    assert request_of(instance(container("a", cpu_limit=2, cpu_request=0.1))) == ResourceRequest(0.1, 0)


def test_a_shortage_has_the_message_of_the_scheduler() -> None:
    reservations = Reservations(Capacity(2, GIB))
    assert reservations.reserve("a", ResourceRequest(2.5, 0)) == "0/1 nodes are available: 1 Insufficient cpu."
    assert reservations.reserve("a", ResourceRequest(0.1, 2 * GIB)) == "0/1 nodes are available: 1 Insufficient memory."
    assert (
        reservations.reserve("a", ResourceRequest(3, 2 * GIB))
        == "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."
    )
    assert reservations.total == ResourceRequest()


def test_ten_tenths_of_a_core_fit_in_one() -> None:
    reservations = Reservations(Capacity(1, GIB))
    assert [reservations.reserve(str(at), ResourceRequest(0.1, 0)) for at in range(10)] == [""] * 10
    assert reservations.reserve("one more", ResourceRequest(0.1, 0))


def test_without_requests_everything_fits_even_beyond_the_capacity() -> None:
    reservations = Reservations(Capacity(1, GIB))
    reservations.put("adopted", ResourceRequest(5, 5 * GIB))
    assert reservations.reserve("a", ResourceRequest()) == ""


def test_released_capacity_is_available_again() -> None:
    reservations = Reservations(Capacity(1, GIB))
    assert reservations.reserve("a", ResourceRequest(1, 0)) == ""
    assert reservations.reserve("b", ResourceRequest(1, 0))
    reservations.release("a")
    assert reservations.reserve("b", ResourceRequest(1, 0)) == ""


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.floats(0, 2), st.integers(0, GIB)), max_size=40))
def test_reservations_never_exceed_the_capacity(steps: list[tuple[bool, int, float, int]]) -> None:
    reservations = Reservations(Capacity(2, 2 * GIB))
    for take, name, cores, memory in steps:
        if take:
            reservations.reserve(str(name), ResourceRequest(cores, memory))
        else:
            reservations.release(str(name))
        assert reservations.total.cores <= 2 + 1e-6
        assert reservations.total.memory_bytes <= 2 * GIB


def quotas(**hard: str) -> list[dict[str, object]]:
    bounds = {name.replace("_", "."): most for name, most in hard.items()}
    return [{"metadata": {"name": "team"}, "spec": {"hard": bounds}}]


def test_a_quota_counts_reservations_of_its_namespace() -> None:
    reservations = Reservations(
        quotas=lambda namespace: quotas(requests_cpu="1", pods="5") if namespace == "default" else []
    )
    half = request_of(instance(container("a", cpu_request=0.5)))
    elsewhere = request_of(replace(instance(container("a", cpu_request=8)), revision="other/r"))
    for name in ("i", "j"):
        assert reservations.quota_refusal(name, half) == ""
        reservations.reserve(name, half)
    assert reservations.quota_refusal("x", elsewhere) == ""
    assert reservations.quota_refusal("k", half) == (
        'pods "k" is forbidden: exceeded quota: team, requested: requests.cpu=500m, used: requests.cpu=1, '
        "limited: requests.cpu=1"
    )
    assert reservations.quota_refusal("i", half) == ""
    reservations.update("i", ResourceRequest(0.0, 0))
    assert reservations.quota_refusal("k", half) == ""


def test_a_quota_of_limits_requires_limits_of_every_container() -> None:
    reservations = Reservations(quotas=lambda namespace: quotas(limits_memory="1Gi"))
    request = request_of(instance(container("a", memory_limit=GIB), container("b", memory_request=1)))
    assert reservations.quota_refusal("i", request) == (
        'pods "i" is forbidden: failed quota: team: must specify limits.memory for: b'
    )
    assert reservations.quota_refusal("i", request_of(instance(container("a", memory_limit=GIB)))) == ""
