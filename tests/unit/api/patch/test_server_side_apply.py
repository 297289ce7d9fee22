"""Ownership of fields in server-side apply."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.patch import server_side_apply
from api.wire.status import ApplyConflictError
from knoll.values.json import Json

data = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyz"), max_size=4)


def config(values: Json, **metadata: Any) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", **metadata}, "data": dict(values)}


def stored(values: Json) -> Json:
    return config(values, resourceVersion="1", creationTimestamp="t0")


def apply(old: Json, values: Json, manager: str, *, force: bool = False) -> Json:
    applied = server_side_apply.apply(old, config(values), manager, force, "v1", "")
    body = {**applied.body, "metadata": dict(applied.body["metadata"])}
    applied.record(body, "t1")
    return body


def first(values: Json, manager: str) -> Json:
    body = stored(values)
    server_side_apply.first(body, config(values), manager, "v1", "t0")
    return body


@given(data, data, data)
def test_two_forced_appliers_leave_the_union_of_what_they_want(
    first_data: Json, second_data: Json, third_data: Json
) -> None:
    body = apply(first(first_data, "a"), second_data, "b", force=True)
    body = apply(body, third_data, "a", force=True)
    assert {**second_data, **third_data} == body.get("data", {})


@given(data, data)
def test_applying_again_changes_nothing(first_data: Json, second_data: Json) -> None:
    body = apply(first(first_data, "a"), second_data, "b", force=True)
    again = apply(body, second_data, "b")
    assert again == body
    assert not server_side_apply.differs(again, body)


@given(data, data)
def test_only_other_values_of_owned_fields_conflict(first_data: Json, second_data: Json) -> None:
    old = first(first_data, "a")
    disputed = {key for key in first_data.keys() & second_data.keys() if first_data[key] != second_data[key]}
    if not disputed:
        apply(old, second_data, "b")
        return
    with pytest.raises(ApplyConflictError) as refused:
        apply(old, second_data, "b")
    assert {path for _, path in refused.value.conflicts} == {f".data.{key}" for key in disputed}


@given(data, data)
def test_a_sole_applier_gets_exactly_what_it_says(first_data: Json, second_data: Json) -> None:
    assert apply(first(first_data, "a"), second_data, "a").get("data", {}) == second_data


@given(data, data)
def test_every_field_written_through_an_update_has_its_last_writer(first_data: Json, second_data: Json) -> None:
    old = first(first_data, "a")
    body = {**config(second_data, resourceVersion="1"), "metadata": {"name": "c", "resourceVersion": "1"}}
    server_side_apply.update(body, old, "editor", "v1", "", "t2")
    if not first_data:
        return
    changed = {("data", key) for key in second_data if first_data.get(key) != second_data[key]}
    entries = server_side_apply.read(body)
    mine = entries.get(server_side_apply.Manager("editor", "Update"))
    assert (mine.paths if mine else set()) - {("data",)} == changed


def test_lists_are_owned_whole() -> None:
    body = {"metadata": {"name": "x"}, "spec": {"containers": [{"image": "a"}], "empty": {}, "n": 1}}
    assert server_side_apply.paths(body) == {("spec", "containers"), ("spec", "n")}


def test_fields_that_the_server_sets_have_no_owner() -> None:
    body = config({"a": "x"}, uid="u", resourceVersion="1", generation=2, labels={"l": "m"})
    assert server_side_apply.paths(body) == {("data", "a"), ("metadata", "labels", "l")}


def test_written_ownership_reads_back() -> None:
    body = config({"a": "x"})
    entries = {
        server_side_apply.Manager("m", "Apply"): server_side_apply.ManagedFields(
            {("data", "a"), ("metadata", "labels", "x.y/z")}, "v1", "t"
        ),
        server_side_apply.Manager("n", "Update", "status"): server_side_apply.ManagedFields(
            {("status", "url")}, "v1", "t"
        ),
    }
    server_side_apply.write(body, entries)
    assert server_side_apply.read(body) == entries


def test_a_conflict_reads_as_kubernetes_writes_it() -> None:
    single = ApplyConflictError([("kubectl", ".spec.a")])
    assert str(single) == 'Apply failed with 1 conflict: conflict with "kubectl": .spec.a'
    double = ApplyConflictError([("kubectl", ".spec.a"), ("curl\nv1", ".spec.b")])
    assert str(double).splitlines() == [
        'Apply failed with 2 conflicts: conflicts with "curl" using v1:',
        "- .spec.b",
        'conflicts with "kubectl":',
        "- .spec.a",
    ]


@pytest.mark.parametrize(
    "entries", [[{}], [{"manager": 7}], ["x"], [{"manager": "m", "fieldsV1": []}], [{"manager": "m"}]]
)
def test_invalid_entries_are_ignored(entries: Any) -> None:
    body = config({"a": "x"}, managedFields=entries)
    assert all(not entry.paths for entry in server_side_apply.read(body).values())
