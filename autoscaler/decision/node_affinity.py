"""Whether a node's labels satisfy a Revision's nodeSelector and its required node affinity. Pure.

Both are only accepted where config-features allows them, and are stored as they were sent. A malformed selector or term
matches no node.

Source: Kubernetes, staging/src/k8s.io/component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go; "Assigning Pods
to Nodes".
"""

from collections.abc import Callable, Mapping, Sequence

from knoll.values.json import JsonValue

Labels = Mapping[str, str]


def matches(node_selector: JsonValue, affinity: JsonValue, name: str, labels: Labels) -> bool:
    """Return whether an instance may be on a node.

    Args:
        node_selector: `nodeSelector` of the spec; None if there is none.
        affinity: `affinity` of the spec; None if there is none.
        name: name of the node.
        labels: labels of the node, including those that Kubernetes gives every node.
    """
    if node_selector:
        if not isinstance(node_selector, Mapping):
            return False
        if any(labels.get(key) != value for key, value in node_selector.items()):
            return False
    required = _field(_field(affinity, "nodeAffinity"), "requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    terms = _field(required, "nodeSelectorTerms")
    return isinstance(terms, list) and any(_term_matches(term, name, labels) for term in terms)


def _field(value: JsonValue, name: str) -> JsonValue:
    return value.get(name) if isinstance(value, Mapping) else None


def _term_matches(term: JsonValue, name: str, labels: Labels) -> bool:
    """All requirements of a term must match; a term without requirements matches no node."""
    expressions, fields = _field(term, "matchExpressions") or [], _field(term, "matchFields") or []
    if not isinstance(expressions, list) or not isinstance(fields, list) or not (expressions or fields):
        return False
    return all(_requirement_matches(each, labels) for each in expressions) and all(
        _requirement_matches(each, {"metadata.name": name}) for each in fields
    )


def _requirement_matches(requirement: JsonValue, labels: Labels) -> bool:
    key, operator = _field(requirement, "key"), _field(requirement, "operator")
    values = _field(requirement, "values") or []
    if not isinstance(key, str) or not isinstance(values, list) or operator not in _OPERATORS:
        return False
    return _OPERATORS[operator](labels.get(key), values)


def _compared(label: str | None, values: Sequence[JsonValue], sign: int) -> bool:
    try:
        (bound,) = values
        return label is not None and sign * int(label) > sign * int(bound)
    except (ValueError, TypeError):
        return False


_OPERATORS: dict[JsonValue, Callable[[str | None, Sequence[JsonValue]], bool]] = {
    "In": lambda label, values: label is not None and label in values,
    "NotIn": lambda label, values: label is None or label not in values,
    "Exists": lambda label, values: label is not None and not values,
    "DoesNotExist": lambda label, values: label is None and not values,
    "Gt": lambda label, values: _compared(label, values, 1),
    "Lt": lambda label, values: _compared(label, values, -1),
}
