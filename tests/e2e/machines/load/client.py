"""Sends requests to gateways without a pause until its standard input ends; then prints what happened as JSON.

Argument: `KIND HOST GATEWAY` for each client, separated by commas. Kinds: `get` reuses its connection, `connect` opens
one for each request, `slow` takes some seconds, `post` sends a body, `socket` keeps a WebSocket open and `rare` sends a
request every few seconds, so that its Service scales to zero in between.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

BODY = b"x" * 65_536
SLOW_SECONDS, RARE_SECONDS, MESSAGE_SECONDS = 3, 9, 0.1
SOCKET_SECONDS = 12
"""How long a WebSocket is kept open: less than `timeoutSeconds`, which ends it without a close frame."""
GOING_AWAY = (1000, 1001)
"""Close codes that ask a client to connect again."""


class Result:
    """What happened to the requests of all clients."""

    def __init__(self) -> None:
        self.good: Counter[str] = Counter()
        """By kind and gateway."""
        self.failed: list[str] = []
        self.longest: dict[str, float] = {}
        """Seconds of the slowest request, by kind."""

    def record(self, kind: str, gateway: str, began: float, error: str) -> None:
        self.longest[kind] = max(self.longest.get(kind, 0.0), time.time() - began)
        if error:
            self.failed.append(f"{kind} at {gateway}, {began:.2f} to {time.time():.2f}: {error}")
        else:
            self.good[f"{kind} {gateway}"] += 1


async def requests(kind: str, host: str, gateway: str, stop: asyncio.Event, result: Result) -> None:
    """Send requests one after the other."""
    limits = httpx.Limits(max_keepalive_connections=0 if kind == "connect" else 1)
    async with httpx.AsyncClient(base_url=gateway, timeout=60, limits=limits, headers={"Host": host}) as client:
        send: Callable[[], Awaitable[httpx.Response]]
        if kind == "post":
            send, expected = (lambda: client.post("/", content=BODY)), str(len(BODY))
        else:
            seconds = SLOW_SECONDS if kind == "slow" else 0.005
            send, expected = (lambda: client.get("/", params={"sleep": seconds})), ""
        while not stop.is_set():
            began, error = time.time(), ""
            try:
                response = await send()
                if response.status_code != 200 or (expected and response.text != expected):
                    error = f"{response.status_code} {response.text[:200]}"
            except httpx.HTTPError as raised:
                error = repr(raised)
            result.record(kind, gateway, began, error)
            if kind == "rare":
                await pause(stop, RARE_SECONDS)
            elif error:
                await pause(stop, 0.1)


async def messages(host: str, gateway: str, stop: asyncio.Event, result: Result) -> None:
    """Exchange messages over a WebSocket, which is opened again when the program goes away."""
    address, _, port = gateway.removeprefix("http://").partition(":")
    while not stop.is_set():
        began, error = time.time(), ""
        try:
            options: dict[str, Any] = {"host": address, "port": int(port), "open_timeout": 60, "compression": None}
            async with connect(f"ws://{host}/", **options) as tunnel:
                opened = time.time()
                while not stop.is_set() and time.time() - opened < SOCKET_SECONDS:
                    began = time.time()
                    await tunnel.send("hello")
                    assert await asyncio.wait_for(tunnel.recv(), 10) == "hello"
                    result.record("socket", gateway, began, "")
                    await pause(stop, MESSAGE_SECONDS)
        except ConnectionClosed as closed:
            if closed.rcvd is None or closed.rcvd.code not in GOING_AWAY:
                error = repr(closed)
        except Exception as raised:
            error = repr(raised)
        if error:
            result.record("socket", gateway, began, error)
            await pause(stop, 0.1)


async def pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


async def main(clients: list[tuple[str, str, str]]) -> None:
    stop, result = asyncio.Event(), Result()
    running = [
        messages(host, gateway, stop, result) if kind == "socket" else requests(kind, host, gateway, stop, result)
        for kind, host, gateway in clients
    ]
    waiting = asyncio.gather(*running)
    await asyncio.to_thread(sys.stdin.read)
    stop.set()
    await waiting
    print(json.dumps({"good": result.good, "failed": result.failed, "longest": result.longest}))


if __name__ == "__main__":
    parsed = [tuple(each.split()) for each in sys.argv[1].split(",")]
    asyncio.run(main([(kind, host, gateway) for kind, host, gateway in parsed]))
