"""Updates a Service from the command line, despite concurrent writers, and waits until it is Ready."""

import time
from collections.abc import Callable

from knoll.cli.client import ApiClient
from knoll.values import kinds
from knoll.values.errors import ConflictError, KnollError
from knoll.values.json import Json

READY_SECONDS = 180


class NotReadyError(KnollError):
    """A Service did not become Ready; the message gives the reason."""


def write(client: ApiClient, namespace: str, name: str, change: Callable[[Json], None]) -> Json:
    """Update or create a Service, retrying on conflicts; return it as stored."""
    while True:
        service = client.find(kinds.SERVICE, namespace, name)
        try:
            if service is None:
                service = _new(namespace, name)
                change(service)
                return client.create(kinds.SERVICE, namespace, service)
            change(service)
            return client.replace(kinds.SERVICE, service)
        except ConflictError:
            continue


def until_ready(
    client: ApiClient, namespace: str, name: str, generation: int, waiting: Callable[[str], None] = lambda _: None
) -> Json:
    """Wait until the Service is Ready at this generation, and return it.

    Args:
        waiting: called with the reason it is not ready, whenever that changes.

    Raises:
        NotReadyError: it failed, or the deadline passed.
    """
    deadline, last_obstacle = time.monotonic() + READY_SECONDS, ""
    while True:
        service = client.get(kinds.SERVICE, namespace, name)
        condition = ready(service)
        obstacle = obstacle_of(service)
        if obstacle and obstacle != last_obstacle:
            last_obstacle = obstacle
            waiting(obstacle)
        if service.get("status", {}).get("observedGeneration", 0) >= generation:
            if condition.get("status") == "True":
                return service
            if condition.get("status") == "False":
                raise NotReadyError(
                    f"{name} is not ready: {condition.get('message') or condition.get('reason')}; the previous "
                    f"revision keeps serving. See `knoll logs {name}` and `knoll describe {name}`"
                )
        if time.monotonic() > deadline:
            raise NotReadyError(
                f"{name} is not ready after {READY_SECONDS} s: "
                f"{last_obstacle or condition.get('message', 'no reason given')}; see `knoll describe {name}`"
            )
        time.sleep(0.1)


def obstacle_of(service: Json) -> str:
    """Return the problem that instances of the latest Revision have while they may still start; empty without one."""
    conditions = {condition["type"]: condition for condition in service.get("status", {}).get("conditions", [])}
    condition = conditions.get("ConfigurationsReady", {})
    if condition.get("status") != "Unknown" or condition.get("reason") in (None, "", "OutOfDate"):
        return ""
    return str(condition.get("message", ""))


def ready(resource: Json) -> Json:
    """Return the condition Ready of an object; empty while there is none."""
    conditions = resource.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == "Ready"), {})


def _new(namespace: str, name: str) -> Json:
    return {
        "apiVersion": kinds.SERVICE.api_version,
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": {"containers": [{}]}}},
    }
