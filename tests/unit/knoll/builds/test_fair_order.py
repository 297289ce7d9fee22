"""The order of builds: no namespace waits for all builds of another."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from knoll.builds.fair_order import fair_order

NAMESPACES = st.sampled_from("abcd")
WAITING = st.lists(NAMESPACES, max_size=30).map(lambda names: [(name, f"{name}{at}") for at, name in enumerate(names)])
TURNS = st.dictionaries(NAMESPACES, st.floats(0, 1000))


def test_a_namespace_with_one_build_does_not_wait_for_a_hundred() -> None:
    waiting = [("a", f"a{number}") for number in range(100)] + [("b", "b0")]
    assert fair_order(waiting, {})[:3] == ["a0", "b0", "a1"]
    assert fair_order(waiting, {"a": 7.0})[:3] == ["b0", "a0", "a1"]


@given(WAITING, TURNS)
def test_nothing_is_lost_and_each_namespace_keeps_its_order(
    waiting: list[tuple[str, str]], turns: dict[str, float]
) -> None:
    order = fair_order(waiting, turns)
    assert sorted(order) == sorted(name for _, name in waiting)
    for namespace in "abcd":
        mine = [name for owner, name in waiting if owner == namespace]
        assert [name for name in order if name[0] == namespace] == mine


@given(WAITING, TURNS)
def test_the_nth_build_has_at_most_n_of_each_other_namespace_before_it(
    waiting: list[tuple[str, str]], turns: dict[str, float]
) -> None:
    seen: dict[str, int] = defaultdict(int)
    for name in fair_order(waiting, turns):
        seen[name[0]] += 1
        assert all(count <= seen[name[0]] for other, count in seen.items() if other != name[0])


@given(WAITING, TURNS)
def test_arranging_twice_changes_nothing(waiting: list[tuple[str, str]], turns: dict[str, float]) -> None:
    once = fair_order(waiting, turns)
    assert fair_order([(name[0], name) for name in once], turns) == once


@given(st.lists(st.one_of(NAMESPACES, st.none()), max_size=60))
def test_over_time_namespaces_that_wait_are_served_in_turn(events: list[str | None]) -> None:
    """Builds come (a namespace) and are begun (None). While a namespace waits, each other has one turn at most."""
    queue: list[str] = []
    turns: dict[str, float] = {}
    since: dict[str, dict[str, int]] = {}
    for now, event in enumerate([*events, *[None] * 60]):
        if event is not None:
            queue = fair_order([(name[0], name) for name in [*queue, f"{event}{now}"]], turns)
            since.setdefault(event, defaultdict(int))
        elif queue:
            served = queue.pop(0)[0]
            turns[served] = float(now)
            since.pop(served, None)
            for namespace, others in since.items():
                others[served] += 1
                assert others[served] <= 1, f"{served} was served twice while {namespace} waited"
            if any(name[0] == served for name in queue):
                since[served] = defaultdict(int)
    assert not queue
