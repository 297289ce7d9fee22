"""Running `docker buildx build`: the command line (pure) and the process."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from knoll.resources.git_url import parse_git_url
from knoll.supervise import end_with_parent

MAX_LINE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build."""

    tag: str
    dockerfile: str = "Dockerfile"
    """Path in the source."""
    target: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    context: str = "-"
    """Where the source comes from: `-` is a tar on standard input, else an address of a Git repository."""
    secrets: Mapping[str, Path] = field(default_factory=dict)
    """Files that the build may read, by the id that the Dockerfile mounts them by."""


def git_context(url: str, revision: str) -> str:
    """A Git repository as BuildKit takes it; the revision follows `#`. Raises: ValueError: it is not one."""
    return parse_git_url(url).context + (f"#{revision}" if revision else "")


def command(recipe: Recipe) -> list[str]:
    """Arguments of `docker`; the image goes into the engine."""
    words = ["buildx", "build", "--progress=plain", "--load", "--tag", recipe.tag, "--file", recipe.dockerfile]
    if recipe.target:
        words += ["--target", recipe.target]
    if recipe.platform:
        words += ["--platform", recipe.platform]
    for name, value in sorted(recipe.args.items()):
        words += ["--build-arg", f"{name}={value}"]
    for name, path in sorted(recipe.secrets.items()):
        words += ["--secret", f"id={name},src={path}"]
    return [*words, recipe.context]


def reason(lines: list[str]) -> str:
    """The sentence of a failed build's output that says why; the last line when none does."""
    for line in reversed(lines):
        if line.startswith("ERROR: "):
            return line.removeprefix("ERROR: ").removeprefix("failed to solve: ").removeprefix("failed to build: ")
    return next((line for line in reversed(lines) if line.strip()), "the build ended without a word")


async def run(
    words: Sequence[str],
    archive: Path | None,
    docker_socket: Path,
    on_line: Callable[[str], Awaitable[None]],
    environment: Mapping[str, str],
) -> tuple[int, str]:
    """Run `docker`; returns the exit code and, when it is not 0, the reason.

    Args: archive: what it reads from standard input. environment: added to ours.

    Cancelled, it ends the build and everything that it started.
    """
    with (archive or Path(os.devnull)).open("rb") as source:
        process = await asyncio.create_subprocess_exec(
            "docker",
            *words,
            stdin=source,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={
                **os.environ,
                **environment,
                "DOCKER_HOST": f"unix://{docker_socket}",
                "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
            },
            process_group=0,
            preexec_fn=end_with_parent,  # a build must not go on when the worker that has it was killed
            limit=MAX_LINE_BYTES * 64,
        )
    last: list[str] = []
    try:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            text = line[:MAX_LINE_BYTES].decode(errors="replace").rstrip()
            last = [*last[-50:], text]
            await on_line(text)
        code = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return code, reason(last) if code else ""
