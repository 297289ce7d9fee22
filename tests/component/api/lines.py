"""Reading a watch, line by line."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import orjson

from knoll.values.json import Json


class Lines:
    """An open watch."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self, within: float = 10.0) -> Json:
        """The next event. Fails when there is none in time, or the watch has ended."""
        async with asyncio.timeout(within):
            return orjson.loads(await anext(self._lines))  # type: ignore[no-any-return]

    async def take(self, count: int) -> list[tuple[str, str]]:
        """(type, name) of the next events."""
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"]["name"]) for event in events]

    async def rest(self, within: float = 10.0) -> list[Json]:
        """All events until the server ends the watch."""
        async with asyncio.timeout(within):
            return [orjson.loads(line) async for line in self._lines]


@asynccontextmanager
async def watching(client: httpx.AsyncClient, path: str, **parameters: str) -> AsyncIterator[Lines]:
    """Open a watch; its head has arrived."""
    accept = parameters.pop("accept", "application/json")
    async with client.stream("GET", path, params={"watch": "true", **parameters}, headers={"Accept": accept}) as answer:
        assert answer.status_code == 200, await answer.aread()
        yield Lines(answer)
