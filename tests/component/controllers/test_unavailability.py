"""Redis goes away and comes back: nothing is lost and everything continues by itself."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.component.controllers.edge import open_edge
from tests.component.controllers.test_controllers import Platform
from tests.conftest import free_port, need
from tests.waiting import eventually, eventually_sync

pytestmark = pytest.mark.redis


class Server:
    """A redis-server of its own, with a file."""

    def __init__(self, directory: Path) -> None:
        self._port = free_port()
        self._directory = directory
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._directory)]
        options = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self._process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
        eventually_sync(self._answers, condition="redis-server")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    need("REDIS", shutil.which("redis-server") is not None)
    made = Server(tmp_path)
    yield made
    made.kill()


async def test_controllers_go_on_when_redis_is_back(server: Server) -> None:
    client, store, edge = open_edge(server.url)
    platform = Platform(server.url, store, edge, asyncio.Event())
    platform.start()
    edge.start()
    try:
        await platform.apply()
        await eventually(platform.is_ready)
        server.kill()
        await asyncio.to_thread(server.start)
        await edge.stop()
        edge.start()
        await platform.apply(name="after")
        await eventually(lambda: platform.is_ready("after"), within=60)
        assert await platform.is_ready()
        assert platform.task is not None
        assert not platform.task.done()
    finally:
        await platform.end()
        await edge.stop()
        await store.close()
        await client.aclose()
