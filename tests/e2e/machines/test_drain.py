"""Draining machines under load, with `knoll node drain` and `kubectl drain`; a process that is away for a while."""

import json
from collections.abc import Iterator

import pytest

from tests.clusters import Shell, begin_cluster, join, load_images, missing_images, single_machine
from tests.conftest import need
from tests.e2e.machines import load
from tests.e2e.machines.load import API, Load, host, pods, ready_pods, service
from tests.machines import SITE, Machines, Site, available, machines
from tests.waiting import eventually_sync

OWN_SITE = Site(f"{SITE.prefix}d", "10.84.0")
KUBECTL = ("kubectl", "--server", API)
MIN_SCALE, WINDOW = "autoscaling.knative.dev/min-scale", "autoscaling.knative.dev/window"
SERVICES = {
    "pair": {MIN_SCALE: "2"},
    "single": {MIN_SCALE: "1"},
    "cold": {WINDOW: "6s"},
    "paused": {WINDOW: "6s", "knoll.dev/paused-retention-period": "1h"},
}
"""Name to annotations."""
KINDS = (
    ("get", "pair"), ("connect", "single"), ("slow", "pair"), ("slow", "single"), ("post", "pair"), ("post", "single"),
    ("socket", "pair"), ("socket", "single"), ("rare", "cold"), ("rare", "paused"),
)  # fmt: skip
"""Clients at each gateway."""
SECONDS = 120
pytestmark = [pytest.mark.docker, pytest.mark.machines, pytest.mark.kubectl]


@pytest.fixture(scope="module")
def lab() -> Iterator[Machines]:
    need("MACHINES", available())
    need("PLATFORM_IMAGE", not missing_images())
    with machines(2, site=OWN_SITE) as started:
        load_images(started[1])
        yield started


@pytest.fixture(scope="module")
def cluster(lab: Machines) -> tuple[Shell, Shell]:
    """Two machines, and the Services."""
    first = single_machine(lab[1])
    begin_cluster(first)
    shells = first, join(first, lab[2])
    load.tag_image(shells)
    for name, annotations in SERVICES.items():
        load.apply(first, service(name, annotations))
    eventually_sync(lambda: len(ready_pods(first, "pair")) == 2, SECONDS, "two instances")
    eventually_sync(lambda: len(ready_pods(first, "single")) == 1, SECONDS, "one instance")
    return shells


def on(shell: Shell, name: str) -> int:
    """Return how many instances run on a machine, according to `knoll node ls`."""
    listed = json.loads(shell("knoll", "node", "ls", "--output", "json"))
    return int(next(each["instances"] for each in listed if each["name"] == name))


def served(shell: Shell, name: str) -> bool:
    """Return whether the gateway of a machine responds for a Service."""
    status = ("-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}")
    return shell("curl", *status, "-H", f"Host: {host(name)}", "http://127.0.0.1:8080/", check=False) == "200"


def test_instances_leave_a_machine_and_are_reached_from_it(cluster: tuple[Shell, Shell]) -> None:
    first = cluster[0]
    for name in ("n1", "n2"):
        first("knoll", "node", "drain", name)
        assert on(first, name) == 0
        for shell in cluster:
            # Through the relay, on the machine that was drained.
            assert served(shell, "single"), shell.machine.name
        assert f"node/{name} uncordoned" in first(*KUBECTL, "uncordon", name)


def test_no_request_fails_while_machines_are_drained(cluster: tuple[Shell, Shell], lab: Machines) -> None:
    first = cluster[0]
    running = Load(lab[1], lab, KINDS)
    try:
        assert "n1 is drained" in first("knoll", "node", "drain", "n1")
        first(*KUBECTL, "uncordon", "n1")
        drained = first(*KUBECTL, "drain", "n2", "--ignore-daemonsets", "--delete-emptydir-data")
        assert "node/n2 drained" in drained
        first(*KUBECTL, "uncordon", "n2")
    finally:
        result = running.stop()
    assert result["failed"] == []
    for kind in ("get", "connect", "slow", "post", "socket", "rare"):
        for machine in lab:
            assert result["good"].get(f"{kind} http://{machine.address}:8080"), (kind, machine.name)


def test_the_instances_of_a_process_that_is_away_are_kept(cluster: tuple[Shell, Shell], lab: Machines) -> None:
    first, second = cluster
    # All of them run on the second machine.
    first("knoll", "node", "drain", "n1")
    first(*KUBECTL, "uncordon", "n1")
    before = ready_pods(first, "pair")
    running = Load(lab[1], lab, [("get", "pair"), ("slow", "pair")])
    second("docker", "stop", "--time", "0", "knoll-autoscaler-1")
    eventually_sync(
        lambda: "its instances are kept" in first("docker", "logs", "knoll-autoscaler-1", check=False),
        SECONDS,
        "the leader knows",
    )
    second("docker", "start", "knoll-autoscaler-1")
    eventually_sync(
        lambda: "healthy" in second("docker", "ps", "--filter", "name=knoll-autoscaler-1", "--format", "{{.Status}}"),
        SECONDS,
        "the process is back",
    )
    assert running.stop()["failed"] == []
    assert ready_pods(first, "pair") == before
    assert len([pod for pod in pods(first) if pod["metadata"]["name"].startswith("pair-")]) == 2
