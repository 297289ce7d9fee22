"""The API's endpoints for machines below `/cluster`: joining, certificates, members, images, uploaded sources.

Requests authenticate with a join token, with the token of the machine's own ServiceAccount, which has no other rights,
or, between processes, with a token signed by a key that the processes share.
"""

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import msgspec
import orjson
import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.auth.authenticator import Authenticator
from api.http.body_reader import parsed_body
from api.resource import bootstrap, stored_secrets
from api.resource.uploads import Uploads
from api.wire import status
from knoll import __version__
from knoll.auth import certificates, join_tokens, process_tokens, token_key, tokens
from knoll.auth.certificates import Issued
from knoll.auth.join_tokens import JoinToken
from knoll.cluster import bundle, managers
from knoll.cluster.members import ACCOUNT, KEY_ANNOTATION, account_of, members_of
from knoll.messages.nodes import NODES, Node
from knoll.redis.client import RedisClient
from knoll.redis.encryption import Keyring
from knoll.store.protocol import Store
from knoll.tables.redis_tables import RedisTable
from knoll.values import versions
from knoll.values.errors import (
    BadRequestError,
    ConflictError,
    NotFoundError,
    StoreUnavailableError,
    UnauthorizedError,
)
from knoll.values.json import Json
from knoll.values.kinds import SERVICE_ACCOUNT
from knoll.values.node import NODE as SINGLE

log = structlog.get_logger()

AUTHORITY = (bootstrap.CREDENTIALS_NAMESPACE, "knoll-authority")
TOKEN_SECONDS = 365 * 24 * 3600
_CHUNK = 1024 * 1024


class Machines:
    """The handlers."""

    def __init__(
        self,
        store: Store,
        redis: RedisClient,
        keyring: Keyring,
        authenticator: Authenticator,
        uploads: Uploads,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Args: clock: returns epoch seconds."""
        self._store, self._redis, self._keyring = store, redis, keyring
        self._authenticator, self._uploads, self._clock = authenticator, uploads, clock

    async def join(self, request: Request) -> Response:
        """POST `/cluster/nodes/NAME` with a join token: a new machine becomes a member.

        A machine may repeat its request: the same key gets a certificate again.

        Raises: UnauthorizedError. BadRequestError: an invalid name or request. ConflictError: another machine has the
            name, or its version may not be in the cluster.
        """
        stored = await self._join_token(request)
        name, body = _node_of(request), await _body(request)
        signing_request = _signing_request(body)
        await self._check_version(name, body.get("version"))
        fingerprint = _fingerprint(signing_request)
        account = {"metadata": {"name": account_of(name), "annotations": {KEY_ANNOTATION: fingerprint}}}
        await bootstrap.create_missing(
            self._store, SERVICE_ACCOUNT, bootstrap.CREDENTIALS_NAMESPACE, account_of(name), account
        )
        issued = await self._issued(name, signing_request)
        if stored.get(join_tokens.ROLE) == managers.MANAGER.encode():
            await self._make_manager(name, _address(body))
        listing = await self._accounts()
        membership = {
            "id": (await self._account(name))["metadata"]["uid"],
            "managers": msgspec.to_builtins(managers.managers_of(listing)),
        }
        log.info("machine joined", node=name, key=fingerprint)
        sealed = base64.b64encode(stored[join_tokens.BUNDLE]).decode()
        return _json({**issued, **membership, "bundle": sealed}, 201)

    async def _check_version(self, name: str, version: object) -> None:
        """Raises: ConflictError: the machine's version is too far from this API's, or from another machine's."""
        if not isinstance(version, str):
            return  # an earlier version sends none
        _, entries = await RedisTable(self._redis, NODES, Node).snapshot()
        others = {other: entry.version for other, (_, entry) in entries.items() if other != name}
        if problem := versions.problem(version, {"the API": f"v{__version__}", **others}):
            raise ConflictError(f'nodes "{name}" cannot join: {problem}')

    async def renew(self, request: Request) -> Response:
        """POST `/cluster/nodes/NAME/certificate` with the machine's token: a new certificate and a new token."""
        name = await self._node(request)
        if name != _node_of(request):
            raise UnauthorizedError("Unauthorized")
        return _json(await self._issued(name, _signing_request(await _body(request))), 201)

    async def list_members(self, request: Request) -> Response:
        """GET `/cluster/nodes` with a machine's token: all machines, and the addresses of those that report."""
        await self._node(request)
        accounts = await self._accounts()
        _, entries = await RedisTable(self._redis, NODES, Node).snapshot()
        addresses = {name: entry.address for name, (_, entry) in entries.items()}
        listed = [{"name": name, "address": addresses.get(name, "")} for name in sorted(members_of(accounts))]
        return _json({"nodes": listed, "managers": msgspec.to_builtins(managers.managers_of(accounts))})

    async def images(self, request: Request) -> Response:
        """GET `/cluster/images` with a join token: the platform's images in the format of `docker load`."""
        stored = await self._join_token(request)
        upload = stored.get(join_tokens.IMAGE, b"").decode(errors="replace")
        return await self._file(bootstrap.CREDENTIALS_NAMESPACE, upload)

    async def script(self, request: Request) -> Response:
        """GET `/cluster/script` with a join token: the script that the new machine runs."""
        stored = await self._join_token(request)
        token = request.headers["authorization"].partition(" ")[2].encode()
        script = stored.get(join_tokens.SCRIPT, b"").replace(join_tokens.PLACEHOLDER, token)
        return Response(script, media_type="text/x-shellscript")

    async def source(self, request: Request) -> Response:
        """GET `/cluster/uploads/NAMESPACE/ID` with a token of another process: an uploaded source.

        Raises: UnauthorizedError. NotFoundError: this machine does not have it.
        """
        namespace, upload = request.path_params["namespace"], request.path_params["id"]
        header = request.headers.get("authorization", "")
        process_tokens.check_shared(self._keyring, header, f"upload {namespace}/{upload}", self._clock())
        return await self._file(namespace, upload)

    async def _file(self, namespace: str, upload: str) -> Response:
        stored = await asyncio.to_thread(self._uploads.find, namespace, upload)
        path = self._uploads.path(namespace, stored.id)
        headers = {"Content-Length": str(stored.size)}
        return StreamingResponse(_chunks(path), media_type="application/x-tar", headers=headers)

    async def _join_token(self, request: Request) -> dict[str, bytes]:
        """Return the Secret of a request's join token. Raises: UnauthorizedError."""
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        try:
            token = JoinToken.parse(text if scheme == "Bearer" else "")
        except ValueError:
            raise UnauthorizedError("Unauthorized") from None
        stored = await stored_secrets.read(self._store, join_tokens.NAMESPACE, token.object_name)
        token.check(stored.data, self._clock())
        return dict(stored.data)

    async def _node(self, request: Request) -> str:
        """Return the machine that a request's token belongs to. Raises: UnauthorizedError."""
        user = await self._authenticator.user(request.headers.get("authorization", ""))
        prefix = f"system:serviceaccount:{bootstrap.CREDENTIALS_NAMESPACE}:{ACCOUNT}"
        if not user.name.startswith(prefix):
            raise UnauthorizedError("Unauthorized")
        name = user.name.removeprefix(prefix)
        await self._account(name)
        return name

    async def _accounts(self) -> Sequence[Json]:
        return (await self._store.list(SERVICE_ACCOUNT.id, bootstrap.CREDENTIALS_NAMESPACE)).items

    async def _make_manager(self, name: str, address: str) -> None:
        """Give a member a slot, or keep the one that it has. Raises: ConflictError: all slots are taken."""
        while True:
            account = await self._account(name)
            others = [each for each in await self._accounts() if each["metadata"]["name"] != account_of(name)]
            # Two machines may join at the same time: the one that was written later chooses again.
            earlier = [each for each in others if _version(each) < _version(account)]
            own = next((each.slot for each in managers.managers_of([account])), 0)
            if not own or any(each.slot == own for each in managers.managers_of(earlier)):
                own = managers.free_slot(managers.managers_of(others))
            before = account["metadata"]["annotations"]
            annotations = {**before, **managers.annotations_of(own, address)}
            if annotations == before:
                return
            body = {**account, "metadata": {**account["metadata"], "annotations": annotations}}
            with contextlib.suppress(ConflictError):
                await self._store.update(SERVICE_ACCOUNT.id, body, before=account)

    async def _account(self, name: str) -> Json:
        """Return the ServiceAccount of a member. Raises: UnauthorizedError."""
        try:
            body = await self._store.get(SERVICE_ACCOUNT.id, bootstrap.CREDENTIALS_NAMESPACE, account_of(name))
        except NotFoundError:
            raise UnauthorizedError("Unauthorized") from None
        if name not in members_of([body]):
            raise UnauthorizedError("Unauthorized")
        return body

    async def _issued(self, name: str, signing_request: bytes) -> Json:
        """Return a certificate for the key of a member, and a token. Raises: ConflictError: it has another key."""
        account = await self._account(name)
        if account["metadata"]["annotations"][KEY_ANNOTATION] != _fingerprint(signing_request):
            raise ConflictError(
                f'nodes "{name}" already exists with another key: choose another name, or remove it first with '
                f"`knoll node rm {name}`"
            )
        authority = await self._authority()
        now = self._clock()
        try:
            certificate = certificates.issue_node(authority, name, signing_request, datetime.fromtimestamp(now, UTC))
        except ValueError as error:
            raise BadRequestError(f"request: {error}") from error
        key = await token_key.shared_key(self._redis, self._keyring)
        token = tokens.mint(
            key,
            namespace=bootstrap.CREDENTIALS_NAMESPACE,
            name=account_of(name),
            uid=account["metadata"]["uid"],
            now=now,
            seconds=TOKEN_SECONDS,
        )
        return {
            "name": name,
            "authority": authority.certificate_pem.decode(),
            "certificate": certificate.decode(),
            "token": token,
        }

    async def _authority(self) -> Issued:
        stored = await stored_secrets.read(self._store, *AUTHORITY)
        authority = certificates.parse(stored.data.get("tls.crt", b""), stored.data.get("tls.key", b""))
        if authority is None:
            raise StoreUnavailableError("the platform has no authority yet: the API does not serve HTTPS")
        return authority


def _node_of(request: Request) -> str:
    name = str(request.path_params["name"])
    if not bundle.NODE_NAME.fullmatch(name) or name == SINGLE:
        raise BadRequestError(
            f'"{name[:80]}" is not a valid name of a node: at most 52 lower-case letters, digits, dots and hyphens, '
            f'beginning and ending with a letter or digit, and not "{SINGLE}"'
        )
    return name


async def _body(request: Request) -> Json:
    parsed = await parsed_body(request, duplicates=False)
    return parsed.value if isinstance(parsed.value, dict) else {}


def _version(account: Json) -> int:
    return int(account["metadata"]["resourceVersion"])


def _address(body: Json) -> str:
    try:
        return str(ip_address(str(body.get("address", ""))))
    except ValueError:
        raise BadRequestError("address: the IP address of the machine is required for a manager") from None


def _signing_request(body: Json) -> bytes:
    text = body.get("request")
    if not isinstance(text, str):
        raise BadRequestError("request: a certificate signing request as PEM is required")
    return text.encode()


def _fingerprint(signing_request: bytes) -> str:
    try:
        return certificates.request_fingerprint(signing_request)
    except ValueError as error:
        raise BadRequestError(f"request: {error}") from error


def _json(value: Json, code: int = 200) -> Response:
    return Response(orjson.dumps(value), code, media_type=status.JSON_TYPE)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
    finally:
        await asyncio.to_thread(file.close)
