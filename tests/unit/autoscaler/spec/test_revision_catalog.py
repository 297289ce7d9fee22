"""Which changes of a Revision the autoscaler reads: it writes none itself, and most are of conditions."""

import copy
from typing import Any

import pytest

from autoscaler.spec.revision_catalog import is_same

REVISION: dict[str, Any] = {
    "metadata": {
        "uid": "u",
        "generation": 1,
        "resourceVersion": "5",
        "labels": {"app": "x"},
        "annotations": {"knoll.dev/rollout-scale": "1"},
    },
    "spec": {"containers": [{"name": "app", "image": "x"}]},
    "status": {
        "conditions": [{"type": "Ready", "status": "Unknown"}],
        "containerStatuses": [{"name": "app", "imageDigest": "x@sha256:1"}],
        "actualReplicas": 0,
    },
}


def changed(path: str, value: object) -> dict[str, Any]:
    revision = copy.deepcopy(REVISION)
    *parents, last = path.split(" ")
    target = revision
    for name in parents:
        target = target[name]
    target[last] = value
    return revision


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata resourceVersion", "6"),
        ("metadata managedFields", [{}]),
        ("status conditions", []),
        ("status actualReplicas", 1),
        ("status observedGeneration", 1),
    ],
)
def test_a_change_of_status_alone_is_not_read(path: str, value: object) -> None:
    assert is_same(REVISION, changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata uid", "other"),
        ("metadata generation", 2),
        ("metadata labels", {}),
        ("metadata annotations", {}),
        ("metadata deletionTimestamp", "2026-01-01T00:00:00Z"),
        ("spec containers", []),
        ("status containerStatuses", []),
        ("status initContainerStatuses", [{"name": "init", "imageDigest": "y@sha256:2"}]),
    ],
)
def test_every_other_change_is_read(path: str, value: object) -> None:
    assert not is_same(REVISION, changed(path, value))
