"""Waits of this node for the last requests of its instances. The leader answers them from the activators' reports."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

Waiter = Callable[[str, str, float], Coroutine[Any, Any, bool]]
"""See `Draining.wait_until_drained`."""


@dataclass(slots=True)
class DrainRequest:
    """The wait for the last requests of one instance."""

    number: int
    """Identifies the wait; increases with each one, also across restarts of this process."""
    revision: str
    grace_seconds: float
    answered: "asyncio.Future[bool]"
    task: asyncio.Task[None] | None = None
    """Asks the leader in this process; None while another process leads."""


class DrainRequests:
    """All waits of one node. They stay pending without a leader; the next leader starts each of them again."""

    def __init__(self, clock: Callable[[], float], on_change: Callable[[str], None]) -> None:
        """
        Args:
            clock: epoch seconds.
            on_change: called with the Revision, `namespace/name`, when a wait begins.
        """
        self._clock, self._on_change = clock, on_change
        self._requests: dict[str, DrainRequest] = {}
        """By instance."""
        self._leader: Waiter | None = None
        self._context = contextvars.copy_context()
        """Context of the leader: writes in it stop when its lease ends."""
        self._last = 0

    def get(self, instance: str) -> DrainRequest | None:
        """Return the wait of an instance; None when there is none."""
        return self._requests.get(instance)

    async def wait(self, instance: str, revision: str, grace_seconds: float) -> bool:
        """Wait until no request is left in an instance; see `Draining.wait_until_drained`."""
        self._last = max(self._last + 1, round(self._clock() * 1000))
        request = DrainRequest(self._last, revision, grace_seconds, asyncio.get_running_loop().create_future())
        self._requests[instance] = request
        self._begin(instance, request)
        self._on_change(revision)
        try:
            return await request.answered
        finally:
            if request.task is not None:
                request.task.cancel()
            if self._requests.get(instance) is request:
                del self._requests[instance]

    def connect(self, leader: Waiter | None) -> None:
        """Ask this leader from now on. Args: leader: in this process; None when it has stopped leading."""
        self._leader, self._context = leader, contextvars.copy_context()
        for instance, request in self._requests.items():
            if request.task is not None:
                request.task.cancel()
                request.task = None
            self._begin(instance, request)

    def answer(self, instance: str, number: int, *, empty: bool) -> None:
        """End a wait. Args: empty: whether no request is left."""
        request = self._requests.get(instance)
        if request is not None and request.number == number and not request.answered.done():
            request.answered.set_result(empty)

    def _begin(self, instance: str, request: DrainRequest) -> None:
        if self._leader is not None:
            asking = self._ask(self._leader, instance, request)
            request.task = asyncio.get_running_loop().create_task(asking, context=self._context)

    async def _ask(self, leader: Waiter, instance: str, request: DrainRequest) -> None:
        try:
            empty = await leader(instance, request.revision, request.grace_seconds)
        except Exception as error:
            if not request.answered.done():
                request.answered.set_exception(error)
        else:
            self.answer(instance, request.number, empty=empty)
