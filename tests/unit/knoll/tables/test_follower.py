"""A copy follows its table, and says which fields a change affected."""

from hypothesis import given
from hypothesis import strategies as st

from knoll.tables.follower import apply
from knoll.tables.protocol import FieldChange, Reset

ENTRIES = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2))


@given(ENTRIES, ENTRIES)
def test_a_reset_replaces_the_copy_and_affects_what_differs(before: dict[str, int], after: dict[str, int]) -> None:
    entries = dict(before)
    affected = apply(Reset(7, after), entries)
    assert entries == after
    assert affected == {field for field in "abcd" if before.get(field) != after.get(field)}


@given(ENTRIES, st.sampled_from("abcd"), st.one_of(st.none(), st.integers(0, 2)))
def test_a_change_affects_only_its_field(before: dict[str, int], field: str, value: int | None) -> None:
    entries = dict(before)
    assert apply(FieldChange(8, field, value), entries) == {field}
    assert entries.get(field) == value
    assert {name: number for name, number in entries.items() if name != field} == {
        name: number for name, number in before.items() if name != field
    }
