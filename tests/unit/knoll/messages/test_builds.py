"""The phases of a Build."""

import msgspec
import pytest

from knoll.messages.builds import BUILD_TRANSITIONS, BuildPhase, BuildProgress

QUEUED, RUNNING, SUCCEEDED, FAILED = BuildPhase


@pytest.mark.parametrize(
    ("phase", "following"),
    [
        (QUEUED, {RUNNING, FAILED}),
        (RUNNING, {RUNNING, QUEUED, SUCCEEDED, FAILED}),
        (SUCCEEDED, set()),
        (FAILED, set()),
    ],
    ids=[phase.lower() for phase in BuildPhase],
)
def test_the_phases_that_follow_a_phase(phase: BuildPhase, following: set[BuildPhase]) -> None:
    assert BUILD_TRANSITIONS[phase] == following
    assert phase.is_final is not bool(following)


def test_the_table_has_every_phase() -> None:
    assert BUILD_TRANSITIONS.keys() == set(BuildPhase)


@pytest.mark.parametrize("phase", BuildPhase)
def test_progress_crosses_redis_with_the_name_of_its_phase(phase: BuildPhase) -> None:
    encoded = msgspec.json.encode(BuildProgress("uid", phase))
    assert msgspec.json.decode(encoded)["phase"] == phase.value
    assert msgspec.json.decode(encoded, type=BuildProgress).phase is phase
