"""Instances of this node are preferred, returned requests keep their order, released slots are offered in turn."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.backend.breaker import Breaker
from activator.backend.endpoint import LOAD_SECONDS, UpstreamEndpoint
from activator.backend.load_balancer import LOCAL_ADVANTAGE, LOCAL_FACTOR, over_nodes, policy
from activator.backend.nodes import Nodes, RemoteEndpoint
from activator.backend.slot_sharing import MAX_OFFERS, SlotSharing
from knoll.auth.node_identity import node_name
from tests.unit.activator.backend.test_breaker import Slot


def slots(counts: list[int], limit: int) -> list[Slot]:
    made = [Slot(str(number), limit) for number in range(len(counts))]
    for slot, count in zip(made, counts, strict=True):
        slot.in_flight = count
    return made


COUNTS = st.lists(st.integers(0, 5), min_size=1, max_size=4)


@given(local=COUNTS, remote=COUNTS, limit=st.sampled_from([1, 2, 3, 5]), turn=st.integers(0, 9))
def test_with_a_limit_other_nodes_get_requests_without_a_slot_here(
    local: list[int], remote: list[int], limit: int, turn: int
) -> None:
    near, far = slots(local, limit), slots(remote, limit)
    candidates = [*near, *far]
    free_here = any(count < limit for count in local)
    free_there = any(count < limit for count in remote)
    chosen = over_nodes(candidates, len(near), policy(limit))(candidates, turn, random.Random(1).random)
    assert (chosen in near) == free_here
    assert (chosen in far) == (free_there and not free_here)


@given(here=st.integers(0, 100), sent=st.integers(0, 100), others=st.integers(0, 100))
def test_without_a_limit_other_nodes_get_requests_of_a_busy_one(here: int, sent: int, others: int) -> None:
    near, far = slots([here], 0), slots([sent], 0)
    far[0].others = others
    candidates = [*near, *far]
    chosen = over_nodes(candidates, 1, policy(0))(candidates, 0, random.Random(1).random)
    assert chosen is (far[0] if here > LOCAL_FACTOR * (sent + others) + LOCAL_ADVANTAGE else near[0])


@given(first=st.integers(0, 1000), second=st.integers(0, 1000))
def test_two_nodes_that_know_their_loads_never_exchange_requests(first: int, second: int) -> None:
    def sends_away(here: int, there: int) -> bool:
        candidates = slots([here, there], 0)
        return over_nodes(candidates, 1, policy(0))(candidates, 0, random.Random(1).random) is candidates[1]

    assert not (sends_away(first, second) and sends_away(second, first))


@given(loads=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=2), seed=st.integers(0, 9))
def test_a_node_without_instances_counts_the_requests_of_others(loads: list[tuple[int, int]], seed: int) -> None:
    far = slots([sent for sent, _ in loads], 0)
    for slot, (_, others) in zip(far, loads, strict=True):
        slot.others = others
    chosen = over_nodes(far, 0, policy(0))(far, 0, random.Random(seed).random)
    assert chosen is not None
    assert chosen.in_flight - 1 + chosen.others == min(sent + others for sent, others in loads)


@given(reports=st.lists(st.integers(0, 1000), max_size=5), own=st.integers(0, 50))
def test_a_report_counts_the_requests_of_others_and_fades(reports: list[int], own: int) -> None:
    endpoint = RemoteEndpoint(Nodes(lambda *_: False, lambda: None), "default/a", "a-1", "n2", 0)
    endpoint.in_flight = own
    for report in reports:
        endpoint.load_reported(report)
        assert endpoint.others == max(0, report - own)
    last = endpoint.others
    if reports:
        endpoint.sweep(0.0)
        assert endpoint.others == last, "it is fresh at the first sweep"
    for _ in range(10):
        endpoint.sweep(0.0)
    assert endpoint.others == 0


def test_refused_connections_are_forgotten_unless_the_instance_still_refuses() -> None:
    endpoint = RemoteEndpoint(Nodes(lambda *_: False, lambda: None), "default/a", "a-1", "n2", 0)
    endpoint.failures, endpoint.suspended = 6, True
    endpoint.sweep(0.0)
    assert endpoint.failures == 6
    endpoint.suspended = False
    for expected in (3, 1, 0, 0):
        endpoint.sweep(0.0)
        assert endpoint.failures == expected


@given(times=st.lists(st.floats(0, 10), max_size=30))
def test_each_node_gets_a_report_at_most_ten_times_a_second(times: list[float]) -> None:
    endpoint = UpstreamEndpoint("a-1", "", 0, 0, lambda _: pytest.fail("no HTTP/2"))
    sent = [at for at in sorted(times) if endpoint.load_is_due("n2", at)]
    assert bool(sent) == bool(times)
    assert all(later - earlier >= LOAD_SECONDS for earlier, later in pairwise(sent))
    assert not times or endpoint.load_is_due("n3", max(times))
    endpoint.limit = 1
    assert not endpoint.load_is_due("n4", 20.0), "with a limit the owner decides"


@given(queued=st.integers(0, 5), back=st.permutations(range(6)), count=st.integers(1, 6))
def test_requests_that_come_back_keep_their_order(queued: int, back: list[int], count: int) -> None:
    """Requests 0 to `count` were sent to other nodes, and come back in any order; those after them never left."""
    breaker: Breaker[int, Slot] = Breaker(1, 100, random.random)
    for number in range(100, 100 + queued):
        breaker.queue[number] = None
    sent = [number for number in back if number < count]
    for number in sent:
        breaker.requeue(number, lambda other, mine=number: other < mine)  # type: ignore[misc]
    assert list(breaker.queue) == [*sorted(sent), *range(100, 100 + queued)]


class Waiter:
    def __init__(self, reachable: bool = True) -> None:
        self.reachable = reachable
        self.offers: list[tuple[str, str]] = []

    def offer(self, revision: str, instance: str) -> bool:
        if self.reachable:
            self.offers.append((revision, instance))
        return self.reachable


def test_each_party_gets_its_turn() -> None:
    sharing = SlotSharing("default/a")
    nodes = [Waiter(), Waiter()]
    for node in nodes:
        sharing.add(node, "a-1")
    turns = [sharing.next_turn() for _ in range(9)]
    assert turns == [True, True, False] * 3
    sharing.other_workers = True
    assert [sharing.next_turn() for _ in range(8)].count(False) == 2


def test_offers_take_turns_and_skip_connections_that_are_closed() -> None:
    sharing = SlotSharing("default/a")
    first, gone, second = Waiter(), Waiter(reachable=False), Waiter()
    for node in (first, gone, second):
        sharing.add(node, "busy")
    for instance in ("a-1", "", "a-3"):
        sharing.offer(instance)
    assert first.offers == [("default/a", "a-1"), ("default/a", "a-3")]
    assert second.offers == [("default/a", "busy")]


def test_a_node_that_neither_accepts_nor_declines_does_not_block_others() -> None:
    sharing, waiter = SlotSharing("default/a"), Waiter()
    sharing.add(waiter, "a-1")
    for _ in range(MAX_OFFERS + 3):
        sharing.offer()
    assert len(waiter.offers) == MAX_OFFERS
    assert not sharing


def test_a_node_that_got_a_slot_no_longer_waits() -> None:
    sharing, waiter = SlotSharing("default/a"), Waiter()
    sharing.add(waiter, "a-1")
    assert sharing.other_nodes
    sharing.remove(waiter)
    sharing.remove(waiter)
    assert not sharing.other_nodes


ORG, CN = "organizationName", "commonName"


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        (((ORG, "system:nodes"),), ""),
        (((ORG, "system:nodes"), (CN, "system:node:n1")), "n1"),
        (((ORG, "system:nodes"), (CN, "n1")), ""),
        (((ORG, "others"), (CN, "system:node:n1")), ""),
        (((CN, "system:node:n1"),), ""),
        (((ORG, "system:nodes"), (CN, "system:node:n1"), (CN, "system:node:n2")), ""),
        (((ORG, "system:nodes"), (ORG, "others"), (CN, "system:node:n1")), ""),
        ((), ""),
    ],
)
def test_a_certificate_names_a_node_or_none(subject: tuple[tuple[str, str], ...], name: str) -> None:
    assert node_name({"subject": tuple((pair,) for pair in subject)}) == name
    assert node_name(None) == ""
