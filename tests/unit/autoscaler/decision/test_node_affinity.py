"""nodeSelector and required node affinity, as Kubernetes evaluates them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision.node_affinity import matches

LABELS = {"kubernetes.io/hostname": "n1", "disk": "ssd", "cores": "8"}


def affinity(*terms: Any) -> Any:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


def expression(key: str, operator: str, *values: str) -> Any:
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, True), ({}, True), ({"disk": "ssd"}, True), ({"disk": "ssd", "kubernetes.io/hostname": "n1"}, True),
        ({"disk": "hdd"}, False), ({"disk": "ssd", "zone": "a"}, False), ({"zone": ""}, False), (["disk"], False),
    ],
)  # fmt: skip
def test_all_labels_of_a_selector_are_required(selector: Any, expected: bool) -> None:
    assert matches(selector, None, "n1", LABELS) is expected


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        (expression("disk", "In", "hdd", "ssd"), True), (expression("disk", "In", "hdd"), False),
        (expression("zone", "In", "a"), False), (expression("disk", "NotIn", "hdd"), True),
        (expression("disk", "NotIn", "ssd"), False), (expression("zone", "NotIn", "a"), True),
        (expression("disk", "Exists"), True), (expression("zone", "Exists"), False),
        (expression("zone", "DoesNotExist"), True), (expression("disk", "DoesNotExist"), False),
        (expression("cores", "Gt", "4"), True), (expression("cores", "Gt", "8"), False),
        (expression("cores", "Lt", "16"), True), (expression("cores", "Lt", "8"), False),
        (expression("disk", "Gt", "4"), False), (expression("zone", "Lt", "4"), False),
        (expression("cores", "Gt", "4", "5"), False), (expression("disk", "Other", "ssd"), False),
        (expression("disk", "Exists", "ssd"), False), ({"operator": "Exists"}, False), ("disk", False), (None, False),
    ],
)  # fmt: skip
def test_a_requirement_compares_one_label(requirement: Any, expected: bool) -> None:
    assert matches(None, affinity({"matchExpressions": [requirement]}), "n1", LABELS) is expected


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ([], False), ([{}], False), ([{"matchExpressions": []}], False),
        ([{"matchExpressions": [expression("disk", "Exists"), expression("zone", "Exists")]}], False),
        ([{"matchExpressions": [expression("zone", "Exists")]}, {"matchExpressions": [expression("disk", "Exists")]}],
         True),
        ([{"matchFields": [expression("metadata.name", "In", "n1")]}], True),
        ([{"matchFields": [expression("metadata.name", "In", "n2")]}], False),
        ([{"matchFields": [expression("disk", "In", "ssd")]}], False),
    ],
)  # fmt: skip
def test_one_term_is_enough_and_all_of_its_requirements_are_needed(terms: list[Any], expected: bool) -> None:
    assert matches(None, affinity(*terms), "n1", LABELS) is expected


def test_selector_and_affinity_are_both_required_and_preferences_are_not() -> None:
    on_ssd = affinity({"matchExpressions": [expression("disk", "In", "ssd")]})
    assert matches({"disk": "ssd"}, on_ssd, "n1", LABELS)
    assert not matches({"zone": "a"}, on_ssd, "n1", LABELS)
    preferred = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}}
    assert matches(None, preferred, "n1", LABELS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8,
)  # fmt: skip


@given(JSON, JSON)
def test_any_value_is_judged(selector: Any, value: Any) -> None:
    assert matches(selector, value, "n1", LABELS) in (True, False)
    assert matches(None, affinity(value), "n1", LABELS) in (True, False)
    assert matches(None, affinity({"matchExpressions": [value, {"key": "disk", "operator": value}]}), "n1", {}) is False
