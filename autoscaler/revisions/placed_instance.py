"""One instance as the leader sees it: the newest report of its node, and the leader's commands."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from autoscaler.decision.capacity import ResourceRequest
from autoscaler.decision.idle_policy import IdleState
from autoscaler.instances.container_status import ContainerProgress, container_row
from autoscaler.instances.transitions import ENDING, Command, LifecycleState, next_state, stage_of
from autoscaler.link.protocol import Blueprint, InstanceReport
from autoscaler.runtime.model import InstanceSpec
from knoll.messages.assignments import Assignment, Goal
from knoll.messages.endpoints import Endpoint
from knoll.messages.instances import InstanceRow
from knoll.messages.scale import StartFailure

_NOT_CREATED = ContainerProgress(None, None, restarting=False, phase=None, back_off_seconds=0.0)


_EXPECTED: Mapping[Goal, LifecycleState] = {
    "serving": LifecycleState.STARTING,
    "paused": LifecycleState.GOING_IDLE,
    "stopped": LifecycleState.GOING_IDLE,
    "removed": LifecycleState.DRAINING,
}
"""By goal of the assignment: the assumed state of an instance that its node has not reported yet."""


class Assigner(Protocol):
    """Carries the leader's commands to the nodes."""

    absent: frozenset[str]
    """Nodes whose process is away."""

    def assign(self, assignment: Assignment, blueprint: Blueprint | None = None) -> InstanceReport | None:
        """See `NodeLink.assign`."""
        ...

    def abandoned(self, instance: "PlacedInstance") -> None:
        """An instance without a node is no longer needed."""
        ...


class PlacedInstance:
    """The leader's handle for an instance. It reads from the node's report, and assumes a state until there is one.

    A command changes the assumed state at once, before the node carries it out: otherwise the next decision would
    repeat the command.
    """

    def __init__(
        self,
        assigner: Assigner,
        assignment: Assignment,
        spec: InstanceSpec,
        request: ResourceRequest,
        *,
        placed: bool = False,
    ) -> None:
        """
        Args:
            spec: spec of the instance, without the values that are read from other objects.
            request: CPU and memory that it requests.
            placed: a node was asked to run it.
        """
        self._assigner, self.assignment, self.spec, self.request = assigner, assignment, spec, request
        self.name = assignment.instance
        self.placement_failure: StartFailure | None = None
        """Why it has no node yet."""
        self.placed = placed
        """Whether a node was asked to run it."""
        self.leaving = False
        """Its node is being drained: it serves until another instance has replaced it."""
        self._report: InstanceReport | None = None
        self._expected = _EXPECTED[assignment.goal]
        """Its state while its node has not carried out the newest assignment."""

    @property
    def revision(self) -> str:
        return self.assignment.revision

    @property
    def node(self) -> str:
        """Empty while it has none, and on a single machine."""
        return self.assignment.node

    @property
    def obeys(self) -> bool:
        """Whether its node carries out commands now."""
        return self.node not in self._assigner.absent

    def bind(self, node: str, blueprint: Blueprint | None) -> None:
        """Assign it to a node."""
        self.placed, self.placement_failure = True, None
        self._assign(blueprint, node=node)

    def reported(self, report: InstanceReport) -> None:
        """Its node has reported it for the first time."""
        self.placed, self._report = True, report

    def ended(self) -> None:
        """Nothing of it is left, or its node does not respond: its state becomes REMOVED."""
        self._report, self._expected = None, LifecycleState.REMOVED

    # What its node reports

    @property
    def state(self) -> LifecycleState:
        report = self._report
        if report is None:
            return self._expected
        state = report.state
        if report.generation >= self.assignment.generation or state in ENDING:
            return state
        return self._expected

    @property
    def created(self) -> float:
        return self._report.created if self._report else self.assignment.requested

    @property
    def failure(self) -> StartFailure | None:
        return self._report.failure if self._report else self.placement_failure

    @property
    def idle_since(self) -> float:
        """Epoch seconds at which it became idle; 0 while it is not."""
        return self._report.idle_since if self._report else 0.0

    @property
    def kept_bytes(self) -> int:
        """Memory that it keeps while it is paused, in bytes."""
        return self._report.kept_bytes if self._report else 0

    @property
    def was_in_service(self) -> bool:
        """Whether it was ready since it was last started or woken."""
        return self._report is not None and self._report.was_in_service

    @property
    def was_armed(self) -> bool:
        """Whether it was armed before it was needed, and then released."""
        return self._report is not None and self._report.was_armed

    def endpoint(self) -> Endpoint | None:
        """Return the endpoint for activators; None while it accepts no requests and has none in flight."""
        endpoint = self._report.endpoint() if self._report else None
        if endpoint and endpoint.state == "ready" and self.state is not LifecycleState.READY:
            return msgspec.structs.replace(endpoint, state="draining")
        return endpoint

    def row(self) -> InstanceRow:
        """Return the status that users see."""
        if self._report:
            return self._report.row()
        rows = tuple(
            container_row(each, _NOT_CREATED, self.placement_failure, "", stopped=False, ready=False)
            for each in self.spec.containers
        )
        stage, created = stage_of(self._expected), self.assignment.requested
        return InstanceRow(self.name, "", self.spec.port, stage, created, rows, node=self.node)

    # Commands

    def go_idle(self, target: IdleState) -> None:
        """Take it out of service and keep it idle; requests in flight end first."""
        self._command(Command.GO_IDLE, target)

    def step_down(self) -> None:
        """Stop it while it is paused."""
        self._command(Command.STEP_DOWN, "stopped")

    def wake(self, now: float) -> None:
        """Put it back into service while it is idle.

        Args:
            now: epoch seconds of the decision.
        """
        self._command(Command.WAKE, "serving", now)

    def leave(self) -> None:
        """Its node is being drained: drain it once another instance has replaced it."""
        self.leaving = True

    def drain(self) -> None:
        """Take it out of service and remove it; requests in flight may finish."""
        if not self.placed:
            if self._expected is not LifecycleState.REMOVED:
                self._expected = LifecycleState.REMOVED
                self._assigner.abandoned(self)
        elif self.assignment.goal != "removed":
            self._command(Command.DRAIN, "removed")

    def _command(self, command: Command, goal: Goal, requested: float | None = None) -> None:
        self._expected = next_state(self.state, command)
        self.assignment = msgspec.structs.replace(
            self.assignment,
            goal=goal,
            generation=self.assignment.generation + 1,
            requested=self.assignment.requested if requested is None else requested,
        )
        self._assign(None)

    def _assign(self, blueprint: Blueprint | None, node: str | None = None) -> None:
        if node is not None:
            self.assignment = msgspec.structs.replace(self.assignment, node=node)
        report = self._assigner.assign(self.assignment, blueprint)
        if report is not None:
            self._report = report
