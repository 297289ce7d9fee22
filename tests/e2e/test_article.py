"""Manifests as articles about Knative show them: v1alpha1, a foreign image name, an ingress gateway to look up."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.platform import Platform
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

ROOT = Path(__file__).parents[2]
ARTICLE = Path(__file__).parent / "article"
NAME = "stock-service-example"
IMAGE = "registry.cn-hangzhou.aliyuncs.com/knative-sample/rest-api-go:v1"
SERVICES = "/apis/serving.knative.dev/v1alpha1/namespaces/default/services"

Apply = Callable[[str], None]


@pytest.fixture(scope="module")
def image(platform: Platform) -> str:
    source = str(ROOT / "samples/rest-api-go")
    command = [sys.executable, "-m", "knoll.cli", "build", source, "--tag", IMAGE, "--server", platform.api]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return IMAGE


@pytest.fixture(params=["kubectl", "curl"])
def apply(request: pytest.FixtureRequest, platform: Platform, image: str) -> Iterator[Apply]:
    def by_kubectl(manifest: str) -> None:
        platform.kubectl("apply", "-f", str(ARTICLE / manifest))

    def by_curl(manifest: str) -> None:
        """POST to create; the same file as a server-side apply to change."""
        url, body = platform.api + SERVICES, f"@{ARTICLE / manifest}"
        common = ["curl", "--silent", "--show-error", "--fail-with-body", "--data-binary", body]
        there = httpx.get(f"{url}/{NAME}").status_code == 200
        change = ["-X", "PATCH", "-H", "Content-Type: application/apply-patch+yaml"]
        command = [*common, *change, f"{url}/{NAME}?fieldManager=curl&force=true"] if there else [*common, url]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    yield by_kubectl if request.param == "kubectl" else by_curl
    platform.kubectl("delete", "ksvc", NAME, "--ignore-not-found")


def answers(platform: Platform, requests: int, tag: str = "") -> Counter[str]:
    host = f"{tag}-{NAME}.default.localhost" if tag else f"{NAME}.default.localhost"
    with httpx.Client(base_url=platform.gateway, timeout=60) as client:
        return Counter(client.get("/", headers={"Host": host}).text.split()[3] for _ in range(requests))


def ready(platform: Platform) -> None:
    platform.kubectl("wait", f"ksvc/{NAME}", "--for=condition=Ready", "--timeout=60s")


@pytest.mark.timeout(300)
def test_the_articles_manifests_apply_unchanged_one_after_the_other(platform: Platform, apply: Apply) -> None:
    apply("revision-v1.yaml")
    ready(platform)
    assert set(answers(platform, 10)) == {"v1"}
    apply("revision-v2.yaml")
    ready(platform)
    eventually_sync(lambda: set(answers(platform, 40)) == {"v1", "v2"}, within=30)
    apply("revision-v3-2.yaml")
    ready(platform)
    eventually_sync(lambda: set(answers(platform, 80)) == {"v1", "v2", "v3"}, within=30)
    assert set(answers(platform, 5, tag="v3")) == {"v3"}
    assert set(answers(platform, 5, tag="latest")) == {"v3"}


@pytest.mark.timeout(300)
def test_the_articles_look_ups_answer(platform: Platform, image: str) -> None:
    try:
        platform.kubectl("apply", "-f", str(ARTICLE / "revision-v1.yaml"))
        ready(platform)
        assert "latestReadyRevisionName" in platform.kubectl("get", "ksvc", NAME, "-o", "yaml").stdout
        for kind in ("configuration", "revision", "route"):
            shown = platform.kubectl("get", kind, "-l", f"serving.knative.dev/service={NAME}", "-o", "yaml").stdout
            assert f"kind: {kind.capitalize()}" in shown
        gateway = platform.kubectl(
            "get", "svc", "istio-ingressgateway", "--namespace", "istio-system",
            "-o", "jsonpath={.status.loadBalancer.ingress[*]['ip']}",
        ).stdout  # fmt: skip
        domain = platform.kubectl("get", "route", NAME, "-o", "jsonpath={.status.url}").stdout.split("/")[2]
        port = platform.gateway.rpartition(":")[2]
        answer = httpx.get(f"http://{gateway}:{port}", headers={"Host": domain}, timeout=60)
        assert answer.text == "Welcome to the v1 app!\n"
    finally:
        platform.kubectl("delete", "ksvc", NAME, "--ignore-not-found")


@pytest.mark.timeout(300)
def test_the_samples_script_counts_responses_by_revision(platform: Platform, sample: str) -> None:
    try:
        platform.kubectl("apply", "-f", str(ROOT / "samples/rest-api-go/revision-v1.yaml"))
        ready(platform)
        kubeconfig = platform.home / "kubeconfig"
        kubeconfig.write_text(
            f"apiVersion: v1\nkind: Config\nclusters: [{{name: k, cluster: {{server: '{platform.api}'}}}}]\n"
            "contexts: [{name: k, context: {cluster: k, user: k}}]\nusers: [{name: k, user: {}}]\ncurrent-context: k\n"
        )
        script = str(ROOT / "samples/rest-api-go/run-test.sh")
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(platform.home),
            "KUBECONFIG": str(kubeconfig),
        }
        done = subprocess.run([script, "10"], capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["10", "Welcome", "to", "the", "v1", "app!"]
    finally:
        platform.kubectl("delete", "ksvc", NAME, "--ignore-not-found")
