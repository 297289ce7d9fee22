import copy

import pytest
from hypothesis import given

from knoll.resources.admission.conversion import converted
from knoll.values import kinds
from knoll.values.errors import BadRequestError
from knoll.values.json import Json
from tests.strategies import services


def _service(spec: Json, version: str = "v1alpha1") -> Json:
    return {"apiVersion": f"serving.knative.dev/{version}", "kind": "Service", "metadata": {"name": "a"}, "spec": spec}


TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"image": "x"}], "containerConcurrency": 1}}
OLD = {
    "revisionTemplate": {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"container": {"image": "x"}, "concurrencyModel": "Single"},
    }
}
LATEST = [{"latestRevision": True, "percent": 100}]

SPECS: list[tuple[str, Json, Json]] = [
    ("the form of v1", {"template": TEMPLATE, "traffic": LATEST}, {"template": TEMPLATE, "traffic": LATEST}),
    ("runLatest", {"runLatest": {"configuration": OLD}}, {"template": TEMPLATE, "traffic": LATEST}),
    (
        "pinned",
        {"pinned": {"revisionName": "a-1", "configuration": OLD}},
        {"template": TEMPLATE, "traffic": [{"revisionName": "a-1", "percent": 100}]},
    ),
    (
        "release of one",
        {"release": {"revisions": ["a-1"], "configuration": OLD}},
        {
            "template": TEMPLATE,
            "traffic": [
                {"revisionName": "a-1", "tag": "current", "percent": 100},
                {"latestRevision": True, "tag": "latest", "percent": 0},
            ],
        },
    ),
    (
        "release of two",
        {"release": {"revisions": ["a-1", "@latest"], "rolloutPercent": 20, "configuration": OLD}},
        {
            "template": TEMPLATE,
            "traffic": [
                {"revisionName": "a-1", "tag": "current", "percent": 80},
                {"latestRevision": True, "tag": "candidate", "percent": 20},
                {"latestRevision": True, "tag": "latest", "percent": 0},
            ],
        },
    ),
    (
        "one container",
        {"template": {"spec": {"container": {"image": "x"}, "servingState": "Active"}}, "generation": 3},
        {"template": {"spec": {"containers": [{"image": "x"}]}}},
    ),
    (
        "traffic by name",
        {"template": TEMPLATE, "traffic": [{"name": "v1", "revisionName": "a-1", "percent": 100}]},
        {"template": TEMPLATE, "traffic": [{"tag": "v1", "revisionName": "a-1", "percent": 100}]},
    ),
    ("what is not an object", {"template": 5, "traffic": "x"}, {"template": 5, "traffic": "x"}),
]


@pytest.mark.parametrize(("spec", "converted_spec"), [row[1:] for row in SPECS], ids=[row[0] for row in SPECS])
def test_older_services_become_v1(spec: Json, converted_spec: Json) -> None:
    body = _service(spec)
    before = copy.deepcopy(body)
    assert converted(kinds.SERVICE, body) == {**_service(converted_spec), "apiVersion": "serving.knative.dev/v1"}
    assert body == before


def test_older_configurations_revisions_and_routes_become_v1() -> None:
    def spec_of(kind: kinds.Kind, spec: Json) -> Json:
        body = {"apiVersion": "serving.knative.dev/v1alpha1", "kind": kind.kind, "spec": spec}
        return dict(converted(kind, body)["spec"])

    assert spec_of(kinds.CONFIGURATION, OLD) == {"template": TEMPLATE}
    assert spec_of(kinds.REVISION, {"container": {"image": "x"}, "concurrencyModel": "Multi"}) == {
        "containers": [{"image": "x"}]
    }
    assert spec_of(kinds.ROUTE, {"traffic": [{"name": "a", "percent": 100}]}) == {
        "traffic": [{"tag": "a", "percent": 100}]
    }


def test_newer_versions_keep_what_only_the_oldest_meant() -> None:
    spec = {"runLatest": {}, "template": TEMPLATE}
    assert converted(kinds.SERVICE, _service(spec, "v1"))["spec"] == spec
    assert converted(kinds.SERVICE, _service(spec, "v1beta1"))["spec"] == spec


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("serving.knative.dev/v2", "Service"),
        ("v1", "Service"),
        ("serving.knative.dev/v1", "Route"),
        (None, None),
        (1, 2),
    ],
)
def test_other_kinds_and_versions_are_refused(api_version: object, kind: object) -> None:
    with pytest.raises(BadRequestError, match=r"expected kind Service of serving.knative.dev/v1 or"):
        converted(kinds.SERVICE, {"apiVersion": api_version, "kind": kind})


@given(services())
def test_manifests_in_the_form_of_v1_pass_unchanged(body: Json) -> None:
    assert converted(kinds.SERVICE, body) == {**body, "apiVersion": "serving.knative.dev/v1"}
