"""Knative's conformance tests of the API: requirements on objects, their status and the requests to them."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.conformance.conftest import RUNTIME_IMAGE, Namespace, service
from tests.e2e.platform import http
from tests.registry import registry
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

PYTHON = "python:3.13-slim"
SLOW = """
import http.server, os, signal, threading, time, urllib.parse
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
inside = 0
lock = threading.Lock()

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global inside
        asked = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        with lock:
            inside += 1
            many = inside
        try:
            time.sleep(float(asked.get("before", ["0"])[0]))
            self.send_response(500 if many > 1 and "single" in asked else 200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\\r\\nfirst\\r\\n")
            self.wfile.flush()
            time.sleep(float(asked.get("after", ["0"])[0]))
            self.wfile.write(b"4\\r\\nlast\\r\\n0\\r\\n\\r\\n")
        finally:
            with lock:
                inside -= 1

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def here(make_namespace: Callable[[str], AbstractContextManager[Namespace]]) -> Iterator[Namespace]:
    with make_namespace("conformance-api") as namespace:
        yield namespace


def saying(name: str, text: str, revision: str = "", traffic: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A Service whose program says `text`."""
    body = service(name, env=[{"name": "TEXT", "value": text}])
    if revision:
        body["spec"]["template"]["metadata"]["name"] = f"{name}-{revision}"
    if traffic is not None:
        body["spec"]["traffic"] = traffic
    return body


def slow(name: str, **spec: Any) -> dict[str, Any]:
    return service(name, image=PYTHON, spec=spec, command=["python", "-c", SLOW])


def texts_of(here: Namespace, host: str, times: int = 1) -> Counter[str]:
    """What a host's instances say of themselves, asked eight at a time."""

    def request_text(_: int) -> str:
        with http(here.platform) as client:
            answer = client.get("/", headers={"Host": host}, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["env"]["TEXT"])

    with ThreadPoolExecutor(8) as pool:
        return Counter(pool.map(request_text, range(times)))


def ready(here: Namespace, name: str, body: dict[str, Any]) -> Any:
    """Apply, wait, and give the Service."""
    here.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))
    generation = json.loads(here.kubectl("get", "ksvc", name, "-o", "json").stdout)["metadata"]["generation"]

    def done() -> bool:
        status = json.loads(here.kubectl("get", "ksvc", name, "-o", "json").stdout).get("status", {})
        condition = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
        return status.get("observedGeneration") == generation and condition.get("Ready") == "True"

    eventually_sync(done, within=60, condition=f"{name} at generation {generation}")
    return json.loads(here.kubectl("get", "ksvc", name, "-o", "json").stdout)


def got(here: Namespace, kind: str, name: str) -> Any:
    return json.loads(here.kubectl("get", kind, name, "-o", "json").stdout)


def condition(body: Any) -> Any:
    conditions = body.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == "Ready"), {})


@contextmanager
def probed(here: Namespace, host: str) -> Iterator[None]:
    """Send requests to a host while the block runs, at least one; every one must be answered with 200."""
    end, statuses = threading.Event(), Counter[int]()

    def ask() -> None:
        with http(here.platform) as client:
            while True:
                statuses[client.get("/", headers={"Host": host}, timeout=60).status_code] += 1
                if end.is_set():  # looked at after a request: what is checked meanwhile may take no time at all
                    return

    prober = threading.Thread(target=ask)
    prober.start()
    try:
        yield
    finally:
        end.set()
        prober.join()
    assert set(statuses) == {200}, statuses


def test_blue_and_green_share_a_route_and_each_has_its_own(here: Namespace) -> None:
    """TestBlueGreenRoute"""
    ready(here, "bluegreen", saying("bluegreen", "blue", "blue"))
    traffic = [
        {"revisionName": "bluegreen-blue", "percent": 50, "tag": "blue"},
        {"revisionName": "bluegreen-green", "percent": 50, "tag": "green"},
    ]
    body = ready(here, "bluegreen", saying("bluegreen", "green", "green", traffic))
    split = texts_of(here, here.host("bluegreen"), 200)
    assert split.total() == 200
    assert min(split["blue"], split["green"]) >= 50, split
    urls = {target["tag"]: httpx.URL(target["url"]).host for target in body["status"]["traffic"]}
    assert {tag: set(texts_of(here, host, 50)) for tag, host in urls.items()} == {"blue": {"blue"}, "green": {"green"}}
    here.delete("bluegreen")


def test_traffic_is_split_as_specified_and_the_status_shows_it(here: Namespace) -> None:
    """TestServiceWithTrafficSplit"""
    name, host = "split", here.host("split")

    def shown(body: Any) -> list[tuple[str, str, int, bool]]:
        rows = body["status"]["traffic"]
        return [(row.get("tag", ""), row["revisionName"], row["percent"], row["latestRevision"]) for row in rows]

    def pinned(tag: str, revision: str, percent: int) -> dict[str, Any]:
        return {"tag": tag, "revisionName": f"{name}-{revision}", "percent": percent}

    def latest(percent: int) -> dict[str, Any]:
        return {"tag": "latest", "latestRevision": True, "percent": percent}

    assert shown(ready(here, name, saying(name, "one", "v1"))) == [("", "split-v1", 100, True)]
    body = ready(here, name, saying(name, "one", "v1", [pinned("current", "v1", 100), latest(0)]))
    assert shown(body) == [("current", "split-v1", 100, False), ("latest", "split-v1", 0, True)]
    body = ready(here, name, saying(name, "two", "v2", [pinned("current", "v1", 100), latest(0)]))
    assert shown(body) == [("current", "split-v1", 100, False), ("latest", "split-v2", 0, True)]
    assert set(texts_of(here, host, 50)) == {"one"}
    assert set(texts_of(here, f"latest-{host}", 20)) == {"two"}
    shape = [pinned("current", "v1", 50), pinned("candidate", "v2", 50), latest(0)]
    body = ready(here, name, saying(name, "two", "v2", shape))
    assert shown(body) == [
        ("current", "split-v1", 50, False), ("candidate", "split-v2", 50, False), ("latest", "split-v2", 0, True),
    ]  # fmt: skip
    split = texts_of(here, host, 200)
    assert min(split["one"], split["two"]) >= 50, split
    body = ready(here, name, saying(name, "three", "v3", [pinned("current", "v2", 100), latest(0)]))
    assert shown(body) == [("current", "split-v2", 100, False), ("latest", "split-v3", 0, True)]
    assert set(texts_of(here, host, 50)) == {"two"}
    assert set(texts_of(here, f"latest-{host}", 20)) == {"three"}
    assert here.ask("candidate-split").status_code == 404
    here.delete(name)


def test_updates_make_generations_and_lose_no_request(here: Namespace) -> None:
    """TestServiceCreateAndUpdate"""
    name = "updated"
    assert ready(here, name, saying(name, "first"))["metadata"]["generation"] == 1
    with probed(here, here.host(name)):
        body = saying(name, "second")
        assert ready(here, name, body)["status"]["latestReadyRevisionName"] == "updated-00002"
        assert set(texts_of(here, here.host(name), 20)) == {"second"}
        body["spec"]["template"]["metadata"]["labels"] = {"label-x": "x"}
        ready(here, name, body)
        body["spec"]["template"]["metadata"]["annotations"]["annotation-y"] = "why"
        ready_body = ready(here, name, body)
    assert (ready_body["metadata"]["generation"], ready_body["status"]["observedGeneration"]) == (4, 4)
    revision = got(here, "revision", "updated-00004")
    assert revision["metadata"]["labels"]["label-x"] == "x"
    assert revision["metadata"]["annotations"]["annotation-y"] == "why"
    here.delete(name)


def test_a_name_of_the_users_own_belongs_to_one_revision(here: Namespace) -> None:
    """TestServiceBYOName"""
    name = "byo"
    body = ready(here, name, saying(name, "mine", "byoname"))
    assert body["status"]["latestReadyRevisionName"] == "byo-byoname"
    with probed(here, here.host(name)):
        refused = here.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(saying(name, "other", "byoname")), check=False)
        assert refused.returncode == 1
        assert "byo-byoname" in refused.stderr
    assert set(texts_of(here, here.host(name), 10)) == {"mine"}
    here.delete(name)


def test_a_route_and_a_configuration_by_hand_serve_and_are_patched(here: Namespace) -> None:
    """TestRouteCreation, TestConfigurationGetAndList, TestRouteGetAndList, TestRevisionGetAndList"""
    template = saying("byhand", "before")["spec"]["template"]
    configuration = {"apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "metadata": {"name": "byhand"},
                     "spec": {"template": template}}  # fmt: skip
    route = {"apiVersion": "serving.knative.dev/v1", "kind": "Route", "metadata": {"name": "byhand"},
             "spec": {"traffic": [{"configurationName": "byhand", "percent": 100, "tag": "byhand"}]}}  # fmt: skip
    here.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([configuration, route]))
    here.kubectl("wait", "rt/byhand", "--for=condition=Ready", "--timeout=60s")
    assert set(texts_of(here, here.host("byhand"), 10)) == {"before"}
    assert got(here, "revision", "byhand-00001")["metadata"]["labels"]["serving.knative.dev/routingState"] == "active"
    with probed(here, here.host("byhand")):
        patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/env/0/value", "value": "after"}]
        here.kubectl("patch", "cfg", "byhand", "--type=json", "-p", json.dumps(patch))
        eventually_sync(
            lambda: set(texts_of(here, here.host("byhand"), 4)) == {"after"}, within=60, condition="the new one"
        )
    for kind, names in (("cfg", {"byhand"}), ("rt", {"byhand"}), ("rev", {"byhand-00001", "byhand-00002"})):
        assert names <= {body["metadata"]["name"] for body in here.listed(kind)}
    here.kubectl("delete", "rt/byhand", "cfg/byhand")


def failed(here: Namespace, name: str) -> dict[str, Any]:
    """Conditions Ready of a Service that fails and of its children, once all are False."""

    def all_false() -> dict[str, Any] | None:
        conditions_by_kind = {kind: condition(got(here, kind, name)) for kind in ("ksvc", "cfg", "rt")}
        revisions = here.listed("rev", "-l", f"serving.knative.dev/service={name}")
        conditions_by_kind["rev"] = condition(revisions[0]) if revisions else {}
        return (
            conditions_by_kind if all(each.get("status") == "False" for each in conditions_by_kind.values()) else None
        )

    conditions = eventually_sync(all_false, within=60, condition=f"{name} to fail")
    assert conditions
    return conditions


def test_an_image_that_is_missing_fails_everything_with_its_name(here: Namespace, tmp_path: Path) -> None:
    """TestContainerErrorMsg"""
    with registry(tmp_path) as place:
        image = place.image("invalidhelloworld:latest")
        here.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(service("missing", image=image)))
        condition = failed(here, "missing")
    assert "Unable to fetch image" in condition["rev"]["message"]
    assert image in condition["rev"]["message"]
    assert condition["rev"]["reason"] == "ContainerMissing"
    assert (condition["cfg"]["reason"], condition["rt"]["reason"]) == ("RevisionFailed", "RevisionMissing")
    assert all(each["reason"] and each["message"] for each in condition.values())
    here.delete("missing")


def test_a_process_that_ends_fails_everything_with_its_exit_code(here: Namespace) -> None:
    """TestContainerExitingMsg"""
    body = service("exiting", image=PYTHON, command=["sh", "-c", "echo crashed; sleep 1; exit 5"])
    here.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))
    condition = failed(here, "exiting")
    assert condition["rev"]["reason"] == "ExitCode5"
    assert "crashed" in condition["rev"]["message"]
    assert all(each["reason"] and each["message"] for each in condition.values())
    here.delete("exiting")


def test_a_request_may_take_as_long_as_the_revision_allows(here: Namespace) -> None:
    """TestRevisionTimeout"""
    ready(here, "timeout", slow("timeout", timeoutSeconds=3))
    assert here.ask("timeout", "/?before=0.5").status_code == 200
    late = here.ask("timeout", "/?before=6")
    assert late.status_code == 504
    cut = here.ask("timeout", "/?after=6")
    assert (cut.status_code, cut.text) == (200, "first"), "headers were out: the status stays, the body ends cleanly"
    here.delete("timeout")


def test_an_instance_never_has_two_requests_when_it_may_have_one(here: Namespace) -> None:
    """TestSingleConcurrency"""
    ready(here, "single", slow("single", containerConcurrency=1))

    def ask(_: int) -> int:
        return here.ask("single", "/?single=1&before=0.05").status_code

    with ThreadPoolExecutor(5) as pool:
        assert Counter(pool.map(ask, range(100))) == {200: 100}
    here.delete("single")


def test_a_generated_name_works_to_the_end(here: Namespace) -> None:
    """TestServiceGenerateName"""
    body = saying("x", "generated")
    body["metadata"] = {"generateName": "gen-"}
    made = here.kubectl("create", "-f", "-", "-o", "name", stdin=yaml.safe_dump(body)).stdout.strip()
    name = made.rpartition("/")[2]
    assert name.startswith("gen-")
    here.kubectl("wait", f"ksvc/{name}", "--for=condition=Ready", "--timeout=60s")
    assert set(texts_of(here, here.host(name))) == {"generated"}
    here.delete(name)


def test_generated_names_work_for_a_route_and_a_configuration_too(here: Namespace) -> None:
    """TestRouteAndConfigGenerateName"""
    made: dict[str, str] = {}
    for kind, spec in (("Configuration", saying("x", "apart")["spec"]), ("Route", {})):
        if kind == "Route":
            spec = {"traffic": [{"configurationName": made["Configuration"], "percent": 100}]}
        body = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": kind,
            "metadata": {"generateName": "gen-"},
            "spec": spec,
        }
        out = here.kubectl("create", "-f", "-", "-o", "name", stdin=yaml.safe_dump(body)).stdout.strip()
        made[kind] = out.rpartition("/")[2]
        assert made[kind].startswith("gen-")
    here.kubectl("wait", f"route/{made['Route']}", "--for=condition=Ready", "--timeout=60s")
    assert set(texts_of(here, here.host(made["Route"]))) == {"apart"}
    here.kubectl("delete", f"route/{made['Route']}", f"cfg/{made['Configuration']}")


def test_metadata_of_a_bare_configuration_makes_no_revision(here: Namespace) -> None:
    """TestUpdateConfigurationMetadata"""
    body = {"apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "metadata": {"name": "bare"},
            "spec": {"template": {"spec": {"containers": [{"image": RUNTIME_IMAGE}]}}}}  # fmt: skip
    here.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))
    here.kubectl("wait", "cfg/bare", "--for=condition=Ready", "--timeout=60s")
    here.kubectl("label", "cfg/bare", "label-x=x")
    here.kubectl("annotate", "cfg/bare", "annotation-y=y")
    configuration = got(here, "cfg", "bare")
    assert (configuration["metadata"]["generation"], configuration["status"]["latestReadyRevisionName"]) == (
        1,
        "bare-00001",
    )
    revision = got(here, "rev", "bare-00001")
    assert "label-x" not in revision["metadata"]["labels"]
    assert "annotation-y" not in revision["metadata"]["annotations"]
    here.kubectl("delete", "cfg/bare")


@pytest.mark.parametrize("part", ["labels", "annotations"])
def test_metadata_passes_to_the_children_and_leaves_them_but_for_the_core_service(here: Namespace, part: str) -> None:
    """TestLabelPropagation, TestAnnotationPropagation"""
    name = f"passes-{part}"
    body = saying(name, "x")
    body["metadata"][part] = {"team": "blue"}
    ready_body = ready(here, name, body)
    children = ("cfg", "rt", "service")
    if part == "annotations":
        annotations = ready_body["metadata"]["annotations"]
        assert annotations["serving.knative.dev/creator"]
        assert annotations["serving.knative.dev/lastModifier"]
    assert [got(here, kind, name)["metadata"][part].get("team") for kind in children] == ["blue"] * 3
    del body["metadata"][part]
    ready(here, name, body)

    def left() -> bool:
        return [got(here, kind, name)["metadata"].get(part, {}).get("team") for kind in children] == [
            None, None, "blue",
        ]  # fmt: skip

    eventually_sync(left, within=30, condition="the key to leave the children")
    here.delete(name)


def test_an_invalid_service_account_is_refused_as_on_kubernetes(here: Namespace) -> None:
    """TestServiceAccountValidation"""
    body = service("account", spec={"serviceAccountName": "foo@bar.baz"})
    refused = here.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body), check=False)
    assert refused.returncode == 1
    assert "foo@bar.baz: spec.template.spec.serviceAccountName\n" in refused.stderr
    assert "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters" in refused.stderr


def test_services_are_listed_and_go_with_all_that_is_theirs(here: Namespace) -> None:
    """TestServiceCreateListAndDelete"""
    ready(here, "listed", saying("listed", "here"))
    assert "listed" in {body["metadata"]["name"] for body in here.listed("ksvc")}
    assert set(texts_of(here, here.host("listed"))) == {"here"}
    here.delete("listed")

    def nothing_left() -> bool:
        owned = [body for kind in ("cfg", "rt", "rev") for body in here.listed(kind)]
        return not any(body["metadata"]["name"].startswith("listed") for body in owned)

    eventually_sync(nothing_left, within=60, condition="the children to go")
    assert here.ask("listed").status_code == 404


def test_each_of_several_containers_is_pinned_by_its_registrys_digest(here: Namespace, tmp_path: Path) -> None:
    """TestServiceCreateWithMultipleContainers, and the check of digests in all of them"""
    with registry(tmp_path) as place:
        image = place.image("team/runtime:v1")
        push = {"apiVersion": "build.knoll.dev/v1alpha1", "kind": "Build", "metadata": {"name": "push"},
                "spec": {"source": {"image": RUNTIME_IMAGE}, "tag": image, "push": True}}  # fmt: skip
        here.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(push))
        here.kubectl("wait", "build/push", "--for=condition=Succeeded", "--timeout=60s")
        digest = got(here, "build", "push")["status"]["digest"]
        body = service("pair", image=image, ports=[{"containerPort": 8801}])
        body["spec"]["template"]["spec"]["containers"][0]["name"] = "serving"
        sidecar = {"name": "sidecar", "image": image, "env": [{"name": "PORT", "value": "8882"}]}
        body["spec"]["template"]["spec"]["containers"].append(sidecar)
        ready(here, "pair", body)
        statuses = got(here, "rev", "pair-00001")["status"]["containerStatuses"]
        assert statuses == [{"name": "serving", "imageDigest": digest}, {"name": "sidecar", "imageDigest": digest}]
        assert digest.startswith(f"{place.host}/team/runtime@sha256:")
        assert here.report("pair")["env"]["PORT"] == "8801"
        here.delete("pair")
        here.kubectl("delete", "build/push")
