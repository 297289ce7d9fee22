"""A primary dies, freezes or is cut off: no acknowledged write is lost, and nothing is done twice.

`python -m bench.redis_failover` repeats this many times.
"""

import asyncio
import shutil
from pathlib import Path

import pytest

from knoll.cli import doctor
from knoll.redis.client import connected
from knoll.redis.safety import unsafe_settings
from tests.conftest import need
from tests.failover import Kind, fail_over
from tests.redis_group import may_simulate_machines, running

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("kind", ["kill", "freeze", "thaw", "partition"])
def test_four_writers_lose_nothing_when_the_primary_fails(tmp_path: Path, kind: Kind) -> None:
    need("REDIS", shutil.which("redis-server") is not None)
    if kind == "partition":
        need("NFT", may_simulate_machines())
    outcome = fail_over(tmp_path, kind)
    assert outcome.lost == 0, outcome
    assert outcome.lost_puts == 0, outcome
    assert outcome.versions_twice == 0, outcome
    assert outcome.went_back == 0, outcome
    assert outcome.led_twice == 0, outcome
    assert outcome.terms >= 2, "the lease was given up"


async def test_settings_that_lose_writes_are_named_for_each_server_and_sentinel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("REDIS", shutil.which("redis-server") is not None)
    with running(tmp_path) as group:
        async with connected(group.url(), "test") as redis:
            assert await unsafe_settings(redis) == []
            for number, (name, value) in enumerate([("min-replicas-to-write", 0), ("appendfsync", "everysec")]):
                with group.client(number) as server:
                    server.config_set(name, value)
            with group.sentinel_client(2) as sentinel:
                sentinel.execute_command("SENTINEL", "SET", "knoll", "down-after-milliseconds", 30_000, "quorum", 1)
            problems = await unsafe_settings(redis)
        places = [group.url_of(number).split("/")[2] for number in range(2)]
        assert problems[0].startswith(f"{places[0]}: min-replicas-to-write is 0: set it to 1")
        assert problems[1] == f"{places[1]}: appendfsync is everysec: set it to always"
        assert [problem.partition(": ")[2].split(":")[0] for problem in problems[2:]] == [
            "quorum is 1 of 3 sentinels",
            "down-after-milliseconds is 30000",
        ]
        monkeypatch.setenv("KNOLL_REDIS_URL", group.url())
        findings = await asyncio.to_thread(lambda: list(doctor.redis("")))
        assert [finding.state for finding in findings] == problems
        assert not any(finding.ok for finding in findings)
        async with connected(group.url(replicas=2), "test") as redis:
            assert any("writes stop when one is away" in problem for problem in await unsafe_settings(redis))
