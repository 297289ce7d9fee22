"""The API process: settings, logs, Redis, store, HTTP servers, controllers, and a graceful stop."""

from knoll.process import footprint

footprint.block_unused_imports()

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import structlog
import uvloop

from api import authority as shared_authority
from api import owner
from api.app import create_app
from api.auth import access
from api.controllers.engine.metrics import ControllerMetrics
from api.controllers.run import run as run_controllers
from api.http import own_certificate, server
from api.http.metrics import ApiMetrics
from api.http.peers import Peers
from api.http.server import ApiServer
from api.resource import bootstrap
from knoll.auth import reencryption
from knoll.process import logs
from knoll.process.settings import ApiSettings
from knoll.redis.client import connected
from knoll.store.config_watcher import ConfigWatcher
from knoll.store.protocol import Store
from knoll.store.redis_store import RedisStore
from knoll.values.errors import KnollError

log = structlog.get_logger()

DAY = 24 * 3600.0
GATHER_SECONDS = 0.01
"""Pause between reads of the event stream, in seconds: a Service that starts causes a few dozen entries."""
STORE_SECONDS = 2.0
"""How long the start waits for the platform's authority in the store, in seconds."""


async def run(settings: ApiSettings, stop: asyncio.Event) -> None:
    """Serve and reconcile until `stop` is set. Raises: OSError: a port is taken, or the state cannot be stored."""
    async with connected(settings.redis_url, "knoll-api", gather_seconds=GATHER_SECONDS) as redis:
        store = RedisStore(redis, keyring=settings.keyring)
        live, config_maps = ConfigWatcher.of(store)
        following = asyncio.create_task(config_maps.run())
        files = (await _certificates_at_start(store, settings)) if settings.api_tls_port else None
        authority = files.authority.read_text() if files else ""
        metrics = ApiMetrics()
        app = create_app(
            store, settings, config=lambda: live.current, redis=redis, authority=authority, metrics=metrics
        )
        connections = server.bounded_connections(lambda: live.current.security.max_connections_per_address)
        trusting = access.TrustedPort(app, Peers(gateway=settings.api_trusts_plain is True))
        plain = trusting if settings.trusts_plain else app
        servers = [server.server(plain, connections, host=settings.api_host, port=settings.api_port, first=True)]
        if files:
            host, port = settings.api_tls_host, settings.api_tls_port
            secure = server.server(app, connections, host=host, port=port, files=files)
            servers.append(secure)
        if settings.api_socket:
            servers.append(server.server(trusting, connections, unix=settings.api_socket))

        async def on_created() -> None:
            if files:
                await _check_authority(store, settings, authority, stop)
                await owner.write(store, redis, settings, authority)

        helpers = [
            following,
            asyncio.create_task(bootstrap.ensure(store, settings, on_created)),
            asyncio.create_task(reencryption.at_start(redis, settings.keyring)),
            asyncio.create_task(_end(stop, servers, app.state.watches.close)),
            *([asyncio.create_task(_renew(settings, secure, on_created))] if files else []),
        ]
        controllers = asyncio.create_task(
            run_controllers(store, redis, settings, stop, ControllerMetrics(metrics.registry))
        )
        # A bug that ends the controllers ends the process, and the supervisor restarts it.
        controllers.add_done_callback(lambda _: stop.set())
        try:
            await _serve(servers, stop)
        finally:
            stop.set()
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await controllers
            await store.close()


async def _certificates_at_start(store: Store, settings: ApiSettings) -> own_certificate.Files:
    """Return the certificates for HTTPS; while Redis is unavailable, those in the folder."""
    try:
        async with asyncio.timeout(STORE_SECONDS):
            await shared_authority.synchronise(store, settings.state_dir, datetime.now(UTC))
    except (KnollError, TimeoutError) as error:
        log.warning("authority not read from the store", error=str(error) or "no response")
    return (await asyncio.to_thread(_certificates, settings))[0]


async def _check_authority(store: Store, settings: ApiSettings, served: str, stop: asyncio.Event) -> None:
    """Store the authority if the store has none; stop if the stored one differs from the one that this process uses.

    The supervisor then restarts the process. This happens if it started without Redis, and its folder was empty or of
    another platform.
    """
    authority = await shared_authority.synchronise(store, settings.state_dir, datetime.now(UTC))
    if authority.certificate_pem != served.encode():
        log.error("api stopping: the platform has another authority than this process", folder=str(settings.state_dir))
        stop.set()


def _certificates(settings: ApiSettings) -> tuple[own_certificate.Files, bool]:
    return own_certificate.load_or_issue(settings.state_dir, settings.tls_names, datetime.now(UTC))


async def _serve(servers: Sequence[ApiServer], stop: asyncio.Event) -> None:
    async def serve(listener: ApiServer) -> None:
        try:
            await listener.serve()
        except OSError as error:
            raise OSError(f"cannot listen on {listener.address}; is the port taken? ({error.strerror})") from None
        finally:
            stop.set()

    results = await asyncio.gather(*(serve(listener) for listener in servers), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _renew(settings: ApiSettings, secure: ApiServer, on_created: Callable[[], Awaitable[None]]) -> None:
    """Renew certificate and kubeconfig before they expire."""
    while True:
        await asyncio.sleep(DAY)
        try:
            files, fresh = await asyncio.to_thread(_certificates, settings)
            if fresh and secure.config.ssl:
                secure.config.ssl.load_cert_chain(files.certificate, files.key)
            await on_created()
        except (OSError, KnollError) as error:
            log.warning("certificate not renewed", error=str(error))


async def _end(stop: asyncio.Event, servers: Sequence[ApiServer], close_watches: Callable[[], None]) -> None:
    await stop.wait()
    log.info("api stopping")
    close_watches()
    for listener in servers:
        listener.should_exit = True


async def main() -> int:
    """Run the process; returns its exit code."""
    settings = ApiSettings.or_exit()
    logs.set_up(settings.log_level, settings.log_format, "api")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    log.info("api starting", host=settings.api_host, port=settings.api_port)
    try:
        await run(settings, stop)
    except OSError as error:
        log.error("api failed", error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    footprint.freeze_gc()
    # Requests and reconciliations leave few cycles: a collection after every 700 new objects finds little.
    gc.set_threshold(5_000, 20, 10)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
