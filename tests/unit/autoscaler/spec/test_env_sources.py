"""What containers take from other objects."""

import base64
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.runtime.model import ADDRESS, Capacity, ContainerSpec, File, Mount
from autoscaler.spec.engine_volumes import engine_volumes, folders, pod_volume
from autoscaler.spec.env_sources import About, Find, MissingSourceError, references
from autoscaler.spec.instance_spec import instance_spec, needs_preparation
from autoscaler.spec.volume_files import files, has_token, is_of_one_instance
from knoll.resources.admission.parsing import parse
from knoll.resources.models import pod
from knoll.resources.models.volume import Volume
from tests.unit.autoscaler.sample_revisions import revision

NAME = "hello-00001-deployment-0123456789-abcde"
ABOUT = About(NAME, "default", {"app": "hello"}, {"note": 'say "hi"\n'}, "robot", "knoll", 8.0, 16 * 1024**3)


def config_map(name: str = "settings", binary: Mapping[str, bytes] | None = None, **data: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value).decode() for key, value in (binary or {}).items()}
    return {"kind": "ConfigMap", "metadata": {"name": name}, "data": data, "binaryData": encoded}


def secret(name: str = "password", /, **data: bytes) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"kind": "Secret", "metadata": {"name": name}, "data": encoded}


def claim(name: str = "disk") -> dict[str, Any]:
    return {"kind": "PersistentVolumeClaim", "metadata": {"name": name, "uid": "claim-uid"}}


def among(*bodies: Mapping[str, Any]) -> Find:
    """Looks up in a few objects."""
    plurals = {"ConfigMap": "configmaps", "Secret": "secrets", "PersistentVolumeClaim": "persistentvolumeclaims"}
    there = {(plurals[body["kind"]], body["metadata"]["name"]): dict(body) for body in bodies}
    return lambda resource, name: there.get((resource, name))


def started(find: Find, volumes: list[Any] | None = None, **container: Any) -> ContainerSpec:
    """The only container of an instance."""
    own = {"name": "user-container", "image": "app", **container}
    made = revision(spec={"containers": [own], "volumes": volumes or []})
    return instance_spec(made, NAME, find, Capacity(8.0, 16 * 1024**3)).containers[0]


def environment(find: Find, env: list[Any] | None = None, env_from: list[Any] | None = None) -> dict[str, str]:
    values = dict(started(find, env=env or [], envFrom=env_from or []).env)
    return {name: value for name, value in values.items() if not name.startswith("K_") and name != "PORT"}


def key_ref(kind: str, name: str, key: str, **more: Any) -> dict[str, Any]:
    return {"name": "A", "valueFrom": {f"{kind}KeyRef": {"name": name, "key": key, **more}}}


# --- variables


def test_variables_come_from_keys_of_config_maps_and_secrets() -> None:
    find = among(config_map(colour="blue"), secret(word=b"s3cret"))
    assert environment(find, [key_ref("configMap", "settings", "colour")]) == {"A": "blue"}
    assert environment(find, [key_ref("secret", "password", "word")]) == {"A": "s3cret"}


def test_the_value_of_a_key_is_not_expanded_and_may_be_referred_to() -> None:
    find = among(config_map(template="$(HOME)/$$x"))
    env = [
        {"name": "HOME", "value": "/root"},
        key_ref("configMap", "settings", "template"),
        {"name": "B", "value": "<$(A)>"},
    ]
    assert environment(find, env) == {"HOME": "/root", "A": "$(HOME)/$$x", "B": "<$(HOME)/$$x>"}


@pytest.mark.parametrize(
    ("find", "kind", "message"),
    [
        (among(), "configMap", 'configmap "settings" not found'),
        (among(), "secret", 'secret "settings" not found'),
        (among(config_map()), "configMap", "couldn't find key colour in ConfigMap default/settings"),
        (among(secret("settings")), "secret", "couldn't find key colour in Secret default/settings"),
    ],
)
def test_what_is_missing_is_named_in_kubernetes_words_unless_it_is_optional(
    find: Find, kind: str, message: str
) -> None:
    with pytest.raises(MissingSourceError) as raised:
        environment(find, [key_ref(kind, "settings", "colour")])
    assert str(raised.value) == message
    assert environment(find, [key_ref(kind, "settings", "colour", optional=True)]) == {}


def test_whole_objects_become_variables_with_their_prefix_and_env_wins_over_them() -> None:
    find = among(config_map(a="1", b="2"), secret(b=b"3", c=b"4"))
    whole = [{"configMapRef": {"name": "settings"}}, {"prefix": "S_", "secretRef": {"name": "password"}}]
    env = [{"name": "a", "value": "own"}, {"name": "d", "value": "$(b)$(S_c)"}]
    assert environment(find, env, whole) == {"a": "own", "b": "2", "S_b": "3", "S_c": "4", "d": "24"}


def test_a_later_whole_object_wins_and_a_missing_optional_one_is_passed_over() -> None:
    find = among(config_map("one", a="1"), config_map("two", a="2"))
    whole = [{"configMapRef": {"name": each}} for each in ("one", "two")]
    absent = {"secretRef": {"name": "none", "optional": True}}
    assert environment(find, env_from=[*whole, absent]) == {"a": "2"}
    with pytest.raises(MissingSourceError, match='secret "none" not found'):
        environment(find, env_from=[{"secretRef": {"name": "none"}}])


def test_keys_that_name_no_variable_and_binary_values_are_left_out_of_whole_objects() -> None:
    find = among(config_map(binary={"blob": b"\xff"}, **{"ok.key-1": "x"}))
    assert environment(find, env_from=[{"configMapRef": {"name": "settings"}}]) == {"ok.key-1": "x"}


def test_the_platforms_own_variables_cannot_be_overridden() -> None:
    find = among(config_map(PORT="1", K_REVISION="other", A="x"))
    env = started(find, envFrom=[{"configMapRef": {"name": "settings"}}]).env
    assert (env["PORT"], env["K_REVISION"], env["A"]) == ("8080", "hello-00001", "x")


def test_binary_data_cannot_be_a_variable() -> None:
    for value in (b"\xff\xfe", b"a\0b"):
        with pytest.raises(MissingSourceError, match="use a volume"):
            environment(among(secret(word=value)), [key_ref("secret", "password", "word")])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", NAME),
        ("metadata.namespace", "default"),
        ("metadata.labels['app']", "hello-00001"),
        ("metadata.labels['absent']", ""),
        ("metadata.annotations['note']", "x"),
        ("spec.nodeName", "knoll"),
        ("spec.serviceAccountName", "robot"),
        ("status.podIP", ADDRESS),
    ],
)
def test_variables_from_the_metadata_of_an_instance(path: str, value: str) -> None:
    env = [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}]
    own = {"name": "user-container", "image": "app", "env": env, "args": ["$(A)"]}
    made = revision(spec={"containers": [own], "serviceAccountName": "robot"}, annotations={"note": "x"})
    container = instance_spec(made, NAME, among()).containers[0]
    assert container.env["A"] == value
    assert container.args == (value,)


def test_a_field_that_there_is_not_is_named() -> None:
    env = [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]
    with pytest.raises(MissingSourceError, match=r"unsupported fieldPath: status\.phase"):
        environment(among(), env)


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", None, "2"),
        ("limits.cpu", "1m", "1500"),
        ("limits.memory", "1Mi", "100"),
        ("requests.cpu", None, "0"),
        ("requests.memory", None, str(16 * 1024**2)),
    ],
)
def test_variables_from_resources_are_rounded_up(resource: str, divisor: str | None, value: str) -> None:
    selector = {"resource": resource, **({"divisor": divisor} if divisor else {})}
    limits = {"limits": {"cpu": "1500m", "memory": "100Mi"}, "requests": {"memory": "16Mi"}}
    env = [{"name": "A", "valueFrom": {"resourceFieldRef": selector}}]
    assert started(among(), env=env, resources=limits).env["A"] == value


def test_without_a_limit_a_variable_has_the_capacity_of_the_machine() -> None:
    env = [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]
    assert started(among(), env=env).env["A"] == "8"


# --- files


def shown(volume: dict[str, Any], *bodies: Mapping[str, Any], spec: pod.PodSpec | None = None) -> dict[str, File]:
    parsed = parse_volume(volume)
    return files(parsed, spec or pod.PodSpec(), ABOUT, among(*bodies), lambda _: b"token")


def parse_volume(body: dict[str, Any]) -> Volume:
    return parse(Volume, {"name": "v", **body})[0]


def test_all_keys_become_files_with_the_default_mode() -> None:
    files = shown({"configMap": {"name": "settings"}}, config_map(binary={"blob": b"\xff"}, text="x"))
    assert files == {"text": File(b"x", 0o644), "blob": File(b"\xff", 0o644)}
    assert shown({"secret": {"secretName": "password", "defaultMode": 0o400}}, secret(a=b"\0")) == {
        "a": File(b"\0", 0o400)
    }


def test_items_choose_keys_their_paths_and_modes() -> None:
    items = [{"key": "a", "path": "deep//x", "mode": 0o600}, {"key": "b", "path": "y"}]
    files = shown(
        {"configMap": {"name": "settings", "items": items, "defaultMode": 0o440}}, config_map(a="1", b="2", c="3")
    )
    assert files == {"deep/x": File(b"1", 0o600), "y": File(b"2", 0o440)}


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "none"}}, 'volume "v" : configmap "none" not found'),
        ({"secret": {"secretName": "none"}}, 'volume "v" : secret "none" not found'),
        ({"secret": {"secretName": "password", "items": [{"key": "x", "path": "x"}]}}, "non-existent secret key: x"),
        ({"configMap": {"name": "settings", "items": [{"key": "x", "path": "x"}]}}, "non-existent config key: x"),
        ({"projected": {"sources": [{"secret": {"name": "none"}}]}}, 'volume "v" : secret "none" not found'),
    ],
)
def test_a_missing_source_of_a_volume_is_named_unless_it_is_optional(volume: dict[str, Any], message: str) -> None:
    with pytest.raises(MissingSourceError, match=message):
        shown(volume, config_map(), secret())
    (kind, source), *_ = volume.items()
    optional = (
        {"sources": [{"secret": {"name": "none", "optional": True}}]}
        if kind == "projected"
        else {**source, "optional": True}
    )
    assert shown({kind: optional}, config_map(), secret()) == {}


def test_sources_are_projected_into_one_volume_and_the_later_wins() -> None:
    sources = [
        {"configMap": {"name": "settings", "items": [{"key": "a", "path": "same"}, {"key": "b", "path": "b"}]}},
        {"secret": {"name": "password", "items": [{"key": "a", "path": "same", "mode": 0o600}]}},
        {"serviceAccountToken": {"path": "token", "audience": "you"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"downwardAPI": {"items": [{"path": "note", "fieldRef": {"fieldPath": "metadata.annotations"}}]}},
    ]
    files = shown({"projected": {"sources": sources}}, config_map(a="1", b="2"), secret(a=b"3"))
    assert files["same"] == File(b"3", 0o600)
    assert {path: file.data for path, file in files.items() if path != "same"} == {
        "b": b"2", "token": b"token", "labels": b'app="hello"', "note": b'note="say \\"hi\\"\\n"',
    }  # fmt: skip


def test_a_projected_volume_has_resources_of_a_named_container() -> None:
    spec = parse(pod.PodSpec, {"containers": [{"name": "app", "resources": {"limits": {"cpu": "250m"}}}]})[0]
    item = {"path": "cpu", "resourceFieldRef": {"containerName": "app", "resource": "limits.cpu", "divisor": "1m"}}
    volume = {"projected": {"sources": [{"downwardAPI": {"items": [item]}}]}}
    assert shown(volume, spec=spec) == {"cpu": File(b"250", 0o644)}
    item["resourceFieldRef"]["containerName"] = "none"  # type: ignore[index]
    with pytest.raises(MissingSourceError, match="container 'none'"):
        shown(volume, spec=spec)


@pytest.mark.parametrize("paths", [["a", "a/b"], ["..data"], ["..x/y"]])
def test_files_that_cannot_be_together_or_would_break_the_volume_are_refused(paths: list[str]) -> None:
    items = [{"key": "k", "path": path} for path in paths]
    with pytest.raises(MissingSourceError, match=r"cannot be in|must not begin"):
        shown({"configMap": {"name": "settings", "items": items}}, config_map(k="x"))


@given(data=st.dictionaries(st.from_regex(r"[a-z][a-z0-9._-]{0,10}", fullmatch=True), st.binary(max_size=30)))
def test_whatever_a_secret_holds_lies_in_its_files(data: dict[str, bytes]) -> None:
    files = shown({"secret": {"secretName": "password"}}, secret(**data))
    assert {path: file.data for path, file in files.items()} == data


def test_a_value_that_is_not_base64_is_named_with_its_object() -> None:
    broken = {"kind": "Secret", "metadata": {"name": "password"}, "data": {"k": "%%%"}}
    with pytest.raises(MissingSourceError, match="key k of secret 'password' is not base64"):
        shown({"secret": {"secretName": "password"}}, broken)


# --- volumes and mounts


def test_files_are_mounted_read_only_from_the_revisions_volume_and_claims_from_their_own() -> None:
    volumes = [
        {"name": "c", "configMap": {"name": "settings"}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "disk"}},
    ]
    mounts = [
        {"name": "c", "mountPath": "/c", "readOnly": False},
        {"name": "c", "mountPath": "/one", "subPath": "a/b"},
        {"name": "d", "mountPath": "/d"},
    ]
    mounted = started(among(config_map(), claim()), volumes, volumeMounts=mounts).mounts
    assert mounted == (
        Mount("/c", "own", "files.uid-hello-00001.c", read_only=True),
        Mount("/one", "own", "files.uid-hello-00001.c", read_only=True, sub_path="a/b"),
        Mount("/d", "own", "claim.claim-uid"),
    )


def test_a_claim_may_be_read_only_and_must_be_there() -> None:
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "disk", "readOnly": True}}]
    mounts = [{"name": "d", "mountPath": "/d"}]
    assert started(among(claim()), volumes, volumeMounts=mounts).mounts[0].read_only
    with pytest.raises(MissingSourceError, match='persistentvolumeclaim "disk" not found'):
        started(among(), volumes, volumeMounts=mounts)


def test_an_empty_dir_is_memory_of_one_container_or_a_volume_of_all_that_share_it() -> None:
    own = {
        "name": "app",
        "image": "app",
        "volumeMounts": [{"name": "e", "mountPath": "/e"}, {"name": "f", "mountPath": "/f"}],
    }
    two = {"name": "before", "image": "app", "volumeMounts": [{"name": "f", "mountPath": "/f", "subPath": "x/y"}]}
    volumes = [{"name": "e", "emptyDir": {}}, {"name": "f", "emptyDir": {}}]
    made = revision(spec={"containers": [own], "initContainers": [two], "volumes": volumes})
    spec = instance_spec(made, NAME, among())
    assert [each.kind for each in spec.containers[0].mounts] == ["tmpfs", "own"]
    assert spec.init_containers[0].mounts == (Mount("/f", "own", f"scratch.{NAME}.f", sub_path="x/y"),)
    assert folders(made.spec, "f") == ["x/y"]


def test_volumes_with_the_name_of_an_instance_are_not_shared() -> None:
    item = {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}
    mine = {"name": "mine", "projected": {"sources": [{"downwardAPI": {"items": [item]}}]}}
    made = revision(spec={"containers": [{"name": "app", "image": "app"}], "volumes": [mine]})
    assert is_of_one_instance(made.spec.volumes[0])
    volume = engine_volumes(made, NAME, among())["mine"]
    assert (volume.owner, pod_volume(volume)) == (NAME, "mine")


def test_a_revision_without_sources_needs_no_delivery_and_any_other_does() -> None:
    def needs(volumes: list[Any] | None = None, **container: Any) -> bool:
        own = {"name": "user-container", "image": "app", **container}
        return needs_preparation(revision(spec={"containers": [own], "volumes": volumes or []}).spec)

    assert not needs(env=[{"name": "A", "value": "x"}])
    assert not needs([{"name": "e", "emptyDir": {}}], volumeMounts=[{"name": "e", "mountPath": "/e"}])
    assert needs(env=[key_ref("secret", "s", "k")])
    assert needs(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}])
    assert needs(envFrom=[{"configMapRef": {"name": "c"}}])
    assert needs([{"name": "c", "configMap": {"name": "c"}}])
    assert needs([{"name": "d", "persistentVolumeClaim": {"claimName": "d"}}])
    assert needs([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}])


def test_every_object_that_a_revision_refers_to_is_listed() -> None:
    sources = [{"configMap": {"name": "c3"}}, {"secret": {"name": "s3"}}, {"serviceAccountToken": {"path": "t"}}]
    volumes = [
        {"name": "a", "configMap": {"name": "c2", "optional": True}},
        {"name": "b", "secret": {"secretName": "s2"}},
        {"name": "c", "projected": {"sources": sources}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "p"}},
    ]
    own = {
        "name": "app", "image": "app",
        "env": [key_ref("configMap", "c0", "k"), key_ref("secret", "s0", "k")],
        "envFrom": [{"configMapRef": {"name": "c1"}}, {"secretRef": {"name": "s1"}}],
    }  # fmt: skip
    made = revision(spec={"containers": [own], "volumes": volumes})
    assert references(made.spec) == {
        *(("configmaps", f"c{at}") for at in range(4)),
        *(("secrets", f"s{at}") for at in range(4)),
        ("persistentvolumeclaims", "p"),
        ("serviceaccounts", "default"),
    }
    assert has_token(made.spec.volumes[2])
    assert not has_token(made.spec.volumes[0])


def test_an_instance_that_is_taken_over_needs_none_of_its_sources() -> None:
    own = {"name": "user-container", "image": "app", "env": [key_ref("secret", "s", "k"), {"name": "B", "value": "x"}]}
    made = revision(spec={"containers": [own], "volumes": [{"name": "c", "configMap": {"name": "c"}}]})
    assert instance_spec(made, NAME).containers[0].env["B"] == "x"
