"""Sandboxes made ahead. Setting up a network is most of a cold start, so it is done before anybody waits for it.

`wanted` and `step` decide (pure); `Pool` makes, hands out and removes.

A host name cannot be changed once a container was made, and those that join a sandbox have the sandbox's: the engine
refuses a host name of their own, the sysctl for it and a shared UTS namespace (tried with Docker 26). So an app in a
sandbox made ahead finds the instance's name in `HOSTNAME`, and `knoll-<token>`, unique as well, from gethostname(2)
and in /etc/hostname; in a sandbox made on demand all three are the instance's name (its first 63 characters, as in
Kubernetes).
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
from autoscaler.runtime.docker.listing import Listed
from autoscaler.runtime.docker.own_image import OwnImage
from knoll.values.errors import ImageError, KnollError, RuntimeUnavailableError

log = structlog.get_logger()

BURST_SECONDS = 2.0
"""Starts this close together are one burst: a sandbox cannot be made between them."""
MEMORY_SECONDS = 600.0
"""How long a burst keeps the pool as large as it was."""
BASE = 2
"""Kept even when nothing happens: one for the next request, one for its neighbour."""
QUIET_SECONDS = 0.3
"""An app that was started just now still boots; making sandboxes waits that long after the last start."""
HUNGRY_SECONDS = 2.0
"""With starts that never pause, sandboxes are made beside them after all."""
RETRY_SECONDS = 1.0


def wanted(bound: int, starts: Sequence[float], now: float, asleep: int = 0) -> int:
    """How many spare sandboxes to have.

    Args:
        bound: most of them, >= 0; 0 turns the pool off.
        starts: when instances were asked for, in order, any clock.
        now: on that clock.
        asleep: Revisions that have no instance and get one as soon as they are asked for, >= 0.

    Returns:
        The largest burst of the last `MEMORY_SECONDS`; at least one for each that may be woken, so that the first
        burst finds what later ones do; at least `BASE`, at most `bound`.
    """
    recent = [at for at in starts if now - at <= MEMORY_SECONDS]
    burst, first = 0, 0
    for last, at in enumerate(recent):
        while at - recent[first] > BURST_SECONDS:
            first += 1
        burst = max(burst, last - first + 1)
    return min(bound, max(BASE, burst, asleep))


def step(
    *, spare: int, want: int, starting: int, quiet_for: float, short_for: float
) -> Literal["make", "drop", "wait"]:
    """What to do next for the pool.

    Args:
        spare: sandboxes at hand, >= 0.
        want: what `wanted` said.
        starting: instances being started right now; they come first.
        quiet_for: seconds since the last start ended.
        short_for: seconds since the pool went below `want`.
    """
    if spare > want:
        return "drop"
    if spare == want:
        return "wait"
    calm = not starting and quiet_for >= QUIET_SECONDS
    return "make" if calm or short_for >= HUNGRY_SECONDS else "wait"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox."""

    id: str
    name: str
    address: str
    group: str


class Pool:
    """The spare sandboxes of one platform. Owned by the driver, which runs `keep`."""

    def __init__(self, engine: Engine, image: OwnImage, platform: str, network: str, bound: int, dns: str = "") -> None:
        self._engine, self._platform, self._network, self._bound = engine, platform, network, bound
        self._image = image
        self._dns = dns
        self._spare: deque[Sandbox] = deque()
        self._starts: deque[float] = deque()
        self._starting = self._asleep = 0
        self._handed_out: set[str] = set()
        self._quiet_since = self._short_since = 0.0
        self._changed = asyncio.Event()
        self._complaint = ""

    @property
    def spare(self) -> int:
        """Sandboxes at hand."""
        return len(self._spare)

    def adopt(self, found: Iterable[Listed]) -> None:
        """Take over the spare sandboxes that an earlier process made."""
        known = {one.id for one in self._spare} | self._handed_out
        self._spare.extend(
            Sandbox(one.id, one.name, one.address, one.labels.get(labels.GROUP, ""))
            for one in found
            if one.id not in known
        )
        # They say how many came at once before the last process died; it forgets nothing by that.
        now = asyncio.get_running_loop().time()
        self._starts.extend([now] * (len(self._spare) - len(self._starts)))
        self._changed.set()

    def forget(self, sandbox_id: str) -> bool:
        """A sandbox ended; True when it was a spare one."""
        before = len(self._spare)
        self._spare = deque(one for one in self._spare if one.id != sandbox_id)
        self._changed.set()
        return len(self._spare) < before

    def forget_all(self) -> None:
        """The engine was away: what it has now is for `adopt` to say."""
        self._spare.clear()

    def asked(self) -> None:
        """A start was asked for, and may wait for its turn: what the size of the pool is learned from."""
        now = asyncio.get_running_loop().time()
        self._starts.append(now)
        while now - self._starts[0] > MEMORY_SECONDS:
            self._starts.popleft()

    def expect(self, asleep: int) -> None:
        """So many Revisions may be woken; see `wanted`."""
        if asleep != self._asleep:
            self._asleep = asleep
            self._changed.set()

    async def take(self, instance: str) -> Sandbox:
        """A sandbox for an instance: a spare one at once, or a new one. Call `done` afterwards, unless it raised."""
        self._starting += 1
        # Whoever takes one has most likely woken by that; the next word says how many sleep.
        self._asleep = max(0, self._asleep - 1)
        try:
            sandbox = self._spare.popleft() if self._spare else await self._make_for(instance)
        except BaseException:
            self._ended()
            raise
        self._handed_out.add(sandbox.id)
        return sandbox

    def done(self, sandbox: Sandbox) -> None:
        """The start that took a sandbox has ended, well or not."""
        self._handed_out.discard(sandbox.id)
        self._ended()

    def _ended(self) -> None:
        self._starting -= 1
        self._quiet_since = asyncio.get_running_loop().time()
        self._changed.set()

    async def keep(self) -> None:
        """Keep as many spare sandboxes as wanted, for ever."""
        while True:
            self._changed.clear()
            try:
                pause = await self._one_step()
                self._complaint = ""
            except KnollError as error:
                if str(error) != self._complaint:
                    log.warning("cannot make a sandbox ahead, trying again", error=str(error))
                self._complaint = str(error)
                pause = RETRY_SECONDS
            if pause > 0:
                # Not wait_for: before Python 3.12 it may swallow a cancellation that comes with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._changed.wait()

    async def drain(self) -> None:
        """Remove all spare sandboxes."""
        while self._spare:
            await self._engine.remove(self._spare.popleft().id)

    async def _one_step(self) -> float:
        """Do what `step` says; returns seconds until the next look, at most."""
        now = asyncio.get_running_loop().time()
        want = wanted(self._bound, self._starts, now, self._asleep)
        if len(self._spare) >= want:
            self._short_since = now
        what = step(
            spare=len(self._spare),
            want=want,
            starting=self._starting,
            quiet_for=now - self._quiet_since,
            short_for=now - self._short_since,
        )
        if what == "make":
            token = secrets.token_hex(5)
            made = await self._make(labels.spare_name(self._platform, token), f"knoll-{token}")
            self.forget(made.id)  # adopted while it was being made
            self._spare.append(made)
        elif what == "drop":
            await self._engine.remove(self._spare.pop().id)
        else:
            return MEMORY_SECONDS / 10 if len(self._spare) >= want else QUIET_SECONDS
        return 0.0

    async def _make_for(self, instance: str) -> Sandbox:
        return await self._make(labels.sandbox_name(self._platform, instance), instance[:63].rstrip("-."))

    async def _make(self, name: str, hostname: str) -> Sandbox:
        group = f"knoll-{secrets.token_hex(8)}"
        made: str | None = None
        try:
            body = payloads.sandbox(self._platform, self._network, await self._image.id(), hostname, group, self._dns)
            made = await self._engine.create(body, name)
            await self._engine.post(f"/containers/{made}/start")
            seen = await self._engine.get(f"/containers/{made}/json")
            address = seen["NetworkSettings"]["Networks"][self._network]["IPAddress"]
            return Sandbox(made, name, address, group)
        except (EngineError, ImageError) as error:
            if made is None:
                self._image.forget()
            await self._discard(made)
            raise RuntimeUnavailableError(f"the engine cannot make a sandbox: {error}") from error
        except BaseException:
            await asyncio.shield(self._discard(made))
            raise

    async def _discard(self, made: str | None) -> None:
        if made:
            await self._engine.remove(made)
