"""Fixtures shared by all tests: a real Redis, and what must be there when the run says so."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings

from tests.waiting import eventually_sync

settings.register_profile("fast", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


# pytest-asyncio asks for the main thread's loop between tests; before Python 3.14 asking makes one that nobody closes.
_loop_between_tests = asyncio.new_event_loop()
asyncio.set_event_loop(_loop_between_tests)


def pytest_unconfigure() -> None:
    _loop_between_tests.close()


def need(what: str, there: bool) -> None:
    """Skip at a desk, fail where the run said that `what` (REDIS, DOCKER, KUBECTL) must be there."""
    if there:
        return
    if os.environ.get(f"REQUIRE_{what}") == "1":
        pytest.fail(f"{what.lower()} is not available and REQUIRE_{what}=1")
    pytest.skip(f"{what.lower()} is not available")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a redis-server of this test session, append-only as in production."""
    need("REDIS", shutil.which("redis-server") is not None)
    directory: Path = tmp_path_factory.mktemp("redis")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
    server = subprocess.Popen([*command, "--appendonly", "yes"], stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    client = redis.Redis.from_url(url)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    try:
        eventually_sync(answers, what="redis-server")
        yield url
    finally:
        client.close()
        server.terminate()
        server.wait(10)


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """URL of an empty Redis."""
    client = redis.Redis.from_url(redis_server)
    client.flushall()
    client.close()
    return redis_server
