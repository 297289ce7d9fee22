"""A machine's membership in a Swarm, and a machine that is in no Swarm."""

import asyncio

import pytest

from autoscaler.placement.swarm import membership, reservation_image
from autoscaler.placement.swarm.membership import member
from tests.machines import SITE, Machines, Site, machines
from tests.waiting import eventually

SWARM_SECONDS = 120
"""A machine that is promoted soon after it was demoted becomes a manager after half a minute."""
pytestmark = [pytest.mark.docker, pytest.mark.machines]


async def test_a_machine_has_its_id_and_the_image_that_all_others_have(swarm_lab: Machines) -> None:
    images = set()
    for machine in swarm_lab:
        async with member(machine.socket) as own:
            assert own.id == swarm_lab.ready_nodes(swarm_lab[1])[machine.name]
            assert own.is_manager
            images.add(await reservation_image.ensure(own.engine))
    assert len(images) == 1


async def test_a_machine_that_is_demoted_and_promoted_knows_it(
    swarm_lab: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "POLL_SECONDS", 0.1)
    async with member(swarm_lab[3].socket) as own:
        assert own.may_place
        swarm_lab[1].docker("node", "demote", "n3")
        try:
            await asyncio.wait_for(own.until(lambda: not own.may_place), SWARM_SECONDS)
            assert own.id
        finally:
            swarm_lab[1].docker("node", "promote", "n3")
        await asyncio.wait_for(own.until(lambda: own.may_place), SWARM_SECONDS)


async def test_an_image_that_was_removed_is_loaded_again(swarm_lab: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "IMAGE_SECONDS", 0.1)
    machine = swarm_lab[1]

    def exists() -> bool:
        return machine.docker("image", "inspect", reservation_image.REFERENCE, check=False).returncode == 0

    async with member(machine.socket):
        await eventually(exists)
        machine.docker("image", "rm", reservation_image.REFERENCE)
        await eventually(exists)


async def test_a_machine_that_is_in_no_swarm_has_no_id_and_places_nothing() -> None:
    with machines(1, site=Site(f"{SITE.prefix}3", "10.79.0")) as others:
        async with member(others[1].socket) as own:
            assert own.id == ""
            assert not own.is_manager
