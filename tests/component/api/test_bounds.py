"""Bounds of heads, bodies, connections, requests and streams, and requests that are always served."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app
from api.http import own_certificate, protocol, server
from api.http.connections import Connections
from knoll.config.platform import PlatformConfig
from knoll.process.settings import ApiSettings
from tests.component.api.conftest import CONFIG_MAPS, Running, serving
from tests.component.api.lines import watching
from tests.component.api.raw import Raw, connected
from tests.doubles.memory_store import MemoryStore
from tests.waiting import eventually

GET = b"GET /version HTTP/1.1\r\nHost: localhost\r\n"
HEAD = protocol.MAX_HEAD_BYTES


@pytest.fixture
def config() -> dict[str, str]:
    """The data of config-security."""
    return {}


@pytest.fixture
async def api(settings: ApiSettings, config: dict[str, str]) -> AsyncIterator[Running]:
    current = PlatformConfig().with_config_map("config-security", config)
    async with serving(MemoryStore(), settings, config=lambda: current) as running:
        yield running


def bounded(**keys: int) -> Callable[..., Any]:
    """Sets keys of config-security."""
    data = {f"{key.replace('_', '-')}": str(value) for key, value in keys.items()}
    return pytest.mark.parametrize("config", [data], ids=[",".join(keys)])


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(GET + b"X: " + b"a" * HEAD + b"\r\n\r\n", id="one long field"),
        pytest.param(GET + b"X: " + b"a" * (48 * 1024 * 1024), id="one field without an end"),
        pytest.param(GET + b"X" + b"a" * HEAD, id="a name without an end"),
        pytest.param(GET + b"X: a\r\n" * (HEAD // 6) + b"\r\n", id="many short fields"),
        pytest.param(GET + b"".join(b"X%d: b\r\n" % number for number in range(HEAD)), id="fields without an end"),
        pytest.param(b"GET /" + b"a" * HEAD + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a long target"),
        pytest.param(b"GET /" + b"a" * (2 * HEAD), id="a target without an end"),
    ],
)
async def test_a_head_over_the_bound_is_refused_while_it_arrives(api: Running, head: bytes) -> None:
    async with connected(api.url) as raw:
        sending = asyncio.create_task(raw.send(head))
        answer = await raw.answer()
        assert (answer.code, answer.json()["reason"]) == (431, "RequestHeaderFieldsTooLarge")
        assert answer.all("connection") == ["close"]
        sending.cancel()


async def test_a_head_up_to_the_bound_is_taken_however_it_is_cut(api: Running) -> None:
    fields = b"X: " + b"a" * (HEAD - 200) + b"\r\n\r\n"
    async with connected(api.url) as raw:
        for _ in range(2):
            for at in range(0, len(fields), 5000):
                await raw.send((GET if at == 0 else b"") + fields[at : at + 5000])
            assert (await raw.answer()).code == 200


async def test_a_body_does_not_count_as_a_head(api: Running) -> None:
    body = b"x" * (2 * HEAD)
    post = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with connected(api.url) as raw:
        await raw.send(post + body + GET)
        assert (await raw.answer()).code == 404
        await raw.send(b"\r\n")
        assert (await raw.answer()).code == 200


@pytest.mark.parametrize(
    ("sent", "then"),
    [
        pytest.param(b"GET /version HT", b"", id="half a head"),
        pytest.param(GET, b"", id="a head without its end"),
        pytest.param(GET + b"\r\n", b"\r\n", id="empty lines after an answer"),
        pytest.param(GET + b"\r\n" + GET, b"", id="half a head after a whole one"),
        pytest.param(GET + b"\r\n", GET, id="half a head after an answer"),
    ],
)
async def test_half_a_head_is_waited_for_so_long(
    api: Running, monkeypatch: pytest.MonkeyPatch, sent: bytes, then: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    async with connected(api.url) as raw:
        await raw.send(sent)
        answer = await raw.answer()
        if answer.code == 200:
            await raw.send(then)
            answer = await raw.answer()
        assert (answer.code, answer.json()["reason"]) == (408, "Timeout")
        assert await raw.ended() == b""


async def test_a_silent_client_is_disconnected_without_a_response(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    async with connected(api.url) as raw:
        assert await raw.ended() == b""


async def test_a_head_that_comes_byte_by_byte_gets_no_more_time(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    async with connected(api.url) as raw:

        async def drip() -> None:
            while True:
                await raw.send(b"X")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        await raw.send(GET)
        assert (await raw.answer()).code in (400, 408)
        dripping.cancel()


@pytest.mark.parametrize("path", [CONFIG_MAPS, "/uploads"])
async def test_a_body_is_waited_for_so_long(api: Running, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.2)
    async with connected(api.url) as raw:
        await raw.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc".encode())
        answer = await raw.answer()
        assert (answer.code, answer.json()["reason"]) == (408, "Timeout")
        assert await raw.ended() == b""


async def test_a_client_that_does_not_read_is_disconnected_and_a_slow_one_is_not(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        body = {"metadata": {"name": f"m{number}"}, "data": {"text": "x" * 900_000}}
        assert (await api.client.post(CONFIG_MAPS, json=body)).status_code == 201
    monkeypatch.setattr(protocol, "SEND_SECONDS", 0.3)
    head = f"GET {CONFIG_MAPS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    async with connected(api.url) as slow, connected(api.url) as silent:
        await slow.send(head)
        await silent.send(head)
        received = 0
        begun = asyncio.get_running_loop().time()
        while data := await slow.reader.read(256 * 1024):
            received += len(data)
            await asyncio.sleep(0.02)
        assert received > 20 * 900_000
        assert asyncio.get_running_loop().time() > begun + 0.6
        assert len(await silent.ended()) < received


async def test_an_upload_that_makes_progress_may_take_longer(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BODY_SECONDS", 1.0)
    async with connected(api.url) as raw:
        await raw.send(b"POST /uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\n")
        begun = asyncio.get_running_loop().time()
        for _ in range(30):
            await raw.send(b"x")
            await asyncio.sleep(0.05)
        assert asyncio.get_running_loop().time() > begun + 1.0
        assert (await raw.answer()).code == 201


async def test_a_tls_handshake_is_waited_for_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.3)
    files, _ = own_certificate.load_or_issue(tmp_path, ["localhost"], datetime.now(UTC))
    app = create_app(MemoryStore(), ApiSettings(uploads_dir=tmp_path))
    secure = server.server(app, Connections(100, lambda: 100), host="127.0.0.1", files=files)
    work = asyncio.create_task(secure.serve())
    await eventually(lambda: secure.started or work.done(), condition="the API")
    port = secure.servers[0].sockets[0].getsockname()[1]
    async with connected(f"http://127.0.0.1:{port}") as silent, connected(f"http://127.0.0.1:{port}") as half:
        await half.send(b"\x16\x03\x01\x02\x00\x01\x00")
        assert await silent.ended() == b""
        assert await half.ended() == b""
    secure.should_exit = True
    await work


@bounded(max_connections_per_address=16)
async def test_health_is_answered_to_an_address_that_may_have_no_more_connections(api: Running) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(16):
            await stack.enter_async_context(watching(api.client, CONFIG_MAPS))
        for path in ("/readyz", "/livez", "/healthz"):
            async with connected(api.url) as raw:
                await raw.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert (await raw.answer()).code == 200
        async with connected(api.url) as raw:
            await raw.send(GET + b"\r\n")
            refused = await raw.answer()
            assert refused.code == 429
            assert refused.all("retry-after") == ["1"]
            assert refused.json()["reason"] == "TooManyRequests"
            assert refused.json()["details"]["retryAfterSeconds"] == 1
            assert await raw.ended() == b""
        async with connected(api.url, "127.0.0.9") as raw:
            await raw.send(GET + b"\r\n")
            assert (await raw.answer()).code == 200


@bounded(max_connections_per_address=16)
async def test_connections_with_incomplete_heads_are_closed_for_complete_ones(api: Running) -> None:
    async with AsyncExitStack() as stack:
        halves: list[Raw] = []
        for _ in range(100):
            raw = await stack.enter_async_context(connected(api.url))
            await raw.send(b"GET /vers")
            halves.append(raw)
        for _ in range(3):
            async with connected(api.url) as raw:
                await raw.send(GET + b"\r\n")
                assert (await raw.answer()).code == 200
        assert await halves[0].ended() == b""


@bounded(max_connections_per_address=16)
async def test_connections_over_the_bound_are_closed(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "OVER_BOUND_SECONDS", 0.1)
    async with AsyncExitStack() as stack:
        for _ in range(16):
            await stack.enter_async_context(watching(api.client, CONFIG_MAPS))
        async with connected(api.url) as raw:
            assert await raw.ended() == b""


HOSTS = [
    (b"Host: a\r\nHost: a\r\n", 400),
    (b"Host: localhost\r\nHost: evil.example\r\n", 400),
    (b"", 400),
    (b"Host: a/b?c\r\n", 400),
    (b"Host: a b\r\n", 400),
    (b"Host: localhost#x\r\n", 400),
    (b"Host: user@localhost\r\n", 400),
    (b"Host: localhost\r\n", 200),
    (b"Host: [::1]:8001\r\n", 200),
    (b"Host:\r\n", 200),
]


@pytest.mark.parametrize(("field", "code"), HOSTS)
async def test_a_request_has_one_host(api: Running, field: bytes, code: int) -> None:
    async with connected(api.url) as raw:
        await raw.send(b"GET /version HTTP/1.1\r\n" + field + b"\r\n")
        answer = await raw.answer()
        assert answer.code == code
        if code == 400:
            assert (answer.json()["kind"], answer.all("connection")) == ("Status", ["close"])


@pytest.mark.parametrize(
    ("target", "host", "code"),
    [
        ("http://localhost/version", "localhost", 200),
        ("http://evil.example/version", "localhost", 400),
        ("http://localhost/version", "evil.example", 400),
        ("http://localhost@evil.example/version", "localhost", 400),
        ("//evil.example/version", "localhost", 404),
        ("evil", "localhost", 400),
    ],
)
async def test_the_target_names_the_same_host(api: Running, target: str, host: str, code: int) -> None:
    async with connected(api.url) as raw:
        await raw.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert (await raw.answer()).code == code


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"\x16\x03\x01\x02\x00", id="a TLS hello"),
        pytest.param(b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", id="another version"),
        pytest.param(b"GET /version HTTP/1.1\r\nHost : localhost\r\n\r\n", id="a space before the colon"),
        pytest.param(GET + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", id="two lengths"),
        pytest.param(GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", id="two Content-Lengths"),
        pytest.param(GET + b"Transfer-Encoding: identity, x\r\n\r\n", id="an unknown coding"),
        pytest.param(GET + b" folded\r\n\r\n", id="a folded line"),
        pytest.param(GET + b"X: a\0b\r\n\r\n", id="NUL"),
    ],
)
async def test_what_is_not_http_is_refused_with_a_status(api: Running, request_bytes: bytes) -> None:
    async with connected(api.url) as raw:
        await raw.send(request_bytes)
        answer = await raw.answer()
        assert (answer.code, answer.json()["kind"], answer.all("connection")) == (400, "Status", ["close"])
        assert answer.all("x-content-type-options") == ["nosniff"]


@pytest.mark.parametrize("path", ["/version", "/nothing", CONFIG_MAPS, f"{CONFIG_MAPS}?watch=true", "/readyz"])
async def test_every_response_has_the_security_headers(api: Running, path: str) -> None:
    async with api.client.stream("GET", path) as answer:
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
        assert answer.headers.get_list("cache-control") == ["no-cache, private"]
        assert "server" not in answer.headers
