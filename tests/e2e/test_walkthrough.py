"""The walkthrough of `make demo`, on a platform of the tests' own. Each of its steps checks what it shows."""

import pytest

from scripts.walkthrough import Walkthrough
from tests.e2e.platform import Platform

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]


@pytest.mark.timeout(600)
async def test_every_step_of_the_walkthrough_succeeds_also_when_it_is_run_again(platform: Platform) -> None:
    with Walkthrough(platform.api, platform.gateway) as walk:
        await walk.run()
        await walk.clean()
        await walk.v1()
        await walk.clean()
