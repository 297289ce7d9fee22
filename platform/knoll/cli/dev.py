"""`knoll dev`: rebuilds and redeploys a folder each time it changes."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from watchfiles import DefaultFilter, watch

from knoll.cli import traffic_split
from knoll.cli.client import ApiClient
from knoll.cli.connection import client_options
from knoll.cli.deploy import Deployment, name_of, print_summary, source_options, variables
from knoll.cli.log_follower import LogFollower
from knoll.cli.pack import NEVER_SOURCE, files
from knoll.cli.services import summary
from knoll.cli.terminal import write
from knoll.values import kinds
from knoll.values.errors import KnollError, StoreUnavailableError

QUIET_MS = 200
"""Time without changes before a rebuild: an editor writes a file in several steps, a checkout writes many files."""


@click.command()
@source_options
@click.option("--delete", is_flag=True, help="Delete the Service on exit.")
@client_options
def dev(
    source: Path,
    name: str | None,
    dockerfile: str,
    env: tuple[str, ...],
    verbose: bool,
    delete: bool,
    client: ApiClient,
    namespace: str,
) -> None:
    """Deploy the folder SOURCE, redeploy it after each change, and show its logs, until Ctrl-C.

    A change is built and gets all requests once it is ready. If it fails to build or to start, the error is printed and
    the previous revision keeps serving.
    """
    source = source.resolve()
    deployment = Deployment(client, namespace, name or name_of(source), source, dockerfile, variables(env), verbose)
    console = deployment.console

    def line(pod: str, text: str) -> None:
        console.print(f"[cyan]{_short(pod)}[/] ", end="")
        write(console, text)

    LogFollower(client, namespace, deployment.name, line).start(tail=10)
    last = ""
    try:
        for paths in changes(source, dockerfile):
            if paths:
                console.print(f"[bold]changed[/]  {', '.join(paths[:5])}{' …' if len(paths) > 5 else ''}")
            last = _serve(deployment, last)
    except KeyboardInterrupt:
        if delete:
            client.delete(kinds.SERVICE, namespace, deployment.name)
            console.print(f"[bold]deleted[/]  {deployment.name}")
        else:
            console.print(f"{deployment.name} keeps running; delete it with: kubectl delete ksvc {deployment.name}")


def changes(source: Path, dockerfile: str) -> Iterator[list[str]]:
    """Yield an empty list, then the changed paths after each change of the source, until interrupted."""
    yield []
    belongs = {str(source / name) for name in _named(source, dockerfile)}
    for batch in watch(source, debounce=2000, step=QUIET_MS, watch_filter=DefaultFilter(), raise_interrupt=True):
        now = {str(source / name) for name in _named(source, dockerfile)}
        # Ignored files do not count; deleted files were part of the source.
        paths = sorted({path for _, path in batch} & (belongs | now))
        belongs = now
        if paths:
            yield [str(Path(path).relative_to(source)) for path in paths]


def _named(source: Path, dockerfile: str) -> list[str]:
    return files(source, dockerfile, NEVER_SOURCE if not (source / dockerfile).is_file() else ())


def _serve(deployment: Deployment, last: str) -> str:
    """Build and deploy the current source, unless it was the last one tried; return its upload id.

    Raises: StoreUnavailableError when the platform is not running at the start.
    """
    console, begun = deployment.console, time.monotonic()
    upload_id = ""
    try:
        upload_id = deployment.upload()
        if upload_id == last:
            return last
        status = summary(deployment.serve(upload_id, _to_latest))
    except KnollError as error:
        if not last and isinstance(error, StoreUnavailableError):
            raise
        console.print("[bold red]failed[/]   ", end="")
        write(console, str(error))
        console.print("waiting for changes")
        return upload_id or last
    console.print(f"[bold green]serving[/]  {status['url']}  after {time.monotonic() - begun:.1f} s", soft_wrap=True)
    if not last:
        print_summary(console, status)
    return upload_id


def _to_latest(service: dict[str, Any]) -> None:
    if service["spec"].get("traffic"):
        before = service["spec"]["traffic"]
        service["spec"]["traffic"] = traffic_split.split(service["metadata"]["name"], {"latest": 100}, [], before)


def _short(pod: str) -> str:
    """`hello-00002-deployment-abc-xyz12` as `hello-00002 xyz12`."""
    revision, _, rest = pod.rpartition("-deployment-")
    return f"{revision} {rest.rpartition('-')[2]}" if revision else pod
