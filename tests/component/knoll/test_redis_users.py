"""Each process's real work against a Redis with the platform's users, and what each of them is refused."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as blocking
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from rq import Queue, SimpleWorker

from autoscaler.io.report_subscriber import ReportSubscriber
from builder.maintenance import recovery
from knoll.auth import key_files, reencryption, token_key
from knoll.builds.build_log import BuildLogWriter, read
from knoll.builds.queue import JobQueue
from knoll.builds.rq_queue import SERIALIZER
from knoll.messages import builds
from knoll.messages.endpoints import ENDPOINTS, RevisionEndpoints
from knoll.messages.gateway_objects import GATEWAY_OBJECTS, GatewayObject
from knoll.messages.instances import INSTANCES, RevisionInstances
from knoll.messages.routing import ROUTING, RouteEntry
from knoll.messages.scale import SCALE, ScaleStatus
from knoll.process.settings import CommonSettings
from knoll.redis import keys
from knoll.redis.client import connected
from knoll.redis.lease import Lease
from knoll.store.redis_store import RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.errors import StoreForbiddenError, StoreUnavailableError
from tests.component.knoll.conftest import RedisProcess, take
from tests.waiting import eventually

pytestmark = pytest.mark.redis
TABLES: dict[str, tuple[type[Any], Any, str, str]] = {
    ROUTING: (RouteEntry, RouteEntry({}, {}), "api", "activator"),
    ENDPOINTS: (RevisionEndpoints, RevisionEndpoints(()), "autoscaler", "activator"),
    SCALE: (ScaleStatus, ScaleStatus("u", 1, 1, True, "True"), "autoscaler", "api"),
    INSTANCES: (RevisionInstances, RevisionInstances("u", ()), "autoscaler", "api"),
    GATEWAY_OBJECTS: (GatewayObject, GatewayObject("{}"), "api", "activator"),
    builds.UNRESOLVED: (builds.Unresolved, builds.Unresolved("a", "x"), "api", "builder"),
    builds.RESOLUTIONS: (builds.Resolution, builds.Resolution("u"), "builder", "api"),
    builds.BUILDS: (builds.BuildProgress, builds.BuildProgress("u", builds.BuildPhase.QUEUED), "builder", "api"),
}


class Guarded:
    """A Redis with users."""

    def __init__(self, server: RedisProcess, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.passwords = key_files.prepare(folder)

    def settings(self, process: str) -> CommonSettings:
        url = f"redis://{process}@127.0.0.1:{self.server.port}/0"
        return CommonSettings(redis_url=url, keys_dir=self.folder / process).logged_in()

    @asynccontextmanager
    async def store(self, process: str) -> AsyncIterator[RedisStore]:
        settings = self.settings(process)
        async with connected(settings.redis_url, process) as redis:
            store = RedisStore(redis, keyring=settings.keyring)
            yield store
            await store.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    server = RedisProcess(tmp_path)
    guarded_redis = Guarded(server, tmp_path / "keys")
    server.more = ("--aclfile", str(guarded_redis.folder / key_files.ACL))
    try:
        server.start()
        yield guarded_redis
    finally:
        server.close()


@asynccontextmanager
async def any_command(url: str) -> AsyncIterator["Redis"]:
    """A client with all of Redis' commands, for attempts that the platform's own never makes."""
    redis = Redis.from_url(url, protocol=2)
    try:
        yield redis
    finally:
        await redis.aclose()


def secret(name: str = "crown", value: str = "cGxhaW4gam9ld2Vscw==") -> dict[str, Any]:
    return {"kind": "Secret", "metadata": {"namespace": "bank", "name": name, "uid": name}, "data": {"jewels": value}}


async def test_without_a_password_there_is_nothing(guarded: Guarded) -> None:
    async with any_command(guarded.server.url) as anonymous:
        for refused in (
            anonymous.ping(),
            anonymous.get(keys.TOKEN_KEY),
            anonymous.config_get("*"),
            anonymous.acl_list(),
        ):
            with pytest.raises(AuthenticationError):
                await refused
    async with any_command(f"redis://health:any@127.0.0.1:{guarded.server.port}/0") as health:
        assert await health.ping()
        attempts: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: health.get(keys.TOKEN_KEY),
            lambda: health.publish(keys.POKES, "x"),
            health.info,
        )
        for attempt in attempts:
            with pytest.raises(NoPermissionError):
                await attempt()


@pytest.mark.parametrize("name", TABLES)
async def test_a_table_is_written_and_followed_by_those_it_is_for(guarded: Guarded, name: str) -> None:
    entry, value, writer, follower = TABLES[name]
    async with (
        connected(guarded.settings(writer).redis_url) as redis,
        connected(guarded.settings(follower).redis_url) as other,
    ):
        written, followed = RedisTable(redis, name, entry), RedisTable(other, name, entry)
        version = await written.put("field", value)
        assert (await take(followed.follow(), 1))[0].version == version
        await followed.acknowledge("me", version)
        assert await written.followers() == {"me": version}
        assert (await take(written.acknowledgements(), 1)) == [("me", version)]
        await followed.leave("me")
        await written.remove("field")


async def test_only_its_writers_change_a_table(guarded: Guarded) -> None:
    async with connected(guarded.settings("activator").redis_url) as redis:
        with pytest.raises(StoreForbiddenError, match=r"NOPERM|permission"):
            await RedisTable(redis, ROUTING, RouteEntry).put("default/app", RouteEntry({}, {}))
        for name in (SCALE, INSTANCES, builds.UNRESOLVED, builds.BUILDS):
            with pytest.raises(StoreForbiddenError):
                await RedisTable(redis, name, TABLES[name][0]).snapshot()


def _read_any(redis: "Redis") -> dict[str, Callable[[], Any]]:
    command: Callable[..., Any] = redis.execute_command
    return {
        "secrets": lambda: redis.hgetall(keys.objects(kinds.SECRET.id)),
        "config maps": lambda: redis.hget(keys.objects(kinds.CONFIG_MAP.id), "default/x"),
        "history": lambda: redis.xrange(keys.EVENTS),
        "token key": lambda: redis.get(keys.TOKEN_KEY),
        "a script": lambda: redis.eval("return redis.call('GET', ARGV[1])", 0, keys.TOKEN_KEY),
        "copy": lambda: redis.copy(keys.TOKEN_KEY, keys.table_followers(ROUTING)),
        "rename": lambda: redis.rename(keys.TOKEN_KEY, keys.table_followers(ROUTING)),
        "sort": lambda: redis.sort(keys.table_followers(ROUTING), get=[keys.TOKEN_KEY]),
        "names of keys": lambda: redis.keys("*"),
        "scan": lambda: redis.scan(),
        "dump": lambda: redis.dump(keys.TOKEN_KEY),
        "builds": lambda: redis.lrange(f"rq:queue:{keys.BUILD_JOBS}", 0, -1),
        "other channels": lambda: redis.publish(keys.lease_freed("autoscaler"), ""),
        "configuration": lambda: redis.config_get("*"),
        "users": lambda: redis.acl_list(),
        "users of others": lambda: redis.acl_setuser("default", enabled=True, nopass=True, commands=["+@all"]),
        "flush": lambda: redis.flushall(),
        "monitor": lambda: command("MONITOR"),
        "replication": lambda: command("REPLICAOF", "127.0.0.1", "1"),
        "modules": lambda: command("MODULE", "LOAD", "/tmp/x.so"),
    }


@pytest.mark.parametrize("attempt", _read_any(Redis()))
async def test_the_data_path_reaches_nothing_of_the_control_plane(guarded: Guarded, attempt: str) -> None:
    async with guarded.store("api") as store:
        await store.create(kinds.SECRET.id, secret())
    async with connected(guarded.settings("api").redis_url) as redis:
        await token_key.shared_key(redis, guarded.settings("api").keyring)
    async with any_command(guarded.settings("activator").redis_url) as redis:
        with pytest.raises(blocking.ResponseError, match=r"(?i)permission|not allowed"):
            await _read_any(redis)[attempt]()


@pytest.mark.parametrize("process", ["builder", "autoscaler"])
async def test_readers_of_objects_read_and_watch_what_they_need_and_write_nothing(
    guarded: Guarded, process: str
) -> None:
    async with guarded.store("api") as api, guarded.store(process) as reader:
        with pytest.raises(StoreUnavailableError, match="Redis is empty"):
            await reader.list_packed(kinds.SECRET.id)
        made = await api.create(kinds.SECRET.id, secret())
        version = int(made["metadata"]["resourceVersion"])
        assert await reader.get(kinds.SECRET.id, "bank", "crown") == made
        assert (await reader.list(kinds.REVISION.id)).version == version
        changed = await api.update(kinds.SECRET.id, {**made, "data": {}})
        (event,) = await take(reader.watch(version), 1)
        assert (event.body, event.before) == (changed, made)
        with pytest.raises(StoreForbiddenError):
            await reader.create(kinds.SECRET.id, secret("forged"))
        with pytest.raises(StoreForbiddenError):
            await reader.list(kinds.ROUTE.id)


async def test_leases_are_those_of_their_processes(guarded: Guarded) -> None:
    for process, name, other in (("api", "controllers", "autoscaler"), ("autoscaler", "autoscaler", "controllers")):
        async with connected(guarded.settings(process).redis_url) as redis:
            done = asyncio.Event()

            async def duty(done: asyncio.Event = done) -> None:
                done.set()

            await Lease(redis, name, process).lead(duty)
            assert done.is_set()
            with pytest.raises(StoreForbiddenError):
                await redis.execute("SET", keys.lease(other), "stolen")


async def test_reports_reach_the_autoscaler(guarded: Guarded) -> None:
    heard: list[Any] = []
    async with (
        connected(guarded.settings("autoscaler").redis_url) as redis,
        connected(guarded.settings("activator").redis_url) as other,
    ):
        listening = ReportSubscriber(redis, on_poke=heard.append, on_report=heard.append, on_listening=lambda _: None)
        running = asyncio.create_task(listening.run())

        async def arrives() -> bool:
            await other.execute("PUBLISH", keys.POKES, b'{"activator":"a","revision":"a/b","at":1,"waiting":1}')
            return bool(heard)

        await eventually(arrives)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_token_key_is_read_by_the_autoscaler_and_made_by_the_api(guarded: Guarded) -> None:
    api, autoscaler = guarded.settings("api"), guarded.settings("autoscaler")
    async with connected(api.redis_url) as redis, connected(autoscaler.redis_url) as other:
        with pytest.raises(StoreUnavailableError, match="has not created"):
            await token_key.shared_key(other, autoscaler.keyring)
        made = await token_key.shared_key(redis, api.keyring)
        assert await token_key.shared_key(other, autoscaler.keyring) == made
        assert b"PRIVATE KEY" not in (await redis.execute("GET", keys.TOKEN_KEY) or b"")


def work(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


async def test_builds_are_queued_by_the_api_and_done_by_the_builder(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimpleWorker, "_install_signal_handlers", lambda _: None)  # this thread may have none
    monkeypatch.setattr(builds, "BUILD_JOB", f"{__name__}.{work.__name__}")
    queue = JobQueue(guarded.settings("api").redis_url)
    await queue.build("a", "x", "uid")
    await queue.build("a", "x", "uid")
    client = blocking.Redis.from_url(guarded.settings("builder").redis_url)

    def carry_out() -> int:
        recovery.recover(client, keys.BUILD_JOBS, "host")
        jobs_queue = Queue(keys.BUILD_JOBS, connection=client, serializer=SERIALIZER)
        waiting = len(jobs_queue)
        worker = SimpleWorker([jobs_queue], connection=client, serializer=SERIALIZER, name="host.1-1.builds")
        worker.work(burst=True, with_scheduler=False, logging_level="WARNING")
        return waiting - len(jobs_queue)

    assert await asyncio.to_thread(carry_out) == 1
    await queue.build("a", "x", "uid")
    client.close()
    await queue.close()


async def test_a_build_log_is_written_by_the_builder_and_read_by_the_api(guarded: Guarded) -> None:
    async with (
        connected(guarded.settings("builder").redis_url) as redis,
        connected(guarded.settings("api").redis_url) as other,
    ):
        writer = BuildLogWriter(redis, "a", "x")
        await writer.begin()
        await writer.line("step 1")
        await writer.end()
        async with aclosing(read(other, "a", "x", follow=True)) as lines:
            assert [line async for line in lines] == ["step 1"]


async def test_users_of_another_release_are_taken_over_without_a_restart(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = guarded.folder / key_files.ACL
    file.write_text(file.read_text().replace("+publish ", ""))
    guarded.server.signal(15)
    guarded.server.start()
    async with connected(guarded.settings("activator").redis_url) as redis:
        with pytest.raises(StoreForbiddenError):
            await redis.execute("PUBLISH", keys.POKES, "x")
    monkeypatch.setattr(sys, "argv", ["key_files", str(guarded.folder)])
    monkeypatch.setenv("KNOLL_REDIS_URL", guarded.server.url)
    await asyncio.to_thread(key_files.main)
    async with connected(guarded.settings("activator").redis_url) as redis:
        await redis.execute("PUBLISH", keys.POKES, "x")


async def test_a_redis_with_plain_data_and_no_users_is_taken_over(guarded: Guarded, tmp_path: Path) -> None:
    guarded.server.signal(15)
    guarded.server.more = ()
    guarded.server.start()
    async with connected(guarded.server.url) as old:
        store = RedisStore(old)
        before = await store.create(kinds.SECRET.id, secret())
        other = await store.create(kinds.CONFIG_MAP.id, {**secret("settings"), "kind": "ConfigMap"})
        key = await token_key.shared_key(old)
        await store.close()
    assert b"cGxhaW4gam9ld2Vscw" in _file(guarded.server)
    guarded.server.signal(15)
    guarded.server.more = ("--aclfile", str(guarded.folder / key_files.ACL))
    guarded.server.start()
    settings = guarded.settings("api")
    async with (
        connected(settings.redis_url) as redis,
        guarded.store("api") as store,
        guarded.store("builder") as reader,
    ):
        assert await store.get(kinds.SECRET.id, "bank", "crown") == before
        await reencryption.at_start(redis, settings.keyring)
        for each in (store, reader):
            assert await each.get(kinds.SECRET.id, "bank", "crown") == before, "content and version stay"
            assert await each.get(kinds.CONFIG_MAP.id, "bank", "settings") == other
        assert await token_key.shared_key(redis, settings.keyring) == key
        assert await reencryption.reseal(redis, settings.keyring) == 0

    def is_clean() -> bool:
        content = _file(guarded.server)
        kept = content.count(b"cGxhaW4gam9ld2Vscw") == content.count(b"bank/settings")  # that of the ConfigMap alone
        return kept and b"PRIVATE KEY" not in content

    await eventually(is_clean, condition="the file is written anew")


def _file(server: RedisProcess) -> bytes:
    content = []
    for path in (server.directory / "appendonlydir").iterdir():
        with contextlib.suppress(FileNotFoundError):  # removed just now
            content.append(path.read_bytes())
    return b"".join(content)
