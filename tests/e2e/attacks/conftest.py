"""The site under attack, shared by all attacks: Compose, two tenants, and hosts outside of the machine."""

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from knoll.firewall import nft
from tests.conftest import need
from tests.e2e.attacks.site import ATTACKER, CANARY, ROOT, VICTIM, Site, User, running
from tests.e2e.conftest import docker_runs
from tests.e2e.outside import Outside, outside
from tests.waiting import eventually_sync

SERVICE = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: NAME}
spec:
  template:
    metadata: {annotations: {autoscaling.knative.dev/min-scale: "1"}}
    spec: {containers: [{image: "IMAGE"}]}
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    need("DOCKER", docker_runs())
    need("KUBECTL", shutil.which("kubectl") is not None)
    with running(tmp_path_factory.mktemp("site")) as made:
        made.victim.kubectl("create", "secret", "generic", "crown", f"--from-literal=jewel={CANARY}")
        made.victim.kubectl("create", "configmap", "plans", f"--from-literal=plan={CANARY}")
        made.attacker.kubectl("create", "configmap", "own", "--from-literal=a=b")
        yield made


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to build: the program of tests/e2e/caller, which connects to the addresses that it is given."""
    folder = tmp_path_factory.mktemp("program")
    source = ROOT / "tests/e2e/caller"
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    if shutil.which("go"):
        command = ["go", "build", "-ldflags=-s -w", "-o", str(folder / "caller"), "."]
    else:
        command = ["docker", "run", "--rm", "-v", f"{source}:/src:ro", "-v", f"{folder}:/out", "-w", "/src",
                   "-e", "CGO_ENABLED=0", "golang:1.24", "go", "build", "-o", "/out/caller", "."]  # fmt: skip
    subprocess.run(command, cwd=source, env=environment, check=True)
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY caller /caller\nENTRYPOINT ["/caller"]\n')
    return folder


def _deploy(user: User, program: Path, name: str) -> None:
    built = user.knoll("build", str(program), "--tag", f"{name}:1")
    assert built.returncode == 0, built.stdout + built.stderr
    user.kubectl("apply", "-f", "-", stdin=SERVICE.replace("NAME", name).replace("IMAGE", f"{name}:1"))
    user.kubectl("wait", "ksvc", name, "--for=condition=Ready", "--timeout=90s")


@pytest.fixture(scope="session")
def shop(site: Site, program: Path) -> str:
    """B's Service, awake; returns its host."""
    _deploy(site.victim, program, "shop")
    return f"shop.{VICTIM}.localhost"


@pytest.fixture
def shop_address(site: Site, shop: str) -> str:
    """Address of B's newest instance."""

    def address() -> str:
        pods = json.loads(site.victim.kubectl("get", "pods", "-o", "json").stdout)["items"]
        pods.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
        statuses = [pod["status"] for pod in pods if "shop" in pod["metadata"]["name"] and "podIP" in pod["status"]]
        return str(statuses[-1]["podIP"]) if statuses else ""

    return eventually_sync(address, within=20, condition="the address of B's instance")


class Spy:
    """A's code in an instance of A's."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def reaches(self, address: str, port: int) -> bool:
        answer = self._site.get(f"spy.{ATTACKER}.localhost", "/dial", address=f"{address}:{port}")
        assert answer.status_code == 200, answer.text
        return bool(answer.json()["status"] == 200)

    def get(self, url: str, host: str = "") -> str:
        """What an HTTP request there gives, or why there is none."""
        answer = self._site.get(f"spy.{ATTACKER}.localhost", "/get", url=url, host=host).json()
        return str(answer["body"] or answer["error"])


@pytest.fixture(scope="session")
def spy(site: Site, program: Path) -> Spy:
    _deploy(site.attacker, program, "spy")
    return Spy(site)


@pytest.fixture(scope="session")
def external() -> Iterator[Outside]:
    need("NFT", os.geteuid() == 0 and not nft.obstacle())
    with outside() as made:
        yield made


@pytest.fixture(scope="session")
def host_port() -> Iterator[int]:
    """A service of this machine that listens on all of its addresses, and responds to HTTP with a secret."""
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(CANARY)}\r\nConnection: close\r\n\r\n{CANARY}".encode()
    with socket.create_server(("0.0.0.0", 0), backlog=64) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(1)
                    try:
                        connection.recv(4096)
                        connection.sendall(answer)
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
