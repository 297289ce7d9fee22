"""What all tests share: groups that run side by side, a real Redis, free ports, and required programs."""

import asyncio
import contextlib
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import uvloop
from hypothesis import HealthCheck, settings

from tests.groups import group_of, rank_of
from tests.images import clean_up
from tests.turns import docker_turn
from tests.waiting import eventually_sync

if TYPE_CHECKING:
    from tests.scheduling import GroupScheduling

settings.register_profile("fast", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


# pytest-asyncio gets the main thread's loop between tests; before Python 3.14 that creates one that is never closed.
_loop_between_tests = asyncio.new_event_loop()
asyncio.set_event_loop(_loop_between_tests)


def pytest_unconfigure() -> None:
    _loop_between_tests.close()


_ON_ASYNCIO = {"builder", "cli", "cluster", "firewall", "machines", "unit"}
"""Folders of tests whose process runs on asyncio's own loop, and of unit tests, which look into the loop."""


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run a test on the loop that its process runs on: the two differ in details of transports and servers."""
    if _ON_ASYNCIO.isdisjoint(item.path.parts):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank_of(group_of(item.nodeid)))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before the timeout of the test begins
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if item.get_closest_marker("docker") is None:
        return (yield)
    with docker_turn(alone=item.get_closest_marker("machines") is not None):
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "GroupScheduling":
    from tests.scheduling import GroupScheduling  # needs pytest-xdist, and no test does

    return GroupScheduling(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # this is not one of several worker processes
        clean_up()


def need(requirement: str, there: bool) -> None:
    """Skip by default; fail if the run declares that `what` (REDIS, DOCKER, KUBECTL) is required."""
    if there:
        return
    if os.environ.get(f"REQUIRE_{requirement}") == "1":
        pytest.fail(f"{requirement.lower()} is not available and REQUIRE_{requirement}=1")
    pytest.skip(f"{requirement.lower()} is not available")


_PORTS = range(10_000, 30_000)
"""Below the ports that kernels give to outgoing connections, which would take a free one before its server does."""
_dice = random.SystemRandom()  # Hypothesis seeds the shared one alike in all workers


def free_port() -> int:
    """A port of the loopback address on which nothing listens."""
    while True:
        port = _dice.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


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
        eventually_sync(answers, condition="redis-server")
        yield url
    finally:
        client.close()
        server.terminate()
        server.wait(30)


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """URL of an empty Redis."""
    client = redis.Redis.from_url(redis_server)
    client.flushall()
    client.close()
    return redis_server
