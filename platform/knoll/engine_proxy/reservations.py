"""The only services of Docker Swarm that are allowed: those that reserve places for instances. Pure.

The autoscaler composes their bodies here. The engine proxy composes the body again from the variable fields, and
forwards it only if both are equal: an arbitrary service could run any program on any machine of the Swarm.

Source: Docker Engine API, v1.41 to v1.47.
"""

import re
from collections.abc import Collection, Iterator

from knoll.engine_proxy.policy import PLATFORM_LABEL, ProxyPolicy, RefusedError
from knoll.values.json import Json, JsonValue

ROLE_LABEL = "knoll.dev/role"
ROLE = "reservation"
IMAGES = frozenset({
    "sha256:73094e542deb8751fd9cee4117bbe87cc36efe81a50be7e263b7c8b9f5755b96",  # amd64
    "sha256:9a45d8c7a40c792283771103e24a0f70c87049ac5006afc4ce64d5a4e563ca06",  # arm64
})  # fmt: skip
"""Ids of the image of reservations (`autoscaler.placement.swarm.reservation_image`)."""
ARCHIVES = frozenset({
    "15c234044272294ea8845c4399173257929d6bc09b89c97a1fc0b046ed9fa4e1",
    "11af456c9efcddb2b4d9973d41fc68774737f702737f3d7e2ebd7f69c06eb255",
})  # fmt: skip
"""SHA-256 of its archives, for the same architectures."""
_CONSTRAINT = re.compile(r"node\.id[!=]=[0-9a-z]{25}")
_MOST_CONSTRAINTS = 2000


def service_name(platform: str, token: str) -> str:
    """Return the name of a service: a DNS label.

    Args: token: 16 hexadecimal digits.
    """
    return f"{platform}-{token}"


def service(
    platform: str, name: str, image: str, nano_cpus: int, memory_bytes: int, constraints: Collection[str]
) -> Json:
    """Return the body of `POST /services/create`.

    Its container only sleeps. It uses the host's network, which needs no set-up, and has no capabilities there. It is
    not restarted when it ends: a reservation ends with its machine, as the instance does.

    Args:
        image: one of `IMAGES`; a name would be pulled at each start.
        nano_cpus: billionths of a core to reserve, >= 0.
        memory_bytes: memory to reserve, >= 0.
        constraints: placement constraints about `node.id`; all of them must be met.
    """
    labels = {PLATFORM_LABEL: platform, ROLE_LABEL: ROLE}
    reserved = {"NanoCPUs": nano_cpus, "MemoryBytes": memory_bytes}
    return {
        "Name": name,
        "Labels": labels,
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": image,
                "Labels": labels,
                "Hostname": name,
                "CapabilityDrop": ["ALL"],
                "Privileges": {"NoNewPrivileges": True},
                "ReadOnly": True,
                "StopSignal": "SIGKILL",
            },
            "Resources": {
                "Limits": {"Pids": 4},
                "Reservations": {key: value for key, value in reserved.items() if value},
            },
            "RestartPolicy": {"Condition": "none"},
            "Placement": {"Constraints": list(constraints)},
            "Networks": [{"Target": "host"}],
            "LogDriver": {"Name": "none"},
        },
        "Mode": {"Replicated": {"Replicas": 1}},
    }


def create_service(policy: ProxyPolicy, body: JsonValue) -> JsonValue:
    """Return the body to forward. Raises: RefusedError: it is not one of these services."""
    try:
        name, template = body["Name"], body["TaskTemplate"]
        reserved = template["Resources"]["Reservations"]
        constraints, image = template["Placement"]["Constraints"], template["ContainerSpec"]["Image"]
        nano_cpus, memory_bytes = reserved.get("NanoCPUs", 0), reserved.get("MemoryBytes", 0)
    except (KeyError, TypeError, AttributeError) as error:
        raise RefusedError("service: only reservations may be created") from error
    if not isinstance(name, str) or not re.fullmatch(rf"{re.escape(policy.platform)}-[0-9a-f]{{16}}", name):
        raise RefusedError(f"service.Name: must be {policy.platform}- and 16 hexadecimal digits")
    if image not in IMAGES:
        raise RefusedError("service.TaskTemplate.ContainerSpec.Image: must be the image of reservations, by its id")
    if not (_is_amount(nano_cpus) and _is_amount(memory_bytes)):
        raise RefusedError("service.TaskTemplate.Resources.Reservations: must be non-negative numbers")
    if (
        not isinstance(constraints, list)
        or len(constraints) > _MOST_CONSTRAINTS
        or not all(map(_is_about_id, constraints))
    ):
        raise RefusedError("service.TaskTemplate.Placement.Constraints: each must be about node.id")
    expected = service(policy.platform, name, image, nano_cpus, memory_bytes, constraints)
    for difference in _differences("service", expected, body):
        raise RefusedError(f"{difference}: is not allowed in a reservation")
    return expected


def _is_amount(value: JsonValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_about_id(constraint: JsonValue) -> bool:
    return isinstance(constraint, str) and _CONSTRAINT.fullmatch(constraint) is not None


def _differences(where: str, expected: JsonValue, given: JsonValue) -> Iterator[str]:
    """Yield the names of the fields in which two values differ."""
    if isinstance(expected, dict) and isinstance(given, dict):
        for key in [*expected, *(key for key in given if key not in expected)]:
            yield from _differences(f"{where}.{key}", expected.get(key), given.get(key))
    elif type(expected) is not type(given) or expected != given:
        yield where
