"""`knoll build`: builds a folder into an image on the platform's engine."""

import hashlib
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from knoll.builds.progress import Steps
from knoll.builds.recipes import Recipe, Tree, detect
from knoll.cli.client import ApiClient, chunks
from knoll.cli.connection import client_options
from knoll.cli.output import output_option, show
from knoll.cli.pack import NEVER_SOURCE, files, pack
from knoll.cli.terminal import clean, echo, write
from knoll.values import kinds
from knoll.values.errors import KnollError, SourceError

SHOWN_LINES = 100
"""Lines of output shown after a build failed."""
SETTLE_SECONDS = 30
"""Deadline for a final status after the last line of a build's output."""


def verbose_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--verbose`, passed to the command as `verbose`."""
    return click.option("-v", "--verbose", is_flag=True, help="Show the whole build output.")(command)


class BuildFailedError(KnollError):
    """The build failed; the message gives the reason."""


@click.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option("-t", "--tag", help="Name of the image, as NAME:TAG.")
@click.option("-f", "--file", "dockerfile", default="Dockerfile", show_default=True, help="Dockerfile in the source.")
@click.option("--target", default="", help="Stage to stop at.")
@click.option("--build-arg", "arguments", multiple=True, metavar="NAME=VALUE", help="Build argument of the Dockerfile.")
@click.option("--print", "only_print", is_flag=True, help="Print the Dockerfile that would be used, without building.")
@verbose_option
@output_option
@client_options
def build(
    source: Path,
    tag: str | None,
    dockerfile: str,
    target: str,
    arguments: tuple[str, ...],
    only_print: bool,
    verbose: bool,
    output: str,
    client: ApiClient,
    namespace: str,
) -> None:
    """Build the folder SOURCE into an image for Services.

    A Dockerfile is generated for Go, Python and Node programs and static sites that have none.
    """
    generated = recipe_for(source, dockerfile)
    if only_print:
        echo(generated.dockerfile if generated else (source / dockerfile).read_text(), nl=False)
        return None
    if not tag:
        raise click.UsageError("Missing option '-t' / '--tag': the image needs a name.")
    spec: dict[str, Any] = {"dockerfile": dockerfile}
    if target:
        spec["target"] = target
    if arguments:
        spec["args"] = dict(_argument(text) for text in arguments)
    console = Console(stderr=True)
    upload_id = upload(client, namespace, source, dockerfile, console, generated)
    status = run(client, namespace, tag, {**spec, "source": {"upload": {"id": upload_id}}}, console, verbose=verbose)
    if output != "text":
        return show(
            {"tag": tag, **{key: status.get(key) for key in ("digest", "size", "startTime", "completionTime")}}, output
        )
    echo(f"{tag} {status['digest'].rpartition('@')[2]} {status.get('size', 0) / 1e6:.1f} MB")
    return None


def recipe_for(source: Path, dockerfile: str) -> Recipe | None:
    """Generate a Dockerfile for a folder; None if it has one.

    Raises: SourceError when a file given with --file is missing, or no recipe matches.
    """
    if (source / dockerfile).is_file():
        return None
    if dockerfile != "Dockerfile":
        raise SourceError(f"{source / dockerfile} does not exist; pass another with --file")
    names = [name for name in files(source, dockerfile, NEVER_SOURCE) if (source / name).is_file()]
    return detect(Tree.of(names, lambda name: (source / name).read_text(errors="replace")))


def run(
    client: ApiClient, namespace: str, tag: str, spec: dict[str, Any], console: Console, *, verbose: bool = False
) -> dict[str, Any]:
    """Build, show the progress and return the status. Raises: BuildFailedError.

    Args: verbose: show the whole output; otherwise a terminal shows it only after a failure.
    """
    body = _build_object(tag, namespace, {**spec, "tag": tag})
    name = client.create(kinds.BUILD_KIND, namespace, body)["metadata"]["name"]
    begun, steps, kept = time.monotonic(), Steps(), deque[str](maxlen=SHOWN_LINES)
    quiet = console.is_terminal and not verbose
    columns = (TextColumn("[bold]build[/] "), BarColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("queued", total=None)
        for line in client.build_log(namespace, name):
            kept.append(line)
            if not quiet:
                _show_line(console, line)
            if steps.read(line):
                progress.update(
                    task, description=clean(steps.description[:80]), completed=steps.done, total=steps.total or None
                )
        try:
            status = wait_for_end(client, namespace, name)
        except BuildFailedError:
            for line in kept if quiet else ():
                _show_line(console, line)
            raise
    seconds = time.monotonic() - begun
    console.print(f"[bold]build[/]  {tag} in {seconds:.1f} s: {steps.done} steps, {steps.cached} from the cache")
    return status


def _show_line(console: Console, line: str) -> None:
    write(console, line, style="dim")


def upload(
    client: ApiClient, namespace: str, folder: Path, dockerfile: str, console: Console, generated: Recipe | None = None
) -> str:
    """Upload a folder unless the platform already has the same content; return the upload's id."""
    if generated:
        console.print(f"[bold]recipe[/] {generated.kind} ({generated.because}); see it with `knoll build --print`")
    with tempfile.TemporaryDirectory(prefix="knoll-") as scratch:
        archive = Path(scratch) / "source.tar"
        with archive.open("wb") as target:
            count = pack(folder, dockerfile, target, generated.dockerfile if generated else "")
        size = archive.stat().st_size
        with archive.open("rb") as packed:
            upload_id = f"sha256-{hashlib.file_digest(packed, 'sha256').hexdigest()}"
        if client.has_upload(namespace, upload_id):
            console.print(f"[bold]source[/] {count} entries, {size / 1e6:.1f} MB, already uploaded")
            return upload_id
        columns = (TextColumn("[bold]upload[/]"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("upload", total=size)

            def watched() -> Iterator[bytes]:
                for piece in chunks(archive):
                    yield piece
                    progress.advance(task, len(piece))

            return client.upload(namespace, watched(), size)


def wait_for_end(client: ApiClient, namespace: str, name: str) -> dict[str, Any]:
    """Return the final status of a build whose output has ended. Raises: BuildFailedError."""
    deadline, pause = time.monotonic() + SETTLE_SECONDS, 0.004
    while True:
        status: dict[str, Any] = client.get(kinds.BUILD_KIND, namespace, name).get("status") or {}
        if status.get("phase") == "Succeeded":
            return status
        if status.get("phase") == "Failed":
            conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
            raise BuildFailedError(
                f"build {name} failed: {conditions.get('Succeeded', {}).get('message', 'no reason given')}"
            )
        if time.monotonic() > deadline:
            raise BuildFailedError(f"build {name} reported no result; see `kubectl describe build {name}`")
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def _build_object(tag: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    stem = tag.rpartition("/")[2].partition(":")[0].lower().replace("_", "-").replace(".", "-")[:40].strip("-")
    return {
        "apiVersion": kinds.BUILD_KIND.api_version,
        "kind": kinds.BUILD_KIND.kind,
        "metadata": {"generateName": f"{stem or 'build'}-", "namespace": namespace},
        "spec": spec,
    }


def _argument(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE", param_hint="--build-arg")
    return name, value
