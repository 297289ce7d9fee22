"""One Revision's scale: keeps its windows, asks `decide`, carries out the plan, says how it stands."""

import secrets
from collections.abc import Mapping
from functools import partial
from typing import Literal

import structlog

from autoscaler.decision import hpa
from autoscaler.decision.idle_policy import Descent, Resting, Rung, Timers, wake_order
from autoscaler.decision.kpa import Decision, Memory, Seen, decide, explain, starting_memory
from autoscaler.decision.plan import Candidate, Plan, plan
from autoscaler.decision.rollback_judge import Outcome, Outcomes, judge
from autoscaler.decision.window import Load
from autoscaler.instances.failures import not_in_time
from autoscaler.instances.instance import MISSING_SOURCE, RUNGS, Member, World
from autoscaler.revisions.usage import ResourceScale, cpu_request
from autoscaler.runtime.protocol import Instance, Usage
from autoscaler.spec.compressed_revision import Packed
from autoscaler.spec.instance_spec import instance_name, instance_spec, needs_delivery, probes
from knoll.messages.endpoints import Endpoint, RevisionEndpoints
from knoll.messages.instances import InstanceRow
from knoll.messages.reports import RevisionReport
from knoll.messages.scale import ScaleChange, ScaleStatus, StartFailure, UsageStatus
from knoll.resources.annotations.warm_schedule import FAR, Warmth, warmth
from knoll.resources.models.revision import Revision
from knoll.resources.scaling import ScalingSpec

log = structlog.get_logger()

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
WAITING_SECONDS = 1.5
"""How long a poke's word of waiting requests counts; then the reports have it."""
TIMED_OUT = "TimedOut"
"""Active's reason when the progress deadline is over; the next leader knows by it that nothing is to be tried again."""
REPORT_SECONDS = 3.0
"""A report older than this says nothing of now."""
HISTORY = 10
"""Changes of scale that are remembered and told."""


class Scaler:
    """One Revision. Not a task: its loop calls it at ticks, pokes and changes."""

    def __init__(self, revision: Revision, spec: ScalingSpec, world: World, *, before: ScaleStatus | None) -> None:
        """
        Args:
            before: what the scale table says of this very Revision, from before this process.
        """
        self.key = f"{revision.metadata.namespace}/{revision.metadata.name}"
        self.uid = revision.metadata.uid
        self.packed, self.spec = Packed(revision), spec
        self.members: dict[str, Member] = {}
        self.deleted = False
        self.initial_reached = bool(before and before.initial_reached)
        self.gave_up = bool(before and before.active_reason == TIMED_OUT)
        self.changes: tuple[ScaleChange, ...] = before.changes if before else ()
        """Of the number that is wanted, the last ones."""
        self.decision: Decision | None = None
        """The newest."""
        self.starts = 0
        self._failure = before.failure if before else None
        self._world = world
        self.outcomes: Outcomes | None = None
        """Kept while somebody may be compared by them."""
        self.worse = ""
        """Why it does worse than the Revision before it."""
        self._baseline = Outcome()
        """What that one's requests came to, when it last had enough of them."""
        self._warmth = Warmth(0, 0.0)
        self._rolled_out = (0, 0.0)
        """Instances of a rollout's last share, and until when they are kept: until its own load speaks for them."""
        self._settled = False
        self._load = Load(spec.window_seconds)
        self._memory = Memory()
        self._since = (before.deploying_since if before else 0.0) or world.clock()
        """When it began to deploy, or made progress last."""
        self._progress = before.actual if before else 0
        """The most instances that were ready while it was deploying."""
        self._busy = world.clock()
        """When a request was last known of, or the Revision began to serve."""
        self._waiting: dict[str, tuple[float, int]] = {}
        self._held: dict[str, tuple[float, dict[str, int]]] = {}
        """Activator to when it said so, and the requests it has in each instance."""
        self._desired = before.desired if before else 0
        self._by_usage = ResourceScale()
        """What is wanted by CPU or memory, where the class asks for that."""

    @property
    def revision(self) -> Revision:
        """Unpacked anew each time."""
        return self.packed.unpacked()

    # What comes in

    def adopt(self, instance: Instance, known: Endpoint | None, row: InstanceRow | None = None) -> None:
        """Take over an instance that is there.

        Args:
            known: what activators were told of it last; None when nothing.
            row: what users were shown of it last, likewise.
        """
        revision = self.revision
        spec = instance_spec(revision, instance.name)
        rests = _rests(instance, known, row, self._world.clock())
        member = Member(self._world, spec, probes(revision), wanted=instance.created, adopted=instance, rests=rests)
        if known and known.state == "ready":
            member.serving_before(known.timing)
        self.members[member.name] = member
        member.begin()
        if known and known.state == "draining":
            member.drain()

    def adopted(self) -> None:
        """All instances were taken over: begin as one that knows nothing of their load."""
        self._memory = starting_memory(len(self._alive()), self._world.clock())

    def poke(self, activator: str, waiting: int, at: float) -> None:
        self._waiting[activator] = (at, waiting)
        self._busy = max(self._busy, at)

    def report(
        self, activator: str, row: RevisionReport, at: float, period: float, counted: float | None = None
    ) -> None:
        """Take in what an activator counted.

        Args:
            at: when it came.
            period: seconds that it speaks of.
            counted: end of that time; without it, when it came.
        """
        mean = row.concurrency if self.spec.metric == "concurrency" else row.requests / period
        self._load.report(activator, at if counted is None else counted, period, mean)
        self._held[activator] = (at, row.held)
        self._waiting.pop(activator, None)
        if row.queued:
            self._waiting[activator] = (at, row.queued)
        if self.outcomes is None and self.spec.rollback:
            self.outcomes = Outcomes(self.spec.rollback.window_seconds)
        if self.outcomes is not None:
            self.outcomes.record(at, Outcome(row.answers, row.errors, row.latency))
        if row.in_flight or row.queued or row.requests:
            self._busy = max(self._busy, at)
        self._settled = False

    def change(self, revision: Revision, spec: ScalingSpec) -> None:
        """The Revision's metadata or the configuration is another."""
        self._settled = False
        if spec.rollout_scale < self.spec.rollout_scale:
            now = self._world.clock()
            self._rolled_out = (self._rollout(now), now + spec.window_seconds)
        if spec.rollout_from != self.spec.rollout_from:
            self.worse, self._baseline = "", Outcome()
        self.packed, self.spec = Packed(revision), spec
        self._load.window.seconds = spec.window_seconds
        self._warmth = Warmth(0, 0.0)

    def compare(self, before: "Scaler | None") -> bool:
        """Compare what became of its requests with the Revision before it; whether there is something new to say.

        Args:
            before: the scaler of that Revision; None when it is gone.
        """
        policy = self.spec.rollback
        if policy is None or self.worse:
            return False
        now, window = self._world.clock(), policy.window_seconds
        if before is not None and before.outcomes is None:
            before.outcomes = Outcomes(window)
        if before is not None and before.outcomes is not None:
            found = before.outcomes.over(now, window)
            # Once traffic has left it, what it was like before counts.
            self._baseline = found if found.answers >= policy.requests else self._baseline
        new = self.outcomes.over(now, window) if self.outcomes else Outcome()
        self.worse = judge(policy, new, self._baseline, self.spec.rollout_from)
        if self.worse:
            log.warning("new revision does worse", revision=self.key, why=self.worse)
        return bool(self.worse)

    def to_measure(self) -> list[str]:
        """Instances whose usage decides; none where requests do."""
        if not self.spec.by_resources or not self.initial_reached or self.deleted or self.gave_up:
            return []
        return [one.name for one in self._alive() if one.stage == "ready"]

    def measured(self, usage: Mapping[str, Usage]) -> None:
        """Take what instances use, by name, and decide by it."""
        now = self._world.clock()
        instances = {one.name: (one.stage == "ready", cpu_request(one.spec)) for one in self._alive()}
        decision = self._by_usage.decide(self.spec, instances, usage, self._desired, now)
        if decision.want != self._desired:
            self._note(now, decision.want, hpa.explain(self.spec, decision))

    def sources_changed(self) -> None:
        """An object that its containers take something from is another: what waits for it tries again."""
        for member in self.members.values():
            member.try_again()
        if self.gave_up and self._failure and self._failure.reason == MISSING_SOURCE:
            self.gave_up, self._failure, self._since = False, None, self._world.clock()

    # What it decides

    def act(self, *, anew: bool) -> None:
        """Carry out what is wanted.

        Args:
            anew: decide first (a tick, a poke); otherwise an instance has changed, and the last decision stands: the
                rates that bound a decision are per tick.
        """
        self._settled = False
        now = self._world.clock()
        for name in [name for name, member in self.members.items() if member.stage == "gone"]:
            del self.members[name]
        if self.deleted:
            for member in list(self.members.values()):
                member.drain()
            return
        self._check_progress(now)
        want = self._desired
        if self.gave_up:
            # As a Deployment: what is ready stays, and the others are still tried beside it.
            want = self.spec.initial_scale if any(one.served for one in self._alive()) else 0
            if self._desired != want:
                why = self._failure.message if self._failure else "it did not become ready"
                self._note(now, want, f"{want} wanted: {why}")
        elif anew or not self.initial_reached:
            want = self._want(now)
        alive = self._alive()
        steps = Plan(start=want - len(alive))
        if steps.start < 0:
            steps = plan(want, [self._candidate(one, now) for one in alive])
        for name in steps.let_go:
            self._let_go(self.members[name])
        waiting = wake_order(self.resting()) if steps.start else []
        for name in waiting[: steps.start]:
            self.members[name].wake(now)
        for _ in range(steps.start - len(waiting)):
            self._start(now)
        self._desired = want

    def _candidate(self, one: Member, now: float) -> Candidate:
        return Candidate(one.name, one.stage == "ready", self._holds(one.name, now), one.created)

    def _let_go(self, member: Member) -> None:
        rung = self._timers.first
        if rung and member.stage == "ready":
            member.rest(rung)
        else:
            member.drain()

    @property
    def _timers(self) -> Timers:
        # Nothing will be asked of what no Route leads to, nor of what did not come up.
        if not self.spec.reachable or self.gave_up or self.deleted:
            return Timers()
        return Timers(self.spec.paused_seconds, self.spec.stopped_seconds)

    def resting(self) -> list[Resting]:
        """Instances on the rungs of the idle ladder: they count as none, and cost memory at most."""
        return [
            Resting(one.name, one.stage, one.since, one.kept_bytes, self._timers)
            for one in self.members.values()
            if one.stage == "paused" or one.stage == "stopped"
        ]

    def descend(self, step: Descent) -> None:
        """Carry out one step down of an instance that rests."""
        log.info("instance goes down the idle ladder", instance=step.name, to=step.to, why=step.why)
        if step.to == "stopped":
            self.members[step.name].descend()
        else:
            self.members[step.name].drain()

    def _want(self, now: float) -> int:
        if not self.initial_reached:
            # Deploying: nothing is known of its load yet.
            want = self.spec.initial_scale
            if want != self._desired or not self.changes:
                self._note(now, want, f"{want} wanted: the initial scale of a new Revision")
            return want
        if self.spec.by_resources:
            # Never to zero: nothing would be measured there.
            least = max(1, self.spec.min_scale)
            want = max(least, self._by_usage.decision.want if self._by_usage.decision else self._desired)
            return min(want, self.spec.max_scale or want)
        ready = self._ready()
        waiting = sum(count for at, count in self._waiting.values() if now - at <= WAITING_SECONDS)
        seen = Seen(
            ready,
            self._load.window.mean(now, self.spec.window_seconds, exponential=self.spec.exponential),
            self._load.window.mean(now, self.spec.panic_window_seconds),
            waiting,
            now - self._busy,
            # One that was taken away (its Pod was deleted) is as good as starting: it is about to be replaced.
            starting=max(len(self._alive()), self._desired) - ready,
            warm=self._warm(now),
            rollout=self._rollout(now),
        )
        decision, self._memory = decide(self.spec, seen, self._memory, now)
        self._remember(now, decision)
        return decision.want

    def _warm(self, now: float) -> int:
        """Instances that warm windows keep now; their cron expressions are looked at when that may have changed."""
        if not self.spec.warm or not self.spec.reachable:
            return 0
        if not self._warmth.until - FAR <= now < self._warmth.until:
            self._warmth = warmth(self.spec.warm, now)
        return self._warmth.min_scale

    def _rollout(self, now: float) -> int:
        """Instances that the newest share of a rollout wants; for a window more than it is asked for."""
        kept, until = self._rolled_out
        return max(self.spec.rollout_scale, kept if now < until else 0)

    def _remember(self, now: float, decision: Decision) -> None:
        self.decision = decision
        if decision.want != self._desired or not self.changes:
            self._note(now, decision.want, explain(decision))

    def _note(self, now: float, want: int, words: str) -> None:
        self.changes = (*self.changes[-HISTORY + 1 :], ScaleChange(now, want, words))
        log.info("revision scaled", revision=self.key, want=want, why=words)

    def _start(self, now: float) -> None:
        revision = self.revision
        name = instance_name(revision, "".join(secrets.choice(_ALPHABET) for _ in range(5)))
        spec = instance_spec(revision, name)
        prepare = partial(self._world.prepare, revision, name) if needs_delivery(revision.spec) else None
        member = Member(self._world, spec, probes(revision), wanted=now, prepare=prepare)
        self.members[name] = member
        self.starts += 1
        member.begin()

    def _check_progress(self, now: float) -> None:
        """Is the initial scale reached, or the time for it over? Each instance that becomes ready begins it anew."""
        ready = self._ready()
        if not self.initial_reached and (ready >= self.spec.initial_scale):
            self.initial_reached = True
            self.gave_up = False
            self._failure = None
            self._busy = now
        if ready > self._progress:
            self._progress, self._since = ready, now
        if not self.initial_reached and not self.gave_up and now - self._since > self.spec.progress_deadline_seconds:
            self.gave_up = True
            seconds = self.spec.progress_deadline_seconds
            self._failure = not_in_time(self._first_failure(), ready, self.spec.initial_scale, seconds)

    def _ready(self) -> int:
        return sum(member.stage == "ready" for member in self.members.values())

    def _holds(self, instance: str, now: float) -> int:
        """Requests in an instance, as far as the last reports say."""
        return sum(held.get(instance, 0) for at, held in self._held.values() if now - at <= REPORT_SECONDS)

    def _alive(self) -> list[Member]:
        return [one for one in self.members.values() if one.stage not in ("draining", "gone", "resting", *RUNGS)]

    # What it says

    def endpoints(self) -> RevisionEndpoints:
        found = (member.endpoint() for member in self.members.values())
        return RevisionEndpoints(tuple(one for one in found if one is not None))

    def status(self) -> ScaleStatus:
        stages = [member.stage for member in self.members.values()]
        ready = stages.count("ready")
        failure = None
        if self.gave_up:
            failure = self._failure
        elif not self.initial_reached or not self._steady():
            failure = self._first_failure()
        active: Literal["True", "False", "Unknown"] = "Unknown"
        reason = message = ""
        if ready and (self.initial_reached or ready >= self.spec.initial_scale):
            active = "True"
        elif self.gave_up:
            active, reason, message = "False", TIMED_OUT, "The target could not be activated."
        elif not self.initial_reached:
            reason, message = "Deploying", ""
        elif self._desired:
            reason, message = "Queued", "Requests to the target are being buffered as resources are provisioned."
        else:
            active, reason, message = "False", "NoTraffic", "The target is not receiving traffic."
        return ScaleStatus(
            uid=self.uid,
            desired=0 if self.deleted else self._desired,
            actual=ready,
            initial_reached=self.initial_reached,
            active=active,
            active_reason=reason,
            active_message=message,
            failure=failure,
            deploying_since=0.0 if self.initial_reached else self._since,
            rollback=self.worse,
            changes=self.changes,
            by_load=self._by_load(),
            usage=self._usage(),
        )

    def explained(self) -> str:
        """The newest decision in a sentence; empty when there is none."""
        if self.spec.by_resources:
            return hpa.explain(self.spec, self._by_usage.decision) if self._by_usage.decision else ""
        return explain(self.decision) if self.decision else ""

    def _by_load(self) -> int:
        if self.spec.by_resources:
            return self._desired
        return self.decision.by_load if self.decision and self._desired else 0

    def _usage(self) -> UsageStatus | None:
        decision = self._by_usage.decision
        if not self.spec.by_resources:
            return None
        average, problem = (decision.average, decision.problem) if decision else (None, "")
        return UsageStatus(
            self.spec.metric, self.spec.target, None if average is None else round(average), problem,
            max(1, self.spec.min_scale), self.spec.max_scale,
        )  # fmt: skip

    def _steady(self) -> bool:
        """Whether an instance serves of which nothing bad is known."""
        return any(one.stage == "ready" and one.failure is None for one in self.members.values())

    def _first_failure(self) -> StartFailure | None:
        return next((member.failure for member in self._alive() if member.failure), None)

    def is_settled(self) -> bool:
        """Whether it is quiet until something comes in, whatever the time is: most Revisions are, most of the time."""
        if not self._settled:
            by_the_clock = self.spec.warm or self.spec.rollout_from or self._world.clock() < self._rolled_out[1]
            self._settled = not self.members and not by_the_clock and self.quiet
        return self._settled

    @property
    def quiet(self) -> bool:
        """Nothing runs and nothing is asked for: it costs nothing until it is poked."""
        if self.deleted or self.gave_up or not self.initial_reached:
            return (self.deleted or self.gave_up) and not self.members
        nothing = all(one.stage in RUNGS for one in self.members.values())
        idle = nothing and not self._desired and not self.spec.min_scale
        now = self._world.clock()
        return idle and now - self._busy > self.spec.window_seconds and not (self._warm(now) or self._rollout(now))


def _rests(
    instance: Instance, known: Endpoint | None, row: InstanceRow | None, now: float
) -> tuple[Rung, float] | None:
    """Whether an instance that is there rests on a rung of the idle ladder, and since when.

    Pausing comes after the activators' acknowledgement: one that they still know as ready was frozen by somebody else.
    """
    since = row.since if row and row.since else now
    if instance.state == "paused" and not (known and known.state == "ready"):
        return "paused", since
    if instance.state == "exited" and row and row.stage in RUNGS and not known:
        return "stopped", since
    return None
