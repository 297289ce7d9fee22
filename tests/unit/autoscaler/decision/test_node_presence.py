"""Whether a silent node is lost, or only its process is away."""

from itertools import product

import pytest

from autoscaler.decision.node_presence import ABSENT_SECONDS, Presence, presence


@pytest.mark.parametrize(
    ("heartbeat", "activator", "expected"),
    [
        (0.0, 0.0, Presence.RESPONDING),
        (2.9, None, Presence.RESPONDING),
        (3.0, 2.0, Presence.ABSENT),
        (ABSENT_SECONDS - 0.1, 0.0, Presence.ABSENT),
        (ABSENT_SECONDS, 0.0, Presence.LOST),
        (3.0, 3.0, Presence.LOST),
        (3.0, None, Presence.LOST),
        (None, 0.0, Presence.LOST),
    ],
)
def test_table(heartbeat: float | None, activator: float | None, expected: Presence) -> None:
    assert presence(heartbeat, activator) is expected


def test_a_machine_without_power_is_lost_after_three_seconds_at_the_latest() -> None:
    # Ages of the last heartbeat, which is sent each second, and of the last acknowledgement, each two seconds.
    for heartbeat, activator in product((0.0, 0.5, 0.99), (0.0, 0.5, 1.0, 1.99)):
        assert presence(heartbeat + 3.0, activator + 3.0) is Presence.LOST
