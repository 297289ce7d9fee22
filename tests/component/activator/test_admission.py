"""Waiting, limits, time-outs and instances that come and go, on real sockets."""

import asyncio
import time
from functools import partial
from typing import TypeAlias

import msgspec
import pytest

from activator.request.exchange import Exchange
from activator.wire.websocket import GOING_AWAY
from knoll.messages.endpoints import Endpoint, StartTiming
from knoll.messages.reports import Poke
from knoll.messages.routing import RequestPolicy, RouteEntry, Share
from tests.component.activator.h2_wire import Wire
from tests.component.activator.stage import HOST, REVISION, App, Handler, Stage, read_request
from tests.conftest import free_port
from tests.waiting import eventually

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Gate:
    """An app that holds its requests until it is told, and counts how many it has at once."""

    def __init__(self) -> None:
        self.inside = self.most = self.total = 0
        self.open = asyncio.Event()

    async def handler(self, reader: Reader, writer: Writer) -> None:
        while True:
            await read_request(reader)
            self.inside += 1
            self.total += 1
            self.most = max(self.most, self.inside)
            await self.open.wait()
            await asyncio.sleep(0)
            self.inside -= 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def waiting(stage: Stage) -> int:
    return len(stage.gateway.revision(REVISION).breaker.queue)


async def test_a_request_waits_for_the_first_instance_and_pokes_its_revision(stage: Stage) -> None:
    stage.route()
    pokes: list[Poke] = []
    stage.gateway.send_poke = pokes.append
    client = (await stage.connect()).get()
    await eventually(lambda: waiting(stage) == 1)
    assert [(poke.revision, poke.waiting) for poke in pokes] == [(REVISION, 1)]
    app, now = await stage.app(), time.time()
    stage.endpoints(app.endpoint(timing=StartTiming(now - 0.004, now - 0.003, now - 0.002, now - 0.001)))
    answer = await client.answer()
    names = [part.split(";")[0].strip() for part in answer.fields["server-timing"].split(",")]
    assert (answer.status, names) == (200, ["queue", "schedule", "start", "ready", "response"])
    assert "server-timing" not in (await stage.get()).fields, "only what waited for a start says so"


async def test_requests_that_wait_are_served_in_order_and_to_the_revision_drawn_first(stage: Stage) -> None:
    stage.route()
    clients = []

    def is_waiting(count: int) -> bool:
        return waiting(stage) == count

    for number in range(20):
        clients.append((await stage.connect()).get(f"/{number}"))
        await eventually(partial(is_waiting, number + 1))
    stage.route(hosts={HOST: (Share("default/other", 100),)})
    app = await stage.app()
    stage.route(RequestPolicy(concurrency=1))
    stage.endpoints(app.endpoint())
    assert {(await client.answer()).status for client in clients} == {200}
    assert [request.line for request in app.requests] == [f"GET /{number} HTTP/1.1" for number in range(20)]


@pytest.mark.parametrize("limit", [1, 3, 5])
async def test_no_instance_ever_holds_more_than_its_limit(stage: Stage, limit: int) -> None:
    gates = [Gate(), Gate()]
    apps = [await stage.app(gate.handler, f"app-{n}") for n, gate in enumerate(gates)]
    stage.route(RequestPolicy(concurrency=limit))
    stage.endpoints(*(app.endpoint() for app in apps))
    clients = [(await stage.connect()).get() for _ in range(60)]
    await eventually(lambda: sum(gate.inside for gate in gates) == 2 * limit)
    await eventually(lambda: waiting(stage) == 60 - 2 * limit)
    for gate in gates:
        gate.open.set()
    assert {(await client.answer()).status for client in clients} == {200}
    assert [gate.most for gate in gates] == [limit, limit]


@pytest.mark.parametrize("status", [503, 429])
async def test_a_full_queue_is_refused_at_once(stage: Stage, status: int) -> None:
    stage.gateway.overload_status = status
    stage.route()
    stage.gateway.revision(REVISION).breaker.depth = 2
    for _ in range(2):
        (await stage.connect()).get()
    await eventually(lambda: waiting(stage) == 2)
    answer = await stage.get()
    assert (answer.status, answer.text) == (status, "pending request queue full\n")
    assert answer.fields["retry-after"] == "1"


async def test_a_client_that_disconnects_leaves_the_queue(stage: Stage) -> None:
    stage.route()
    client = (await stage.connect()).get()
    await eventually(lambda: waiting(stage) == 1)
    client.close()
    await eventually(lambda: waiting(stage) == 0)
    assert stage.gateway.revision(REVISION).stats.active == 0


async def test_a_client_that_disconnects_leaves_the_queue_even_with_an_unread_body(stage: Stage) -> None:
    stage.route()
    client = (await stage.connect()).get(method="POST", extra="Content-Length: 900000\r\n").send(b"x" * 800_000)
    await eventually(lambda: waiting(stage) == 1)
    await client.writer.drain()
    client.writer.transport.abort()
    await eventually(lambda: waiting(stage) == 0)
    assert not stage.gateway.requests


async def test_a_body_waits_unread(stage: Stage) -> None:
    stage.route()
    size = 30_000_000
    client = (await stage.connect()).get(method="POST", extra=f"Content-Length: {size}\r\n").send(b"x" * size)
    await eventually(lambda: waiting(stage) == 1)
    (request,) = stage.gateway.requests
    assert isinstance(request, Exchange)
    assert request.pending_size < 1_000_000
    got = []

    async def count(reader: Reader, writer: Writer) -> None:
        got.append(len((await read_request(reader)).body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    app = await stage.app(count)
    stage.endpoints(app.endpoint())
    assert (await client.answer()).status == 200
    assert got == [size]


async def test_waiting_ends_with_the_revisions_time_out(stage: Stage) -> None:
    stage.route(RequestPolicy(timeout=0.3))
    answer = await stage.get()
    assert (answer.status, waiting(stage)) == (503, 0)


def answers(*parts: bytes, then_hangs: bool = True) -> Handler:
    """An app that sends these and no more."""

    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        for part in parts:
            writer.write(part)
        if then_hangs:
            await reader.read()

    return handler


@pytest.mark.parametrize(
    "policy",
    [
        RequestPolicy(timeout=0.3),
        RequestPolicy(timeout=60, response_start_timeout=0.3),
        RequestPolicy(idle_timeout=0.3),
    ],
    ids=["whole", "start", "idle"],
)
async def test_a_time_out_before_the_first_byte_is_a_504(stage: Stage, policy: RequestPolicy) -> None:
    app = await stage.serving(answers(), policy)
    answer = await stage.get()
    assert (answer.status, answer.text) == (504, "request timeout\n")
    await eventually(lambda: app.open == 0)


@pytest.mark.parametrize("policy", [RequestPolicy(timeout=0.4), RequestPolicy(idle_timeout=0.3)], ids=["whole", "idle"])
async def test_a_time_out_after_the_first_byte_ends_the_body_cleanly(stage: Stage, policy: RequestPolicy) -> None:
    app = await stage.serving(answers(b"HTTP/1.1 200 OK\r\n\r\n", b"begun"), policy)
    answer = await stage.get()
    assert (answer.status, answer.text) == (200, "begun")
    await eventually(lambda: app.open == 0)


async def test_an_answer_that_has_begun_is_not_cut_by_the_start_time_out(stage: Stage) -> None:
    proceed = asyncio.Event()

    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nbegun")
        await proceed.wait()
        writer.write(b" and ended")

    await stage.serving(handler, RequestPolicy(timeout=60, response_start_timeout=0.2))
    client = (await stage.connect()).get()
    await client.head()
    exchange = next(iter(stage.gateway.requests))
    assert exchange.deadline > stage.gateway.time() + 50
    proceed.set()
    assert b" and ended" in await client.reader.readuntil(b"0\r\n\r\n")


@pytest.mark.parametrize("policy", [RequestPolicy(response_start_timeout=0.3), RequestPolicy(idle_timeout=0.3)])
async def test_a_tunnel_is_cut_by_time_outs_whatever_passes(stage: Stage, policy: RequestPolicy) -> None:
    await stage.serving(answers(SWITCHED + b"hello"), policy)
    client = (await stage.connect()).get(extra=UPGRADE)
    assert (await client.head())[0] == 101
    assert await client.closed() == b"hello"


async def test_an_instance_that_refuses_is_passed_over(stage: Stage) -> None:
    app = await stage.app()
    stage.route()
    stage.endpoints(Endpoint("dead", "127.0.0.1", free_port()), app.endpoint())
    client = await stage.connect()
    assert {(await client.get().answer()).status for _ in range(50)} == {200}


async def test_a_request_outlives_an_instance_that_refuses(stage: Stage) -> None:
    stage.route(RequestPolicy(concurrency=1))
    port = free_port()
    stage.endpoints(Endpoint("slow", "127.0.0.1", port))
    client = (await stage.connect()).get()
    await eventually(lambda: stage.gateway.revision(REVISION).endpoints["slow"].failures > 1)
    app = await stage.app()
    stage.endpoints(Endpoint("slow", "127.0.0.1", port, "draining"), app.endpoint())
    assert (await client.answer()).status == 200


async def test_a_revision_is_checked_only_while_it_has_something_to_report(stage: Stage) -> None:
    def warnings_seen() -> list[str]:
        report = stage.gateway.report(1.0)
        return [line.revision for line in report.revisions] if report else []

    app = await stage.serving()
    assert (await stage.get()).status == 200
    assert warnings_seen() == [REVISION]
    assert warnings_seen() == [REVISION], "silence is told once"
    assert warnings_seen() == []
    assert list(stage.gateway.tracked) == [stage.gateway.revision(REVISION)], "its connections are looked at"
    stage.endpoints()
    assert warnings_seen() == []
    assert not stage.gateway.tracked
    waits = (await stage.connect()).get()
    await eventually(lambda: stage.gateway.tracked)
    assert warnings_seen() == [REVISION], "a request wakes it"
    stage.endpoints(app.endpoint())
    assert (await waits.answer()).status == 200
    stage.endpoints()
    assert [warnings_seen(), warnings_seen(), warnings_seen()] == [[REVISION], [REVISION], []]
    assert not stage.gateway.tracked
    stage.endpoints(app.endpoint())
    assert stage.gateway.tracked, "and so does an instance"


async def test_a_draining_instance_ends_what_it_has_and_gets_no_more(stage: Stage) -> None:
    gate = Gate()
    old = await stage.serving(gate.handler)
    held = (await stage.connect()).get()
    await eventually(lambda: gate.inside == 1)
    new = await stage.app(name="app-2")
    stage.endpoints(old.endpoint("draining"), new.endpoint())
    report = stage.gateway.report(1.0)
    assert report is not None
    assert report.draining == {"app-1": 1}
    for _ in range(20):
        assert (await stage.get()).fields["x-app"] == "app-2"
    gate.open.set()
    assert (await held.answer()).status == 200
    report = stage.gateway.report(2.0)
    assert report is not None
    assert report.draining == {"app-1": 0}
    await eventually(lambda: old.open == 0, condition="its idle connections are closed")


async def test_tunnels_and_requests_are_counted_separately_in_a_draining_instance(stage: Stage) -> None:
    proceed = asyncio.Event()

    async def handler(reader: Reader, writer: Writer) -> None:
        if "upgrade" in (await read_request(reader)).fields:
            writer.write(SWITCHED)
        await proceed.wait()

    app = await stage.serving(handler)
    for _ in range(2):
        assert (await (await stage.connect()).get(extra=UPGRADE).head())[0] == 101
    (await stage.connect()).get()
    await eventually(lambda: app.open == 3)
    stage.endpoints(app.endpoint("draining"))
    report = stage.gateway.report(1.0)
    assert report is not None
    assert (report.draining, report.tunnels) == ({"app-1": 1}, {"app-1": 2})
    proceed.set()
    await eventually(lambda: not stage.gateway.requests)
    report = stage.gateway.report(2.0)
    assert report is not None
    assert (report.draining, report.tunnels) == ({"app-1": 0}, {})


@pytest.mark.parametrize(
    ("sent", "draining", "heard"),
    [
        (b"\x81\x02hi", True, b"\x81\x02hi" + GOING_AWAY),
        (b"", True, GOING_AWAY),
        (b"\x88\x02\x0f\xa1", True, b"\x88\x02\x0f\xa1"),
        (b"\x81\x02h", True, b"\x81\x02h"),
        (b"\x81\x02hi", False, b"\x81\x02hi"),
    ],
    ids=["between two frames", "before the first", "closed by the app", "in a frame", "it just broke"],
)
async def test_a_websocket_of_a_draining_instance_that_just_ends_gets_a_close_frame(
    stage: Stage, sent: bytes, draining: bool, heard: bytes
) -> None:
    proceed = asyncio.Event()

    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(SWITCHED + sent)
        await proceed.wait()

    app = await stage.serving(handler)
    client = (await stage.connect()).get(extra=UPGRADE)
    assert (await client.head())[0] == 101
    if draining:
        stage.endpoints(app.endpoint("draining"))
    proceed.set()
    assert await client.closed() == heard


async def test_a_gateway_that_stops_sends_close_frames_to_its_websockets(stage: Stage) -> None:
    await stage.serving(answers(SWITCHED))
    client = (await stage.connect()).get(extra=UPGRADE)
    assert (await client.head())[0] == 101
    await stage.gateway.stop()
    assert await client.closed() == GOING_AWAY


async def test_a_request_on_an_instance_that_left_the_table_may_end(stage: Stage) -> None:
    gate = Gate()
    await stage.serving(gate.handler)
    held = (await stage.connect()).get()
    await eventually(lambda: gate.inside == 1)
    stage.endpoints()
    gate.open.set()
    assert (await held.answer()).status == 200


async def test_weights_hold_within_their_bounds(stage: Stage) -> None:
    apps: list[App] = []
    for number in range(3):
        app = await stage.app(name=f"app-{number}")
        apps.append(app)
        stage.endpoints(app.endpoint(), revision=f"default/r{number}")
    split = (Share("default/r0", 40), Share("default/r1", 30), Share("default/r2", 30))
    stage.route(hosts={"split.localhost": split, "tag-split.localhost": (Share("default/r2", 100, "tag"),)})
    client = await stage.connect()
    for _ in range(1000):
        await client.get(host="split.localhost").answer()
    counts = [len(app.requests) for app in apps]
    # 5 standard deviations: one run in two million falls outside.
    assert all(abs(count - want) < 78 for count, want in zip(counts, (400, 300, 300), strict=True)), counts
    assert (await client.get(host="tag-split.localhost").answer()).fields["x-app"] == "app-2"


@pytest.mark.parametrize("host", [HOST, HOST.upper(), f"{HOST}:8080", f"{HOST}.", f"{HOST}.:1"])
async def test_a_host_is_found_in_any_spelling(stage: Stage, host: str) -> None:
    await stage.serving()
    assert (await stage.get(host=host)).status == 200


async def test_an_unknown_host_is_a_404_with_the_reason(stage: Stage) -> None:
    await stage.serving()
    answer = await stage.get(host="unknown.localhost:8080")
    assert answer.status == 404
    assert "unknown.localhost:8080" in answer.text


async def test_cluster_local_hosts_are_answered_only_at_the_gateway_for_them(stage: Stage) -> None:
    app = await stage.app()
    shares: tuple[Share, ...] = (Share(REVISION, 100),)
    local = {"app.default.svc.cluster.local": shares, "app.default": shares}
    stage.gateway.change_route("default/app", RouteEntry({HOST: shares}, {REVISION: RequestPolicy()}, local))
    stage.endpoints(app.endpoint())
    assert (await stage.get(host="app.default")).status == 404
    inside = await stage.connect(stage.local_port)
    assert (await inside.get(host="app.default").answer()).status == 200
    assert (await inside.get(host=HOST).answer()).status == 200


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_an_address_has_a_limit_of_connections_and_the_next_gets_a_reason(stage: Stage, http2: bool) -> None:
    await stage.serving()
    stage.gateway.connection_limit.most = 2
    wires = [Wire(await stage.connect()) for _ in range(2)] if http2 else []
    for wire in wires:
        assert (await wire.send(wire.open(1)).until(1)).heads[1][":status"] == "200"
    first, second = [wire.client for wire in wires] or [await stage.connect(), await stage.connect()]
    await eventually(lambda: len(stage.gateway.connections) == 2)
    third = await stage.connect()
    answer = await third.answer()
    assert (answer.status, answer.fields["connection"]) == (429, "close")
    assert "too many connections from this address" in answer.text
    first.close()
    await eventually(lambda: len(stage.gateway.connections) == 1)
    assert (await stage.get()).status == 200
    second.close()
    await eventually(
        lambda: stage.gateway.connection_limit._counts == {b"127.0.0.1": 1}, condition="only the last is left"
    )


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_a_client_that_reads_nothing_of_its_answer_is_cut_off_after_a_while(stage: Stage, http2: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n"
    await stage.serving(answers(head, b"x" * 30_000_000), RequestPolicy(timeout=0.5))
    client = await stage.connect()
    if http2:
        wire = Wire(client)
        wire.send(wire.open(1))
    else:
        client.get()
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]
    await eventually(lambda: stage.gateway.requests)
    await eventually(lambda: not stage.gateway.requests, condition="the revision's time-out ends the request")
    (connection,) = stage.gateway.connections
    now = stage.gateway.time()
    connection.sweep(now)
    connection.sweep(now + 30)
    assert stage.gateway.connections, "for now it may be slow"
    connection.sweep(now + 65)
    connection.sweep(now + 400)
    await eventually(lambda: not stage.gateway.connections)


async def test_requests_that_wait_for_a_deleted_service_are_answered_at_once(stage: Stage) -> None:
    stage.route()
    client = (await stage.connect()).get()
    wire = Wire(await stage.connect())
    wire.send(wire.open(1))
    await eventually(lambda: waiting(stage) == 2)
    stage.gateway.change_route("default/app", None)
    answer = await client.answer()
    assert (answer.status, answer.text) == (404, "the service was deleted\n")
    assert (await wire.until(1)).heads[1][":status"] == "404"
    assert (await stage.get()).status == 404
    await eventually(lambda: not stage.gateway.revisions or not stage.gateway.requests)


async def test_requests_for_a_deleted_revision_are_answered_at_once(stage: Stage) -> None:
    app = await stage.app()
    shares = (Share(REVISION, 50), Share("default/other", 50))
    planes = {REVISION: RequestPolicy(timeout=300), "default/other": RequestPolicy(timeout=300)}
    entry = RouteEntry({HOST: shares, "tag.localhost": (Share("default/other", 100, "tag"),)}, planes)
    stage.gateway.change_route("default/app", entry)
    stage.gateway.change_route("default/mapped", RouteEntry({"m.example.com": shares}, planes))
    stage.endpoints(app.endpoint())
    client = (await stage.connect()).get(host="tag.localhost")
    await eventually(lambda: len(stage.gateway.revision("default/other").breaker.queue) == 1)
    stage.gateway.change_route("default/app", msgspec.structs.replace(entry, missing=("default/other",)))
    answer = await client.answer()
    assert (answer.status, answer.text) == (404, "revision default/other was deleted\n")
    assert (await stage.get(host="tag.localhost")).status == 404
    assert {(await stage.get()).status for _ in range(40)} == {200, 404}
    # It comes back: a new Revision of that name.
    stage.gateway.change_route("default/app", entry)
    again = (await stage.connect()).get(host="tag.localhost")
    await eventually(lambda: len(stage.gateway.revision("default/other").breaker.queue) == 1)
    stage.endpoints(app.endpoint(), revision="default/other")
    assert (await again.answer()).status == 200


async def test_requests_that_wait_stay_when_traffic_moves_or_another_service_is_deleted(stage: Stage) -> None:
    stage.route()
    client = (await stage.connect()).get()
    await eventually(lambda: waiting(stage) == 1)
    stage.gateway.change_route("default/another", RouteEntry({"x.localhost": ()}, {}))
    stage.route(hosts={HOST: (Share("default/other", 100),)})
    stage.gateway.change_route("default/another", None)
    assert waiting(stage) == 1
    stage.endpoints((await stage.app()).endpoint())
    assert (await client.answer()).status == 200


async def test_a_table_read_again_without_a_service_releases_its_waiting_requests(stage: Stage) -> None:
    stage.route()
    client = (await stage.connect()).get()
    await eventually(lambda: waiting(stage) == 1)
    stage.gateway.replace_routes({})
    assert (await client.answer()).status == 404
