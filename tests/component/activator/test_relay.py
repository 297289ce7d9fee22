"""Requests that reach an instance of another node through that node's gateway."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from knoll.messages.routing import RequestPolicy
from tests.component.activator.machines import Machines, machines, on
from tests.component.activator.stage import HOST, read_request
from tests.waiting import eventually


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Machines]:
    async with machines(tmp_path) as made:
        yield made


async def test_a_request_reaches_an_instance_of_another_node(pair: Machines) -> None:
    pair.route()
    app = await pair[1].stage.app()
    pair.endpoints(on(pair[1], app))
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
    assert len(app.requests) == 3
    assert app.connections == 1
    await eventually(lambda: not pair[1].in_flight(app.name) and not pair[0].in_flight(app.name))
