"""Running `docker buildx build`: the command line (pure) and the process."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from knoll.process.supervise import end_with_parent
from knoll.values.git_url import parse_git_url

MAX_LINE_BYTES = 16 * 1024
_BUILD = ("buildx", "build", "--builder=knoll", "--progress=plain")


@dataclass(frozen=True, slots=True)
class BuildCommand:
    """What to build."""

    namespace: str
    """Whose caches it has."""
    dockerfile: str = "Dockerfile"
    """Path in the source; `-` is standard input."""
    target: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    context: str = "-"
    """Where the source comes from: `-` is a tar on standard input, else an address of a Git repository."""
    secrets: Mapping[str, Path] = field(default_factory=dict)
    """Files that the build may read, by the id that the Dockerfile mounts them by."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Images that BuildKit gets from here and not from a registry: name in the Dockerfile to source."""


def git_context(url: str, revision: str) -> str:
    """A Git repository as BuildKit takes it; the revision follows `#`. Raises: ValueError: it is not one."""
    return parse_git_url(url).context + (f"#{revision}" if revision else "")


def command(recipe: BuildCommand, layers: Path, metadata: Path) -> list[str]:
    """Arguments of `docker`.

    Args:
        layers: folder that the image is written to, an OCI layout.
        metadata: file that is told its digest.
    """
    output = f"type=oci,tar=false,dest={layers},compression=uncompressed"
    words = [*_BUILD, f"--output={output}", f"--metadata-file={metadata}", "--file", recipe.dockerfile]
    if recipe.target:
        words += ["--target", recipe.target]
    if recipe.platform:
        words += ["--platform", recipe.platform]
    # The first names the caches of `RUN --mount=type=cache`. The second is the steps' host name and, as part of what
    # BuildKit remembers a step by, keeps one namespace from getting what a step of another left: it may have read
    # secrets, which are no part of that.
    own = {"BUILDKIT_CACHE_MOUNT_NS": recipe.namespace, "BUILDKIT_SANDBOX_HOSTNAME": recipe.namespace}
    for name, value in sorted({**recipe.args, **own}.items()):
        words += ["--build-arg", f"{name}={value}"]
    for name, path in sorted(recipe.secrets.items()):
        words += ["--secret", f"id={name},src={path}"]
    for name, source in sorted(recipe.images.items()):
        words += ["--build-context", f"{name}={source}"]
    return [*words, recipe.context]


def fetch_command(context: str, folder: Path, secrets: Mapping[str, Path]) -> list[str]:
    """Arguments of `docker` that bring one file of a Git repository to `folder`; the Dockerfile is on standard input.

    BuildKit fetches, so that it is not the builder who speaks to the repository.
    """
    words = [*_BUILD, f"--output=type=local,dest={folder}", "--file", "-", "--build-context", f"source={context}"]
    for name, path in sorted(secrets.items()):
        words += ["--secret", f"id={name},src={path}"]
    return [*words, str(folder)]


def fetch_dockerfile(path: str) -> str:
    """The Dockerfile for `fetch_command`."""
    return f"FROM scratch\nCOPY --from=source {json.dumps([path, '/Dockerfile'])}\n"


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
