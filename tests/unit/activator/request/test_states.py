"""The transition table of a request, and an exchange that is driven through each of its rows."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from activator.frontend.http1_server import Http1Connection
from activator.request.states import TRANSITIONS, RequestEvent, RequestState
from tests.component.activator.pipes import Pipe, Scene, turns
from tests.component.activator.stage import HOST

POST = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
GET = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
UPGRADE = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode()
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
STARTED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
LATER = 400.0
"""Seconds after which every deadline of a scene has passed."""
STATUSES = {
    (RequestState.QUEUED, RequestEvent.DEADLINE_PASSED): 503,
    (RequestState.QUEUED, RequestEvent.REVISION_DELETED): 404,
    (RequestState.QUEUED, RequestEvent.BODY_INVALID): 400,
    (RequestState.QUEUED, RequestEvent.INTERNAL_ERROR): 500,
    (RequestState.SENT, RequestEvent.CONNECTION_REFUSED_TOO_LONG): 502,
    (RequestState.SENT, RequestEvent.RESPONSE_COMPLETE): 200,
    (RequestState.SENT, RequestEvent.UPSTREAM_LOST): 502,
    (RequestState.SENT, RequestEvent.DEADLINE_PASSED): 504,
    (RequestState.SENT, RequestEvent.BODY_INVALID): 400,
    (RequestState.SENT, RequestEvent.INTERNAL_ERROR): 500,
    (RequestState.IDLE, RequestEvent.LOCAL_RESPONSE): 404,
}
"""What the client gets for rows that end with a response before any other was started."""


class RecordedClient(Http1Connection):
    """A client's connection that keeps each change of state."""

    changes: list[tuple[RequestState, RequestState]]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "state":
            self.__dict__.setdefault("changes", []).append((getattr(self, "state", value), value))
        super().__setattr__(name, value)


class Run:
    """A scene with one recorded client."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.scene.client.end()
        self.client = RecordedClient(self.scene.gateway)
        self.scene.client = Pipe(self.client).start()

    def send(self, data: bytes) -> None:
        self.scene.client.arrive(data)

    def respond(self, data: bytes) -> None:
        self.upstream.arrive(data)

    @property
    def upstream(self) -> Pipe:
        pipe = self.scene.origin()
        assert pipe is not None
        return pipe

    def check(self, seconds: float) -> None:
        self.client.deadline = 0.0
        self.client.deadline_passed(self.scene.gateway.time() + seconds)


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    made = Run()
    yield made
    await made.scene.end()


async def _idle(run: Run) -> None:
    assert run.client.state is RequestState.IDLE


async def _queued(run: Run) -> None:
    run.scene.endpoints()
    run.send(POST)


async def _sent(run: Run) -> None:
    run.send(POST)
    await turns(3)


async def _streaming(run: Run) -> None:
    await _sent(run)
    run.respond(STARTED)


async def _tunnel(run: Run) -> None:
    run.send(UPGRADE)
    await turns(3)
    run.respond(SWITCHED)


async def _sent_upgrade(run: Run) -> None:
    run.send(UPGRADE)
    await turns(3)


async def _sent_over_a_kept_connection(run: Run) -> None:
    run.send(GET)
    await turns(3)
    run.respond(RESPONSE)
    run.send(GET)


async def _connecting(run: Run) -> None:
    run.scene.instance.refuses = True
    run.send(POST)


Prepare = Callable[[Run], Awaitable[None]]
PREPARE: dict[RequestState, Prepare] = {
    RequestState.IDLE: _idle,
    RequestState.QUEUED: _queued,
    RequestState.SENT: _sent,
    RequestState.STREAMING: _streaming,
    RequestState.TUNNEL: _tunnel,
}
PREPARE_FOR_EVENT: dict[RequestEvent, Prepare] = {
    RequestEvent.SWITCHED_PROTOCOLS: _sent_upgrade,
    RequestEvent.UPSTREAM_LOST_RESENT: _sent_over_a_kept_connection,
    RequestEvent.CONNECTION_REFUSED: _connecting,
    RequestEvent.CONNECTION_REFUSED_TOO_LONG: _connecting,
}


def _busy(run: Run) -> None:
    """Its instance runs on another node, which has no free slot."""
    run.scene.instance.node = "n2"
    upstream, run.client.upstream = run.client.upstream, None
    assert upstream is not None
    upstream.cancel()
    run.client.not_taken(busy=True)


CAUSES: dict[RequestEvent, Callable[[Run], None]] = {
    RequestEvent.LOCAL_RESPONSE: lambda run: run.send(b"GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n"),
    RequestEvent.RESPONSE_STARTED: lambda run: run.respond(STARTED),
    RequestEvent.RESPONSE_COMPLETE: lambda run: run.respond(
        RESPONSE if run.client.state is RequestState.SENT else b"0\r\n\r\n"
    ),
    RequestEvent.SWITCHED_PROTOCOLS: lambda run: run.respond(SWITCHED),
    RequestEvent.UPSTREAM_LOST: lambda run: run.upstream.end(),
    RequestEvent.UPSTREAM_LOST_RESENT: lambda run: run.upstream.end(),
    RequestEvent.DEADLINE_PASSED: lambda run: run.check(LATER),
    RequestEvent.DEADLINE_EXTENDED: lambda run: run.check(0),
    RequestEvent.REVISION_DELETED: lambda run: run.scene.gateway.change_route("default/app", None),
    RequestEvent.BODY_INVALID: lambda run: run.send(b"no size\r\n"),
    RequestEvent.CLIENT_GONE: lambda run: run.scene.client.end(),
    RequestEvent.INSTANCE_BUSY: _busy,
    RequestEvent.INTERNAL_ERROR: lambda run: run.client.internal_error(RuntimeError("a bug")),
}


async def cause(event: RequestEvent, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an event happen, as connections and tables cause it."""
    match event:
        case RequestEvent.SLOT_TAKEN if run.client.state is RequestState.QUEUED:
            run.scene.endpoints("app-1")
        case RequestEvent.SLOT_TAKEN:
            run.send(GET)
        case RequestEvent.ALL_SLOTS_TAKEN:
            run.scene.endpoints()
            run.send(GET)
        case RequestEvent.CONNECTION_REFUSED:
            await turns(3)
        case RequestEvent.CONNECTION_REFUSED_TOO_LONG:
            monkeypatch.setattr("activator.request.exchange.RETRY_CONNECT_SECONDS", -1.0)
            await turns(3)
        case _:
            CAUSES[event](run)


@pytest.mark.parametrize(
    ("state", "event"), TRANSITIONS, ids=[f"{state.value}: {event.value}" for state, event in TRANSITIONS]
)
async def test_an_exchange_follows_the_table(
    state: RequestState, event: RequestEvent, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await PREPARE_FOR_EVENT.get(event, PREPARE[state])(run)
    assert run.client.state is state
    run.scene.client.written.clear()
    with capture_logs():
        await cause(event, run, monkeypatch)
    assert run.client.state is TRANSITIONS[state, event]
    if (state, event) in STATUSES:
        assert run.scene.client.written.startswith(b"HTTP/1.1 %d " % STATUSES[state, event])
    if TRANSITIONS[state, event] is not RequestState.QUEUED:
        assert not run.scene.gateway.revision("default/app-00001").breaker.queue
    if TRANSITIONS[state, event] is RequestState.IDLE:
        assert (run.scene.instance.in_flight, run.scene.instance.tunnels) == (0, 0)
    steps = {(before, after) for (before, _), after in TRANSITIONS.items()}
    assert steps.issuperset(run.client.changes)


def test_each_event_is_in_the_table() -> None:
    assert {event for _, event in TRANSITIONS} == set(RequestEvent)


def test_each_state_is_reached_from_idle_and_ends_there() -> None:
    steps = {(before, after) for (before, _), after in TRANSITIONS.items()}
    assert _reachable(RequestState.IDLE, steps) == set(RequestState)
    assert all(RequestState.IDLE in _reachable(state, steps) for state in RequestState)


def test_a_client_that_leaves_and_a_bug_end_a_request_in_every_state() -> None:
    for event in (RequestEvent.CLIENT_GONE, RequestEvent.INTERNAL_ERROR):
        assert {state for state in RequestState if TRANSITIONS[state, event] is RequestState.IDLE} == set(RequestState)


def _reachable(start: RequestState, steps: set[tuple[RequestState, RequestState]]) -> set[RequestState]:
    reached, frontier = {start}, [start]
    while frontier:
        state = frontier.pop()
        following = {after for before, after in steps if before is state} - reached
        reached |= following
        frontier.extend(following)
    return reached
