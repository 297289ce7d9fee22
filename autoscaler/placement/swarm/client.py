"""The calls to Docker Swarm that placement needs, through the engine's API.

Source: Docker Engine API, v1.41 to v1.47; moby/swarmkit.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from autoscaler.placement.swarm.model import SwarmNode, SwarmService, SwarmTask
from autoscaler.placement.swarm.services import NANO
from autoscaler.runtime.docker.engine import Engine, EngineError
from knoll.values.errors import KnollError, RuntimeUnavailableError
from knoll.values.json import Json

CALL_SECONDS = 5.0
"""Timeout of a call: a manager without a quorum does not respond, and the engine's own timeout is longer."""


class SwarmError(KnollError):
    """Docker Swarm refused a call."""

    code, reason = 500, "SwarmError"


class ServiceExistsError(SwarmError):
    """A service of that name exists."""


class Swarm(Protocol):
    """A Swarm as a manager sees it.

    Every method raises SwarmError when the manager refuses, and RuntimeUnavailableError when it does not respond or
    there is no leader.
    """

    async def nodes(self) -> list[SwarmNode]:
        """Return all machines."""
        ...

    async def services(self, label: str) -> list[SwarmService]:
        """Return the services with a label, `KEY=VALUE`."""
        ...

    async def tasks(self, label: str, services: Sequence[str] = ()) -> list[SwarmTask]:
        """Return the tasks of the services with a label.

        Args: services: ids of services; empty for all. Raises SwarmError if one of them does not exist.
        """
        ...

    async def create_service(self, body: Json) -> str:
        """Create a service; returns its id. Raises also: ServiceExistsError."""
        ...

    async def remove_service(self, service: str) -> None:
        """Remove a service by its id, if it exists; its task ends a few seconds later."""
        ...


class EngineSwarm:
    """A Swarm, through the engine of one of its managers."""

    def __init__(self, engine: Engine) -> None:
        """Args: engine: opened by the caller."""
        self._engine = engine

    async def nodes(self) -> list[SwarmNode]:
        return [_node(item) for item in await self._call("GET", "/nodes")]

    async def services(self, label: str) -> list[SwarmService]:
        return [_service(item) for item in await self._call("GET", "/services", filters={"label": [label]})]

    async def tasks(self, label: str, services: Sequence[str] = ()) -> list[SwarmTask]:
        filters = {"label": [label], **({"service": list(services)} if services else {})}
        return [_task(item) for item in await self._call("GET", "/tasks", filters=filters)]

    async def create_service(self, body: Json) -> str:
        return str((await self._call("POST", "/services/create", body=body))["ID"])

    async def remove_service(self, service: str) -> None:
        try:
            await self._engine.call("DELETE", f"/services/{service}", seconds=CALL_SECONDS)
        except EngineError as error:
            if error.status != 404:
                raise _translated(error) from error

    async def _call(self, method: str, path: str, *, body: Json | None = None, filters: Json | None = None) -> Any:
        query = {"filters": json.dumps(filters)} if filters else None
        try:
            return await self._engine.call(method, path, body=body, query=query, seconds=CALL_SECONDS)
        except EngineError as error:
            raise _translated(error) from error


def _translated(error: EngineError) -> KnollError:
    if error.status == 409:
        return ServiceExistsError(str(error))
    # 503: this engine is not, or no longer, a manager. 500: there is no leader, or it is unreachable.
    return RuntimeUnavailableError(str(error)) if error.status >= 500 else SwarmError(str(error))


def _node(item: Mapping[str, Any]) -> SwarmNode:
    spec, description = item["Spec"], item.get("Description") or {}
    resources = description.get("Resources") or {}
    return SwarmNode(
        id=item["ID"],
        hostname=description.get("Hostname") or "",
        role=spec["Role"],
        availability=spec["Availability"],
        state=item["Status"]["State"],
        cores=resources.get("NanoCPUs", 0) / NANO,
        memory_bytes=resources.get("MemoryBytes", 0),
        labels=spec.get("Labels") or {},
        leader=bool((item.get("ManagerStatus") or {}).get("Leader")),
    )


def _service(item: Mapping[str, Any]) -> SwarmService:
    spec = item["Spec"]
    reserved = (spec["TaskTemplate"].get("Resources") or {}).get("Reservations") or {}
    return SwarmService(
        id=item["ID"],
        name=spec["Name"],
        labels=spec.get("Labels") or {},
        nano_cpus=reserved.get("NanoCPUs", 0),
        memory_bytes=reserved.get("MemoryBytes", 0),
    )


def _task(item: Mapping[str, Any]) -> SwarmTask:
    status = item["Status"]
    return SwarmTask(
        id=item["ID"],
        service=item["ServiceID"],
        node=item.get("NodeID") or "",
        state=status["State"],
        desired=item["DesiredState"],
        error=status.get("Err") or "",
    )
