"""The engine's events, converted and passed to all listeners; reconnects when the engine was unavailable."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import Any

import structlog

from autoscaler.runtime.docker import labels
from autoscaler.runtime.docker.engine import Engine, EngineError
from autoscaler.runtime.model import KILLED, ContainerDied, InstanceLost, Resync, RuntimeEvent
from knoll.values.errors import KnollError

log = structlog.get_logger()

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between attempts to reach the engine."""
BACKLOG = 10_000
"""Events that a listener may lag behind; beyond that it gets a `Resync`."""
EXPECTED = 4096
"""Ids of containers that we stop; the oldest are dropped."""


class EventWatch:
    """Reads `GET /events` for one platform."""

    def __init__(
        self,
        engine: Engine,
        platform: str,
        *,
        on_sandbox_died: Callable[[str], None],
        on_resync: Callable[[], Awaitable[None]],
    ) -> None:
        """
        Args:
            engine: to read from.
            platform: name of the platform whose containers are followed.
            on_sandbox_died: called with the id of each sandbox that ended.
            on_resync: called once the stream is open again, before listeners are notified; may raise KnollError.
        """
        self._engine, self._platform = engine, platform
        self._on_sandbox_died, self._on_resync = on_sandbox_died, on_resync
        self._listeners: set[asyncio.Queue[RuntimeEvent]] = set()
        self._expected: deque[str] = deque(maxlen=EXPECTED)
        self._sandboxes: dict[str, tuple[str, str]] = {}
        self._once: set[str] = set()
        self._oom: set[str] = set()

    def expect(self, ids: Iterable[str]) -> None:
        """We stop these containers: their end is not reported."""
        self._expected.extend(ids)

    def expect_once(self, ids: Iterable[str]) -> None:
        """We stop these running containers and may start them again: only their next end is not reported."""
        self._once |= set(ids)

    def add_sandbox(self, sandbox_id: str, instance: str, revision: str) -> None:
        """Add the instance of a sandbox, which is not in the sandbox's labels."""
        self._sandboxes[sandbox_id] = (instance, revision)

    async def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """See `Runtime.events`."""
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield Resync("the stream begins")
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    async def run(self) -> None:
        """Read forever."""
        pause, first = FIRST_PAUSE, True
        while True:
            try:
                async with self._engine.stream("GET", "/events", query=_query(self._platform)) as answer:
                    self._once.clear()
                    if not first:
                        await self._on_resync()
                        self._emit(Resync("the container engine is available again"))
                    pause, first = FIRST_PAUSE, False
                    async for line in self._engine.lines(answer):
                        await self._handle(json.loads(line))
                log.warning("engine event stream closed, reconnecting")
            except KnollError as error:
                log.warning("engine event stream unavailable, reconnecting", error=str(error), in_seconds=pause)
            first = False
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _handle(self, event: Mapping[str, Any]) -> None:
        action, attributes = event["Action"], event["Actor"]["Attributes"]
        container_id, at = event["Actor"]["ID"], event.get("timeNano", 0) / 1e9
        if action == "oom":
            self._oom.add(container_id)
        elif attributes.get(labels.ROLE) == "sandbox":
            self._sandbox_ended(container_id, at)
        else:
            await self._ended(container_id, attributes, at)

    def _sandbox_ended(self, container_id: str, at: float) -> None:
        self._on_sandbox_died(container_id)
        owner = self._sandboxes.pop(container_id, None)
        if owner and container_id not in self._expected:
            self._emit(InstanceLost(*owner, at=at))

    async def _ended(self, container_id: str, attributes: Mapping[str, str], at: float) -> None:
        oom = container_id in self._oom
        self._oom.discard(container_id)
        if container_id in self._once:
            self._once.discard(container_id)
            return
        if container_id in self._expected or attributes.get(labels.ROLE) != "app":
            return
        code = int(attributes.get("exitCode", "0"))
        if code == KILLED and not oom:
            oom = await self._was_oom(container_id)
        self._emit(
            ContainerDied(
                instance=attributes[labels.INSTANCE],
                revision=attributes[labels.REVISION],
                container=attributes[labels.CONTAINER],
                exit_code=code,
                oom_killed=oom,
                at=at,
            )
        )

    async def _was_oom(self, container_id: str) -> bool:
        """Inspect the state: the kernel's OOM event may arrive after the event of the end."""
        try:
            return bool((await self._engine.get(f"/containers/{container_id}/json"))["State"]["OOMKilled"])
        except EngineError:
            return False

    def _emit(self, event: RuntimeEvent) -> None:
        for queue in self._listeners:
            if queue.qsize() >= BACKLOG:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(Resync("the listener is too far behind"))
            else:
                queue.put_nowait(event)


def _query(platform: str) -> dict[str, str]:
    filters = {"type": ["container"], "event": ["die", "oom"], "label": [f"{labels.PLATFORM}={platform}"]}
    return {"filters": json.dumps(filters)}
