"""Writes the kubeconfig with which the platform's owner uses the API over TLS.

It is written at the start, and again when it is no longer valid: after a change of the signing key, the ServiceAccount
or the address, or shortly before its token expires.
"""

import time
from datetime import timedelta
from pathlib import Path

import structlog
import yaml

from api.http.own_certificate import write_private
from api.resource import bootstrap
from knoll.auth import kubeconfig, token_key, tokens
from knoll.process.settings import ApiSettings
from knoll.redis.client import RedisClient
from knoll.store.protocol import Store
from knoll.values.errors import UnauthorizedError
from knoll.values.kinds import CONFIG_MAP, SERVICE_ACCOUNT

log = structlog.get_logger()

LIFE = timedelta(days=365)
RENEWED_BEFORE = timedelta(days=30)


async def write(store: Store, redis: RedisClient, settings: ApiSettings, authority: str) -> None:
    """Write the kubeconfig unless a valid one exists, and publish the API's address in the ConfigMap `cluster-info`.

    Args:
        authority: PEM of the authority that clients of the API trust.

    Raises: OSError: the folder cannot be written. NotFoundError: the owner's ServiceAccount does not exist yet.
        ConflictError, StoreUnavailableError.
    """
    namespace, name = kubeconfig.CLUSTER_INFO
    server = f"https://{settings.gateway_address}:{settings.api_tls_port}"
    public = yaml.safe_dump(kubeconfig.document(server, authority), sort_keys=False)
    await bootstrap.create_or_update(store, CONFIG_MAP, namespace, name, {"data": {"kubeconfig": public}})
    account = await store.get(SERVICE_ACCOUNT.id, *kubeconfig.OWNER)
    key = await token_key.shared_key(redis, settings.keyring)
    path, now, uid = settings.kubeconfig, time.time(), account["metadata"]["uid"]
    if _is_good(path, server, authority, key, uid, now):
        return
    owner_namespace, owner = kubeconfig.OWNER
    token = tokens.mint(key, namespace=owner_namespace, name=owner, uid=uid, now=now, seconds=int(LIFE.total_seconds()))
    document = kubeconfig.document(server, authority, token, user=owner)
    write_private(path, yaml.safe_dump(document, sort_keys=False).encode())
    log.info("owner's kubeconfig written", path=str(path))


def _is_good(path: Path, server: str, authority: str, key: tokens.SigningKey, uid: str, now: float) -> bool:
    try:
        document = yaml.safe_load(path.read_bytes())
        token = str(document["users"][0]["user"]["token"])
        claims = tokens.verify(key, token, now)
        same = document == kubeconfig.document(server, authority, token, user=document["users"][0]["name"])
    except (OSError, yaml.YAMLError, LookupError, TypeError, UnauthorizedError):
        return False
    return same and claims.uid == uid and now + RENEWED_BEFORE.total_seconds() < claims.expires
