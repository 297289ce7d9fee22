"""The states of a gradual rollout and the transitions between them. Pure.

A rollout belongs to one latest target of a Route and one Revision. Each reconciliation of the Route is exactly one
event: the step that is due (BEGIN, ACKNOWLEDGE, STEP, FINISH), or WAIT when none is due, or HOLD when the Revision has
too few ready instances for the share that the step would give it. HOLD leaves all shares as they are. The state itself
is not stored: `rollout.state_of` reads it from the rollout's clock.
"""

from collections.abc import Mapping
from enum import Enum, auto


class RolloutState(Enum):
    """Where a rollout is."""

    NONE = auto()
    """No rollout: the Revision has the whole share of its target, or has not received traffic yet."""
    STARTED = auto()
    """The Revision has its first percent; not every activator has acknowledged it."""
    STEPPING = auto()
    """The next step has a time."""
    HELD_BEFORE_START = auto()
    """The first percent, or the whole share of a rollout without steps, waits for ready instances."""
    HELD = auto()
    """A later step waits for ready instances."""


class RolloutEvent(Enum):
    """What a reconciliation finds out about a rollout."""

    BEGIN = auto()
    """The Revision is new: it gets its first percent."""
    ACKNOWLEDGE = auto()
    """Every activator routes the first percent: the remaining steps are planned."""
    STEP = auto()
    """The next step is due and leaves older Revisions a share."""
    FINISH = auto()
    """The Revision gets the whole share: by the last step, or because there is nothing to roll out gradually."""
    WAIT = auto()
    """No step is due."""
    HOLD = auto()
    """The step needs more ready instances than there are, and the limit for waiting is not reached."""


TRANSITIONS: Mapping[RolloutState, Mapping[RolloutEvent, RolloutState]] = {
    RolloutState.NONE: {
        RolloutEvent.BEGIN: RolloutState.STARTED,
        RolloutEvent.FINISH: RolloutState.NONE,
        RolloutEvent.HOLD: RolloutState.HELD_BEFORE_START,
    },
    RolloutState.STARTED: {
        # Again when the status lost the Revision's share.
        RolloutEvent.BEGIN: RolloutState.STARTED,
        RolloutEvent.ACKNOWLEDGE: RolloutState.STEPPING,
        RolloutEvent.FINISH: RolloutState.NONE,
        RolloutEvent.WAIT: RolloutState.STARTED,
        RolloutEvent.HOLD: RolloutState.HELD_BEFORE_START,
    },
    RolloutState.STEPPING: {
        RolloutEvent.BEGIN: RolloutState.STARTED,
        RolloutEvent.STEP: RolloutState.STEPPING,
        RolloutEvent.FINISH: RolloutState.NONE,
        RolloutEvent.WAIT: RolloutState.STEPPING,
        RolloutEvent.HOLD: RolloutState.HELD,
    },
    # Once the instances are ready or the limit for waiting has passed, the step is taken as if it had just become due.
    RolloutState.HELD_BEFORE_START: {
        RolloutEvent.BEGIN: RolloutState.STARTED,
        RolloutEvent.ACKNOWLEDGE: RolloutState.STEPPING,
        RolloutEvent.FINISH: RolloutState.NONE,
        RolloutEvent.WAIT: RolloutState.STARTED,
        RolloutEvent.HOLD: RolloutState.HELD_BEFORE_START,
    },
    RolloutState.HELD: {
        RolloutEvent.BEGIN: RolloutState.STARTED,
        RolloutEvent.STEP: RolloutState.STEPPING,
        RolloutEvent.FINISH: RolloutState.NONE,
        RolloutEvent.WAIT: RolloutState.STEPPING,
        RolloutEvent.HOLD: RolloutState.HELD,
    },
}
"""State to event to the next state. Events that are missing from a state cannot occur in it."""
