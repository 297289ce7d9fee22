"""Both implementations of the store and of the tables, and a Redis that can be killed."""

import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar, cast

import pytest
from redis import AuthenticationError
from redis import ConnectionError as RedisConnectionError
from redis import Redis as BlockingRedis

from knoll.redis.client import RedisClient, connect
from tests.conftest import free_port, need
from tests.waiting import eventually_sync

T = TypeVar("T")


class RedisProcess:
    """A redis-server of one test, as durable as in production."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.more: tuple[str, ...] = ()
        """More arguments of its command."""
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        durable = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self._server = subprocess.Popen([*command, *durable, *self.more], stdout=subprocess.DEVNULL)
        eventually_sync(self._answers, condition="redis-server")

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        assert self._server is not None
        self._server.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._server.wait(30)

    def lose_data(self) -> None:
        """While it is down."""
        shutil.rmtree(self.directory / "appendonlydir")

    def _answers(self) -> bool:
        client = BlockingRedis.from_url(self.url)
        try:
            return bool(client.ping())
        except AuthenticationError:
            return True
        except RedisConnectionError:
            return False
        finally:
            client.close()

    def close(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self.signal(signal.SIGCONT)
            self.kill()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisProcess]:
    """A running redis-server that only this test uses."""
    need("REDIS", shutil.which("redis-server") is not None)
    server = RedisProcess(tmp_path)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisClient]:
    client = connect(redis_url, "test")
    yield client
    await client.aclose()


@pytest.fixture(params=["memory", "redis"])
def form(request: pytest.FixtureRequest) -> str:
    return cast(str, request.param)


async def take(events: AsyncIterator[T], count: int) -> list[T]:
    """The next `count` of something endless, which is closed then."""
    collected: list[T] = []
    async with aclosing(events) as open_events:  # type: ignore[type-var]
        async for event in open_events:
            collected.append(event)
            if len(collected) == count:
                break
    return collected
