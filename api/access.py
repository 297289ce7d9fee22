"""Lets requests pass whose sender may do what they ask: 401 for tokens that are not believed, 403 for the rest."""

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api import authorization, options, paths, reviews, status
from api.authorization import MASTERS, Attributes, Binding
from api.identity import Authenticator, User
from knoll.errors import KnollError, NotFoundError
from knoll.kinds import CLUSTER_ROLE_BINDING, ROLE_BINDING
from knoll.store import Store

USER = "knoll.user"
"""Where the scope of a request holds its User."""
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Access:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, store: Store, authenticator: Authenticator) -> None:
        self._app = app
        self._store = store
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            try:
                user = await self._authenticator.user(request.headers.get("authorization", ""))
                await self._check(request, user)
            except KnollError as error:
                await status.respond(error)(scope, receive, send)
                return
            scope[USER] = user
        await self._app(scope, receive, send)

    async def _check(self, request: Request, user: User) -> None:
        if MASTERS in user.groups:
            return
        wanted = attributes(request)
        if authorization.allowed(user, wanted, await bindings(self._store)) is None:
            raise authorization.forbidden(user, wanted)


async def bindings(store: Store) -> list[Binding]:
    """Every binding that there is."""
    found = [await store.list(kind.id) for kind in (ROLE_BINDING, CLUSTER_ROLE_BINDING)]
    return [authorization.binding(body) for listed in found for body in listed.items]


def attributes(request: Request) -> Attributes:
    """What a request wants to do."""
    path, verb = request.url.path, _VERBS.get(request.method, request.method.lower())
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
