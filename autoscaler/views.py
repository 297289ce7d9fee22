"""What the autoscaler shows over HTTP: instances, their logs, and why it decided as it did."""

import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from autoscaler.decider import explain
from autoscaler.runtime.protocol import Runtime
from autoscaler.scaler import Scaler
from knoll.errors import KnollError


class Looker(Protocol):
    """Who looks after Revisions just now."""

    scalers: dict[str, Scaler]


def routes(runtime: Runtime, autoscaler: Looker) -> list[BaseRoute]:
    """GET /instances, /instances/NAME/logs, /explain/NAMESPACE/REVISION."""

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

    async def logs(request: Request) -> Response:
        asked = request.query_params
        try:
            since = time.time() - float(asked["sinceSeconds"]) if "sinceSeconds" in asked else None
            tail = int(asked["tailLines"]) if "tailLines" in asked else None
            if (tail or 0) < 0:
                raise ValueError(tail)
        except ValueError:
            return PlainTextResponse("tailLines is a whole number from 0, sinceSeconds a number", 400)
        follow = asked.get("follow") in ("true", "1")
        chunks = runtime.logs(
            request.path_params["name"], asked.get("container", ""), follow=follow, tail=tail, since=since
        )
        try:
            first = await anext(chunks, None)
        except KnollError as error:
            return PlainTextResponse(str(error), error.code)

        async def body() -> AsyncIterator[bytes]:
            if first is not None:
                yield first.data
                async for chunk in chunks:
                    yield chunk.data

        return StreamingResponse(body(), media_type="text/plain")

    async def explanation(request: Request) -> Response:
        key = f"{request.path_params['namespace']}/{request.path_params['name']}"
        found = [scaler for scaler in autoscaler.scalers.values() if scaler.key == key]
        if not found:
            return PlainTextResponse(f"no Revision {key} is looked after here", 404)
        return JSONResponse({"revisions": [_explained(scaler) for scaler in found]})

    return [
        Route("/instances", instances),
        Route("/instances/{name}/logs", logs),
        Route("/explain/{namespace}/{name}", explanation),
    ]


def _explained(scaler: Scaler) -> dict[str, object]:
    newest = scaler.decision
    return {
        "uid": scaler.uid,
        "scaling": asdict(scaler.spec),
        "status": msgspec.to_builtins(scaler.status()),
        "instances": [
            {"name": one.name, "stage": one.stage, "failure": one.failure and msgspec.to_builtins(one.failure)}
            for one in scaler.members.values()
        ],
        "now": explain(newest) if newest else "deploying: nothing was decided by load yet",
        "changes": [{"at": at, "decision": words} for at, words in scaler.decisions],
    }
