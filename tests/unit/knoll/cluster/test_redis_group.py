"""When the Redis servers of managers become one group."""

import pytest

from knoll.cluster.managers import Manager
from knoll.cluster.redis_group import UNREACHABLE, SentinelState, ServerState, Step, quorum, steps

MANAGERS = [Manager(slot, f"n{slot}", f"10.0.0.{slot}") for slot in range(1, 6)]
PORTS = {manager.slot: {manager.redis_port, manager.sentinel_port} for manager in MANAGERS}


def knows(*slots: int, quorum: int = UNREACHABLE, healthy: bool = True) -> SentinelState:
    return SentinelState(6381, healthy, quorum, frozenset().union(*(PORTS[slot] for slot in slots)))


ALONE, OPEN = ServerState(True, 0, False), ServerState(True, 2, False)
GROUP, REPLICA = ServerState(True, 2, True), ServerState(False, 0, True)


@pytest.mark.parametrize(
    ("count", "own", "primary", "sentinel", "expected"),
    [
        pytest.param(1, ALONE, ALONE, knows(), [], id="one manager"),
        pytest.param(2, ServerState(True, 1, False), None, knows(2), [], id="two managers, one replica"),
        pytest.param(3, ServerState(True, 1, False), OPEN, knows(2), [], id="the third is still copying"),
        pytest.param(3, OPEN, OPEN, knows(2, 3), [Step.REQUIRE_REPLICA], id="the third has everything"),
        pytest.param(3, GROUP, GROUP, knows(2, 3), [Step.SET_QUORUM], id="writes wait for a replica"),
        pytest.param(3, REPLICA, OPEN, knows(2, 3), [], id="a replica waits for its primary"),
        pytest.param(3, REPLICA, GROUP, knows(2, 3), [Step.SET_QUORUM], id="a replica follows"),
        pytest.param(3, REPLICA, None, knows(2, 3, quorum=2), [], id="the primary is lost"),
        pytest.param(3, GROUP, GROUP, knows(2, 3, quorum=2), [], id="complete"),
        pytest.param(
            3, ServerState(True, 0, True), ServerState(True, 0, True), knows(2, 3, quorum=2), [], id="cut off"
        ),
        pytest.param(5, GROUP, GROUP, knows(2, 3, 4, 5, quorum=2), [Step.SET_QUORUM], id="five"),
        pytest.param(2, GROUP, GROUP, knows(2, quorum=2), [], id="one was removed"),
        pytest.param(2, GROUP, GROUP, knows(2, 3, quorum=2), [Step.FORGET], id="a removed one is known"),
        pytest.param(2, GROUP, GROUP, knows(2, 3, quorum=2, healthy=False), [], id="a fail-over goes on"),
        pytest.param(3, ServerState(False, 0, False), OPEN, knows(2, 3), [Step.REQUIRE_REPLICA], id="the first, later"),
    ],
)
def test_steps(
    count: int, own: ServerState, primary: ServerState | None, sentinel: SentinelState, expected: list[Step]
) -> None:
    assert steps(MANAGERS[:count], own, primary, sentinel) == expected


def test_a_removed_primary_is_not_forgotten_before_it_is_replaced() -> None:
    assert steps(MANAGERS[1:3], REPLICA, GROUP, knows(1, 2, 3, quorum=2)) == []


def test_sentinels_replace_no_primary_that_accepts_writes_without_a_replica() -> None:
    assert quorum(3, OPEN) == quorum(3, None) == UNREACHABLE
    assert [quorum(count, GROUP) for count in (2, 3, 4, 5)] == [2, 2, 3, 3]
