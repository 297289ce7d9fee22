"""The protocol between the leader and the nodes.

It has two forms, which pass the same tests: `memory`, where leader and node are in one process and call each other, and
`tables`, where they exchange tables in Redis. The leader assigns goals (`Assignment`). A node carries them out whether
or not there is still a leader, and reports the state of each of its instances.
"""

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from autoscaler.decision.armed_pool import ArmingCandidate
from autoscaler.instances.transitions import LifecycleState
from autoscaler.probes.spec import Probes
from autoscaler.runtime.model import InstanceSpec, Usage
from autoscaler.spec.compressed_revision import CompressedRevision
from knoll.messages.assignments import Assignment
from knoll.messages.endpoints import Endpoint
from knoll.messages.instances import InstanceRow
from knoll.messages.scale import StartFailure


class InstanceReport(Protocol):
    """The newest report of a node about one instance; its values change with each report."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str:
        """`namespace/name`."""
        ...

    @property
    def uid(self) -> str:
        """uid of the Revision."""
        ...

    @property
    def node(self) -> str:
        """Empty on a single machine."""
        ...

    @property
    def generation(self) -> int:
        """Generation of the newest assignment that the node has carried out."""
        ...

    @property
    def state(self) -> LifecycleState: ...
    @property
    def created(self) -> float:
        """Epoch seconds."""
        ...

    @property
    def failure(self) -> StartFailure | None: ...
    @property
    def idle_since(self) -> float:
        """Epoch seconds at which it became idle; 0 while it is not."""
        ...

    @property
    def kept_bytes(self) -> int:
        """Memory that it keeps while it is paused."""
        ...

    @property
    def was_in_service(self) -> bool:
        """Whether it was ready since it was last started or woken."""
        ...

    @property
    def was_armed(self) -> bool: ...
    def endpoint(self) -> Endpoint | None:
        """Return the endpoint for activators; None while it accepts no requests and has none in flight."""
        ...

    def row(self) -> InstanceRow:
        """Return the status that users see."""
        ...


@dataclass(frozen=True, slots=True)
class Blueprint:
    """Values that the leader has derived from a Revision for a start; a node in another process derives its own."""

    spec: InstanceSpec
    probes: Mapping[str, Probes]
    compressed: CompressedRevision
    needs_preparation: bool
    """Whether objects must be looked up or volumes created before it can start."""


@dataclass(frozen=True, slots=True)
class ArmedOffer:
    """An armed instance."""

    name: str
    node: str
    spec: InstanceSpec | None
    """The spec with which it was armed; None when only its node has it."""


class LeaderEnd(Protocol):
    """The calls that nodes make to the leader."""

    def arming_candidates(self) -> Iterable[ArmingCandidate]:
        """Return the Revisions of which an instance may be armed, those used last first."""
        ...

    def arming_nodes(self, uid: str, nodes: frozenset[str]) -> frozenset[str]:
        """Return which of several nodes may arm an instance of a Revision, given its uid."""
        ...

    def instance_changed(self, revision: str) -> None:
        """An instance of a Revision, `namespace/name`, has changed."""
        ...

    def instance_removed(self, name: str) -> None:
        """An instance has ended, and nothing of it is left on its node; `instance_changed` follows."""
        ...

    def instance_reported(self, report: InstanceReport) -> None:
        """A node runs an instance of which it has not reported before."""
        ...

    def wait_until_drained(self, name: str, revision: str, grace_seconds: float) -> Coroutine[Any, Any, bool]:
        """Wait until an instance has no request in flight; see `Draining.wait_until_drained`."""
        ...

    def capacity_short(self) -> None:
        """An instance waits for capacity on its node: an idle instance may have to be removed."""
        ...

    def sources_changed(self, uid: str) -> None:
        """An object changed that the containers of a Revision refer to."""
        ...


class NodeLink(Protocol):
    """The leader's link to the nodes. Calls return at once; messages that fail are repeated."""

    async def synced(self) -> None:
        """Wait until the nodes' reports were read once; `run` must have been started."""
        ...

    def connect(self, leader: LeaderEnd) -> None:
        """Lead from now on; called once, before calls other than `run`, `synced` and `reports`."""
        ...

    def disconnect(self) -> None:
        """Stop leading; nodes keep their instances."""
        ...

    def reports(self) -> Iterable[InstanceReport]:
        """Return the reports of responding nodes about their instances, without armed ones."""
        ...

    def assignments(self) -> Iterable[Assignment]:
        """Return all assignments that an earlier leader has left."""
        ...

    def assign(self, assignment: Assignment, blueprint: Blueprint | None = None) -> InstanceReport | None:
        """Assign an instance to a node, or change its goal.

        Args:
            blueprint: for the first assignment of an instance.

        Returns:
            The node's report about it; None if there is none yet.
        """
        ...

    def withdraw(self, instance: str) -> None:
        """Remove the assignment of an instance that has ended, is no longer needed, or is lost with its node."""
        ...

    def returned(self, node: str) -> None:
        """Pass the reports of a node that responds again to the leader once more."""
        ...

    def forget(self, node: str) -> None:
        """Remove the reports of a node that has been lost for long."""
        ...

    def armed(self, uid: str) -> Sequence[ArmedOffer]:
        """Return the armed instances of a Revision. An assignment of that name to that node releases it."""
        ...

    def armed_total(self) -> int:
        """Return how many instances are armed."""
        ...

    def hold(self, armed: str) -> None:
        """Keep an armed instance until it is assigned or withdrawn; does nothing if its node is in another process."""
        ...

    def candidates_changed(self) -> None:
        """Notify the nodes that `LeaderEnd.arming_candidates` may have changed."""
        ...

    def set_warm_demand(self, revisions: int) -> None:
        """Prepare for starts. Args: revisions: how many Revisions without an instance may be woken, >= 0."""
        ...

    async def usage(self, instances: Sequence[str]) -> Mapping[str, Usage]:
        """Return the usage of the instances that could be measured, by name."""
        ...

    async def run(self) -> None:
        """Exchange messages until cancelled."""
        ...
