"""Which node arms an instance of each Revision."""

from collections import Counter
from collections.abc import Collection, Mapping

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision.arming_nodes import distribute

NODES = ["n1", "n2", "n3", "n4"]
UIDS = st.sampled_from([f"uid-{number}" for number in range(60)])
REVISIONS = st.lists(UIDS, unique=True).map(lambda uids: dict.fromkeys(uids, NODES))
RESTRICTED = st.dictionaries(UIDS, st.lists(st.sampled_from(NODES), unique=True))
BEFORE = st.dictionaries(UIDS, st.sampled_from([*NODES, "gone"]))


@given(REVISIONS, BEFORE)
def test_no_node_arms_more_than_its_share_and_an_eighth(
    revisions: Mapping[str, Collection[str]], before: Mapping[str, str]
) -> None:
    chosen = distribute(revisions, NODES, before)
    assert chosen.keys() == revisions.keys()
    assert all(count < len(revisions) / len(NODES) * 9 / 8 + 1 for count in Counter(chosen.values()).values())


def test_of_25_revisions_no_node_of_three_arms_more_than_ten() -> None:
    nodes = NODES[:3]
    chosen = distribute({f"r-{number}": nodes for number in range(25)}, nodes, {})
    assert max(Counter(chosen.values()).values()) <= 10


@given(RESTRICTED, BEFORE)
def test_only_allowed_nodes_arm_a_revision(revisions: Mapping[str, Collection[str]], before: Mapping[str, str]) -> None:
    chosen = distribute(revisions, NODES, before)
    assert chosen.keys() == {uid for uid, allowed in revisions.items() if allowed}
    assert all(node in revisions[uid] for uid, node in chosen.items())


@given(REVISIONS, BEFORE)
def test_nothing_moves_while_nothing_changes(
    revisions: Mapping[str, Collection[str]], before: Mapping[str, str]
) -> None:
    chosen = distribute(revisions, NODES, before)
    assert distribute({uid: revisions[uid] for uid in reversed(list(revisions))}, NODES, chosen) == chosen


@given(REVISIONS, UIDS)
def test_a_revision_that_wakes_moves_no_other_unless_a_node_has_too_many(
    revisions: Mapping[str, Collection[str]], woken: str
) -> None:
    before = distribute(revisions, NODES, {})
    others = {uid: allowed for uid, allowed in revisions.items() if uid != woken}
    after = distribute(others, NODES, before)
    counts = Counter(node for uid, node in before.items() if uid != woken)
    surplus = sum(max(0, count - (-(-len(others) * 9 // 32))) for count in counts.values())
    assert sum(after[uid] != before[uid] for uid in others) == surplus


def test_the_revisions_of_a_removed_node_go_to_the_others() -> None:
    revisions = {f"r-{number}": NODES for number in range(24)}
    before = distribute(revisions, NODES, {})
    left = NODES[:3]
    after = distribute(dict.fromkeys(revisions, left), left, before)
    assert all(after[uid] == node for uid, node in before.items() if node in left)
    assert set(after.values()) == set(left)


def test_without_nodes_none_is_armed() -> None:
    assert distribute({"r": []}, [], {"r": "n1"}) == {}
