"""The log of requests: one JSON object a line, written in batches. Costs nothing while it is off."""

import asyncio
import random
import sys
import time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from activator.exchange import Exchange
    from activator.gateway import Gateway

FLUSH_SECONDS = 0.25
MOST = 20_000
"""Lines kept until the next flush; what comes beyond is counted, not kept."""


class AccessLog:
    """Collects lines; `run` writes them."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._lines: list[bytes] = []
        self._dropped = 0
        self.part = 1.0
        """Of all requests, those that are logged: 0 to 1, drawn by chance."""

    def add(self, exchange: "Exchange", status: int, now: float) -> None:
        """A request ended. Args: status: 499 when the client went away. now: on the loop's clock."""
        if self.part < 1 and random.random() >= self.part:  # noqa: S311 - a sample, not a secret
            return
        if len(self._lines) >= MOST:
            self._dropped += 1
            return
        head, instance = exchange.head, exchange.instance
        line = {
            "event": "request",
            "time": round(time.time(), 3),
            "method": head.method.decode(),
            "host": head.authority.decode("latin-1"),
            "path": head.target.decode("latin-1"),
            "status": status,
            "seconds": round(now - exchange.began, 6),
            "waited": round(max(0.0, exchange.started - exchange.began), 6),
            "revision": exchange.revision.name,
            "instance": instance.id if instance is not None else "",
            "client": exchange.client,
        }
        self._lines.append(msgspec.json.encode(line))

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self.flush()

    def flush(self) -> None:
        """Write what there is."""
        lines, self._lines = self._lines, []
        if self._dropped:
            lines.append(msgspec.json.encode({"event": "requests not logged", "count": self._dropped}))
            self._dropped = 0
        if lines:
            sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
            sys.stdout.buffer.flush()
