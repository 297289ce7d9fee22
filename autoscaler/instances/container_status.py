"""The status of one container of an instance, as users see it. Pure."""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from autoscaler.instances.failures import BEFORE_A_CONTAINER
from autoscaler.runtime.model import ContainerSpec, ContainerState
from knoll.messages.instances import ContainerEnd, ContainerRow
from knoll.messages.scale import StartFailure
from knoll.values.duration import format_duration


class RestartPhase(Enum):
    """The phases of a restart: STOPPING → WAITING → STARTING; a container that exited starts with WAITING.

    The container runs in the first phase only.
    """

    STOPPING = "SIGTERM was sent; the grace period is running"
    WAITING = "ended; the back-off is running"
    STARTING = "ended; the engine is starting it"


@dataclass(frozen=True, slots=True)
class ContainerProgress:
    """The current state of one container."""

    state: ContainerState | None
    """As of its last start; None before the first."""
    last_end: ContainerEnd | None
    """How its last run ended."""
    restarting: bool
    phase: RestartPhase | None
    """Of the restart; None before its first phase."""
    back_off_seconds: float


def container_row(
    spec: ContainerSpec,
    progress: ContainerProgress,
    failure: StartFailure | None,
    pod: str,
    *,
    stopped: bool,
    ready: bool,
) -> ContainerRow:
    """Return the status of a container, as users see it.

    Args:
        failure: of the instance, if any.
        pod: how messages name the Pod.
        stopped: the instance is idle and its processes have ended.
        ready: the instance is in service.
    """
    state, last, phase = progress.state, progress.last_end, progress.phase
    if state is None:
        reason, message = _not_started(failure)
        return ContainerRow(spec.name, spec.image, running=False, ready=False, reason=reason, message=message)
    if stopped:
        return ContainerRow(
            spec.name, spec.image, running=False, ready=False, restarts=state.restarts, reason="Stopped", last=last
        )
    if not progress.restarting or phase is RestartPhase.STOPPING:
        return ContainerRow(
            spec.name, spec.image, running=True, ready=ready and not progress.restarting, restarts=state.restarts,
            started=state.started_at, last=last,
        )  # fmt: skip
    # Without a pause there is no back-off: the container has ended, and its next start is under way.
    reason, message = (last.reason, "") if last else ("ContainerCreating", "")
    if phase is RestartPhase.WAITING:
        reason = "CrashLoopBackOff"
        pause = format_duration(Fraction(progress.back_off_seconds))
        message = f"back-off {pause} restarting failed container={spec.name} pod={pod}"
    return ContainerRow(
        spec.name, spec.image, running=False, ready=False, restarts=state.restarts, started=state.started_at,
        reason=reason, message=message, last=last,
    )  # fmt: skip


def _not_started(failure: StartFailure | None) -> tuple[str, str]:
    if failure is None:
        return "ContainerCreating", ""
    return failure.reason if failure.reason in BEFORE_A_CONTAINER else "RunContainerError", failure.message
