from builder.maintenance.leftovers import Leftovers


def test_a_name_is_due_after_it_was_not_needed_for_long_enough() -> None:
    leftovers = Leftovers(10.0)
    assert leftovers.due({"a"}, 0.0) == []
    assert leftovers.due({"a", "b"}, 9.0) == []
    assert leftovers.due({"a", "b"}, 10.0) == ["a"]
    assert leftovers.due({"a", "b"}, 19.0) == ["a", "b"]


def test_a_name_that_was_needed_meanwhile_starts_anew() -> None:
    leftovers = Leftovers(10.0)
    leftovers.due({"a"}, 0.0)
    leftovers.due(set(), 5.0)
    assert leftovers.due({"a"}, 11.0) == []
    assert leftovers.due({"a"}, 21.0) == ["a"]
