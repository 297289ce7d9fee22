"""The condition of a Pod that is being evicted. Pure.

Source: Kubernetes, staging/src/k8s.io/api/core/v1/types.go (`DisruptionTarget`).
"""

from collections.abc import Mapping

from knoll.values.json import Json

DISRUPTION_TARGET = "DisruptionTarget"
EVICTED: Mapping[str, str] = {
    "type": DISRUPTION_TARGET,
    "status": "True",
    "reason": "EvictionByEvictionAPI",
    "message": "Eviction API: evicting",
}


def is_evicted(pod: Json) -> bool:
    """Return whether a Pod is being evicted: its instance is replaced before it ends."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each["type"] == DISRUPTION_TARGET and each["status"] == "True" for each in conditions)
