"""States of a request in the activator, and the events that change them. Pure.

Theory of operation: a request is routed and asks the breaker of its revision for a slot. With a slot it is sent to an
endpoint; without one it waits in the queue of the revision. The response either ends with its head or is streamed, or
the connection becomes a tunnel (101). Every way out leads back to `IDLE`: the slot is released, the request is counted,
and an HTTP/1.1 connection can take its next request.

`exchange.Exchange` has these transitions unrolled in its methods, because a look-up for each event would slow down
every request. `TRANSITIONS` is their specification; tests/unit/activator/request/test_states.py drives an exchange
through each of its rows and checks that no other change of state happens.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class State(Enum):
    """Where a request is."""

    IDLE = "idle"
    """No request: before the first one of a connection, and after each."""
    QUEUED = "queued"
    """Waiting for a slot."""
    SENT = "sent"
    """It has a slot, and no response was passed on yet; the connection to the instance may still be being made."""
    STREAMING = "streaming"
    """The response's head was passed on, its body was not to the end."""
    TUNNEL = "tunnel"
    """The connection was upgraded: bytes pass in both directions."""


# Compared by `is` through these names: as fast as small integers were, where `State.IDLE` took four times as long.
IDLE, QUEUED, SENT, STREAMING, TUNNEL = State


class Event(Enum):
    """What changes the state of a request; the comment names the method of `Exchange`."""

    SLOT_TAKEN = "slot taken"  # begin, admitted
    ALL_SLOTS_TAKEN = "all slots taken"  # begin
    LOCAL_RESPONSE = "local response"  # begin: no such host, a redirect, a full queue
    CONNECTION_REFUSED = "connection refused"  # unreachable; another endpoint is tried
    CONNECTION_REFUSED_TOO_LONG = "connection refused too long"  # unreachable, after RETRY_CONNECT_SECONDS
    RESPONSE_STARTED = "response started"  # answer
    RESPONSE_COMPLETE = "response complete"  # answer, more
    SWITCHED_PROTOCOLS = "switched protocols"  # switched
    UPSTREAM_LOST = "upstream lost"  # broken, tunnel_closed
    UPSTREAM_LOST_RESENT = "upstream lost, resent"  # broken: nothing came back, and the request may be sent again
    DEADLINE_PASSED = "deadline passed"  # check
    DEADLINE_EXTENDED = "deadline extended"  # check: bytes arrived since the deadline was set
    REVISION_DELETED = "revision deleted"  # forsaken
    BODY_INVALID = "body invalid"  # reject
    CLIENT_GONE = "client gone"  # gone
    INTERNAL_ERROR = "internal error"  # crashed


TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (IDLE, Event.SLOT_TAKEN): SENT,
        (IDLE, Event.ALL_SLOTS_TAKEN): QUEUED,
        (IDLE, Event.LOCAL_RESPONSE): IDLE,
        (IDLE, Event.CLIENT_GONE): IDLE,
        (IDLE, Event.INTERNAL_ERROR): IDLE,
        (QUEUED, Event.SLOT_TAKEN): SENT,
        (QUEUED, Event.DEADLINE_PASSED): IDLE,  # 503
        (QUEUED, Event.REVISION_DELETED): IDLE,  # 404
        (QUEUED, Event.BODY_INVALID): IDLE,  # 400
        (QUEUED, Event.CLIENT_GONE): IDLE,
        (QUEUED, Event.INTERNAL_ERROR): IDLE,  # 500
        (SENT, Event.CONNECTION_REFUSED): QUEUED,  # at the head of the queue
        (SENT, Event.CONNECTION_REFUSED_TOO_LONG): IDLE,  # 502
        (SENT, Event.RESPONSE_STARTED): STREAMING,
        (SENT, Event.RESPONSE_COMPLETE): IDLE,
        (SENT, Event.SWITCHED_PROTOCOLS): TUNNEL,
        (SENT, Event.UPSTREAM_LOST): IDLE,  # 502
        (SENT, Event.UPSTREAM_LOST_RESENT): SENT,  # once
        (SENT, Event.DEADLINE_PASSED): IDLE,  # 504
        (SENT, Event.BODY_INVALID): IDLE,  # 400
        (SENT, Event.CLIENT_GONE): IDLE,
        (SENT, Event.INTERNAL_ERROR): IDLE,  # 500
        (STREAMING, Event.RESPONSE_COMPLETE): IDLE,
        (STREAMING, Event.UPSTREAM_LOST): IDLE,  # the client's connection is broken, so that the loss shows
        (STREAMING, Event.DEADLINE_PASSED): IDLE,  # the body ends early, as a whole one where its framing allows it
        (STREAMING, Event.DEADLINE_EXTENDED): STREAMING,
        (STREAMING, Event.CLIENT_GONE): IDLE,
        (STREAMING, Event.INTERNAL_ERROR): IDLE,
        (TUNNEL, Event.UPSTREAM_LOST): IDLE,
        (TUNNEL, Event.DEADLINE_PASSED): IDLE,
        (TUNNEL, Event.CLIENT_GONE): IDLE,
        (TUNNEL, Event.INTERNAL_ERROR): IDLE,
    }
)
"""State and event to the next state. A pair that is not listed cannot occur."""
