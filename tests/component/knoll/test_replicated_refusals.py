"""Servers and sentinels that refuse what a client of a primary with replicas needs."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from knoll.redis.address import Address
from knoll.redis.client import connect, connected
from knoll.redis.connection import open_connection
from knoll.redis.replicated.discovery import Primary
from knoll.redis.replicated.session import Session
from knoll.values.errors import StoreUnavailableError
from tests.component.knoll.conftest import RedisProcess
from tests.conftest import need
from tests.waiting import eventually


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    need("REDIS", shutil.which("redis-server") is not None)
    process = RedisProcess(tmp_path)
    process.start()
    yield process
    process.close()


@pytest.mark.redis
async def test_a_sentinel_that_refuses_its_channels_is_reported_and_asked_again(server: RedisProcess) -> None:
    async with connected(server.url, "administrator") as administrator:
        await administrator.execute("ACL", "SETUSER", "default", "-subscribe")
        with capture_logs() as events:
            client = connect(f"redis+sentinel://127.0.0.1:{server.port}/0?master=knoll", "test")
            try:
                with pytest.raises(StoreUnavailableError):
                    await client.execute("PING")
                await eventually(lambda: any(each["event"] == "sentinel not followed" for each in events))
                await administrator.execute("ACL", "SETUSER", "default", "+subscribe")

                async def follows() -> bool:
                    channels = await administrator.execute("PUBSUB", "CHANNELS")
                    return b"+switch-master" in channels

                await eventually(follows, condition="the sentinel's channels")
            finally:
                await client.aclose()


@pytest.mark.parametrize("reply", [b"-ERR unknown command 'INFO'\r\n", b"$0\r\n\r\n", b"$5\r\nrole:\r\n"])
async def test_a_session_ends_when_its_server_no_longer_reports_its_role(reply: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(reply if b"INFO" in data else b"%0\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as listener:
        address = Address("127.0.0.1", listener.sockets[0].getsockname()[1])
        commands = await open_connection(address, "test")
        session = Session(address, "an epoch", commands, Primary(address.host, address.port, down_after=0.1))
        await eventually(lambda: not session.is_open, condition="the end of the session")
