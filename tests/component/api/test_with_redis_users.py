"""The API and the activator as processes on a Redis with users: what one publishes of Secrets, the other serves."""

import asyncio
import base64
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from knoll.auth import key_files
from knoll.cli.keys import rotate
from knoll.messages.nodes import NODES, Node
from knoll.redis import keys
from knoll.redis.client import connected
from knoll.redis.encryption import is_sealed, key_id
from knoll.store.redis_store import RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values.errors import ConflictError
from tests.component.activator.test_config_watch import DOMAIN, certificate, mapping, secret
from tests.component.activator.test_process import running
from tests.component.api.processes import ApiProcess
from tests.component.knoll.conftest import RedisProcess
from tests.conftest import free_port
from tests.waiting import eventually, eventually_sync

pytestmark = pytest.mark.redis


class Platform:
    """A Redis with users, and what its processes are told."""

    def __init__(self, folder: Path) -> None:
        self.keys = folder / "keys"
        key_files.prepare(self.keys)
        self.redis = RedisProcess(folder)
        self.redis.more = ("--aclfile", str(self.keys / key_files.ACL))

    def url(self, process: str) -> str:
        return f"redis://{process}@127.0.0.1:{self.redis.port}/0"

    def environment(self, process: str) -> dict[str, str]:
        return {"KNOLL_REDIS_URL": self.url(process), "KNOLL_KEYS_DIR": str(self.keys / process)}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    platform = Platform(tmp_path)
    try:
        platform.redis.start()
        yield platform
    finally:
        platform.redis.close()


async def test_a_certificate_reaches_the_data_path_that_cannot_read_secrets(platform: Platform, tmp_path: Path) -> None:
    pair, tls_port = certificate(DOMAIN), free_port()
    trust = ssl.create_default_context(cadata=pair[0].decode())
    activator = {**platform.environment("activator"), "KNOLL_ACTIVATOR_TLS_PORTS": str(tls_port)}
    with (
        ApiProcess("", tmp_path, **platform.environment("api")) as api,
        running("", 1, **activator) as process,
    ):
        await process.ready()
        base = f"{api.url}/apis/serving.knative.dev/v1beta1/namespaces/default/domainmappings"
        target = {"name": "app", "kind": "Service", "apiVersion": "serving.knative.dev/v1"}
        body = mapping()
        body["spec"]["ref"] = target
        async with httpx.AsyncClient() as client:
            (await client.post(f"{api.url}/api/v1/namespaces/default/secrets", json=secret(pair))).raise_for_status()
            (await client.post(base, json=body)).raise_for_status()
            token = f"{api.url}/api/v1/namespaces/default/serviceaccounts/default/token"
            (await client.post(token, json={"spec": {}})).raise_for_status()

        async def handshake() -> int:
            async with httpx.AsyncClient(verify=trust) as client:
                try:
                    extensions = {"sni_hostname": DOMAIN}
                    return (await client.get(f"https://127.0.0.1:{tls_port}/", extensions=extensions)).status_code
                except httpx.ConnectError:
                    return 0

        assert await eventually(handshake, within=30) == 404, "the certificate is there; no Route is"
        content = b"".join(path.read_bytes() for path in (tmp_path / "appendonlydir").iterdir())
        assert base64.b64encode(pair[1])[:60] not in content
        assert b"PRIVATE KEY" not in content

        # A rotation while all of it runs: no restart, and the old key is no longer needed for what is stored.
        before = key_files.keyring(platform.keys, key_files.SECRETS)[0].id
        options = ["--keys", str(platform.keys), "--redis-url", platform.url("api")]
        done = await asyncio.to_thread(CliRunner().invoke, rotate, options, catch_exceptions=False)
        assert "values re-encrypted" in done.output
        after = key_files.keyring(platform.keys, key_files.SECRETS)
        assert (len(after), after[1].id) == (2, before)
        assert f"new key {after[0].id}" in done.output
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{api.url}/api/v1/namespaces/default/secrets/cert")
        assert answer.json()["data"] == secret(pair)["data"]
        password = (platform.keys / "api" / key_files.PASSWORD).read_text().strip()
        async with connected(f"redis://api:{password}@127.0.0.1:{platform.redis.port}/0") as redis:
            stored = await redis.execute("GET", keys.TOKEN_KEY)
        assert isinstance(stored, bytes)
        assert is_sealed(stored)
        assert key_id(stored) == after[0].id
        assert await handshake() == 404


def test_a_process_with_a_wrong_password_reports_it(platform: Platform, tmp_path: Path) -> None:
    (platform.keys / "api" / key_files.PASSWORD).write_text("wrong")
    environment = {**os.environ, **platform.environment("api"), "KNOLL_API_PORT": str(free_port())}
    with (tmp_path / "api.log").open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "api"], env=environment, stdout=output, stderr=output)
        try:
            eventually_sync(lambda: "invalid username-password" in (tmp_path / "api.log").read_text(), within=30)
        finally:
            process.kill()
            process.wait()


async def test_keys_are_not_rotated_on_one_of_several_machines(platform: Platform) -> None:
    password = (platform.keys / "autoscaler" / key_files.PASSWORD).read_text().strip()
    url = f"redis://autoscaler:{password}@127.0.0.1:{platform.redis.port}/0"
    options = ["--keys", str(platform.keys), "--redis-url", platform.url("api")]
    before = key_files.keyring(platform.keys, key_files.SECRETS)
    async with connected(url) as redis:
        table = RedisTable(redis, NODES, Node)
        for number in (1, 2):
            await table.put(f"n{number}", Node(f"n{number}", f"192.0.2.{number}", 1, 1, 1.0, 1, "v1"))
        refused = await asyncio.to_thread(CliRunner().invoke, rotate, options)
        assert isinstance(refused.exception, ConflictError)
        assert "several machines (n1, n2)" in str(refused.exception)
        assert key_files.keyring(platform.keys, key_files.SECRETS) == before
        await table.remove("n2")
        done = await asyncio.to_thread(CliRunner().invoke, rotate, options, catch_exceptions=False)
    assert "values re-encrypted" in done.output


async def test_a_machine_that_is_switched_off_blocks_a_rotation(platform: Platform) -> None:
    password = (platform.keys / "api" / key_files.PASSWORD).read_text().strip()
    options = ["--keys", str(platform.keys), "--redis-url", platform.url("api")]
    async with connected(f"redis://api:{password}@127.0.0.1:{platform.redis.port}/0") as redis:
        store = RedisStore(redis)
        for number in (1, 2):
            metadata = {"namespace": "kube-system", "name": f"node-n{number}", "uid": f"u{number}"}
            annotations = {"knoll.dev/node-key": "sha256:00"}
            await store.create("serviceaccounts", {"metadata": {**metadata, "annotations": annotations}})
        refused = await asyncio.to_thread(CliRunner().invoke, rotate, options)
        assert isinstance(refused.exception, ConflictError)
        assert "several machines (n1, n2)" in str(refused.exception)
        await store.delete("serviceaccounts", "kube-system", "node-n2")
        done = await asyncio.to_thread(CliRunner().invoke, rotate, options, catch_exceptions=False)
        await store.close()
    assert "values re-encrypted" in done.output
