"""Writes the kubeconfig with which the platform's owner uses the API over TLS.

Its token is in the store, so that all API servers write the same one. Token and file are written at the start, and
again when they are no longer valid: after a change of the signing key, the ServiceAccount or the address, or shortly
before the token expires. A token that an earlier release wrote to the file is used if it is valid.
"""

import time
from datetime import timedelta
from pathlib import Path

import structlog
import yaml

from api.http.own_certificate import write_private
from api.resource import bootstrap, stored_secrets
from knoll.auth import kubeconfig, token_key, tokens
from knoll.process.settings import ApiSettings
from knoll.redis.client import RedisClient
from knoll.store.protocol import Store
from knoll.values.errors import UnauthorizedError
from knoll.values.json import Json
from knoll.values.kinds import CONFIG_MAP, SERVICE_ACCOUNT

log = structlog.get_logger()

LIFE = timedelta(days=365)
RENEWED_BEFORE = timedelta(days=30)
TOKEN = (bootstrap.CREDENTIALS_NAMESPACE, "knoll-owner")
"""Secret with the owner's token."""
_TOKEN = "token"  # noqa: S105 - the name of a field


async def write(store: Store, redis: RedisClient, settings: ApiSettings, authority: str) -> None:
    """Write the kubeconfig unless a valid one exists, and publish the API's address in the ConfigMap `cluster-info`.

    Args:
        authority: PEM of the authority that clients of the API trust.

    Raises: OSError: the folder cannot be written. NotFoundError: the owner's ServiceAccount does not exist yet.
        ConflictError: another API server wrote the token at the same time. StoreUnavailableError.
    """
    namespace, name = kubeconfig.CLUSTER_INFO
    server = f"https://{settings.gateway_address}:{settings.api_tls_port}"
    public = yaml.safe_dump(kubeconfig.document(server, authority), sort_keys=False)
    await bootstrap.create_or_update(store, CONFIG_MAP, namespace, name, {"data": {"kubeconfig": public}})
    token = await _shared_token(store, redis, settings)
    document = kubeconfig.document(server, authority, token, user=kubeconfig.OWNER[1])
    path = settings.kubeconfig
    if _read(path) != document:
        write_private(path, yaml.safe_dump(document, sort_keys=False).encode())
        log.info("owner's kubeconfig written", path=str(path))


async def _shared_token(store: Store, redis: RedisClient, settings: ApiSettings) -> str:
    """Return the owner's token. The first API server that finds no valid one stores it for all."""
    account = await store.get(SERVICE_ACCOUNT.id, *kubeconfig.OWNER)
    key = await token_key.shared_key(redis, settings.keyring)
    now, uid = time.time(), account["metadata"]["uid"]
    stored = await stored_secrets.read(store, *TOKEN)
    token = stored.data.get(_TOKEN, b"").decode(errors="replace")
    if _is_valid(token, key, uid, now):
        return token
    local = _token_of(_read(settings.kubeconfig))
    namespace, name = kubeconfig.OWNER
    token = (
        local
        if _is_valid(local, key, uid, now)
        else tokens.mint(key, namespace=namespace, name=name, uid=uid, now=now, seconds=int(LIFE.total_seconds()))
    )
    await stored_secrets.write(store, *TOKEN, {_TOKEN: token.encode()}, stored)
    return token


def _read(path: Path) -> Json | None:
    """Read a kubeconfig; None if it is missing or not a YAML mapping."""
    try:
        document = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError):
        return None
    return document if isinstance(document, dict) else None


def _token_of(document: Json | None) -> str:
    try:
        return str((document or {})["users"][0]["user"]["token"])
    except (LookupError, TypeError):
        return ""


def _is_valid(token: str, key: tokens.SigningKey, uid: str, now: float) -> bool:
    try:
        claims = tokens.verify(key, token, now)
    except UnauthorizedError:
        return False
    return claims.uid == uid and now + RENEWED_BEFORE.total_seconds() < claims.expires
