"""Makes a cluster of two new machines with the commands of docs/how-to/several-machines.md."""

import json
from collections.abc import Iterator

import pytest

from tests.clusters import Shell, begin_cluster, join, load_images, missing_images, single_machine
from tests.conftest import need
from tests.machines import SITE, Machines, Site, available, machines
from tests.waiting import eventually_sync

OWN_SITE = Site(f"{SITE.prefix}4", "10.80.0")
"""Of its own: other tests may keep the usual one as long as they run."""
pytestmark = [pytest.mark.docker, pytest.mark.machines]


@pytest.fixture(scope="module")
def lab() -> Iterator[Machines]:
    need("MACHINES", available())
    need("PLATFORM_IMAGE", not missing_images())
    with machines(2, site=OWN_SITE) as started:
        # The second machine has no image: it gets all of them from the first.
        load_images(started[1])
        yield started


@pytest.fixture(scope="module")
def first(lab: Machines) -> Shell:
    """The first machine, with a platform on this machine alone."""
    return single_machine(lab[1])


@pytest.fixture(scope="module")
def cluster(lab: Machines, first: Shell) -> tuple[Shell, Shell]:
    """Both machines, as nodes of one platform."""
    begin_cluster(first)
    return first, join(first, lab[2])


def test_the_single_machine_is_one_node_with_its_objects(first: Shell) -> None:
    def is_ready() -> bool:
        return "Ready" in first("knoll", "node", "ls")

    eventually_sync(is_ready, 60, "the node")
    assert first("knoll", "node", "ls").splitlines()[1].startswith("knoll ")


def test_a_second_machine_joins_with_one_line(cluster: tuple[Shell, Shell]) -> None:
    first, second = cluster

    def both() -> bool:
        listed = json.loads(first("knoll", "node", "ls", "--output", "json"))
        return [(each["name"], each["status"]) for each in listed] == [("n1", "Ready"), ("n2", "Ready")]

    eventually_sync(both, 60, "two nodes")
    services = second("docker", "ps", "--format", "{{.Names}} {{.Status}}")
    assert "unhealthy" not in services
    # Redis listens on no address of a machine, and the ports between machines accept no plain text.
    for shell in cluster:
        listening = shell("ss", "-Hltn")
        assert ":6379" not in listening
        assert ":7443" in listening


def test_both_apis_serve_the_same_objects(cluster: tuple[Shell, Shell]) -> None:
    for shell in cluster:
        assert "n2" in shell("curl", "-fsS", "http://127.0.0.1:8001/api/v1/nodes")


def test_a_command_that_was_revoked_is_refused(cluster: tuple[Shell, Shell]) -> None:
    first, second = cluster
    line = first("knoll", "node", "join-command", cwd=first.folder).strip()
    token = line.partition("Bearer ")[2].partition("'")[0]
    first("knoll", "node", "forget", token.partition(".")[0])
    assert "401" in second("sh", "-c", line.removesuffix("| sudo sh"), check=False)


def test_a_node_is_removed_and_cut_off(cluster: tuple[Shell, Shell]) -> None:
    first, second = cluster
    assert "is running" in first("knoll", "node", "rm", "n2", check=False)
    first("knoll", "node", "drain", "n2")
    first("knoll", "node", "rm", "n2", "--force")

    def cut_off() -> bool:
        return "ok" not in second("curl", "-sS", "-m", "5", "http://127.0.0.1:8001/readyz", check=False)

    eventually_sync(cut_off, 60, "no Redis for the removed machine")
    assert "ok" in first("curl", "-fsS", "http://127.0.0.1:8001/readyz")
