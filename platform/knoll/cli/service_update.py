"""Changing a Service from the command line, however many others write it, and waiting until it is so."""

import time
from collections.abc import Callable

from knoll.cli.client import ApiClient
from knoll.values import kinds
from knoll.values.errors import ConflictError, KnollError
from knoll.values.json import Json

READY_SECONDS = 180


class NotReadyError(KnollError):
    """A Service did not become Ready; the message says why."""


def write(client: ApiClient, namespace: str, name: str, change: Callable[[Json], None]) -> Json:
    """Change a Service, or make it; returns it as it was written."""
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
    """The Service, once it is Ready at this generation.

    Args:
        waiting: called with what keeps it from being ready, each time that is something else.

    Raises:
        NotReadyError: it failed, or it took too long.
    """
    deadline, told = time.monotonic() + READY_SECONDS, ""
    while True:
        service = client.get(kinds.SERVICE, namespace, name)
        found = ready(service)
        obstacle = obstacle_of(service)
        if obstacle and obstacle != told:
            told = obstacle
            waiting(obstacle)
        if service.get("status", {}).get("observedGeneration", 0) >= generation:
            if found.get("status") == "True":
                return service
            if found.get("status") == "False":
                raise NotReadyError(
                    f"{name} is not ready: {found.get('message') or found.get('reason')}; what served before "
                    f"serves on. See `knoll logs {name}` and `knoll describe {name}`"
                )
        if time.monotonic() > deadline:
            raise NotReadyError(
                f"{name} is not ready after {READY_SECONDS} s: {told or found.get('message', 'no reason given')}; "
                f"see `knoll describe {name}`"
            )
        time.sleep(0.1)


def obstacle_of(service: Json) -> str:
    """What an instance of the newest Revision has run into, while it may still come up; empty when nothing is known."""
    conditions = {condition["type"]: condition for condition in service.get("status", {}).get("conditions", [])}
    found = conditions.get("ConfigurationsReady", {})
    if found.get("status") != "Unknown" or found.get("reason") in (None, "", "OutOfDate"):
        return ""
    return str(found.get("message", ""))


def ready(resource: Json) -> Json:
    """Its condition Ready; empty when it has none yet."""
    conditions = resource.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == "Ready"), {})


def _new(namespace: str, name: str) -> Json:
    return {
        "apiVersion": kinds.SERVICE.api_version,
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": {"containers": [{}]}}},
    }
