"""Leadership of this process: a new `Leader` each time that it holds the lease."""

from collections.abc import Callable

import structlog

from autoscaler.leader.leader import Leader
from autoscaler.node.isolation import Isolation
from autoscaler.revisions.revision_scaler import RevisionScaler
from autoscaler.runtime.protocol import Runtime
from knoll.concurrency.backoff import Backoff
from knoll.values.errors import KnollError

log = structlog.get_logger()


class LeaderDuty:
    """What this process does while it leads."""

    def __init__(self, runtime: Runtime, make_leader: Callable[[], Leader]) -> None:
        self._runtime, self._make_leader = runtime, make_leader
        self.scalers: dict[str, RevisionScaler] = {}
        """By uid; empty while another process leads."""
        self._isolation: Isolation | None = None

    @property
    def problem(self) -> str:
        """Why instances cannot be started; empty when they can."""
        return self._isolation.problem if self._isolation else ""

    async def run(self) -> None:
        """Lead until cancelled."""
        leader = self._make_leader()
        self.scalers, self._isolation = leader.registry.by_uid, leader.isolation
        try:
            await self._take_over()
            await leader.run()
        finally:
            self.scalers, self._isolation = {}, None
            await self._runtime.step_down()

    async def _take_over(self) -> None:
        """Wait for the engine: it may be unavailable, and nothing can be done without it."""
        backoff = Backoff()
        while True:
            try:
                await self._runtime.take_over()
                return
            except KnollError as error:
                log.warning("engine unavailable, waiting to take over", error=str(error))
                await backoff.wait()
