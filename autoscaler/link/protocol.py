"""The protocol between the leader and the nodes.

It has two forms, which pass the same tests: `memory`, where leader and node are in one process and call each other, and
`tables`, where they meet in Redis. The leader assigns goals (`Assignment`); a node carries them out whatever happens to
the leader, and reports what each of its instances is.
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
    """What a node last reported of one instance; changes with each report."""

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
        """Of the newest assignment that the node has carried out."""
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
        """Return the endpoint for activators; None while it takes no requests and has none."""
        ...

    def row(self) -> InstanceRow:
        """Return the status that users see."""
        ...


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What the leader has derived from a Revision for a start; a node in another process derives its own."""

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
    """With which it is armed; None when that is known to its node only."""


class LeaderEnd(Protocol):
    """What nodes ask of the leader, and what they report to it."""

    def arming_candidates(self) -> Iterable[ArmingCandidate]:
        """Return the Revisions of which an instance may be armed, those used last first."""
        ...

    def arming_node(self, uid: str, nodes: Sequence[str]) -> str:
        """Return which of several nodes arms an instance of a Revision, by its uid; empty is none of them."""
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
        """Wait until an instance has no request any more; see `Draining.wait_until_drained`."""
        ...

    def capacity_short(self) -> None:
        """An instance waits for capacity on its node: an idle instance may have to be removed."""
        ...

    def sources_changed(self, uid: str) -> None:
        """An object changed that the containers of a Revision refer to."""
        ...


class NodeLink(Protocol):
    """The leader's way to the nodes. Calls return at once; what does not get through is repeated."""

    async def synced(self) -> None:
        """Wait until it is known what nodes run; `run` has begun."""
        ...

    def connect(self, leader: LeaderEnd) -> None:
        """Lead from now on; called once, before calls other than `run`, `synced` and `reports`."""
        ...

    def disconnect(self) -> None:
        """Lead no longer; nodes keep what they run."""
        ...

    def reports(self) -> Iterable[InstanceReport]:
        """Return what nodes that respond report of their instances, armed ones left out."""
        ...

    def assignments(self) -> Iterable[Assignment]:
        """Return all assignments that an earlier leader has left."""
        ...

    def assign(self, assignment: Assignment, blueprint: Blueprint | None = None) -> InstanceReport | None:
        """Assign an instance to a node, or change its goal.

        Args:
            blueprint: for the first assignment of an instance.

        Returns:
            What the node reports of it, as far as that is known.
        """
        ...

    def withdraw(self, instance: str) -> None:
        """An instance has ended, is not needed any more, or its node is lost: end its assignment."""
        ...

    def returned(self, node: str) -> None:
        """A node responds again: report once more what it still runs."""
        ...

    def forget(self, node: str) -> None:
        """A node has been lost for long: remove what it reported."""
        ...

    def armed(self, uid: str) -> Sequence[ArmedOffer]:
        """Return the armed instances of a Revision. An assignment of that name to that node releases it."""
        ...

    def armed_total(self) -> int:
        """Return how many instances are armed."""
        ...

    def hold(self, armed: str) -> None:
        """An armed instance is to be assigned soon: keep it, where that is possible, until it is or is withdrawn."""
        ...

    def candidates_changed(self) -> None:
        """`LeaderEnd.arming_candidates` may return something else than before."""
        ...

    def set_warm_demand(self, revisions: int) -> None:
        """Prepare for starts. Args: revisions: those without an instance that may be woken, >= 0."""
        ...

    async def usage(self, instances: Sequence[str]) -> Mapping[str, Usage]:
        """Return what instances use, of those that could be measured."""
        ...

    async def run(self) -> None:
        """Exchange messages until cancelled."""
        ...
