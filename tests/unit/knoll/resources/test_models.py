"""Every kind comes out as it went in."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from knoll.resources.admission.admit import MODELS
from knoll.resources.admission.parsing import parse
from knoll.resources.models.base import REFUSED, Resource
from knoll.resources.models.configuration import Configuration
from knoll.resources.models.domain_mapping import DomainMapping
from knoll.resources.models.revision import Revision
from knoll.resources.models.route import Route
from knoll.resources.models.service import Service

HELLO = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hello, namespace: default, uid: S, generation: 1, resourceVersion: "41",
  annotations: {serving.knative.dev/creator: admin, serving.knative.dev/lastModifier: admin}}
spec:
  template:
    metadata: {}
    spec: {containerConcurrency: 0, timeoutSeconds: 300, enableServiceLinks: false,
      containers: [{name: user-container, image: "R/hello:v1", resources: {},
                    readinessProbe: {successThreshold: 1, tcpSocket: {port: 0}}}]}
  traffic: [{latestRevision: true, percent: 100}]
status: {observedGeneration: 1, url: "http://hello.default.example.com",
  address: {url: "http://hello.default.svc.cluster.local"},
  latestCreatedRevisionName: hello-00001, latestReadyRevisionName: hello-00001,
  traffic: [{revisionName: hello-00001, latestRevision: true, percent: 100},
            {revisionName: hello-00001, latestRevision: false, percent: 0, tag: a, url: "http://a-hello"}],
  conditions: [{type: ConfigurationsReady, status: "True", lastTransitionTime: "2026-01-01T00:00:00Z"},
               {type: Ready, status: "True"}, {type: RoutesReady, status: "True"}]}
"""
CONFIGURATION = """
apiVersion: serving.knative.dev/v1
kind: Configuration
metadata: {name: hello, namespace: default, labels: {serving.knative.dev/service: hello},
  ownerReferences: [{apiVersion: serving.knative.dev/v1, kind: Service, name: hello, uid: S, controller: true,
                     blockOwnerDeletion: true}]}
spec: {template: {metadata: {}, spec: {containers: [{image: a}]}}}
status: {observedGeneration: 1, latestCreatedRevisionName: hello-00001, latestReadyRevisionName: hello-00001,
  conditions: [{type: Ready, status: "True"}]}
"""
REVISION = """
apiVersion: serving.knative.dev/v1
kind: Revision
metadata: {name: hello-00001, namespace: default, labels: {serving.knative.dev/configurationGeneration: "1"}}
spec: {containers: [{name: a, image: b}], containerConcurrency: 0}
status: {observedGeneration: 1, actualReplicas: 0, desiredReplicas: 0,
  containerStatuses: [{name: user-container, imageDigest: "R/hello@sha256:..."}],
  conditions: [{type: Active, status: "False", severity: Info, reason: NoTraffic, message: m},
               {type: Ready, status: "True"}]}
"""
ROUTE = """
apiVersion: serving.knative.dev/v1
kind: Route
metadata: {name: hello, namespace: default, finalizers: [routes.serving.knative.dev]}
spec: {traffic: [{configurationName: hello, latestRevision: true, percent: 100}]}
status: {url: "http://hello.default.example.com", conditions: [{type: Ready, status: Unknown}]}
"""
MAPPING = """
apiVersion: serving.knative.dev/v1beta1
kind: DomainMapping
metadata: {name: www.example.com, namespace: default}
spec: {ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: hello, namespace: default}, tls: {secretName: t}}
status: {url: "https://www.example.com", address: {url: "https://www.example.com"}}
"""
CLAIM = """
apiVersion: networking.internal.knative.dev/v1alpha1
kind: ClusterDomainClaim
metadata: {name: www.example.com}
spec: {namespace: default}
"""
BUILD = """
apiVersion: build.knoll.dev/v1alpha1
kind: Build
metadata: {name: app, namespace: default}
spec: {source: {upload: {id: u1, sha256: abc}}, dockerfile: Dockerfile, target: t, args: {A: b}, tag: "app:v1",
       secrets: [{id: npm, name: tokens, key: npm}], platform: linux/amd64}
status: {phase: Succeeded, digest: "app@sha256:...", size: 0, startTime: "2026-01-01T00:00:00Z",
         completionTime: "2026-01-01T00:00:09Z", attempts: 1, logUrl: /x}
"""
EXAMPLES = {"Service": HELLO, "Configuration": CONFIGURATION, "Revision": REVISION, "Route": ROUTE,
            "DomainMapping": MAPPING, "ClusterDomainClaim": CLAIM, "Build": BUILD}  # fmt: skip


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.__name__)
def test_a_stored_object_is_parsed_and_written_unchanged(model: type[Resource]) -> None:
    body = yaml.safe_load(EXAMPLES[model.KIND.kind])
    parsed, unknown = parse(model, body)
    assert parsed.to_json() == body
    assert unknown == []


def test_noise_of_go_clients_is_dropped() -> None:
    body = yaml.safe_load(HELLO)
    body["status"] = {}
    body["metadata"] |= {"creationTimestamp": None, "labels": {}, "finalizers": None, "selfLink": ""}
    body["spec"]["template"]["metadata"]["creationTimestamp"] = None
    container = body["spec"]["template"]["spec"]["containers"][0]
    container |= {"env": [], "args": None, "workingDir": "", "stdin": False, "lifecycle": None}
    expected = yaml.safe_load(HELLO)
    del expected["status"]
    assert parse(Service, body)[0].to_json() == expected


def test_an_explicit_zero_is_kept_where_knative_keeps_it() -> None:
    body = yaml.safe_load(HELLO)
    spec = body["spec"]["template"]["spec"]
    spec |= {"timeoutSeconds": 0, "idleTimeoutSeconds": 0, "automountServiceAccountToken": False}
    spec["containers"][0] |= {
        "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
        "readinessProbe": {"httpGet": {"path": "/", "port": 0}, "initialDelaySeconds": 0},
        "livenessProbe": {"grpc": {"port": 0, "service": ""}},
        "env": [{"name": "A", "value": ""}],
    }
    shown = parse(Service, body)[0].to_json()["spec"]["template"]["spec"]
    assert shown["timeoutSeconds"] == shown["idleTimeoutSeconds"] == 0
    assert shown["automountServiceAccountToken"] is False
    container = shown["containers"][0]
    assert container["securityContext"] == {"runAsUser": 0, "runAsNonRoot": False}
    assert container["readinessProbe"] == {"httpGet": {"path": "/", "port": 0}}
    assert container["livenessProbe"] == {"grpc": {"port": 0, "service": ""}}
    assert container["env"] == [{"name": "A"}]


def test_resources_are_shown_in_canonical_form() -> None:
    body = {
        "spec": {"containers": [{"resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": 1}}}]}
    }
    shown = parse(Revision, body)[0].to_json()["spec"]["containers"][0]["resources"]
    assert shown == {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "1"}}


@pytest.mark.parametrize("model", [Service, Configuration, Revision, Route, DomainMapping])
def test_an_empty_object_has_its_kind(model: type[Resource]) -> None:
    assert model().to_json() == {"apiVersion": model.KIND.api_version, "kind": model.KIND.kind}


def test_objects_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Service().kind = "x"  # type: ignore[misc]


def _models(model: Any, seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    if isinstance(model, type) and issubclass(model, BaseModel) and model not in seen:
        seen.add(model)
        yield model
        for field in model.model_fields.values():
            yield from _models(field.annotation, seen)
    for part in get_args(model):
        yield from _models(part, seen)


@pytest.mark.parametrize("kind", MODELS.values(), ids=lambda model: model.__name__)
def test_every_field_that_can_be_used_is_explained(kind: type[Resource]) -> None:
    for model in _models(kind, set()):
        shown = model.model_json_schema(by_alias=True)
        fields = shown["properties"] if "properties" in shown else shown["$defs"][model.__name__]["properties"]
        for alias in fields:
            assert any(field.description for field in model.model_fields.values() if field.alias == alias), (
                f"{model.__name__}.{alias}"
            )


def test_refused_fields_are_not_in_schemas() -> None:
    for model in _models(Service, set()):
        refused = [field.alias for field in model.model_fields.values() if REFUSED in field.metadata]
        properties = model.model_json_schema(by_alias=True).get("properties", {})
        assert not set(refused) & set(properties)
