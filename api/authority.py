"""The platform's certificate authority in the store, shared by the API servers of all machines.

It is a Secret, so the store encrypts it. Each server keeps a copy in a folder: it is used when the server starts
without Redis, and restores the authority in a store that lost its data. Earlier releases had only the folder.
"""

from datetime import datetime
from pathlib import Path

import structlog

from api.http import own_certificate
from api.resource import stored_secrets
from api.resource.machines import AUTHORITY
from knoll.auth import certificates
from knoll.auth.certificates import Issued
from knoll.store.protocol import Store
from knoll.values.errors import ConflictError

log = structlog.get_logger()

_CERTIFICATE, _KEY = "tls.crt", "tls.key"
_ATTEMPTS = 5


async def synchronise(store: Store, folder: Path, now: datetime) -> Issued:
    """Return the platform's authority, and update the folder's copy.

    The first API server stores it, from its folder if that has a valid one, otherwise a new one; the others use it. It
    is replaced only shortly before it expires.

    Args: now: with a time zone.

    Raises: OSError: the folder cannot be written. StoreUnavailableError, SealedError. ConflictError: other processes
        keep changing it.
    """
    for _ in range(_ATTEMPTS):
        stored = await stored_secrets.read(store, *AUTHORITY)
        authority = certificates.parse(stored.data.get(_CERTIFICATE, b""), stored.data.get(_KEY, b""))
        if authority is None or not authority.is_valid(now):
            local = own_certificate.load_authority(folder)
            usable = local is not None and local.is_valid(now)
            authority = local if local is not None and usable else certificates.new_authority(now)
            content = {_CERTIFICATE: authority.certificate_pem, _KEY: authority.key_pem}
            try:
                await stored_secrets.write(store, *AUTHORITY, content, stored)
            except ConflictError:
                continue  # another API server stored one first: use that
            log.info("authority stored", created=not usable)
        if _differs(own_certificate.load_authority(folder), authority):
            own_certificate.keep_authority(folder, authority)
        return authority
    raise ConflictError(f"the Secret {'/'.join(AUTHORITY)} is being changed by other processes")


def _differs(local: Issued | None, authority: Issued) -> bool:
    return local is None or (local.certificate, local.key_pem) != (authority.certificate, authority.key_pem)
