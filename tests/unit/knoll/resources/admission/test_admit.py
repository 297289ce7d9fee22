"""Admission of Services, and what it does for every kind: what a client writes becomes what is stored."""

import copy
import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from knoll.config.defaults import DefaultsConfig
from knoll.config.platform import PlatformConfig
from knoll.resources.admission.admit import admit_status, handles, unknown_fields
from knoll.values import kinds
from knoll.values.errors import AdmissionError, BadRequestError
from knoll.values.json import Json
from tests.strategies import services
from tests.unit.knoll.resources.admission.admitting import (
    CONFIG,
    CREATOR,
    MODIFIER,
    create,
    object_of,
    refused,
    service,
    update,
)

PREFIX = 'admission webhook "validation.webhook.serving.knative.dev" denied the request: validation failed: '


def test_a_new_service_is_stored_with_all_its_defaults() -> None:
    assert create(service()) == yaml.safe_load("""
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
    first = create(_article("v1"))
    assert first["apiVersion"] == "serving.knative.dev/v1"
    second = update(first, _article("v2", SHARES.replace("40", "50").replace("30", "25")))
    third = update(second, _article("v3"))
    assert third["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]
    fourth = update(third, _article("v3", SHARES))
    assert [target["percent"] for target in fourth["spec"]["traffic"]] == [40, 30, 30, 0]
    assert [body["metadata"]["generation"] for body in (first, second, third, fourth)] == [1, 2, 3, 4]
    assert fourth["spec"]["template"] == third["spec"]["template"]


def test_a_manifest_that_is_applied_again_changes_nothing() -> None:
    stored = create(_article("v1"))
    assert update(stored, _article("v1")) == stored
    assert update(stored, stored) == stored


@given(services())
def test_every_valid_service_is_admitted_and_admitted_again_unchanged(body: Json) -> None:
    given_body = copy.deepcopy(body)
    stored = create(body)
    assert update(stored, stored) == stored
    assert update(stored, body) == stored
    assert body == given_body
    assert unknown_fields(kinds.SERVICE, body) == []


@given(services(), st.sampled_from(["image", "timeoutSeconds", "label", "nothing"]))
def test_the_generation_counts_changes_of_the_spec_and_nothing_else(body: Json, change: str) -> None:
    stored = create(body)
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
    after = update(stored, new)
    changed = change in ("image", "timeoutSeconds")
    assert after["metadata"]["generation"] == 1 + changed
    assert after["metadata"]["annotations"][CREATOR] == "ann"
    assert after["metadata"]["annotations"][MODIFIER] == ("bob" if changed else "ann")


def test_a_name_is_made_from_its_prefix() -> None:
    body = service(generateName="job-")
    del body["metadata"]["name"]
    stored = create(body)
    assert stored["metadata"]["name"] == "job-x7k2p"
    assert stored["metadata"]["generateName"] == "job-"
    body["metadata"]["generateName"] = "j" * 70
    assert "not a DNS 1035 label prefix" in refused(create, body)[0]


def test_a_revision_cannot_be_named_before_its_service_is() -> None:
    body = service(name="job-1", generateName="job-")
    del body["metadata"]["name"]
    assert refused(create, body) == ["must not set the field(s): spec.template.metadata.name"]


def test_fields_of_the_server_cannot_be_written() -> None:
    body = service()
    body["metadata"] |= {
        "uid": "mine", "generation": 77, "creationTimestamp": "1999-01-01T00:00:00Z", "resourceVersion": "5",
        "deletionTimestamp": "1999-01-01T00:00:00Z", "selfLink": "/x",
        "annotations": {CREATOR: "mallory", MODIFIER: "mallory", "a": "b"},
    }  # fmt: skip
    body["status"] = {"url": "http://mine"}
    stored = create(body)
    assert stored["metadata"] == {
        "name": "hello", "namespace": "default", "uid": "u-1", "generation": 1,
        "creationTimestamp": "2001-09-09T01:46:40Z", "annotations": {CREATOR: "ann", MODIFIER: "ann", "a": "b"},
    }  # fmt: skip
    assert "status" not in stored
    stored = {**stored, "status": {"url": "http://ours"}}
    stored["metadata"] = {**stored["metadata"], "resourceVersion": "9"}
    body["metadata"]["annotations"] = {CREATOR: "ann", MODIFIER: "ann", "a": "b"}
    after = update(stored, {**body, "metadata": {**body["metadata"], "name": "other", "namespace": "elsewhere"}})
    assert after["status"] == {"url": "http://ours"}
    assert after["metadata"] == {**stored["metadata"], "resourceVersion": "5"}


def test_an_update_without_a_resource_version_uses_the_stored_one() -> None:
    stored = create(service())
    stored["metadata"]["resourceVersion"] = "9"
    assert update(stored, service(labels={"a": "b"}))["metadata"]["resourceVersion"] == "9"


def test_the_creator_of_an_object_cannot_be_changed() -> None:
    stored = create(service())
    new = copy.deepcopy(stored)
    new["metadata"]["annotations"][CREATOR] = "mallory"
    assert refused(update, stored, new) == [f"annotation value is immutable: metadata.annotations.{CREATOR}"]


def test_the_last_modifier_cannot_be_written_without_a_change() -> None:
    stored = create(service())
    new = copy.deepcopy(stored)
    new["metadata"]["annotations"][MODIFIER] = "mallory"
    assert refused(update, stored, new) == [f"invalid value: mallory: metadata.annotations.{MODIFIER}"]


def test_a_manifest_that_leaves_its_authors_out_keeps_them() -> None:
    stored = create(service())
    assert update(stored, service("app:v2"))["metadata"]["annotations"] == {CREATOR: "ann", MODIFIER: "bob"}


def test_objects_of_an_owner_have_its_authors() -> None:
    owner = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello", "uid": "s"}
    body = object_of(
        kinds.CONFIGURATION, {"template": {"spec": {"containers": [{"image": "a"}]}}}, ownerReferences=[owner],
        annotations={CREATOR: "zoe", MODIFIER: "zoe"}, labels={"serving.knative.dev/service": "hello"},
    )  # fmt: skip
    stored = create(body, kinds.CONFIGURATION)
    assert stored["metadata"]["annotations"] == {CREATOR: "zoe", MODIFIER: "zoe"}
    new = copy.deepcopy(stored)
    new["metadata"]["annotations"][MODIFIER] = "yan"
    assert update(stored, new, kinds.CONFIGURATION)["metadata"]["annotations"][MODIFIER] == "yan"


def test_a_changed_template_needs_a_new_revision_name() -> None:
    stored = create(service("app:v1", "hello-a"))
    assert refused(update, stored, service("app:v2", "hello-a")) == [
        "Saw the following changes without a name change (-old +new): spec.template.metadata.name\n"
        'spec.containers[0].image:\n\t-: "app:v1"\n\t+: "app:v2"'
    ]
    assert update(stored, service("app:v2", "hello-b"))["metadata"]["generation"] == 2
    assert update(stored, service("app:v2"))["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("other-1", 'invalid value: "other-1" must have prefix "hello-": spec.template.metadata.name'),
        ("hello", 'invalid value: "hello" must have prefix "hello-": spec.template.metadata.name'),
    ],
)
def test_a_revision_is_named_after_its_service(name: str, problem: str) -> None:
    assert refused(create, service(name=name)) == [problem]


@pytest.mark.parametrize("name", ["hello-A", "hello-", "hello.1"])
def test_a_revisions_name_must_be_a_label(name: str) -> None:
    (problem,) = refused(create, service(name=name))
    assert problem.startswith("invalid value: not a DNS 1035 label: [")


def test_new_defaults_leave_an_unchanged_template_alone() -> None:
    stored = create(service("app:v1", "hello-a"))
    config = PlatformConfig(defaults=DefaultsConfig(revision_timeout_seconds=20))
    new = {**copy.deepcopy(stored)}
    new["metadata"]["labels"] = {"a": "b"}
    assert update(stored, new, config=config)["spec"] == stored["spec"]


LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def _applied(version: str, traffic: str = "") -> Json:
    """The article's manifest as kubectl sends it."""
    body = _article(version, traffic)
    body["metadata"]["annotations"] = {LAST_APPLIED: json.dumps(body)}
    return body


NEW_DEFAULTS = PlatformConfig(defaults=DefaultsConfig(revision_timeout_seconds=20))


def test_traffic_can_be_moved_by_an_old_manifest_after_the_defaults_changed() -> None:
    stored = create(_applied("v3"))
    after = update(stored, _applied("v3", SHARES), config=NEW_DEFAULTS)
    assert after["spec"]["template"] == stored["spec"]["template"]
    assert len(after["spec"]["traffic"]) == 4


@pytest.mark.parametrize("change", ["patched", "applied", "not by kubectl"])
def test_a_changed_template_is_not_mistaken_for_an_old_one(change: str) -> None:
    stored = create(_applied("v3"))
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
    problems = refused(update, stored, new, config=NEW_DEFAULTS)
    assert problems[0].startswith("Saw the following changes without a name change")


def test_all_problems_are_named_at_once() -> None:
    body = service("Not An Image", traffic=[{"percent": 10}], labels={"serving.knative.dev/x": "y"})
    body["spec"]["template"]["spec"]["timeoutSeconds"] = 9999
    problems = refused(create, body)
    assert [text.partition("\n")[0] for text in problems] == [
        "Failed to parse image reference: spec.template.spec.containers[0].image",
        "Traffic targets sum to 10, want 100: spec.traffic",
        "expected 0 <= 9999 <= 600: spec.template.spec.timeoutSeconds",
        'invalid key name "serving.knative.dev/x": metadata.labels',
    ]


def test_the_refusal_of_knative_kinds_is_the_webhooks() -> None:
    with pytest.raises(AdmissionError) as caught:
        create(service(traffic=[{"percent": 99}]))
    assert caught.value.code == 400
    assert str(caught.value) == PREFIX + "Traffic targets sum to 99, want 100: spec.traffic"


def test_values_of_wrong_types_are_refused_in_the_same_form() -> None:
    body = service()
    body["spec"]["traffic"] = "all"
    assert refused(create, body) == ["invalid value: 'all': spec.traffic\nmust be a list, not a string"]


def test_other_kinds_and_versions_are_refused() -> None:
    with pytest.raises(BadRequestError, match="expected kind Route"):
        create(service(), kinds.ROUTE)


def test_unknown_fields_are_named_and_not_stored() -> None:
    body = service()
    body["spec"]["template"]["spec"]["containers"][0]["foo"] = 1
    assert unknown_fields(kinds.SERVICE, body) == ["spec.template.spec.containers[0].foo"]
    assert create(body) == create(service())


def test_an_object_that_is_being_deleted_can_lose_its_finalizers_whatever_else() -> None:
    stored = create(service())
    stored["metadata"] |= {"deletionTimestamp": "2001-09-09T01:46:40Z", "finalizers": ["a/b"]}
    stored["spec"]["traffic"] = []
    new = copy.deepcopy(stored)
    del new["metadata"]["finalizers"]
    after = update(stored, new)
    assert "finalizers" not in after["metadata"]
    assert after["metadata"]["deletionTimestamp"] == "2001-09-09T01:46:40Z"


def test_a_write_to_the_status_changes_nothing_else() -> None:
    stored = create(service())
    new = service("other:v2", labels={"a": "b"}, resourceVersion="7")
    new["status"] = {"url": "http://a", "observedGeneration": 1}
    after = admit_status(kinds.SERVICE, stored, new)
    assert after == {**stored, "status": new["status"], "metadata": {**stored["metadata"], "resourceVersion": "7"}}


def test_a_status_of_wrong_types_is_refused() -> None:
    stored = create(service())
    new = {**stored, "status": {"observedGeneration": "one"}}
    assert refused(admit_status, kinds.SERVICE, stored, new)[0].startswith(
        "invalid value: 'one': status.observedGeneration"
    )


LONG = "a" * 40


def test_a_tag_whose_host_no_dns_server_could_hold_is_refused() -> None:
    body = service(traffic=[{"latestRevision": True, "percent": 100, "tag": "t" * 30}])
    body["metadata"]["name"] = LONG
    (problem,) = refused(create, body)
    assert problem.startswith(f'invalid domain name "{"t" * 30}-{LONG}.default.localhost": url: Invalid value: ')
    assert problem.endswith("must be no more than 63 characters: spec.traffic[0].tag")
    body["spec"]["traffic"][0]["tag"] = "t" * (63 - 41)
    assert create(body)["spec"]["traffic"][0]["tag"] == "t" * 22


def test_a_name_that_the_template_makes_no_host_of_is_refused_when_it_is_new() -> None:
    network = replace(CONFIG.network, domain_template="{{.Name}}-{{.Namespace}}.{{.Domain}}")
    other = replace(CONFIG, network=network)
    body = service()
    body["metadata"] |= {"name": LONG, "namespace": "n" * 30}
    (problem,) = refused(create, body, config=other)
    assert problem.startswith(f'invalid domain name "{LONG}-{"n" * 30}.localhost": url: Invalid value: ')
    assert problem.endswith("must be no more than 63 characters: metadata.name")
    stored = create(body)
    assert update(stored, {**stored, "spec": service("app:v2")["spec"]}, config=other)["metadata"]["generation"] == 2


def test_kinds_of_the_core_are_admitted_elsewhere() -> None:
    assert [kind.kind for kind in kinds.KINDS if handles(kind)] == [
        "Service", "Configuration", "Revision", "Route", "DomainMapping", "ClusterDomainClaim", "Build",
    ]  # fmt: skip
