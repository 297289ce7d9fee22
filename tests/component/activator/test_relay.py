"""Requests that reach an instance of another node through that node's gateway."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import pytest
import structlog
import websockets
import websockets.asyncio.server
from websockets.exceptions import ConnectionClosed

from activator.backend.load_balancer import LOCAL_ADVANTAGE, LOCAL_FACTOR
from activator.frontend.relay_server import RelayConnection
from activator.sync.node_certificate import RELAY
from knoll import __version__
from knoll.messages.endpoints import StartTiming
from knoll.messages.routing import RequestPolicy
from knoll.values import versions
from tests.component.activator.machines import Machine, Machines, machines, node, on
from tests.component.activator.stage import HOST, App, Connection, read_request
from tests.component.activator.test_mixed_load import app_of_all_kinds
from tests.waiting import eventually

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Machines]:
    async with machines(tmp_path) as made:
        yield made


async def remote(pair: Machines, handler: object = None, policy: RequestPolicy | None = None) -> App:
    """An app on the second machine, to which the route sends requests."""
    app = await pair[1].stage.app(handler)  # type: ignore[arg-type]
    pair.route(policy)
    pair.endpoints(on(pair[1], app))
    return app


async def released(pair: Machines, app: App) -> None:
    """Whether every slot is free, and no node has state of a request."""
    await eventually(lambda: not any(machine.in_flight(app.name) for machine in pair.all))
    for machine in pair.all:
        assert not machine.relayed(app.name)
        assert not machine.gateway.requests


def relays(machine: Machine) -> list[RelayConnection]:
    return [each for each in machine.gateway.connections if isinstance(each, RelayConnection)]


async def test_a_request_reaches_an_instance_of_another_node(pair: Machines) -> None:
    app = await remote(pair)
    client = await pair[0].stage.connect()
    for _ in range(3):
        answer = await client.get("/a?b=c", extra="X-Mine: 1\r\nTraceparent: 00-1\r\n").answer()
        assert (answer.status, answer.text) == (200, "hello")
    first = app.requests[0]
    assert first.line == "GET /a?b=c HTTP/1.1"
    assert first.fields == {
        "host": HOST, "x-mine": "1", "traceparent": "00-1", "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http",
        "x-forwarded-host": HOST, "forwarded": f"for=127.0.0.1;host={HOST};proto=http",
    }  # fmt: skip
    assert (len(app.requests), app.connections) == (3, 1)
    await released(pair, app)


@pytest.mark.parametrize("size", [0, 1, 1000, 16_384, 65_536, 65_537, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_bodies_pass_in_both_directions(pair: Machines, size: int, chunked: bool) -> None:
    app = await remote(pair, app_of_all_kinds)
    body = os.urandom(size)
    client = await pair[0].stage.connect()
    for _ in range(2):
        if chunked:
            client.get(method="POST", extra="Transfer-Encoding: chunked\r\n")
            for at in range(0, size, 50_000):
                part = body[at : at + 50_000]
                client.send(b"%x\r\n" % len(part) + part + b"\r\n")
            client.send(b"0\r\n\r\n")
        else:
            client.get(method="POST", extra=f"Content-Length: {size}\r\n").send(body)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, body)
    await released(pair, app)


async def test_trailers_pass_in_both_directions(pair: Machines) -> None:
    seen = []

    async def handler(reader: Reader, writer: Writer) -> None:
        while True:
            seen.append(await read_request(reader))
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n")

    await remote(pair, handler)
    client = await pair[0].stage.connect()
    client.get(method="POST", extra="TE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n")
    client.send("2\r\nhi\r\n0\r\nX-Check: 5\r\n\r\n")
    answer = await client.answer()
    assert (answer.body, answer.trailers) == (b"a", {"x-sum": "7"})
    assert (seen[0].body, seen[0].trailers, seen[0].fields["te"]) == (b"hi", {"x-check": "5"}, "trailers")


async def test_head_no_content_and_interim_responses_pass(pair: Machines) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        while True:
            request = await read_request(reader)
            if request.line.startswith("HEAD"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")

    await remote(pair, handler)
    client = await pair[0].stage.connect()
    answer = await client.get(method="HEAD").answer(head_only=True)
    assert (answer.status, answer.fields["content-length"]) == (200, "12")
    assert await client.get().head() == (103, {"link": "</a>"})
    assert (await client.head())[0] == 204


async def test_a_client_that_expects_100_sends_its_body_when_the_instance_says_so(pair: Machines) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(5)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body)

    await remote(pair, handler)
    client = await pair[0].stage.connect()
    client.get(method="POST", extra="Content-Length: 5\r\nExpect: 100-continue\r\n")
    assert (await client.head())[0] == 100
    assert (await client.send("hello").answer()).body == b"hello"


async def test_events_arrive_one_by_one_and_a_client_that_leaves_is_noticed(pair: Machines) -> None:
    proceed: asyncio.Queue[bytes] = asyncio.Queue()

    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        sending = asyncio.create_task(send(writer))
        await reader.read()
        sending.cancel()

    async def send(writer: Writer) -> None:
        while True:
            event = await proceed.get()
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))

    app = await remote(pair, handler)
    client = await pair[0].stage.connect()
    assert (await client.get().head())[0] == 200
    for number in range(3):
        proceed.put_nowait(b"data: %d\n\n" % number)
        assert await client.reader.readexactly(14) == b"9\r\ndata: %d\n\n\r\n" % number
    client.close()
    await eventually(lambda: app.open == 0)
    await released(pair, app)


async def test_a_client_that_leaves_before_the_response_frees_the_slot(pair: Machines) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        await reader.read()

    app = await remote(pair, handler, RequestPolicy(concurrency=1))
    client = (await pair[0].stage.connect()).get()
    await eventually(lambda: app.open == 1)
    client.writer.transport.abort()
    await eventually(lambda: app.open == 0)
    await released(pair, app)


async def test_a_websocket_echoes_and_is_closed_with_1001_when_its_instance_ends(pair: Machines) -> None:
    async def echo(connection: websockets.asyncio.server.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with websockets.asyncio.server.serve(echo, "127.0.0.1", 0) as server:
        app = App(name="ws")
        app.port = server.sockets[0].getsockname()[1]
        pair.route()
        pair.endpoints(on(pair[1], app))
        there = ("127.0.0.1", pair[0].stage.port)
        async with websockets.connect(f"ws://{HOST}/", host=there[0], port=there[1], proxy=None) as client:
            for size in (0, 125, 126, 100_000):
                await client.send(b"x" * size)
                assert await client.recv() == b"x" * size
            endpoint = pair[1].gateway.revision("default/app-00001").endpoints["ws"]
            assert (endpoint.in_flight, endpoint.tunnels, endpoint.relayed) == (1, 1, 1)
            pair.endpoints(on(pair[1], app, "draining"))
            report = pair[1].gateway.report(0.0)
            assert report is not None
            assert (report.draining, report.tunnels) == ({"ws": 0}, {"ws": 1})
            for connection in relays(pair[1]):
                connection.tunnel_closed()
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        await released(pair, app)


class Gate:
    """An app that responds when a test lets it, and counts how many requests it holds at once."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.paths: list[str] = []
        self.proceed = asyncio.Semaphore(0)

    async def handler(self, reader: Reader, writer: Writer) -> None:
        while True:
            request = await read_request(reader)
            self.paths.append(request.line.split(" ")[1])
            self.inside += 1
            self.most = max(self.most, self.inside)
            await self.proceed.acquire()
            self.inside -= 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def entered(machine: Machine, path: str) -> Connection:
    return (await machine.stage.connect()).get(path)


async def test_the_owner_decides_about_slots_and_requests_keep_their_order(pair: Machines) -> None:
    gate = Gate()
    app = await remote(pair, gate.handler, RequestPolicy(concurrency=1))
    clients = [await entered(pair[1], "/0")]
    await eventually(lambda: gate.inside == 1)
    queue = pair[0].gateway.revision("default/app-00001").breaker.queue
    for number in range(1, 6):
        clients.append(await entered(pair[0], f"/{number}"))
        await eventually(lambda expected=number: len(queue) + pair[0].in_flight(app.name) == expected)  # type: ignore[misc]
    for _ in clients:
        gate.proceed.release()
    assert [(await client.answer()).status for client in clients] == [200] * 6
    assert gate.paths == [f"/{number}" for number in range(6)]
    assert gate.most == 1
    await released(pair, app)


async def test_queues_of_both_nodes_get_their_turns(pair: Machines) -> None:
    gate = Gate()
    app = await remote(pair, gate.handler, RequestPolicy(concurrency=1))
    clients = [await entered(pair[1], "/near") for _ in range(40)]
    await eventually(lambda: gate.inside == 1)
    clients += [await entered(pair[0], "/far") for _ in range(4)]
    await eventually(lambda: pair[1].gateway.revision("default/app-00001").awaited_by_others)
    for _ in clients:
        gate.proceed.release()
    assert {(await client.answer()).status for client in clients} == {200}
    assert gate.paths.index("/far") < 39, "a queue at the owner does not starve the others"
    assert gate.most == 1
    await released(pair, app)


async def test_a_body_is_not_sent_before_the_owner_has_a_slot(pair: Machines) -> None:
    bodies = []

    async def handler(reader: Reader, writer: Writer) -> None:
        while True:
            request = await read_request(reader)
            bodies.append(request.body)
            if request.line.startswith("GET"):
                await proceed.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    proceed = asyncio.Event()
    app = await remote(pair, handler, RequestPolicy(concurrency=1))
    first = await entered(pair[1], "/")
    await eventually(lambda: len(bodies) == 1)
    body = os.urandom(500_000)
    second = await pair[0].stage.connect()
    second.get(method="POST", extra=f"Content-Length: {len(body)}\r\n").send(body)
    await eventually(lambda: bool(relays(pair[1])))
    proceed.set()
    assert (await first.answer()).status == 200
    assert (await second.answer()).status == 200
    assert bodies == [b"", body], "once, and whole"
    await released(pair, app)


async def test_instances_of_this_node_come_first(pair: Machines) -> None:
    gates = Gate(), Gate()
    apps = [await pair[n].stage.app(gates[n].handler, f"app-{n}") for n in range(2)]
    pair.route(RequestPolicy(concurrency=2))
    pair.endpoints(on(pair[1], apps[1]), on(pair[0], apps[0]))
    clients = [await entered(pair[0], f"/{n}") for n in range(3)]
    await eventually(lambda: (gates[0].inside, gates[1].inside) == (2, 1))
    for gate in gates:
        for _ in range(3):
            gate.proceed.release()
    assert [(await client.answer()).status for client in clients] == [200] * 3


async def held(machine: Machine, gate: Gate, count: int) -> list[Connection]:
    """Requests to a machine that its instance does not answer yet."""
    inside = gate.inside
    clients = [await entered(machine, "/") for _ in range(count)]
    await eventually(lambda: gate.inside == inside + count)
    return clients


async def test_a_node_without_an_instance_spares_the_one_that_others_use(tmp_path: Path) -> None:
    async with machines(tmp_path, 3) as three:
        used, free, here = three.all
        gates = Gate(), Gate()
        apps = [
            await machine.stage.app(gate.handler, machine.name)
            for machine, gate in zip((used, free), gates, strict=True)
        ]
        three.route()
        three.endpoints(*(on(machine, app) for machine, app in zip((used, free), apps, strict=True)))
        used.stage.endpoints(on(used, apps[0]))  # it does not have the other one yet, so all requests stay there
        clients = await held(used, gates[0], 12)
        view = here.gateway.revision("default/app-00001").endpoints[apps[0].name]
        while not view.others:
            clients.append(await entered(here, "/"))
            await eventually(lambda: gates[0].inside + gates[1].inside == len(clients))
        for _ in range(16):
            clients.append(await entered(here, "/"))
            await eventually(lambda: gates[0].inside + gates[1].inside == len(clients))
        assert abs(gates[0].inside - gates[1].inside) <= 6, "by its own counts alone, it would be 12"
        for gate in gates:
            for _ in clients:
                gate.proceed.release()
        assert {(await client.answer()).status for client in clients} == {200}
        for app in apps:
            await released(three, app)


async def test_a_busy_instance_is_relieved_by_another_node_and_not_the_other_way_round(pair: Machines) -> None:
    gates = Gate(), Gate()
    apps = [await machine.stage.app(gate.handler, machine.name) for machine, gate in zip(pair.all, gates, strict=True)]
    pair.route()
    pair.endpoints(*(on(machine, app) for machine, app in zip(pair.all, apps, strict=True)))
    view = pair[1].gateway.revision("default/app-00001").endpoints[apps[0].name]
    clients: list[Connection] = []
    while len(clients) < 40 or view.others + 3 < gates[1].inside:  # its load is reported ten times a second
        clients.append(await entered(pair[0], "/"))
        await eventually(lambda: gates[0].inside + gates[1].inside == len(clients))
    assert gates[0].inside <= LOCAL_FACTOR * gates[1].inside + LOCAL_ADVANTAGE + 1
    assert gates[1].inside < gates[0].inside
    before = gates[1].inside
    clients += await held(pair[1], gates[1], 3)
    assert gates[1].inside == before + 3, "its own requests stay, although others use it"
    for gate in gates:
        for _ in clients:
            gate.proceed.release()
    assert {(await client.answer()).status for client in clients} == {200}
    for app in apps:
        await released(pair, app)


async def test_requests_are_counted_where_they_arrived(pair: Machines) -> None:
    gate = Gate()
    app = await remote(pair, gate.handler)
    other = await pair[1].stage.app(gate.handler, "other")
    pair.endpoints(on(pair[1], app), on(pair[1], other))
    lines: list[tuple[str, int]] = []
    for machine in pair.all:
        machine.gateway.log_request = lambda _, status, __, name=machine.name: lines.append((name, status))
    client = await entered(pair[0], "/")
    await eventually(lambda: gate.inside == 1)
    here, there = (machine.gateway.revision("default/app-00001") for machine in pair.all)
    assert (here.in_flight(), there.in_flight(), there.in_flight_by_endpoint()) == (1, 0, {})
    assert sum(here.in_flight_by_endpoint().values()) == 1
    gate.proceed.release()
    assert (await client.answer()).status == 200
    assert (here.stats.codes, there.stats.codes, lines) == ({200: 1}, {}, [("n1", 200)])
    report = pair[1].gateway.report(0.0)
    assert report is None or not report.revisions


async def test_a_cold_start_reports_its_times_once(pair: Machines) -> None:
    pair.route()
    app = await pair[1].stage.app()
    client = await entered(pair[0], "/")
    await eventually(lambda: len(pair[0].gateway.revision("default/app-00001").breaker.queue) == 1)
    now = pair[0].gateway.wall_clock()
    timing = StartTiming(now, now, now, now)
    endpoint = on(pair[1], app)
    pair.endpoints(type(endpoint)(endpoint.id, endpoint.host, endpoint.port, "ready", timing, "n2"))
    answer = await client.answer()
    assert answer.status == 200
    assert answer.fields["server-timing"].count("response") == 1


async def test_the_time_out_counts_once_and_cancels_at_the_instance(pair: Machines) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        await reader.read()

    app = await remote(pair, handler, RequestPolicy(timeout=0.3))
    client = await entered(pair[0], "/")
    answer = await client.answer()
    assert (answer.status, answer.text) == (504, "request timeout\n")
    await eventually(lambda: app.open == 0)
    await released(pair, app)


async def test_a_draining_instance_finishes_requests_in_transit(pair: Machines) -> None:
    gate = Gate()
    app = await remote(pair, gate.handler)
    client = await entered(pair[0], "/1")
    await eventually(lambda: gate.inside == 1)
    pair[1].stage.endpoints(on(pair[1], app, "draining"))  # the other gateway has not read this yet
    late = await entered(pair[0], "/2")
    await eventually(lambda: gate.inside == 2)
    pair.endpoints(on(pair[1], app, "draining"))
    for machine in pair.all:
        report = machine.gateway.report(0.0)
        assert report is not None
        assert report.draining == {app.name: 2}
    for _ in range(2):
        gate.proceed.release()
    assert ((await client.answer()).status, (await late.answer()).status) == (200, 200)
    await released(pair, app)


async def test_an_instance_that_the_owner_does_not_have_loses_no_request(pair: Machines) -> None:
    pair.route()
    app = await pair[1].stage.app()
    pair[0].stage.endpoints(on(pair[1], app))
    client = await pair[0].stage.connect()
    client.get(method="POST", extra="Content-Length: 2\r\n").send("hi")
    await eventually(lambda: bool(relays(pair[1])))
    pair[1].stage.endpoints(on(pair[1], app))
    assert (await client.answer()).status == 200
    assert [request.body for request in app.requests] == [b"hi"]


async def test_an_instance_that_refuses_connections_loses_no_request(pair: Machines) -> None:
    pair.route()
    gone, app = await pair[1].stage.app(name="gone"), await pair[1].stage.app()
    await gone.stop()
    pair.endpoints(on(pair[1], gone))
    client = await pair[0].stage.connect()
    client.get(method="POST", extra="Content-Length: 2\r\n").send("hi")
    await eventually(lambda: bool(relays(pair[1])))
    pair.endpoints(on(pair[1], app))
    assert (await client.answer()).status == 200


async def test_a_node_that_is_not_available_gets_no_requests_and_they_wait(pair: Machines) -> None:
    app = await remote(pair)
    pair[0].gateway.nodes.change("n2", None)
    client = await pair[0].stage.connect()
    client.get()
    await eventually(lambda: len(pair[0].gateway.revision("default/app-00001").breaker.queue) == 1)
    pair.introduce()
    assert (await client.answer()).status == 200
    await released(pair, app)


async def test_a_node_of_a_distant_version_relays_nothing(pair: Machines) -> None:
    app = await remote(pair)
    context = pair[0].gateway.nodes.context
    assert context is not None
    context.set_alpn_protocols(["knoll-relay/9.9"])
    response = await pair[0].stage.get()
    assert response.status == 502
    assert b"upgrade one minor version at a time" in response.body
    assert not app.requests
    # Also if it sends requests without noticing.
    with structlog.testing.capture_logs() as logs:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", pair[1].relay_port, ssl=context, server_hostname="n2"
        )
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.transport.abort()
    rejected = next((each for each in logs if each["event"] == "relay connection rejected"), {})
    assert "its version is not one that this node accepts" in rejected["reason"]
    context.set_alpn_protocols([versions.accepted_protocols(RELAY, __version__)[-1]])
    assert (await pair[0].stage.get()).status == 200


async def test_a_node_that_was_removed_reaches_nothing_over_its_open_connections(pair: Machines) -> None:
    app = await remote(pair)
    assert (await pair[0].stage.get()).status == 200
    pair[1].gateway.nodes.change("n1", None)
    client = await entered(pair[0], "/")
    await eventually(lambda: bool(pair[0].gateway.revision("default/app-00001").breaker.queue))
    assert len(app.requests) == 1
    pair.introduce()
    assert (await client.answer()).status == 200


async def test_a_request_to_a_lost_node_gets_502_or_is_repeated_at_another_instance(pair: Machines) -> None:
    gate = Gate()
    app = await remote(pair, gate.handler)
    near = await pair[0].stage.app(name="near")
    get = await entered(pair[0], "/")
    post = await pair[0].stage.connect()
    post.get(method="POST", extra="Content-Length: 2\r\n").send("hi")
    await eventually(lambda: gate.inside == 2)
    pair[0].stage.endpoints(on(pair[1], app), on(pair[0], near))
    await pair[1].listener.close()
    for connection in relays(pair[1]):
        connection.abort()
    assert (await get.answer()).status == 200
    assert (await post.answer()).status == 502
    assert [request.line for request in near.requests] == ["GET / HTTP/1.1"]
    await released(pair, app)


async def test_a_truncated_response_is_not_treated_as_complete(pair: Machines) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        await proceed.wait()

    proceed = asyncio.Event()
    await remote(pair, handler)
    client = await entered(pair[0], "/")
    assert (await client.head())[0] == 200
    await client.reader.readuntil(b"first\r\n")
    for connection in relays(pair[1]):
        connection.abort()
    assert b"0\r\n\r\n" not in await client.closed()
    proceed.set()


async def test_a_gateway_that_ends_loses_no_request(pair: Machines) -> None:
    """Its idle connections end while requests are being written to them."""
    app = await remote(pair, app_of_all_kinds)
    clients = [await pair[0].stage.connect() for _ in range(20)]
    for _ in range(20):
        for client in clients:
            client.get(method="POST", extra="Content-Length: 2\r\n").send("hi")
        for connection in relays(pair[1]):
            connection.retire()
        assert {(await client.answer()).status for client in clients} == {200}
    await released(pair, app)


async def test_a_gateway_that_ends_while_a_response_is_streamed_loses_no_later_request(pair: Machines) -> None:
    gate = Gate()

    async def handler(reader: Reader, writer: Writer) -> None:
        while True:
            request = await read_request(reader)
            if request.line.startswith("GET"):
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
                await gate.proceed.acquire()
                writer.write(b"0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    app = await remote(pair, handler)
    client = await entered(pair[0], "/")
    assert (await client.head())[0] == 200
    (connection,) = relays(pair[1])
    connection.retire()
    gate.proceed.release()
    await client.reader.readuntil(b"0\r\n\r\n")
    client.get(method="POST", extra="Content-Length: 2\r\n").send("hi")
    assert (await client.answer()).status == 200
    await released(pair, app)


async def test_an_instance_cannot_send_lines_as_its_node(pair: Machines) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(responses.pop())

    await remote(pair, handler)
    responses: list[bytes] = []
    for lie in (
        b"RELAY/1 busy\r\n", b"RELAY/1 closing\r\n", b"RELAY/1 gone\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ):  # fmt: skip
        responses.append(lie)
        client = await entered(pair[0], "/")
        answer = await client.answer()
        assert answer.status == 502
        assert answer.text.startswith("the connection to the instance failed: its response")


@pytest.mark.parametrize("line", ["RELAY/1 default/app-00001 app-1 now", "RELAY/1 default/app-00001 app-1 held"])
async def test_a_client_cannot_choose_an_instance(pair: Machines, line: str) -> None:
    app = await remote(pair)
    for port in (pair[1].stage.port, pair[1].stage.local_port):
        client = await pair[1].stage.connect(port)
        assert (await client.send(f"{line}\r\n").get().answer()).status == 400
    assert not app.requests


async def test_a_node_whose_relay_has_ended_is_not_reachable_until_it_has_one_again(pair: Machines) -> None:
    app = await remote(pair)
    assert (await pair[0].stage.get()).status == 200
    pair[0].gateway.nodes.change("n2", node("n2", 0))
    client = await pair[0].stage.connect()
    client.get()
    await eventually(lambda: len(pair[0].gateway.revision("default/app-00001").breaker.queue) == 1)
    assert len(app.requests) == 1
    pair.introduce()
    assert (await client.answer()).status == 200
    await released(pair, app)
