"""The request log of an instance: from activators, over a Redis with the rights of both processes, to a client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from activator.sync.request_log import RequestLog
from knoll.auth import key_files
from knoll.process.settings import ApiSettings, CommonSettings
from knoll.redis import keys
from knoll.redis.client import RedisClient, connected
from tests.component.api.conftest import serving
from tests.component.knoll.conftest import RedisProcess
from tests.doubles.memory_store import MemoryStore
from tests.waiting import eventually

pytestmark = pytest.mark.redis
LOG = "/api/v1/namespaces/default/pods/hello-1/log"
PROXY = {"container": "queue-proxy"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    """A Redis with a user for each process."""
    server = RedisProcess(tmp_path)
    server.more = ("--aclfile", str(tmp_path / "keys" / key_files.ACL))
    key_files.prepare(tmp_path / "keys")
    try:
        server.start()
        yield server
    finally:
        server.close()


def url(server: RedisProcess, folder: Path, process: str) -> str:
    url = f"redis://{process}@127.0.0.1:{server.port}/0"
    return CommonSettings(redis_url=url, keys_dir=folder / "keys" / process).logged_in().redis_url


@contextlib.asynccontextmanager
async def activators(url: str, count: int) -> AsyncIterator[list[RequestLog]]:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(url, "test")) for _ in range(count)]
        logs = [RequestLog(client) for client in clients]
        tasks = [asyncio.create_task(log.run()) for log in logs]

        async def all_hear() -> bool:
            return bool(await clients[0].execute("PUBLISH", keys.REQUEST_LOG_QUESTIONS, b"{}") == count)

        await eventually(all_hear)
        try:
            yield logs
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def api_redis(server: RedisProcess, tmp_path: Path) -> AsyncIterator[RedisClient]:
    async with connected(url(server, tmp_path, "api"), "test") as redis:
        yield redis


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore()
    metadata = {"name": "hello-1", "namespace": "default", "uid": "u"}
    await store.create("pods", {"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    return store


async def test_the_lines_of_all_activators_are_in_order(
    server: RedisProcess, tmp_path: Path, store: MemoryStore, settings: ApiSettings, api_redis: RedisClient
) -> None:
    async with activators(url(server, tmp_path, "activator"), 2) as logs, serving(store, settings, api_redis) as api:
        assert (await api.client.get(LOG, params=PROXY)).text == "", "while the log of requests is off"
        for number in range(6):
            logs[number % 2].keep("default/hello-1", b"line %d" % number)
            logs[0].keep("default/hello-2", b"another instance")
            logs[1].keep("other/hello-1", b"another namespace")
        assert (await api.client.get(LOG, params=PROXY)).text.splitlines() == [f"line {number}" for number in range(6)]
        assert (await api.client.get(LOG, params={**PROXY, "tailLines": "2"})).text == "line 4\nline 5\n"
        assert (await api.client.get(LOG, params={**PROXY, "limitBytes": "9"})).text == "line 0\nli"
        stamped = (await api.client.get(LOG, params={**PROXY, "tailLines": "1", "timestamps": "true"})).text
        assert stamped.partition(" ")[2] == "line 5\n"
        assert (await api.client.get(LOG, params={**PROXY, "tailLines": "x"})).status_code == 400
        assert (await api.client.get(LOG.replace("hello-1", "hello-3"), params=PROXY)).status_code == 404


async def test_a_followed_log_continues_until_the_pod_is_deleted(
    server: RedisProcess,
    tmp_path: Path,
    store: MemoryStore,
    settings: ApiSettings,
    api_redis: RedisClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.resource.request_log.ASK_SECONDS", 0.2)
    async with activators(url(server, tmp_path, "activator"), 2) as logs, serving(store, settings, api_redis) as api:
        logs[0].keep("default/hello-1", b"before")
        async with api.client.stream("GET", LOG, params={**PROXY, "follow": "true"}) as followed:
            lines = followed.aiter_lines()
            assert await anext(lines) == "before"
            for number in range(3):
                logs[number % 2].keep("default/hello-1", b"line %d" % number)
                assert await anext(lines) == f"line {number}"
            await store.delete("pods", "default", "hello-1")
            assert [line async for line in lines] == []


async def test_without_an_activator_there_are_no_lines(
    store: MemoryStore, settings: ApiSettings, api_redis: RedisClient
) -> None:
    async with serving(store, settings, api_redis) as api:
        assert (await api.client.get(LOG, params=PROXY)).text == ""
