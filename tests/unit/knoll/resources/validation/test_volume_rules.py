"""Invalid volumes and mounts of a Revision, with Knative's messages."""

import pytest

from knoll.values.json import Json
from tests.unit.knoll.resources.revision_specs import OWN_FILE, RELATIVE, C, container, problems_of, with_features

V = "spec.volumes[0]"
M = f"{C}.volumeMounts[0]"
VOLUMES: list[tuple[str, Json, list[str]]] = [
    ("configMap", {"configMap": {"name": "c"}}, []),
    ("secret", {"secret": {"secretName": "s", "items": [{"key": "k", "path": "a/b", "mode": 0o400}]}}, []),
    ("emptyDir", {"emptyDir": {}}, []),
    (
        "projected",
        {
            "projected": {
                "sources": [
                    {"secret": {"name": "s"}},
                    {"configMap": {"name": "c"}},
                    {"serviceAccountToken": {"path": "t"}},
                    {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "x"}}]}},
                ]
            }
        },
        [],
    ),
    ("nothing", {}, [f"expected exactly one, got neither: {V}.configMap, {V}.emptyDir, {V}.projected, {V}.secret"]),
    (
        "two kinds",
        {"emptyDir": {}, "configMap": {"name": "c"}},
        [f"expected exactly one, got both: {V}.configMap, {V}.emptyDir"],
    ),
    ("no names", {"secret": {}}, [f"missing field(s): {V}.secret.secretName"]),
    ("no name of a map", {"configMap": {}}, [f"missing field(s): {V}.configMap.name"]),
    (
        "items that say nothing",
        {"configMap": {"name": "c", "items": [{}]}},
        [f"missing field(s): {V}.configMap.items[0].key, {V}.configMap.items[0].path"],
    ),
    (
        "a path out of it",
        {"configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}},
        [f"invalid value: ../x: {V}.configMap.items[0].path\n{OWN_FILE}"],
    ),
    (
        "an absolute path",
        {"secret": {"secretName": "c", "items": [{"key": "k", "path": "/x"}]}},
        [f"invalid value: /x: {V}.secret.items[0].path\n{OWN_FILE}"],
    ),
    (
        "a mode that is none",
        {"secret": {"secretName": "c", "defaultMode": 0o1000}},
        [f"expected 0 <= 512 <= 511: {V}.secret.defaultMode"],
    ),
    ("hostPath", {"hostPath": {"path": "/"}}, [f"must not set the field(s): {V}.hostPath"]),
    ("an unknown medium", {"emptyDir": {"medium": "Disk"}}, [f"invalid value: Disk: {V}.emptyDir.medium"]),
    ("a size below zero", {"emptyDir": {"sizeLimit": "-1Mi"}}, [f"invalid value: -1Mi: {V}.emptyDir.sizeLimit"]),
    (
        "an empty source",
        {"projected": {"sources": [{}]}},
        [
            f"expected exactly one, got neither: {V}.projected.sources[0].configMap, "
            f"{V}.projected.sources[0].downwardAPI, "
            f"{V}.projected.sources[0].secret, {V}.projected.sources[0].serviceAccountToken"
        ],
    ),
    (
        "two sources in one",
        {"projected": {"sources": [{"secret": {"name": "a"}, "configMap": {"name": "b"}}]}},
        [f"expected exactly one, got both: {V}.projected.sources[0].configMap, {V}.projected.sources[0].secret"],
    ),
    (
        "a nameless source",
        {"projected": {"sources": [{"secret": {}}]}},
        [f"missing field(s): {V}.projected.sources[0].secret.name"],
    ),
    (
        "a token without path",
        {"projected": {"sources": [{"serviceAccountToken": {}}]}},
        [f"missing field(s): {V}.projected.sources[0].serviceAccountToken.path"],
    ),
    (
        "a downward file of nothing",
        {"projected": {"sources": [{"downwardAPI": {"items": [{"path": "p"}]}}]}},
        [
            f"expected exactly one, got neither: {V}.projected.sources[0].downwardAPI.items[0].fieldRef, "
            f"{V}.projected.sources[0].downwardAPI.items[0].resourceFieldRef"
        ],
    ),
    (
        "a trust bundle",
        {"projected": {"sources": [{"clusterTrustBundle": {"path": "p"}, "secret": {"name": "a"}}]}},
        [f"must not set the field(s): {V}.projected.sources[0].clusterTrustBundle"],
    ),
]


@pytest.mark.parametrize(("source", "problems"), [row[1:] for row in VOLUMES], ids=[row[0] for row in VOLUMES])
def test_volumes(source: Json, problems: list[str]) -> None:
    spec = {**container(volumeMounts=[{"name": "v", "mountPath": "/v"}]), "volumes": [{"name": "v", **source}]}
    assert problems_of(spec) == problems


def test_empty_dirs_can_be_turned_off() -> None:
    spec = {**container(volumeMounts=[{"name": "v", "mountPath": "/v"}]), "volumes": [{"name": "v", "emptyDir": {}}]}
    assert problems_of(spec, with_features(pod_spec_empty_dir="Disabled")) == [
        f"EmptyDir volume support is disabled, but found EmptyDir volume v: {V}"
    ]


def _claim(mount: Json | None = None, **claim: object) -> Json:
    source = {"name": "v", "persistentVolumeClaim": {"claimName": "data", **claim}}
    return {**container(volumeMounts=[{"name": "v", "mountPath": "/v", **(mount or {})}]), "volumes": [source]}


def test_claims_are_off_by_default_and_the_refusal_names_the_feature() -> None:
    problems = problems_of(_claim())
    assert [text.splitlines()[0] for text in problems] == [
        f"Persistent volume claim support is disabled, but found persistent volume claim data: {V}",
        "Persistent volume write support is disabled, but found persistent volume claim data that is not read-only: "
        f"{V}",
    ]
    assert 'Set kubernetes.podspec-persistent-volume-claim to "enabled"' in problems[0]


def test_claims_that_are_turned_on_can_be_mounted() -> None:
    reading = with_features(pod_spec_persistent_volume_claim="Enabled")
    writing = with_features(pod_spec_persistent_volume_claim="Enabled", pod_spec_persistent_volume_write="Enabled")
    assert problems_of(_claim(), writing) == []
    assert problems_of(_claim({"readOnly": True}, readOnly=True), reading) == []
    assert problems_of(_claim(readOnly=True), reading) == [f"volume is readOnly but volume mount is not: {M}.readOnly"]
    assert problems_of(_claim(claimName=""), writing) == [f"missing field(s): {V}.persistentVolumeClaim.claimName"]


@pytest.mark.parametrize("kind", ["hostPath", "csi", "image"])
def test_other_volumes_are_never_taken(kind: str) -> None:
    spec = {**container(volumeMounts=[{"name": "v", "mountPath": "/v"}]), "volumes": [{"name": "v", kind: {"a": 1}}]}
    assert problems_of(spec) == [f"must not set the field(s): {V}.{kind}"]


NAMES: list[tuple[str, list[Json], list[str]]] = [
    (
        "twice",
        [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}],
        ['duplicate volume name "v": spec.volumes[1].name'],
    ),
    (
        "not mounted",
        [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}],
        ['volume with name "w" not mounted: spec.volumes[1].name'],
    ),
    (
        "none",
        [{"name": "v", "emptyDir": {}}, {"emptyDir": {}}],
        ["missing field(s): spec.volumes[1].name", 'volume with name "" not mounted: spec.volumes[1].name'],
    ),
    (
        "not a label",
        [{"name": "v", "emptyDir": {}}, {"name": "A_", "emptyDir": {}}],
        ["invalid value: A_: spec.volumes[1].name", 'volume with name "A_" not mounted: spec.volumes[1].name'],
    ),
]


@pytest.mark.parametrize(("volumes", "problems"), [row[1:] for row in NAMES], ids=[row[0] for row in NAMES])
def test_names_of_volumes(volumes: list[Json], problems: list[str]) -> None:
    assert problems_of({**container(volumeMounts=[{"name": "v", "mountPath": "/v"}]), "volumes": volumes}) == problems


MOUNTS: list[tuple[str, list[Json], list[str]]] = [
    ("plain", [{"name": "v", "mountPath": "/a/b/"}], []),
    (
        "no such volume",
        [{"name": "v", "mountPath": "/a"}, {"name": "w", "mountPath": "/b"}],
        [f"volumeMount has no matching volume: {C}.volumeMounts[1].name"],
    ),
    ("no path", [{"name": "v"}], [f"missing field(s): {M}.mountPath"]),
    ("the root", [{"name": "v", "mountPath": "/"}], [f'mountPath "/" is a reserved path: {M}.mountPath']),
    ("the root, twice over", [{"name": "v", "mountPath": "//"}], [f'mountPath "/" is a reserved path: {M}.mountPath']),
    ("/dev", [{"name": "v", "mountPath": "/dev/"}], [f'mountPath "/dev" is a reserved path: {M}.mountPath']),
    (
        "/dev/log",
        [{"name": "v", "mountPath": "/x/../dev//log"}],
        [f'mountPath "/dev/log" is a reserved path: {M}.mountPath'],
    ),
    ("relative", [{"name": "v", "mountPath": "a/b"}], [f"invalid value: a/b: {M}.mountPath"]),
    (
        "the same place",
        [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a/"}],
        [f'invalid value: "/a/" must be unique: {C}.volumeMounts[1].mountPath'],
    ),
    (
        "propagation",
        [{"name": "v", "mountPath": "/a", "mountPropagation": "None"}],
        [f"must not set the field(s): {M}.mountPropagation"],
    ),
    (
        "a subPath out of it",
        [{"name": "v", "mountPath": "/a", "subPath": "../b"}],
        [f"invalid value: ../b: {M}.subPath\n{RELATIVE}"],
    ),
]


@pytest.mark.parametrize(("mounts", "problems"), [row[1:] for row in MOUNTS], ids=[row[0] for row in MOUNTS])
def test_mounts(mounts: list[Json], problems: list[str]) -> None:
    assert problems_of({**container(volumeMounts=mounts), "volumes": [{"name": "v", "emptyDir": {}}]}) == problems


def test_a_mount_of_an_object_must_be_read_only() -> None:
    spec = {
        **container(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        "volumes": [{"name": "v", "configMap": {"name": "c"}}],
    }
    assert f"volume mount should be readOnly for this type of volume: {M}.readOnly" in problems_of(spec, defaults=False)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        *((path, f'mountPath "{path}" is a reserved path') for path in
          ("/", "/dev", "/dev/log", "/dev/null", "/proc", "/proc/1", "/sys", "/sys/fs/cgroup")),
        ("//proc/", 'mountPath "/proc" is a reserved path'),
        ("/x/../sys", 'mountPath "/sys" is a reserved path'),
        ("/x:/y", "invalid value: /x:/y"),
        ("/x/../y", "invalid value: /x/../y"),
        ("/x\ny", "invalid value: /x\\x0ay"),
        ("x", "invalid value: x"),
        ("/dev/shm", ""), ("/processes", ""), ("/devices/a..b", ""), ("/etc/hosts", ""), ("/x y", ""),
    ],
)  # fmt: skip
def test_where_volumes_may_be_mounted(path: str, problem: str) -> None:
    volumes = [{"name": "v", "emptyDir": {}}]
    problems = problems_of({**container(volumeMounts=[{"name": "v", "mountPath": path}]), "volumes": volumes})
    if problem:
        (text,) = problems
        assert text.startswith(f"{problem}: {C}.volumeMounts[0].mountPath")
    else:
        assert problems == []


@pytest.mark.parametrize("path", ["..data", "..", "../x", "/x", "a/../b", "a\x1b", "a\0"])
def test_files_of_a_volume_stay_in_it(path: str) -> None:
    volumes = [{"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": path}]}}]
    (text,) = problems_of({**container(volumeMounts=[{"name": "v", "mountPath": "/v"}]), "volumes": volumes})
    assert "volumes[0].secret.items[0].path" in text
