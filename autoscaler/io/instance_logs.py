"""Logs of instances over HTTP, asked for as Kubernetes asks for a Pod's."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from autoscaler.runtime.protocol import Instance, Runtime
from knoll.values.errors import BadRequestError, KnollError, NotFoundError

TRUE, FALSE = ("true", "1"), ("false", "0", "")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a log is wanted."""

    container: str = ""
    """Empty: the only one."""
    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: float | None = None
    """Epoch seconds."""
    limit_bytes: int | None = None


def wanted(asked: Mapping[str, str], now: float) -> Wanted:
    """Read the parameters of Kubernetes' PodLogOptions.

    Raises:
        BadRequestError: one has no value that it can have.
    """
    if _flag(asked, "previous"):
        raise BadRequestError("previous: the output of a container's earlier runs is not kept")
    seconds, moment = _number(asked, "sinceSeconds", 1), asked.get("sinceTime", "")
    if seconds is not None and moment:
        raise BadRequestError("at most one of sinceTime or sinceSeconds may be specified")
    since = None if seconds is None else now - seconds
    if moment:
        try:
            since = datetime.fromisoformat(moment).timestamp()
        except ValueError:
            raise BadRequestError(f"sinceTime: {moment[:50]!r} is not a time as RFC 3339 writes it") from None
    return Wanted(
        asked.get("container", ""),
        _flag(asked, "follow"),
        _flag(asked, "timestamps"),
        _number(asked, "tailLines", 0),
        since,
        _number(asked, "limitBytes", 1),
    )


def _flag(asked: Mapping[str, str], name: str) -> bool:
    value = asked.get(name, "").lower()
    if value not in (*TRUE, *FALSE):
        raise BadRequestError(f"{name}: {value[:50]!r} is neither true nor false")
    return value in TRUE


def _number(asked: Mapping[str, str], name: str, least: int) -> int | None:
    value = asked.get(name, "")
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 18 or int(value) < least:
        raise BadRequestError(f"{name}: {value[:50]!r} is not a whole number from {least}")
    return int(value)


def container_of(instance: Instance, container: str) -> str:
    """Which container's log is meant.

    Raises:
        BadRequestError: there are several to choose from, or the one that was named is not there.
    """
    names = [one.name for one in instance.containers]
    if not container and len(names) > 1:
        raise BadRequestError(
            f"a container name must be specified for pod {instance.name}, choose one of: [{' '.join(names)}]"
        )
    if not names:
        raise BadRequestError(f'container "{container}" in pod "{instance.name}" is waiting to start')
    if container and container not in names:
        raise BadRequestError(f"container {container} is not valid for pod {instance.name}")
    return container or names[0]


PATH = "/namespaces/{namespace}/pods/{name}/log"


def handler(runtime: Runtime) -> Callable[[Request], Awaitable[Response]]:
    """Answers GET /namespaces/NAMESPACE/pods/NAME/log."""

    async def log(request: Request) -> Response:
        key, name = f"{request.path_params['namespace']}/", request.path_params["name"]
        try:
            want = wanted(request.query_params, time.time())
            found = [one for one in await runtime.instances() if one.name == name and one.revision.startswith(key)]
            if not found:
                raise NotFoundError(f'there is no instance of pod "{name}" (yet, or any more)')
            container = container_of(found[0], want.container)
        except KnollError as error:
            return PlainTextResponse(str(error), error.code)
        return StreamingResponse(_lines(runtime, name, container, want), media_type="text/plain")

    return log


async def _lines(runtime: Runtime, name: str, container: str, want: Wanted) -> AsyncIterator[bytes]:
    left = want.limit_bytes
    chunks = runtime.logs(
        name, container, follow=want.follow, tail=want.tail, since=want.since, timestamps=want.timestamps
    )
    async with contextlib.aclosing(chunks):
        # An instance that ends meanwhile ends its log.
        with contextlib.suppress(KnollError):
            async for chunk in chunks:
                yield chunk.data if left is None else chunk.data[:left]
                if left is not None:
                    left -= len(chunk.data)
                    if left <= 0:
                        return
