"""Strategic merge patch."""

from typing import Any

import pytest

from api.patch import strategic
from knoll.values.errors import BadRequestError

SERVICE: dict[str, Any] = {
    "spec": {
        "selector": {"a": "b"},
        "ports": [{"name": "http", "port": 80}, {"name": "other", "port": 81}],
        "externalIPs": ["1", "2"],
    },
    "metadata": {"finalizers": ["x", "y"], "labels": {"a": "b", "c": "d"}},
}


@pytest.mark.parametrize(
    ("patch", "path", "result"),
    [
        ({"spec": {"selector": {"c": "d"}}}, "spec.selector", {"a": "b", "c": "d"}),
        ({"spec": {"selector": {"a": None}}}, "spec.selector", {}),
        ({"spec": {"selector": {"$patch": "replace", "z": "y"}}}, "spec.selector", {"z": "y"}),
        ({"spec": {"selector": {"$patch": "delete"}}}, "spec.selector", {}),
        (
            {"spec": {"ports": [{"port": 80, "name": "web"}]}},
            "spec.ports",
            [{"name": "web", "port": 80}, {"name": "other", "port": 81}],
        ),
        (
            {"spec": {"ports": [{"port": 82}]}},
            "spec.ports",
            [{"name": "http", "port": 80}, {"name": "other", "port": 81}, {"port": 82}],
        ),
        ({"spec": {"ports": [{"port": 80, "$patch": "delete"}]}}, "spec.ports", [{"name": "other", "port": 81}]),
        ({"spec": {"ports": [{"$patch": "replace"}, {"port": 9}]}}, "spec.ports", [{"port": 9}]),
        (
            {"spec": {"$setElementOrder/ports": [{"port": 81}, {"port": 80}]}},
            "spec.ports",
            [{"name": "other", "port": 81}, {"name": "http", "port": 80}],
        ),
        ({"spec": {"externalIPs": ["3"]}}, "spec.externalIPs", ["3"]),
        ({"metadata": {"finalizers": ["z", "x"]}}, "metadata.finalizers", ["x", "y", "z"]),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}, "metadata.finalizers", ["y"]),
        ({"metadata": {"labels": {"$retainKeys": ["c"], "c": "e"}}}, "metadata.labels", {"c": "e"}),
    ],
)
def test_directives_and_merge_keys_are_heeded(patch: Any, path: str, result: Any) -> None:
    merged: Any = strategic.merge(SERVICE, patch, "Service")
    for part in path.split("."):
        merged = merged[part]
    assert merged == result
    assert SERVICE["metadata"]["finalizers"] == ["x", "y"]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(BadRequestError, match="unknown patch type"):
        strategic.merge(SERVICE, {"spec": {"$patch": "explode"}}, "Service")
    with pytest.raises(BadRequestError, match="lacks its merge key port"):
        strategic.merge(SERVICE, {"spec": {"ports": [{"name": "x"}]}}, "Service")


def test_ports_of_containers_merge_by_their_own_key() -> None:
    old = {"containers": [{"name": "c", "ports": [{"containerPort": 1}]}]}
    patch = {"containers": [{"name": "c", "ports": [{"containerPort": 1, "name": "h2c"}]}]}
    assert strategic.merge(old, patch, "Pod") == {
        "containers": [{"name": "c", "ports": [{"containerPort": 1, "name": "h2c"}]}]
    }
