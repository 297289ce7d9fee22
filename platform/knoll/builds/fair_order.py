"""The order in which queued builds of several namespaces are run. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping


def fair_order(waiting: Iterable[tuple[str, str]], turns: Mapping[str, float]) -> list[str]:
    """Order queued builds so that namespaces take turns, however many builds each has queued.

    Within a namespace the order is kept. Before its n-th build there are at most n of each other namespace.

    Args:
        waiting: namespace and id, in the order of arrival or as ordered before.
        turns: when a build of each namespace last started, on any clock; the earliest comes first, and a namespace
            without one before all others.
    """
    queues: dict[str, list[str]] = defaultdict(list)
    for namespace, name in waiting:
        queues[namespace].append(name)
    # A stable sort: namespaces that never had a turn keep their order of arrival.
    names = sorted(queues, key=lambda namespace: turns.get(namespace, float("-inf")))
    longest = max(map(len, queues.values()), default=0)
    return [queues[name][place] for place in range(longest) for name in names if place < len(queues[name])]
