"""Replies of a primary and its sentinels, and the scripts that write to it."""

import subprocess
import sys

import pytest

from knoll.redis import keys
from knoll.redis.address import Address
from knoll.redis.fence import Fence
from knoll.redis.replicated.discovery import Primary, Replication, doubt_about, newest
from knoll.redis.replicated.inspection import replicas_in, replication_problems, sentinel_problems
from knoll.redis.replicated.scripts import additions, epoch_form
from knoll.redis.replicated.sentinels import named_by, warning
from knoll.redis.replicated.session import answer_seconds, problem_of
from knoll.redis.single_client import Script
from knoll.values.errors import StoreUnavailableError

INFO = b"""# Replication\r
role:master\r
connected_slaves:4\r
slave0:ip=10.0.0.2,port=6379,state=online,offset=10,lag=0\r
slave1:ip=10.0.0.3,port=6379,state=online,offset=10,lag=4\r
slave2:ip=10.0.0.4,port=6379,state=wait_bgsave,offset=0,lag=0\r
slave3:ip=10.0.0.5,port=6379,state=online,offset=0,lag=-1\r
master_failover_state:no-failover\r
master_replid:8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb\r
"""
ID = "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb"


def test_only_replicas_that_acknowledge_count() -> None:
    assert Replication.parse(INFO) == Replication(is_primary=True, replication_id=ID, replicas=1)


def test_a_server_says_whether_a_write_needs_a_replica() -> None:
    requiring = INFO.replace(b"master_failover", b"min_slaves_good_slaves:1\r\nmaster_failover")
    asking, fixed = Address(asks_for_replicas=True), Address(replicas=2)
    assert [Replication.parse(text).required(asking) for text in (INFO, requiring)] == [0, 1]
    assert [Replication.parse(text).required(fixed) for text in (INFO, requiring)] == [2, 2]


@pytest.mark.parametrize(
    ("before", "has_minimum", "replicas", "problem"),
    [
        (0, False, 0, ""),
        (0, True, 2, "requires 1 replicas now, not 0"),
        (1, True, 1, ""),
        (1, True, 0, "has 0 of 1 replicas"),
        (1, False, 2, "requires 0 replicas now, not 1"),
    ],
)
def test_a_session_ends_when_its_server_requires_another_number_of_replicas(
    before: int, has_minimum: bool, replicas: int, problem: str
) -> None:
    address = Address("10.0.0.1", replicas=before, asks_for_replicas=True)
    reason = problem_of(Replication(True, ID, replicas, has_minimum), address, ID)
    assert problem in reason
    assert bool(reason) is bool(problem)


@pytest.mark.parametrize(
    "text",
    [b"", b"role:master\r\n", INFO.replace(b"lag=0", b"lag=x"), INFO.replace(b",lag=0", b",lag"), b"role:\xff"],
)
def test_a_reply_without_the_fields_is_an_unavailable_redis(text: bytes) -> None:
    with pytest.raises(StoreUnavailableError, match="INFO replication"):
        Replication.parse(text)


@pytest.mark.parametrize(
    ("replication", "epoch", "problem"),
    [
        (Replication(True, ID, 1), "", ""),
        (Replication(True, ID, 1), ID, ""),
        (Replication(True, ID, 0), ID, "has 0 of 1 replicas"),
        (Replication(False, ID, 1), ID, "is not the primary"),
        (Replication(True, "other", 1), ID, "became the primary again"),
    ],
)
def test_why_a_server_is_not_used(replication: Replication, epoch: str, problem: str) -> None:
    reason = problem_of(replication, Address("10.0.0.1", replicas=1), epoch)
    assert problem in reason
    assert bool(reason) is bool(problem)


def test_the_newest_answer_counts_and_a_running_promotion_is_newer_than_its_configuration() -> None:
    old, promoted, after = (
        Primary("old", 1, rank=(4, False)), Primary("new", 1, rank=(4, True)), Primary("next", 1, rank=(5, False)),
    )  # fmt: skip
    assert newest([old, promoted, old]) == promoted
    assert newest([after, promoted, old]) == after


@pytest.mark.parametrize(
    ("flags", "doubt"),
    [
        ([{"master"}, {"master"}, {"master"}], ""),
        ([{"master", "s_down"}, {"master"}, {"master"}], ""),
        ([{"master", "s_down"}, {"master", "s_down"}, {"master"}], "do not reach"),
        ([{"master"}, {"master", "s_down", "o_down"}, {"master"}], "replace"),
        ([{"master"}, {"master"}, {"master", "failover_in_progress"}], "replace"),
        ([{"master", "failover_in_progress"}], "replace"),
    ],
)
def test_a_primary_that_may_be_replaced_is_not_used(flags: list[set[str]], doubt: str) -> None:
    answers = [Primary("old", 1, rank=(4, False), flags=frozenset(each)) for each in flags]
    reason = doubt_about(answers[0], answers)
    assert doubt in reason
    assert bool(reason) is bool(doubt)


def test_doubts_about_a_primary_do_not_concern_its_replacement() -> None:
    down = Primary("old", 1, rank=(4, False), flags=frozenset({"master", "s_down", "o_down"}))
    promoted = Primary("new", 1, rank=(5, True), flags=frozenset({"master", "failover_in_progress"}))
    assert not doubt_about(promoted, [down, promoted, down])
    assert not doubt_about(Primary("new", 1, rank=(5, False)), [down, down, Primary("new", 1, rank=(5, False))])


@pytest.mark.parametrize(
    ("channel", "message", "primary"),
    [
        ("+switch-master", "knoll 10.0.0.1 6379 10.0.0.2 6380", ("10.0.0.2", 6380)),
        ("+switch-master", "other 10.0.0.1 6379 10.0.0.2 6380", None),
        ("+promoted-slave", "slave 10.0.0.2:6380 10.0.0.2 6380 @ knoll 10.0.0.1 6379", ("10.0.0.2", 6380)),
        ("+promoted-slave", "slave 10.0.0.2:6380 10.0.0.2 6380 @ other 10.0.0.1 6379", None),
        ("+switch-master", "", None),
    ],
)
def test_messages_of_sentinels_name_the_primary(channel: str, message: str, primary: tuple[str, int] | None) -> None:
    named = named_by("knoll", channel, message)
    assert (None if named is None else (named.host, named.port)) == primary


@pytest.mark.parametrize(
    ("channel", "message", "reason"),
    [
        ("+vote-for-leader", f"{ID} 5", "elect another"),
        ("+vote-for-leader", f"{ID} 4", ""),
        ("+odown", "master knoll 10.0.0.1 6379 #quorum 2/2", "down"),
        ("+odown", "master other 10.0.0.1 6379 #quorum 2/2", ""),
        ("+switch-master", "knoll 10.0.0.1 6379 10.0.0.2 6379", "named 10.0.0.2:6379"),
        ("+switch-master", "knoll 10.0.0.2 6379 10.0.0.1 6379", ""),
    ],
)
def test_messages_of_sentinels_end_a_session(channel: str, message: str, reason: str) -> None:
    current = Primary("10.0.0.1", 6379, rank=(4, False))
    ended = warning("knoll", channel, message, current)
    assert reason in ended
    assert bool(ended) is bool(reason)


@pytest.mark.parametrize("down_after", [0.5, 1.0, 1.5, 5.0, 30.0])
def test_a_frozen_primary_is_left_before_sentinels_promote_another(down_after: float) -> None:
    assert answer_seconds(down_after) + min(down_after * 0.2, 1.0) < down_after


def test_a_script_gets_the_epoch_and_what_it_needs_of_fence_and_counter() -> None:
    script = Script("return redis.call('INCR', KEYS[2])", writes=True, counter=2)
    counter = keys.RESOURCE_VERSION
    fence = Fence("lease", "me", ID)
    assert additions(script, ["objects", counter], ID, fence) == (
        [f"{counter}:epoch", "lease", keys.EPOCH],
        ["me", ID, "1"],
    )
    assert additions(Script("return 1", writes=True), ["x"], ID, None) == ([keys.EPOCH], [ID, "0"])
    assert "redis.call('INCR', KEYS[2])" not in epoch_form(script).text


def test_a_counter_that_its_script_does_not_increment_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="increments it"):
        epoch_form(Script("return redis.call('INCRBY', KEYS[1], 2)", writes=True, counter=1))


def test_a_single_redis_does_without_what_replicas_need() -> None:
    # In a process of its own, because this one has loaded it.
    text = (
        "import sys, asyncio\nfrom knoll.redis.client import connect\nimport knoll.store.redis_store\n"
        "import knoll.tables.redis_tables, knoll.redis.lease\n"
        "async def main(): connect('redis://127.0.0.1')\nasyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('knoll.redis.replicated')])"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


GOOD = {
    "maxmemory": "0", "appendonly": "yes", "appendfsync": "always", "min-replicas-to-write": "1",
    "min-replicas-max-lag": "10",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({}, ""),
        ({"min-replicas-to-write": "0"}, "min-replicas-to-write is 0"),
        ({"min-replicas-max-lag": "0"}, "min-replicas-max-lag is 0"),
        ({"min-replicas-max-lag": "60"}, "min-replicas-max-lag is 60"),
    ],
)
def test_a_primary_that_may_accept_writes_alone_is_named(changed: dict[str, str], problem: str) -> None:
    problems = replication_problems({**GOOD, **changed})
    assert (problem in problems[0]) if problem else not problems


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({}, ""),
        ({"num-other-sentinels": "1"}, "there are 2 sentinels"),
        ({"quorum": "1"}, "quorum is 1 of 3 sentinels: set it to 2"),
        ({"down-after-milliseconds": "30000"}, "down-after-milliseconds is 30000"),
        ({"down-after-milliseconds": "200"}, "down-after-milliseconds is 200"),
    ],
)
def test_how_sentinels_watch_is_checked(changed: dict[str, str], problem: str) -> None:
    fields = {"num-other-sentinels": "2", "quorum": "2", "down-after-milliseconds": "1500"}
    problems = sentinel_problems({**fields, **changed})
    assert (problem in problems[0]) if problem else not problems


def test_replicas_are_read_with_their_ports() -> None:
    assert replicas_in(INFO)[:2] == [("10.0.0.2", 6379), ("10.0.0.3", 6379)]
