"""The machines of the tests in this folder, which share them."""

from collections.abc import Iterator

import pytest

from tests.conftest import need
from tests.machines import Machines, available, machines


@pytest.fixture(scope="package")
def lab() -> Iterator[Machines]:
    """Three machines. A test leaves them switched on, connected and without limits."""
    need("MACHINES", available())
    with machines(3) as started:
        yield started
