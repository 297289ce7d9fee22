"""From a folder to a private registry, and from there to a URL, with one credential made by kubectl."""

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.platform import Platform
from tests.registry import PASSWORD, USER, registry

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def bridge_address() -> str:
    return docker("network", "inspect", "bridge", "--format={{(index .IPAM.Config 0).Gateway}}")


@pytest.mark.timeout(240)
def test_one_credential_is_enough_to_push_to_resolve_and_to_pull(
    platform: Platform, sample: str, tmp_path: Path
) -> None:
    with registry(tmp_path / "registry", password=True, tls_address=bridge_address()) as place:
        namespace, image = "private", place.image("team/app:v1")
        platform.kubectl("create", "namespace", namespace)
        try:
            platform.kubectl("create", "secret", "docker-registry", "pull", "-n", namespace,
                             f"--docker-server={place.host}", f"--docker-username={USER}",
                             f"--docker-password={PASSWORD}")  # fmt: skip
            platform.kubectl("apply", "-f", "-", stdin=json.dumps(build(namespace, sample, image)))
            platform.kubectl("wait", "-n", namespace, "build/push", "--for=condition=Succeeded", "--timeout=60s")
            digests = json.loads(docker("image", "inspect", image, "--format={{json .RepoDigests}}"))
            pushed = next(digest for digest in digests if digest.startswith(place.host))
            docker("image", "rm", image)

            platform.kubectl("apply", "-f", "-", stdin=json.dumps(service(namespace, image, "no-secret", [])))
            platform.kubectl("wait", "-n", namespace, "ksvc/no-secret", "--for=condition=Ready=False", "--timeout=60s")
            revision = platform.kubectl("get", "-n", namespace, "rev/no-secret-00001", "-o", "json").stdout
            assert "no basic auth credentials" in revision

            platform.kubectl("apply", "-f", "-", stdin=json.dumps(service(namespace, image, "app", ["pull"])))
            platform.kubectl("wait", "-n", namespace, "ksvc/app", "--for=condition=Ready", "--timeout=60s")
            body = json.loads(platform.kubectl("get", "-n", namespace, "rev/app-00001", "-o", "json").stdout)
            assert body["status"]["containerStatuses"][0]["imageDigest"] == pushed
            answer = httpx.get(platform.gateway, headers={"Host": f"app.{namespace}.localhost"}, timeout=60)
            assert answer.status_code == 200
        finally:
            platform.kubectl("delete", "namespace", namespace, "--timeout=90s")
            repository = image.rpartition(":")[0]
            left = docker("image", "ls", "--digests", "--format={{.Repository}}@{{.Digest}}", repository).split()
            subprocess.run(["docker", "image", "rm", *left], capture_output=True)


def build(namespace: str, source: str, tag: str) -> dict[str, object]:
    return {
        "apiVersion": "build.knoll.dev/v1alpha1",
        "kind": "Build",
        "metadata": {"name": "push", "namespace": namespace},
        "spec": {"source": {"image": source}, "tag": tag, "push": True, "imagePullSecrets": [{"name": "pull"}]},
    }


def service(namespace: str, image: str, name: str, secrets: list[str]) -> dict[str, object]:
    # Always: what a Build of the namespace made would be used without asking the registry.
    container = {"image": image, "imagePullPolicy": "Always"}
    spec = {"containers": [container], "imagePullSecrets": [{"name": secret} for secret in secrets]}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": spec}},
    }
