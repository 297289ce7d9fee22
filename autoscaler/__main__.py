"""The autoscaler process: settings, engine, leadership.

Two arguments select another task: `--remove-all` removes the platform's containers, `--network` creates the
instance network when it is missing and prints this machine's address on it.
"""

from knoll.process import footprint

footprint.block_unused_imports()

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import msgspec
import uvloop

from autoscaler.decision.capacity import Machine
from autoscaler.io import metrics, views
from autoscaler.kubelet.kubelet import Kubelet, NodeOptions
from autoscaler.leader.leader import LeaderOptions, PublishedTables
from autoscaler.leader.node_watch import NodeWatch
from autoscaler.node.isolation import FirewallSocket
from autoscaler.placement.protocol import Placer
from autoscaler.placement.single import SinglePlacer
from autoscaler.placement.swarm.membership import SwarmMember, member
from autoscaler.probes.checks import Checker
from autoscaler.roles.cluster_node import LEASE_SECONDS, ClusterNode, MachineAddress
from autoscaler.roles.duty import SingleMachineDuty
from autoscaler.roles.single_machine import SingleMachine
from autoscaler.runtime.docker.docker_runtime import DockerRuntime
from autoscaler.runtime.protocol import Runtime
from knoll.auth.token_key import shared_key
from knoll.process import admin, logs
from knoll.process.settings import AutoscalerSettings
from knoll.redis.client import connect
from knoll.redis.lease import Lease
from knoll.redis.streams import CONTROL_GATHER_SECONDS
from knoll.store.redis_store import FEW_BUFFERED_EVENTS, RedisStore
from knoll.values.errors import KnollError

OpenRuntime = AbstractAsyncContextManager[Runtime]
REMOVE_ALL, NETWORK = "--remove-all", "--network"


def runtime_for(settings: AutoscalerSettings) -> DockerRuntime:
    """Return the engine's driver, as a standby: it may be open while the leader's is open too."""
    return DockerRuntime(
        socket=settings.docker_socket,
        platform=settings.platform,
        network=settings.instance_network,
        warm_sandboxes=settings.warm_sandboxes,
        dns=str(settings.instance_dns or ""),
        standby=True,
        registry=settings.registry if settings.node else "",
    )


async def serve(settings: AutoscalerSettings, make: Callable[[AutoscalerSettings], OpenRuntime] = runtime_for) -> None:
    """Run until SIGTERM or SIGINT; instances keep running.

    Args: make: returns the runtime; `bench` passes one that needs no engine.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    redis = connect(settings.redis_url, "autoscaler", gather_seconds=CONTROL_GATHER_SECONDS)
    store = RedisStore(redis, ring=FEW_BUFFERED_EVENTS, keyring=settings.keyring)
    in_swarm = member(settings.docker_socket) if settings.node else contextlib.nullcontext()
    async with make(settings) as runtime, Checker() as checker, in_swarm as own:
        options = node_options(settings), leader_options(settings)
        lease_of = partial(Lease, redis, "autoscaler", f"{socket.gethostname()}-{os.getpid()}")
        role: SingleMachineDuty | ClusterNode
        if own is not None:
            address = MachineAddress(settings.node_address, settings.node_relay_port, settings.node_admin_port)
            make_placer = partial(placer_of, own, settings)
            role = ClusterNode(runtime, checker, store, redis, options, make_placer, address, own)
            running = loop.create_task(role.run(lease_of(ttl=LEASE_SECONDS) if settings.node_leads else None))
        else:
            tables = PublishedTables.of(redis)
            role = SingleMachineDuty(runtime, lambda: SingleMachine(runtime, checker, store, redis, tables, options))
            running = loop.create_task(lease_of().lead(role.run))

        async def ready() -> str:
            try:
                await redis.execute("PING")
                await runtime.capacity()
            except KnollError as error:
                return str(error)
            return role.problem

        routes = views.routes(runtime, role, partial(shared_key, redis, settings.keyring))
        application = admin.app(ready, routes, metrics.exposition(lambda: role.scalers))
        serving = loop.create_task(admin.serve(application, settings.admin_host, settings.autoscaler_admin_port, stop))
        footprint.freeze_gc()
        gc.set_threshold(10_000, 20, 100)  # so that it rarely runs during a start: the leader's loop collects too
        await asyncio.wait({running, serving}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        running.cancel()
        results = await asyncio.gather(running, serving, return_exceptions=True)
    await store.close()
    await redis.aclose()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


def placer_of(own: SwarmMember, settings: AutoscalerSettings, kubelet: Kubelet, watch: NodeWatch) -> Placer:
    """Return the leader's placer: through Docker Swarm, or on this machine alone if it is in no Swarm."""
    if not own.id:
        return SinglePlacer(kubelet.reservations, kubelet.name)

    def nodes() -> dict[str, str]:
        entries = {name: watch.nodes[name] for name in watch.alive() if name in watch.nodes}
        return {name: entry.engine_id for name, entry in entries.items() if entry.engine_id}

    return own.placer(settings.platform, nodes, settings.places_ahead)


def node_options(settings: AutoscalerSettings) -> NodeOptions:
    """Return the node's options from the process settings."""
    return NodeOptions(
        name=settings.node,
        firewall=FirewallSocket(settings.firewall_socket) if settings.firewall_socket else None,
        machine=machine(settings),
        keyring=settings.keyring,
        armed_instances=settings.armed_instances,
    )


def leader_options(settings: AutoscalerSettings) -> LeaderOptions:
    """Return the leader's options from the process settings."""
    return LeaderOptions(
        machine=machine(settings), tick_seconds=settings.tick_seconds, quiet_seconds=settings.quiet_seconds
    )


def machine(settings: AutoscalerSettings) -> Machine:
    """Return the operator's settings for the machine."""
    return Machine(settings.capacity_cpu, settings.capacity_memory_bytes, settings.paused_memory_fraction)


async def remove_all(settings: AutoscalerSettings) -> None:
    """Remove everything of this platform from the engine."""
    async with runtime_for(msgspec.structs.replace(settings, warm_sandboxes=0)) as runtime:
        await runtime.destroy()


async def show_network(settings: AutoscalerSettings) -> None:
    """Print the address of this machine on the instance network, which is created when it is missing."""
    async with runtime_for(msgspec.structs.replace(settings, warm_sandboxes=0)) as runtime:
        print(await runtime.gateway())  # noqa: T201 - for `knoll up`


def main() -> None:
    unknown = [argument for argument in sys.argv[1:] if argument not in (REMOVE_ALL, NETWORK)]
    if unknown:
        sys.exit(
            f"unknown argument {unknown[0]!r}; valid are {REMOVE_ALL} and {NETWORK}, "
            "everything else is set by KNOLL_* variables"
        )
    settings = AutoscalerSettings.or_exit()
    logs.set_up(settings.log_level, settings.log_format, "autoscaler")
    work = remove_all if REMOVE_ALL in sys.argv[1:] else show_network if NETWORK in sys.argv[1:] else serve
    try:
        uvloop.run(work(settings))
    except (KnollError, OSError) as error:
        sys.exit(f"autoscaler: {error}")


if __name__ == "__main__":
    main()
