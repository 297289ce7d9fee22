"""Configurations, Routes, Revisions, DomainMappings and claims: what a client writes becomes what is stored."""

import copy

import pytest

from knoll.values import kinds
from knoll.values.json import Json
from tests.unit.knoll.resources.admission.admitting import (
    CREATOR,
    MODIFIER,
    create,
    object_of,
    refused,
    update,
)

TEMPLATE = {"template": {"spec": {"containers": [{"image": "a"}]}}}


def test_a_configuration_is_defaulted_and_checked() -> None:
    stored = create(object_of(kinds.CONFIGURATION, TEMPLATE), kinds.CONFIGURATION)
    assert stored["spec"]["template"]["spec"]["timeoutSeconds"] == 300
    assert stored["metadata"]["annotations"] == {CREATOR: "ann", MODIFIER: "ann"}
    assert update(stored, object_of(kinds.CONFIGURATION, TEMPLATE), kinds.CONFIGURATION) == stored
    bad = object_of(kinds.CONFIGURATION, {}, labels={"serving.knative.dev/service": "absent"})
    assert refused(create, bad, kinds.CONFIGURATION) == [
        "missing field(s): metadata.labels.serving.knative.dev/service, spec.template.spec.containers"
    ]


def test_a_route_is_defaulted_and_checked() -> None:
    spec = {"traffic": [{"configurationName": "hello", "percent": 100}]}
    stored = create(object_of(kinds.ROUTE, spec), kinds.ROUTE)
    assert stored["spec"]["traffic"] == [{"configurationName": "hello", "latestRevision": True, "percent": 100}]
    assert update(stored, object_of(kinds.ROUTE, spec), kinds.ROUTE) == stored
    bad = object_of(kinds.ROUTE, spec, annotations={"serving.knative.dev/rollout-duration": "1.5s"})
    assert refused(create, bad, kinds.ROUTE) == [
        "rolloutDuration=1.5s is not at second precision: metadata.annotations.serving.knative.dev/rollout-duration"
    ]


def _revision() -> Json:
    return object_of(kinds.REVISION, {"containers": [{"image": "a"}]}, name="hello-00001")


def test_a_revisions_spec_never_changes_and_its_metadata_may() -> None:
    stored = create(_revision(), kinds.REVISION)
    assert "annotations" not in stored["metadata"]
    new = copy.deepcopy(stored)
    new["metadata"]["annotations"] = {"autoscaling.knative.dev/min-scale": "2"}
    assert update(stored, new, kinds.REVISION)["metadata"]["generation"] == 1
    new["spec"]["timeoutSeconds"] = 5
    assert refused(update, stored, new, kinds.REVISION) == [
        "Immutable fields changed (-old +new): spec\nspec.timeoutSeconds:\n\t-: 300\n\t+: 5"
    ]


def test_a_revisions_annotations_are_checked_when_they_change() -> None:
    stored = create(_revision(), kinds.REVISION)
    new = copy.deepcopy(stored)
    new["metadata"]["annotations"] = {"autoscaling.knative.dev/min-scale": "x"}
    assert refused(update, stored, new, kinds.REVISION) == [
        "invalid value: x: metadata.annotations.autoscaling.knative.dev/min-scale"
    ]


REF = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello"}


def test_a_domain_mapping_refers_to_its_own_namespace() -> None:
    body = object_of(kinds.DOMAIN_MAPPING, {"ref": REF}, name="www.example.com")
    stored = create(body, kinds.DOMAIN_MAPPING)
    assert stored["spec"]["ref"] == {**REF, "namespace": "default"}
    assert stored["metadata"]["annotations"] == {CREATOR: "ann", MODIFIER: "ann"}
    assert update(stored, body, kinds.DOMAIN_MAPPING) == stored


MAPPINGS: list[tuple[str, Json, Json, str]] = [
    ("no ref", {}, {"name": "a.b"}, "missing field(s): spec.ref.apiVersion, spec.ref.kind, spec.ref.name"),
    (
        "another namespace",
        {"ref": {**REF, "namespace": "other"}},
        {"name": "a.b"},
        'mismatched namespaces: spec.ref.namespace\nparent namespace: "default" does not match ref: "other"',
    ),
    ("one segment", {"ref": REF}, {"name": "abc"}, 'invalid name "abc": should be a domain with at least two segments'),
    (
        "a local domain",
        {"ref": REF},
        {"name": "a.b.svc.cluster.local"},
        'invalid name "a.b.svc.cluster.local": must not be a subdomain of cluster local domain "cluster.local"',
    ),
    (
        "a short local domain",
        {"ref": REF},
        {"name": "a.b.svc"},
        'invalid name "a.b.svc": must not be a subdomain of cluster local domain "svc"',
    ),
    (
        "the API server",
        {"ref": REF},
        {"name": "kubernetes.default.svc"},
        'invalid name "kubernetes.default.svc": must not be a subdomain',
    ),
    ("an address", {"ref": REF}, {"name": "127.0.0.1"}, 'invalid name "127.0.0.1": must not be an IP address'),
    ("an address in hexadecimal", {"ref": REF}, {"name": "127.0x1"}, 'invalid name "127.0x1": must not be an IP'),
    (
        "the host of a Service",
        {"ref": REF},
        {"name": "shop.sec-b.localhost"},
        'invalid name "shop.sec-b.localhost": must not be a host that a Route has or could have',
    ),
    (
        "the host of a tag",
        {"ref": REF},
        {"name": "v1-shop.default.localhost"},
        'invalid name "v1-shop.default.localhost": must not be a host that a Route has or could have',
    ),
    ("a name that is no host", {"ref": REF}, {"name": "A.b"}, 'invalid name "A.b": a lowercase RFC 1123 subdomain'),
    (
        "a generated name",
        {"ref": REF},
        {"name": "a.b", "generateName": "c"},
        "must not set the field(s): metadata.generateName",
    ),
    ("tls without secret", {"ref": REF, "tls": {}}, {"name": "a.b"}, "missing field(s): spec.tls.secretName"),
]


@pytest.mark.parametrize(("spec", "meta", "start"), [row[1:] for row in MAPPINGS], ids=[row[0] for row in MAPPINGS])
def test_invalid_domain_mappings_are_refused(spec: Json, meta: Json, start: str) -> None:
    (problem,) = refused(create, object_of(kinds.DOMAIN_MAPPING, spec, **meta), kinds.DOMAIN_MAPPING)
    assert problem.startswith(start)


def test_a_claim_needs_a_namespace() -> None:
    claim = {"metadata": {"name": "www.example.com"}, "spec": {}, "kind": "ClusterDomainClaim"}
    body = {**claim, "apiVersion": kinds.CLUSTER_DOMAIN_CLAIM.api_version}
    assert refused(create, body, kinds.CLUSTER_DOMAIN_CLAIM) == ["missing field(s): spec.namespace"]
    stored = create({**body, "spec": {"namespace": "default"}}, kinds.CLUSTER_DOMAIN_CLAIM)
    assert stored["spec"] == {"namespace": "default"}
