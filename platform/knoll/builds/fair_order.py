"""The order in which builds of several namespaces come to their turn. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping


def fair_order(waiting: Iterable[tuple[str, str]], turns: Mapping[str, float]) -> list[str]:
    """Arrange what waits so that namespaces take turns, however much each has waiting.

    Within a namespace the order stays. Its n-th build has at most n of each other namespace before it.

    Args:
        waiting: namespace and id, in the order they came or were arranged in before.
        turns: when a build of a namespace was begun last, on any clock; the longest ago comes first, never before all.
    """
    queues: dict[str, list[str]] = defaultdict(list)
    for namespace, name in waiting:
        queues[namespace].append(name)
    # A stable sort: of namespaces that never had a turn the first to come is the first to be served.
    names = sorted(queues, key=lambda namespace: turns.get(namespace, float("-inf")))
    longest = max(map(len, queues.values()), default=0)
    return [queues[name][place] for place in range(longest) for name in names if place < len(queues[name])]
