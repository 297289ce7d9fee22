"""Hands the groups of tests to pytest-xdist's workers.

xdist's own `--dist loadgroup` marks groups in the tests' ids and does not group at all with pytest 9.2 (pytest-xdist
issue 1386).
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.groups import group_of


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no annotations
    """Hands out whole groups, in the order in which their first tests were collected."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False  # not by the number of their tests, unrelated to duration
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
