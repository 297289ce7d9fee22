"""Merge patch and JSON patch."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.patch import patches
from api.wire.status import PatchError
from knoll.values.errors import BadRequestError

keys = st.sampled_from(["a", "b", "c", "d/e", "f~g", "0", "-"])
scalars = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["x", "y"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=10
)
objects = st.dictionaries(keys, values, max_size=4)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    return value


def difference(old: Any, new: Any) -> Any:
    """A merge patch from old to new; new has no nulls in objects."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    patch = {key: None for key in old if key not in new}
    return patch | {key: difference(old.get(key), value) for key, value in new.items() if old.get(key) != value}


# RFC 7396, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_do_what_the_rfc_lists(target: Any, patch: Any, result: Any) -> None:
    assert patches.merge(target, patch) == result


@given(objects, objects)
def test_a_difference_merged_in_gives_the_new_object(old: Any, new: Any) -> None:
    target = without_nulls(new)
    assert patches.merge(old, difference(old, target)) == target


@given(objects, objects)
def test_a_merge_done_twice_changes_nothing_more_and_mutates_nothing(old: Any, patch: Any) -> None:
    copy = eval(repr(old))
    once = patches.merge(old, patch)
    assert patches.merge(once, patch) == once
    assert old == copy


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/c", "value": 1}], {"a": {"b": [1, 2]}, "c": 1}),
        ([{"op": "add", "path": "/a/b/-", "value": 3}], {"a": {"b": [1, 2, 3]}}),
        ([{"op": "add", "path": "/a/b/0", "value": 0}], {"a": {"b": [0, 1, 2]}}),
        ([{"op": "add", "path": "/a/b/2", "value": 3}], {"a": {"b": [1, 2, 3]}}),
        ([{"op": "add", "path": "/a", "value": 3}], {"a": 3}),
        ([{"op": "add", "path": "", "value": {"x": 1}}], {"x": 1}),
        ([{"op": "replace", "path": "/a/b/1", "value": 9}], {"a": {"b": [1, 9]}}),
        ([{"op": "remove", "path": "/a/b/0"}], {"a": {"b": [2]}}),
        ([{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": [1, 2]}),
        ([{"op": "copy", "from": "/a/b/0", "path": "/c"}], {"a": {"b": [1, 2]}, "c": 1}),
        ([{"op": "test", "path": "/a/b", "value": [1, 2]}], {"a": {"b": [1, 2]}}),
        ([{"op": "add", "path": "/x~1y~0z", "value": 1}], {"a": {"b": [1, 2]}, "x/y~z": 1}),
        ([{"op": "add", "path": "/n", "value": None}], {"a": {"b": [1, 2]}, "n": None}),
    ],
)
def test_json_patches_do_what_the_rfc_says(operations: Any, result: Any) -> None:
    document = {"a": {"b": [1, 2]}}
    assert patches.json_patch(document, operations) == result
    assert document == {"a": {"b": [1, 2]}}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/nothing"},
        {"op": "replace", "path": "/nothing", "value": 1},
        {"op": "replace", "path": "/a/b/2", "value": 1},
        {"op": "add", "path": "/a/b/3", "value": 1},
        {"op": "add", "path": "/a/b/01", "value": 1},
        {"op": "add", "path": "/a/b/x", "value": 1},
        {"op": "add", "path": "/nothing/c", "value": 1},
        {"op": "add", "path": "/a/b/0/c", "value": 1},
        {"op": "remove", "path": "/a/b/-"},
        {"op": "remove", "path": ""},
        {"op": "test", "path": "/a", "value": 1},
        {"op": "test", "path": "/a/b/0", "value": True},
        {"op": "move", "from": "/a", "path": "/a/b"},
        {"op": "copy", "from": "/nothing", "path": "/c"},
    ],
)
def test_json_patches_that_do_not_apply_are_refused(operation: Any) -> None:
    with pytest.raises(PatchError):
        patches.json_patch({"a": {"b": [1, 2]}}, [operation])


@pytest.mark.parametrize(
    "operations",
    [
        {}, "x", [1], [{}], [{"op": "add", "path": "/a"}], [{"op": "add", "path": "a", "value": 1}],
        [{"op": "add", "path": 7, "value": 1}], [{"op": "nothing", "path": "/a"}], [{"op": "move", "path": "/a"}],
    ],
)  # fmt: skip
def test_what_is_no_json_patch_is_a_bad_request(operations: Any) -> None:
    with pytest.raises(BadRequestError):
        patches.json_patch({"a": 1}, operations)


def test_patches_are_bounded() -> None:
    with pytest.raises(PatchError, match="maximum operations"):
        patches.json_patch({}, [{"op": "test", "path": "", "value": {}}] * 10_001)
    doubling = [{"op": "copy", "from": "", "path": f"/x{n}"} for n in range(60)]
    with pytest.raises(PatchError, match="too large"):
        patches.json_patch({"a": "x" * 1000}, doubling)


def test_a_patch_that_nests_without_end_is_a_bad_request() -> None:
    level = "/a" * 90
    deep: Any = 1
    for _ in range(90):
        deep = {"a": deep}
    operations: list[Any] = [{"op": "add", "path": "/a", "value": deep}]
    # Each pair puts the whole object below its own end, so that it grows by 90 levels.
    for _ in range(40):
        operations += [{"op": "move", "from": "/a", "path": "/b"}, {"op": "add", "path": "/a", "value": deep}]
        operations += [{"op": "move", "from": "/b", "path": level}]
    operations += [{"op": "copy", "from": "/a", "path": "/c"}]
    with pytest.raises(BadRequestError, match="too deeply"):
        patches.json_patch({}, operations)


def test_a_refusal_does_not_repeat_the_object() -> None:
    with pytest.raises(PatchError) as refused:
        patches.json_patch({"a": "x" * 10_000}, [{"op": "copy", "from": "/b/c", "path": "/d"}])
    assert len(str(refused.value)) < 200


pointers = st.lists(keys | st.sampled_from(["1", "2"]), max_size=3).map(
    lambda parts: "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)
)
operations = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "replace", "remove", "test", "move", "copy"]), "path": pointers},
    optional={"value": values, "from": pointers},
)


@given(objects, st.lists(operations, max_size=5))
def test_any_json_patch_is_done_or_refused_and_mutates_nothing(document: Any, patch: Any) -> None:
    copy = eval(repr(document))
    with suppress(BadRequestError, PatchError):
        patches.json_patch(document, patch)
    assert document == copy


@given(objects, values)
def test_what_was_added_can_be_tested_and_removed(document: Any, value: Any) -> None:
    path = "/new"
    added = patches.json_patch(
        document, [{"op": "add", "path": path, "value": value}, {"op": "test", "path": path, "value": value}]
    )
    assert patches.json_patch(added, [{"op": "remove", "path": path}]) == document
