"""Which connections are held, and which are closed to make room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.connections import MAX_OVER, Connections, group_of


class Held:
    """A connection that says whether it was closed."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_connections_with_incomplete_heads_are_closed_oldest_first() -> None:
    connections = Connections(100, lambda: 3)
    held = [Held() for _ in range(5)]
    assert all(connections.add(connection, "192.0.2.1") for connection in held)
    assert [connection.aborted for connection in held] == [True, True, False, False, False]


def test_connections_at_work_are_never_closed_for_others() -> None:
    connections = Connections(100, lambda: 2)
    working = [Held(), Held()]
    for connection in working:
        assert connections.add(connection, "192.0.2.1")
        connections.works(connection)
    assert not connections.add(Held(), "192.0.2.1")
    assert not any(connection.aborted for connection in working)
    assert connections.add(Held(), "192.0.2.2")
    connections.waits(working[0])
    assert connections.add(Held(), "192.0.2.1")
    assert working[0].aborted


def test_all_addresses_together_have_a_bound_too() -> None:
    connections = Connections(2, lambda: 100)
    first, second = Held(), Held()
    assert connections.add(first, "192.0.2.1")
    assert connections.add(second, "192.0.2.2")
    assert connections.add(Held(), "192.0.2.3")
    assert (first.aborted, second.aborted) == (True, False)


def test_of_those_over_the_bound_the_oldest_is_closed_first() -> None:
    connections = Connections(100, lambda: 1)
    working = Held()
    connections.add(working, "192.0.2.1")
    connections.works(working)
    over = [Held() for _ in range(MAX_OVER + 2)]
    assert not any(connections.add(connection, "192.0.2.1") for connection in over)
    assert [connection.aborted for connection in over] == [True, True] + [False] * MAX_OVER


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(address: str, group: str) -> None:
    assert group_of(address) == group


events = st.lists(
    st.tuples(st.sampled_from(["add", "works", "waits", "remove"]), st.integers(0, 7), st.sampled_from(["a", "b"]))
)


@given(events, st.integers(1, 4), st.integers(1, 3))
def test_the_bounds_hold_whatever_happens(happened: list[tuple[str, int, str]], total: int, each: int) -> None:
    connections = Connections(total, lambda: each)
    alive: dict[int, tuple[Held, str]] = {}
    for event, number, address in happened:
        if event == "add" and number not in alive:
            held = Held()
            if connections.add(held, address):
                alive[number] = (held, address)
        elif number in alive:
            held, _ = alive[number]
            {"works": connections.works, "waits": connections.waits, "remove": connections.remove}.get(
                event, lambda _: None
            )(held)
            if event == "remove":
                del alive[number]
        alive = {number: pair for number, pair in alive.items() if not pair[0].aborted}
        assert len(connections) == len(alive) <= total
        for place in ("a", "b"):
            assert sum(address == place for _, address in alive.values()) <= each
