"""Mistakes of users, and their errors: what is wrong, where, and how to fix it."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.conftest import MAX_UPLOAD_BYTES
from tests.e2e.platform import Platform
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

SERVICES = "/apis/serving.knative.dev/v1/namespaces/default/services"
PYTHON = "python:3.13-slim"
Json = dict[str, Any]


def manifest(name: str, image: str, **spec: Any) -> Json:
    """A Service; `spec` goes to its template's spec."""
    container = {"image": image, **spec.pop("container", {})}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [container], **spec}}},
    }


@pytest.fixture
def api(platform: Platform) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=platform.api, timeout=30) as client:
        yield client


@pytest.fixture
def apply(platform: Platform) -> Iterator[Any]:
    """Apply a Service with kubectl; what was applied is deleted at the end."""
    applied: set[str] = set()

    def apply_body(body: Json, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        applied.add(body["metadata"]["name"])
        return platform.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body), check=check)

    yield apply_body
    for name in applied:
        platform.kubectl("delete", "ksvc", name, "--ignore-not-found")


def condition(api: httpx.Client, plural: str, name: str, kind: str = "Ready") -> Json:
    status = api.get(f"/apis/serving.knative.dev/v1/namespaces/default/{plural}/{name}").json().get("status", {})
    conditions: dict[str, Json] = {row["type"]: row for row in status.get("conditions", [])}
    return conditions.get(kind, {"status": "Unknown"})


def is_false(api: httpx.Client, name: str, within: float = 60) -> Json:
    """Wait until a Service's Ready is False; returns that condition."""

    def failed() -> bool:
        return bool(condition(api, "services", name)["status"] == "False")

    eventually_sync(failed, within=within, condition=f"{name} to fail")
    return condition(api, "services", name)


def test_invalid_yaml_is_refused_with_its_place(api: httpx.Client) -> None:
    answer = api.post(SERVICES, content=b"kind: Service\n  metadata: [", headers={"Content-Type": "application/yaml"})
    assert answer.status_code == 400
    assert answer.json()["kind"] == "Status"
    assert "line 2" in answer.json()["message"]


def test_another_kind_than_the_paths_is_refused(api: httpx.Client) -> None:
    answer = api.post(SERVICES, json={**manifest("wrong", PYTHON), "kind": "Deployment"})
    assert answer.status_code == 400
    assert "Deployment" in answer.json()["message"]


def test_kubectl_reports_a_kind_that_is_not_served(platform: Platform) -> None:
    body = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "one"}}
    done = platform.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body), check=False)
    assert done.returncode != 0
    assert "Thing" in done.stderr


def test_percents_that_do_not_sum_to_100_are_refused_with_their_sum(apply: Any) -> None:
    body = manifest("bad-sum", PYTHON)
    body["spec"]["traffic"] = [
        {"latestRevision": True, "percent": 60},
        {"revisionName": "bad-sum-00001", "percent": 30},
    ]
    done = apply(body, check=False)
    assert done.returncode != 0
    assert "Traffic targets sum to 90, want 100" in done.stderr
    assert "spec.traffic" in done.stderr


def test_an_unknown_field_is_named_with_its_path(apply: Any) -> None:
    done = apply(manifest("typo", PYTHON, container={"imagePolicy": "Always"}), check=False)
    assert done.returncode != 0
    assert "imagePolicy" in done.stderr


def test_traffic_to_an_unknown_revision_names_it(apply: Any, api: httpx.Client, sample: str) -> None:
    body = manifest("lost", sample)
    body["spec"]["traffic"] = [{"revisionName": "lost-nowhere", "percent": 100}]
    apply(body)
    failed = is_false(api, "lost")
    assert failed["reason"] == "RevisionMissing"
    assert "lost-nowhere" in failed["message"]


def test_a_changed_template_under_the_same_revision_name_is_refused(apply: Any, sample: str) -> None:
    body = manifest("named", sample)
    body["spec"]["template"]["metadata"] = {"name": "named-v1"}
    apply(body)
    changed = copy.deepcopy(body)
    changed["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "RESOURCE", "value": "other"}]
    done = apply(changed, check=False)
    assert done.returncode != 0
    assert "spec.template.metadata.name" in done.stderr


def test_an_image_that_does_not_exist_fails_the_service_and_is_named(apply: Any, api: httpx.Client) -> None:
    image = "127.0.0.1:9/no/such-image:v1"
    apply(manifest("no-image", image))
    failed = is_false(api, "no-image")
    assert failed["reason"] == "RevisionFailed"
    assert image in failed["message"]
    assert condition(api, "revisions", "no-image-00001")["reason"] == "ContainerMissing"


def test_a_container_that_exits_at_start_fails_with_its_code_and_output(apply: Any, api: httpx.Client) -> None:
    script = "import sys; print('no database there', flush=True); sys.exit(5)"
    apply(manifest("exits", PYTHON, container={"command": ["python3", "-c", script]}))
    failed = is_false(api, "exits")
    assert failed["reason"] == "RevisionFailed"
    healthy = condition(api, "revisions", "exits-00001", "ContainerHealthy")
    assert healthy["status"] == "False"
    assert healthy["reason"] == "ExitCode5"
    assert "no database there" in healthy["message"]


def test_a_container_that_never_listens_fails_when_its_deadline_is_over(apply: Any, api: httpx.Client) -> None:
    body = manifest("deaf", PYTHON, container={"command": ["sleep", "1000"]})
    body["spec"]["template"]["metadata"] = {"annotations": {"serving.knative.dev/progress-deadline": "5s"}}
    apply(body)
    is_false(api, "deaf")
    assert condition(api, "revisions", "deaf-00001", "ResourcesAvailable")["reason"] == "ProgressDeadlineExceeded"


def test_a_failing_new_revision_leaves_traffic_on_the_old_one(
    apply: Any, api: httpx.Client, platform: Platform, sample: str
) -> None:
    good = manifest("steady", sample, container={"env": [{"name": "RESOURCE", "value": "good"}]})
    apply(good)
    platform.kubectl("wait", "ksvc/steady", "--for=condition=Ready", "--timeout=60s")
    apply(manifest("steady", "127.0.0.1:9/no/such-image:v2"))
    is_false(api, "steady")
    answer = httpx.get(platform.gateway, headers={"Host": "steady.default.localhost"}, timeout=60)
    assert answer.text == "Welcome to the good app!\n"


def test_a_failed_build_names_its_step(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {PYTHON}\nRUN echo 'the cat ate it' && exit 3\n")
    done = knoll_build(platform, tmp_path, "fails:v1")
    assert done.returncode == 1
    assert "the cat ate it" in done.stderr
    assert "exit code: 3" in done.stderr


def test_a_folder_without_a_dockerfile_is_refused_before_it_is_uploaded(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to build here")
    done = knoll_build(platform, tmp_path, "empty:v1")
    assert done.returncode == 1
    assert "Dockerfile" in done.stderr


def test_an_upload_that_is_too_large_is_refused_with_both_sizes(api: httpx.Client) -> None:
    answer = api.post(
        "/uploads",
        content=(b"\0" * 65536 for _ in range(MAX_UPLOAD_BYTES // 65536 + 2)),
        headers={"Content-Type": "application/x-tar"},
    )
    assert answer.status_code == 413
    assert str(MAX_UPLOAD_BYTES) in answer.json()["message"]


def test_of_two_writers_with_the_same_version_one_gets_a_conflict(apply: Any, api: httpx.Client, sample: str) -> None:
    apply(manifest("contended", sample))
    read = api.get(f"{SERVICES}/contended").json()
    read.pop("status", None)

    def write(concurrency: int) -> httpx.Response:
        body = copy.deepcopy(read)
        body["spec"]["template"]["spec"]["containerConcurrency"] = concurrency
        return api.put(f"{SERVICES}/contended", json=body)

    answers = [write(3), write(4)]
    assert [answer.status_code for answer in answers].count(409) >= 1
    assert answers[1].json()["reason"] == "Conflict"


def test_the_answer_for_an_unknown_host_says_how_to_list_the_known_ones(platform: Platform) -> None:
    answer = httpx.get(platform.gateway, headers={"Host": "unknown.example.org"})
    assert answer.status_code == 404
    assert "unknown.example.org" in answer.text


def knoll_build(platform: Platform, folder: Path, tag: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "knoll.cli", "build", str(folder), "--tag", tag, "--server", platform.api]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)
