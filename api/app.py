"""The API as one ASGI application."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import orjson
import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth import access, authorization, reviews, token_requests
from api.auth.authenticator import Authenticator
from api.auth.fair_use import FairUse
from api.auth.identity import service_account
from api.auth.streams import Streams
from api.http.body_reader import parsed_body
from api.http.csrf_guard import SameOriginOnly
from api.http.headers import DefaultHeaders
from api.http.metrics import CONTENT_TYPE, ApiMetrics
from api.resource import bootstrap
from api.resource.admission import Admission
from api.resource.disk_guard import DiskGuard
from api.resource.endpoint import ResourceEndpoint
from api.resource.logs import Logs
from api.resource.machines import Machines
from api.resource.namespaces import Namespaces
from api.resource.uploads import Uploads
from api.resource.watch import Watches
from api.resource.write import Writes
from api.schema import discovery, openapi
from api.wire import paths, status
from knoll.auth import token_key
from knoll.cluster.other_machines import OtherMachines
from knoll.config.platform import PlatformConfig
from knoll.process.settings import ApiSettings
from knoll.redis.client import RedisClient
from knoll.redis.encryption import Keyring
from knoll.store.protocol import Store
from knoll.values.errors import (
    BadRequestError,
    KnollError,
    MethodNotAllowedError,
    NotFoundError,
    StoreUnavailableError,
    UnauthorizedError,
)
from knoll.values.json import Json
from knoll.values.kinds import CORE_SERVICE, NAMESPACE, SERVICE_ACCOUNT

log = structlog.get_logger()
Handler = Callable[[Request], Awaitable[Response]]

READY_SECONDS = 2.0
"""How long the store may take to respond before the API reports that it is not ready, in seconds."""


def create_app(
    store: Store,
    settings: ApiSettings,
    *,
    config: Callable[[], PlatformConfig] = PlatformConfig,
    redis: RedisClient | None = None,
    authority: str = "",
    metrics: ApiMetrics | None = None,
) -> Starlette:
    """Make the application.

    Args:
        store: holds the objects; the caller closes it.
        settings: for uploads, the autoscaler's address and more; the ports in them are not used here.
        config: returns the platform's current configuration.
        redis: for build logs and the signing key; None disables both.
        authority: PEM of the authority that HTTPS clients trust.
        metrics: served at `/metrics`; None makes new ones.

    Unauthenticated requests have few rights; behind `access.TrustedPort` they have the administrator's rights.

    A graceful stop first calls `app.state.watches.close()`, which ends all watches.
    """
    metrics = metrics or ApiMetrics()
    watches = Watches(store)
    metrics.watches.set_function(lambda: len(watches))
    others = OtherMachines(redis, settings.node, settings.node_dir, "logs")
    logs = Logs(store, redis, settings.autoscaler_url, settings.keyring, others)
    disk_guard = DiskGuard(settings, config)
    uploads = Uploads(
        settings.uploads_dir,
        settings.max_upload_bytes,
        metrics,
        disk_guard.check_upload,
        lambda: config().security.upload_quota,
    )
    writes = Writes(store, Admission(config), disk_guard=disk_guard)
    resources = ResourceEndpoint(store, watches, writes, logs, metrics)
    authenticator = Authenticator(store, redis, keyring=settings.keyring)
    fair_use, streams = FairUse(lambda: config().security), Streams(store)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with contextlib.suppress(OSError):
            # Without the folder, uploads fail with an error; everything else works.
            await asyncio.to_thread(uploads.prepare)
        tasks = [
            asyncio.create_task(Namespaces(store, authority).run(), name="namespaces"),
            asyncio.create_task(streams.run(), name="rights of streams"),
        ]
        for task in tasks:
            task.add_done_callback(_report)
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        watches.close()
        await logs.close()

    app = Starlette(
        routes=[
            *_health_routes(store, metrics),
            *_discovery_routes(),
            *_upload_routes(uploads, store),
            *_machine_routes(store, redis, settings.keyring, authenticator, uploads),
            _route(f"/apis/{reviews.AUTHORIZATION}/v1/selfsubjectaccessreviews", _access_review(store)),
            _route(f"/apis/{reviews.AUTHORIZATION}/v1/selfsubjectrulesreviews", _rules_review(store)),
            _route(f"/apis/{reviews.AUTHENTICATION}/v1/selfsubjectreviews", _self_review),
            _route(f"/apis/{reviews.AUTHENTICATION}/v1/tokenreviews", _token_review(authenticator)),
            _route(
                "/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
                _token(store, redis, settings.keyring, config),
            ),
            Route("/api/{path:path}", resources),
            Route("/apis/{path:path}", resources),
            Route("/{path:path}", _Guarded(_not_found)),
        ],
        lifespan=lifespan,
        middleware=[
            Middleware(DefaultHeaders),
            Middleware(SameOriginOnly),
            Middleware(access.Access, store=store, authenticator=authenticator, fair_use=fair_use, streams=streams),
        ],
        exception_handlers={Exception: _internal_error},
    )
    app.state.watches = watches
    app.state.logs = logs
    return app


def _report(task: "asyncio.Task[None]") -> None:
    """Log the exception of a failed task at once."""
    if not task.cancelled() and (error := task.exception()):
        log.error("task failed", task=task.get_name(), exc_info=error)


class _Guarded:
    """ASGI application that calls a handler for every method and turns its errors into Status responses."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: ASGIApp
        try:
            response = await self._handler(Request(scope, receive))
        except KnollError as error:
            response = status.respond(error)
        await response(scope, receive, send)


def _route(path: str, handler: Handler) -> Route:
    return Route(path, _Guarded(handler))


async def _internal_error(request: Request, error: Exception) -> Response:
    """Respond to an unexpected exception; the server logs it."""
    return status.respond(
        UnexpectedError(f"internal error: {type(error).__name__}; see the log of the API for details")
    )


class UnexpectedError(KnollError):
    """An unexpected exception, which is a bug in Knoll."""


async def _not_found(request: Request) -> Response:
    raise paths.unknown()


def _only_get(request: Request) -> None:
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowedError("the server does not allow this method on the requested resource")


def _json(value: Json, code: int = 200) -> Response:
    return Response(orjson.dumps(value), code, media_type=status.JSON_TYPE)


def _health_routes(store: Store, metrics: ApiMetrics) -> list[Route]:
    async def alive(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def ready(request: Request) -> Response:
        try:
            async with asyncio.timeout(READY_SECONDS):
                await store.get(CORE_SERVICE.id, *bootstrap.LAST)
        except TimeoutError:
            raise StoreUnavailableError(f"Redis did not respond within {READY_SECONDS:g} s") from None
        except NotFoundError:
            raise StoreUnavailableError("the initial objects have not been created yet") from None
        return PlainTextResponse("ok")

    async def metrics_text(request: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return [
        _route("/healthz", alive),
        _route("/livez", alive),
        _route("/readyz", ready),
        _route("/metrics", metrics_text),
    ]


def _discovery_routes() -> list[Route]:
    async def root(request: Request) -> Response:
        _only_get(request)
        body, content_type = discovery.document(request.url.path.rstrip("/"), request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type, "Vary": "Accept"})

    async def group(request: Request) -> Response:
        _only_get(request)
        name = request.path_params["group"]
        if name not in discovery.groups():
            raise paths.unknown()
        return _json(discovery.group(name))

    async def version(request: Request) -> Response:
        _only_get(request)
        name, requested_version = request.path_params.get("group", ""), request.path_params.get("version", "v1")
        if (name and name not in discovery.groups()) or requested_version not in discovery.versions(name):
            raise paths.unknown()
        return _json(discovery.resource_list(name, requested_version))

    async def release(request: Request) -> Response:
        return _json(discovery.version())

    async def everything(request: Request) -> Response:
        listed = ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz"]
        for name in discovery.groups():
            listed += [f"/apis/{name}", *(f"/apis/{name}/{version}" for version in discovery.versions(name))]
        return _json({"paths": sorted([*listed, "/uploads", "/version"])})

    async def index(request: Request) -> Response:
        return Response(openapi.index(), media_type=status.JSON_TYPE)

    async def document(request: Request) -> Response:
        path = request.path_params["path"]
        if path not in openapi.paths():
            raise paths.unknown()
        headers = {"Cache-Control": "public, immutable"} if "hash" in request.query_params else None
        return Response(openapi.document(path), headers=headers, media_type=status.JSON_TYPE)

    async def openapi_v2(request: Request) -> Response:
        return Response(b"", headers={"Content-Type": openapi.EMPTY_V2_TYPE})

    return [
        _route("/", everything),
        _route("/version", release),
        _route("/api", root),
        _route("/apis", root),
        _route("/api/v1", version),
        _route("/apis/{group}", group),
        _route("/apis/{group}/{version}", version),
        _route("/openapi/v2", openapi_v2),
        _route("/openapi/v3", index),
        _route("/openapi/v3/{path:path}", document),
    ]


def _upload_routes(uploads: Uploads, store: Store) -> list[Route]:
    async def take(request: Request) -> Response:
        if request.method != "POST":
            raise MethodNotAllowedError("sources are sent with POST")
        namespace = access.upload_namespace(request.scope["path"])
        if namespace != access.DEFAULT_NAMESPACE:  # `default` cannot be deleted
            await store.get(NAMESPACE.id, "", namespace)
        declared = request.headers.get("content-length", "")
        try:
            upload = await uploads.take(namespace, request.stream(), int(declared) if declared.isdigit() else None)
        except ClientDisconnect:
            raise BadRequestError("the client disconnected before its upload was complete") from None
        return _json({"id": upload.id, "size": upload.size}, 201)

    async def look(request: Request) -> Response:
        _only_get(request)
        namespace = access.upload_namespace(request.scope["path"])
        upload = await asyncio.to_thread(uploads.find, namespace, request.path_params["id"])
        return _json({"id": upload.id, "size": upload.size})

    return [
        _route(f"{prefix}/uploads{suffix}", handler)
        for prefix in ("", "/namespaces/{namespace}")
        for suffix, handler in (("", take), ("/{id}", look))
    ]


def _machine_routes(
    store: Store, redis: RedisClient | None, keyring: Keyring, authenticator: Authenticator, uploads: Uploads
) -> list[Route]:
    if redis is None:
        return []
    machines = Machines(store, redis, keyring, authenticator, uploads)

    def only(method: str, handler: Handler) -> Handler:
        async def checked(request: Request) -> Response:
            if request.method != method:
                raise MethodNotAllowedError("the server does not allow this method on the requested resource")
            return await handler(request)

        return checked

    return [
        _route("/cluster/nodes", only("GET", machines.list_members)),
        _route("/cluster/nodes/{name}", only("POST", machines.join)),
        _route("/cluster/nodes/{name}/certificate", only("POST", machines.renew)),
        _route("/cluster/images", only("GET", machines.images)),
        _route("/cluster/script", only("GET", machines.script)),
        _route("/cluster/uploads/{namespace}/{id}", only("GET", machines.source)),
    ]


def _access_review(store: Store) -> Handler:
    async def review(request: Request) -> Response:
        _only_post(request)
        parsed = await parsed_body(request, duplicates=False)
        return _json(reviews.access(parsed.value, request.scope[access.USER], await access.bindings(store)), 201)

    return review


def _rules_review(store: Store) -> Handler:
    async def review(request: Request) -> Response:
        _only_post(request)
        parsed = await parsed_body(request, duplicates=False)
        return _json(reviews.rules(parsed.value, request.scope[access.USER], await access.bindings(store)), 201)

    return review


def _token_review(authenticator: Authenticator) -> Handler:
    async def review(request: Request) -> Response:
        _only_post(request)
        parsed = await parsed_body(request, duplicates=False)
        token, audiences = reviews.requested_token(parsed.value)
        try:
            user = await authenticator.of_token(token, audiences)
        except UnauthorizedError:
            return _json(reviews.token(parsed.value, None), 201)
        return _json(reviews.token(parsed.value, user, audiences), 201)

    return review


def _token(store: Store, redis: RedisClient | None, keyring: Keyring, config: Callable[[], PlatformConfig]) -> Handler:
    async def create(request: Request) -> Response:
        _only_post(request)
        if redis is None:
            raise StoreUnavailableError("tokens need Redis, which stores the signing key")
        parsed = await parsed_body(request, duplicates=False)
        parameters = request.path_params
        account = await store.get(SERVICE_ACCOUNT.id, parameters["namespace"], parameters["name"])
        await _refuse_more_rights(store, request, parameters["namespace"], parameters["name"])
        key, most = await token_key.shared_key(redis, keyring), config().security.max_token_seconds
        answer = token_requests.answer(parsed.value, account, key, time.time(), most)
        return _json(answer, 201)

    return create


async def _refuse_more_rights(store: Store, request: Request, namespace: str, name: str) -> None:
    user, bound = request.scope[access.USER], await access.bindings(store)
    account = service_account(namespace, name)
    account = replace(account, roles=authorization.roles_of(account, bound))
    authorization.refuse_more(user, account, "get a token")


def _only_post(request: Request) -> None:
    if request.method != "POST":
        raise MethodNotAllowedError("the server does not allow this method on the requested resource")


async def _self_review(request: Request) -> Response:
    _only_post(request)
    return _json(reviews.self_review(request.scope[access.USER]), 201)
