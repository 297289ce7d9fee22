"""What fits on the machine."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision.capacity import Need, Room, need_of
from autoscaler.runtime.protocol import Capacity, ContainerSpec, InstanceSpec, Resources

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
    assert need_of(spec) == Need(0.75, 300)


def test_a_limit_without_a_request_is_a_request() -> None:
    assert need_of(instance(container("a", cpu_limit=2, memory_limit=50))) == Need(2, 50)
    assert need_of(instance(container("a", cpu_limit=2, cpu_request=0.1))) == Need(0.1, 0)


def test_what_is_missing_is_told_in_the_words_of_the_scheduler() -> None:
    room = Room(Capacity(2, GIB))
    assert room.take("a", Need(2.5, 0)) == "0/1 nodes are available: 1 Insufficient cpu."
    assert room.take("a", Need(0.1, 2 * GIB)) == "0/1 nodes are available: 1 Insufficient memory."
    assert room.take("a", Need(3, 2 * GIB)) == "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."
    assert room.held == Need()


def test_ten_tenths_of_a_core_fit_in_one() -> None:
    room = Room(Capacity(1, GIB))
    assert [room.take(str(at), Need(0.1, 0)) for at in range(10)] == [""] * 10
    assert room.take("one more", Need(0.1, 0))


def test_without_requests_everything_fits_even_where_too_much_is_there_already() -> None:
    room = Room(Capacity(1, GIB))
    room.put("adopted", Need(5, 5 * GIB))
    assert room.take("a", Need()) == ""


def test_room_that_was_given_back_is_there_for_the_next() -> None:
    room = Room(Capacity(1, GIB))
    assert room.take("a", Need(1, 0)) == ""
    assert room.take("b", Need(1, 0))
    room.free("a")
    assert room.take("b", Need(1, 0)) == ""


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.floats(0, 2), st.integers(0, GIB)), max_size=40))
def test_never_more_is_handed_out_than_the_machine_has(steps: list[tuple[bool, int, float, int]]) -> None:
    room = Room(Capacity(2, 2 * GIB))
    for take, name, cores, memory in steps:
        if take:
            room.take(str(name), Need(cores, memory))
        else:
            room.free(str(name))
        assert room.held.cores <= 2 + 1e-6
        assert room.held.memory_bytes <= 2 * GIB


def quotas(**hard: str) -> list[dict[str, object]]:
    bounds = {name.replace("_", "."): most for name, most in hard.items()}
    return [{"metadata": {"name": "team"}, "spec": {"hard": bounds}}]


def test_a_quota_counts_what_has_room_in_its_namespace() -> None:
    room = Room(quotas=lambda namespace: quotas(requests_cpu="1", pods="5") if namespace == "default" else [])
    half = need_of(instance(container("a", cpu_request=0.5)))
    elsewhere = need_of(replace(instance(container("a", cpu_request=8)), revision="other/r"))
    for name in ("i", "j"):
        assert room.over_quota(name, half) == ""
        room.take(name, half)
    assert room.over_quota("x", elsewhere) == ""
    assert room.over_quota("k", half) == (
        'pods "k" is forbidden: exceeded quota: team, requested: requests.cpu=500m, used: requests.cpu=1, '
        "limited: requests.cpu=1"
    )
    assert room.over_quota("i", half) == ""
    room.keep("i", Need(0.0, 0))
    assert room.over_quota("k", half) == ""


def test_a_quota_of_limits_wants_limits_of_every_container() -> None:
    room = Room(quotas=lambda namespace: quotas(limits_memory="1Gi"))
    need = need_of(instance(container("a", memory_limit=GIB), container("b", memory_request=1)))
    assert room.over_quota("i", need) == (
        'pods "i" is forbidden: failed quota: team: must specify limits.memory for: b'
    )
    assert room.over_quota("i", need_of(instance(container("a", memory_limit=GIB)))) == ""
