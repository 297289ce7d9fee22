"""The machines of the tests in this folder, which share them."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.component.machines.swarms import FakeMachines, RealMachines, Stage, stage
from tests.conftest import need
from tests.machines import Machines, available, machines


@pytest.fixture(scope="package")
def lab() -> Iterator[Machines]:
    """Three machines. A test must leave them switched on, connected and without limits."""
    need("MACHINES", available())
    with machines(3) as started:
        yield started


@pytest.fixture(scope="package")
def swarm_lab(lab: Machines) -> Machines:
    """The same, as a Swarm of three managers."""
    lab.form_swarm(managers=3)
    return lab


@pytest.fixture(
    params=["fake", pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.machines])],
)
async def swarm_stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """A platform on three machines, without a leader."""
    if request.param == "fake":
        fake = FakeMachines()
        async with stage(fake) as made:
            yield made
        await fake.swarm.close()
        return
    async with RealMachines.opened(request.getfixturevalue("swarm_lab")) as opened, stage(opened) as made:
        yield made
