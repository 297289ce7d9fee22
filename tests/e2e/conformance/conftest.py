"""What the tests of the runtime contract share: the programs' images, and Services in a namespace of their own."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.platform import Platform, http
from tests.images import image_name
from tests.waiting import eventually_sync

PROGRAMS = Path(__file__).parent / "programs"
RUNTIME_IMAGE, READINESS_IMAGE = image_name("conformance-runtime"), image_name("conformance-readiness")
DOCKERFILE = 'FROM scratch\nCOPY program /program\nUSER 65532\nENTRYPOINT ["/program"]\nCMD ["of", "the image"]\n'


class Namespace:
    """Services of one namespace, called through the gateway."""

    def __init__(self, platform: Platform, name: str) -> None:
        self.platform, self.name = platform, name

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.platform.kubectl("-n", self.name, *arguments, stdin=stdin, check=check)

    def listed(self, kind: str, *arguments: str) -> list[Any]:
        return list(json.loads(self.kubectl("get", kind, "-o", "json", *arguments).stdout)["items"])

    def apply(self, *services: dict[str, Any], within: int = 60) -> None:
        """Apply several at once and wait until all Services of the namespace are ready."""
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(services))
        self.kubectl("wait", "ksvc", "--all", "--for=condition=Ready", f"--timeout={within}s")

    def delete(self, service: str) -> None:
        self.kubectl("delete", "ksvc", service, "--ignore-not-found")

    def host(self, service: str) -> str:
        return f"{service}.{self.name}.localhost"

    def ask(
        self, service: str, path: str = "/", headers: dict[str, str] | None = None, timeout: float = 60
    ) -> httpx.Response:
        """One GET, on a connection of its own; `timeout` in seconds."""
        with http(self.platform) as client:
            return client.get(path, headers={"Host": self.host(service), **(headers or {})}, timeout=timeout)

    def report(self, service: str, **headers: str) -> Any:
        """What the program reports about itself."""
        answer = self.ask(service, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def pod(self, service: str) -> Any:
        """The one Pod of a Service."""
        (pod,) = self.listed("pods", "-l", f"serving.knative.dev/service={service}")
        return pod


def service(
    name: str,
    image: str = RUNTIME_IMAGE,
    annotations: dict[str, str] | None = None,
    spec: dict[str, Any] | None = None,
    **container: Any,
) -> dict[str, Any]:
    """A Service of one container; it keeps its instance, so that all requests reach the same one."""
    kept = {"autoscaling.knative.dev/min-scale": "1", **(annotations or {})}
    template = {
        "metadata": {"annotations": kept},
        "spec": {"containers": [{"image": image, **container}], **(spec or {})},
    }
    return {
        "apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "metadata": {"name": name}, "spec": {"template": template},
    }  # fmt: skip


@pytest.fixture(scope="session")
def conformance_images(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The Go programs of this folder, each on an empty image with nothing else in it."""
    out = tmp_path_factory.mktemp("programs")
    if shutil.which("go"):
        build, environment = ["go", "build"], {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
        subprocess.run([*build, "-o", f"{out}/", "./..."], cwd=PROGRAMS, env=environment, check=True)
    else:
        build = ["docker", "run", "--rm", "-v", f"{PROGRAMS}:/src:ro", "-v", f"{out}:/out", "-w", "/src",
                 "-e", "CGO_ENABLED=0", "golang:1.24", "go", "build", "-o", "/out/", "./..."]  # fmt: skip
        subprocess.run(build, check=True)
    for program, image in (("runtime", RUNTIME_IMAGE), ("readiness", READINESS_IMAGE)):
        folder = out / f"{program}-image"
        folder.mkdir()
        shutil.move(out / program, folder / "program")
        (folder / "Dockerfile").write_text(DOCKERFILE)
        subprocess.run(["docker", "build", "-q", "-t", image, str(folder)], check=True, capture_output=True)


@contextlib.contextmanager
def namespace(platform: Platform, name: str) -> Iterator[Namespace]:
    """A namespace of a test's own; in the end it and its containers are gone."""
    platform.kubectl("create", "namespace", name)
    try:
        yield Namespace(platform, name)
    finally:
        platform.kubectl("delete", "namespace", name)
        eventually_sync(lambda: not instances(platform, name), within=60, condition="the namespace's instances go")


def instances(platform: Platform, namespace: str) -> list[str]:
    """Revisions of a namespace that have containers, running or not."""
    command = ["docker", "ps", "-a", f"--filter=label=knoll.dev/platform={platform.name}",
             '--format={{.Label "knoll.dev/revision"}}']  # fmt: skip
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return [container for container in output if container.startswith(f"{namespace}/")]


@pytest.fixture(scope="session")
def make_namespace(platform: Platform, conformance_images: None) -> Callable[[str], AbstractContextManager[Namespace]]:
    return lambda name: namespace(platform, name)
