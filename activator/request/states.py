"""States of a request in the activator, and the events that change them. Pure.

Theory of operation: a request is routed and asks the breaker of its revision for a slot. With a slot it is sent to an
endpoint; without one it waits in the queue of the revision. The response either ends with its head or is streamed, or
the connection becomes a tunnel (101). Every request ends in `IDLE`: the slot is released, the request is counted,
and an HTTP/1.1 connection can take its next request.

`exchange.Exchange` has these transitions unrolled in its methods, because a look-up for each event would slow down
every request. `TRANSITIONS` is their specification; tests/unit/activator/request/test_states.py drives an exchange
through each of its rows and checks that no other change of state happens.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class RequestState(Enum):
    """Where a request is."""

    IDLE = "idle"
    """No request: before the first one of a connection, and after each."""
    QUEUED = "queued"
    """Waiting for a slot."""
    SENT = "sent"
    """It has a slot, and no response was passed on yet; the instance may not be connected yet."""
    STREAMING = "streaming"
    """The response's head was passed on, but not yet the whole body."""
    TUNNEL = "tunnel"
    """The connection was upgraded: bytes pass in both directions."""


# Compared by `is` through these names: as fast as small integers; `RequestState.IDLE` takes four times as long.
IDLE, QUEUED, SENT, STREAMING, TUNNEL = RequestState


class RequestEvent(Enum):
    """What changes the state of a request; the comment names the method of `Exchange`."""

    SLOT_TAKEN = "slot taken"  # begin, admitted
    ALL_SLOTS_TAKEN = "all slots taken"  # begin
    LOCAL_RESPONSE = "local response"  # begin: no such host, a redirect, a full queue
    CONNECTION_REFUSED = "connection refused"  # connection_refused; another endpoint is tried
    INSTANCE_BUSY = "instance busy"  # not_taken; its node has no free slot, or was lost (once)
    CONNECTION_REFUSED_TOO_LONG = "connection refused too long"  # connection_refused, after RETRY_CONNECT_SECONDS
    RESPONSE_STARTED = "response started"  # response_head
    RESPONSE_COMPLETE = "response complete"  # response_head, response_body
    SWITCHED_PROTOCOLS = "switched protocols"  # protocol_switched
    UPSTREAM_LOST = "upstream lost"  # upstream_lost, tunnel_closed
    UPSTREAM_LOST_RESENT = "upstream lost, resent"  # upstream_lost: no response, and it may be sent again
    DEADLINE_PASSED = "deadline passed"  # deadline_passed
    DEADLINE_EXTENDED = "deadline extended"  # deadline_passed: bytes arrived since the deadline was set
    REVISION_DELETED = "revision deleted"  # revision_deleted
    BODY_INVALID = "body invalid"  # reject
    CLIENT_GONE = "client gone"  # client_gone
    INTERNAL_ERROR = "internal error"  # internal_error


TRANSITIONS: Mapping[tuple[RequestState, RequestEvent], RequestState] = MappingProxyType(
    {
        (IDLE, RequestEvent.SLOT_TAKEN): SENT,
        (IDLE, RequestEvent.ALL_SLOTS_TAKEN): QUEUED,
        (IDLE, RequestEvent.LOCAL_RESPONSE): IDLE,
        (IDLE, RequestEvent.CLIENT_GONE): IDLE,
        (IDLE, RequestEvent.INTERNAL_ERROR): IDLE,
        (QUEUED, RequestEvent.SLOT_TAKEN): SENT,
        (QUEUED, RequestEvent.DEADLINE_PASSED): IDLE,  # 503
        (QUEUED, RequestEvent.REVISION_DELETED): IDLE,  # 404
        (QUEUED, RequestEvent.BODY_INVALID): IDLE,  # 400
        (QUEUED, RequestEvent.CLIENT_GONE): IDLE,
        (QUEUED, RequestEvent.INTERNAL_ERROR): IDLE,  # 500
        (SENT, RequestEvent.CONNECTION_REFUSED): QUEUED,  # at the head of the queue
        (SENT, RequestEvent.INSTANCE_BUSY): QUEUED,  # in its previous place
        (SENT, RequestEvent.CONNECTION_REFUSED_TOO_LONG): IDLE,  # 502
        (SENT, RequestEvent.RESPONSE_STARTED): STREAMING,
        (SENT, RequestEvent.RESPONSE_COMPLETE): IDLE,
        (SENT, RequestEvent.SWITCHED_PROTOCOLS): TUNNEL,
        (SENT, RequestEvent.UPSTREAM_LOST): IDLE,  # 502
        (SENT, RequestEvent.UPSTREAM_LOST_RESENT): SENT,  # once
        (SENT, RequestEvent.DEADLINE_PASSED): IDLE,  # 504
        (SENT, RequestEvent.BODY_INVALID): IDLE,  # 400
        (SENT, RequestEvent.CLIENT_GONE): IDLE,
        (SENT, RequestEvent.INTERNAL_ERROR): IDLE,  # 500
        (STREAMING, RequestEvent.RESPONSE_COMPLETE): IDLE,
        (STREAMING, RequestEvent.UPSTREAM_LOST): IDLE,  # the client's connection is broken, so that the loss shows
        (STREAMING, RequestEvent.DEADLINE_PASSED): IDLE,  # the body ends early, as complete if framing allows
        (STREAMING, RequestEvent.DEADLINE_EXTENDED): STREAMING,
        (STREAMING, RequestEvent.CLIENT_GONE): IDLE,
        (STREAMING, RequestEvent.INTERNAL_ERROR): IDLE,
        (TUNNEL, RequestEvent.UPSTREAM_LOST): IDLE,
        (TUNNEL, RequestEvent.DEADLINE_PASSED): IDLE,
        (TUNNEL, RequestEvent.CLIENT_GONE): IDLE,
        (TUNNEL, RequestEvent.INTERNAL_ERROR): IDLE,
    }
)
"""State and event to the next state. A pair that is not listed cannot occur."""
