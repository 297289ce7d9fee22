"""Requests that must not pass by the rules of HTTP/2: RFC 9113 §8.1.1, §8.2, §8.3; and drains."""

import asyncio

import h2.config
import h2.connection
import h2.events
import pytest

from knoll.messages.routing import RequestPolicy
from tests.component.activator.conftest import OVER_CODECS
from tests.component.activator.stage import HOST, Connection, Stage, read_request
from tests.waiting import eventually

pytestmark = OVER_CODECS
GET = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", HOST)]


class Peer:
    """A client that checks nothing of what it sends."""

    def __init__(self, client: Connection) -> None:
        self.client = client
        config = h2.config.H2Configuration(
            client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()

    def request(self, fields: list[tuple[str, str]], body: bytes | None = None, stream: int = 1) -> None:
        self.connection.send_headers(stream, fields, end_stream=body is None)
        if body is not None:
            self.connection.send_data(stream, body, end_stream=True)
        self.client.send(self.connection.data_to_send())

    async def outcome(self) -> str:
        """The status of the answer, or how it was refused."""
        async with asyncio.timeout(30):
            while True:
                data = await self.client.reader.read(65536)
                if not data:
                    return "closed"
                for event in self.connection.receive_data(data):
                    if isinstance(event, h2.events.ResponseReceived):
                        return str(dict(event.headers or [])[b":status"].decode())
                    if isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                        return "refused"
                self.client.send(self.connection.data_to_send())


REFUSED = {
    "no path": [f for f in GET if f[0] != ":path"],
    "empty path": [(":path", "") if f[0] == ":path" else f for f in GET],
    "no method": [f for f in GET if f[0] != ":method"],
    "two paths": [*GET, (":path", "/other")],
    "pseudo field last": [("accept", "x"), *GET],
    "unknown pseudo field": [*GET, (":what", "x")],
    "connection": [*GET, ("connection", "close")],
    "transfer-encoding": [*GET, ("transfer-encoding", "chunked")],
    "te that is not trailers": [*GET, ("te", "gzip")],
    "capitals": [*GET, ("Accept", "x")],
    "line feed in a value": [*GET, ("a", "b\nc: d")],
    "CRLF in a value": [*GET, ("a", "b\r\nc: d")],
    "NUL in a value": [*GET, ("a", "b\0")],
    "blank in a name": [*GET, ("a b", "c")],
    "colon in a name": [*GET, ("a:b", "c")],
    "blank in the path": [(":path", "/a b") if f[0] == ":path" else f for f in GET],
    "CRLF in the path": [(":path", "/ HTTP/1.1\r\nX: y") if f[0] == ":path" else f for f in GET],
    "CRLF in the method": [(":method", "GET / HTTP/1.1\r\nX: y\r\n\r\nGET") if f[0] == ":method" else f for f in GET],
    "Host that differs": [*GET, ("host", "other")],
    "two lengths": [*GET, ("content-length", "1"), ("content-length", "2")],
    "too many fields": [*GET, *((f"x-{n}", "y" * 1000) for n in range(100))],
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_http_2_forbids_does_not_reach_the_instance(stage: Stage, name: str) -> None:
    app = await stage.serving()
    peer = Peer(await stage.connect())
    peer.request(REFUSED[name])
    assert await peer.outcome() in ("400", "431", "refused", "closed")
    assert app.requests == []


@pytest.mark.parametrize("length", ["1", "5"])
async def test_a_body_of_a_wrong_length_is_refused(stage: Stage, length: str) -> None:
    whole = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole.append(await read_request(reader))

    await stage.serving(handler)
    peer = Peer(await stage.connect())
    peer.request([(n, "POST" if n == ":method" else v) for n, v in GET] + [("content-length", length)], b"abc")
    assert await peer.outcome() in ("400", "refused", "closed")
    assert whole == []


async def test_bytes_that_are_no_frames_end_the_connection(stage: Stage) -> None:
    client = await stage.connect()
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 20_000)
    await client.closed()
    await eventually(lambda: not stage.gateway.connections)


@pytest.mark.parametrize("busy", [False, True], ids=["with a pause", "without a pause"])
async def test_streams_end_before_a_drained_connection_does(
    stage: Stage, busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if busy:
        monkeypatch.setattr("activator.frontend.http2_server.GOAWAY_SECONDS", 0.0)
    proceed, inside = asyncio.Event(), asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        inside.set()
        await proceed.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    await stage.serving(handler, RequestPolicy())
    peer = Peer(await stage.connect())
    peer.request(GET)
    await inside.wait()
    draining = asyncio.create_task(stage.gateway.drain(10))
    session = next(iter(stage.gateway.connections))
    await eventually(lambda: session._retired if busy else session._retiring)  # type: ignore[attr-defined]
    proceed.set()
    rest = await peer.client.closed()
    # GOAWAY is frame type 7, DATA type 0; the answer's body must be there in either case.
    assert b"\x00\x00\x02\x00\x01\x00\x00\x00\x01ok" in rest
    assert b"\x00\x00\x08\x07\x00" in rest
    assert await draining
