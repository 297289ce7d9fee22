"""Authenticates and authorizes requests: 401 for invalid tokens, 403 for what the user may not do."""

import re
import socket
from collections.abc import Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth import authorization, reviews
from api.auth.authenticator import Authenticator
from api.auth.authorization import Attributes, Binding
from api.auth.fair_use import FairUse, MaxRequestsInFlight
from api.auth.identity import ANONYMOUS, AUTHENTICATED, LOCAL, User, service_account
from api.auth.streams import Streams, Sweep
from api.http.connections import HEALTH
from api.http.csrf_guard import is_own_name
from api.http.peers import Peers
from api.wire import options, paths, status
from knoll.store.protocol import Store
from knoll.values.errors import (
    BadRequestError,
    ForbiddenError,
    KnollError,
    NotFoundError,
    TooManyRequestsError,
    UnauthorizedError,
)
from knoll.values.kinds import BUILD_KIND, CLUSTER_ROLE_BINDING, ROLE_BINDING

USER = "knoll.user"
"""Key of the User in the scope of a request."""
MACHINES = "/cluster/"
"""Paths whose handlers (`api.resource.machines`) authenticate machines by themselves."""
_TRUSTED = "knoll.trusted"
_PEERS = "knoll.peers"
DEFAULT_NAMESPACE = "default"
"""Namespace of uploads whose path contains none."""
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class TrustedPort:
    """ASGI application for a port on which unauthenticated requests have LOCAL as their user."""

    def __init__(self, app: ASGIApp, peers: Peers | None = None) -> None:
        """Args: peers: checks which clients are LOCAL; without it, every client without a token is."""
        self._app = app
        self._peers = peers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, _TRUSTED: True, _PEERS: self._peers}, receive, send)


class Access:
    """ASGI middleware that authenticates and authorizes each request."""

    def __init__(
        self, app: ASGIApp, store: Store, authenticator: Authenticator, fair_use: FairUse, streams: Streams
    ) -> None:
        self._app = app
        self._store = store
        self._authenticator = authenticator
        self._fair_use = fair_use
        self._streams = streams
        self._in_flight = MaxRequestsInFlight()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if scope["path"].startswith(MACHINES):
            await self._for_machine(scope, receive, send)
            return
        if scope["path"] in HEALTH and "authorization" not in request.headers:
            scope[USER] = ANONYMOUS
            await self._app(scope, receive, send)
            return
        answered = False
        try:
            user = await self._user(request)
            stream = is_stream(request)
            with self._fair_use.admit(user, stream=stream):
                if stream:
                    await self._stream(request, user, receive, send)
                else:
                    with self._in_flight.admit(writing=request.method not in ("GET", "HEAD")):
                        scope[USER] = await self._authorize(request, user)
                        answered = True
                        await self._app(scope, receive, send)
        except KnollError as error:
            if answered:
                raise
            await status.respond(error, _subject(request))(scope, receive, send)

    async def _for_machine(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[USER] = ANONYMOUS
        try:
            admitted = self._fair_use.admit(ANONYMOUS, stream=False)
            with admitted, self._in_flight.admit(writing=False):
                await self._app(scope, receive, send)
        except TooManyRequestsError as error:
            await status.respond(error)(scope, receive, send)

    async def _stream(self, request: Request, user: User, receive: Receive, send: Send) -> None:
        """Serve a stream as long as the user has the right to it. Raises: KnollError: before the response starts."""
        scope = request.scope

        async def check(sweep: Sweep) -> None:
            await self._recheck(request, sweep)

        with self._streams.opened(check) as stream:
            scope[USER] = await self._authorize(request, user)
            await self._streams.serve(stream, user.expires, self._app, scope, receive, send)

    async def _recheck(self, request: Request, sweep: Sweep) -> None:
        """Check the rights to an open stream again. Raises: KnollError: they were revoked."""
        header = request.headers.get("authorization", "")
        if not header:
            return
        if header not in sweep.users:
            try:
                sweep.users[header] = await self._authenticator.user(header)
            except UnauthorizedError as error:
                sweep.users[header] = error
        user = sweep.users[header]
        if isinstance(user, KnollError):
            raise user
        if sweep.bindings is None:
            sweep.bindings = await bindings(self._store)
        _authorized(request, user, sweep.bindings)

    async def _user(self, request: Request) -> User:
        if header := request.headers.get("authorization", ""):
            return await self._authenticator.user(header)
        if not request.scope.get(_TRUSTED):
            return ANONYMOUS
        host = request.headers.get("host", "")
        # Clients of a Unix socket have no address, and no web page can reach it.
        if request.scope["client"] and not is_own_name(host, socket.gethostname()):
            raise ForbiddenError(
                f"without a token this port only accepts local host names; {host!r} is not one: "
                "use 127.0.0.1 or localhost, or https with a token"
            )
        if peers := request.scope.get(_PEERS):
            await peers.check(request.scope)
        return LOCAL

    async def _authorize(self, request: Request, user: User) -> User:
        """Return the user, or the impersonated user, if that user may make the request. Raises: ForbiddenError."""
        if user is LOCAL and not any(name.startswith("impersonate-") for name in request.headers):
            return user
        return _authorized(request, user, await bindings(self._store))


def _authorized(request: Request, user: User, bound: Sequence[Binding]) -> User:
    user = replace(user, roles=authorization.roles_of(user, bound))
    for required in impersonated(request):
        if authorization.allowed(user, required, bound) is None:
            raise authorization.forbidden(user, required)
    if other := acted_as(request):
        other = replace(other, roles=authorization.roles_of(other, bound))
        authorization.refuse_more(user, other, "use the rights")
        user = other
    required = attributes(request)
    if authorization.allowed(user, required, bound) is None:
        raise authorization.forbidden(user, required)
    return user


def is_stream(request: Request) -> bool:
    """Whether the response is a stream that does not end by itself: a watch, or a followed log."""
    if request.method not in ("GET", "HEAD"):
        return False
    try:
        target = paths.parse(request.scope["path"])
        if target.subresource == "log":
            return request.query_params.get("follow", "").lower() in ("true", "1")
        return not target.subresource and options.is_watch(request.query_params)
    except (BadRequestError, NotFoundError):
        return False


_UPLOADS = re.compile(r"(?:/namespaces/([a-z0-9-]{1,63}))?/uploads(?:/[^/]+)?")
_AS_USER, _AS_GROUP, _AS_UID = "impersonate-user", "impersonate-group", "impersonate-uid"


def impersonated(request: Request) -> list[Attributes]:
    """Return the rights that a request with impersonation (`kubectl --as`) needs."""
    asked = [(name, value) for name, value in request.headers.items() if name.startswith("impersonate-")]
    required = []
    for name, value in asked:
        if name == _AS_USER:
            account = _account(value)
            if account:
                required.append(Attributes("impersonate", "", "serviceaccounts", "", account[0], account[1]))
            else:
                required.append(Attributes("impersonate", "", "users", name=value))
        elif name == _AS_GROUP:
            required.append(Attributes("impersonate", "", "groups", name=value))
        elif name == _AS_UID:
            required.append(Attributes("impersonate", "authentication.k8s.io", "uids", name=value))
        elif name.startswith("impersonate-extra-"):
            field = name.removeprefix("impersonate-extra-")
            required.append(Attributes("impersonate", "authentication.k8s.io", "userextras", field, name=value))
    return required


def acted_as(request: Request) -> User | None:
    """Return the impersonated user of a request; None without impersonation.

    Raises: BadRequestError: groups or other attributes of a user without the user.
    """
    headers = request.headers
    name, groups, uid = headers.get(_AS_USER, ""), headers.getlist(_AS_GROUP), headers.get(_AS_UID, "")
    if not name:
        if any(header.startswith("impersonate-") for header in headers):
            raise BadRequestError("requested impersonation without impersonating a user: send Impersonate-User")
        return None
    if name == ANONYMOUS.name:
        return ANONYMOUS
    account = _account(name)
    if account and not groups:
        return service_account(*account, uid)
    return User(name, tuple(dict.fromkeys([*groups, AUTHENTICATED])), uid)


def _account(name: str) -> tuple[str, str] | None:
    """Namespace and name of the ServiceAccount with this user name; None for other users."""
    parts = name.split(":")
    return (parts[2], parts[3]) if len(parts) == 4 and parts[:2] == ["system", "serviceaccount"] else None


def _subject(request: Request) -> status.Subject | None:
    try:
        place = paths.parse(request.scope["path"]).place
    except NotFoundError:
        return None
    return status.Subject(place.kind, place.name)


async def bindings(store: Store) -> list[Binding]:
    """Return all RoleBindings and ClusterRoleBindings."""
    listings = [await store.list(kind.id) for kind in (ROLE_BINDING, CLUSTER_ROLE_BINDING)]
    return [authorization.binding(body) for listed in listings for body in listed.items]


def upload_namespace(path: str) -> str:
    """The namespace in a path of uploads, `default` if it contains none; empty for other paths."""
    match = _UPLOADS.fullmatch(path)
    return (match[1] or DEFAULT_NAMESPACE) if match else ""


def attributes(request: Request) -> Attributes:
    """Return the attributes of a request for authorization."""
    path, verb = request.scope["path"], _VERBS.get(request.method, request.method.lower())
    if namespace := upload_namespace(path):
        # Users who may create Builds may also upload sources, and check whether a source is already stored.
        return Attributes("create", BUILD_KIND.group, BUILD_KIND.plural, "", namespace)
    for group in (reviews.AUTHORIZATION, reviews.AUTHENTICATION):
        prefix = f"/apis/{group}/v1/"
        if path.startswith(prefix):
            return Attributes(verb, group, path.removeprefix(prefix))
    try:
        target = paths.parse(path)
    except NotFoundError:
        return Attributes(verb, path=path)
    place = target.place
    if verb == "get" and not target.subresource and options.is_watch(request.query_params):
        verb = "watch"
    elif verb == "get" and not place.name:
        verb = "list"
    elif verb == "delete" and not place.name:
        verb = "deletecollection"
    return Attributes(verb, place.kind.group, place.kind.plural, target.subresource, place.namespace, place.name)
