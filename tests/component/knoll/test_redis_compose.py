"""docs/how-to/redis-replicas/compose.yaml: three Redis and three sentinels on this machine, as a reader starts them."""

import asyncio
import itertools
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from knoll.cli.keys import redis_acl
from knoll.process.settings import CommonSettings
from knoll.redis.client import RedisClient, connected
from knoll.redis.safety import unsafe_settings
from knoll.store.redis_store import RedisStore
from knoll.values.errors import StoreUnavailableError
from tests.conftest import need
from tests.waiting import eventually

pytestmark = pytest.mark.docker
FILE = Path(__file__).parents[3] / "docs/how-to/redis-replicas/compose.yaml"
URL = (
    "redis+sentinel://api@127.0.0.1:26381,127.0.0.1:26382,127.0.0.1:26383/0?master=knoll&replicas=1&sentinel_users=yes"
)
CM = "configmaps"


class Compose:
    """The project of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._name = folder, f"knoll-test-{uuid.uuid4().hex[:8]}"

    def run(self, *arguments: str) -> None:
        command = ["docker", "compose", "--project-name", self._name, *arguments]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=240)


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Compose]:
    need(
        "DOCKER",
        shutil.which("docker") is not None and not subprocess.run(["docker", "info"], capture_output=True).returncode,
    )
    shutil.copy(FILE, tmp_path)
    (tmp_path / ".env").write_text("REDIS_MEMORY=100mb\nREPLICA_PASSWORD=old\n")
    done = CliRunner().invoke(redis_acl, ["--keys", str(tmp_path / "keys"), "--folder", str(tmp_path)])
    assert done.exit_code == 0, done.output
    project = Compose(tmp_path)
    try:
        project.run("up", "--detach", "--no-build", "--pull", "never")
        yield project
    finally:
        project.run("down", "--volumes", "--timeout", "0")


def body(name: str) -> dict[str, object]:
    return {"metadata": {"namespace": "a", "name": name, "uid": name}, "data": {}}


async def is_safe(redis: RedisClient) -> bool:
    assert await unsafe_settings(redis) == []
    return True


async def test_what_was_written_survives_the_primary_and_a_restart_of_everything(compose: Compose) -> None:
    variables = (compose.folder / ".env").read_text().splitlines()
    assert variables[0] == "REDIS_MEMORY=100mb"
    assert sorted(line.partition("=")[0] for line in variables[1:]) == ["REPLICA_PASSWORD", "SENTINEL_PASSWORD"]
    settings = CommonSettings(redis_url=URL, keys_dir=compose.folder / "keys" / "api").logged_in()
    async with connected(settings.redis_url, "test") as redis:
        store = RedisStore(redis)
        await eventually(lambda: is_safe(redis), within=60)
        numbers = itertools.count()
        written: list[str] = []

        async def write() -> bool:
            name = f"n{next(numbers)}"
            try:
                await store.create(CM, body(name))
            except StoreUnavailableError:
                return False
            written.append(name)
            return True

        await eventually(write)
        first = redis.epoch
        await asyncio.to_thread(compose.run, "kill", "redis-1")
        await eventually(write)
        assert redis.epoch != first
        await asyncio.to_thread(compose.run, "start", "redis-1")
        await eventually(lambda: is_safe(redis), within=60)
        await asyncio.to_thread(compose.run, "kill")
        # The former primary first: writes that it lacks must not be lost.
        await asyncio.to_thread(compose.run, "start", "redis-1", "sentinel-1")
        await asyncio.to_thread(compose.run, "start")
        await eventually(write, within=60)
        listing = await store.list(CM)
    assert set(written) <= {item["metadata"]["name"] for item in listing.items}
    assert len(written) == 3
