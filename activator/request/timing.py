"""The parts of a cold start, for the response's Server-Timing. Pure."""

from knoll.messages.endpoints import StartTiming


def parts(arrived: float, served: float, answered: float, timing: StartTiming) -> dict[str, float]:
    """Split the wait for a response into its parts.

    Args:
        arrived: when the request arrived, epoch seconds.
        served: when it got its slot.
        answered: when the head of the response arrived, on the clock of `served`.
        timing: when the instance reached each step of its start.

    Returns:
        Seconds that sum to the wait: `queue` (until the start was requested, and from ready to served), `schedule`
        (until a sandbox was available), `start` (until the program ran), `ready` (until the probe succeeded),
        `response` (from served until the program responded).
        Time before the arrival of the request is not counted.
    """
    total = max(0.0, served - arrived)
    marks = [timing.requested, timing.scheduled, timing.started, timing.ready]
    inside = [min(max(mark, arrived), arrived + total) for mark in marks]
    for index in range(1, len(inside)):
        inside[index] = max(inside[index], inside[index - 1])
    schedule, start, ready = (inside[index + 1] - inside[index] for index in range(3))
    return {
        "queue": total - schedule - start - ready,
        "schedule": schedule,
        "start": start,
        "ready": ready,
        "response": max(0.0, answered - max(arrived, served)),
    }


def field(durations: dict[str, float]) -> bytes:
    """Return the field line, with durations in milliseconds as in Server-Timing."""
    shown = ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in durations.items())
    return f"Server-Timing: {shown}\r\n".encode()
