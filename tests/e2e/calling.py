"""A program that calls others (tests/e2e/caller): its image, Services that run it, and the requests to it."""

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.platform import Platform, http
from tests.images import image_name

PROGRAM = Path(__file__).parent / "caller"
IMAGE = image_name("caller")
SERVICE = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: NAME
  namespace: NAMESPACE
  labels: LABELS
spec:
  template:
    metadata: {name: NAME-one, annotations: {autoscaling.knative.dev/window: 6s}}
    spec: {containers: [{image: IMAGE}]}
  traffic: [{revisionName: NAME-one, percent: 100, tag: v1}]
---
"""
LOCAL = "{networking.knative.dev/visibility: cluster-local}"


def service(name: str, namespace: str = "default", labels: str = "{}") -> str:
    values = {"IMAGE": IMAGE, "NAMESPACE": namespace, "NAME": name, "LABELS": labels}
    return functools.reduce(lambda text, field: text.replace(field, values[field]), values, SERVICE)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program of tests/e2e/caller."""
    folder = tmp_path_factory.mktemp("caller")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    if shutil.which("go"):
        build = ["go", "build", "-ldflags=-s -w", "-o", str(folder / "caller"), "."]
    else:
        build = ["docker", "run", "--rm", "-v", f"{PROGRAM}:/src:ro", "-v", f"{folder}:/out", "-w", "/src",
                 "-e", "CGO_ENABLED=0", "golang:1.24", "go", "build", "-o", "/out/caller", "."]  # fmt: skip
    subprocess.run(build, cwd=PROGRAM, env=environment, check=True)
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY caller /caller\nENTRYPOINT ["/caller"]\n')
    subprocess.run(["docker", "build", "-q", "-t", IMAGE, str(folder)], check=True, capture_output=True)
    return IMAGE


class Caller:
    """An instance that calls others."""

    def __init__(self, platform: Platform, host: str = "caller.default.localhost") -> None:
        self._platform, self._host = platform, host

    def ask(self, path: str, /, **query: str) -> httpx.Response:
        with http(self._platform) as client:
            return client.get(path, params=query, headers={"Host": self._host})

    def get(self, url: str, **query: str) -> Any:
        return self.ask("/get", url=url, **query).json()

    def lookup(self, name: str) -> Any:
        return self.ask("/lookup", name=name).json()

    def reaches(self, address: str, port: int) -> bool:
        """Whether a connection is accepted there."""
        answer = self.ask("/dial", address=f"{address}:{port}")
        assert answer.status_code == 200, answer.text
        return bool(answer.json()["status"] == 200)

    def addresses(self) -> list[str]:
        """Of every interface of its instance, in CIDR form."""
        return list(self.ask("/addresses").json()["addresses"])
