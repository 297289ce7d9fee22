"""Revisions as the API stores them: defaulted, images pinned."""

from typing import Any

from knoll.resources.admission.parsing import parse
from knoll.resources.models.revision import Revision

DIGEST = "registry.example/app@sha256:" + "a" * 64


def body(
    name: str = "hello-00001", *, uid: str = "", spec: dict[str, Any] | None = None, **meta: Any
) -> dict[str, Any]:
    """A Revision's JSON.

    Args:
        uid: of the name by default.
        spec: over the spec of one container with a TCP readiness probe.
        meta: `annotations`, `labels`.
    """
    container = {
        "name": "user-container",
        "image": "app",
        "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
    }
    merged: dict[str, Any] = {
        "containers": [container],
        "containerConcurrency": 0,
        "timeoutSeconds": 300,
        **(spec or {}),
    }
    statuses = [{"name": container["name"], "imageDigest": DIGEST} for container in merged["containers"]]
    inits = [{"name": container["name"], "imageDigest": DIGEST} for container in merged.get("initContainers", ())]
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": uid or f"uid-{name}",
            "labels": {
                "serving.knative.dev/service": "hello",
                "serving.knative.dev/configuration": "hello",
                "serving.knative.dev/routingState": "active",
                **meta.get("labels", {}),
            },
            "annotations": meta.get("annotations", {}),
        },
        "spec": merged,
        "status": {"containerStatuses": statuses, "initContainerStatuses": inits},
    }


def revision(name: str = "hello-00001", **more: Any) -> Revision:
    """The same as a model."""
    return parse(Revision, body(name, **more))[0]
