"""The warm pool: sandboxes created ahead of demand. Setting up a network is most of a cold start.

`target_size` and `next_step` decide without I/O; `Pool` creates, hands out and removes.

A host name cannot be changed once a container was created, and containers that join a sandbox have the sandbox's: the
engine refuses a host name of their own, the sysctl for it and a shared UTS namespace (tried with Docker 26). So an app
in a sandbox from the pool finds the instance's name in `HOSTNAME`, and `knoll-<token>`, unique as well, from
gethostname(2) and in /etc/hostname; in a sandbox created on demand all three are the instance's name (its first 63
characters, as in Kubernetes).
"""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from autoscaler.runtime.docker import labels, payloads
from autoscaler.runtime.docker.engine import Engine, EngineError
from autoscaler.runtime.docker.listing import ListedContainer
from autoscaler.runtime.docker.own_image import OwnImage
from knoll.concurrency.backoff import Backoff
from knoll.values.errors import ImageError, KnollError, RuntimeUnavailableError

log = structlog.get_logger()

BURST_SECONDS = 2.0
"""Starts this close together are one burst: a sandbox cannot be created between them."""
MEMORY_SECONDS = 600.0
"""How long a burst keeps the pool at its size."""
BASE = 2
"""Kept even without demand: one for the next request, one for a second Revision."""
AFTER_START_SECONDS = 0.3
"""Pause after the last start before a sandbox is created: the app that was started is still booting."""
OVERDUE_SECONDS = 2.0
"""When starts never pause, sandboxes are created beside them after this time."""


def target_size(bound: int, starts: Sequence[float], now: float, warm_demand: int = 0) -> int:
    """Return how many spare sandboxes to have.

    Args:
        bound: the maximum, >= 0; 0 turns the pool off.
        starts: when instances were requested, in order, on any clock.
        now: on that clock.
        warm_demand: Revisions without an instance that get one with the next request, >= 0.

    Returns:
        The largest burst of the last `MEMORY_SECONDS`; at least one for each Revision in `warm_demand`, so that the
        first burst is as fast as later ones; at least `BASE`, at most `bound`.
    """
    recent = [at for at in starts if now - at <= MEMORY_SECONDS]
    burst, first = 0, 0
    for last, at in enumerate(recent):
        while at - recent[first] > BURST_SECONDS:
            first += 1
        burst = max(burst, last - first + 1)
    return min(bound, max(BASE, burst, warm_demand))


def next_step(
    *, spare: int, target: int, starting: int, quiet_for: float, short_for: float
) -> Literal["create", "remove", "wait"]:
    """Return what to do next for the pool.

    Args:
        spare: spare sandboxes, >= 0.
        target: result of `target_size`.
        starting: instances being started right now; they come first.
        quiet_for: seconds since the last start ended.
        short_for: seconds since the pool went below `target`.
    """
    if spare > target:
        return "remove"
    if spare == target:
        return "wait"
    calm = not starting and quiet_for >= AFTER_START_SECONDS
    return "create" if calm or short_for >= OVERDUE_SECONDS else "wait"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox."""

    id: str
    name: str
    address: str
    group: str


class Pool:
    """The spare sandboxes of one platform. Owned by the driver, which runs `keep`.

    Attributes beyond a dozen are the counts and times from which the size of the pool follows.
    """

    def __init__(self, engine: Engine, image: OwnImage, platform: str, network: str, bound: int, dns: str = "") -> None:
        self._engine, self._platform, self._network, self._bound = engine, platform, network, bound
        self._image = image
        self._dns = dns
        self._spare: deque[Sandbox] = deque()
        self._starts: deque[float] = deque()
        self._starting = self._warm_demand = 0
        self._handed_out: set[str] = set()
        self._quiet_since = self._short_since = 0.0
        self._changed = asyncio.Event()
        self._reported_error = ""

    @property
    def spare(self) -> int:
        """Number of spare sandboxes."""
        return len(self._spare)

    def adopt(self, sandboxes: Iterable[ListedContainer]) -> None:
        """Take over the spare sandboxes that an earlier process created."""
        own = {sandbox.id for sandbox in self._spare} | self._handed_out
        self._spare.extend(
            Sandbox(sandbox.id, sandbox.name, sandbox.address, sandbox.labels.get(labels.GROUP, ""))
            for sandbox in sandboxes
            if sandbox.id not in own
        )
        # Their number is the burst size that the last process had learned.
        now = asyncio.get_running_loop().time()
        self._starts.extend([now] * (len(self._spare) - len(self._starts)))
        self._changed.set()

    def forget(self, sandbox_id: str) -> bool:
        """Remove a sandbox that ended; returns whether it was a spare one."""
        before = len(self._spare)
        self._spare = deque(sandbox for sandbox in self._spare if sandbox.id != sandbox_id)
        self._changed.set()
        return len(self._spare) < before

    def forget_all(self) -> None:
        """Forget all spare sandboxes: the engine was unavailable, and `adopt` follows."""
        self._spare.clear()

    def start_requested(self) -> None:
        """Record a start, which may wait for its turn: the size of the pool follows from these."""
        now = asyncio.get_running_loop().time()
        self._starts.append(now)
        while now - self._starts[0] > MEMORY_SECONDS:
            self._starts.popleft()

    def set_warm_demand(self, revisions: int) -> None:
        """Set how many Revisions may be woken; see `target_size`."""
        if revisions != self._warm_demand:
            self._warm_demand = revisions
            self._changed.set()

    async def take(self, instance: str) -> Sandbox:
        """Return a sandbox for an instance: a spare or a new one. Call `done` afterwards, unless it raised."""
        self._starting += 1
        # Most likely this start wakes a Revision; the next call of `set_warm_demand` corrects the number.
        self._warm_demand = max(0, self._warm_demand - 1)
        try:
            sandbox = self._spare.popleft() if self._spare else await self.create_for(instance)
        except BaseException:
            self._ended()
            raise
        self._handed_out.add(sandbox.id)
        return sandbox

    def done(self, sandbox: Sandbox) -> None:
        """The start that took a sandbox has ended, successfully or not."""
        self._handed_out.discard(sandbox.id)
        self._ended()

    def _ended(self) -> None:
        self._starting -= 1
        self._quiet_since = asyncio.get_running_loop().time()
        self._changed.set()

    async def keep(self) -> None:
        """Keep the pool at its target size, forever."""
        backoff = Backoff()
        while True:
            self._changed.clear()
            try:
                pause = await self._step()
                backoff.reset()
                self._reported_error = ""
            except KnollError as error:
                if str(error) != self._reported_error:
                    log.warning("spare sandbox not created, retrying", error=str(error))
                self._reported_error = str(error)
                pause = backoff.next_pause()
            if pause > 0:
                # Not wait_for: before Python 3.12 it may swallow a cancellation that arrives with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._changed.wait()

    async def drain(self) -> None:
        """Remove all spare sandboxes."""
        while self._spare:
            await self._engine.remove(self._spare.popleft().id)

    async def _step(self) -> float:
        """Carry out `next_step`; returns the longest time until the next call, in seconds."""
        now = asyncio.get_running_loop().time()
        target = target_size(self._bound, self._starts, now, self._warm_demand)
        if len(self._spare) >= target:
            self._short_since = now
        action = next_step(
            spare=len(self._spare),
            target=target,
            starting=self._starting,
            quiet_for=now - self._quiet_since,
            short_for=now - self._short_since,
        )
        if action == "create":
            token = secrets.token_hex(5)
            sandbox = await self._create(labels.spare_name(self._platform, token), f"knoll-{token}")
            self.forget(sandbox.id)  # adopted while it was being created
            self._spare.append(sandbox)
        elif action == "remove":
            await self._engine.remove(self._spare.pop().id)
        else:
            return MEMORY_SECONDS / 10 if len(self._spare) >= target else AFTER_START_SECONDS
        return 0.0

    async def create_for(self, instance: str) -> Sandbox:
        """Create a sandbox of its own for an instance, with its host name."""
        return await self._create(labels.sandbox_name(self._platform, instance), instance[:63].rstrip("-."))

    async def _create(self, name: str, hostname: str) -> Sandbox:
        group = f"knoll-{secrets.token_hex(8)}"
        created: str | None = None
        try:
            body = payloads.sandbox(self._platform, self._network, await self._image.id(), hostname, group, self._dns)
            created = await self._engine.create(body, name)
            await self._engine.post(f"/containers/{created}/start")
            inspected = await self._engine.get(f"/containers/{created}/json")
            address = inspected["NetworkSettings"]["Networks"][self._network]["IPAddress"]
            return Sandbox(created, name, address, group)
        except (EngineError, ImageError) as error:
            if created is None:
                self._image.forget()
            await self._discard(created)
            raise RuntimeUnavailableError(f"the engine cannot create a sandbox: {error}") from error
        except BaseException:
            await asyncio.shield(self._discard(created))
            raise

    async def _discard(self, sandbox_id: str | None) -> None:
        if sandbox_id:
            await self._engine.remove(sandbox_id)
