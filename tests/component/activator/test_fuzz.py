"""Any input in any order: no exception leaves a protocol's callback, and all counts return to zero."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from activator.wire import http2_codecs
from activator.wire.callback_guard import guarded
from activator.wire.http2_codec import CodecFactory
from activator.wire.http2_frames import PREFACE, Frame
from tests.component.activator.conftest import OVER_CODECS
from tests.component.activator.pipes import Pipe, Scene, turns
from tests.component.activator.stage import HOST

H = HOST.encode()
UPGRADE = b"GET / HTTP/1.1\r\nHost: " + H + b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: " + H + b"\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: " + H + b"\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: " + H + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: " + H + b"\r\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: " + H + b"\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: " + H + b"\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"hello", b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"\r\n", b"x" * 70_000, UPGRADE,
    b"GET / HTTP/1.1\r\nHost: " + H + b"\r\nX_Y: z\r\nProxy: a\r\n\r\n",
    b"\x81\x02hi", b"\x88\x00", b"\x81\xfe\xff\xff",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", PREFACE, PREFACE + Frame(4, 0, 0, b"").wire(),
]  # fmt: skip
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\n\n", SWITCHED, b"HTTP/1.1 101 Go\r\n\r\n",
    b"hello", b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"fffffffffffffff\r\n", b"x" * 70_000,
    b"\x81\x02hi", b"\x88\x02\x03\xe8", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 100 \r\n\r\n" * 200, b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000,
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: timeout=0\r\n\r\n", b"HTTP/1.1 99 x\r\n\r\n",
]  # fmt: skip

# Header blocks of HPACK's static table and literals, so that none depends on another.
BLOCKS = [
    b"\x82\x84\x86\x01" + bytes([len(H)]) + H, b"\x83\x84\x86\x01" + bytes([len(H)]) + H, b"\x82\x84\x86\x01\x01x",
    b"\x83\x84\x86\x01" + bytes([len(H)]) + H + b"\x0f\x0d\x015", b"\x88", b"\x88\x0f\x0d\x015", b"\x89", b"\x8e",
    b"\x08\x03100", b"\x08\x03101", b"\x08\x03103", b"\x08\x03999", b"\x00\x01x\x01y", b"\x00\x01X\x01y", b"", b"\x82",
    b"\x00\x0aconnection\x01y", b"\xff\xff\xff", b"\x40\x00\x00" * 300, b"\x02\x07CONNECT\x01\x03a:1",
]  # fmt: skip


Step = Callable[[Scene], None]


def to_client(data: bytes) -> Step:
    return lambda scene: scene.client.arrive(data)


def to_origin(data: bytes) -> Step:
    def step(scene: Scene) -> None:
        origin = scene.origin()
        if origin is not None:
            origin.arrive(data)

    return step


def junk(most: int) -> st.SearchStrategy[bytes]:
    """Frames of any kind, most of which end the connection."""
    return st.builds(
        lambda kind, stream, flags, data: Frame(kind, flags, stream, data).wire(),
        st.integers(0, 11), st.sampled_from([0, 1, 3, most]), st.integers(0, 0x2F),
        st.sampled_from([b"", bytes(4), bytes(5), bytes(6), bytes(8), b"\0\4\x7f\xff\xff\xff", b"\x02hi\0\0", *BLOCKS]),
    ) | st.binary(max_size=40)  # fmt: skip


OF_CONNECTION = st.sampled_from([
    Frame(4, 0, 0, b"").wire(), Frame(4, 0, 0, b"\0\4\0\0\0\0").wire(), Frame(4, 0, 0, b"\0\4\0\1\0\0").wire(),
    Frame(4, 0, 0, b"\0\1\0\0\0\0").wire(), Frame(4, 0, 0, b"\0\3\0\0\0\0").wire(), Frame(4, 1, 0, b"").wire(),
    Frame(6, 0, 0, bytes(8)).wire(), Frame(7, 0, 0, bytes(8)).wire(), Frame(7, 0, 0, b"\0\0\0\1" + bytes(4)).wire(),
    Frame(8, 0, 0, b"\0\1\0\0").wire(), Frame(0xBE, 0, 0, b"grease").wire(),
])  # fmt: skip
OF_STREAM = [
    (0, 0, b"hello"), (0, 0, b"hello"), (0, 1, b"hello"), (0, 1, b""), (0, 0, b""), (0, 8, b"\x02hello\0\0"),
    (0, 0, b"x" * 16_384), (0, 0, b"x" * 16_384), (1, 5, b"\x00\x01x\x01y"), (1, 5, b"\x00\x01X\x01y"),
    (1, 5, b""), (1, 4, b"\x00\x01x\x01y"),
    (3, 0, b"\0\0\0\x08"), (3, 0, b"\0\0\0\x07"), (8, 0, b"\0\1\0\0"), (8, 0, bytes(4)), (8, 0, b"\x7f\xff\xff\xff"),
    (2, 0, bytes(5)), (2, 0, bytes(4)),
]  # fmt: skip
REQUEST_HEADS = [*BLOCKS[:4], *BLOCKS[:2], *BLOCKS]
ANSWER_HEADS = [*BLOCKS[4:12], *BLOCKS[4:6], *BLOCKS[4:6], *BLOCKS]


def http2_client() -> st.SearchStrategy[Step]:
    """Frames of a client that mostly keeps to the rules, so that much of what is behind them is reached."""

    def opens(block: bytes, flags: int) -> Step:
        def step(scene: Scene) -> None:
            scene.opened += 2
            scene.client.arrive(Frame(1, flags, scene.opened - 1, block).wire())

        return step

    def goes_on(number: int, kind: int, flags: int, payload: bytes) -> Step:
        def step(scene: Scene) -> None:
            stream = max(1, scene.opened - 1 - 2 * number)
            scene.client.arrive(Frame(kind, flags, stream, payload).wire())

        return step

    opening = st.builds(opens, st.sampled_from(REQUEST_HEADS), st.sampled_from([4, 5]))
    going_on = st.builds(lambda number, parts: goes_on(number, *parts), st.integers(0, 2), st.sampled_from(OF_STREAM))
    return mostly(opening, going_on, OF_CONNECTION.map(to_client), junk(99).map(to_client))


def http2_origin() -> st.SearchStrategy[Step]:
    """Frames of an instance that mostly keeps to the rules."""
    streams = st.sampled_from([1, 1, 1, 3, 3, 5])
    heads = st.builds(
        lambda block, stream, flags: Frame(1, flags, stream, block).wire(),
        st.sampled_from(ANSWER_HEADS), streams, st.sampled_from([4, 4, 5]),
    )  # fmt: skip
    going_on = st.builds(
        lambda stream, parts: Frame(parts[0], parts[1], stream, parts[2]).wire(), streams, st.sampled_from(OF_STREAM)
    )
    return mostly(heads.map(to_origin), going_on.map(to_origin), OF_CONNECTION.map(to_origin), junk(2).map(to_origin))


def mostly(
    heads: st.SearchStrategy[Step],
    going_on: st.SearchStrategy[Step],
    around: st.SearchStrategy[Step],
    junk_: st.SearchStrategy[Step],
) -> st.SearchStrategy[Step]:
    return st.integers(0, 19).flatmap(
        lambda turn: heads if turn < 7 else going_on if turn < 15 else around if turn < 19 else junk_
    )


def of_pipes(act: Callable[[Pipe], None]) -> list[Step]:
    def of_origin(scene: Scene) -> None:
        origin = scene.origin()
        if origin is not None:
            act(origin)

    return [lambda scene: None if scene.client.lost else act(scene.client), of_origin]


def retire_connections(scene: Scene) -> None:
    for connection in list(scene.gateway.connections):
        connection.retire()


def refuse(scene: Scene) -> None:
    scene.instance.refuses = not scene.instance.refuses


AROUND: list[Step] = [
    *of_pipes(lambda pipe: pipe.protocol.pause_writing()),
    *of_pipes(lambda pipe: pipe.protocol.resume_writing()),
    *of_pipes(lambda pipe: pipe.end()),
    *of_pipes(lambda pipe: pipe.end(ConnectionResetError("reset"))),
    *of_pipes(lambda pipe: None if pipe.protocol.eof_received() else pipe.close()),
    *of_pipes(lambda pipe: setattr(pipe, "unsent", 1000 - pipe.unsent)),
    lambda scene: scene.sweep(0.0),
    lambda scene: scene.sweep(100.0),
    lambda scene: scene.sweep(1000.0),
    lambda scene: scene.endpoints(),
    lambda scene: scene.endpoints("app-1"),
    retire_connections,
    lambda scene: scene.gateway.change_route("default/app", None),
    refuse,
]


def steps(client: st.SearchStrategy[Step], origin: st.SearchStrategy[Step]) -> st.SearchStrategy[list[list[Step]]]:
    """Batches of steps; between two of them the loop has its turns."""
    around = st.sampled_from(AROUND)
    step = st.integers(0, 19).flatmap(lambda turn: client if turn < 9 else origin if turn < 17 else around)
    return st.lists(st.lists(step, min_size=1, max_size=4), min_size=1, max_size=15)


http1_client = st.one_of(st.sampled_from(REQUESTS), st.sampled_from(REQUESTS), st.binary(max_size=30)).map(to_client)
http1_origin = st.one_of(st.sampled_from(ANSWERS), st.sampled_from(ANSWERS), st.binary(max_size=30)).map(to_origin)
START = PREFACE + Frame(4, 0, 0, b"").wire()
ANSWER1 = Frame(4, 0, 0, b"").wire()


def play(
    batches: list[list[Step]], first: list[Step], codec: CodecFactory = http2_codecs.default, *, h2c: bool = False
) -> None:
    """Run the steps; fail on any exception, on any bug that was contained, and on what is still counted in."""

    async def run() -> None:
        scene = Scene(codec, h2c=h2c, concurrency=1)
        for step in first:
            step(scene)
            await turns(3)
        for batch in batches:
            for step in batch:
                step(scene)
            await turns(3)
        await scene.end()

    with capture_logs() as events, asyncio.Runner() as runner:
        problems: list[object] = []
        runner.get_loop().set_exception_handler(lambda _, context: problems.append(context))
        runner.run(run())
    assert not problems
    assert not [event for event in events if event["log_level"] == "error"]


fuzzed = settings(
    max_examples=300, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],  # `codec` holds no state
)  # fmt: skip


@fuzzed
@given(steps(http1_client, http1_origin))
def test_http_1(batches: list[list[Step]]) -> None:
    play(batches, [])


@fuzzed
@given(steps(http1_client, http1_origin))
def test_websocket(batches: list[list[Step]]) -> None:
    play(batches, [to_client(UPGRADE), to_origin(SWITCHED + b"\x81\x02hi")])


@OVER_CODECS
@fuzzed
@given(batches=steps(http2_client(), http1_origin))
def test_http_2_of_clients(codec: CodecFactory, batches: list[list[Step]]) -> None:
    play(batches, [to_client(START)], codec)


@OVER_CODECS
@fuzzed
@given(batches=steps(http1_client, http2_origin()))
def test_http_2_of_instances(codec: CodecFactory, batches: list[list[Step]]) -> None:
    play(batches, [to_client(REQUESTS[0]), to_origin(ANSWER1)], codec, h2c=True)


@OVER_CODECS
@fuzzed
@given(batches=steps(http2_client(), http2_origin()))
def test_http_2_on_both_sides(codec: CodecFactory, batches: list[list[Step]]) -> None:
    play(batches, [to_client(START), to_origin(ANSWER1)], codec, h2c=True)


class Broken:
    """A protocol with a bug."""

    def __init__(self, *, twice: bool) -> None:
        self.faults = 0
        self._twice = twice

    @guarded
    def callback(self) -> None:
        raise KeyError("bug")

    def abort_on_error(self) -> None:
        self.faults += 1
        if self._twice:
            raise KeyError("another")


@pytest.mark.parametrize("twice", [False, True])
def test_a_bug_ends_its_connection_and_is_logged(twice: bool) -> None:
    protocol = Broken(twice=twice)
    with capture_logs() as events:
        protocol.callback()
    assert (protocol.faults, [event["log_level"] for event in events]) == (1, ["error"] * (1 + twice))
