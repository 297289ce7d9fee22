"""A's code in an instance reaches nothing of B's, of the platform's or of the machine's, except what is public."""

import pytest

from tests.e2e.attacks.conftest import Spy
from tests.e2e.attacks.site import ATTACKER, VICTIM, Site
from tests.e2e.outside import PORT, Outside
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.kubectl]


@pytest.fixture
def guarded(site: Site, external: Outside, shop_address: str, host_port: int) -> dict[str, tuple[str, int]]:
    """What the platform's packet filter alone keeps instances from."""
    return {
        "B's instance": (shop_address, 8080),
        "a service of the machine, at the bridge": (f"{site.prefix}.0.1", host_port),
        "a service of the machine, at another address": (external.machine, host_port),
        "a neighbour of the machine": (external.neighbour, PORT),
        "a link-local service": (external.link_local, PORT),
    }


def test_it_connects_to_nothing_that_is_not_public(spy: Spy, guarded: dict[str, tuple[str, int]]) -> None:
    assert [name for name, where in guarded.items() if spy.reaches(*where)] == []


def test_without_the_packet_filter_it_would(site: Site, spy: Spy, guarded: dict[str, tuple[str, int]]) -> None:
    with site.configured("config-security", network_isolation="disabled"):

        def all_reached() -> bool:
            assert [name for name, where in guarded.items() if not spy.reaches(*where)] == []
            return True

        eventually_sync(all_reached, within=20)
    eventually_sync(lambda: not any(spy.reaches(*where) for where in guarded.values()), within=20)


@pytest.mark.parametrize(
    ("service", "port"),
    [("redis", 6379), ("api", 8001), ("api", 0), ("builder", 8083), ("autoscaler", 8082), ("activator", 8081)],
)
def test_it_reaches_no_process_of_the_platform(site: Site, spy: Spy, service: str, port: int) -> None:
    """These are on a network of their own, which the engine keeps apart."""
    assert not spy.reaches(site.address(service), port or site.ports["API_TLS"])


@pytest.mark.parametrize(("service", "port"), [("activator", 8081), ("autoscaler", 8082), ("names", 80)])
def test_it_reaches_of_the_processes_beside_it_only_what_is_for_instances(
    site: Site, spy: Spy, service: str, port: int
) -> None:
    assert not spy.reaches(site.address(service, "instances"), port)


def test_it_reaches_the_api_by_no_published_port(site: Site, spy: Spy, external: Outside) -> None:
    for address in ("127.0.0.1", f"{site.prefix}.0.1", external.machine):
        assert not spy.reaches(address, site.ports["API"])
        assert not spy.reaches(address, site.ports["API_TLS"])


def test_what_is_public_is_reached(site: Site, spy: Spy, external: Outside, shop: str) -> None:
    """Or the tests above would pass on an instance without a network."""
    assert spy.reaches(external.internet, PORT)
    assert spy.get(f"http://shop.{VICTIM}.svc.cluster.local/").startswith("shop was asked")
    assert spy.get(f"http://spy.{ATTACKER}/").startswith("spy was asked")


def test_a_namespace_that_is_closed_reaches_no_server_of_its_attacker(site: Site, spy: Spy, external: Outside) -> None:
    site.admin.kubectl("annotate", "namespace", ATTACKER, "knoll.dev/egress=deny")
    try:
        eventually_sync(lambda: not spy.reaches(external.internet, PORT), within=20)
    finally:
        site.admin.kubectl("annotate", "namespace", ATTACKER, "knoll.dev/egress-")
    eventually_sync(lambda: spy.reaches(external.internet, PORT), within=20)
