"""TLS certificates of mapped domains, chosen by the host name that a client asks for (SNI)."""

import base64
import binascii
import ssl
import tempfile
from pathlib import Path

import structlog

from knoll.store.informer import Informer, ObjectChange
from knoll.values.json import Json

log = structlog.get_logger()


class Certificates:
    """Selects the certificate by the host in the TLS handshake (SNI)."""

    def __init__(self, mappings: Informer, secrets: Informer) -> None:
        """Args: mappings, secrets: informers that the caller runs."""
        self._mappings = mappings
        self._secrets = secrets
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.context = _context()
        self.context.sni_callback = self._choose
        mappings.subscribe(self._forget)
        secrets.subscribe(self._forget)

    def _forget(self, _: ObjectChange) -> None:
        self._contexts.clear()

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        host = (name or "").lower().rstrip(".")
        context = self._contexts.get(host)
        if context is None:
            context = self._load(host)
        if context is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = context
        return None

    def _load(self, host: str) -> ssl.SSLContext | None:
        mappings = self._mappings.keys()
        for key in mappings:
            namespace, _, name = key.partition("/")
            if name != host:
                continue
            mapping = self._mappings.get(namespace, name) or {}
            if not _claimed(mapping):
                continue  # another namespace owns the host and provides its certificate
            secret_name = ((mapping.get("spec") or {}).get("tls") or {}).get("secretName")
            secret = self._secrets.get(namespace, secret_name) if secret_name else None
            context = _with_certificate(secret) if secret is not None else None
            if context is not None:
                self._contexts[host] = context
                return context
        return None


def _claimed(mapping: Json) -> bool:
    """Whether the controllers found that the host belongs to the DomainMapping's namespace."""
    conditions = (mapping.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "DomainClaimed" and each["status"] == "True" for each in conditions)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _with_certificate(secret: Json) -> ssl.SSLContext | None:
    """Return a context with the Secret's certificate; None if it is invalid, which is logged."""
    context = _context()
    try:
        pair = b"\n".join(base64.b64decode(secret["data"][key]) for key in ("tls.key", "tls.crt"))
        # OpenSSL reads certificates from files only; this one is private and removed at once.
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "pair.pem"
            file.touch(0o600)
            file.write_bytes(pair)
            context.load_cert_chain(file)
    except (KeyError, TypeError, binascii.Error, ssl.SSLError) as error:
        log.warning("certificate rejected", secret=secret["metadata"]["name"], error=str(error))
        return None
    return context
