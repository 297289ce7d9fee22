"""A session of the real kubectl, as its users type it."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from knoll.redis.client import connected
from knoll.store.protocol import Store
from knoll.store.redis_store import RedisStore
from knoll.values.json import Json
from tests.component.api.conftest import SERVICES, Kubectl, Running
from tests.waiting import eventually

pytestmark = [pytest.mark.kubectl, pytest.mark.redis]


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    async with connected(redis_url, "test") as redis:
        store = RedisStore(redis)
        yield store
        await store.close()


MANIFEST = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: hello
  namespace: default
spec:
  template:
    metadata:
      name: hello-v1
    spec:
      containers:
      - image: registry.example/hello:v1
        env:
        - name: RESOURCE
          value: v1
        readinessProbe:
          httpGet:
            path: /
          initialDelaySeconds: 0
          periodSeconds: 3
"""
SECOND = (
    MANIFEST.replace("v1\n    spec", "v2\n    spec").replace("value: v1", "value: v2")
    + """\
  traffic:
  - tag: v1
    revisionName: hello-v1
    percent: 50
  - tag: v2
    revisionName: hello-v2
    percent: 50
  - tag: latest
    latestRevision: true
    percent: 0
"""
)
CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
data:
  colour: red
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[[str], str]:
    """Writes a manifest into a file; returns its path."""

    def write(text: str) -> str:
        path = tmp_path / f"manifest-{abs(hash(text))}.yaml"
        path.write_text(text)
        return str(path)

    return write


Write = Callable[[str], str]


def older_kubectl(minor: str) -> str | None:
    """Some distributions ship one program for each release, beside the one on PATH."""
    beside = Path(shutil.which("kubectl") or "").resolve().parent
    return shutil.which(f"kubectl.1.{minor}", path=f"{beside}{os.pathsep}{os.environ['PATH']}")


async def ready(api: Running, name: str = "hello") -> None:
    """Play the controllers: say that the Service is ready."""
    body = (await api.client.get(f"{SERVICES}/{name}")).json()
    body["status"] = {
        "observedGeneration": body["metadata"]["generation"],
        "url": f"http://{name}.default.localhost",
        "latestCreatedRevisionName": f"{name}-v1",
        "latestReadyRevisionName": f"{name}-v1",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }
    assert (await api.client.put(f"{SERVICES}/{name}/status", json=body)).status_code == 200


async def test_apply_creates_updates_and_leaves_alone(api: Running, kubectl: Kubectl, manifest: Write) -> None:
    first, second = manifest(MANIFEST), manifest(SECOND)
    assert await kubectl("apply", "-f", first) == "service.serving.knative.dev/hello created\n"
    made = (await api.client.get(f"{SERVICES}/hello")).json()
    await kubectl("apply", "-f", first)
    assert (await api.client.get(f"{SERVICES}/hello")).json() == made
    assert await kubectl("apply", "-f", second) == "service.serving.knative.dev/hello configured\n"
    changed = (await api.client.get(f"{SERVICES}/hello")).json()
    assert changed["metadata"]["generation"] == 2
    assert [entry["percent"] for entry in changed["spec"]["traffic"]] == [50, 50, 0]
    config = manifest(CONFIG_MAP)
    assert await kubectl("apply", "-f", config) == "configmap/settings created\n"
    assert await kubectl("apply", "-f", config) == "configmap/settings unchanged\n"


@pytest.mark.parametrize("version", ["27", "28", "29", "30", "31", "32", "33"])
async def test_every_kubectl_applies_old_and_new_versions(
    api: Running, kubectl: Kubectl, manifest: Write, version: str
) -> None:
    program = older_kubectl(version)
    if program is None:
        pytest.skip(f"kubectl 1.{version} is not here")
    old = Kubectl(program, kubectl.url, kubectl.home)
    assert "created" in await old("apply", "-f", manifest(MANIFEST.replace("/v1\n", "/v1alpha1\n")))
    assert "configured" in await old("apply", "-f", manifest(SECOND.replace("/v1\n", "/v1alpha1\n")))
    assert "configured" in await old("apply", "-f", manifest(MANIFEST))
    assert "hello" in await old("get", "ksvc")
    assert "deleted" in await old("delete", "ksvc", "hello")


async def test_a_typo_is_named_with_its_path(kubectl: Kubectl, manifest: Write) -> None:
    bad = manifest(MANIFEST.replace("image:", "imagee:"))
    refused = await kubectl.run("apply", "-f", bad)
    assert refused.code == 1
    assert 'unknown field "spec.template.spec.containers[0].imagee"' in refused.err


async def test_get_in_all_its_forms(api: Running, kubectl: Kubectl, manifest: Write) -> None:
    await kubectl("apply", "-f", manifest(MANIFEST))
    await ready(api)
    header, row = (await kubectl("get", "ksvc")).splitlines()
    assert header.split() == ["NAME", "URL", "LATESTCREATED", "LATESTREADY", "READY", "REASON"]
    assert row.split() == ["hello", "http://hello.default.localhost", "hello-v1", "hello-v1", "True"]
    assert "hello" in await kubectl("get", "services.serving.knative.dev", "hello", "-o", "wide")
    assert "image: registry.example/hello:v1" in await kubectl("get", "ksvc", "hello", "-o", "yaml")
    assert json.loads(await kubectl("get", "ksvc", "hello", "-o", "json"))["metadata"]["name"] == "hello"
    assert await kubectl("get", "ksvc", "hello", "-o", "jsonpath={.status.url}") == "http://hello.default.localhost"
    assert await kubectl("get", "ksvc", "-o", "name") == "service.serving.knative.dev/hello\n"
    columns = "custom-columns=N:.metadata.name,G:.metadata.generation"
    assert (await kubectl("get", "ksvc", "-o", columns)).split() == ["N", "G", "hello", "1"]
    assert "hello" in await kubectl("get", "ksvc", "-A", "--show-labels")
    assert "hello" in await kubectl("get", "ksvc", "--field-selector", "metadata.name=hello")
    assert await kubectl("get", "ksvc", "-l", "no=such") == ""
    assert "service.serving.knative.dev/hello" in await kubectl("get", "all")
    assert (await kubectl("get", "all")).count("service.serving.knative.dev/hello") == 1
    missing = await kubectl.run("get", "ksvc", "unknown")
    assert missing.err == 'Error from server (NotFound): services.serving.knative.dev "unknown" not found\n'


async def test_what_is_in_old_articles_works(api: Running, kubectl: Kubectl, manifest: Write) -> None:
    await kubectl("apply", "-f", manifest(MANIFEST.replace("/v1\n", "/v1alpha1\n")))
    for kind in ("configuration", "revision", "route"):
        await kubectl("get", kind, "-l", "serving.knative.dev/service=hello", "-o", "yaml")
    path = "jsonpath={.status.loadBalancer.ingress[*]['ip']}"
    gateway = await kubectl("get", "svc", "istio-ingressgateway", "--namespace", "istio-system", "-o", path)
    assert gateway == "192.0.2.7"


async def test_server_side_apply_owns_and_conflicts(api: Running, kubectl: Kubectl, manifest: Write) -> None:
    first, second = manifest(CONFIG_MAP), manifest(CONFIG_MAP.replace("red", "blue"))
    assert "serverside-applied" in await kubectl("apply", "--server-side", "-f", first)
    assert "serverside-applied" in await kubectl("apply", "--server-side", "-f", first)
    refused = await kubectl.run("apply", "--server-side", "--field-manager=other", "-f", second)
    assert refused.code == 1
    assert 'conflict with "kubectl"' in refused.err
    assert ".data.colour" in refused.err
    await kubectl("apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", second)
    assert await kubectl("get", "cm", "settings", "-o", "jsonpath={.data.colour}") == "blue"
    managers = "jsonpath={.metadata.managedFields[*].manager}"
    shown = await kubectl("get", "cm", "settings", "-o", managers, "--show-managed-fields")
    assert shown == "other"


async def test_client_side_apply_can_be_followed_by_server_side_apply(
    api: Running, kubectl: Kubectl, manifest: Write
) -> None:
    await kubectl("apply", "-f", manifest(MANIFEST))
    assert "serverside-applied" in await kubectl("apply", "--server-side", "-f", manifest(SECOND))
    assert "serverside-applied" in await kubectl("apply", "--server-side", "-f", manifest(MANIFEST))
    assert await kubectl("get", "ksvc", "hello", "-o", "jsonpath={.spec.traffic[*].tag}") in ("", "latest")
    assert "configured" in await kubectl("apply", "-f", manifest(SECOND))


async def test_patch_edit_label_annotate_and_replace(api: Running, kubectl: Kubectl, manifest: Write) -> None:
    await kubectl("apply", "-f", manifest(MANIFEST))
    await kubectl("label", "ksvc", "hello", "team=red")
    await kubectl("annotate", "ksvc", "hello", "example.com/note=hi")
    await kubectl("patch", "ksvc", "hello", "--type=merge", "-p", '{"metadata":{"labels":{"team":"blue"}}}')
    operation = '[{"op":"add","path":"/metadata/labels/more","value":"yes"}]'
    await kubectl("patch", "ksvc", "hello", "--type=json", "-p", operation)
    labels = json.loads(await kubectl("get", "ksvc", "hello", "-o", "json"))["metadata"]["labels"]
    assert labels == {"team": "blue", "more": "yes"}
    await kubectl("label", "ksvc", "hello", "team-")
    refused = await kubectl.run("patch", "ksvc", "hello", "-p", '{"metadata":{"labels":{"team":"x"}}}')
    assert "application/strategic-merge-patch+json is not supported" in refused.err
    await kubectl("apply", "-f", manifest(CONFIG_MAP))
    assert "patched" in await kubectl("patch", "cm", "settings", "-p", '{"data":{"size":"big"}}')
    editor = f"sh {manifest('sed -i s/red/green/ $1')}"
    command, environment = kubectl.command("edit", "cm", "settings")
    edited = await asyncio.create_subprocess_exec(*command, env={**environment, "EDITOR": editor})
    assert await edited.wait() == 0
    assert await kubectl("get", "cm", "settings", "-o", "jsonpath={.data}") == '{"colour":"green","size":"big"}'
    assert "replaced" in await kubectl("replace", "-f", manifest(CONFIG_MAP))


async def test_diff_and_dry_run_change_nothing(api: Running, kubectl: Kubectl, manifest: Write) -> None:
    await kubectl("apply", "-f", manifest(CONFIG_MAP))
    other = manifest(CONFIG_MAP.replace("red", "blue"))
    difference = await kubectl.run("diff", "-f", other)
    assert difference.code == 1
    assert re.search(r"^-  colour: red$", difference.out, re.M)
    assert re.search(r"^\+  colour: blue$", difference.out, re.M)
    assert "(server dry run)" in await kubectl("apply", "--dry-run=server", "-f", other)
    assert await kubectl("get", "cm", "settings", "-o", "jsonpath={.data.colour}") == "red"
    assert (await kubectl.run("diff", "-f", manifest(CONFIG_MAP))).code == 0


async def test_create_sends_protobuf_for_core_kinds(api: Running, kubectl: Kubectl, manifest: Write) -> None:
    await kubectl("create", "namespace", "team")
    await kubectl("create", "configmap", "c", "-n", "team", "--from-literal=a=ü", "--from-literal=b=2")
    await kubectl("create", "secret", "generic", "s", "-n", "team", "--from-literal=password=hunter2")
    await kubectl("create", "serviceaccount", "robot", "-n", "team")
    await kubectl("create", "service", "clusterip", "svc", "-n", "team", "--tcp=80:8080")
    assert json.loads(await kubectl("get", "cm", "c", "-n", "team", "-o", "json"))["data"] == {"a": "ü", "b": "2"}
    assert await kubectl("get", "secret", "s", "-n", "team", "-o", "jsonpath={.data.password}") == "aHVudGVyMg=="
    port = "jsonpath={.spec.ports[0].targetPort}"
    assert await kubectl("get", "svc", "svc", "-n", "team", "-o", port) == "8080"
    await kubectl("create", "-f", manifest(MANIFEST))
    again = await kubectl.run("create", "-f", manifest(MANIFEST))
    assert "(AlreadyExists): error when creating" in again.err


async def test_wait_and_watch_see_what_happens(api: Running, kubectl: Kubectl, manifest: Write) -> None:
    await kubectl("apply", "-f", manifest(MANIFEST))
    watch = await kubectl.start("get", "ksvc", "hello", "-w")
    assert watch.stdout is not None
    assert (await watch.stdout.readline()).split()[0] == b"NAME"
    assert (await watch.stdout.readline()).split()[0] == b"hello"
    waiting = asyncio.create_task(kubectl("wait", "ksvc/hello", "--for=condition=Ready", "--timeout=30s"))
    await eventually(lambda: len(api.app.state.watches) >= 2, condition="both watches")
    await ready(api)
    assert await waiting == "service.serving.knative.dev/hello condition met\n"
    assert b"http://hello.default.localhost" in await watch.stdout.readline()
    condition = "--for=jsonpath={.status.url}=http://hello.default.localhost"
    assert "condition met" in await kubectl("wait", "ksvc/hello", condition, "--timeout=30s")
    api.app.state.watches.close()
    assert await watch.wait() == 0


@pytest.mark.parametrize("cascade", ["background", "foreground", "orphan"])
async def test_delete_in_every_cascade(api: Running, kubectl: Kubectl, manifest: Write, cascade: str) -> None:
    await kubectl("apply", "-f", manifest(MANIFEST))
    done = await kubectl("delete", "ksvc", "hello", f"--cascade={cascade}")
    assert done == 'service.serving.knative.dev "hello" deleted\n'
    assert (await api.client.get(f"{SERVICES}/hello")).status_code == 404
    gone = await kubectl.run("wait", "ksvc/hello", "--for=delete", "--timeout=5s")
    assert gone.code == 0


async def test_delete_by_file_label_and_all(api: Running, kubectl: Kubectl, manifest: Write) -> None:
    for name in ("a", "b", "c"):
        await kubectl("create", "cm", name)
    await kubectl("label", "cm", "a", "x=y")
    await kubectl("delete", "cm", "-l", "x=y")
    await kubectl("delete", "cm", "--all")
    await kubectl("apply", "-f", manifest(MANIFEST))
    await kubectl("delete", "-f", manifest(MANIFEST), "--wait=false")
    assert await kubectl("get", "ksvc,cm") == ""


async def test_explain_reads_the_models(kubectl: Kubectl) -> None:
    text = await kubectl("explain", "ksvc.spec.template.spec.containers.readinessProbe")
    assert "readinessProbe <Probe>" in text
    assert "httpGet\t<HTTPGetAction>" in text
    text = await kubectl("explain", "ksvc.spec.template")
    assert "metadata" in text
    assert "spec" in text
    assert "data\t<map[string]string>" in await kubectl("explain", "cm")
    assert "traffic" in await kubectl("explain", "--api-version=serving.knative.dev/v1alpha1", "ksvc.spec")


async def test_describe_shows_the_object_and_its_events(api: Running, kubectl: Kubectl, manifest: Write) -> None:
    await kubectl("apply", "-f", manifest(MANIFEST))
    made = (await api.client.get(f"{SERVICES}/hello")).json()
    involved = {"kind": "Service", "namespace": "default", "name": "hello", "uid": made["metadata"]["uid"]}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "hello.1"},
        "involvedObject": involved,
        "reason": "Created",
        "message": "Created Configuration hello",
        "type": "Normal",
        "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "source": {"component": "service-controller"},
    }
    answer = await api.client.post("/api/v1/namespaces/default/events", json=event)
    assert answer.status_code == 201, answer.text
    text = await kubectl("describe", "ksvc", "hello")
    assert "Kind:         Service" in text
    assert "Created Configuration hello" in text
    assert "Created Configuration hello" in await kubectl("get", "events")
    assert "Created Configuration hello" in await kubectl("events")


async def test_access_can_be_asked_for(kubectl: Kubectl) -> None:
    assert await kubectl("auth", "can-i", "create", "ksvc") == "yes\n"
    assert "admin" in await kubectl("auth", "whoami")


async def test_discovery_commands_work(kubectl: Kubectl) -> None:
    resources = await kubectl("api-resources")
    assert re.search(r"^services +kservice,ksvc +serving.knative.dev/v1 +true +Service$", resources, re.M)
    assert re.search(r"^pods +po +v1 +true +Pod$", resources, re.M)
    versions = (await kubectl("api-versions")).split()
    assert {"v1", "serving.knative.dev/v1", "serving.knative.dev/v1alpha1", "build.knoll.dev/v1alpha1"} <= set(versions)
    assert "v1.32" in await kubectl("version")
    assert "running at" in await kubectl("cluster-info")


async def test_a_bad_platform_setting_is_refused_with_key_and_reason(kubectl: Kubectl) -> None:
    good = '{"data":{"stable-window":"30s"}}'
    await kubectl("patch", "cm", "config-autoscaler", "-n", "knative-serving", "-p", good)
    bad = '{"data":{"stable-window":"soon"}}'
    refused = await kubectl.run("patch", "cm", "config-autoscaler", "-n", "knative-serving", "-p", bad)
    assert refused.code == 1
    assert "stable-window" in refused.err


async def test_long_lists_come_in_pages(kubectl: Kubectl) -> None:
    for number in range(5):
        await kubectl("create", "cm", f"m{number}")
    listed = (await kubectl("get", "cm", "--chunk-size=2", "-o", "name")).split()
    assert listed == [f"configmap/m{number}" for number in range(5)]
    table = (await kubectl("get", "cm", "--chunk-size=2", "--no-headers")).splitlines()
    assert [row.split()[0] for row in table] == [f"m{number}" for number in range(5)]


async def test_whole_trees_can_be_explained_and_applied_unvalidated(kubectl: Kubectl, manifest: Write) -> None:
    tree = await kubectl("explain", "ksvc", "--recursive")
    assert "readinessProbe" in tree
    assert "latestRevision" in tree
    odd = manifest(MANIFEST.replace("env:", "environment: []\n        env:"))
    assert "created" in await kubectl("apply", "--validate=false", "-f", odd)
    assert "environment" not in await kubectl("get", "ksvc", "hello", "-o", "jsonpath={.spec}")


async def test_bad_manifests_are_refused_with_the_field(kubectl: Kubectl, manifest: Write) -> None:
    for text, message in (
        (SECOND.replace("percent: 50", "percent: 60"), "spec.traffic"),
        (MANIFEST.replace("name: hello-v1", "name: other-v1"), "spec.template.metadata.name"),
        (MANIFEST.replace("periodSeconds: 3", "periodSeconds: soon"), "periodSeconds"),
        (MANIFEST.replace("kind: Service", "kind: Servant"), "no matches for kind"),
        (MANIFEST.replace("namespace: default", "namespace: nowhere"), 'namespaces "nowhere" not found'),
    ):
        refused = await kubectl.run("apply", "-f", manifest(text))
        assert refused.code == 1
        assert message in refused.err
    await kubectl("apply", "-f", manifest(MANIFEST))
    same_name = await kubectl.run("apply", "-f", manifest(MANIFEST.replace("value: v1", "value: v2")))
    assert same_name.code == 1
    assert "Saw the following changes without a name change" in same_name.err


async def test_what_is_not_offered_is_refused_without_a_panic(api: Running, kubectl: Kubectl) -> None:
    pod: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default", "uid": "u"}}
    pod |= {"spec": {"containers": [{"name": "user-container", "image": "i"}]}, "status": {"phase": "Running"}}
    await api.store.create("pods", pod)
    done = await kubectl.run("debug", "pod/p", "--image=busybox", "--attach=false")
    assert done.code == 1
    assert "panic" not in done.err
    assert "ephemeral containers are disabled for this cluster" in done.err


async def test_refusals_name_the_object(api: Running, kubectl: Kubectl, tmp_path: Path) -> None:
    done = await kubectl.run("create", "namespace", "a_b")
    assert done.err.startswith('The Namespace "a_b" is invalid: metadata.name: Invalid value: "a_b"')
    (tmp_path / "hello.yaml").write_text(MANIFEST)
    await kubectl("apply", "-f", str(tmp_path / "hello.yaml"))
    again = await kubectl.run("create", "-f", str(tmp_path / "hello.yaml"))
    assert 'services.serving.knative.dev "hello" already exists' in again.err
    (tmp_path / "other.yaml").write_text(MANIFEST.replace("name: hello\n", "name: hello\n  uid: foreign\n", 1))
    foreign = await kubectl.run("apply", "-f", str(tmp_path / "other.yaml"))
    assert "Precondition failed: UID in precondition: foreign, UID in object meta: " in foreign.err
