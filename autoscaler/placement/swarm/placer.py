"""The placer of a platform on several machines: creates and removes services as the place book decides.

Swarm has no events for tasks, so their states are polled: every 20 ms while Swarm is deciding, because instances wait
for that, and rarely otherwise. The event of a machine's engine, which creates the container, comes 0.1 s
after the manager's decision (measured: 0.17 and 0.06 s after the request).
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

import structlog

from autoscaler.decision.capacity import ResourceRequest
from autoscaler.placement.protocol import ANYWHERE, Constraints, OnBound, OnProblem
from autoscaler.placement.swarm.client import ServiceExistsError, Swarm, SwarmError
from autoscaler.placement.swarm.model import Cluster
from autoscaler.placement.swarm.place_book import PlaceBook
from autoscaler.placement.swarm.places import Place, PlaceOptions, PlaceState
from autoscaler.placement.swarm.services import platform_label, size_of
from knoll.concurrency.backoff import Backoff
from knoll.engine_proxy import reservations
from knoll.values.errors import KnollError

log = structlog.get_logger()

SYNC_SECONDS = 10.0
"""Interval at which all services and tasks are compared."""
SHORT_OF_NODES_SECONDS = 1.0
"""The same while an instance has no node."""
DECIDING_SECONDS, STARTING_SECONDS, WAITING_SECONDS = 0.02, 0.1, 0.25
"""Intervals at which tasks are read: of those that Swarm is deciding on, that start, and that wait for capacity."""
REMOVALS_AT_ONCE = 8
PATIENCE_SECONDS = 0.5
"""Without a response for so long, Swarm counts as not deciding: managers without a leader respond after 5 s."""
PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts while no manager responds."""
DEFAULTS = PlaceOptions()


class SwarmPlacer:
    """See `Placer`."""

    def __init__(
        self,
        swarm: Swarm,
        platform: str,
        image: Callable[[], Awaitable[str]],
        nodes: Callable[[], Mapping[str, str]],
        options: PlaceOptions = DEFAULTS,
    ) -> None:
        """
        Args:
            image: provides the image of reservations on this machine, and returns its id; see `reservation_image`.
            nodes: returns each responding node of the platform and its id in the Swarm.
        """
        self._swarm, self._platform, self._image, self._nodes = swarm, platform, image, nodes
        self._book = PlaceBook(options, partial(_new_name, platform))
        self._problems: dict[str, str] = {}
        """By instance, as last reported."""
        self._unavailable = ""
        """Why nothing can be placed at all."""
        self._wake = asyncio.Event()
        self._synced_at = float("-inf")

    def begin(self, on_bound: OnBound, on_problem: OnProblem) -> None:
        self._on_bound, self._on_problem = on_bound, on_problem

    def restore(self, instance: str, node: str, request: ResourceRequest) -> None:
        self._book.restore(instance, node, size_of(request))
        self._wake.set()

    def place(self, instance: str, request: ResourceRequest, constraints: Constraints = ANYWHERE) -> None:
        if not self._book.swarm_decides:
            self._book.cluster = Cluster(dict(self._nodes()), self._book.cluster.machines)
        namespace = request.charge.namespace if request.charge else ""
        self._book.place(instance, size_of(request), constraints, namespace)
        self._wake.set()
        self._report()

    def withdraw(self, instance: str) -> None:
        self._problems.pop(instance, None)
        self._book.withdraw(instance, self._now())
        self._wake.set()
        self._report()

    def problem(self, instance: str) -> str:
        return self._problems.get(instance, "")

    async def run(self) -> None:
        backoff = Backoff(PAUSES)
        while True:
            self._wake.clear()
            waiting = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._set_decides, False)
            try:
                await self._step()
                self._set_decides(True)
            except KnollError as error:
                self._set_decides(False)
                self._unavailable, self._synced_at = str(error), float("-inf")
                log.warning("swarm unavailable, retrying", error=str(error))
                self._report()
                await backoff.wait()
                continue
            finally:
                waiting.cancel()
            if self._unavailable:
                log.info("swarm available again")
            self._unavailable = ""
            backoff.reset()
            self._report()
            pause = self._pause()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    def _set_decides(self, decides: bool) -> None:
        self._book.swarm_decides = decides

    async def _step(self) -> None:
        """Read the changes in the Swarm, and carry out the plan."""
        interval = SHORT_OF_NODES_SECONDS if self._book.unbound() else SYNC_SECONDS
        self._book.cluster = Cluster(dict(self._nodes()), self._book.cluster.machines)
        if self._now() - self._synced_at >= interval:
            await self._sync()
        elif services := self._book.undecided(PlaceState.REQUESTED, PlaceState.WAITING, PlaceState.STARTING):
            try:
                self._book.observe(await self._swarm.tasks(self._label, services), self._now())
            except SwarmError:  # one of the services does not exist
                await self._sync()
        self._report()
        plan = self._book.plan(self._now())
        self._report()
        await self._create_all(plan.create)
        await _all(self._remove(each) for each in plan.remove[:REMOVALS_AT_ONCE])

    async def _sync(self) -> None:
        before = self._book.services()
        machines = {machine.id: machine for machine in await self._swarm.nodes()}
        services = await self._swarm.services(self._label)
        tasks = await self._swarm.tasks(self._label)
        self._book.cluster = Cluster(dict(self._nodes()), machines)
        self._book.sync(services, tasks, before, self._now())
        self._synced_at = self._now()

    async def _create_all(self, places: Sequence[Place]) -> None:
        if not places:
            return
        try:
            image = await self._image()
        except KnollError:
            for place in places:
                self._book.refused(place.name, "", self._now())
            raise
        await _all(self._create(place, image) for place in places)

    async def _create(self, place: Place, image: str) -> None:
        error = ""
        try:
            size = place.size
            body = reservations.service(
                self._platform, place.name, image, size.nano_cpus, size.memory_bytes, place.constraints
            )
            self._book.created(place.name, await self._swarm.create_service(body))
            return
        except ServiceExistsError:  # an earlier call has created it after all
            self._synced_at = float("-inf")
        except SwarmError as refusal:
            error = str(refusal)
            log.warning("place refused", place=place.name, error=error)
        except KnollError:
            self._book.refused(place.name, "", self._now())
            raise
        self._book.refused(place.name, error, self._now())

    async def _remove(self, service: str) -> None:
        await self._swarm.remove_service(service)
        self._book.removed(service)

    def _pause(self) -> float:
        """Return the seconds until the next step, unless a call wakes the loop before."""
        book = self._book
        for seconds, state in (
            (DECIDING_SECONDS, PlaceState.REQUESTED), (STARTING_SECONDS, PlaceState.STARTING),
            (WAITING_SECONDS, PlaceState.WAITING),
        ):  # fmt: skip
            if book.undecided(state):
                return seconds
        if book.is_blocked() or book.has_removals():
            return STARTING_SECONDS
        return SHORT_OF_NODES_SECONDS if book.unbound() else SYNC_SECONDS

    def _report(self) -> None:
        """Notify the leader of new bindings, and of problems that have changed."""
        while self._book.bound:
            instance, node = self._book.bound.pop(0)
            if self._problems.pop(instance, ""):
                self._on_problem(instance, "")
            self._on_bound(instance, node)
        for instance in self._book.unbound():
            problem = self._book.problem(instance)
            if self._unavailable:
                problem = f"no node can be chosen while Docker Swarm does not respond: {self._unavailable}"
            if problem != self._problems.get(instance, ""):
                self._problems[instance] = problem
                self._on_problem(instance, problem)

    @property
    def _label(self) -> str:
        return platform_label(self._platform)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


async def remove_all(swarm: Swarm, platform: str) -> None:
    """Remove all places of a platform."""
    services = await swarm.services(platform_label(platform))
    await _all(swarm.remove_service(each.id) for each in services)


def _new_name(platform: str) -> str:
    return reservations.service_name(platform, secrets.token_hex(8))


async def _all(calls: Iterable[Awaitable[None]]) -> None:
    """Make all calls, and then raise the first error, if there is one."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
