import pytest

from builder.recovery import is_dead, worker_name


@pytest.mark.parametrize(
    ("name", "known", "alive", "dead"),
    [
        pytest.param(worker_name("here", 7, "q"), set(), {7}, False, id="its process lives on this host"),
        pytest.param(
            worker_name("here", 7, "q"), {"here.7.q"}, {8}, True, id="its process is gone, though RQ lists it"
        ),
        pytest.param(worker_name("there", 7, "q"), {"there.7.q"}, set(), False, id="another host, listed"),
        pytest.param(worker_name("there", 7, "q"), set(), {7}, True, id="another host, not listed any more"),
        pytest.param("by-hand", {"by-hand"}, set(), False, id="a name of another form, listed"),
        pytest.param("by-hand", set(), set(), True, id="a name of another form, not listed"),
        pytest.param(worker_name("here.example.org", 7, "q"), set(), {7}, True, id="a host whose name begins alike"),
    ],
)
def test_a_worker_is_dead_when(name: str, known: set[str], alive: set[int], dead: bool) -> None:
    assert is_dead(name, "here", known, alive) is dead
