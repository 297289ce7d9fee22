"""One pipelined connection: order, cancellation, errors, and what happens when Redis dies, hangs or returns."""

import asyncio
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from knoll.redis import connection
from knoll.redis.client import RedisClient, Script, connect, connected
from knoll.redis.reply_errors import RedisReplyError
from knoll.redis.streams import StreamReader, version_of
from knoll.values.errors import StoreForbiddenError, StoreUnavailableError
from tests.component.knoll.conftest import RedisProcess
from tests.conftest import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.redis
DOUBLED = Script("return redis.call('INCRBY', KEYS[1], ARGV[1] * 2)")


@pytest.fixture
async def client(own_redis: RedisProcess) -> AsyncIterator[RedisClient]:
    async with connected(own_redis.url, "knoll-test") as redis:
        yield redis


async def connections(redis: RedisClient) -> list[str]:
    """The connections of the tests' clients, as Redis lists them."""
    listed = (await redis.execute("CLIENT", "LIST")).decode().splitlines()
    return [line for line in listed if " name=knoll" in line]


async def test_commands_of_one_turn_share_a_connection_and_get_their_own_replies(client: RedisClient) -> None:
    replies = await asyncio.gather(*(client.execute("ECHO", f"e{number}") for number in range(500)))
    assert replies == [f"e{number}".encode() for number in range(500)]
    assert len(await connections(client)) == 1


async def test_a_reply_that_arrives_after_a_cancellation_is_not_taken_for_another(
    own_redis: RedisProcess, client: RedisClient
) -> None:
    await client.execute("PING")
    own_redis.signal(signal.SIGSTOP)
    asked = [asyncio.create_task(client.execute("ECHO", f"e{number}")) for number in range(6)]
    await asyncio.sleep(0)
    for task in asked[1::2]:
        task.cancel()
    await asyncio.wait(asked[1::2])
    own_redis.signal(signal.SIGCONT)
    assert await asyncio.gather(*asked[0::2]) == [b"e0", b"e2", b"e4"]
    assert await client.execute("ECHO", "later") == b"later"
    assert all(task.cancelled() for task in asked[1::2])


async def test_a_cancelled_write_ends_at_once_and_may_have_happened(
    own_redis: RedisProcess, client: RedisClient
) -> None:
    await client.execute("SET", "n", 0)
    own_redis.signal(signal.SIGSTOP)
    writing = asyncio.create_task(client.execute("INCR", "n"))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait({writing})
    assert writing.cancelled()
    own_redis.signal(signal.SIGCONT)
    assert int(await client.execute("GET", "n")) in (0, 1)


async def test_a_caller_that_is_cancelled_while_connecting_does_not_end_the_connection_of_others(
    client: RedisClient,
) -> None:
    first, second = (asyncio.create_task(client.execute("PING")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b"PONG"


async def test_all_that_wait_fail_at_once_when_redis_dies_and_the_next_call_connects_again(
    own_redis: RedisProcess, client: RedisClient
) -> None:
    await client.execute("PING")
    own_redis.signal(signal.SIGSTOP)
    waiting = [asyncio.create_task(client.execute("INCR", "n")) for _ in range(20)]
    await asyncio.sleep(0)
    own_redis.kill()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailableError}
    with pytest.raises(StoreUnavailableError, match="cannot connect"):
        await client.execute("PING")
    await asyncio.to_thread(own_redis.start)
    assert await client.execute("PING") == b"PONG"


async def test_a_redis_that_replies_nothing_is_unavailable_after_a_while(
    own_redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = connect(own_redis.url)
    opened = await connection.open_connection(redis.where, "knoll-test", response_seconds=0.3)
    await opened.submit(connection.packed("PING"))
    own_redis.signal(signal.SIGSTOP)
    waiting = opened.submit(connection.packed("PING"))
    with pytest.raises(StoreUnavailableError, match="Timeout reading"):
        await waiting
    assert not opened.is_open
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.2)
    with pytest.raises(StoreUnavailableError, match="Timeout connecting"):
        await redis.execute("PING")
    own_redis.signal(signal.SIGCONT)
    assert await redis.execute("PING") == b"PONG"
    await redis.aclose()


async def test_a_loop_that_was_busy_for_longer_than_the_limit_still_takes_the_reply(own_redis: RedisProcess) -> None:
    redis = connect(own_redis.url)
    opened = await connection.open_connection(redis.where, "knoll-test", response_seconds=0.05)
    reply = opened.submit(connection.packed("ECHO", "x" * 100_000))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(lambda: subprocess.run(["sleep", "0.2"], check=True))
    assert await reply == b"x" * 100_000
    opened.end("the test is over")


async def test_errors_are_those_of_their_commands(client: RedisClient) -> None:
    await client.execute("SET", "text", "x")
    good, bad, after = await asyncio.gather(
        client.execute("GET", "text"),
        client.execute("HGET", "text", "f"),
        client.execute("GET", "text"),
        return_exceptions=True,
    )
    assert (good, after) == (b"x", b"x")
    assert isinstance(bad, RedisReplyError)
    for call in (client.transaction, client.pipeline):
        with pytest.raises(RedisReplyError, match="WRONGTYPE"):
            await call(("SET", "other", 1), ("HGET", "text", "f"))
        with pytest.raises(RedisReplyError, match="unknown command"):
            await call(("SET", "other", 1), ("NOSUCHCOMMAND",))
    assert await client.transaction(("GET", "text"), ("HGETALL", "none")) == [b"x", {}]


async def test_a_script_is_loaded_when_redis_does_not_have_it(own_redis: RedisProcess, client: RedisClient) -> None:
    assert await client.run(DOUBLED, ["n"], [2]) == 4
    await client.execute("SCRIPT", "FLUSH")
    assert await asyncio.gather(*(client.run(DOUBLED, ["n"], [1]) for _ in range(5))) == [6, 8, 10, 12, 14]
    own_redis.kill()
    await asyncio.to_thread(own_redis.start)
    assert await eventually(lambda: client.run(DOUBLED, ["n"], [1])) == 16


async def test_a_script_is_run_several_times_in_one_round_trip(client: RedisClient) -> None:
    await client.execute("SET", "text", "x")
    assert await client.run_all(DOUBLED, [(["n"], [1]), (["m"], [2]), (["n"], [3])]) == [2, 4, 8]
    await client.execute("SCRIPT", "FLUSH")
    assert await client.run_all(DOUBLED, [(["n"], [1]), (["m"], [2])]) == [10, 8]
    with pytest.raises(RedisReplyError, match="not an integer"):
        await client.run_all(DOUBLED, [(["text"], [1]), (["m"], [1])])
    assert await client.execute("GET", "m") == b"10"
    assert await client.run_all(DOUBLED, []) == []


async def test_scripts_that_run_at_once_are_unavailable_with_redis(
    own_redis: RedisProcess, client: RedisClient
) -> None:
    await client.run(DOUBLED, ["n"], [1])
    own_redis.kill()
    for _ in range(2):
        errors = await client.run_all(DOUBLED, [(["n"], [1]), (["n"], [1])])
        assert [type(error) for error in errors] == [StoreUnavailableError] * 2
        assert errors[0] is not errors[1]


async def test_commands_of_one_turn_reach_redis_together(client: RedisClient) -> None:
    async def reads() -> int:
        """How often Redis has read from a connection; it writes its file through once after each time."""
        listed = (await client.execute("INFO", "stats")).decode()
        return int(re.findall(r"total_reads_processed:(\d+)", listed)[0])

    before = await reads()
    await asyncio.gather(*(client.execute("SET", f"k{number}", number) for number in range(100)))
    assert await reads() - before <= 3


async def test_messages_reach_every_subscription_and_end_with_the_connection(
    own_redis: RedisProcess, client: RedisClient
) -> None:
    async with client.subscribe("a", "b") as both, client.subscribe("a") as only_a:
        await client.execute("PUBLISH", "a", "1")
        await client.execute("PUBLISH", "b", "2")
        assert [await both.next(), await both.next()] == [("a", b"1"), ("b", b"2")]
        assert await only_a.next() == ("a", b"1")
        assert await only_a.next(0.01) is None
        own_redis.kill()
        for subscription in (both, only_a):
            with pytest.raises(StoreUnavailableError):
                await subscription.next()
    await asyncio.to_thread(own_redis.start)
    async with client.subscribe("a") as again:
        await eventually(lambda: client.execute("PUBLISH", "a", "3"))
        assert await again.next() == ("a", b"3")


async def test_a_subscription_that_ends_does_not_end_others_of_its_channel(client: RedisClient) -> None:
    async with client.subscribe("a") as staying:
        async with client.subscribe("a"):
            pass
        await client.execute("PUBLISH", "a", "1")
        assert await staying.next() == ("a", b"1")


async def read_until(reader: StreamReader, last: int) -> list[int]:
    versions: list[int] = []
    while not versions or versions[-1] < last:
        versions += [version_of(entry_id) for entry_id, _ in await reader.read()]
    return versions


async def add(client: RedisClient, key: str, first: int, last: int) -> None:
    await client.pipeline(*(("XADD", key, f"{number}-0", "f", number) for number in range(first, last + 1)))


async def test_all_streams_are_read_by_one_command_and_nothing_is_lost(client: RedisClient) -> None:
    readers = [client.streams.reader(f"s{number}", "0-0") for number in range(10)]
    late = client.streams.reader("s0", "150-0")
    reading = [asyncio.create_task(read_until(reader, 3000)) for reader in (*readers, late)]
    for first in range(1, 3000, 100):
        await asyncio.gather(*(add(client, f"s{number}", first, first + 99) for number in range(10)))
    assert [await task for task in reading] == [*[list(range(1, 3001))] * 10, list(range(151, 3001))]
    assert len(await connections(client)) == 2
    for reader in (*readers, late):
        reader.close()
    await eventually(lambda: is_alone(client))


async def is_alone(client: RedisClient) -> bool:
    return len(await connections(client)) == 1


async def test_a_reader_that_does_not_read_stops_no_other(client: RedisClient) -> None:
    slow, quick = client.streams.reader("s", "0-0"), client.streams.reader("t", "0-0")
    await add(client, "s", 1, 3000)
    first = await slow.read()
    reading = asyncio.create_task(read_until(quick, 500))
    await add(client, "t", 1, 500)
    assert await reading == list(range(1, 501))
    assert [version_of(first[0][0]), *await read_until(slow, 3000)][-1] == 3000
    slow.close()
    quick.close()


async def test_readers_go_on_after_a_restart_where_they_were(own_redis: RedisProcess, client: RedisClient) -> None:
    reader = client.streams.reader("s", "0-0")
    await add(client, "s", 1, 10)
    assert await read_until(reader, 10) == list(range(1, 11))
    waiting = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    own_redis.kill()
    with pytest.raises(StoreUnavailableError):
        await waiting
    await asyncio.to_thread(own_redis.start)
    await eventually(lambda: client.execute("PING"))
    await add(client, "s", 11, 20)
    assert await read_until(reader, 20) == list(range(11, 21))
    reader.close()


async def test_a_user_without_the_right_to_a_stream_is_refused_it(own_redis: RedisProcess, client: RedisClient) -> None:
    await client.execute("ACL", "SETUSER", "narrow", "on", ">secret", "~mine", "+@all")
    async with connected(f"redis://narrow:secret@127.0.0.1:{own_redis.port}/0") as narrow:
        reader = narrow.streams.reader("theirs", "0-0")
        with pytest.raises(StoreForbiddenError):
            await reader.read()
        reader.close()
        with pytest.raises(StoreForbiddenError):
            await narrow.execute("GET", "theirs")
        await narrow.execute("SET", "mine", 1)


@pytest.mark.parametrize("user", ["nobody:x@", ":wrong@"])
async def test_a_wrong_password_is_named(own_redis: RedisProcess, client: RedisClient, user: str) -> None:
    await client.execute("CONFIG", "SET", "requirepass", "right")
    async with connected(f"redis://{user}127.0.0.1:{own_redis.port}/0") as other:
        with pytest.raises(StoreUnavailableError, match="WRONGPASS"):
            await other.execute("PING")


async def test_a_redis_without_passwords_is_reached_at_another_database(own_redis: RedisProcess) -> None:
    async with connected(f"redis://127.0.0.1:{own_redis.port}/3", "knoll-three") as redis:
        await redis.execute("SET", "k", 1)
        (listed,) = await connections(redis)
        assert " db=3 " in listed
        assert " name=knoll-three " in listed


async def test_a_unix_socket_and_tls(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "redis.sock"
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = await asyncio.create_subprocess_exec(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert await made.wait() == 0
    command: list[Any] = [
        shutil.which("redis-server"), "--port", "0", "--tls-port", str(port), "--tls-cert-file", certificate,
        "--tls-key-file", key, "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no", "--unixsocket", path,
        "--dir", tmp_path, "--save", "",
    ]  # fmt: skip
    server = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    try:
        async with connected(f"unix://{path}?db=0") as redis:
            await eventually(lambda: replies(redis))
        async with connected(f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}") as redis:
            assert await redis.execute("PING") == b"PONG"
        async with connected(f"rediss://localhost:{port}/0") as redis:
            with pytest.raises(StoreUnavailableError, match="certificate verify failed"):
                await redis.execute("PING")
        async with connected(f"rediss://localhost:{port}/0?ssl_cert_reqs=none") as redis:
            assert await redis.execute("PING") == b"PONG"
    finally:
        server.terminate()
        await server.wait()


async def replies(redis: RedisClient) -> bool:
    try:
        return bool(await redis.execute("PING"))
    except StoreUnavailableError:
        return False
