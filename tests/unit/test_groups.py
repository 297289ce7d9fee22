"""Which tests share a worker process, and which groups start first."""

import pytest

from tests.groups import group_of, rank_of


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/unit/knoll/process/test_settings.py::test_a", "unit/knoll/process/test_settings"),
        ("tests/component/api/test_watches.py::test_a[redis-a::b/c.py]", "component/api/test_watches"),
        ("tests/component/builder/test_builds.py::TestBuilds::test_a", "component/builder/test_builds"),
        ("tests/e2e/test_up.py::test_a", "e2e"),
        ("tests/e2e/conformance/test_api.py::test_a", "e2e"),
        ("tests/e2e/engine/test_chaos.py::test_a", "e2e/engine"),
        ("tests/e2e/attacks/test_with_a_token.py::test_a", "e2e/attacks"),
        ("tests/component/machines/test_placement.py::test_a", "component/machines"),
    ],
)
def test_a_file_is_a_group_and_end_to_end_tests_are_one_for_each_platform(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group


def test_what_takes_longest_starts_first() -> None:
    groups = ["unit/test_groups", "component/api/test_watches", "component/builder/test_builds", "e2e/engine", "e2e"]
    assert sorted(groups, key=rank_of) == groups[::-1]
