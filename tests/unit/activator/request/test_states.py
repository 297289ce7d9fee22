"""The transition table of a request, and an exchange that is driven through each of its rows."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from activator.frontend.http1_server import Http1Connection
from activator.request.states import TRANSITIONS, Event, State
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
    (State.QUEUED, Event.DEADLINE_PASSED): 503,
    (State.QUEUED, Event.REVISION_DELETED): 404,
    (State.QUEUED, Event.BODY_INVALID): 400,
    (State.QUEUED, Event.INTERNAL_ERROR): 500,
    (State.SENT, Event.CONNECTION_REFUSED_TOO_LONG): 502,
    (State.SENT, Event.RESPONSE_COMPLETE): 200,
    (State.SENT, Event.UPSTREAM_LOST): 502,
    (State.SENT, Event.DEADLINE_PASSED): 504,
    (State.SENT, Event.BODY_INVALID): 400,
    (State.SENT, Event.INTERNAL_ERROR): 500,
    (State.IDLE, Event.LOCAL_RESPONSE): 404,
}
"""What the client gets for rows that end with a response before any other was started."""


class RecordedClient(Http1Connection):
    """A client's connection that keeps each change of state."""

    changes: list[tuple[State, State]]

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
    assert run.client.state is State.IDLE


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
PREPARE: dict[State, Prepare] = {
    State.IDLE: _idle,
    State.QUEUED: _queued,
    State.SENT: _sent,
    State.STREAMING: _streaming,
    State.TUNNEL: _tunnel,
}
PREPARE_FOR_EVENT: dict[Event, Prepare] = {
    Event.SWITCHED_PROTOCOLS: _sent_upgrade,
    Event.UPSTREAM_LOST_RESENT: _sent_over_a_kept_connection,
    Event.CONNECTION_REFUSED: _connecting,
    Event.CONNECTION_REFUSED_TOO_LONG: _connecting,
}


CAUSES: dict[Event, Callable[[Run], None]] = {
    Event.LOCAL_RESPONSE: lambda run: run.send(b"GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n"),
    Event.RESPONSE_STARTED: lambda run: run.respond(STARTED),
    Event.RESPONSE_COMPLETE: lambda run: run.respond(RESPONSE if run.client.state is State.SENT else b"0\r\n\r\n"),
    Event.SWITCHED_PROTOCOLS: lambda run: run.respond(SWITCHED),
    Event.UPSTREAM_LOST: lambda run: run.upstream.end(),
    Event.UPSTREAM_LOST_RESENT: lambda run: run.upstream.end(),
    Event.DEADLINE_PASSED: lambda run: run.check(LATER),
    Event.DEADLINE_EXTENDED: lambda run: run.check(0),
    Event.REVISION_DELETED: lambda run: run.scene.gateway.change_route("default/app", None),
    Event.BODY_INVALID: lambda run: run.send(b"no size\r\n"),
    Event.CLIENT_GONE: lambda run: run.scene.client.end(),
    Event.INTERNAL_ERROR: lambda run: run.client.internal_error(RuntimeError("a bug")),
}


async def cause(event: Event, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an event happen, as connections and tables cause it."""
    match event:
        case Event.SLOT_TAKEN if run.client.state is State.QUEUED:
            run.scene.endpoints("app-1")
        case Event.SLOT_TAKEN:
            run.send(GET)
        case Event.ALL_SLOTS_TAKEN:
            run.scene.endpoints()
            run.send(GET)
        case Event.CONNECTION_REFUSED:
            await turns(3)
        case Event.CONNECTION_REFUSED_TOO_LONG:
            monkeypatch.setattr("activator.request.exchange.RETRY_CONNECT_SECONDS", -1.0)
            await turns(3)
        case _:
            CAUSES[event](run)


@pytest.mark.parametrize(
    ("state", "event"), TRANSITIONS, ids=[f"{state.value}: {event.value}" for state, event in TRANSITIONS]
)
async def test_an_exchange_follows_the_table(
    state: State, event: Event, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await PREPARE_FOR_EVENT.get(event, PREPARE[state])(run)
    assert run.client.state is state
    run.scene.client.written.clear()
    with capture_logs():
        await cause(event, run, monkeypatch)
    assert run.client.state is TRANSITIONS[state, event]
    if (state, event) in STATUSES:
        assert run.scene.client.written.startswith(b"HTTP/1.1 %d " % STATUSES[state, event])
    if TRANSITIONS[state, event] is not State.QUEUED:
        assert not run.scene.gateway.revision("default/app-00001").breaker.queue
    if TRANSITIONS[state, event] is State.IDLE:
        assert (run.scene.instance.in_flight, run.scene.instance.tunnels) == (0, 0)
    steps = {(before, after) for (before, _), after in TRANSITIONS.items()}
    assert steps.issuperset(run.client.changes)


def test_each_event_is_in_the_table() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_each_state_is_reached_from_idle_and_ends_there() -> None:
    steps = {(before, after) for (before, _), after in TRANSITIONS.items()}
    assert _reachable(State.IDLE, steps) == set(State)
    assert all(State.IDLE in _reachable(state, steps) for state in State)


def test_a_client_that_leaves_and_a_bug_end_a_request_in_every_state() -> None:
    for event in (Event.CLIENT_GONE, Event.INTERNAL_ERROR):
        assert {state for state in State if TRANSITIONS[state, event] is State.IDLE} == set(State)


def _reachable(start: State, steps: set[tuple[State, State]]) -> set[State]:
    reached, frontier = {start}, [start]
    while frontier:
        state = frontier.pop()
        following = {after for before, after in steps if before is state} - reached
        reached |= following
        frontier.extend(following)
    return reached
