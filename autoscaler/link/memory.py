"""The link between a leader and a node in one process: they call each other, and share the node's objects."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import structlog

from autoscaler.decision.armed_pool import ArmingCandidate
from autoscaler.instances.armed import ArmedInstance
from autoscaler.link.protocol import ArmedOffer, Blueprint, InstanceReport, LeaderEnd
from autoscaler.runtime.model import Usage
from autoscaler.runtime.protocol import Runtime
from knoll.messages.assignments import Assignment
from knoll.values.errors import KnollError

log = structlog.get_logger()


class LocalArmed(Protocol):
    """The armed instances of the node."""

    def follow(self, candidates: Callable[[], Iterable[ArmingCandidate]] | None) -> None: ...
    def armed(self, uid: str | None = None) -> Sequence[ArmedInstance]: ...
    def wake(self) -> None: ...


class LocalNode(Protocol):
    """The node of this process."""

    @property
    def name(self) -> str: ...
    @property
    def instances(self) -> Mapping[str, InstanceReport]: ...
    @property
    def armed(self) -> LocalArmed: ...
    @property
    def runtime(self) -> Runtime: ...
    def connect(self, leader: LeaderEnd | None) -> None: ...
    def assign(self, assignment: Assignment, blueprint: Blueprint | None = None) -> InstanceReport | None: ...
    def hold(self, armed: str) -> None: ...
    def release_hold(self, instance: str) -> None: ...


class MemoryLink:
    """See `NodeLink`."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node

    async def synced(self) -> None:
        pass  # the node's objects are read directly

    def assignments(self) -> Iterable[Assignment]:
        return ()  # the node's instances are the only record

    def connect(self, leader: LeaderEnd, candidates: Callable[[], Iterable[ArmingCandidate]] | None = None) -> None:
        """See `NodeLink`. Args: candidates: returns the arming candidates of this node; None for all."""
        self._node.connect(leader)
        self._node.armed.follow(candidates or leader.arming_candidates)

    def disconnect(self) -> None:
        self._node.connect(None)
        self._node.armed.follow(None)

    def reports(self) -> Iterable[InstanceReport]:
        return tuple(self._node.instances.values())

    def assign(self, assignment: Assignment, blueprint: Blueprint | None = None) -> InstanceReport | None:
        return self._node.assign(assignment, blueprint)

    def withdraw(self, instance: str) -> None:
        self._node.release_hold(instance)

    def returned(self, node: str) -> None:
        pass  # the node of this process never leaves

    def forget(self, node: str) -> None:
        pass

    def hold(self, armed: str) -> None:
        self._node.hold(armed)

    def armed(self, uid: str) -> Sequence[ArmedOffer]:
        return [ArmedOffer(each.spec.name, self._node.name, each.spec) for each in self._node.armed.armed(uid)]

    def armed_total(self) -> int:
        return len(self._node.armed.armed())

    def candidates_changed(self) -> None:
        self._node.armed.wake()

    def set_warm_demand(self, revisions: int) -> None:
        self._node.runtime.set_warm_demand(revisions)

    async def usage(self, instances: Sequence[str]) -> Mapping[str, Usage]:
        each = await asyncio.gather(*(self._usage(name) for name in instances))
        return {name: usage for name, usage in zip(instances, each, strict=True) if usage is not None}

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def _usage(self, name: str) -> Usage | None:
        try:
            return await self._node.runtime.usage(name)
        except KnollError as error:
            log.warning("instance not measured", instance=name, error=str(error))
            return None
