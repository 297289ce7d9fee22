"""Follows what happens to containers on the engine without our doing, and finds instances that nobody looks after."""

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from autoscaler.instances.instance import RUNGS, Member
from autoscaler.node.retry import patiently
from autoscaler.runtime.protocol import ContainerDied, Instance, InstanceLost, Resync, Runtime

log = structlog.get_logger()

SWEEP_SECONDS = 15.0


class Watching:
    """The engine's word, passed on to the instances that it is about."""

    def __init__(
        self,
        runtime: Runtime,
        members: Callable[[], Iterable[Member]],
        member: Callable[[str], Member | None],
        stranger: Callable[[Instance], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            members: all instances that are looked after.
            member: one of them by its name.
            stranger: told of an instance that is none of them.
        """
        self._runtime, self._members, self._member = runtime, members, member
        self._stranger, self._clock = stranger, clock

    async def follow(self) -> None:
        """Pass events on, for ever."""
        async for event in self._runtime.events():
            match event:
                case ContainerDied(instance=name):
                    member = self._member(name)
                    if member:
                        member.died(event)
                case InstanceLost(instance=name):
                    self._lost(name)
                case Resync():
                    await self._resync()

    async def sweep(self) -> None:
        """Look for instances that nobody looks after: an earlier leader's last ones, told of by no event."""
        strangers: set[str] = set()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            found = await patiently(self._runtime.instances)
            unknown = [one for one in found if self._member(one.name) is None]
            # Seen twice: what is just being removed is gone by the next time.
            for instance in unknown:
                if instance.name in strangers:
                    self._stranger(instance)
            strangers = {one.name for one in unknown}

    async def _resync(self) -> None:
        """Events may have been missed: compare with what the engine has."""
        running = [member for member in self._members() if member.instance is not None and member.stage != "gone"]
        found = {one.name: one for one in await patiently(self._runtime.instances)}
        for member in running:
            now = found.get(member.name)
            if now is None or now.state == "lost":
                self._lost(member.name)
                continue
            if member.stage in RUNGS:
                continue  # that one ended was meant
            for one in now.containers:
                if not one.running and now.state == "exited":
                    code, at = one.exit_code or 0, self._clock()
                    member.died(ContainerDied(member.name, member.revision, one.name, code, one.oom_killed, at))

    def _lost(self, name: str) -> None:
        member = self._member(name)
        if member:
            log.warning("instance lost", instance=name, revision=member.revision)
            member.lose()
