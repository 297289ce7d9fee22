"""HTTP/1.1 through the gateway on real sockets."""

import asyncio
import time
from email.utils import parsedate_to_datetime
from ipaddress import ip_network
from typing import TypeAlias

import pytest

from activator.frontend.http1_server import Http1Connection
from activator.wire.forwarding import Proxies
from activator.wire.http1_heads import MAX_HEAD
from knoll.messages.routing import RequestPolicy
from tests.component.activator.stage import HOST, Stage, read_request
from tests.waiting import eventually

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


async def echo(reader: Reader, writer: Writer) -> None:
    """Answers with the body that came."""
    while True:
        request = await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request.body), request.body))


async def test_a_request_is_answered_and_the_connection_stays(stage: Stage) -> None:
    app = await stage.serving()
    client = await stage.connect()
    for _ in range(3):
        answer = await client.get().answer()
        assert (answer.status, answer.text) == (200, "hello")
    assert app.connections == 1


async def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    await stage.serving(echo)
    client = await stage.connect()
    posts = "".join(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(str(n))}\r\n\r\n{n}" for n in range(200))
    client.send(posts)
    assert [(await client.answer()).text for _ in range(200)] == [str(n) for n in range(200)]


async def test_a_request_cut_into_single_bytes_is_understood(stage: Stage) -> None:
    await stage.serving(echo)
    client = await stage.connect()
    for byte in f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode():
        client.send(bytes([byte]))
        await client.writer.drain()
    assert (await client.answer()).text == "abc"


async def test_the_instance_gets_the_forwarding_fields_and_the_host_unchanged(stage: Stage) -> None:
    app = await stage.serving()
    await stage.get(host=f"{HOST.upper()}:8080", extra="X-Forwarded-For: 10.0.0.1\r\nK-Original-Host: evil\r\n")
    fields = app.requests[0].fields
    assert fields["host"] == f"{HOST.upper()}:8080"
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields["x-forwarded-proto"] == "http"
    assert fields["forwarded"] == f'for=127.0.0.1;host="{HOST.upper()}:8080";proto=http'
    assert "k-original-host" not in fields


async def test_forwarding_headers_of_a_trusted_proxy_reach_the_instance(stage: Stage) -> None:
    app = await stage.serving()
    client = await stage.connect()
    for trusted in (False, True, False):
        stage.gateway.set_client_rules(Proxies([ip_network("127.0.0.0/8")] if trusted else []), "drop")
        await client.get(extra="X-Forwarded-For: 10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\n").answer()
    assert [r.fields["x-forwarded-for"] for r in app.requests] == ["127.0.0.1", "10.0.0.1, 127.0.0.1", "127.0.0.1"]
    assert [r.fields.get("x-real-ip") for r in app.requests] == [None, "10.0.0.1", None]


async def test_fields_with_underscores_reach_the_instance_where_they_are_allowed(stage: Stage) -> None:
    app = await stage.serving()
    client = await stage.connect()
    await client.get(extra="api_key: 1\r\n").answer()
    stage.gateway.set_client_rules(Proxies(), "allow")
    await client.get(extra="api_key: 1\r\n").answer()
    assert ["api_key" in request.fields for request in app.requests] == [False, True]
    stage.gateway.set_client_rules(Proxies(), "reject")
    assert (await client.get(extra="api_key: 1\r\n").answer()).status == 400


@pytest.mark.parametrize("before", ["\r\n", "\r\n\r\n", "\r"])
async def test_empty_lines_before_a_request_are_ignored(stage: Stage, before: str) -> None:
    await stage.serving()
    client = await stage.connect()
    for _ in range(2):  # before the first request, and before one that is the same again
        client.send(before)
        await client.writer.drain()
        if before == "\r":
            await eventually(
                lambda: any(isinstance(each, Http1Connection) and each._buffer for each in stage.gateway.connections)
            )
            client.send("\n")
        assert (await client.get().answer()).status == 200
    assert (await client.send("\r\n" * 2).get(host="unknown").answer()).status == 404


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\nX-A: b\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\nX-A: b\r\n\nok",
        b"HTTP/1.1 103 Early\n\nHTTP/1.1 200 OK\nContent-Length: 2\nX-A: b\n\nok",
    ],
)
async def test_a_response_with_bare_lf_line_ends_is_understood(stage: Stage, head: bytes) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        while True:
            request = await read_request(reader)
            for part in [head[at : at + 1] for at in range(len(head))] if "slow" in request.line else [head]:
                writer.write(part)
                await writer.drain()

    await stage.serving(handler)
    client = await stage.connect()
    for path in ("/", "/", "/slow"):
        client.get(path)
        answer = await client.answer()
        if answer.status == 103:
            answer = await client.answer()
        assert (answer.status, answer.text, answer.fields["x-a"]) == (200, "ok", "b")


@pytest.mark.parametrize("whole", [True, False])
async def test_a_response_with_too_long_a_head_is_a_502_with_the_reason(stage: Stage, whole: bool) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD + b"\r\n\r\n" * whole)
        await reader.read()

    await stage.serving(handler)
    answer = await stage.get()
    assert (answer.status, answer.text) == (
        502, "the connection to the instance failed: its response headers are longer than 65536 bytes\n",
    )  # fmt: skip


async def test_an_instance_that_only_sends_interim_answers_is_a_502(stage: Stage) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 102 \r\n\r\n" * 3000)
        await reader.read()

    await stage.serving(handler)
    client = (await stage.connect()).get()
    while (answer := await client.answer()).status == 102:
        pass
    assert answer.status == 502
    assert "1xx" in answer.text


async def test_hop_by_hop_fields_are_not_passed_on(stage: Stage) -> None:
    app = await stage.serving()
    extra = (
        "Connection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 3\r\nTE: gzip\r\nX-End: 2\r\nTraceparent: 00-a-b-01\r\n"
    )
    answer = await stage.get(extra=extra)
    assert answer.fields["connection"] == "close"
    fields = app.requests[0].fields
    assert {"x-end", "traceparent"} <= fields.keys()
    assert not {"connection", "x-hop", "keep-alive", "te"} & fields.keys()


async def test_chunks_and_trailers_pass_in_both_directions(stage: Stage) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        request = await read_request(reader)
        body = b"%x;ext=1\r\n%b\r\n0\r\nX-Sum: %b\r\n\r\n" % (
            len(request.body), request.body, request.trailers["x-sum"].encode()
        )  # fmt: skip
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" + body)

    await stage.serving(handler)
    client = await stage.connect()
    client.send(f"PUT / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send("4\r\nsome\r\n5\r\nthing\r\n0\r\nX-Sum: 7\r\nContent-Length: 3\r\n\r\n")
    answer = await client.answer()
    assert (answer.text, answer.trailers) == ("something", {"x-sum": "7"})


@pytest.mark.parametrize("trailers", ["", "X-Sum: 0\r\n"])
async def test_an_empty_body_in_chunks_that_comes_with_its_head_is_ended(stage: Stage, trailers: str) -> None:
    app = await stage.serving()
    client = await stage.connect()
    client.get(method="POST", extra=f"Transfer-Encoding: chunked\r\n\r\n0\r\n{trailers}")
    assert (await client.answer()).status == 200
    assert (app.requests[0].body, len(app.requests[0].trailers)) == (b"", len(trailers[:1]))


async def test_an_answer_that_ends_with_the_connection_is_passed_on_in_chunks(stage: Stage) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")

    await stage.serving(handler)
    client = await stage.connect()
    for _ in range(2):
        answer = await client.get().answer()
        assert (answer.text, answer.fields["transfer-encoding"]) == ("until the end", "chunked")


async def test_a_client_of_http_1_0_gets_no_chunks(stage: Stage) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    await stage.serving(handler)
    answer = await stage.exchange(f"GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
    assert (answer.text, answer.fields.get("connection")) == ("abc", "close")


async def test_http_1_0_with_keep_alive_is_kept(stage: Stage) -> None:
    await stage.serving()
    client = await stage.connect()
    for _ in range(2):
        client.send(f"GET / HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n")
        assert (await client.answer()).fields["connection"] == "keep-alive"


async def test_head_has_no_body_and_keeps_its_length(stage: Stage) -> None:
    await stage.serving()
    client = await stage.connect()
    answer = await client.get(method="HEAD").answer(head_only=True)
    assert answer.fields["content-length"] == "5"
    assert (await client.get().answer()).text == "hello"


async def test_the_instance_decides_about_100_continue(stage: Stage) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        request = await read_request(reader, body=False)
        assert request.fields["expect"] == "100-continue"
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(2)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)

    await stage.serving(handler)
    client = await stage.connect()
    client.get(method="POST", extra="Expect: 100-continue\r\nContent-Length: 2\r\n")
    assert (await client.head())[0] == 103
    assert (await client.head())[0] == 100
    assert (await client.send("ok").answer()).text == "ok"


async def test_an_upgrade_becomes_a_tunnel(stage: Stage) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        request = await read_request(reader)
        assert (request.fields["connection"], request.fields["upgrade"]) == ("Upgrade", "chat")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nwelcome")
        while data := await reader.read(100):
            writer.write(data.upper())

    await stage.serving(handler)
    client = await stage.connect()
    status, fields = await client.get(extra="Connection: Upgrade\r\nUpgrade: chat\r\n").head()
    assert (status, fields["upgrade"]) == (101, "chat")
    assert await client.reader.readexactly(7) == b"welcome"
    client.send("hi")
    assert await client.reader.readexactly(2) == b"HI"
    client.close()
    await eventually(lambda: not stage.gateway.requests)


async def test_an_early_answer_passes_while_the_body_still_comes(stage: Stage) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader, body=False)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()

    await stage.serving(handler)
    client = await stage.connect()
    client.get(method="POST", extra="Content-Length: 1000\r\n").send("a" * 10)
    assert (await client.answer()).status == 413
    client.send("a" * 990).get(host="unknown")
    assert (await client.answer()).status == 404, "the connection goes on behind the rest of the body"


async def test_both_directions_stream_at_once(stage: Stage) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader, body=False)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (line := await reader.readline()) != b"0\r\n":
            data = await reader.readexactly(int(line, 16) + 2)
            writer.write(line + data.upper())
        writer.write(b"0\r\n\r\n")

    await stage.serving(handler)
    client = await stage.connect()
    client.get(method="POST", extra="Transfer-Encoding: chunked\r\n")
    await client.head()
    for word in (b"one", b"two"):
        client.send(b"3\r\n" + word + b"\r\n")
        assert await client.reader.readexactly(8) == b"3\r\n" + word.upper() + b"\r\n"
    client.send("0\r\n\r\n")
    assert await client.reader.readexactly(5) == b"0\r\n\r\n"


async def test_a_slow_reader_holds_the_app_back(stage: Stage) -> None:
    sent = 0

    async def handler(reader: Reader, writer: Writer) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
        while sent < 104857600:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    await stage.serving(handler)
    client = await stage.connect()
    await client.get().head()
    before = -1
    while before != sent:
        before = sent
        await eventually(lambda: True)
        await asyncio.to_thread(lambda: None)
        for _ in range(50):
            await asyncio.wait([asyncio.create_task(asyncio.to_thread(int))])
    assert sent < 50_000_000
    total = 0
    async with asyncio.timeout(30):
        while total < 104857600:
            total += len(await client.reader.read(1 << 20))
    assert total == 104857600


async def test_a_large_upload_is_echoed_whole(stage: Stage) -> None:
    await stage.serving(echo)
    body = bytes(range(256)) * 40_000
    client = await stage.connect()
    client.get(method="POST", extra=f"Content-Length: {len(body)}\r\n").send(body)
    assert (await client.answer()).body == body


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"", "closes without a word"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closes in the head"),
        (b"SSH-2.0-OpenSSH\r\n", "speaks another protocol"),
        (b"HTTP/1.1 200 OK\rContent-Length: 0\r\r\n\r\n", "ends lines with CR"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "has two lengths"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "changes the protocol unasked"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_instance_that_breaks_is_a_502(stage: Stage, answer: bytes, failure: str) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(answer)

    await stage.serving(handler)
    client = await stage.connect()
    assert (await client.get().answer()).status == 502
    assert (await client.get(host="unknown").answer()).status == 404, "the client's connection is still good"


@pytest.mark.parametrize("start", [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"])
async def test_an_answer_that_breaks_off_is_not_made_to_look_whole(stage: Stage, start: bytes) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + start)

    await stage.serving(handler)
    client = await stage.connect()
    await client.get().head()
    rest = await client.closed()
    assert b"abc" in rest
    assert not rest.endswith(b"0\r\n\r\n")


async def test_a_kept_connection_that_the_app_closed_is_replaced_unseen(stage: Stage) -> None:
    served = 0

    async def handler(reader: Reader, writer: Writer) -> None:
        nonlocal served
        await read_request(reader)
        served += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await read_request(reader)  # takes the second request on this connection, and closes without an answer

    app = await stage.serving(handler)
    client = await stage.connect()
    for _ in range(4):
        assert (await client.get().answer()).status == 200
    assert (served, app.connections) == (4, 4)


async def test_a_post_is_not_sent_twice(stage: Stage) -> None:
    posts = 0

    async def handler(reader: Reader, writer: Writer) -> None:
        nonlocal posts
        while True:
            request = await read_request(reader)
            if request.line.startswith("POST"):
                posts += 1
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    await stage.serving(handler)
    client = await stage.connect()
    await client.get().answer()
    client.get(method="POST", extra="Content-Length: 1\r\n").send("a")
    assert (await client.answer()).status == 502
    assert posts == 1


async def test_a_client_that_disconnects_frees_its_slot(stage: Stage) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        request = await read_request(reader)
        if "slow" in request.line:
            await reader.read()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    app = await stage.serving(handler, RequestPolicy(concurrency=1))
    slow = (await stage.connect()).get("/slow")
    await eventually(lambda: app.open == 1)
    waiting = (await stage.connect()).get()
    await eventually(lambda: stage.gateway.revision("default/app-00001").breaker.queue)
    slow.close()
    assert (await waiting.answer()).text == "ok"


async def test_events_arrive_as_they_are_sent(stage: Stage) -> None:
    proceed = asyncio.Event()

    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await proceed.wait()
        writer.write(b"data: 2\n\n")

    await stage.serving(handler)
    client = await stage.connect()
    await client.get().head()
    assert await client.reader.readuntil(b"1\n\n\r\n")
    proceed.set()
    assert await client.reader.readuntil(b"2\n\n\r\n")


async def test_what_the_activator_answers_itself_has_a_date(stage: Stage) -> None:
    answer = await stage.get(host="unknown.example.org")
    assert answer.status == 404
    assert abs(parsedate_to_datetime(answer.fields["date"]).timestamp() - time.time()) < 60
