"""Logs of instances over HTTP, with the parameters of Kubernetes' Pod logs."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from autoscaler.runtime.model import Instance
from autoscaler.runtime.protocol import Runtime
from knoll.values import log_options
from knoll.values.errors import BadRequestError, KnollError, NotFoundError
from knoll.values.log_options import LogOptions


def container_of(instance: Instance, container: str) -> str:
    """Return the container whose log is requested.

    Raises:
        BadRequestError: no container is named and there are several, or the named one does not exist.
    """
    names = [container.name for container in instance.containers]
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
    """Return the handler of GET /namespaces/NAMESPACE/pods/NAME/log."""

    async def log(request: Request) -> Response:
        key, name = f"{request.path_params['namespace']}/", request.path_params["name"]
        try:
            options = log_options.parse(request.query_params, time.time())
            present = await runtime.instances()
            matching = [each for each in present if each.name == name and each.revision.startswith(key)]
            if not matching:
                raise NotFoundError(f'pod "{name}" has no running instance')
            container = container_of(matching[0], options.container)
        except KnollError as error:
            return PlainTextResponse(str(error), error.code)
        return StreamingResponse(_lines(runtime, name, container, options), media_type="text/plain")

    return log


async def _lines(runtime: Runtime, name: str, container: str, options: LogOptions) -> AsyncIterator[bytes]:
    left = options.limit_bytes
    chunks = runtime.logs(
        name, container, follow=options.follow, tail=options.tail, since=options.since, timestamps=options.timestamps
    )
    async with contextlib.aclosing(chunks):
        # An instance that is removed meanwhile ends its log.
        with contextlib.suppress(KnollError):
            async for chunk in chunks:
                yield chunk.data if left is None else chunk.data[:left]
                if left is not None:
                    left -= len(chunk.data)
                    if left <= 0:
                        return
