"""One tick of decisions for many active Revisions: receive reports, average windows, decide, plan."""

import time
from statistics import median
from types import SimpleNamespace
from typing import Any

import structlog

from autoscaler.instances.transitions import LifecycleState
from autoscaler.revisions.revision_scaler import RevisionScaler
from knoll.config.platform import PlatformConfig
from knoll.messages.reports import RevisionReport
from knoll.resources.scaling import scaling_spec
from tests.unit.autoscaler.sample_revisions import revision

REPORTED_SECONDS, TICKS = 60, 15
EACH = 2
"""Activators that report, and instances of each Revision."""


class Running:
    """A ready instance as decisions see it, without engine and tasks."""

    failure = None
    state = LifecycleState.READY
    was_in_service = True
    created = 1.0
    leaving = False

    def __init__(self, name: str) -> None:
        self.name = name

    def drain(self) -> None:
        self.state = LifecycleState.REMOVED

    def start(self) -> None:
        self.state = LifecycleState.READY


def tick_ms(revisions: int) -> float:
    """Return the median milliseconds of a tick in which two activators report load of each Revision."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    now = 1000.0
    deps: Any = SimpleNamespace(clock=lambda: now, on_change=lambda _: None)
    scalers = []
    for number in range(revisions):
        body = revision(f"r{number}-00001")
        scaler = RevisionScaler(body, scaling_spec(body, PlatformConfig()), deps, before=None)
        scaler.progress.initial_reached = True
        scaler.instances = {f"{number}-{at}": Running(f"{number}-{at}") for at in range(EACH)}  # type: ignore[misc]
        scalers.append(scaler)
    for _ in range(REPORTED_SECONDS):
        now += 1
        for scaler in scalers:
            for at in range(EACH):
                scaler.report(f"activator-{at}", RevisionReport(scaler.key, 50.0, 50, 50, 0, {}), now, 1.0)
    taken = []
    for _ in range(TICKS + 1):
        now += 2
        begun = time.perf_counter()
        for scaler in scalers:
            scaler.act(decide_first=True)
        taken.append((time.perf_counter() - begun) * 1000)
    return median(taken[1:])
