"""What a Revision asks of ConfigMaps, Secrets and claims arrives in its containers, stays up to date and is kept."""

import base64
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.component.runtime.harness import build_image
from tests.e2e.platform import Platform, http
from tests.images import image_name
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

IMAGE = image_name("volumes")
SYSTEM = "knative-serving"
FLAGS = (
    "kubernetes.podspec-fieldref",
    "kubernetes.podspec-init-containers",
    "kubernetes.podspec-persistent-volume-claim",
    "kubernetes.podspec-persistent-volume-write",
)
OBJECTS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: shown}
data: {colour: blue, size: "9"}
---
apiVersion: v1
kind: Secret
metadata: {name: shown}
stringData: {word: sesame, key.pem: not really}
"""
EVERYTHING = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: shown}
spec:
  template:
    metadata:
      annotations: {autoscaling.knative.dev/min-scale: "1"}
    spec:
      initContainers:
        - image: IMAGE
          name: before
          args: [leave, /work/note, from before]
          volumeMounts: [{name: work, mountPath: /work}]
      containers:
        - image: IMAGE
          securityContext: {runAsUser: 65532, runAsGroup: 65532, readOnlyRootFilesystem: true,
                            allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
          env:
            - {name: COLOUR, valueFrom: {configMapKeyRef: {name: shown, key: colour}}}
            - {name: WORD, valueFrom: {secretKeyRef: {name: shown, key: word}}}
            - {name: ABSENT, valueFrom: {secretKeyRef: {name: none, key: word, optional: true}}}
            - {name: SAID, value: "$(COLOUR) $(CM_size)"}
            - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
          envFrom:
            - {prefix: CM_, configMapRef: {name: shown}}
          volumeMounts:
            - {name: map, mountPath: /etc/map}
            - {name: secret, mountPath: /etc/secret, readOnly: true}
            - {name: both, mountPath: /etc/both}
            - {name: map, mountPath: /etc/colour.txt, subPath: colour}
            - {name: work, mountPath: /work}
      volumes:
        - {name: map, configMap: {name: shown}}
        - {name: secret, secret: {secretName: shown, defaultMode: 0444, items: [{key: key.pem, path: tls/key.pem}]}}
        - name: both
          projected:
            sources:
              - {configMap: {name: shown, items: [{key: colour, path: same}, {key: size, path: size}]}}
              - {secret: {name: shown, items: [{key: word, path: same}]}}
              - {serviceAccountToken: {path: token, audience: bank}}
              - downwardAPI:
                  items: [{path: revision, fieldRef: {fieldPath: "metadata.labels['serving.knative.dev/revision']"}}]
        - {name: work, emptyDir: {}}
"""
WAITING = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: waiting}
spec:
  template:
    spec:
      containers:
        - image: IMAGE
          env: [{name: WORD, valueFrom: {secretKeyRef: {name: late, key: word}}}]
          volumeMounts: [{name: v, mountPath: /v}]
      volumes: [{name: v, configMap: {name: late}}]
"""
CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: kept}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
KEEPER = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: keeper}
spec:
  template:
    spec:
      timeoutSeconds: 5
      containers:
        - image: IMAGE
          securityContext: {runAsUser: 65532}
          env: [{name: VERSION, value: "ROUND"}]
          volumeMounts: [{name: data, mountPath: /data}, {name: data, mountPath: /part, subPath: deep/part}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: kept}}]
"""


@pytest.fixture(scope="module")
def flags(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the tests use of pods is allowed, and their image is there."""
    build_image(tmp_path_factory.mktemp("program"), IMAGE)
    _set_flags(platform, "enabled")
    yield
    _set_flags(platform, None)


@pytest.fixture(scope="module")
def shown(platform: Platform, flags: None) -> Iterator[None]:
    """A Service that asks for everything at once."""
    apply(platform, OBJECTS)
    apply(platform, EVERYTHING)
    ready(platform, "shown")
    yield
    platform.kubectl("delete", "ksvc/shown", "cm/shown", "secret/shown")
    eventually_sync(lambda: not volumes(platform, "files.", "scratch."), within=60, condition="its volumes go with it")


def _set_flags(platform: Platform, value: str | None) -> None:
    patch = json.dumps({"data": dict.fromkeys(FLAGS, value)})
    platform.kubectl("patch", "configmap", "config-features", "-n", SYSTEM, "--type=merge", "-p", patch)


def apply(platform: Platform, manifest: str) -> None:
    platform.kubectl("apply", "-f", "-", stdin=manifest.replace("IMAGE", IMAGE))


def ready(platform: Platform, name: str) -> None:
    platform.kubectl("wait", "--for=condition=Ready", f"ksvc/{name}", "--timeout=60s")


def ask(platform: Platform, name: str, path: str) -> str:
    with http(platform) as client:
        answer = client.get(path, headers={"Host": f"{name}.default.localhost"})
        assert answer.status_code == 200, answer.text
        return answer.text.strip()


def read(platform: Platform, path: str, name: str = "shown") -> str:
    return ask(platform, name, f"/file?path={path}")


def facts(platform: Platform, name: str = "shown") -> Any:
    return json.loads(ask(platform, name, "/facts"))


def volumes(platform: Platform, *kinds: str) -> list[str]:
    """Names, on the engine, of the platform's volumes of some kinds."""
    command = ["docker", "volume", "ls", "-q", f"--filter=label=knoll.dev/platform={platform.name}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return [volume for volume in output if volume.startswith(tuple(f"{platform.name}.{kind}" for kind in kinds))]


def pod(platform: Platform, name: str) -> str:
    arguments = ("get", "pods", "-l", f"serving.knative.dev/service={name}", "-o", "jsonpath={.items[*].metadata.name}")
    return platform.kubectl(*arguments).stdout.strip()


@pytest.mark.usefixtures("shown")
def test_variables_come_from_objects_and_from_the_instance_itself(platform: Platform) -> None:
    reported = facts(platform)
    assert (reported["env COLOUR"], reported["env WORD"], reported["env SAID"]) == ("blue", "sesame", "blue 9")
    assert reported["env POD"] == pod(platform, "shown")

    def shown_address() -> str:
        return platform.kubectl("get", "pod", reported["env POD"], "-o", "jsonpath={.status.podIP}").stdout

    eventually_sync(
        lambda: shown_address() == reported["env POD_IP"], within=30, condition="the Pod shows that address"
    )
    assert "env ABSENT" not in reported


@pytest.mark.usefixtures("shown")
def test_files_come_from_objects_with_paths_and_modes_for_a_user_that_is_not_root(platform: Platform) -> None:
    reported = facts(platform)
    assert (reported["uid"], reported["gid"]) == ("65532", "65532")
    assert (reported["NoNewPrivs"], reported["CapEff"], reported["CapBnd"]) == ("1", "0" * 16, "0" * 16)
    assert "read-only file system" in reported["root"]
    assert read(platform, "/etc/map/colour") == "blue"
    assert read(platform, "/etc/secret/tls/key.pem") == "not really"
    assert ask(platform, "shown", "/stat?path=/etc/secret/tls/key.pem") == "-r--r--r--"
    assert read(platform, "/etc/secret/word").startswith("error")
    assert read(platform, "/etc/both/same") == "sesame"
    assert read(platform, "/etc/both/size") == "9"
    assert read(platform, "/etc/both/revision") == "shown-00001"
    claims = json.loads(base64.urlsafe_b64decode(read(platform, "/etc/both/token").split(".")[1] + "=="))
    assert (claims["sub"], claims["aud"]) == ("system:serviceaccount:default:default", ["bank"])
    assert read(platform, "/etc/colour.txt") == "blue"
    assert read(platform, "/work/note") == "from before"
    assert "read-only file system" in ask(platform, "shown", "/write?path=/etc/map/x&data=x")
    assert ask(platform, "shown", "/write?path=/work/mine&data=x") == "<nil>"


@pytest.mark.usefixtures("shown")
def test_a_change_is_seen_in_folders_within_seconds_and_not_in_variables_or_parts(platform: Platform) -> None:
    before = pod(platform, "shown")
    patch = json.dumps({"data": {"colour": "red", "size": None, "shape": "round"}})
    platform.kubectl("patch", "configmap", "shown", "--type=merge", "-p", patch)
    eventually_sync(lambda: read(platform, "/etc/map/colour") == "red", within=30, condition="the new content")
    assert read(platform, "/etc/map/shape") == "round"
    assert read(platform, "/etc/map/size").startswith("error")
    assert read(platform, "/etc/colour.txt") == "blue"
    assert facts(platform)["env COLOUR"] == "blue"
    platform.kubectl("patch", "secret", "shown", "--type=merge", "-p", '{"stringData": {"word": "open"}}')
    platform.kubectl("patch", "configmap", "shown", "--type=merge", "-p", '{"data": {"size": "10"}}')
    eventually_sync(lambda: read(platform, "/etc/both/same") == "open", within=30, condition="the new word")
    eventually_sync(lambda: read(platform, "/etc/both/size") == "10", within=30, condition="the new size")
    assert pod(platform, "shown") == before


@pytest.mark.usefixtures("flags")
def test_a_revision_reports_a_missing_object_and_starts_once_it_exists(platform: Platform) -> None:
    apply(platform, WAITING)

    def says(reason: str, text: str) -> None:
        def condition() -> bool:
            output = platform.kubectl("get", "revision", "waiting-00001", "-o", "json", check=False).stdout
            conditions = json.loads(output or "{}").get("status", {}).get("conditions", [])
            return any(
                condition.get("reason") == reason and text in condition.get("message", "") for condition in conditions
            )

        eventually_sync(condition, within=30, condition=f"{reason}: {text}")

    try:
        says("CreateContainerConfigError", 'secret "late" not found')
        waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"

        def reason() -> str:
            return platform.kubectl("get", "pod", pod(platform, "waiting"), "-o", waiting, check=False).stdout

        eventually_sync(lambda: reason() == "CreateContainerConfigError", within=30, condition="the Pod's reason")
        platform.kubectl("create", "secret", "generic", "late", "--from-literal=other=x")
        says("CreateContainerConfigError", "couldn't find key word in Secret default/late")
        platform.kubectl("patch", "secret", "late", "--type=merge", "-p", '{"stringData": {"word": "here"}}')
        says("CreateContainerConfigError", 'configmap "late" not found')
        platform.kubectl("create", "configmap", "late", "--from-literal=a=b")
        ready(platform, "waiting")
        assert facts(platform, "waiting")["env WORD"] == "here"
        assert read(platform, "/v/a", "waiting") == "b"
    finally:
        platform.kubectl("delete", "ksvc/waiting", "secret/late", "cm/late", "--ignore-not-found")


@pytest.mark.usefixtures("flags")
def test_files_in_a_claim_outlive_a_revision_and_are_removed_with_the_claim(platform: Platform) -> None:
    apply(platform, CLAIM)
    apply(platform, KEEPER.replace("ROUND", "one"))
    ready(platform, "keeper")
    assert ask(platform, "keeper", "/write?path=/data/note&data=kept") == "<nil>"
    assert ask(platform, "keeper", "/write?path=/part/note&data=deep") == "<nil>"
    apply(platform, KEEPER.replace("ROUND", "two"))
    eventually_sync(lambda: facts(platform, "keeper")["env VERSION"] == "two", within=60, condition="the next Revision")
    assert read(platform, "/data/note", "keeper") == "kept"
    assert read(platform, "/data/deep/part/note", "keeper") == "deep"
    platform.kubectl("delete", "pvc", "kept")
    assert volumes(platform, "claim.")
    platform.kubectl("delete", "ksvc", "keeper")
    eventually_sync(lambda: not volumes(platform, "claim."), within=60, condition="the claim's volume goes")
