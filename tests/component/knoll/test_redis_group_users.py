"""A Redis with replicas and sentinels and a user for each process, for replicas and for sentinels."""

import itertools
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from knoll.auth import key_files, redis_acl
from knoll.builds.queue import JobQueue
from knoll.messages.endpoints import ENDPOINTS, RevisionEndpoints
from knoll.process.settings import CommonSettings
from knoll.redis import keys
from knoll.redis.client import connected
from knoll.redis.lease import Lease
from knoll.redis.safety import unsafe_settings
from knoll.store.redis_store import RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.errors import StoreForbiddenError, StoreUnavailableError
from tests.component.knoll.conftest import take
from tests.conftest import need
from tests.redis_group import NAME, RedisGroup
from tests.waiting import eventually

pytestmark = pytest.mark.redis


@dataclass(frozen=True)
class Guarded:
    """The group, and where the passwords are."""

    group: RedisGroup
    folder: Path

    def settings(self, process: str) -> CommonSettings:
        scheme, _, rest = self.group.url().partition("://")
        url = f"{scheme}://{process}@{rest}&sentinel_users=yes"
        return CommonSettings(redis_url=url, keys_dir=self.folder / process).logged_in()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    need("REDIS", shutil.which("redis-server") is not None)
    folder = tmp_path / "keys"
    passwords = key_files.prepare_group(folder)
    administrator = "user root on >root ~* &* +@all\n"
    servers, sentinels = tmp_path / "servers.acl", tmp_path / "sentinels.acl"
    users = {**redis_acl.users(passwords), **redis_acl.group_users(passwords)}
    servers.write_text(redis_acl.file_of(users) + administrator)
    sentinels.write_text(redis_acl.file_of(redis_acl.sentinel_users(passwords)) + administrator)
    sentinel = passwords[redis_acl.SENTINEL]
    group = RedisGroup(
        tmp_path,
        more=(
            *("--aclfile", str(servers), "--masteruser", redis_acl.REPLICA),
            *("--masterauth", passwords[redis_acl.REPLICA]),
        ),
        more_of_sentinels=(
            f"aclfile {sentinels}",
            f"sentinel auth-user {NAME} {redis_acl.SENTINEL}",
            f"sentinel auth-pass {NAME} {sentinel}",
            f"sentinel sentinel-user {redis_acl.SENTINEL}",
            f"sentinel sentinel-pass {sentinel}",
        ),
        administrator=("root", "root"),
    )
    try:
        group.start()
        yield Guarded(group, folder)
    finally:
        group.close()


async def test_each_process_does_its_work_before_and_after_a_fail_over(guarded: Guarded) -> None:
    api, autoscaler, activator = (guarded.settings(name) for name in ("api", "autoscaler", "activator"))
    queue = JobQueue(api.redis_url)
    async with (
        connected(api.redis_url) as redis,
        connected(autoscaler.redis_url) as scaling,
        connected(activator.redis_url) as following,
    ):
        store = RedisStore(redis)
        written, followed = (RedisTable(each, ENDPOINTS, RevisionEndpoints) for each in (scaling, following))

        async def work(name: str) -> bool:
            async def lead() -> None:
                await written.put(name, RevisionEndpoints(()))

            try:
                await store.create("configmaps", {"metadata": {"namespace": "a", "name": name, "uid": name}})
                await Lease(scaling, "autoscaler", "me", ttl=1).lead(lead)
                await queue.build("a", name, name)
                (reset,) = await take(followed.follow(), 1)
                await followed.acknowledge("me", reset.version)
            except StoreUnavailableError:
                return False
            return (await RedisStore(scaling).list(kinds.REVISION.id)).version > 0

        assert await work("before")
        assert await unsafe_settings(redis) == []
        guarded.group.signal(0, signal.SIGKILL)
        numbers = itertools.count()
        await eventually(lambda: work(f"after-{next(numbers)}"))
        assert (await store.get("configmaps", "a", "before"))["metadata"]["uid"] == "before"
    await queue.close()


async def test_the_activator_begins_no_epoch(guarded: Guarded) -> None:
    async with connected(guarded.settings("activator").redis_url) as redis:
        with pytest.raises(StoreUnavailableError, match="no process has begun the epoch"):
            await redis.execute("PING")
        async with connected(guarded.settings("api").redis_url) as api:
            await api.execute("PING")
        assert await redis.execute("PING")
        with pytest.raises(StoreForbiddenError):
            await redis.execute("SET", keys.EPOCH, "x")


def test_a_process_cannot_change_what_sentinels_know(guarded: Guarded) -> None:
    address = guarded.group.sentinel_client(0).connection_pool.connection_kwargs
    password = (guarded.folder / "api" / key_files.PASSWORD).read_text().strip()
    with Redis(address["host"], address["port"], username="api", password=password) as sentinel:
        assert sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        for command in (("SENTINEL", "FAILOVER", NAME), ("SENTINEL", "SET", NAME, "quorum", 1), ("ACL", "LIST")):
            with pytest.raises(NoPermissionError):
                sentinel.execute_command(*command)
