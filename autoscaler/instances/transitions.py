"""The states of an instance and the transitions between them. Pure.

Theory of operation. A new instance is STARTING until its probes pass; it then takes requests (READY) and stops taking
new ones while a probe fails (UNREADY). An instance that is no longer needed is drained and removed, or goes idle first:
its last requests end (GOING_IDLE), then it is PAUSED (memory kept) or STOPPED (file systems kept). An idle instance is
woken by new demand, or steps down: from PAUSED by way of STOPPING to STOPPED, and from either to removal.

DRAINING and LOST lead to REMOVED and nowhere else. In DRAINING the requests in flight may finish; in LOST they cannot,
because the sandbox is gone or the instance is evicted.

Commands are ours: one that the state does not allow is a bug and raises. Observations come from outside (probes, the
engine, a deleted Pod) and may arrive late: one that the state does not allow has no effect.
"""

from collections.abc import Mapping
from enum import Enum

from knoll.messages.instances import Stage


class LifecycleState(Enum):
    """Where an instance is between its creation and its removal. The value is its label in metrics and explanations."""

    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    GOING_IDLE = "resting"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DRAINING = "draining"
    LOST = "lost"
    REMOVED = "gone"


class Command(Enum):
    """What this process decides."""

    KEEP_SERVING = "stay in service after a takeover"
    GO_IDLE = "end the last requests, then pause or stop"
    PAUSE = "the processes are frozen"
    STOP = "the processes have ended"
    STEP_DOWN = "stop a paused instance"
    WAKE = "serve again"
    DRAIN = "end the last requests, then remove"
    EVICT = "remove without waiting for requests"
    REMOVE = "nothing of it is left on the engine"


class Observation(Enum):
    """What is reported from outside."""

    PROBES_PASSED = "every container is ready"
    PROBES_FAILED = "a container is not ready any more"
    SANDBOX_LOST = "the sandbox has ended or was removed"


S, C, O = LifecycleState, Command, Observation  # noqa: E741

TRANSITIONS: Mapping[tuple[LifecycleState, Command | Observation], LifecycleState] = {
    # Start and service
    (S.STARTING, O.PROBES_PASSED): S.READY,
    (S.STARTING, C.KEEP_SERVING): S.READY,
    (S.READY, O.PROBES_FAILED): S.UNREADY,
    (S.UNREADY, O.PROBES_PASSED): S.READY,
    # Idle
    (S.READY, C.GO_IDLE): S.GOING_IDLE,
    (S.GOING_IDLE, C.PAUSE): S.PAUSED,
    (S.GOING_IDLE, C.STOP): S.STOPPED,
    (S.PAUSED, C.STEP_DOWN): S.STOPPING,
    (S.STOPPING, C.STEP_DOWN): S.STOPPING,
    (S.STOPPING, C.STOP): S.STOPPED,
    (S.PAUSED, C.WAKE): S.STARTING,
    (S.STOPPING, C.WAKE): S.STARTING,
    (S.STOPPED, C.WAKE): S.STARTING,
    # The end: possible from every state, and repeatable
    **{(state, C.DRAIN): S.DRAINING for state in LifecycleState if state not in (S.LOST, S.REMOVED)},
    (S.LOST, C.DRAIN): S.LOST,
    (S.REMOVED, C.DRAIN): S.REMOVED,
    **{(state, end): S.LOST for state in LifecycleState if state is not S.REMOVED for end in (C.EVICT, O.SANDBOX_LOST)},
    (S.REMOVED, C.EVICT): S.REMOVED,
    (S.DRAINING, C.REMOVE): S.REMOVED,
    (S.LOST, C.REMOVE): S.REMOVED,
}

IDLE = frozenset({LifecycleState.PAUSED, LifecycleState.STOPPING, LifecycleState.STOPPED})
"""Out of service, cheap, and woken faster than a new instance starts."""
ENDING = frozenset({LifecycleState.DRAINING, LifecycleState.LOST, LifecycleState.REMOVED})
NOT_COUNTED = IDLE | ENDING | {LifecycleState.GOING_IDLE}
"""States of instances that do not count towards the scale of their Revision."""

_STAGES: Mapping[LifecycleState, Stage] = {
    LifecycleState.STARTING: "starting",
    LifecycleState.READY: "ready",
    LifecycleState.UNREADY: "unready",
    LifecycleState.GOING_IDLE: "unready",
    LifecycleState.PAUSED: "paused",
    LifecycleState.STOPPING: "paused",
    LifecycleState.STOPPED: "stopped",
    LifecycleState.DRAINING: "draining",
    LifecycleState.LOST: "draining",
    LifecycleState.REMOVED: "draining",
}


class IllegalTransitionError(RuntimeError):
    """A command that the state of an instance does not allow: a bug of the caller."""


def next_state(state: LifecycleState, event: Command | Observation) -> LifecycleState:
    """Return the state after a command or an observation.

    Raises:
        IllegalTransitionError: the state does not allow the command. An observation never raises.
    """
    following = TRANSITIONS.get((state, event))
    if following is not None:
        return following
    if isinstance(event, Observation):
        return state
    raise IllegalTransitionError(f"an instance that is {state.value} cannot {event.name.lower().replace('_', ' ')}")


def stage_of(state: LifecycleState) -> Stage:
    """Return the stage that is reported to the API for a state."""
    return _STAGES[state]


def label_of(state: LifecycleState) -> str:
    """Return the name of a state in metrics and explanations, which distinguish fewer states."""
    match state:
        case LifecycleState.STOPPING:
            return str(LifecycleState.PAUSED.value)
        case LifecycleState.LOST:
            return str(LifecycleState.DRAINING.value)
        case _:
            return str(state.value)
