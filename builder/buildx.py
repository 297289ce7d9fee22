"""Running `docker buildx build`: the command line (pure) and the process."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

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


def command(recipe: Recipe) -> list[str]:
    """Arguments of `docker`; the source comes as a tar on standard input, the image goes into the engine."""
    words = ["buildx", "build", "--progress=plain", "--load", "--tag", recipe.tag, "--file", recipe.dockerfile]
    if recipe.target:
        words += ["--target", recipe.target]
    if recipe.platform:
        words += ["--platform", recipe.platform]
    for name, value in sorted(recipe.args.items()):
        words += ["--build-arg", f"{name}={value}"]
    return [*words, "-"]


def reason(lines: list[str]) -> str:
    """The sentence of a failed build's output that says why; the last line when none does."""
    for line in reversed(lines):
        if line.startswith("ERROR: "):
            return line.removeprefix("ERROR: ").removeprefix("failed to solve: ").removeprefix("failed to build: ")
    return next((line for line in reversed(lines) if line.strip()), "the build ended without a word")


async def run(
    recipe: Recipe, archive: Path, docker_socket: Path, on_line: Callable[[str], Awaitable[None]]
) -> tuple[int, str]:
    """Build; returns the exit code and, when it is not 0, the reason.

    Cancelled, it ends the build and everything that it started.
    """
    with archive.open("rb") as source:
        process = await asyncio.create_subprocess_exec(
            "docker",
            *command(recipe),
            stdin=source,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "DOCKER_HOST": f"unix://{docker_socket}", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
            process_group=0,
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
