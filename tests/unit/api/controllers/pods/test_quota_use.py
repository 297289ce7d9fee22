"""Which Pods a quota counts."""

from typing import Any

import pytest

from api.controllers.pods.quota_use import of_pod

SPEC: dict[str, Any] = {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}


def test_a_pod_counts_with_what_it_requests() -> None:
    assert of_pod({"spec": SPEC}) == {"pods": 1, "requests.cpu": 1}


@pytest.mark.parametrize(
    "status",
    [
        {"conditions": [{"type": "Ready", "status": "False", "reason": "Paused"}]},
        {"conditions": [{"type": "Ready", "status": "False", "reason": "Stopped"}]},
        {"containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "FailedCreate"}}}]},
    ],
)
def test_idle_and_waiting_instances_do_not_count_towards_a_quota(status: dict[str, Any]) -> None:
    assert of_pod({"spec": SPEC, "status": status}) == {}
