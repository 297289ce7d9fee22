"""Leadership of this process on a single machine: both roles are created each time it acquires the lease."""

from collections.abc import Callable, Mapping

import structlog

from autoscaler.node.isolation import Isolation
from autoscaler.revisions.revision_scaler import RevisionScaler
from autoscaler.roles.single_machine import SingleMachine
from autoscaler.runtime.protocol import Runtime
from knoll.concurrency.backoff import Backoff
from knoll.values.errors import KnollError

log = structlog.get_logger()


class SingleMachineDuty:
    """Runs both roles while this process holds the lease."""

    def __init__(self, runtime: Runtime, make: Callable[[], SingleMachine]) -> None:
        self._runtime, self._make = runtime, make
        self.scalers: Mapping[str, RevisionScaler] = {}
        """By uid; empty while another process leads."""
        self._isolation: Isolation | None = None

    @property
    def problem(self) -> str:
        """Why instances cannot be started; empty when they can."""
        return self._isolation.problem if self._isolation else ""

    async def run(self) -> None:
        """Lead until cancelled."""
        machine = self._make()
        self.scalers, self._isolation = machine.scalers, machine.isolation
        try:
            await take_over(self._runtime)
            await machine.run()
        finally:
            self.scalers, self._isolation = {}, None
            await self._runtime.step_down()


async def take_over(runtime: Runtime) -> None:
    """Take over the engine; waits while it is unavailable."""
    backoff = Backoff()
    while True:
        try:
            await runtime.take_over()
            return
        except KnollError as error:
            log.warning("engine unavailable, waiting to take over", error=str(error))
            await backoff.wait()
