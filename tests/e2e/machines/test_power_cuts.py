"""Machines of a platform lose their power and their network under load, one after the other.

`bench/powercut.py` measures how long it takes; here the numbers count.
"""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.cluster_load import SERVICES
from tests.cluster_processes import Cluster, platform_on, service
from tests.component.runtime.harness import IMAGE, build_image, docker_runs
from tests.conftest import need
from tests.machines import SITE, Machines, Site, available, machines
from tests.power_cuts import Cut, PowerCuts

OWN_SITE = Site(f"{SITE.prefix}7", "10.83.0")
pytestmark = [pytest.mark.docker, pytest.mark.machines, pytest.mark.redis]


@pytest.fixture(scope="module")
def lab() -> Iterator[Machines]:
    need("MACHINES", available())
    need("DOCKER", docker_runs())
    with tempfile.TemporaryDirectory() as folder:
        build_image(Path(folder))
    with machines(3, site=OWN_SITE) as started:
        yield started


@pytest.fixture
async def cluster(lab: Machines) -> AsyncIterator[Cluster]:
    """A platform whose Redis has replicas: any machine may be lost."""
    async with platform_on(lab, "replicas", [IMAGE]) as started:
        yield started


@pytest.mark.timeout(400)
async def test_machines_that_are_lost_one_after_the_other_lose_no_write_and_no_repeatable_request(
    cluster: Cluster,
) -> None:
    run = PowerCuts(cluster)
    async with run.working():
        await run.cut_power(await run.node_with("leader"))
        await run.cut_power(await run.node_with("primary"))
        other = await run.node_with("")
        await run.cut_cable(other, 10, [lambda: starts_elsewhere(cluster), lambda: run.serves_inside(other)])
    assert_nothing_lost(run, await run.lost_writes())
    assert {name: len(names) for name, names in by_service(cluster).items()} == dict(SERVICES)


async def starts_elsewhere(cluster: Cluster) -> None:
    """A new Service becomes Ready: no process waits for the machine that is lost."""
    await cluster.apply(service("fresh", IMAGE, instances=1))
    await cluster.wait_ready("fresh")
    await cluster.delete(service("fresh", IMAGE))


def by_service(cluster: Cluster) -> dict[str, set[str]]:
    """Return the instances that run, by Service: one that ran on two machines would be counted once."""
    return {name: {each for names in cluster.instances(name).values() for each in names} for name in SERVICES}


def assert_nothing_lost(run: PowerCuts, lost_writes: list[str]) -> None:
    assert run.failed(repeatable=True) == []
    # Requests that may not be repeated fail only if they were on their way to a machine that was lost.
    assert [
        each for each in run.failed(repeatable=False) if not any(_covers(cut, each.began) for cut in run.cuts)
    ] == []
    assert run.shared() == [], "an instance with containerConcurrency 1 had two requests"
    assert lost_writes == []
    assert run.versions_twice() == []
    assert run.seen.writes


def _covers(cut: Cut, began: float) -> bool:
    return cut.began - 10 <= began <= cut.withdrawn + 1
