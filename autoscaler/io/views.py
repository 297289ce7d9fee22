"""What the autoscaler shows over HTTP: instances, their logs, and why it decided as it did."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from autoscaler.io import instance_logs
from autoscaler.revisions.revision_scaler import Scaler
from autoscaler.runtime.protocol import Runtime
from knoll.auth import process_tokens
from knoll.auth.tokens import SigningKey
from knoll.values.errors import KnollError, UnauthorizedError

Handler = Callable[[Request], Awaitable[Response]]


class Looker(Protocol):
    """Who looks after Revisions just now."""

    scalers: dict[str, Scaler]


def routes(
    runtime: Runtime,
    autoscaler: Looker,
    key: Callable[[], Awaitable[SigningKey]],
    clock: Callable[[], float] = time.time,
) -> list[BaseRoute]:
    """GET /instances, /namespaces/NAMESPACE/pods/NAME/log, /explain/NAMESPACE/REVISION, for the API alone.

    Args:
        key: gives the platform's key, which signs the API's tokens.
        clock: epoch seconds.
    """

    async def instances(_: Request) -> Response:
        try:
            found = await runtime.instances()
        except KnollError as error:
            return PlainTextResponse(str(error), error.code)
        rows = [
            {"name": one.name, "revision": one.revision, "uid": one.uid, "address": one.address, "port": one.port,
             "state": one.state, "labels": dict(one.labels), "created": one.created,
             "containers": [{"name": each.name, "running": each.running, "exitCode": each.exit_code,
                             "restarts": each.restarts, "oomKilled": each.oom_killed} for each in one.containers]}
            for one in found
        ]  # fmt: skip
        return JSONResponse({"instances": rows})

    async def explanation(request: Request) -> Response:
        key = f"{request.path_params['namespace']}/{request.path_params['name']}"
        found = [scaler for scaler in autoscaler.scalers.values() if scaler.key == key]
        if not found:
            return PlainTextResponse(f"no Revision {key} is looked after here", 404)
        return JSONResponse({"revisions": [_explained(scaler) for scaler in found]})

    def guarded(path: str, handler: Handler) -> Route:
        async def answer(request: Request) -> Response:
            try:
                process_tokens.check(await key(), request.headers.get("authorization", ""), clock())
            except UnauthorizedError:
                return PlainTextResponse("this is for the API alone, which knows who may see it", 401)
            except KnollError as error:
                return PlainTextResponse(str(error), error.code)
            return await handler(request)

        return Route(path, answer)

    return [
        guarded("/instances", instances),
        guarded(instance_logs.PATH, instance_logs.handler(runtime)),
        guarded("/explain/{namespace}/{name}", explanation),
    ]


def _explained(scaler: Scaler) -> dict[str, object]:
    return {
        "uid": scaler.uid,
        "scaling": asdict(scaler.spec),
        "status": msgspec.to_builtins(scaler.status()),
        "instances": [
            {
                "name": one.name,
                "stage": one.stage,
                "keptBytes": one.kept_bytes,
                "failure": one.failure and msgspec.to_builtins(one.failure),
            }
            for one in scaler.members.values()
        ],
        "now": scaler.explained() or "deploying: nothing was decided by load yet",
        "changes": [{"at": one.at, "want": one.want, "decision": one.why} for one in scaler.changes],
    }
