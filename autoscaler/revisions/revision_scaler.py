"""Scales one Revision: takes reports, decides how many instances it runs, and starts, idles and drains them."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import structlog

from autoscaler.decision import hpa
from autoscaler.decision.capacity import ResourceRequest, request_of
from autoscaler.decision.idle_policy import IdleInstance, IdleState, Retention, StepDown, wake_order
from autoscaler.decision.kpa import Decision, DecisionState, RevisionMetrics, decide, explain, initial_state
from autoscaler.decision.plan import Candidate, Plan, plan
from autoscaler.instances.transitions import ENDING, IDLE, NOT_COUNTED, LifecycleState
from autoscaler.revisions.demand import Demand
from autoscaler.revisions.placed_instance import PlacedInstance
from autoscaler.revisions.progress import DeploymentProgress
from autoscaler.revisions.rollout_comparison import RolloutComparison
from autoscaler.revisions.usage import ResourceScale, cpu_request
from autoscaler.runtime.model import InstanceSpec, Usage
from autoscaler.spec.compressed_revision import CompressedRevision
from knoll.messages.endpoints import RevisionEndpoints
from knoll.messages.reports import RevisionReport
from knoll.messages.scale import ScaleChange, ScaleStatus, StartFailure
from knoll.resources.annotations.warm_schedule import FAR, Warmth, warmth
from knoll.resources.models.revision import Revision
from knoll.resources.scaling import ScalingSpec

log = structlog.get_logger()

HISTORY = 10
"""Changes of scale that are kept and published."""
STARTING_SECONDS = 60.0
"""How long an instance that is to leave its node may be starting."""


@dataclass(frozen=True, slots=True)
class ScalerDeps:
    """Functions of the leader that scalers call."""

    clock: Callable[[], float]
    """Epoch seconds."""
    start: "Callable[[RevisionScaler, float], PlacedInstance]"
    """Starts an instance on a node that has room for it. The second argument is the time of the request."""
    armed_count: Callable[[str], int]
    """Returns how many instances of a Revision are armed, by uid."""


class RevisionScaler:
    """One Revision. Not a task: the leader calls it on ticks, pokes and changes.

    It has more attributes than the style allows: demand, progress, comparison and usage are classes of their own, and
    the rest is the state of the decision, which `act` reads and writes as a whole.
    """

    def __init__(
        self,
        revision: Revision,
        spec: ScalingSpec,
        deps: ScalerDeps,
        *,
        before: ScaleStatus | None,
        compressed: CompressedRevision | None = None,
    ) -> None:
        """
        Args:
            before: what an earlier leader published of this Revision.
            compressed: the same Revision, if it is compressed already.
        """
        now = deps.clock()
        self.key = f"{revision.metadata.namespace}/{revision.metadata.name}"
        self.uid = revision.metadata.uid
        self.compressed, self.spec = compressed or CompressedRevision(revision), spec
        self._has_init_containers = bool(revision.spec.init_containers)
        volumes = (volume.persistent_volume_claim for volume in revision.spec.volumes)
        self.claims = tuple(claim.claim_name for claim in volumes if claim)
        """Names of the PersistentVolumeClaims that its instances mount."""
        self.node_requirements = revision.spec.node_selector, revision.spec.affinity
        """nodeSelector and affinity as they were sent; None if there is none."""
        self.instances: dict[str, PlacedInstance] = {}
        self.deleted = False
        self.changes: tuple[ScaleChange, ...] = before.changes if before else ()
        """The last changes of the desired scale."""
        self.decision: Decision | None = None
        """The newest decision."""
        self.starts = self.releases = 0
        """Instances requested, and those of them that were armed."""
        self.asking_node = ""
        """The node whose activator asked last; empty on a single machine."""
        self.desired = before.desired if before else 0
        self.progress = DeploymentProgress(before, now)
        self.comparison = RolloutComparison()
        self.resource_scale = ResourceScale()
        """Used where the class scales by CPU or memory."""
        self._request: ResourceRequest | None = None
        self._deps = deps
        self._demand = Demand(spec.window_seconds, now)
        self._state = DecisionState()
        self._warmth = Warmth(0, 0.0)
        self._last_share = (0, 0.0)
        """Instances of a rollout's last share, and until when they are kept: by then its own load counts."""
        self._settled = False

    @property
    def revision(self) -> Revision:
        """Decompressed at each access."""
        return self.compressed.revision()

    def request(self, spec: InstanceSpec) -> ResourceRequest:
        """Return what each instance requests, which is equal for all. Args: spec: spec of any instance."""
        self._request = self._request or request_of(spec)
        return self._request

    # Inputs

    def adopt(self, instance: PlacedInstance) -> None:
        """Take over an instance that a node runs."""
        self.instances[instance.name] = instance

    def adopted(self) -> None:
        """All instances were taken over; nothing is known of their load."""
        self._state = initial_state(len(self._counted()), self._deps.clock())

    def poke(self, activator: str, waiting: int, at: float, node: str = "") -> None:
        """Add a poke: an activator has requests and no instance. Args: node: node of the activator."""
        self.asking_node = node
        self._demand.poke(activator, waiting, at)

    def report(
        self, activator: str, row: RevisionReport, at: float, period: float, counted: float | None = None
    ) -> None:
        """Add an activator's report.

        Args:
            at: when it arrived, epoch seconds.
            period: seconds that it covers.
            counted: end of that period; None is `at`.
        """
        load = row.concurrency if self.spec.metric == "concurrency" else row.requests / period
        self._demand.report(activator, row, load, at, period, at if counted is None else counted)
        self.comparison.record(at, row, self.spec.rollback)
        self._settled = False

    def change(self, compressed: CompressedRevision, spec: ScalingSpec) -> None:
        """The Revision's metadata or the configuration changed."""
        self._settled = False
        if spec.rollout_scale < self.spec.rollout_scale:
            now = self._deps.clock()
            self._last_share = (self._rollout(now), now + spec.window_seconds)
        if spec.rollout_from != self.spec.rollout_from:
            self.comparison.reset()
        self.compressed, self.spec = compressed, spec
        self._demand.window.seconds = spec.window_seconds
        self._warmth = Warmth(0, 0.0)

    def compare(self, before: "RevisionScaler | None") -> bool:
        """Compare the outcomes of its requests with the Revision before it; returns whether a verdict has just come.

        Args:
            before: the scaler of that Revision; None when it is gone.
        """
        policy = self.spec.rollback
        if policy is None:
            return False
        old = before.comparison if before is not None else None
        worse = self.comparison.compare(policy, old, self.spec.rollout_from, self._deps.clock())
        if worse:
            log.warning("revision performs worse", revision=self.key, reason=self.comparison.worse)
        return worse

    def to_measure(self) -> list[str]:
        """Return the instances whose usage decides; none where requests do."""
        progress = self.progress
        if not self.spec.by_resources or not progress.initial_reached or self.deleted or progress.gave_up:
            return []
        return [instance.name for instance in self._counted() if instance.state is LifecycleState.READY]

    def measured(self, usage: Mapping[str, Usage]) -> None:
        """Decide by the usage of instances, by name."""
        now = self._deps.clock()
        instances = {
            instance.name: (instance.state is LifecycleState.READY, cpu_request(instance.spec))
            for instance in self._counted()
        }
        decision = self.resource_scale.decide(self.spec, instances, usage, self.desired, now)
        if decision.desired != self.desired:
            self._record_change(now, decision.desired, hpa.explain(self.spec, decision))

    def sources_changed(self) -> None:
        """An object changed that its containers refer to; the nodes retry the instances that wait for it."""
        self.progress.sources_changed(self._deps.clock())

    # Decision

    def act(self, *, decide_first: bool) -> None:
        """Bring the instances to the desired scale.

        Args:
            decide_first: True on a tick or a poke. False when an instance has changed: the last decision then stands,
                because the rates that bound a decision are per tick.
        """
        self._settled = False
        now = self._deps.clock()
        for name in [name for name, instance in self.instances.items() if instance.state is LifecycleState.REMOVED]:
            del self.instances[name]
        if self.deleted:
            for instance in list(self.instances.values()):
                instance.drain()
            return
        if self.progress.update(self.spec, self.ready_count(), self.first_failure, now):
            self._demand.busy_at = now
        desired = self.desired
        if self.progress.gave_up:
            # As with a Deployment, ready instances stay, and it still tries to start the others.
            desired = self.spec.initial_scale if any(instance.was_in_service for instance in self._counted()) else 0
            if self.desired != desired:
                failure = self.progress.failure
                cause = failure.message if failure else "it did not become ready"
                self._record_change(now, desired, f"desired {desired}: {cause}")
        elif decide_first or not self.progress.initial_reached:
            desired = self._decide(now)
        self._scale_to(desired, now)
        self._drain_leaving(desired)
        self.desired = desired

    def _scale_to(self, desired: int, now: float) -> None:
        counted = self._counted()
        steps = Plan(start=desired - len(counted))
        if steps.start < 0:
            steps = plan(desired, [self._candidate(instance, now) for instance in counted])
        for name in steps.release:
            self._release(self.instances[name])
        idle = [each for each in self.idle_instances() if self.instances[each.name].obeys] if steps.start else []
        wakeable = wake_order(idle)
        for name in wakeable[: steps.start]:
            self.instances[name].wake(now)
        for _ in range(steps.start - len(wakeable)):
            self._start_instance(now)

    def _drain_leaving(self, desired: int) -> None:
        """Drain the instances that are to leave their node, each one once another instance has replaced it.

        One that is starting may be ready before its replacement, and requests may wait for it.
        """
        leaving = [each for each in self.instances.values() if each.leaving and each.state not in ENDING]
        surplus = self.ready_count() - desired if leaving else 0
        for instance in leaving:
            if instance.state is LifecycleState.READY:
                if surplus > 0:
                    surplus -= 1
                    instance.drain()
            elif surplus >= 0 or instance.state is not LifecycleState.STARTING or not self._starts_soon(instance):
                instance.drain()

    def _starts_soon(self, instance: PlacedInstance) -> bool:
        return instance.failure is None and self._deps.clock() - instance.created < STARTING_SECONDS

    def _candidate(self, instance: PlacedInstance, now: float) -> Candidate:
        in_flight = self._demand.in_flight(instance.name, now)
        return Candidate(instance.name, instance.state is LifecycleState.READY, in_flight, instance.created)

    def _start_instance(self, now: float) -> None:
        instance = self._deps.start(self, now)
        self.instances[instance.name] = instance
        self.starts += 1

    def _release(self, instance: PlacedInstance) -> None:
        target = self._retention.first
        if target and instance.state is LifecycleState.READY:
            instance.go_idle(target)
        else:
            instance.drain()

    @property
    def _retention(self) -> Retention:
        # Without a Route no request wakes an instance, and one that did not come up would not serve it.
        if not self.spec.reachable or self.progress.gave_up or self.deleted:
            return Retention()
        return Retention(self.spec.paused_seconds, self.spec.stopped_seconds)

    def may_wake(self) -> bool:
        """Return whether there is no instance, and the next request gets one."""
        reachable = self.progress.initial_reached and self.spec.reachable
        return reachable and not self.deleted and not self.progress.gave_up and not self.instances

    def may_be_armed(self) -> bool:
        """Return whether an instance may be armed for the next request. Init containers have to run at the start."""
        return not self._has_init_containers and not self.desired and self.may_wake()

    @property
    def last_used(self) -> float:
        """When the scale changed last, epoch seconds: while there is no instance, when the last one was released."""
        return self.changes[-1].at if self.changes else self._demand.busy_at

    @property
    def armed_count(self) -> int:
        """How many instances are armed for it; they count as none."""
        return self._deps.armed_count(self.uid)

    def node_counts(self) -> Counter[str]:
        """Return how many instances each node has; none on a single machine."""
        return Counter(each.node for each in self.instances.values() if each.node and each.state not in ENDING)

    def idle_instances(self) -> list[IdleInstance]:
        """Return the idle instances: they do not count towards the scale, and use no more than memory."""
        return list(self._idle_instances())

    def _idle_instances(self) -> Iterator[IdleInstance]:
        for instance in self.instances.values():
            if instance.state in IDLE:
                state: IdleState = "stopped" if instance.state is LifecycleState.STOPPED else "paused"
                yield IdleInstance(instance.name, state, instance.idle_since, instance.kept_bytes, self._retention)

    def step_down(self, step: StepDown) -> None:
        """Carry out one step of the idle policy."""
        log.info("instance idle state changed", instance=step.name, to=step.to, reason=step.reason)
        if step.to == "stopped":
            self.instances[step.name].step_down()
        else:
            self.instances[step.name].drain()

    def _decide(self, now: float) -> int:
        if not self.progress.initial_reached:
            # Deploying: its load is unknown.
            desired = self.spec.initial_scale
            if desired != self.desired or not self.changes:
                self._record_change(now, desired, f"desired {desired}: initial scale of a new Revision")
            return desired
        if self.spec.by_resources:
            # Never to zero: nothing could be measured there.
            least, decision = max(1, self.spec.min_scale), self.resource_scale.decision
            desired = max(least, decision.desired if decision else self.desired)
            return min(desired, self.spec.max_scale or desired)
        self.decision, self._state = decide(self.spec, self._metrics(now), self._state, now)
        if self.decision.desired != self.desired or not self.changes:
            self._record_change(now, self.decision.desired, f"{explain(self.decision)}{self._armed_part()}")
        return self.decision.desired

    def _metrics(self, now: float) -> RevisionMetrics:
        ready, window = self.ready_count(), self._demand.window
        return RevisionMetrics(
            ready,
            window.mean(now, self.spec.window_seconds, exponential=self.spec.exponential),
            window.mean(now, self.spec.panic_window_seconds),
            self._demand.waiting(now),
            now - self._demand.busy_at,
            # An instance whose Pod was deleted counts as starting: it is about to be replaced.
            starting=max(len(self._counted()), self.desired, ready) - ready,
            warm=self._warm(now),
            rollout=self._rollout(now),
        )

    def _warm(self, now: float) -> int:
        """Return how many instances warm windows keep now; cron expressions are evaluated when that may change."""
        if not self.spec.warm or not self.spec.reachable:
            return 0
        if not self._warmth.until - FAR <= now < self._warmth.until:
            self._warmth = warmth(self.spec.warm, now)
        return self._warmth.min_scale

    def _rollout(self, now: float) -> int:
        """Return how many instances the newest share of a rollout needs; kept for a window after it shrinks."""
        kept, until = self._last_share
        return max(self.spec.rollout_scale, kept if now < until else 0)

    def _armed_part(self) -> str:
        """Return the end of a decision's explanation when it takes an armed instance."""
        assert self.decision is not None
        takes_one = self.decision.desired > len(self._counted()) and not self.instances and self.armed_count
        return "; an armed instance is released" if takes_one else ""

    def _record_change(self, now: float, desired: int, reason: str) -> None:
        self.changes = (*self.changes[-HISTORY + 1 :], ScaleChange(now, desired, reason))
        log.info("revision scaled", revision=self.key, desired=desired, reason=reason)

    # Outputs

    def endpoints(self) -> RevisionEndpoints:
        """Return the endpoints for activators."""
        endpoints = (instance.endpoint() for instance in self.instances.values())
        return RevisionEndpoints(tuple(endpoint for endpoint in endpoints if endpoint is not None))

    def explained(self) -> str:
        """Return the newest decision in a sentence; empty when there is none."""
        if self.spec.by_resources:
            decision = self.resource_scale.decision
            return hpa.explain(self.spec, decision) if decision else ""
        return explain(self.decision) if self.decision else ""

    def ready_count(self) -> int:
        """Return how many instances take requests."""
        return len([1 for instance in self.instances.values() if instance.state is LifecycleState.READY])

    def serves_steadily(self) -> bool:
        """Return whether an instance is ready that has no failure."""
        return any(
            instance.state is LifecycleState.READY and instance.failure is None for instance in self.instances.values()
        )

    def first_failure(self) -> StartFailure | None:
        """Return the failure of an instance that counts towards the scale."""
        return next((instance.failure for instance in self._counted() if instance.failure), None)

    def is_settled(self) -> bool:
        """Return whether only an input can change the scale, whatever the time: true for most Revisions."""
        if not self._settled:
            depends_on_time = self.spec.warm or self.spec.rollout_from or self._deps.clock() < self._last_share[1]
            self._settled = not self.instances and not depends_on_time and self.quiet
        return self._settled

    @property
    def quiet(self) -> bool:
        """Nothing runs and nothing is requested: no decision is needed until a poke."""
        if self.deleted or self.progress.gave_up or not self.progress.initial_reached:
            return (self.deleted or self.progress.gave_up) and not self.instances
        only_idle = all(instance.state in IDLE for instance in self.instances.values())
        idle = only_idle and not self.desired and not self.spec.min_scale
        now = self._deps.clock()
        return (
            idle
            and now - self._demand.busy_at > self.spec.window_seconds
            and not (self._warm(now) or self._rollout(now))
        )

    def _counted(self) -> list[PlacedInstance]:
        return [each for each in self.instances.values() if not each.leaving and each.state not in NOT_COUNTED]
