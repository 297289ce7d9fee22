"""HTTP views of the autoscaler: instances, their logs, and the reasons of its decisions."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from autoscaler.instances.transitions import label_of
from autoscaler.io import instance_logs
from autoscaler.revisions.revision_scaler import RevisionScaler
from autoscaler.revisions.revision_status import scale_status
from autoscaler.runtime.protocol import Runtime
from knoll.auth import process_tokens
from knoll.auth.tokens import SigningKey
from knoll.values.errors import KnollError, UnauthorizedError

Handler = Callable[[Request], Awaitable[Response]]


class Scalers(Protocol):
    """Where the scalers of the current leader are."""

    @property
    def scalers(self) -> Mapping[str, RevisionScaler]: ...


def routes(
    runtime: Runtime,
    leader: Scalers,
    key: Callable[[], Awaitable[SigningKey]],
    clock: Callable[[], float] = time.time,
) -> list[BaseRoute]:
    """GET /instances, /namespaces/NAMESPACE/pods/NAME/log, /explain/NAMESPACE/REVISION, for the API only.

    Args:
        key: returns the platform's key, which signs the API's tokens.
        clock: epoch seconds.
    """

    async def instances(_: Request) -> Response:
        try:
            present = await runtime.instances()
        except KnollError as error:
            return PlainTextResponse(str(error), error.code)
        rows = [
            {
                "name": instance.name,
                "revision": instance.revision,
                "uid": instance.uid,
                "address": instance.address,
                "port": instance.port,
                "state": instance.state,
                "labels": dict(instance.labels),
                "created": instance.created,
                "containers": [
                    {
                        "name": container.name,
                        "running": container.running,
                        "exitCode": container.exit_code,
                        "restarts": container.restarts,
                        "oomKilled": container.oom_killed,
                    }
                    for container in instance.containers
                ],
            }
            for instance in present
            if instance.state != "armed"  # no instance yet
        ]
        return JSONResponse({"instances": rows})

    async def explanation(request: Request) -> Response:
        key = f"{request.path_params['namespace']}/{request.path_params['name']}"
        scalers = [scaler for scaler in leader.scalers.values() if scaler.key == key]
        if not scalers:
            return PlainTextResponse(f"Revision {key} is not scaled by this process", 404)
        return JSONResponse({"revisions": [_explained(scaler) for scaler in scalers]})

    def guarded(path: str, handler: Handler) -> Route:
        async def answer(request: Request) -> Response:
            try:
                process_tokens.check(await key(), request.headers.get("authorization", ""), clock())
            except UnauthorizedError:
                return PlainTextResponse("only the API may call this; it checks the rights of its clients", 401)
            except KnollError as error:
                return PlainTextResponse(str(error), error.code)
            return await handler(request)

        return Route(path, answer)

    return [
        guarded("/instances", instances),
        guarded(instance_logs.PATH, instance_logs.handler(runtime)),
        guarded("/explain/{namespace}/{name}", explanation),
    ]


def _explained(scaler: RevisionScaler) -> dict[str, object]:
    return {
        "uid": scaler.uid,
        "scaling": asdict(scaler.spec),
        "status": msgspec.to_builtins(scale_status(scaler)),
        "instances": [
            {
                "name": instance.name,
                "stage": label_of(instance.state),
                "keptBytes": instance.kept_bytes,
                "armed": instance.was_armed,
                "failure": instance.failure and msgspec.to_builtins(instance.failure),
            }
            for instance in scaler.instances.values()
        ],
        "armed": scaler.armed_count,
        "now": scaler.explained() or "deploying: no load-based decision yet",
        "changes": [{"at": change.at, "want": change.want, "decision": change.why} for change in scaler.changes],
    }
