"""Applies ConfigMaps to the data path, and provides certificates of mapped domains."""

import asyncio
import ssl
from collections.abc import Callable

from activator.routing.proxy_state import ProxyState
from activator.sync.access_log import AccessLog
from activator.sync.certificates import Certificates
from activator.wire.connection_limit import bounded
from activator.wire.forwarding import Proxies
from knoll.config.platform import PlatformConfig
from knoll.store.config_watcher import ConfigWatcher
from knoll.store.informer import Informer
from knoll.store.protocol import Source
from knoll.values.kinds import DOMAIN_MAPPING, SECRET


class ConfigWatch:
    """Applies ConfigMaps, DomainMappings and Secrets to the state of a worker."""

    def __init__(
        self,
        proxy: ProxyState,
        store: Source,
        *,
        tls: bool = False,
        keep_line: Callable[[str, bytes], None] | None = None,
    ) -> None:
        """
        Args:
            tls: there are ports for TLS, so certificates are needed.
            keep_line: see `AccessLog`.
        """
        self._proxy = proxy
        self._access_log = AccessLog(proxy, keep_line)
        live, config_maps = ConfigWatcher.of(store)
        self._informers = [config_maps]
        live.subscribe(self._configure)
        self._configure(live.current)
        self.tls: ssl.SSLContext | None = None
        if tls:
            mappings, secrets = Informer(store, DOMAIN_MAPPING.id), Informer(store, SECRET.id)
            self._informers += [mappings, secrets]
            self.tls = Certificates(mappings, secrets).context

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for informer in self._informers:
                tasks.create_task(informer.run())
            tasks.create_task(self._access_log.run())

    def _configure(self, config: PlatformConfig) -> None:
        self._proxy.tag_header = config.features.tag_header_based_routing == "Enabled"
        network = config.network
        self._proxy.set_client_rules(Proxies(network.trusted_proxies), network.headers_with_underscores)
        self._proxy.connection_limit.most = bounded(network.max_connections_per_address)
        self._access_log.template = config.observability.request_log_template
        self._access_log.sample_rate = config.observability.request_log_sample_rate
        self._access_log.requests = config.observability.enable_request_log
        self._access_log.probes = config.observability.enable_probe_request_log
        logs = self._access_log.requests or self._access_log.probes
        self._proxy.log_request = self._access_log.add if logs else None
