"""Servers without timers: the date of responses, and their end."""

import asyncio
import re

import pytest
from starlette.responses import PlainTextResponse

from knoll.process import admin


async def get(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = (await reader.read()).decode()
    writer.close()
    return answer


async def test_responses_have_the_time_at_which_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    server = admin.QuietServer(admin.config(PlainTextResponse("ok"), "127.0.0.1", 0))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0)
    port = server.servers[0].sockets[0].getsockname()[1]
    dates = []
    for now in (1_000_000_000.0, 1_000_000_060.5):
        monkeypatch.setattr("time.time", lambda now=now: now)
        dates += re.findall(r"date: (.*)\r", await get(port))
    assert dates == ["Sun, 09 Sep 2001 01:46:40 GMT", "Sun, 09 Sep 2001 01:47:40 GMT"]
    server.should_exit = True
    await serving
