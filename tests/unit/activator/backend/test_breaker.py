"""Admission under any mix of what may happen."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from activator.backend.breaker import Breaker
from activator.backend.load_balancer import first_free, least_of_two, round_robin
from knoll.values.errors import QueueFullError

DEPTH = 5


class Slot:
    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit, self.in_flight, self.others = name, limit, 0, 0

    def take_slot(self) -> bool:
        if self.limit and self.in_flight >= self.limit:
            return False
        self.in_flight += 1
        return True


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.limit = 2
        self.breaker: Breaker[int, Slot] = Breaker(self.limit, DEPTH, random.Random(1).random)
        self.number = 0
        self.waiting: list[int] = []
        self.running: dict[int, Slot] = {}
        self.slots: list[Slot] = []

    def _served(self, served: list[tuple[int, Slot]]) -> None:
        for waiter, slot in served:
            assert waiter == self.waiting.pop(0), "in order of arrival"
            self.running[waiter] = slot

    @rule()
    def enter(self) -> None:
        self.number += 1
        try:
            slot = self.breaker.enter(self.number)
        except QueueFullError:
            assert len(self.waiting) >= DEPTH
            return
        if slot is None:
            self.waiting.append(self.number)
        else:
            assert not self.waiting, "no request overtakes another"
            self.running[self.number] = slot

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(sorted(self.running)))
        self.running.pop(waiter).in_flight -= 1
        self._served(self.breaker.dispatch())

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.waiting))
        assert self.breaker.remove(waiter)
        self.waiting.remove(waiter)
        assert not self.breaker.remove(waiter)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(sorted(self.running)))
        slot = self.running.pop(waiter)
        self.breaker.requeue(waiter)
        self.waiting.insert(0, waiter)
        self.slots = [each for each in self.slots if each is not slot]
        slot.in_flight -= 1
        self._served(self.breaker.resize(self.slots, self.limit))

    @rule(count=st.integers(0, 4), limit=st.sampled_from([0, 1, 2, 3, 7]))
    def resize(self, count: int, limit: int) -> None:
        self.limit = limit
        kept = self.slots[:count]
        self.slots = kept + [Slot(f"s{n}", limit) for n in range(count - len(kept))]
        for slot in self.slots:
            slot.limit = limit
        self._served(self.breaker.resize(self.slots, limit))

    @invariant()
    def the_queue_is_what_we_think(self) -> None:
        assert list(self.breaker.queue) == self.waiting

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        if self.waiting:
            assert all(slot.limit and slot.in_flight >= slot.limit for slot in self.slots)

    @invariant()
    def the_sole_endpoint_is_the_one_that_enter_would_pick(self) -> None:
        sole = self.slots[0] if len(self.slots) == 1 and not self.limit else None
        assert self.breaker.sole is sole
        assert sole is None or not self.waiting

    @invariant()
    def counts_are_exact(self) -> None:
        for slot in self.slots:
            assert slot.in_flight == sum(each is slot for each in self.running.values())


TestBreaker = Model.TestCase


def test_a_queue_of_ten_thousand_is_served_in_order() -> None:
    breaker: Breaker[int, Slot] = Breaker(1, 10_000, random.random)
    for number in range(10_000):
        assert breaker.enter(number) is None
    with pytest.raises(QueueFullError, match="pending request queue full"):
        breaker.enter(10_001)
    slot = Slot("a", 1)
    served = [waiter for waiter, _ in breaker.resize([slot], 1)]
    while breaker.queue:
        slot.in_flight -= 1
        served += [waiter for waiter, _ in breaker.dispatch()]
    assert served == list(range(10_000))


@given(loads=st.lists(st.integers(0, 50), min_size=2, max_size=10), seed=st.integers())
def test_of_two_the_less_loaded_is_taken(loads: list[int], seed: int) -> None:
    slots = [Slot(str(n), 0) for n in range(len(loads))]
    for slot, load in zip(slots, loads, strict=True):
        slot.in_flight = load
    chosen = least_of_two(slots, 0, random.Random(seed).random)
    assert chosen is not None
    ahead = [slot for slot, load in zip(slots, loads, strict=True) if load < chosen.in_flight - 1]
    assert len(ahead) < len(slots)
    assert sum(slot.in_flight for slot in slots) == sum(loads) + 1


def test_unlimited_instances_share_evenly() -> None:
    slots, draw = [Slot(str(n), 0) for n in range(5)], random.Random(7).random
    for _ in range(1000):
        least_of_two(slots, 0, draw)
    assert max(slot.in_flight for slot in slots) - min(slot.in_flight for slot in slots) <= 4


def test_small_limits_fill_the_first_instance() -> None:
    slots = [Slot("a", 2), Slot("b", 2)]
    taken = [first_free(slots, n, random.random) for n in range(5)]
    assert [slot.name if slot else None for slot in taken] == ["a", "a", "b", "b", None]


def test_larger_limits_go_round() -> None:
    slots = [Slot("a", 5), Slot("b", 5), Slot("c", 0)]
    slots[2].limit, slots[2].in_flight = 5, 5
    taken = [round_robin(slots, n, random.random) for n in range(4)]
    assert [slot.name if slot else None for slot in taken] == ["a", "b", "a", "a"]
