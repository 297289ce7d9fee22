"""Figures and the bounds that they are compared with."""

from collections.abc import Iterable
from dataclasses import dataclass

BOUNDS = {
    "machines.remote_cold_vs_local": "<= 1.25",
    "machines.placed_cold_vs_engine": "<= 1.5",
    "machines.wake25_p95_vs_plain": "<= 1.1",
    "machines.wake25_most_on_one": "<= 10",
    "machines.relay_cpu_vs_local": "<= 2.6",
    "machines.relay_added_p50_ms": "<= 0.5",
    "machines.three_vs_one": ">= 2.7",
    "machines.failover_lost_writes": "<= 0",
    "machines.powercut_withdrawn_p95_s": "<= 4",
    "machines.powercut_back_p95_s": "<= 6",
    "machines.powercut_healed_p95_s": "<= 10",
    "machines.powercut_lost_writes": "<= 0",
    "machines.powercut_repeatable_5xx": "<= 0",
    "machines.powercut_shared_slots": "<= 0",
    "machines.placement_rate_vs_plain": ">= 0.8",
    "machines.manager_idle_percent": "<= 15",
}
"""By name of the figure; others have no bound."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a run."""

    name: str
    value: float
    unit: str

    def line(self) -> str:
        """Return the line for programs."""
        return f"RESULT {self.name} {self.value:.4g} {self.unit}"

    @property
    def is_within_bound(self) -> bool:
        """Whether it meets its bound, if it has one."""
        comparison, _, bound = BOUNDS.get(self.name, "").partition(" ")
        if not bound:
            return True
        return self.value <= float(bound) if comparison == "<=" else self.value >= float(bound)


def table(figures: Iterable[Figure]) -> str:
    """Return a table for people: each figure beside its bound."""
    lines = [f"{'figure':<36} {'value':>9} {'unit':<8} bound"]
    for each in figures:
        bound = BOUNDS.get(each.name, "")
        missed = "" if each.is_within_bound else "  MISSED"
        lines.append(f"{each.name:<36} {each.value:>9.4g} {each.unit:<8} {bound}{missed}".rstrip())
    return "\n".join(lines)
