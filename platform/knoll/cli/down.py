"""`knoll down`: the end of a `knoll up` that runs elsewhere, and of what a killed one has left."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from knoll.cli import running
from knoll.cli.state_folder import data_option
from knoll.values.errors import KnollError

STOP_SECONDS = 120
"""Requests in flight may take their time."""


class StopError(KnollError):
    """The platform does not end; the message says what is left."""


@click.command()
@data_option
@click.option("--delete-data", is_flag=True, help="Delete all objects too: the folder with Redis' files and uploads.")
def down(data: Path, delete_data: bool) -> None:
    """End the platform that `knoll up` runs on this machine, its containers too. Objects stay, for the next `knoll up`.

    What a killed `knoll up` has left is taken away.
    """
    console = Console(stderr=True)
    found = running.find(data)
    if found is None:
        console.print(f"no `knoll up` runs with {data}", markup=False)
    elif found.alive:
        with console.status(f"ending process {found.pid}"):
            _end(data, found)
        console.print("ended")
    else:
        with console.status("taking away what a killed platform has left"):
            _sweep(found)
        running.forget(data)
        console.print("it had been killed; its containers are removed")
    if delete_data and data.exists():
        shutil.rmtree(data)
        console.print(f"deleted {data}", markup=False)


def _end(data: Path, found: running.Run) -> None:
    os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while (now := running.find(data)) and now.alive:
        if time.monotonic() > deadline:
            raise StopError(f"process {found.pid} has not ended after {STOP_SECONDS} s; see what it prints")
        time.sleep(0.1)


def _sweep(found: running.Run) -> None:
    command = [sys.executable, "-m", "autoscaler", "--remove-all"]
    environment = {**os.environ, **found.environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise StopError(
            f"containers are left, see `docker ps --filter label=knoll.dev/platform`: {done.stderr[-1000:]}"
        )
    if "KNOLL_FIREWALL_SOCKET" in found.environment:
        command = [sys.executable, "-m", "knoll.firewall", "--remove"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise StopError(f"firewall rules are left, see `nft list tables`: {done.stderr[-1000:]}")
