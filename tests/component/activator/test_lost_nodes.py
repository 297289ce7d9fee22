"""Requests to nodes that are lost, cut off or removed: what is repeated, where, and what ends."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activator.backend.node_relay import NodeRelay
from activator.sync.node_certificate import NodeCertificate
from activator.wire.node_socket import SILENT_SECONDS, silent_seconds
from knoll.messages.routing import RequestPolicy
from tests.component.activator.machines import Machine, Machines, certify, machines, new_authority, on
from tests.component.activator.stage import App, Connection, read_request
from tests.component.activator.test_relay import Gate, entered, released
from tests.waiting import eventually


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Machines]:
    async with machines(tmp_path, 3) as made:
        yield made


def relay_to(machine: Machine, other: Machine) -> NodeRelay:
    relay = machine.gateway.nodes.relay(other.name)
    assert relay is not None
    return relay


async def silent(machine: Machine, other: Machine) -> None:
    """Wait until a machine has heard nothing of the other one for long enough."""
    relay = relay_to(machine, other)
    await eventually(lambda: all(each.silent_seconds() >= SILENT_SECONDS for each in relay._open))


async def post(machine: Machine, path: str = "/") -> Connection:
    return (await machine.stage.connect()).get(path, method="POST", extra="Content-Length: 2\r\n").send("hi")


async def test_requests_on_connections_to_a_removed_node_that_is_silent_end_at_once(three: Machines) -> None:
    here, lost, other = three.all
    gate = Gate()
    app, spare = await lost.stage.app(gate.handler), await other.stage.app(name="spare")
    three.route()
    three.endpoints(on(lost, app))
    repeatable, not_repeatable = await entered(here, "/get"), await post(here)
    await eventually(lambda: gate.inside == 2)
    three.cut_off(lost)
    await silent(here, lost)
    here.gateway.nodes.change(lost.name, None)
    assert (await not_repeatable.answer()).status == 502
    waiting = here.gateway.revision("default/app-00001").breaker.queue
    assert len(waiting) == 1, "no other instance exists yet"
    three.endpoints(on(other, spare))
    answer = await repeatable.answer()
    assert answer.status == 200, answer.text
    assert [request.line for request in spare.requests] == ["GET /get HTTP/1.1"]


async def test_requests_to_a_removed_node_that_responds_are_finished(three: Machines) -> None:
    here, removed, _ = three.all
    gate = Gate()
    app = await removed.stage.app(gate.handler)
    three.route()
    three.endpoints(on(removed, app))
    client, other = await entered(here, "/"), await post(here)
    await eventually(lambda: gate.inside == 2)
    here.gateway.nodes.change(removed.name, None)
    for _ in range(2):
        gate.proceed.release()
    assert ((await client.answer()).status, (await other.answer()).status) == (200, 200)
    await released(three, app)


async def test_a_machine_that_drops_connections_delays_a_request_and_is_then_avoided(three: Machines) -> None:
    here, lost, other = three.all
    app, spare = await lost.stage.app(), await other.stage.app(name="spare")
    three.route()
    three.endpoints(on(lost, app))
    three.cut_off(lost)
    first, second = await post(here), await entered(here, "/")
    await eventually(lambda: here.in_flight(app.name) == 2)
    three.endpoints(on(lost, app), on(other, spare))
    assert ((await first.answer()).status, (await second.answer()).status) == (200, 200)
    assert relay_to(here, lost).failed
    clients = [await post(here) for _ in range(20)]
    assert {(await client.answer()).status for client in clients} == {200}
    assert len(spare.requests) == 22
    three.heal(lost)
    await eventually(lambda: not relay_to(here, lost).failed)
    for _ in range(40):
        assert (await here.stage.get()).status == 200
    assert app.requests, "it is used again"


async def test_one_lost_connection_ends_the_others_to_a_silent_machine(three: Machines) -> None:
    here, lost, other = three.all
    gate = Gate()
    app, spare = await lost.stage.app(gate.handler), await other.stage.app(name="spare")
    three.route()
    three.endpoints(on(lost, app))
    clients = [await entered(here, f"/{number}") for number in range(5)]
    await eventually(lambda: gate.inside == 5)
    three.cut_off(lost)
    await silent(here, lost)
    three.endpoints(on(lost, app), on(other, spare))
    relay_to(here, lost).connection_failed()
    assert {(await client.answer()).status for client in clients} == {200}
    assert sorted(request.line for request in spare.requests) == [f"GET /{number} HTTP/1.1" for number in range(5)]
    assert not relay_to(here, lost)._open


async def ended(machine: Machine) -> None:
    """End an activator: its port refuses connections."""
    await machine.listener.close()
    for connection in machine.relays:
        connection.abort()


async def given_another_authority(machine: Machine, folder: Path) -> None:
    """Give it a certificate that the others do not accept."""
    stranger = certify(folder / "stranger", machine.name, new_authority())
    machine.certificate = NodeCertificate(stranger, machine.gateway.nodes)


@pytest.mark.parametrize("trouble", ["refused", "certificate"])
@pytest.mark.parametrize(("limit", "size"), [(0, 2), (1, 2), (1, 300_000)])
async def test_a_request_that_a_node_refuses_is_sent_to_another_instance(
    three: Machines, tmp_path: Path, trouble: str, limit: int, size: int
) -> None:
    here, lost, other = three.all
    apps = [await lost.stage.app(name=f"gone-{number}") for number in range(3)]
    spare = await other.stage.app(name="spare")
    three.route(RequestPolicy(concurrency=limit))
    if trouble == "refused":
        await ended(lost)
    else:
        await given_another_authority(lost, tmp_path)
    three.endpoints(*(on(lost, app) for app in apps), on(other, spare))
    client, body = await here.stage.connect(), b"x" * size
    for _ in range(20):
        answer = await client.get(method="POST", extra=f"Content-Length: {size}\r\n").send(body).answer()
        assert answer.status == 200
    assert [request.body for request in spare.requests] == [body] * 20
    assert not any(app.requests for app in apps)
    for app in (*apps, spare):
        await released(three, app)


async def test_a_node_that_fails_while_it_has_the_only_instance_is_tried_again(three: Machines) -> None:
    here, lost, _ = three.all
    app = await lost.stage.app()
    three.route()
    three.endpoints(on(lost, app))
    context, here.gateway.nodes.context = here.gateway.nodes.context, None
    client = await entered(here, "/")
    await eventually(lambda: relay_to(here, lost).failed)
    here.gateway.nodes.context = context
    assert (await client.answer()).status == 200
    await eventually(lambda: not relay_to(here, lost).failed)
    await released(three, app)


async def test_a_lost_node_holds_no_slots_of_others(three: Machines) -> None:
    lost, here, _ = three.all
    gate = Gate()
    app = await here.stage.app(gate.handler)
    three.route(RequestPolicy(concurrency=1))
    three.endpoints(on(here, app))
    await entered(lost, "/lost")
    await eventually(lambda: gate.inside == 1)
    waiting = await entered(here, "/waiting")
    await eventually(lambda: len(here.gateway.revision("default/app-00001").breaker.queue) == 1)
    three.cut_off(here)
    (connection,) = here.relays
    await eventually(lambda: silent_seconds(connection._transport) >= SILENT_SECONDS)
    here.listener.node_removed(lost.name)
    await eventually(lambda: gate.paths == ["/lost", "/waiting"])
    gate.proceed.release()
    gate.proceed.release()
    assert (await waiting.answer()).status == 200


async def test_a_removed_node_that_responds_gets_its_responses_and_then_nothing(three: Machines) -> None:
    removed, here, _ = three.all
    gate = Gate()
    app = await here.stage.app(gate.handler)
    three.route()
    three.endpoints(on(here, app))
    idle, busy = await entered(removed, "/"), await entered(removed, "/")
    await eventually(lambda: gate.inside == 2)
    gate.proceed.release()
    answers = [asyncio.ensure_future(each.answer()) for each in (idle, busy)]
    done, open_ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
    assert {each.result().status for each in done} == {200}
    here.gateway.nodes.change(removed.name, None)
    here.listener.node_removed(removed.name)
    await eventually(lambda: len(here.relays) == 1)
    (connection,) = here.relays
    gate.proceed.release()
    assert {(await each).status for each in open_} == {200}
    client = await entered(removed, "/")
    await eventually(lambda: connection not in here.relays)
    assert gate.inside == 0
    client.close()


async def test_a_response_that_began_is_cut_off_when_its_machine_is_lost(three: Machines) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await reader.read()

    here, lost, _ = three.all
    app: App = await lost.stage.app(handler)
    three.route()
    three.endpoints(on(lost, app))
    client = await entered(here, "/")
    assert (await client.head())[0] == 200
    three.cut_off(lost)
    await silent(here, lost)
    here.gateway.nodes.change(lost.name, None)
    assert b"0\r\n\r\n" not in await client.closed()
