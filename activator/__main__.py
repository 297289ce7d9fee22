"""The activator process: settings, logs, ports, and either the data path itself or the workers that carry it."""

from knoll.process import footprint

footprint.block_unused_imports()

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
import uvloop

from activator.frontend import listeners
from activator.process.worker import ListeningSockets, ParentResources, run
from activator.process.workers import WorkerSupervisor
from knoll.process import logs
from knoll.process.settings import ActivatorSettings

log = structlog.get_logger()


def _bind(settings: ActivatorSettings) -> ListeningSockets:
    """One process has its ports for itself; several have a socket each."""
    hosts = [host.strip() for host in settings.activator_host.split(",") if host.strip()]
    ports, tls = _numbers(settings.activator_ports), _numbers(settings.activator_tls_ports)
    local = _numbers(settings.activator_local_ports)
    return ListeningSockets(
        public=[listeners.bind(host, port) for host in hosts for port in ports],
        local=[listeners.bind(settings.activator_local_host, port) for port in local],
        tls=[listeners.bind(host, port) for host in hosts for port in tls],
    )


def _numbers(ports: str) -> list[int]:
    return [int(port) for port in ports.split(",") if port.strip()]


async def _until_signalled(work: "Coroutine[Any, Any, None]", stop: asyncio.Event, again: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, again)
    await work


def _nobody_to_renew() -> None:
    log.warning("SIGHUP renews workers, and this process has none: set KNOLL_ACTIVATOR_WORKERS to 2 or more")


def main() -> None:
    """Entry point of `python -m activator`."""
    parser = argparse.ArgumentParser(prog="activator", description="Carries requests to instances.")
    parser.add_argument("--control", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--slots", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--listeners", help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings = ActivatorSettings.or_exit()
    logs.set_up(settings.log_level, settings.log_format, "activator")
    listeners.raise_file_limit()
    stop, again = asyncio.Event(), asyncio.Event()
    try:
        if options.control is not None:
            inherited = ParentResources(socket.socket(fileno=options.control), options.slots)
            work = run(settings, ListeningSockets.inherited(options.listeners), stop, inherited)
        elif settings.activator_workers == 1:
            work = run(settings, _bind(settings), stop)
        else:
            first = _bind(settings)
            more = [first.beside() for _ in range(settings.activator_workers - 1)]
            work = WorkerSupervisor(settings, [first, *more]).run(stop, again)
    except (OSError, ValueError) as error:
        log.error("activator cannot start", error=str(error))
        sys.exit(1)
    alone = options.control is None and settings.activator_workers == 1
    uvloop.run(_until_signalled(work, stop, _nobody_to_renew if alone else again.set))


if __name__ == "__main__":
    main()
