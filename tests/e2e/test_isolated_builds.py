"""Builds of a whole platform with a BuildKit daemon and a packet filter of its own: what a Dockerfile reaches."""

import contextlib
import http.server
import io
import socket
import subprocess
import tarfile
import threading
import uuid
from collections.abc import Iterator

import httpx
import pytest

from knoll.firewall import nft
from knoll.process.settings import BUILDKIT_IMAGE
from tests.conftest import need
from tests.e2e.platform import Platform, running
from tests.images import image_name
from tests.waiting import eventually_sync

BASE = "python:3.13-slim"
BUILDS = "/apis/build.knoll.dev/v1alpha1/namespaces/default/builds"
SECURITY = "/api/v1/namespaces/knative-serving/configmaps/config-security"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    need("DOCKER", not nft.obstacle())
    folder = tmp_path_factory.mktemp("isolated")
    with running(folder, KNOLL_BUILDKIT_IMAGE=BUILDKIT_IMAGE) as platform:
        yield platform
    subprocess.run(["docker", "volume", "rm", f"{platform.name}-buildkit"], capture_output=True)


@pytest.fixture
def listener() -> Iterator[tuple[int, list[str]]]:
    """A service of this machine on all of its addresses; its port, and the clients that it had."""
    clients: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            clients.append(self.client_address[0])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"reached")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], clients
    server.shutdown()
    server.server_close()


def own_addresses(platform: Platform) -> list[str]:
    """This machine as a step may name it: the gateway of its network and of the engine's default one, and outside."""
    gateways = []
    for network in (f"{platform.name}-builds", "bridge"):
        command = ["docker", "network", "inspect", network, "--format={{(index .IPAM.Config 0).Gateway}}"]
        gateways.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("1.1.1.1", 53))
        gateways.append(probe.getsockname()[0])
    return gateways


def build(platform: Platform, step: str, **files: str) -> tuple[str, str]:
    """Phase and output of a Build whose Dockerfile has one more line."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in {"Dockerfile": f"FROM {BASE}\nARG ONCE\nRUN : $ONCE\n{step}\n", **files}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    name = f"b-{uuid.uuid4().hex[:8]}"
    with httpx.Client(base_url=platform.api, timeout=60) as client:
        upload = client.post("/namespaces/default/uploads", content=archive.getvalue()).raise_for_status().json()
        spec = {
            "tag": image_name(f"isolated-{name}"),
            "source": {"upload": {"id": upload["id"]}},
            "args": {"ONCE": name},
        }
        body = {"apiVersion": "build.knoll.dev/v1alpha1", "kind": "Build", "metadata": {"name": name}, "spec": spec}
        client.post(BUILDS, json=body).raise_for_status()

        def over() -> str:
            phase = client.get(f"{BUILDS}/{name}").json().get("status", {}).get("phase", "")
            return phase if phase in ("Succeeded", "Failed") else ""

        phase = eventually_sync(over, within=180, condition="the end of the build")
        return phase, client.get(f"{BUILDS}/{name}/log").text


STEP = "COPY try.py /\nRUN python /try.py"
LOOK = """\
import socket
for address in {addresses}:
    try:
        with socket.create_connection((address, {port}), 2) as one:
            one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            print("ANSWER", address, one.recv(99)[-7:])
    except OSError as error:
        print("NOTHING", address, error)
"""


def test_a_build_reaches_the_internet_and_not_this_machine(platform: Platform, listener: tuple[int, list[str]]) -> None:
    port, clients = listener
    addresses = own_addresses(platform)
    assert httpx.get(f"http://{addresses[0]}:{port}/").text == "reached", "the listener listens there"
    clients.clear()
    script = {"try.py": LOOK.format(addresses=addresses, port=port)}
    phase, output = build(platform, STEP, **script)
    assert phase == "Succeeded", output
    assert output.count("NOTHING") >= len(addresses), output
    assert not clients

    # The same step with the filter off: it was the filter that kept it away.
    with httpx.Client(base_url=platform.api) as client:
        before = client.get(SECURITY).json()
        client.put(SECURITY, json={**before, "data": {"network-isolation": "disabled"}}).raise_for_status()
        try:

            def reached() -> bool:
                return "ANSWER" in build(platform, STEP, **script)[1]

            eventually_sync(reached, within=120, condition="the filter to be off")
            assert clients
        finally:
            now = client.get(SECURITY).json()
            client.put(SECURITY, json={**now, "data": {}}).raise_for_status()


def test_a_download_does_not_reach_the_api_or_link_local_addresses(platform: Platform) -> None:
    for url in (f"{platform.api}/api/v1/namespaces/default/configmaps", "http://169.254.169.254/latest/meta-data"):
        phase, output = build(platform, f"ADD {url} /leak\nRUN cat /leak")
        assert phase == "Failed", output
        assert "ConfigMapList" not in output


def test_names_and_packages_are_found(platform: Platform) -> None:
    phase, output = build(platform, "RUN pip download --no-deps --no-cache-dir --dest /x idna==3.10")
    assert phase == "Succeeded", output
