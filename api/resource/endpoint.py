"""The REST endpoint of every kind: parses a request, calls reads, writes or a watch, and responds."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import orjson
import structlog
import yaml
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth.access import USER
from api.auth.identity import LOCAL, User
from api.http import body_reader
from api.http.metrics import ApiMetrics
from api.resource import eviction
from api.resource.logs import Logs
from api.resource.read import Page, Reads
from api.resource.watch import View, Watch, Watches
from api.resource.write import WriteResult, Writes
from api.wire import bodies, content_negotiation, options, paths, status, tables, warning_header
from api.wire.content_negotiation import Form
from api.wire.paths import ResourcePath
from knoll.store.protocol import Store
from knoll.values.errors import BadRequestError, KnollError, MethodNotAllowedError
from knoll.values.json import Json

log = structlog.get_logger()

_NAME = "knoll.name"
"""Key of the name of a new object, from the body, in the scope of a request."""
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get", "HEAD": "get"}


class ResourceEndpoint:
    """ASGI application for objects below `/api/VERSION` and `/apis/GROUP/VERSION`."""

    def __init__(
        self,
        store: Store,
        watches: Watches,
        writes: Writes,
        logs: Logs,
        metrics: ApiMetrics,
        identify: Callable[[Request], User] = lambda request: request.scope.get(USER, LOCAL),
    ) -> None:
        self._watches = watches
        self._reads = Reads(store)
        self._writes = writes
        self._logs = logs
        self._evictions = eviction.Evictions(store, writes, time.time)
        self._metrics = metrics
        self._identify = identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        subject: status.Subject | None = None
        verb = _VERBS.get(request.method, "other")
        started = time.perf_counter()
        response: ASGIApp
        try:
            target = paths.parse(scope["path"])
            subject = status.Subject(target.place.kind, target.place.name)
            verb = _verb(request, target)
            response = await self._answer(request, target, verb)
        except KnollError as error:
            if subject is not None and not subject.name:
                subject = status.Subject(subject.kind, scope.get(_NAME, ""))
            response = status.respond(error, subject)
        code = response.status_code if isinstance(response, Response) else 200
        resource = subject.kind.id if subject else ""
        if verb != "watch":
            self._metrics.observe(verb, resource, code, time.perf_counter() - started)
        await response(scope, receive, send)

    async def _answer(self, request: Request, target: ResourcePath, verb: str) -> ASGIApp:
        if target.subresource == eviction.SUBRESOURCE:
            if request.method != "POST":
                raise MethodNotAllowedError("the server does not allow this method on the requested resource")
            return await self._evictions.evict(request, target)
        if verb not in target.place.kind.verbs or (target.subresource == "log" and verb != "get"):
            raise MethodNotAllowedError("the server does not allow this method on the requested resource")
        user = self._identify(request)
        if target.subresource == "log":
            return await self._logs.log(request, target)
        form = content_negotiation.form(request.headers.get("accept", ""))
        query = request.query_params
        match verb:
            case "get":
                return _object(await self._reads.get(target), target, form, query.get("includeObject", "Metadata"))
            case "list":
                page = await self._reads.list(target, options.list_options(query, target.place.kind.id))
                return await _collection(page, target, form, query.get("includeObject", "Metadata"))
            case "watch":
                watch_options = options.watch_options(
                    query, target.place.kind.id, target.place.name, chance=random.random
                )
                view = View(target, form, query.get("includeObject", "Metadata"))
                return Watch(self._watches, view, watch_options)
            case "create" | "update" | "patch":
                written = await self._write(request, target, verb, user)
                return _object(written.body, target, form, "Metadata", written)
            case _:
                return await self._delete(request, target, form, verb)

    async def _write(self, request: Request, target: ResourcePath, verb: str, user: User) -> WriteResult:
        agent = request.headers.get("user-agent", "")
        if verb == "patch":
            raw = await body_reader.raw_body(request)
            content_type = request.headers.get("content-type", "")
            apply = content_type.startswith("application/apply-patch")
            write_options = options.write_options(request.query_params, agent, apply=apply)
            return await self._writes.patch(target, raw, content_type, write_options, user)
        write_options = options.write_options(request.query_params, agent)
        parsed = await body_reader.parsed_body(request, duplicates=write_options.validation != "Ignore")
        if verb == "create":
            request.scope[_NAME] = _named(parsed.value)
            return await self._writes.create(target, parsed, write_options, user)
        return await self._writes.replace(target, parsed, write_options, user)

    async def _delete(self, request: Request, target: ResourcePath, form: Form, verb: str) -> Response:
        raw = await body_reader.raw_body(request)
        body = None
        if raw.strip():
            parsed = await asyncio.to_thread(_delete_body, raw, request.headers.get("content-type", ""))
            body = parsed if isinstance(parsed, dict) else None
            if body is None:
                raise BadRequestError("the body of a deletion must be a DeleteOptions object")
        delete_options = options.delete_options(request.query_params, body)
        if verb == "delete":
            last = await self._writes.delete(target, delete_options)
            if last["metadata"].get("deletionTimestamp"):
                return _object(last, target, form, "Metadata")
            name, uid = last["metadata"]["name"], last["metadata"]["uid"]
            return _json(status.success(target.place.kind, name, uid))
        page = await self._reads.list(target, options.list_options(request.query_params, target.place.kind.id))
        gone = await self._writes.delete_all(target, page.items, delete_options)
        return await _collection(Page(gone, page.version), target, form, "Metadata")


def _named(value: Any) -> str:
    """The name of the object in a body; empty if it has none."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name[:253] if isinstance(name, str) else ""


def _delete_body(raw: bytes, content_type: str) -> Any:

    return bodies.parse(raw, content_type or bodies.JSON).value


def _verb(request: Request, target: ResourcePath) -> str:
    method, named = request.method, bool(target.place.name)
    if method in ("GET", "HEAD"):
        if not target.subresource and options.is_watch(request.query_params):
            return "watch"
        return "get" if named else "list"
    if method == "POST" and target.subresource == eviction.SUBRESOURCE:
        return "create"
    if method == "POST" and not named:
        if target.place.kind.namespaced and not target.place.namespace:
            raise MethodNotAllowedError("the server does not allow this method on the requested resource")
        return "create"
    if method == "DELETE" and not target.subresource:
        return "delete" if named else "deletecollection"
    if named and method in ("PUT", "PATCH"):
        return _VERBS[method]
    raise MethodNotAllowedError("the server does not allow this method on the requested resource")


def _warned(written: WriteResult | None) -> dict[str, str]:
    return warning_header.headers(written.warnings) if written is not None else {}


def _object(body: Json, target: ResourcePath, form: Form, include: str, written: WriteResult | None = None) -> Response:
    code = 201 if written is not None and written.created else 200
    return _shaped(View(target, form, include).render(body, headed=True), form, code, _warned(written))


async def _collection(page: Page, target: ResourcePath, form: Form, include: str) -> Response:
    kind = target.place.kind
    api_version = target.place.api_version
    shown: Json
    if form.shape == "table":
        now = time.time()
        rows = [tables.row(kind, body, now, include) for body in page.items]
        shown = tables.table(kind, rows, page.metadata(), form.api_version)
    elif form.shape == "partial":
        items = [View(target, form, include).render(body, headed=False) for body in page.items]
        shown = {
            "kind": "PartialObjectMetadataList",
            "apiVersion": form.api_version,
            "metadata": page.metadata(),
            "items": items,
        }
    else:
        items = page.items
        if api_version != kind.api_version:
            items = [{**body, "apiVersion": api_version} for body in items]
        shown = {
            "kind": f"{kind.kind}List",
            "apiVersion": api_version,
            "metadata": page.metadata(),
            "items": items,
        }
    return _shaped(shown, form, 200, {})


def _shaped(shown: Json, form: Form, code: int, headers: dict[str, str]) -> Response:
    if form.yaml:
        text = yaml.dump(shown, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
        return Response(text, code, headers, "application/yaml")
    return _json(shown, code, headers)


def _json(shown: Json, code: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(shown), code, headers, status.JSON_TYPE)
