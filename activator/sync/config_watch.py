"""What of the platform's objects the data path goes by: flags of ConfigMaps, certificates of mapped domains."""

import asyncio
import base64
import binascii
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path

import structlog

from activator.routing.gateway import Gateway
from activator.sync.access_log import AccessLog
from activator.wire.crowds import bounded
from activator.wire.forwarding import Proxies
from knoll.config.platform import PlatformConfig
from knoll.store.config_watcher import LiveConfig
from knoll.store.informer import Informer, Notice
from knoll.store.protocol import Json, Source
from knoll.values.kinds import DOMAIN_MAPPING, SECRET

log = structlog.get_logger()


class Configured:
    """Keeps a gateway as ConfigMaps, DomainMappings and Secrets say."""

    def __init__(
        self,
        gateway: Gateway,
        store: Source,
        *,
        tls: bool = False,
        keep_line: Callable[[str, bytes], None] | None = None,
    ) -> None:
        """
        Args:
            tls: there are ports for it, so certificates are wanted.
            keep_line: see `AccessLog`.
        """
        self._gateway = gateway
        self._access_log = AccessLog(gateway, keep_line)
        live, config_maps = LiveConfig.of(store)
        self._informers = [config_maps]
        live.subscribe(self._configure)
        self._configure(live.current)
        self.tls: ssl.SSLContext | None = None
        if tls:
            mappings, secrets = Informer(store, DOMAIN_MAPPING.id), Informer(store, SECRET.id)
            self._informers += [mappings, secrets]
            self.tls = Certificates(mappings, secrets).context

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            for informer in self._informers:
                tasks.create_task(informer.run())
            tasks.create_task(self._access_log.run())

    def _configure(self, config: PlatformConfig) -> None:
        self._gateway.tag_header = config.features.tag_header_based_routing == "Enabled"
        network = config.network
        self._gateway.trust(Proxies(network.trusted_proxies), network.headers_with_underscores)
        self._gateway.crowds.most = bounded(network.max_connections_per_address)
        self._access_log.template = config.observability.request_log_template
        self._access_log.part = config.observability.request_log_sample_rate
        self._access_log.requests = config.observability.enable_request_log
        self._access_log.probes = config.observability.enable_probe_request_log
        logs = self._access_log.requests or self._access_log.probes
        self._gateway.log_request = self._access_log.add if logs else None


class Certificates:
    """Chooses the certificate by the host that a client asks for (SNI)."""

    def __init__(self, mappings: Informer, secrets: Informer) -> None:
        """Args: both run by somebody else."""
        self._mappings = mappings
        self._secrets = secrets
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.context = _context()
        self.context.sni_callback = self._choose
        mappings.subscribe(self._forget)
        secrets.subscribe(self._forget)

    def _forget(self, _: Notice) -> None:
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
                continue  # another namespace owns the host, and chooses its certificate
            secret_name = ((mapping.get("spec") or {}).get("tls") or {}).get("secretName")
            secret = self._secrets.get(namespace, secret_name) if secret_name else None
            context = _with_certificate(secret) if secret is not None else None
            if context is not None:
                self._contexts[host] = context
                return context
        return None


def _claimed(mapping: Json) -> bool:
    """Whether the host belongs to the DomainMapping's namespace, as the controllers found."""
    conditions = (mapping.get("status") or {}).get("conditions") or ()
    return any(found["type"] == "DomainClaimed" and found["status"] == "True" for found in conditions)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _with_certificate(secret: Json) -> ssl.SSLContext | None:
    """A context with the Secret's certificate; None when it cannot be used, which is logged."""
    context = _context()
    try:
        pair = b"\n".join(base64.b64decode(secret["data"][key]) for key in ("tls.key", "tls.crt"))
        # OpenSSL reads certificates from files alone. This one is ours, and gone when it was read.
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "pair.pem"
            file.touch(0o600)
            file.write_bytes(pair)
            context.load_cert_chain(file)
    except (KeyError, TypeError, binascii.Error, ssl.SSLError) as error:
        log.warning("certificate cannot be used", secret=secret["metadata"]["name"], error=str(error))
        return None
    return context
