"""Compares the outcomes of a new Revision's requests with those of the Revision before it, during a rollout."""

from autoscaler.decision.rollback_judge import Outcome, Outcomes, evaluate
from knoll.messages.reports import RevisionReport
from knoll.resources.annotations.rollback import RollbackPolicy


class RolloutComparison:
    """The outcomes of one Revision, and the verdict on it."""

    def __init__(self) -> None:
        self._outcomes: Outcomes | None = None
        """Recorded while a Revision is compared with this one, or this one with another."""
        self.worse = ""
        """Why it does worse than the Revision before it; empty while it does not."""
        self._baseline = Outcome()
        """Outcome of that Revision, when it last had enough requests."""

    def reset(self) -> None:
        """Forget the verdict: the rollout is over, or another one begins."""
        self.worse, self._baseline = "", Outcome()

    def record(self, at: float, row: RevisionReport, policy: RollbackPolicy | None) -> None:
        """Add a report that arrived at a moment, epoch seconds."""
        if self._outcomes is None and policy:
            self._outcomes = Outcomes(policy.window_seconds)
        if self._outcomes is not None:
            self._outcomes.record(at, Outcome(row.answers, row.errors, row.latency))

    def compare(self, policy: RollbackPolicy, before: "RolloutComparison | None", name: str, now: float) -> bool:
        """Compare with the Revision before; returns whether a verdict has just been found.

        Args:
            before: of that Revision; None when it is gone.
            name: of that Revision.
            now: epoch seconds.
        """
        if self.worse:
            return False
        window = policy.window_seconds
        if before is not None:
            before._outcomes = before._outcomes or Outcomes(window)
            outcome = before._outcomes.over(now, window)
            # Once traffic has left the old Revision, its last full window counts.
            self._baseline = outcome if outcome.answers >= policy.requests else self._baseline
        new = self._outcomes.over(now, window) if self._outcomes else Outcome()
        self.worse = evaluate(policy, new, self._baseline, name)
        return bool(self.worse)
