"""Paths, Accept headers, query parameters, metadata, tables and responses: tables of small rules."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http import csrf_guard
from api.wire import content_negotiation, metadata, options, paths, protobuf, status, tables
from api.wire.metadata import Place
from knoll.values import kinds
from knoll.values.errors import (
    AdmissionError,
    BadRequestError,
    ConflictError,
    FieldError,
    InvalidResourceError,
    KnollError,
    NotFoundError,
    UnsupportedMediaTypeError,
)
from knoll.values.json import Json


@pytest.mark.parametrize(
    ("path", "resource", "namespace", "name", "subresource"),
    [
        ("/api/v1/configmaps", "configmaps", "", "", ""),
        ("/api/v1/namespaces/ns/configmaps/c", "configmaps", "ns", "c", ""),
        ("/api/v1/namespaces", "namespaces", "", "", ""),
        ("/api/v1/namespaces/ns", "namespaces", "", "ns", ""),
        ("/api/v1/namespaces/ns/status", "namespaces", "", "ns", "status"),
        ("/api/v1/namespaces/ns/pods/p/log", "pods", "ns", "p", "log"),
        ("/api/v1/namespaces/ns/services/s/", "services", "ns", "s", ""),
        ("/apis/serving.knative.dev/v1/namespaces/ns/services/s", "services.serving.knative.dev", "ns", "s", ""),
        ("/apis/serving.knative.dev/v1alpha1/services", "services.serving.knative.dev", "", "", ""),
        ("/apis/serving.knative.dev/v1/namespaces/ns/services/s/status", "services.serving.knative.dev", "ns", "s",
        "status"),
    ],
)  # fmt: skip
def test_paths_name_what_they_are_about(path: str, resource: str, namespace: str, name: str, subresource: str) -> None:
    target = paths.parse(path)
    place = target.place
    assert (place.kind.id, place.namespace, place.name, target.subresource) == (resource, namespace, name, subresource)


@pytest.mark.parametrize(
    "path",
    [
        "/api", "/api/v1", "/api/v2/configmaps", "/api/v1/things", "/api/v1/configmaps/c", "/apis/serving.knative.dev",
        "/apis/serving.knative.dev/v1", "/apis/serving.knative.dev/v2/services",
        "/api/v1/namespaces/ns/configmaps/c/scale",
        "/api/v1/namespaces/ns/configmaps/c/status", "/api/v1/namespaces/ns/things", "/api/v1/namespaces//configmaps",
        "/apis/serving.knative.dev/v1/namespaces/ns", "/apis/serving.knative.dev/v1/namespaces/ns/services/s/status/x",
        "/api/v1/namespaces/ns/namespaces/x", "/apis//v1/configmaps",
    ],
)  # fmt: skip
def test_other_paths_lead_nowhere(path: str) -> None:
    with pytest.raises(NotFoundError):
        paths.parse(path)


@given(
    st.lists(
        st.sampled_from(
            ["api", "apis", "v1", "namespaces", "ns", "services", "serving.knative.dev", "", "x", "status"]
        ),
        max_size=9,
    )
)
def test_any_path_is_parsed_or_not_found(parts: list[str]) -> None:
    with suppress(NotFoundError):
        paths.parse("/" + "/".join(parts))


TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("accept", "shape", "version"),
    [
        ("", "plain", "v1"), ("*/*", "plain", "v1"), ("application/json", "plain", "v1"), (TABLE, "table", "v1"),
        (f"{TABLE},{TABLE.replace('v=v1', 'v=v1beta1')},application/json", "table", "v1"),
        (TABLE.replace("v=v1", "v=v1beta1"), "table", "v1beta1"),
        (TABLE.replace("v=v1", "v=v7") + ",application/json", "plain", "v1"),
        ("application/vnd.kubernetes.protobuf,application/json", "plain", "v1"),
        (f"application/json;q=0.1,{TABLE};q=0.9", "table", "v1"), ("text/html, */*;q=0.1", "plain", "v1"),
    ],
)  # fmt: skip
def test_the_first_form_that_is_served_is_taken(accept: str, shape: str, version: str) -> None:
    form = content_negotiation.form(accept)
    assert (form.shape, form.version) == (shape, version)


def test_forms_that_are_not_served_are_refused() -> None:
    for accept in (
        "text/html",
        "application/vnd.kubernetes.protobuf",
        "application/json;as=Nothing;v=v1;g=meta.k8s.io",
    ):
        with pytest.raises(content_negotiation.NotAcceptableError):
            content_negotiation.form(accept)
    assert content_negotiation.form("application/yaml").yaml


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (119, "119s"), (120, "2m"), (121, "2m1s"), (599, "9m59s"), (600, "10m"), (10799, "179m"),
        (10800, "3h"), (18060, "5h1m"), (28800, "8h"), (172799, "47h"), (172800, "2d"), (180000, "2d2h"),
        (86400 * 8, "8d"), (86400 * 729, "729d"), (86400 * 730, "2y"), (86400 * 1000, "2y270d"), (86400 * 3650,
        "10y"), (-5, "0s"),
    ],
)  # fmt: skip
def test_ages_read_as_kubectl_writes_them(seconds: int, text: str) -> None:
    assert tables.age("2026-01-01T00:00:00Z", 1767225600 + seconds) == text


def test_an_unknown_age_is_shown_as_such() -> None:
    assert tables.age(None, 0) == tables.age("soon", 0) == "<unknown>"


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.id)
def test_every_kind_has_a_row_even_when_it_is_nearly_empty(kind: kinds.Kind) -> None:
    row = tables.row(kind, {"metadata": {"name": "x"}}, 0)
    assert len(row["cells"]) == len(tables.definitions(kind))
    assert "x" in row["cells"]


@pytest.mark.parametrize(
    "query",
    [
        {"dryRun": "Some"}, {"fieldValidation": "Maybe"}, {"fieldManager": "x" * 129}, {"fieldManager": "a\nb"},
        {"force": "true"}, {"force": "perhaps"},
    ],
)  # fmt: skip
def test_write_options_that_make_no_sense_are_refused(query: Json) -> None:
    with pytest.raises(BadRequestError):
        options.write_options(query)


def test_a_manager_is_the_clients_name_where_none_is_given() -> None:
    assert options.write_options({}, "kubectl/v1.32 (linux)").manager == "kubectl"
    assert options.write_options({}).manager == "unknown"


@pytest.mark.parametrize(
    ("query", "body", "propagation"),
    [
        ({}, None, "Background"), ({"propagationPolicy": "Foreground"}, None, "Foreground"),
        ({}, {"propagationPolicy": "Orphan"}, "Orphan"), ({}, {"orphanDependents": True}, "Orphan"),
        ({"orphanDependents": "true"}, {}, "Orphan"),
    ],
)  # fmt: skip
def test_deletions_propagate_as_asked(query: Json, body: Json | None, propagation: str) -> None:
    assert options.delete_options(query, body).propagation == propagation


@pytest.mark.parametrize(
    "body",
    [
        {"propagationPolicy": "Sideways"}, {"propagationPolicy": 7}, {"preconditions": []},
        {"preconditions": {"uid": 1}},
        {"dryRun": "All"}, {"dryRun": ["Some"]},
    ],
)  # fmt: skip
def test_delete_options_that_make_no_sense_are_refused(body: Json) -> None:
    with pytest.raises(BadRequestError):
        options.delete_options({}, body)


@given(st.integers(0, 2**53), st.text(max_size=20))
def test_a_continue_token_reads_back(version: int, after: str) -> None:
    list_options = options.list_options({"continue": options.make_token(version, after), "limit": "5"}, "services")
    assert (list_options.version, list_options.after, list_options.limit) == (version, after, 5)


@given(st.text(max_size=30))
def test_any_continue_token_is_read_or_refused(token: str) -> None:
    with suppress(BadRequestError):
        options.list_options({"continue": token}, "services")


PLACE = Place(kinds.CONFIG_MAP, "v1", "ns")


def config(**more: Any) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", **more}}


def made(**more: Any) -> Json:
    return metadata.for_create(config(**more), PLACE, now=0, uid="u", suffix="abcde")


@pytest.mark.parametrize(
    "more",
    [
        {"name": ""}, {"name": "Upper"}, {"name": "-x"}, {"name": "a" * 254}, {"name": 7}, {"name": "a/b"},
        {"labels": []},
        {"labels": {"a b": "c"}}, {"labels": {"a": "b c"}}, {"labels": {"a": "x" * 64}}, {"labels": {"a": 1}},
        {"labels": {"/a": ""}},
        {"annotations": {"a": 1}}, {"annotations": {"a": "x" * 300_000}}, {"annotations": "x"}, {"finalizers": "x"},
        {"finalizers": ["a b"]}, {"ownerReferences": [{}]}, {"ownerReferences": {}}, {"ownerReferences": ["x"]},
    ],
)  # fmt: skip
def test_invalid_metadata_is_refused(more: Json) -> None:
    with pytest.raises(InvalidResourceError):
        made(**more)


@pytest.mark.parametrize("more", [{"resourceVersion": "1"}, {"namespace": "other"}])
def test_metadata_of_another_place_or_time_is_refused(more: Json) -> None:
    with pytest.raises(BadRequestError):
        made(**more)


def test_noise_in_metadata_goes() -> None:
    cleaned = made(labels={}, annotations=None, creationTimestamp=None, selfLink="x", managedFields=[{}])["metadata"]
    assert cleaned == {
        "name": "c", "namespace": "ns", "uid": "u", "creationTimestamp": "1970-01-01T00:00:00Z", "generation": 1
    }  # fmt: skip


@given(st.integers(0, 2**64))
def test_a_suffix_is_five_letters_without_vowels(number: int) -> None:
    suffix = metadata.suffix_from(number)
    assert len(suffix) == metadata.SUFFIX_LENGTH
    assert not set(suffix) & set("aeiou013")


def test_statuses_read_as_kubernetes_writes_them() -> None:
    subject = status.Subject(kinds.SERVICE, "hello")
    not_found = status.failure(NotFoundError('services.serving.knative.dev "hello" not found'), subject)
    assert not_found == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404,
        "message": 'services.serving.knative.dev "hello" not found',
        "details": {"name": "hello", "group": "serving.knative.dev", "kind": "services"},
    }  # fmt: skip
    invalid = status.failure(InvalidResourceError([FieldError("Required value", ("spec.a",))]), subject)
    assert invalid["message"] == 'Service.serving.knative.dev "hello" is invalid: Required value: spec.a'
    assert invalid["details"]["causes"] == [
        {"reason": "FieldValueInvalid", "message": "Required value: spec.a", "field": "spec.a"}
    ]
    admission = status.failure(AdmissionError([FieldError("must not set the field(s)", ("spec.a",))]), subject)
    assert (admission["code"], admission["reason"]) == (400, "BadRequest")
    assert "denied the request: validation failed: must not set the field(s): spec.a" in admission["message"]


@pytest.mark.parametrize("error", [ConflictError("x"), BadRequestError("y"), KnollError()])
def test_every_error_has_a_status_with_its_code(error: KnollError) -> None:
    failure = status.failure(error)
    assert failure["code"] == error.code
    assert failure["message"]
    assert "details" not in failure


def envelope(api_version: str, kind: str, content: bytes) -> bytes:
    def field(number: int, inner: bytes) -> bytes:
        return bytes([number << 3 | 2, len(inner)]) + inner

    return protobuf.MAGIC + field(1, field(1, api_version.encode()) + field(2, kind.encode())) + field(2, content)


def test_protobuf_bodies_become_json() -> None:
    # metadata {name: "c"}, data {"a": "b"}, binaryData {"x": 0x00 0x01}, immutable: true
    content = b"\x0a\x03\x0a\x01c" + b"\x12\x06\x0a\x01a\x12\x01b" + b"\x1a\x07\x0a\x01x\x12\x02\x00\x01" + b"\x20\x01"
    assert protobuf.decode(envelope("v1", "ConfigMap", content)) == {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"},
        "binaryData": {"x": "AAE="}, "immutable": True,
    }  # fmt: skip
    options_body = b"\x12\x03\x0a\x01u" + b"\x22\x0aForeground" + b"\x2a\x03All"
    decoded = protobuf.decode(envelope("apps/v1", "DeleteOptions", options_body))
    assert decoded["preconditions"] == {"uid": "u"}
    assert decoded["propagationPolicy"] == "Foreground"
    assert decoded["dryRun"] == ["All"]


def test_protobuf_of_other_kinds_and_broken_protobuf_are_refused() -> None:
    with pytest.raises(UnsupportedMediaTypeError, match="Deployment"):
        protobuf.decode(envelope("apps/v1", "Deployment", b""))
    for broken in (b"", b"k8s", b"k8s\x00\xff", b"k8s\x00\x0a\x7f", envelope("v1", "ConfigMap", b"\x0a\x01\x80")):
        with pytest.raises((BadRequestError, UnsupportedMediaTypeError)):
            protobuf.decode(broken)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1:8001", True),
        ("127.0.0.1", True),
        ("[::1]:8001", True),
        ("[::1]", True),
        ("192.168.1.2:8001", True),
        ("localhost:8001", True),
        ("LOCALHOST.", True),
        ("knoll.localhost:8001", True),
        ("mybox:8001", True),
        ("MyBox", True),
        ("api:8001", False),
        ("wpad", False),
        ("", True),
        ("evil.example.com:8001", False),
        ("127.0.0.1.evil.example.com", False),
        ("localhost.evil.example.com:8001", False),
        ("notlocalhost.example", False),
        ("127.0.0.1@evil.example.com", False),
        ("[::1", False),
        ("0x7f.1", False),
    ],
)
def test_only_host_names_of_this_machine_are_its_own(host: str, own: bool) -> None:
    assert csrf_guard.is_own_name(host, "MyBox") is own


@given(st.text())
def test_any_host_is_an_own_name_or_none(host: str) -> None:
    assert csrf_guard.is_own_name(host) in (True, False)
