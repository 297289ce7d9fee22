"""HTTP/2 on both sides, with gRPC's own implementation and httpx as peers."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any, TypeAlias

import grpc
import grpc.aio
import httpx
import pytest

from activator.frontend.http2_server import Http2Connection
from activator.wire.forwarding import Proxies
from activator.wire.http2_frames import DATA, PREFACE, SETTINGS
from knoll.messages.endpoints import Endpoint
from knoll.messages.routing import RequestPolicy
from tests.component.activator.conftest import OVER_CODECS
from tests.component.activator.h2_wire import END_HEADERS, END_STREAM, GET, POST, Wire, frame
from tests.component.activator.stage import HOST, REVISION, Stage, read_request
from tests.waiting import eventually

pytestmark = OVER_CODECS
HEADERS, RST_STREAM, GOAWAY = 1, 3, 7

Context: TypeAlias = grpc.aio.ServicerContext


class Shouts(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no annotations
    """Answers in upper case, in all four ways."""

    def __init__(self) -> None:
        self.started, self.cancelled = asyncio.Event(), asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return {
            "/test/One": grpc.unary_unary_rpc_method_handler(self.reply_once),
            "/test/Down": grpc.unary_stream_rpc_method_handler(self.down),
            "/test/Up": grpc.stream_unary_rpc_method_handler(self.up),
            "/test/Both": grpc.stream_stream_rpc_method_handler(self.both),
            "/test/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "/test/Hang": grpc.unary_unary_rpc_method_handler(self.hang),
        }.get(details.method)

    async def reply_once(self, request: bytes, context: Context) -> bytes:
        context.set_trailing_metadata((("x-end", "done"),))
        return request.upper()

    async def down(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        for n in range(int(request)):
            yield b"%d" % n

    async def up(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        return b"".join([each async for each in requests])

    async def both(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async for each in requests:
            yield each.upper()

    async def fail(self, request: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")
        raise AssertionError

    async def hang(self, request: bytes, context: Context) -> bytes:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError


@pytest.fixture
async def shouts(stage: Stage) -> AsyncIterator[Shouts]:
    handler = Shouts()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stage.route(RequestPolicy(h2c=True))
    stage.endpoints(Endpoint("grpc", "127.0.0.1", port))
    yield handler
    await server.stop(0)


@pytest.fixture
async def channel(stage: Stage) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.default_authority", HOST), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stage.port}", options=options) as channel:
        yield channel


async def test_a_unary_call_passes_with_its_trailers(shouts: Shouts, channel: grpc.aio.Channel) -> None:
    call = channel.unary_unary("/test/One")(b"hello")
    assert await call == b"HELLO"
    assert ("x-end", "done") in list(await call.trailing_metadata())


async def test_many_calls_at_once_each_get_their_own_answer(shouts: Shouts, channel: grpc.aio.Channel) -> None:
    call = channel.unary_unary("/test/One")
    messages = [b"w%d" % n for n in range(500)]
    assert await asyncio.gather(*(call(word) for word in messages)) == [word.upper() for word in messages]


async def test_a_server_streams(shouts: Shouts, channel: grpc.aio.Channel) -> None:
    assert [int(each) async for each in channel.unary_stream("/test/Down")(b"1000")] == list(range(1000))


async def test_a_client_streams_more_than_any_window(shouts: Shouts, channel: grpc.aio.Channel) -> None:
    parts = [bytes([n]) * 100_000 for n in range(30)]

    async def requests() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    assert await channel.stream_unary("/test/Up")(requests()) == b"".join(parts)


async def test_both_sides_stream_in_turns(shouts: Shouts, channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream("/test/Both")()
    for word in (b"one", b"two", b"three"):
        await call.write(word)
        assert await call.read() == word.upper()
    await call.done_writing()
    assert await call.code() == grpc.StatusCode.OK


async def test_an_error_status_is_passed_on(shouts: Shouts, channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await channel.unary_unary("/test/Fail")(b"")
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not today")


async def test_a_cancelled_call_is_cancelled_at_the_instance(
    stage: Stage, shouts: Shouts, channel: grpc.aio.Channel
) -> None:
    call = channel.unary_unary("/test/Hang")(b"")
    await eventually(lambda: stage.gateway.revision(REVISION).in_flight() == 1)
    async with asyncio.timeout(30):
        await shouts.started.wait()
        call.cancel()
        await shouts.cancelled.wait()
    await eventually(lambda: not stage.gateway.requests)


async def test_a_call_waits_for_an_instance(stage: Stage, channel: grpc.aio.Channel, shouts: Shouts) -> None:
    endpoint = stage.gateway.revision(REVISION).endpoints["grpc"]
    stage.endpoints()
    call = channel.unary_unary("/test/One")(b"late")
    await eventually(lambda: len(stage.gateway.revision(REVISION).breaker.queue) == 1)
    stage.endpoints(Endpoint("again", endpoint.host, endpoint.port))
    assert await call == b"LATE"


async def test_http_1_is_translated_for_an_h2c_instance(stage: Stage, shouts: Shouts) -> None:
    async with httpx.AsyncClient() as client:
        body = b"\0\0\0\0\x02hi"
        answer = await client.post(
            f"http://127.0.0.1:{stage.port}/test/One",
            headers={"Host": HOST, "Content-Type": "application/grpc", "TE": "trailers"},
            content=body,
        )
    assert answer.content == b"\0\0\0\0\x02HI"
    assert answer.headers["transfer-encoding"] == "chunked"


async def test_http_2_is_translated_for_an_http_1_instance(stage: Stage) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            assert request.fields["host"] == HOST
            head = b"HTTP/1.1 200 OK\r\nX-Line: %b\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % (request.line.encode(), len(request.body)) + request.body)

    await stage.serving(echo)
    async with httpx.AsyncClient(http1=False, http2=True) as client:
        url = f"http://127.0.0.1:{stage.port}/path?q=1"
        body = b"x" * 1_000_000
        answers = await asyncio.gather(
            client.get(url, headers={"Host": HOST}), client.post(url, headers={"Host": HOST}, content=body)
        )
    assert [answer.http_version for answer in answers] == ["HTTP/2", "HTTP/2"]
    assert [answer.headers["x-line"] for answer in answers] == ["GET /path?q=1 HTTP/1.1", "POST /path?q=1 HTTP/1.1"]
    assert answers[1].content == body


async def test_head_and_unknown_hosts_by_http_2(stage: Stage) -> None:
    await stage.serving()
    async with httpx.AsyncClient(http1=False, http2=True) as client:
        url = f"http://127.0.0.1:{stage.port}/"
        head = await client.head(url, headers={"Host": HOST})
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "5", b"")
        assert (await client.get(url, headers={"Host": "unknown"})).status_code == 404


async def test_an_instance_that_breaks_is_a_502_by_http_2(stage: Stage) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    await stage.serving(handler)
    async with httpx.AsyncClient(http1=False, http2=True) as client:
        answer = await client.get(f"http://127.0.0.1:{stage.port}/", headers={"Host": HOST})
    assert answer.status_code == 502


async def test_a_flood_of_resets_ends_the_connection(stage: Stage) -> None:
    import h2.config
    import h2.connection
    import h2.errors
    import h2.events

    await stage.serving()
    client = await stage.connect()
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.initiate_connection()
    for number in range(1, 4001, 2):
        peer.send_headers(number, [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", HOST)])
        peer.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
    client.send(peer.data_to_send())
    events = peer.receive_data(await client.closed())
    ends = [event for event in events if isinstance(event, h2.events.ConnectionTerminated)]
    assert [end.error_code for end in ends] == [h2.errors.ErrorCodes.ENHANCE_YOUR_CALM]
    await eventually(lambda: not stage.gateway.requests)


async def test_a_stream_cancelled_right_after_a_goaway_disturbs_no_other_stream(stage: Stage) -> None:
    import h2.config
    import h2.connection
    import h2.errors

    hold = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await hold.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    await stage.serving(handler)
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/")]
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.initiate_connection()
    peer.send_headers(1, fields, end_stream=True)
    client = await stage.connect()
    client.send(peer.data_to_send())
    await eventually(lambda: stage.gateway.requests)
    (session,) = (connection for connection in stage.gateway.connections if isinstance(connection, Http2Connection))
    session._retiring = stage.gateway.time() - 60  # it has been busy all this time
    session.retire()
    peer.send_headers(3, fields, end_stream=True)
    peer.reset_stream(3, h2.errors.ErrorCodes.CANCEL)
    peer.send_headers(5, fields, end_stream=True)
    client.send(peer.data_to_send())
    hold.set()
    # Read frame by frame: the library takes a GOAWAY for the end of everything.
    ended, refused, said_goodbye = False, 0, False
    while not ended or not refused:
        head = await client.reader.readexactly(9)
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        payload = await client.reader.readexactly(int.from_bytes(head[:3], "big"))
        said_goodbye = said_goodbye or kind == GOAWAY
        if kind == RST_STREAM and stream == 5:
            refused = int.from_bytes(payload, "big")
        ended = ended or (kind in (DATA, HEADERS) and stream == 1 and bool(flags & END_STREAM))
    assert said_goodbye
    assert refused == h2.errors.ErrorCodes.REFUSED_STREAM


async def test_heads_that_repeat_are_told_apart_from_those_that_almost_do(stage: Stage) -> None:
    app = await stage.serving()
    wire = Wire(await stage.connect())
    accepting = [*GET, ("accept", "a")]
    heads = [GET, GET, accepting, [*GET, ("accept", "b")], GET, POST, accepting]
    numbers = range(1, 2 * len(heads), 2)
    for number, head in zip(numbers, heads, strict=True):
        await wire.send(wire.open(number, head)).until(number)
    wire.send(wire.open(99, POST, done=False), frame(DATA, b"body", 99, END_STREAM), wire.open(101, POST))
    seen = await wire.until(99, 101)
    assert {seen.heads[number][":status"] for number in (*numbers, 99, 101)} == {"200"}
    assert [request.fields.get("accept", "") for request in app.requests][:7] == ["", "", "a", "b", "", "", "a"]
    assert sorted((request.line[:4], request.body) for request in app.requests[7:]) == [
        ("POST", b""),
        ("POST", b"body"),
    ]


async def test_a_head_that_repeats_gets_forwarding_fields_of_the_rules_of_its_time(stage: Stage) -> None:
    app = await stage.serving()
    wire = Wire(await stage.connect())
    forwarded = [*GET, ("x-forwarded-for", "192.0.2.1")]
    await wire.send(wire.open(1, forwarded)).until(1)
    await wire.send(wire.open(3, forwarded)).until(3)
    stage.gateway.set_client_rules(Proxies([ip_network("127.0.0.0/8")]), "drop")
    await wire.send(wire.open(5, forwarded)).until(5)
    trusted = [request.fields["x-forwarded-for"] for request in app.requests]
    assert trusted == ["127.0.0.1", "127.0.0.1", "192.0.2.1, 127.0.0.1"]


@pytest.mark.parametrize("allowed", [0, 1, 3])
async def test_an_instance_gets_no_more_streams_than_it_allows(stage: Stage, allowed: int) -> None:
    most, hold = 0, asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        await reader.readexactly(len(PREFACE))
        writer.write(frame(SETTINGS, b"\0\3" + allowed.to_bytes(4, "big")))
        waiting: list[int] = []
        while True:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3]))
            if head[3] == HEADERS:
                waiting.append(int.from_bytes(head[5:]))
                most = max(most, len(waiting))
                await hold.wait()
                for stream in waiting:
                    writer.write(frame(HEADERS, b"\x88", stream, END_HEADERS | END_STREAM))
                waiting.clear()

    await stage.serving(handler, RequestPolicy(h2c=True))
    first = (await stage.connect()).get()  # sent before the instance has announced its limit
    await eventually(lambda: most == 1)
    more = [(await stage.connect()).get() for _ in range(6 * bool(allowed))]
    await eventually(lambda: len(stage.gateway.requests) == 1 + len(more))
    hold.set()
    assert [(await client.answer()).status for client in (first, *more)] == [200] * (1 + len(more))
    assert most <= max(allowed, 1)
