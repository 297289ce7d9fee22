"""Upgrades two machines one after the other, under load, with the commands of docs/how-to/several-machines.md.

The other version is made of this one, in a few seconds: see `tests/next_version.py`. KNOLL_TEST_OLD_IMAGE names
the image of an earlier commit to begin with instead.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from knoll import __version__
from knoll.values.versions import minor_version
from tests.clusters import IMAGE, ROOT, Shell, begin_cluster, join, load_images, missing_images, single_machine
from tests.conftest import need
from tests.e2e.machines.load import TAG, Load, apply, host, ready_pods, service
from tests.machines import SITE, Machines, Site, available, machines
from tests.waiting import eventually_sync

OWN_SITE = Site(f"{SITE.prefix}6", "10.82.0")
OLD = os.environ.get("KNOLL_TEST_OLD_IMAGE", IMAGE)
pytestmark = [pytest.mark.docker, pytest.mark.machines, pytest.mark.timeout(600)]


def version_after(minors: int) -> str:
    """Return a later version. Args: minors: how many minor versions later."""
    major, minor = minor_version(__version__) or (0, 0)
    return f"{major}.{minor + minors}.0"


def image_of(version: str) -> str:
    """Make the platform's image of another version."""
    name = f"{IMAGE}-{version}:latest"
    dockerfile = (
        f"FROM {IMAGE}\nUSER root\nCOPY next_version.py /tmp/\nRUN python /tmp/next_version.py {version}\nUSER knoll\n"
    )
    command = ["docker", "build", "--quiet", "--tag", name, "--file", "-", str(ROOT / "tests")]
    done = subprocess.run(command, input=dockerfile, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return name


@dataclass
class Cluster:
    """Two machines, and the images of the versions."""

    lab: Machines
    first: Shell
    second: Shell
    next: str
    distant: str
    """An image of a version that is more than one minor version away."""

    def nodes(self) -> dict[str, tuple[str, str]]:
        """Return status and version of each machine."""
        listed = json.loads(self.first("knoll", "node", "ls", "--output", "json"))
        return {each["name"]: (each["status"], each["version"]) for each in listed}

    def use(self, image: str) -> None:
        """Set the image of the first machine's platform; nothing is restarted."""
        env = self.first.folder / ".env"
        lines = [line for line in env.read_text().splitlines() if not line.startswith("KNOLL_IMAGE=")]
        env.write_text("\n".join([*lines, f"KNOLL_IMAGE={image}", ""]))

    def upgrade_first(self, image: str) -> None:
        self.first("knoll", "node", "drain", "n1")
        self.use(image)
        self.first("docker", "compose", "up", "--detach", "--no-build", "--wait", cwd=self.first.folder)
        self.first("knoll", "node", "uncordon", "n1")

    def upgrade_second(self) -> None:
        """To the version whose image the first machine's settings name."""
        self.first("knoll", "node", "drain", "n2")
        self.second = join(self.first, self.lab[2])
        self.first("knoll", "node", "uncordon", "n2")

    def answer(self, shell: Shell, name: str) -> str:
        """Return the response of a Service at a machine's gateway: the instance's name."""
        return shell("curl", "-fsS", "-m", "60", "-H", f"Host: {host(name)}", f"http://{shell.machine.address}:8080/")

    def wait_for(self, **versions: str) -> None:
        """Wait until machines report these versions."""

        def reported() -> bool:
            nodes = self.nodes()
            return all(nodes.get(name) == ("Ready", f"v{version}") for name, version in versions.items())

        eventually_sync(reported, 60, f"the versions {versions}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    need("MACHINES", available())
    need("PLATFORM_IMAGE", not missing_images())
    images = image_of(version_after(1)), image_of(version_after(3))
    with machines(2, site=OWN_SITE) as lab:
        load_images(lab[1], OLD, *images)
        first = single_machine(lab[1], OLD)
        begin_cluster(first)
        second = join(first, lab[2])
        for shell in (first, second):
            shell("docker", "tag", OLD, TAG)
        yield Cluster(lab, first, second, *images)


@pytest.fixture(scope="module")
def services(cluster: Cluster) -> None:
    """A Service that always has two instances, and one that scales to zero."""
    apply(cluster.first, service("steady", {"autoscaling.knative.dev/min-scale": "2"}))
    cold = {"autoscaling.knative.dev/window": "6s", "autoscaling.knative.dev/scale-to-zero-pod-retention-period": "0s"}
    apply(cluster.first, service("cold", cold))
    eventually_sync(lambda: len(ready_pods(cluster.first, "steady")) == 2, 90, "two instances")


def without_failure(load: Load) -> None:
    """End the load; no request of it has failed."""
    result = load.stop()
    assert not result["failed"], result["failed"][:10]
    assert result["good"]


def cold_starts(cluster: Cluster) -> None:
    """Both machines start an instance for a request."""
    for shell in (cluster.first, cluster.second):
        eventually_sync(lambda: not ready_pods(cluster.first, "cold"), 60, "no instance")
        assert cluster.answer(shell, "cold")


def test_the_first_machine_is_upgraded_under_load(cluster: Cluster, services: None) -> None:
    cluster.wait_for(n1=__version__, n2=__version__)
    gateway = Machines([cluster.lab[2]])
    load = Load(cluster.lab[2], gateway, [("get", "steady"), ("connect", "steady"), ("post", "steady")])
    cluster.upgrade_first(cluster.next)
    without_failure(load)
    cluster.wait_for(n1=version_after(1), n2=__version__)


def test_cold_starts_work_with_two_versions(cluster: Cluster) -> None:
    cold_starts(cluster)


def test_the_second_machine_is_upgraded_under_load(cluster: Cluster) -> None:
    gateway = Machines([cluster.lab[1]])
    load = Load(cluster.lab[1], gateway, [("get", "steady"), ("connect", "steady"), ("post", "steady")])
    cluster.upgrade_second()
    without_failure(load)
    cluster.wait_for(n1=version_after(1), n2=version_after(1))


def test_objects_and_instances_are_kept(cluster: Cluster) -> None:
    assert cluster.answer(cluster.first, "steady")
    assert cluster.answer(cluster.second, "cold")
    eventually_sync(lambda: len(ready_pods(cluster.first, "steady")) == 2, 60, "two instances, none twice")


def test_a_version_that_is_too_far_is_refused_before_anything_changes(cluster: Cluster) -> None:
    before = cluster.nodes()
    cluster.use(cluster.distant)
    with pytest.raises(AssertionError, match="upgrade one minor version at a time"):
        join(cluster.first, cluster.lab[2])
    assert cluster.nodes() == before


def test_the_first_machine_can_go_back_while_the_second_stays(cluster: Cluster) -> None:
    """A downgrade by one minor version; afterwards the machine that joined has the newer one."""
    cluster.upgrade_first(OLD)
    cluster.wait_for(n1=__version__, n2=version_after(1))
    cold_starts(cluster)
    assert cluster.answer(cluster.second, "steady")
