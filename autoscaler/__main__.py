"""The autoscaler process: settings, engine, leadership.

Two words make it do something else: `--remove-all` takes the platform's containers away, `--network` makes sure of the
instance network and prints this machine's address on it.
"""

from knoll.process import footprint

footprint.block_unused_imports()

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import msgspec
import structlog
from redis.exceptions import RedisError

from autoscaler.decision.capacity import Machine
from autoscaler.io import metrics, views
from autoscaler.leader.leader import Autoscaler
from autoscaler.node.isolation import FirewallSocket, Isolation
from autoscaler.probes.checks import Checker
from autoscaler.revisions.revision_scaler import Scaler
from autoscaler.runtime.docker.docker_runtime import DockerRuntime
from autoscaler.runtime.protocol import Runtime
from knoll.auth.token_key import shared_key
from knoll.concurrency.backoff import Backoff
from knoll.messages.endpoints import ENDPOINTS, RevisionEndpoints
from knoll.messages.instances import INSTANCES, RevisionInstances
from knoll.messages.scale import SCALE, ScaleStatus
from knoll.process import admin, logs
from knoll.process.settings import AutoscalerSettings
from knoll.redis.client import connect
from knoll.redis.lease import Lease
from knoll.store.redis_store import FEW_BUFFERED_EVENTS, RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values.errors import KnollError

log = structlog.get_logger()

OpenRuntime = AbstractAsyncContextManager[Runtime]
REMOVE_ALL, NETWORK = "--remove-all", "--network"


def runtime_for(settings: AutoscalerSettings) -> DockerRuntime:
    """The engine's driver, which leads nothing yet: a standby may be open beside the leader."""
    return DockerRuntime(
        socket=settings.docker_socket,
        platform=settings.platform,
        network=settings.instance_network,
        warm_sandboxes=settings.warm_sandboxes,
        dns=str(settings.instance_dns or ""),
        standby=True,
    )


async def serve(settings: AutoscalerSettings, make: Callable[[AutoscalerSettings], OpenRuntime] = runtime_for) -> None:
    """Run until SIGTERM or SIGINT; instances run on.

    Args: make: gives the runtime; `bench` passes one that needs no engine.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    redis = connect(settings.redis_url, "autoscaler")
    keyring = settings.keyring
    store = RedisStore(redis, ring=FEW_BUFFERED_EVENTS, keyring=keyring)
    async with make(settings) as runtime, Checker() as checker:
        endpoints = RedisTable(redis, ENDPOINTS, RevisionEndpoints)
        scale = RedisTable(redis, SCALE, ScaleStatus)
        instances = RedisTable(redis, INSTANCES, RevisionInstances)
        holder = Leader(
            runtime,
            lambda: Autoscaler(
                runtime,
                checker,
                store,
                redis,
                endpoints,
                scale,
                instances,
                firewall=FirewallSocket(settings.firewall_socket) if settings.firewall_socket else None,
                machine=Machine(settings.capacity_cpu, settings.capacity_memory_bytes, settings.paused_memory_fraction),
                tick_seconds=settings.tick_seconds,
                quiet_seconds=settings.quiet_seconds,
                keyring=keyring,
            ),
        )

        async def ready() -> str:
            try:
                await redis.ping()
                await runtime.capacity()
            except (RedisError, KnollError) as error:
                return str(error)
            return holder.problem

        lease = Lease(redis, "autoscaler", f"{socket.gethostname()}-{os.getpid()}")
        leading = loop.create_task(lease.lead(holder.duty))
        shown = views.routes(runtime, holder, partial(shared_key, redis, keyring))
        application = admin.app(
            ready,
            shown,
            metrics.exposition(lambda: holder.scalers),
        )
        serving = loop.create_task(admin.serve(application, settings.admin_host, settings.autoscaler_admin_port, stop))
        footprint.freeze_gc()
        gc.set_threshold(10_000, 20, 100)  # seldom by itself, in the middle of a start: the loop has its own times
        await asyncio.wait({leading, serving}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        leading.cancel()
        results = await asyncio.gather(leading, serving, return_exceptions=True)
    await store.close()
    await redis.aclose()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


class Leader:
    """The Autoscaler of this process while it leads; a new one each time."""

    def __init__(self, runtime: Runtime, make: Callable[[], Autoscaler]) -> None:
        self._runtime, self._make = runtime, make
        self.scalers: dict[str, Scaler] = {}
        self._isolation: Isolation | None = None

    @property
    def problem(self) -> str:
        """What keeps instances from being started; empty for nothing."""
        return self._isolation.problem if self._isolation else ""

    async def duty(self) -> None:
        autoscaler = self._make()
        self.scalers, self._isolation = autoscaler.scalers, autoscaler.isolation
        try:
            await self._take_over()
            await autoscaler.run()
        finally:
            self.scalers, self._isolation = {}, None
            await self._runtime.step_down()

    async def _take_over(self) -> None:
        """The engine may be away, and comes back as often as not: nothing can be done but wait for it."""
        backoff = Backoff()
        while True:
            try:
                await self._runtime.take_over()
                return
            except KnollError as error:
                log.warning("cannot look after instances yet", error=str(error))
                await backoff.wait()


async def remove_all(settings: AutoscalerSettings) -> None:
    """Take everything of this platform off the engine."""
    async with runtime_for(msgspec.structs.replace(settings, warm_sandboxes=0)) as runtime:
        await runtime.destroy()


async def show_network(settings: AutoscalerSettings) -> None:
    """Print the address of this machine on the instance network, which is made when it is missing."""
    async with runtime_for(msgspec.structs.replace(settings, warm_sandboxes=0)) as runtime:
        print(await runtime.gateway())  # noqa: T201 - for `knoll up`


def main() -> None:
    unknown = [word for word in sys.argv[1:] if word not in (REMOVE_ALL, NETWORK)]
    if unknown:
        known = f"{REMOVE_ALL} and {NETWORK}"
        sys.exit(f"unknown argument {unknown[0]!r}; there are {known}, all else is set by KNOLL_* variables")
    settings = AutoscalerSettings.or_exit()
    logs.set_up(settings.log_level, settings.log_format, "autoscaler")
    work = remove_all if REMOVE_ALL in sys.argv[1:] else show_network if NETWORK in sys.argv[1:] else serve
    try:
        asyncio.run(work(settings))
    except (KnollError, OSError) as error:
        sys.exit(f"autoscaler: {error}")


if __name__ == "__main__":
    main()
