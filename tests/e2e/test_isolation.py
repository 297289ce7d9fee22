"""What instances reach by address: real ones, on a platform that has its firewall."""

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from knoll.firewall import nft
from tests.conftest import need
from tests.e2e.calling import LOCAL, Caller, image, service  # noqa: F401 - a fixture
from tests.e2e.outside import PORT, Outside, outside
from tests.e2e.platform import Platform
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

NAMESPACES = ("first", "second")


@pytest.fixture(scope="module")
def external() -> Iterator[Outside]:
    need("NFT", os.geteuid() == 0 and not nft.obstacle())
    with outside() as made:
        yield made


@pytest.fixture(scope="module")
def host_port() -> Iterator[int]:
    """A service of this machine that listens on all of its addresses."""
    with socket.create_server(("0.0.0.0", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def callers(platform: Platform, image: str, external: Outside) -> Iterator[dict[str, Caller]]:  # noqa: F811
    """A caller in each of two namespaces, awake."""
    for namespace in NAMESPACES:
        platform.kubectl("create", "namespace", namespace)
    manifest = "".join(service("caller", namespace) for namespace in NAMESPACES) + service("inner", "second", LOCAL)
    manifest = manifest.replace("window: 6s", 'min-scale: "1"')
    platform.kubectl("apply", "-f", "-", stdin=manifest)
    for namespace in NAMESPACES:
        platform.kubectl("wait", "-n", namespace, "ksvc", "--all", "--for=condition=Ready", "--timeout=60s")
    yield {namespace: Caller(platform, f"caller.{namespace}.localhost") for namespace in NAMESPACES}
    for namespace in NAMESPACES:
        platform.kubectl("delete", "namespace", namespace)


@pytest.fixture
def first(callers: dict[str, Caller]) -> Caller:
    return callers["first"]


def address_of(platform: Platform, namespace: str) -> str:
    pods = json.loads(platform.kubectl("get", "pods", "-n", namespace, "-o", "json").stdout)["items"]
    return next(str(pod["status"]["podIP"]) for pod in pods if pod["metadata"]["name"].startswith("caller-"))


def gateway_of(platform: Platform) -> str:
    command = ["docker", "network", "inspect", f"{platform.name}-instances"]
    network: Any = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)[0]
    return str(network["IPAM"]["Config"][0]["Gateway"]).partition("/")[0]


def configure(platform: Platform, **data: str) -> None:
    patch = json.dumps({"data": {key.replace("_", "-"): value for key, value in data.items()} or None})
    platform.kubectl("patch", "configmap", "config-security", "-n", "knative-serving", "--type=merge", "-p", patch)


@pytest.fixture
def configured(platform: Platform) -> Iterator[Any]:
    yield lambda **data: configure(platform, **data)
    configure(platform)


def closed(platform: Platform, external: Outside, host_port: int) -> dict[str, tuple[str, int]]:
    """What no instance may reach."""
    gateway = gateway_of(platform)
    return {
        "another namespace's instance": (address_of(platform, "second"), 8080),
        "this machine, at the bridge": (gateway, host_port),
        "this machine, at its other address": (external.machine, host_port),
        "its neighbour": (external.neighbour, PORT),
        "link-local": (external.link_local, PORT),
    }


def test_what_is_not_the_instances_is_closed_to_them(
    platform: Platform, external: Outside, first: Caller, host_port: int
) -> None:
    reached = [name for name, where in closed(platform, external, host_port).items() if first.reaches(*where)]
    assert reached == []


def test_without_the_rules_it_is_reached(
    platform: Platform, external: Outside, first: Caller, host_port: int, configured: Any
) -> None:
    """Or the test above would pass for another reason."""
    configured(network_isolation="disabled")

    def all_reached() -> bool:
        missed = [name for name, where in closed(platform, external, host_port).items() if not first.reaches(*where)]
        assert missed == []
        return True

    eventually_sync(all_reached, within=15)
    configured(network_isolation="auto")
    where = closed(platform, external, host_port)["another namespace's instance"]
    eventually_sync(lambda: not first.reaches(*where), within=15)


def test_an_instance_of_another_namespace_cannot_reach_an_armed_one(
    platform: Platform, external: Outside, first: Caller, configured: Any
) -> None:
    """Its token would keep it from a release; the firewall keeps it from trying."""
    platform.kubectl("apply", "-f", "-", stdin=service("sleeper", "second"))
    platform.kubectl("wait", "-n", "second", "ksvc/sleeper", "--for=condition=Ready", "--timeout=60s")
    selector = "label=serving.knative.dev/service=sleeper"
    eventually_sync(lambda: len(platform.armed_instances(selector)) == 1, within=90, condition="an armed instance")
    (container,) = platform.armed_instances(selector)
    inspected = subprocess.run(["docker", "inspect", container], check=True, capture_output=True, text=True).stdout
    own = json.loads(inspected)[0]["Config"]["Labels"]
    where = own["knoll.dev/address"], int(own["knoll.dev/arm-port"])
    assert not first.reaches(*where)
    configured(network_isolation="disabled")
    eventually_sync(lambda: first.reaches(*where), within=15, condition="without the rules it is reached")
    assert platform.armed_instances(selector) == [container], "a connection without the token does nothing"


def test_the_internet_names_and_services_are_open(platform: Platform, external: Outside, first: Caller) -> None:
    assert first.reaches(external.internet, PORT)
    assert first.get("http://inner.second.svc.cluster.local/")["status"] == 200
    assert first.lookup("inner.second.svc")["addresses"] == [gateway_of(platform)]


def test_instances_have_no_address_but_their_own(first: Caller) -> None:
    """No IPv6, which the rules would have to know."""
    assert {address for address in first.addresses() if not address.startswith("127.")} <= {
        address for address in first.addresses() if ":" not in address
    } | {"::1/128"}
    assert len([address for address in first.addresses() if not address.startswith(("127.", "::1"))]) == 1


def test_flushed_rules_come_back(platform: Platform, external: Outside, first: Caller, host_port: int) -> None:
    """As a firewall of the machine's own flushes them when it starts."""
    where = closed(platform, external, host_port)["another namespace's instance"]
    for family in ("inet", "bridge"):
        subprocess.run([nft.program() or "nft", "delete", "table", family, f"knoll-{platform.name}"], check=True)
    eventually_sync(lambda: not first.reaches(*where), within=15)


class TestEgress:
    @pytest.fixture(autouse=True)
    def annotated(self, platform: Platform, callers: dict[str, Caller]) -> Iterator[None]:
        yield
        platform.kubectl("annotate", "namespace", "first", "knoll.dev/egress-", "knoll.dev/egress-allow-")

    def test_a_namespace_is_closed_and_opened_while_its_instances_run(
        self, platform: Platform, external: Outside, callers: dict[str, Caller]
    ) -> None:
        first, second = callers["first"], callers["second"]
        platform.kubectl("annotate", "namespace", "first", "knoll.dev/egress=deny")
        eventually_sync(lambda: not first.reaches(external.internet, PORT), within=15)
        assert second.reaches(external.internet, PORT)
        assert first.get("http://inner.second.svc.cluster.local/")["status"] == 200
        allowed = f"knoll.dev/egress-allow={external.internet}:{PORT}"
        platform.kubectl("annotate", "namespace", "first", allowed)
        eventually_sync(lambda: first.reaches(external.internet, PORT), within=15)

    def test_a_new_instance_is_closed_from_its_first_moment(
        self, platform: Platform, external: Outside, callers: dict[str, Caller]
    ) -> None:
        platform.kubectl("annotate", "namespace", "first", "knoll.dev/egress=deny")
        manifest = service("late", "first")
        platform.kubectl("apply", "-f", "-", stdin=manifest)
        platform.kubectl("wait", "-n", "first", "ksvc", "late", "--for=condition=Ready", "--timeout=60s")
        assert not Caller(platform, "late.first.localhost").reaches(external.internet, PORT)
        platform.kubectl("delete", "-f", "-", stdin=manifest)

    def test_an_invalid_list_is_refused_with_the_reason(self, platform: Platform) -> None:
        refused = platform.kubectl("annotate", "namespace", "first", "knoll.dev/egress-allow=10.0.0.1/8", check=False)
        assert refused.returncode
        assert "host bits set" in refused.stderr

    def test_the_operator_opens_what_is_private(
        self, platform: Platform, external: Outside, callers: dict[str, Caller], configured: Any
    ) -> None:
        configured(egress_allow=f"{external.neighbour}/32")
        eventually_sync(lambda: callers["first"].reaches(external.neighbour, PORT), within=15)
