"""What a client writes becomes what is stored; the rules of each kind by way of it."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from knoll.config.defaults import DefaultsConfig
from knoll.config.platform import PlatformConfig
from knoll.resources.admission.admit import admit_create, admit_status, admit_update, handles, unknown_fields
from knoll.values import kinds
from knoll.values.errors import AdmissionError, BadRequestError, InvalidResourceError
from knoll.values.json import Json
from knoll.values.kinds import Kind
from tests.strategies import services

CONFIG = PlatformConfig()
NOW = 1_000_000_000
CREATOR, MODIFIER = "serving.knative.dev/creator", "serving.knative.dev/lastModifier"
PREFIX = 'admission webhook "validation.webhook.serving.knative.dev" denied the request: validation failed: '


def _create(body: Json, kind: Kind = kinds.SERVICE, *, user: str = "ann", config: PlatformConfig = CONFIG) -> Json:
    return admit_create(kind, body, user=user, now=NOW, uid="u-1", name_suffix="x7k2p", config=config)


def _update(
    old: Json, new: Json, kind: Kind = kinds.SERVICE, *, user: str = "bob", config: PlatformConfig = CONFIG
) -> Json:
    return admit_update(kind, old, new, user=user, now=NOW + 60, config=config)


def _refused(call: Any, *arguments: Any, **options: Any) -> list[str]:
    with pytest.raises((AdmissionError, InvalidResourceError)) as caught:
        call(*arguments, **options)
    return [str(cause) for cause in getattr(caught.value, "causes")]  # noqa: B009  # of both


def _object(kind: Kind, spec: Json | None, **metadata: Any) -> Json:
    meta = {"name": "hello", "namespace": "default", **metadata}
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "spec": spec}
    return {key: value for key, value in body.items() if value is not None}


def _service(image: str = "app:v1", name: str = "", traffic: list[Json] | None = None, **metadata: Any) -> Json:
    template: Json = {"spec": {"containers": [{"image": image}]}}
    if name:
        template["metadata"] = {"name": name}
    spec: Json = {"template": template}
    if traffic is not None:
        spec["traffic"] = traffic
    return _object(kinds.SERVICE, spec, **metadata)


def test_a_new_service_is_stored_with_all_its_defaults() -> None:
    assert _create(_service()) == yaml.safe_load("""
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: hello
  namespace: default
  uid: u-1
  generation: 1
  creationTimestamp: "2001-09-09T01:46:40Z"
  annotations: {serving.knative.dev/creator: ann, serving.knative.dev/lastModifier: ann}
spec:
  template:
    metadata: {}
    spec:
      containerConcurrency: 0
      timeoutSeconds: 300
      enableServiceLinks: false
      containers:
      - name: user-container
        image: "app:v1"
        resources: {}
        readinessProbe: {successThreshold: 1, tcpSocket: {port: 0}}
  traffic:
  - {latestRevision: true, percent: 100}
""")


ARTICLE = """
apiVersion: serving.knative.dev/v1alpha1
kind: Service
metadata:
  name: stock-service-example
  namespace: default
spec:
  template:
    metadata:
      name: stock-service-example-%s
    spec:
      containers:
      - image: registry.cn-hangzhou.aliyuncs.com/knative-sample/rest-api-go:v1
        env:
        - name: RESOURCE
          value: %s
        readinessProbe:
          httpGet:
            path: /
          initialDelaySeconds: 0
          periodSeconds: 3
"""
SHARES = """
  traffic:
  - {tag: v1, revisionName: stock-service-example-v1, percent: 40}
  - {tag: v2, revisionName: stock-service-example-v2, percent: 30}
  - {tag: v3, revisionName: stock-service-example-v3, percent: 30}
  - {tag: latest, latestRevision: true, percent: 0}
"""


def _article(version: str, traffic: str = "") -> Json:
    manifest: Json = yaml.safe_load(ARTICLE % (version, version) + traffic)
    return manifest


def test_the_walkthrough_of_a_gradual_release_is_admitted_step_by_step() -> None:
    first = _create(_article("v1"))
    assert first["apiVersion"] == "serving.knative.dev/v1"
    second = _update(first, _article("v2", SHARES.replace("40", "50").replace("30", "25")))
    third = _update(second, _article("v3"))
    assert third["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]
    fourth = _update(third, _article("v3", SHARES))
    assert [target["percent"] for target in fourth["spec"]["traffic"]] == [40, 30, 30, 0]
    assert [body["metadata"]["generation"] for body in (first, second, third, fourth)] == [1, 2, 3, 4]
    assert fourth["spec"]["template"] == third["spec"]["template"]


def test_a_manifest_that_is_applied_again_changes_nothing() -> None:
    stored = _create(_article("v1"))
    assert _update(stored, _article("v1")) == stored
    assert _update(stored, stored) == stored


@given(services())
def test_every_valid_service_is_admitted_and_admitted_again_unchanged(body: Json) -> None:
    given_body = copy.deepcopy(body)
    stored = _create(body)
    assert _update(stored, stored) == stored
    assert _update(stored, body) == stored
    assert body == given_body
    assert unknown_fields(kinds.SERVICE, body) == []


@given(services(), st.sampled_from(["image", "timeoutSeconds", "label", "nothing"]))
def test_the_generation_counts_changes_of_the_spec_and_nothing_else(body: Json, change: str) -> None:
    stored = _create(body)
    new = copy.deepcopy(stored)
    template = new["spec"]["template"]
    if change == "image":
        template["spec"]["containers"][0]["image"] += (
            "x" if "@" not in template["spec"]["containers"][0]["image"] else ""
        )
        template["spec"]["containers"][0]["workingDir"] = "/elsewhere"
    elif change == "timeoutSeconds":
        template["spec"]["timeoutSeconds"] = template["spec"]["timeoutSeconds"] % 600 + 1
        for name in ("responseStartTimeoutSeconds", "idleTimeoutSeconds"):
            template["spec"].pop(name, None)
    elif change == "label":
        new["metadata"]["labels"] = {"new": "label"}
    if "name" in template["metadata"] and change in ("image", "timeoutSeconds"):
        template["metadata"]["name"] += "x"
    after = _update(stored, new)
    changed = change in ("image", "timeoutSeconds")
    assert after["metadata"]["generation"] == 1 + changed
    assert after["metadata"]["annotations"][CREATOR] == "ann"
    assert after["metadata"]["annotations"][MODIFIER] == ("bob" if changed else "ann")


def test_a_name_is_made_from_its_prefix() -> None:
    body = _service(generateName="job-")
    del body["metadata"]["name"]
    stored = _create(body)
    assert stored["metadata"]["name"] == "job-x7k2p"
    assert stored["metadata"]["generateName"] == "job-"
    body["metadata"]["generateName"] = "j" * 70
    assert "not a DNS 1035 label prefix" in _refused(_create, body)[0]


def test_a_revision_cannot_be_named_before_its_service_is() -> None:
    body = _service(name="job-1", generateName="job-")
    del body["metadata"]["name"]
    assert _refused(_create, body) == ["must not set the field(s): spec.template.metadata.name"]


def test_what_the_server_owns_cannot_be_written() -> None:
    body = _service()
    body["metadata"] |= {
        "uid": "mine", "generation": 77, "creationTimestamp": "1999-01-01T00:00:00Z", "resourceVersion": "5",
        "deletionTimestamp": "1999-01-01T00:00:00Z", "selfLink": "/x",
        "annotations": {CREATOR: "mallory", MODIFIER: "mallory", "a": "b"},
    }  # fmt: skip
    body["status"] = {"url": "http://mine"}
    stored = _create(body)
    assert stored["metadata"] == {
        "name": "hello", "namespace": "default", "uid": "u-1", "generation": 1,
        "creationTimestamp": "2001-09-09T01:46:40Z", "annotations": {CREATOR: "ann", MODIFIER: "ann", "a": "b"},
    }  # fmt: skip
    assert "status" not in stored
    stored = {**stored, "status": {"url": "http://ours"}}
    stored["metadata"] = {**stored["metadata"], "resourceVersion": "9"}
    body["metadata"]["annotations"] = {CREATOR: "ann", MODIFIER: "ann", "a": "b"}
    after = _update(stored, {**body, "metadata": {**body["metadata"], "name": "other", "namespace": "elsewhere"}})
    assert after["status"] == {"url": "http://ours"}
    assert after["metadata"] == {**stored["metadata"], "resourceVersion": "5"}


def test_an_update_without_a_resource_version_goes_on_from_the_stored_one() -> None:
    stored = _create(_service())
    stored["metadata"]["resourceVersion"] = "9"
    assert _update(stored, _service(labels={"a": "b"}))["metadata"]["resourceVersion"] == "9"


def test_who_made_an_object_cannot_be_changed() -> None:
    stored = _create(_service())
    new = copy.deepcopy(stored)
    new["metadata"]["annotations"][CREATOR] = "mallory"
    assert _refused(_update, stored, new) == [f"annotation value is immutable: metadata.annotations.{CREATOR}"]


def test_who_changed_an_object_last_cannot_be_written_without_a_change() -> None:
    stored = _create(_service())
    new = copy.deepcopy(stored)
    new["metadata"]["annotations"][MODIFIER] = "mallory"
    assert _refused(_update, stored, new) == [f"invalid value: mallory: metadata.annotations.{MODIFIER}"]


def test_a_manifest_that_leaves_its_authors_out_keeps_them() -> None:
    stored = _create(_service())
    assert _update(stored, _service("app:v2"))["metadata"]["annotations"] == {CREATOR: "ann", MODIFIER: "bob"}


def test_objects_of_an_owner_have_its_authors() -> None:
    owner = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello", "uid": "s"}
    body = _object(
        kinds.CONFIGURATION, {"template": {"spec": {"containers": [{"image": "a"}]}}}, ownerReferences=[owner],
        annotations={CREATOR: "zoe", MODIFIER: "zoe"}, labels={"serving.knative.dev/service": "hello"},
    )  # fmt: skip
    stored = _create(body, kinds.CONFIGURATION)
    assert stored["metadata"]["annotations"] == {CREATOR: "zoe", MODIFIER: "zoe"}
    new = copy.deepcopy(stored)
    new["metadata"]["annotations"][MODIFIER] = "yan"
    assert _update(stored, new, kinds.CONFIGURATION)["metadata"]["annotations"][MODIFIER] == "yan"


def test_a_changed_template_needs_a_new_revision_name() -> None:
    stored = _create(_service("app:v1", "hello-a"))
    assert _refused(_update, stored, _service("app:v2", "hello-a")) == [
        "Saw the following changes without a name change (-old +new): spec.template.metadata.name\n"
        'spec.containers[0].image:\n\t-: "app:v1"\n\t+: "app:v2"'
    ]
    assert _update(stored, _service("app:v2", "hello-b"))["metadata"]["generation"] == 2
    assert _update(stored, _service("app:v2"))["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("other-1", 'invalid value: "other-1" must have prefix "hello-": spec.template.metadata.name'),
        ("hello", 'invalid value: "hello" must have prefix "hello-": spec.template.metadata.name'),
    ],
)
def test_a_revision_is_named_after_its_service(name: str, problem: str) -> None:
    assert _refused(_create, _service(name=name)) == [problem]


@pytest.mark.parametrize("name", ["hello-A", "hello-", "hello.1"])
def test_a_revisions_name_must_be_a_label(name: str) -> None:
    (problem,) = _refused(_create, _service(name=name))
    assert problem.startswith("invalid value: not a DNS 1035 label: [")


def test_new_defaults_leave_an_unchanged_template_alone() -> None:
    stored = _create(_service("app:v1", "hello-a"))
    config = PlatformConfig(defaults=DefaultsConfig(revision_timeout_seconds=20))
    new = {**copy.deepcopy(stored)}
    new["metadata"]["labels"] = {"a": "b"}
    assert _update(stored, new, config=config)["spec"] == stored["spec"]


LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def _applied(version: str, traffic: str = "") -> Json:
    """The article's manifest as kubectl sends it."""
    body = _article(version, traffic)
    body["metadata"]["annotations"] = {LAST_APPLIED: json.dumps(body)}
    return body


NEW_DEFAULTS = PlatformConfig(defaults=DefaultsConfig(revision_timeout_seconds=20))


def test_traffic_can_be_moved_by_an_old_manifest_after_the_defaults_changed() -> None:
    stored = _create(_applied("v3"))
    after = _update(stored, _applied("v3", SHARES), config=NEW_DEFAULTS)
    assert after["spec"]["template"] == stored["spec"]["template"]
    assert len(after["spec"]["traffic"]) == 4


@pytest.mark.parametrize("change", ["patched", "applied", "not by kubectl"])
def test_a_changed_template_is_not_taken_for_an_old_one(change: str) -> None:
    stored = _create(_applied("v3"))
    new = _applied("v3")
    container = new["spec"]["template"]["spec"]["containers"][0]
    if change == "patched":
        container["image"] = "other"
    elif change == "applied":
        container["image"] = "other"
        new["metadata"]["annotations"][LAST_APPLIED] = json.dumps(new)
    else:
        stored["metadata"]["annotations"].pop(LAST_APPLIED)
        new["metadata"]["annotations"][LAST_APPLIED] = "{not json"
    problems = _refused(_update, stored, new, config=NEW_DEFAULTS)
    assert problems[0].startswith("Saw the following changes without a name change")


def test_all_problems_are_named_at_once() -> None:
    body = _service("Not An Image", traffic=[{"percent": 10}], labels={"serving.knative.dev/x": "y"})
    body["spec"]["template"]["spec"]["timeoutSeconds"] = 9999
    problems = _refused(_create, body)
    assert [text.partition("\n")[0] for text in problems] == [
        "Failed to parse image reference: spec.template.spec.containers[0].image",
        "Traffic targets sum to 10, want 100: spec.traffic",
        "expected 0 <= 9999 <= 600: spec.template.spec.timeoutSeconds",
        'invalid key name "serving.knative.dev/x": metadata.labels',
    ]


def test_the_refusal_of_knative_kinds_is_the_webhooks() -> None:
    with pytest.raises(AdmissionError) as caught:
        _create(_service(traffic=[{"percent": 99}]))
    assert caught.value.code == 400
    assert str(caught.value) == PREFIX + "Traffic targets sum to 99, want 100: spec.traffic"


def test_values_of_wrong_types_are_refused_in_the_same_form() -> None:
    body = _service()
    body["spec"]["traffic"] = "all"
    assert _refused(_create, body) == ["invalid value: 'all': spec.traffic\nmust be a list, not a string"]


def test_other_kinds_and_versions_are_refused() -> None:
    with pytest.raises(BadRequestError, match="expected kind Route"):
        _create(_service(), kinds.ROUTE)


def test_unknown_fields_are_named_and_not_stored() -> None:
    body = _service()
    body["spec"]["template"]["spec"]["containers"][0]["foo"] = 1
    assert unknown_fields(kinds.SERVICE, body) == ["spec.template.spec.containers[0].foo"]
    assert _create(body) == _create(_service())


def test_an_object_that_is_being_deleted_can_lose_its_finalizers_whatever_else() -> None:
    stored = _create(_service())
    stored["metadata"] |= {"deletionTimestamp": "2001-09-09T01:46:40Z", "finalizers": ["a/b"]}
    stored["spec"]["traffic"] = []
    new = copy.deepcopy(stored)
    del new["metadata"]["finalizers"]
    after = _update(stored, new)
    assert "finalizers" not in after["metadata"]
    assert after["metadata"]["deletionTimestamp"] == "2001-09-09T01:46:40Z"


def test_a_write_to_the_status_changes_nothing_else() -> None:
    stored = _create(_service())
    new = _service("other:v2", labels={"a": "b"}, resourceVersion="7")
    new["status"] = {"url": "http://a", "observedGeneration": 1}
    after = admit_status(kinds.SERVICE, stored, new)
    assert after == {**stored, "status": new["status"], "metadata": {**stored["metadata"], "resourceVersion": "7"}}


def test_a_status_of_wrong_types_is_refused() -> None:
    stored = _create(_service())
    new = {**stored, "status": {"observedGeneration": "one"}}
    assert _refused(admit_status, kinds.SERVICE, stored, new)[0].startswith(
        "invalid value: 'one': status.observedGeneration"
    )


TEMPLATE = {"template": {"spec": {"containers": [{"image": "a"}]}}}


def test_a_configuration_is_defaulted_and_checked() -> None:
    stored = _create(_object(kinds.CONFIGURATION, TEMPLATE), kinds.CONFIGURATION)
    assert stored["spec"]["template"]["spec"]["timeoutSeconds"] == 300
    assert stored["metadata"]["annotations"] == {CREATOR: "ann", MODIFIER: "ann"}
    assert _update(stored, _object(kinds.CONFIGURATION, TEMPLATE), kinds.CONFIGURATION) == stored
    bad = _object(kinds.CONFIGURATION, {}, labels={"serving.knative.dev/service": "absent"})
    assert _refused(_create, bad, kinds.CONFIGURATION) == [
        "missing field(s): metadata.labels.serving.knative.dev/service, spec.template.spec.containers"
    ]


def test_a_route_is_defaulted_and_checked() -> None:
    spec = {"traffic": [{"configurationName": "hello", "percent": 100}]}
    stored = _create(_object(kinds.ROUTE, spec), kinds.ROUTE)
    assert stored["spec"]["traffic"] == [{"configurationName": "hello", "latestRevision": True, "percent": 100}]
    assert _update(stored, _object(kinds.ROUTE, spec), kinds.ROUTE) == stored
    bad = _object(kinds.ROUTE, spec, annotations={"serving.knative.dev/rollout-duration": "1.5s"})
    assert _refused(_create, bad, kinds.ROUTE) == [
        "rolloutDuration=1.5s is not at second precision: metadata.annotations.serving.knative.dev/rollout-duration"
    ]


def _revision() -> Json:
    return _object(kinds.REVISION, {"containers": [{"image": "a"}]}, name="hello-00001")


def test_a_revisions_spec_never_changes_and_its_metadata_may() -> None:
    stored = _create(_revision(), kinds.REVISION)
    assert "annotations" not in stored["metadata"]
    new = copy.deepcopy(stored)
    new["metadata"]["annotations"] = {"autoscaling.knative.dev/min-scale": "2"}
    assert _update(stored, new, kinds.REVISION)["metadata"]["generation"] == 1
    new["spec"]["timeoutSeconds"] = 5
    assert _refused(_update, stored, new, kinds.REVISION) == [
        "Immutable fields changed (-old +new): spec\nspec.timeoutSeconds:\n\t-: 300\n\t+: 5"
    ]


def test_a_revisions_annotations_are_checked_when_they_change() -> None:
    stored = _create(_revision(), kinds.REVISION)
    new = copy.deepcopy(stored)
    new["metadata"]["annotations"] = {"autoscaling.knative.dev/min-scale": "x"}
    assert _refused(_update, stored, new, kinds.REVISION) == [
        "invalid value: x: metadata.annotations.autoscaling.knative.dev/min-scale"
    ]


REF = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello"}


def test_a_domain_mapping_leads_to_its_own_namespace() -> None:
    body = _object(kinds.DOMAIN_MAPPING, {"ref": REF}, name="www.example.com")
    stored = _create(body, kinds.DOMAIN_MAPPING)
    assert stored["spec"]["ref"] == {**REF, "namespace": "default"}
    assert stored["metadata"]["annotations"] == {CREATOR: "ann", MODIFIER: "ann"}
    assert _update(stored, body, kinds.DOMAIN_MAPPING) == stored


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
def test_domain_mappings_that_cannot_be(spec: Json, meta: Json, start: str) -> None:
    (problem,) = _refused(_create, _object(kinds.DOMAIN_MAPPING, spec, **meta), kinds.DOMAIN_MAPPING)
    assert problem.startswith(start)


def test_a_claim_needs_a_namespace() -> None:
    claim = {"metadata": {"name": "www.example.com"}, "spec": {}, "kind": "ClusterDomainClaim"}
    body = {**claim, "apiVersion": kinds.CLUSTER_DOMAIN_CLAIM.api_version}
    assert _refused(_create, body, kinds.CLUSTER_DOMAIN_CLAIM) == ["missing field(s): spec.namespace"]
    stored = _create({**body, "spec": {"namespace": "default"}}, kinds.CLUSTER_DOMAIN_CLAIM)
    assert stored["spec"] == {"namespace": "default"}


LONG = "a" * 40


def test_a_tag_whose_host_no_dns_server_could_hold_is_refused() -> None:
    body = _service(traffic=[{"latestRevision": True, "percent": 100, "tag": "t" * 30}])
    body["metadata"]["name"] = LONG
    (problem,) = _refused(_create, body)
    assert problem.startswith(f'invalid domain name "{"t" * 30}-{LONG}.default.localhost": url: Invalid value: ')
    assert problem.endswith("must be no more than 63 characters: spec.traffic[0].tag")
    body["spec"]["traffic"][0]["tag"] = "t" * (63 - 41)
    assert _create(body)["spec"]["traffic"][0]["tag"] == "t" * 22


def test_a_name_that_the_template_makes_no_host_of_is_refused_when_it_is_new() -> None:
    network = replace(CONFIG.network, domain_template="{{.Name}}-{{.Namespace}}.{{.Domain}}")
    other = replace(CONFIG, network=network)
    body = _service()
    body["metadata"] |= {"name": LONG, "namespace": "n" * 30}
    (problem,) = _refused(_create, body, config=other)
    assert problem.startswith(f'invalid domain name "{LONG}-{"n" * 30}.localhost": url: Invalid value: ')
    assert problem.endswith("must be no more than 63 characters: metadata.name")
    stored = _create(body)
    assert _update(stored, {**stored, "spec": _service("app:v2")["spec"]}, config=other)["metadata"]["generation"] == 2


BUILD = {"source": {"upload": {"id": "u1", "sha256": "a" * 64}}, "tag": "app:v1"}


def test_a_build_is_defaulted_and_never_changes() -> None:
    stored = _create(_object(kinds.BUILD_KIND, BUILD), kinds.BUILD_KIND)
    assert stored["spec"] == {**BUILD, "dockerfile": "Dockerfile"}
    assert _update(stored, _object(kinds.BUILD_KIND, BUILD), kinds.BUILD_KIND) == stored
    new = _object(kinds.BUILD_KIND, {**BUILD, "tag": "app:v2"})
    with pytest.raises(InvalidResourceError) as caught:
        _update(stored, new, kinds.BUILD_KIND)
    assert caught.value.code == 422
    assert str(caught.value) == ('Immutable fields changed (-old +new): spec\nspec.tag:\n\t-: "app:v1"\n\t+: "app:v2"')


BUILDS: list[tuple[str, Json, str]] = [
    (
        "no source",
        {"source": {}},
        "expected exactly one, got neither: spec.source.git, spec.source.image, spec.source.upload",
    ),
    (
        "two sources",
        {"source": {"upload": {"id": "u1"}, "image": "a"}},
        "expected exactly one, got both: spec.source.image, spec.source.upload",
    ),
    ("no id", {"source": {"upload": {}}}, "missing field(s): spec.source.upload.id"),
    ("an id that is a path", {"source": {"upload": {"id": "../x"}}}, "invalid value: ../x: spec.source.upload.id"),
    (
        "a digest that is none",
        {"source": {"upload": {"id": "u", "sha256": "abc"}}},
        "invalid value: abc: spec.source.upload.sha256",
    ),
    ("no repository", {"source": {"git": {}}}, "missing field(s): spec.source.git.url"),
    (
        "a file as repository",
        {"source": {"git": {"url": "file:///etc"}}},
        "invalid value: file:///etc: spec.source.git.url",
    ),
    (
        "an option as repository",
        {"source": {"git": {"url": "--upload-pack=x"}}},
        "invalid value: --upload-pack=x: spec.source.git.url",
    ),
    (
        "an option as revision",
        {"source": {"git": {"url": "https://a/b", "revision": "-x"}}},
        "invalid value: -x: spec.source.git.revision",
    ),
    (
        "a query that ends as a repository",
        {"source": {"git": {"url": "http://127.0.0.1:8001/api/v1/namespaces/sec-b/secrets/crown?x=.git"}}},
        "invalid value: http://127.0.0.1:8001/api/v1/namespaces/sec-b/secrets/crown?x=.git: spec.source.git.url",
    ),
    (
        "an option of ssh",
        {"source": {"git": {"url": "ssh://-oProxyCommand=id/x"}}},
        "invalid value: ssh://-oProxyCommand=id/x: spec.source.git.url",
    ),
    (
        "a repository on this machine",
        {"source": {"git": {"url": "git://127.0.0.1:8001/x"}}},
        "invalid value: git://127.0.0.1:8001/x: spec.source.git.url\nmust not be an address of this machine",
    ),
    ("the platform's image as tag", {"tag": "knoll:latest"}, "invalid value: knoll:latest: spec.tag\nthe name is"),
    ("the pause image as tag", {"tag": "knoll/pause:3"}, "invalid value: knoll/pause:3: spec.tag\nthe name is"),
    ("a base image as tag", {"tag": "python:3.13-slim"}, "invalid value: python:3.13-slim: spec.tag\nthe name is"),
    ("an image that is none", {"source": {"image": "A B"}}, "Failed to parse image reference: spec.source.image"),
    ("no tag", {"tag": ""}, "missing field(s): spec.tag"),
    ("a tag that is none", {"tag": "A B"}, "Failed to parse image reference: spec.tag"),
    ("a digest as tag", {"tag": "app@sha256:" + "a" * 64}, "invalid value: app@sha256:"),
    ("a Dockerfile outside", {"dockerfile": "../Dockerfile"}, "invalid value: ../Dockerfile: spec.dockerfile"),
    ("a platform that is none", {"platform": "amd64"}, "invalid value: amd64: spec.platform"),
    ("a stage that is none", {"target": "--x"}, "invalid value: --x: spec.target"),
    ("an argument that is none", {"args": {"A=b": "c"}}, "invalid value: A=b: spec.args"),
    (
        "another namespace's caches",
        {"args": {"BUILDKIT_CACHE_MOUNT_NS": "sec-b"}},
        "invalid value: BUILDKIT_CACHE_MOUNT_NS: spec.args\nthe argument is set by the platform",
    ),
    (
        "another frontend",
        {"args": {"BUILDKIT_SYNTAX": "evil/frontend"}},
        "invalid value: BUILDKIT_SYNTAX: spec.args\nthe argument is set by the platform",
    ),
    ("half a secret", {"secrets": [{"id": "a"}]}, "missing field(s): spec.secrets[0].key, spec.secrets[0].name"),
]


@pytest.mark.parametrize(("spec", "start"), [row[1:] for row in BUILDS], ids=[row[0] for row in BUILDS])
def test_builds_that_cannot_be(spec: Json, start: str) -> None:
    (problem,) = _refused(_create, _object(kinds.BUILD_KIND, {**BUILD, **spec}), kinds.BUILD_KIND)
    assert problem.startswith(start)


@pytest.mark.parametrize("url", ["https://example.com/a.git", "ssh://git@example.com/a", "git@example.com:team/a.git"])
def test_repositories_of_every_usual_form_are_taken(url: str) -> None:
    body = _object(kinds.BUILD_KIND, {"source": {"git": {"url": url}}, "tag": "app"})
    assert _create(body, kinds.BUILD_KIND)["spec"]["source"] == {"git": {"url": url}}


def test_a_repository_on_a_private_network_is_taken_where_the_operator_allows_it() -> None:
    body = _object(kinds.BUILD_KIND, {"source": {"git": {"url": "git://10.1.2.3/x"}}, "tag": "app"})
    with pytest.raises(InvalidResourceError):
        _create(body, kinds.BUILD_KIND)
    config = PlatformConfig().with_config_map("config-security", {"build-destinations": "10.1.0.0/16"})
    assert _create(body, kinds.BUILD_KIND, config=config)["spec"]["tag"] == "app"


def test_kinds_of_the_core_are_admitted_elsewhere() -> None:
    assert [kind.kind for kind in kinds.KINDS if handles(kind)] == [
        "Service", "Configuration", "Revision", "Route", "DomainMapping", "ClusterDomainClaim", "Build",
    ]  # fmt: skip
