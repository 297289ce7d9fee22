from collections.abc import AsyncIterator

import pytest

from tests.component.activator.stage import Stage, staged
from tests.component.knoll.conftest import own_redis

__all__ = ["own_redis"]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as made:
        yield made
