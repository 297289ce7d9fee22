"""`knoll down`: stops a `knoll up` of another terminal, and cleans up after a killed one."""

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
"""Seconds to wait for the platform, which first finishes its requests in flight."""


class StopError(KnollError):
    """The platform did not stop; the message names what remains."""


@click.command()
@data_option
@click.option("--delete-data", is_flag=True, help="Also delete all objects: the folder with Redis' files and uploads.")
def down(data: Path, delete_data: bool) -> None:
    """Stop the platform that `knoll up` started on this machine, and remove its containers.

    Objects are kept for the next `knoll up`. Also cleans up after a killed `knoll up`.
    """
    console = Console(stderr=True)
    run = running.find(data)
    if run is None:
        console.print(f"no `knoll up` is running in {data}", markup=False)
    elif run.alive:
        with console.status(f"stopping process {run.pid}"):
            _end(data, run)
        console.print("stopped")
    else:
        with console.status("cleaning up after a killed platform"):
            _sweep(run)
        running.forget(data)
        console.print("previous run was killed; removed its containers")
    if delete_data and data.exists():
        shutil.rmtree(data)
        console.print(f"deleted {data}", markup=False)


def _end(data: Path, run: running.Run) -> None:
    os.kill(run.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while (now := running.find(data)) and now.alive:
        if time.monotonic() > deadline:
            raise StopError(f"process {run.pid} did not stop within {STOP_SECONDS} s; see its output")
        time.sleep(0.1)


def _sweep(run: running.Run) -> None:
    command = [sys.executable, "-m", "autoscaler", "--remove-all"]
    environment = {**os.environ, **run.environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise StopError(
            "some containers are still running; see `docker ps --filter label=knoll.dev/platform`: "
            f"{done.stderr[-1000:]}"
        )
    if "KNOLL_FIREWALL_SOCKET" in run.environment:
        command = [sys.executable, "-m", "knoll.firewall", "--remove"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise StopError(f"some firewall rules were not removed; see `nft list tables`: {done.stderr[-1000:]}")
