"""A primary dies, freezes or is cut off: no acknowledged write is lost, and nothing is done twice.

`python -m bench.redis_failover` repeats this many times.
"""

import shutil
from pathlib import Path

import pytest

from tests.conftest import need
from tests.failover import Kind, fail_over
from tests.redis_group import may_simulate_machines

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("kind", ["kill", "freeze", "partition"])
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
