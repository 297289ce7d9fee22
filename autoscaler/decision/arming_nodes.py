"""Which node arms an instance of each Revision. Pure.

A Revision stays with its node while that is possible, because moving it means to start an armed instance elsewhere and
to remove one here. Others get the node that rendezvous hashing prefers among those with room: no node has more than its
share and an eighth, so Revisions that are woken together do not start on one machine.

Source: rendezvous hashing; Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads (2018).
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping


def distribute(
    revisions: Mapping[str, Collection[str]], nodes: Collection[str], before: Mapping[str, str]
) -> dict[str, str]:
    """Return the node of each Revision, by uid; those that no node may arm are left out.

    Args:
        revisions: uid to the nodes that may arm it, some of `nodes`.
        nodes: all nodes.
        before: what this function returned last time.
    """
    most = _most(len(revisions), len(nodes))
    counts = Counter[str]()
    chosen: dict[str, str] = {}
    for uid, allowed in revisions.items():
        node = before.get(uid, "")
        if node in allowed and counts[node] < most:
            chosen[uid] = node
            counts[node] += 1
    for uid in sorted(revisions.keys() - chosen.keys()):
        allowed = revisions[uid]
        with_room = [node for node in allowed if counts[node] < most]
        if not with_room and allowed:
            # Only full nodes may arm it, as with a volume.
            with_room = [min(allowed, key=lambda node: (counts[node], node))]
        if with_room:
            chosen[uid] = max(with_room, key=lambda node: _weight(uid, node))
            counts[chosen[uid]] += 1
    return chosen


def _most(revisions: int, nodes: int) -> int:
    """Return how many Revisions one node arms at most: its share and an eighth, rounded up."""
    return -(-revisions * 9 // (8 * nodes)) if nodes else 0


def _weight(uid: str, node: str) -> bytes:
    return hashlib.blake2b(f"{uid} {node}".encode(), digest_size=8).digest()
