"""Which Revisions have an armed instance."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision.armed_pool import (
    ARMED_BYTES,
    KEPT_FREE,
    RECENT_SECONDS,
    Armed,
    ArmingCandidate,
    ArmingPlan,
    limit,
    plan,
)

NOW = 1_000_000.0
UIDS = st.sampled_from("abcdefghij")
CANDIDATES = st.dictionaries(UIDS, st.floats(0, 2 * RECENT_SECONDS)).map(
    lambda ages: [ArmingCandidate(uid, NOW - age) for uid, age in ages.items()]
)
ARMED = st.lists(UIDS, max_size=12).map(lambda uids: [Armed(f"{uid}-{at}", uid) for at, uid in enumerate(uids)])
BOUND = st.integers(0, 12)


def carried_out(armed: list[Armed], steps: ArmingPlan) -> list[Armed]:
    kept = [instance for instance in armed if instance.name not in steps.disarm]
    return kept + [Armed(f"{uid}-new", uid) for uid in steps.arm]


@given(CANDIDATES, ARMED, BOUND)
def test_never_more_than_the_bound_and_never_two_of_a_revision(
    candidates: list[ArmingCandidate], armed: list[Armed], most: int
) -> None:
    after = carried_out(armed, plan(candidates, armed, most, NOW))
    assert len(after) <= most
    assert all(count == 1 for count in Counter(instance.uid for instance in after).values())


@given(CANDIDATES, ARMED, BOUND)
def test_those_used_last_are_armed_and_no_others(
    candidates: list[ArmingCandidate], armed: list[Armed], most: int
) -> None:
    after = {instance.uid for instance in carried_out(armed, plan(candidates, armed, most, NOW))}
    used = {candidate.uid: candidate.last_used for candidate in candidates}
    recent = {uid for uid, at in used.items() if NOW - at <= RECENT_SECONDS}
    assert after <= recent
    assert len(after) == min(most, len(recent))
    assert all(used[uid] >= used[other] for uid in after for other in recent - after)


@given(CANDIDATES, ARMED, BOUND)
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(
    candidates: list[ArmingCandidate], armed: list[Armed], most: int
) -> None:
    after = carried_out(armed, plan(candidates, armed, most, NOW))
    assert plan(candidates, after, most, NOW) == ArmingPlan()


@given(CANDIDATES, ARMED, BOUND)
def test_nothing_is_disarmed_that_is_armed_again(
    candidates: list[ArmingCandidate], armed: list[Armed], most: int
) -> None:
    steps = plan(candidates, armed, most, NOW)
    kept = {instance.uid for instance in armed if instance.name not in steps.disarm}
    disarmed = {instance.uid for instance in armed if instance.name in steps.disarm}
    assert not set(steps.arm) & (kept | disarmed)


@given(CANDIDATES, ARMED, BOUND, BOUND)
def test_a_smaller_bound_disarms_those_that_were_used_the_longest_ago(
    candidates: list[ArmingCandidate], armed: list[Armed], more: int, fewer: int
) -> None:
    before = carried_out(armed, plan(candidates, armed, max(more, fewer), NOW))
    steps = plan(candidates, before, min(more, fewer), NOW)
    used = {candidate.uid: candidate.last_used for candidate in candidates}
    disarmed = [used[instance.uid] for instance in before if instance.name in steps.disarm]
    kept = [used[instance.uid] for instance in before if instance.name not in steps.disarm]
    assert steps.arm == ()
    assert not disarmed or not kept or max(disarmed) <= min(kept)


@given(CANDIDATES, ARMED)
def test_zero_turns_it_off(candidates: list[ArmingCandidate], armed: list[Armed]) -> None:
    assert plan(candidates, armed, 0, NOW) == ArmingPlan(disarm=tuple(instance.name for instance in armed))


BYTES = st.integers(0, 64 * 1024**3)


@given(BOUND, st.integers(0, 12), BYTES, BYTES)
def test_the_limit_keeps_to_the_bound_and_leaves_memory_free(
    bound: int, armed: int, total: int, available: int
) -> None:
    available = min(available, total)
    result = limit(bound, armed, total, available)
    assert 0 <= result <= bound
    left = available - (result - armed) * ARMED_BYTES
    assert left >= KEPT_FREE * total or result == 0


@given(BOUND, st.integers(0, 12), BYTES, BYTES, BYTES)
def test_more_available_memory_never_lowers_the_limit(bound: int, armed: int, total: int, less: int, more: int) -> None:
    less, more = sorted((less, more))
    assert limit(bound, armed, total, less) <= limit(bound, armed, total, more)


@given(BOUND, st.integers(0, 12))
def test_unknown_memory_leaves_the_bound(bound: int, armed: int) -> None:
    assert limit(bound, armed, 0, None) == bound
