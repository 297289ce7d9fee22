"""Starts instances: checks the quotas of the namespace, has the placer find a node, and assigns the instance to it."""

import asyncio
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice

import structlog

from autoscaler.decision.capacity import quota_refusal
from autoscaler.decision.node_affinity import matches
from autoscaler.instances.failures import FAILED_CREATE, UNSCHEDULABLE
from autoscaler.instances.transitions import IDLE, LifecycleState
from autoscaler.leader.claim_nodes import ClaimNodes
from autoscaler.leader.registry import RevisionRegistry
from autoscaler.link.protocol import ArmedOffer, Blueprint, InstanceReport, NodeLink
from autoscaler.placement.protocol import Constraints, Placer
from autoscaler.revisions.placed_instance import PlacedInstance
from autoscaler.revisions.revision_scaler import RevisionScaler
from autoscaler.spec.compressed_revision import CompressedRevision
from autoscaler.spec.instance_spec import instance_spec, needs_preparation, new_instance_name, probes
from knoll.messages.assignments import Assignment
from knoll.messages.scale import StartFailure
from knoll.values.json import Json

log = structlog.get_logger()

POLL_SECONDS = 0.2
"""Interval at which waiting instances are tried again."""
TRIED_AT_ONCE = 256
"""How many of them are tried each time: each one is compared with the quotas of its namespace."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An instance that has no node yet."""

    instance: PlacedInstance
    blueprint: Blueprint | None
    """None for an armed instance of this process's node."""
    armed_on: str | None
    """The node where it is armed: no other node may start it, because each has a report under its name."""
    preferred: str | None
    """See `Constraints`."""


class Placing:
    """The instances of all Revisions: those that wait for a node, and those that have one."""

    def __init__(
        self,
        link: NodeLink,
        placer: Placer,
        registry: RevisionRegistry,
        quotas: Callable[[str], Iterable[Json]],
        on_change: Callable[[str], None],
        on_shortage: Callable[[], None],
    ) -> None:
        """
        Args:
            quotas: returns the ResourceQuotas of a namespace.
            on_change: called with the Revision, `namespace/name`, of an instance that has changed.
            on_shortage: called while an instance does not fit anywhere.
        """
        self._link, self._placer, self._registry, self._quotas = link, placer, registry, quotas
        self._on_change, self._on_shortage = on_change, on_shortage
        self._waiting: dict[str, _Waiting] = {}
        """By name: instances that have no node yet."""
        self._wake = asyncio.Event()
        self.claims: ClaimNodes | None = None
        """None on a single machine."""
        self.handles: dict[str, PlacedInstance] = {}
        """By name: all instances."""
        self.excluded: frozenset[str] = frozenset()
        """Nodes that get no new instance."""
        self.absent: frozenset[str] = frozenset()
        """Nodes whose process is away: their instances serve, and carry out commands when it is back."""
        self.node_labels: dict[str, dict[str, str]] = {}
        """Of each node; empty on a single machine."""
        placer.begin(self._bound, self._placement_changed)

    def start(self, scaler: RevisionScaler, now: float) -> PlacedInstance:
        """Start an instance: an armed one if there is one. Args: now: epoch seconds of the decision."""
        constraints = self._constraints(scaler)
        offer = self._offer(scaler, constraints)
        if offer is not None and offer.spec is not None:
            blueprint, spec = None, offer.spec
        else:
            blueprint = _blueprint(scaler.compressed, offer.name if offer else None)
            spec = blueprint.spec
        if offer is not None:
            scaler.releases += 1
            self._link.hold(offer.name)
        instance = PlacedInstance(
            self, Assignment(spec.name, "", scaler.key, scaler.uid, now), spec, scaler.request(spec)
        )
        self.handles[instance.name] = instance
        waiting = _Waiting(instance, blueprint, offer.node if offer else None, constraints.preferred)
        self._waiting[instance.name] = waiting
        self._try(waiting)
        if not instance.placed:
            self._wake.set()
        return instance

    def adopt(
        self, report: InstanceReport | None, scaler: RevisionScaler, assignment: Assignment | None
    ) -> PlacedInstance:
        """Return a handle for an instance that an earlier leader has started.

        Args:
            report: the node's report about it; None if there is none yet.
            assignment: the assignment that the earlier leader wrote; None if there is none.
        """
        if report is not None and (assignment is None or assignment.generation <= report.generation):
            assignment = Assignment(
                report.name, report.node, report.revision, report.uid, report.created, generation=report.generation
            )
        assert assignment is not None
        name = assignment.instance
        spec = instance_spec(scaler.revision, name)
        instance = self.handles[name] = PlacedInstance(self, assignment, spec, scaler.request(spec), placed=True)
        if report is not None:
            instance.reported(report)
        self._placer.restore(name, assignment.node, instance.request)
        self._link.assign(assignment)
        return instance

    def removed(self, name: str) -> None:
        """Forget an instance: nothing of it is left, or its node is lost."""
        instance = self.handles.pop(name, None)
        if instance is not None and instance.state is not LifecycleState.REMOVED:
            instance.ended()
        self._waiting.pop(name, None)
        self._placer.withdraw(name)
        self._link.withdraw(name)

    async def run(self) -> None:
        """Retry the placement of waiting instances until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await asyncio.sleep(POLL_SECONDS)
                for name, waiting in list(islice(self._waiting.items(), TRIED_AT_ONCE)):
                    instance = waiting.instance
                    if len(self._waiting) > TRIED_AT_ONCE and name in self._waiting:
                        self._waiting[name] = self._waiting.pop(name)  # the others are tried next
                    if not instance.placed and instance.name in self._waiting:
                        self._try(waiting)
                        if not instance.placed and self._placer.problem(instance.name):
                            self._on_shortage()

    def admissible(self, scaler: RevisionScaler, nodes: frozenset[str]) -> frozenset[str]:
        """Return which of several nodes may run an instance of a Revision."""
        constraints = self._constraints(scaler)
        allowed = nodes - constraints.excluded - constraints.unsuitable
        return allowed if constraints.node is None else allowed & {constraints.node}

    # Commands of the handles; see `placed_instance.Assigner`

    def assign(self, assignment: Assignment, blueprint: Blueprint | None = None) -> InstanceReport | None:
        return self._link.assign(assignment, blueprint)

    def abandoned(self, instance: PlacedInstance) -> None:
        self.removed(instance.name)
        self._on_change(instance.revision)

    # Placement

    def _offer(self, scaler: RevisionScaler, constraints: Constraints) -> ArmedOffer | None:
        """Return an armed instance on a node that may run it: the preferred node comes first."""
        offers = [
            offer
            for offer in self._link.armed(scaler.uid)
            if offer.name not in scaler.instances and _admits(constraints, offer.node)
        ]
        return min(offers, key=lambda offer: offer.node != constraints.preferred, default=None)

    def _try(self, waiting: _Waiting) -> None:
        instance, armed_on = waiting.instance, waiting.armed_on
        if refusal := self._quota_refusal(instance):
            self._set_failure(instance, StartFailure("ResourcesAvailable", FAILED_CREATE, refusal))
            return
        scaler = self._registry.by_uid.get(instance.assignment.uid)
        present = self._constraints(scaler) if scaler else Constraints(excluded=self.excluded)
        if armed_on is not None and not _admits(present, armed_on):
            # Another instance replaces it: its name stays with the node where it is armed.
            instance.drain()
            return
        present = replace(present, node=armed_on or present.node, preferred=waiting.preferred)
        self._placer.place(instance.name, instance.request, present)

    def _constraints(self, scaler: RevisionScaler) -> Constraints:
        """Return where an instance of a Revision may run now."""
        pinned = self.claims.node_of(_namespace(scaler.key), scaler.claims) if self.claims else None
        # Further instances are spread.
        preferred = scaler.asking_node if not scaler.instances else ""
        return Constraints(pinned, self.excluded, self._unsuitable(scaler), preferred or None, scaler.node_counts())

    def _unsuitable(self, scaler: RevisionScaler) -> frozenset[str]:
        """Return the nodes whose labels do not match what a Revision requires."""
        selector, affinity = scaler.node_requirements
        if not selector and not affinity:
            return frozenset()
        nodes = self.node_labels.items()
        return frozenset(name for name, labels in nodes if not matches(selector, affinity, name, labels))

    def _quota_refusal(self, instance: PlacedInstance) -> str:
        """Return why the quotas of its namespace do not allow an instance; empty when they do."""
        charge = instance.request.charge
        quotas = list(self._quotas(charge.namespace)) if charge else []
        if charge is None or not quotas:
            return ""
        # Idle instances are not charged.
        others = (each for each in self._registry.instances() if each.placed and each.state not in IDLE)
        charges = [each.request.charge for each in others if each.request.charge and each is not instance]
        return quota_refusal(quotas, charges, charge, instance.name)

    def _bound(self, name: str, node: str) -> None:
        waiting = self._waiting.pop(name, None)
        if waiting is None:
            return
        instance = waiting.instance
        reported = instance.placement_failure is not None
        scaler = self._registry.by_uid.get(instance.assignment.uid)
        if self.claims is not None and scaler is not None and scaler.claims:
            self.claims.bound(_namespace(scaler.key), scaler.claims, node)
        instance.bind(node, waiting.blueprint)
        if reported:
            self._on_change(instance.revision)

    def _placement_changed(self, name: str, problem: str) -> None:
        waiting = self._waiting.get(name)
        if waiting is not None:
            failure = StartFailure("ResourcesAvailable", UNSCHEDULABLE, problem) if problem else None
            self._set_failure(waiting.instance, failure)

    def _set_failure(self, instance: PlacedInstance, failure: StartFailure | None) -> None:
        if instance.placement_failure == failure:
            return
        instance.placement_failure = failure
        if failure is not None:
            log.warning("instance waiting for capacity", instance=instance.name, reason=failure.message)
        self._on_change(instance.revision)


def _admits(constraints: Constraints, node: str) -> bool:
    return node not in constraints.excluded | constraints.unsuitable and constraints.node in (None, node)


def _namespace(key: str) -> str:
    return key.partition("/")[0]


def _blueprint(compressed: CompressedRevision, name: str | None) -> Blueprint:
    """Derive what a start needs. Args: name: name of the instance; None for a new name."""
    revision = compressed.revision()
    spec = instance_spec(revision, name or new_instance_name(revision, secrets.choice))
    return Blueprint(spec, probes(revision), compressed, needs_preparation(revision.spec))
