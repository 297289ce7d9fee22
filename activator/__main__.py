"""The activator process: settings, logs, ports, and either one worker or the supervisor of several."""

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
    """Open the listening sockets."""
    hosts = [host.strip() for host in settings.activator_host.split(",") if host.strip()]
    ports, tls = _numbers(settings.activator_ports), _numbers(settings.activator_tls_ports)
    local = _numbers(settings.activator_local_ports)
    return ListeningSockets(
        public=[listeners.bind(host, port) for host in hosts for port in ports],
        local=[listeners.bind(settings.activator_local_host, port) for port in local],
        tls=[listeners.bind(host, port) for host in hosts for port in tls],
        relay=[listeners.bind(settings.relay_host, settings.relay_port)] if settings.takes_relayed else [],
    )


def _numbers(ports: str) -> list[int]:
    return [int(port) for port in ports.split(",") if port.strip()]


async def _until_signalled(work: "Coroutine[Any, Any, None]", stop: asyncio.Event, renew: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, renew)
    await work


def _warn_single_process() -> None:
    log.warning(
        "SIGHUP ignored", reason="only worker processes can be replaced; set KNOLL_ACTIVATOR_WORKERS to 2 or more"
    )


def main() -> None:
    """Entry point of `python -m activator`."""
    parser = argparse.ArgumentParser(prog="activator", description="Routes requests to instances.")
    parser.add_argument("--control", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--slots", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--listeners", help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings = ActivatorSettings.or_exit()
    logs.set_up(settings.log_level, settings.log_format, "activator")
    listeners.raise_file_limit()
    stop, renew = asyncio.Event(), asyncio.Event()
    try:
        if options.control is not None:
            inherited = ParentResources(socket.socket(fileno=options.control), options.slots)
            work = run(settings, ListeningSockets.inherited(options.listeners), stop, inherited)
        elif settings.activator_workers == 1:
            work = run(settings, _bind(settings), stop)
        else:
            first = _bind(settings)
            more = [first.duplicate() for _ in range(settings.activator_workers - 1)]
            work = WorkerSupervisor(settings, [first, *more]).run(stop, renew)
    except (OSError, ValueError) as error:
        log.error("activator cannot start", error=str(error))
        sys.exit(1)
    single = options.control is None and settings.activator_workers == 1
    uvloop.run(_until_signalled(work, stop, _warn_single_process if single else renew.set))


if __name__ == "__main__":
    main()
