"""The new machine's side of a join, against a real API over HTTPS."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api.http import own_certificate
from knoll.auth import certificates
from knoll.auth.join_tokens import JoinToken
from knoll.cli import cluster_checks
from knoll.cluster import joining
from knoll.cluster.joining import JoinError
from knoll.cluster.node_folder import NodeFolder
from knoll.redis.client import RedisClient
from knoll.values.errors import BadRequestError
from tests.component.api import test_machines
from tests.component.api.conftest import Running
from tests.component.cluster.test_agent import secure
from tests.conftest import free_port

pytestmark = pytest.mark.redis


async def joined(url: str, pin: str, token: JoinToken, folder: NodeFolder, name: str = "n2") -> bytes:
    return (await asyncio.to_thread(joining.join, url, pin, token, name, folder)).bundle


async def test_a_machine_joins_with_the_line_that_was_printed(api: Running, redis: RedisClient, tmp_path: Path) -> None:
    token, folder = await test_machines.issue(api), NodeFolder(tmp_path / "n2")
    async with secure(api, redis) as url:
        pin = await asyncio.to_thread(joining.pin_of_server, url)
        assert await joined(url, pin, token, folder) == test_machines.BUNDLE
    assert folder.name == "n2"
    assert folder.is_valid(datetime.now(UTC))
    folder.context(server=True)


async def test_the_pin_is_the_one_that_curl_compares(api: Running, redis: RedisClient) -> None:
    async with secure(api, redis) as url:
        pin = await asyncio.to_thread(joining.pin_of_server, url)
        for given, code in ((pin, 0), (f"sha256//{'A' * 43}=", 90)):
            command = ["curl", "-sk", "--pinnedpubkey", given, "-o", "/dev/null", f"{url}/version"]
            process = await asyncio.create_subprocess_exec(*command)
            assert await process.wait() == code


@contextlib.asynccontextmanager
async def impostor(folder: Path) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server with a different certificate that records what it receives."""
    got: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            got.append(await reader.read(65536))
        writer.close()

    files, _ = own_certificate.load_or_issue(folder, ["localhost"], datetime.now(UTC))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", got


async def test_another_server_gets_no_token(api: Running, redis: RedisClient, tmp_path: Path) -> None:
    token = await test_machines.issue(api)
    async with secure(api, redis) as url, impostor(tmp_path / "other") as (other, got):
        pin = await asyncio.to_thread(joining.pin_of_server, url)
        with pytest.raises(JoinError, match="another public key"):
            await joined(other, pin, token, NodeFolder(tmp_path / "n2"))
    assert not any(got)


async def test_an_invalid_token_and_a_taken_name_are_explained(
    api: Running, redis: RedisClient, tmp_path: Path
) -> None:
    async with secure(api, redis) as url:
        pin = await asyncio.to_thread(joining.pin_of_server, url)
        with pytest.raises(JoinError, match="invalid or has expired"):
            await joined(url, pin, JoinToken.fresh(), NodeFolder(tmp_path / "1"))
        await joined(url, pin, await test_machines.issue(api), NodeFolder(tmp_path / "1"))
        with pytest.raises(JoinError, match="knoll node rm n2"):
            await joined(url, pin, await test_machines.issue(api), NodeFolder(tmp_path / "2"))


async def test_a_platform_that_does_not_respond_is_named(tmp_path: Path) -> None:
    url = f"https://127.0.0.1:{free_port()}"
    with pytest.raises(JoinError, match=url):
        await joined(url, "sha256//x", JoinToken.fresh(), NodeFolder(tmp_path))
    with pytest.raises(BadRequestError, match="https://ADDRESS:PORT"):
        joining.own_address("http://127.0.0.1")


def test_the_address_of_a_machine_is_that_of_its_route() -> None:
    assert joining.own_address("https://127.0.0.1:8444") == "127.0.0.1"


def test_pins_differ_between_keys() -> None:
    first, second = (certificates.new_authority(datetime.now(UTC)) for _ in range(2))
    pins = {joining.pin_of(ssl.PEM_cert_to_DER_cert(each.certificate_pem.decode())) for each in (first, second)}
    assert len(pins) == 2


async def test_the_doctor_compares_the_clocks_of_machines(api: Running, redis: RedisClient) -> None:
    async with secure(api, redis) as url:
        port = int(url.rpartition(":")[2])
        same = await asyncio.to_thread(cluster_checks.clock, "n2", "127.0.0.1", port, time.time())
        late = await asyncio.to_thread(cluster_checks.clock, "n2", "127.0.0.1", port, time.time() - 100)
    assert same is not None
    assert same[0]
    assert late is not None
    assert not late[0]
