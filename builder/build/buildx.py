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
    """A build for BuildKit, from source to image."""

    namespace: str
    """Namespace whose caches the build uses."""
    dockerfile: str = "Dockerfile"
    """Path in the source; `-` is standard input."""
    target: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    context: str = "-"
    """`-` for a tar on standard input, otherwise the URL of a Git repository."""
    secrets: Mapping[str, Path] = field(default_factory=dict)
    """Files that the build may read, by the id with which the Dockerfile mounts them."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Images that BuildKit reads from a local source instead of a registry: name in the Dockerfile → source."""


def git_context(url: str, revision: str) -> str:
    """Return the URL of a Git repository in BuildKit's form: the revision follows `#`. Raises: ValueError."""
    return parse_git_url(url).context + (f"#{revision}" if revision else "")


def build_arguments(build: BuildCommand, layers: Path, metadata: Path) -> list[str]:
    """Return the arguments of `docker` for a build.

    Args:
        layers: OCI layout to which the image is written.
        metadata: file to which its digest is written.
    """
    output = f"type=oci,tar=false,dest={layers},compression=uncompressed"
    arguments = [*_BUILD, f"--output={output}", f"--metadata-file={metadata}", "--file", build.dockerfile]
    if build.target:
        arguments += ["--target", build.target]
    if build.platform:
        arguments += ["--platform", build.platform]
    # The first names the caches of `RUN --mount=type=cache`. The second is the host name of the steps and part of their
    # cache key, so that a namespace never gets the cached result of a step of another one, which may have read secrets
    # (these are not part of the key).
    own = {"BUILDKIT_CACHE_MOUNT_NS": build.namespace, "BUILDKIT_SANDBOX_HOSTNAME": build.namespace}
    for name, value in sorted({**build.args, **own}.items()):
        arguments += ["--build-arg", f"{name}={value}"]
    for name, path in sorted(build.secrets.items()):
        arguments += ["--secret", f"id={name},src={path}"]
    for name, source in sorted(build.images.items()):
        arguments += ["--build-context", f"{name}={source}"]
    return [*arguments, build.context]


def fetch_arguments(context: str, folder: Path, secrets: Mapping[str, Path]) -> list[str]:
    """Return the arguments of `docker` that copy one file of a Git repository to `folder`.

    The Dockerfile is read from standard input. BuildKit fetches, so the builder never connects to the repository.
    """
    arguments = [*_BUILD, f"--output=type=local,dest={folder}", "--file", "-", "--build-context", f"source={context}"]
    for name, path in sorted(secrets.items()):
        arguments += ["--secret", f"id={name},src={path}"]
    return [*arguments, str(folder)]


def fetch_dockerfile(path: str) -> str:
    """Return the Dockerfile for `fetch_arguments`."""
    return f"FROM scratch\nCOPY --from=source {json.dumps([path, '/Dockerfile'])}\n"


def reason(lines: list[str]) -> str:
    """Return the error in the output of a failed build; its last line when there is none."""
    for line in reversed(lines):
        if line.startswith("ERROR: "):
            return line.removeprefix("ERROR: ").removeprefix("failed to solve: ").removeprefix("failed to build: ")
    return next((line for line in reversed(lines) if line.strip()), "the build ended without output")


async def run(
    arguments: Sequence[str],
    archive: Path | None,
    docker_socket: Path,
    on_line: Callable[[str], Awaitable[None]],
    environment: Mapping[str, str],
) -> tuple[int, str]:
    """Run `docker`, and end it with all of its children when cancelled.

    Args:
        archive: its standard input.
        on_line: gets each line of its output.
        environment: added to this process's environment.

    Returns: the exit code and, when it is not 0, the reason.
    """
    with (archive or Path(os.devnull)).open("rb") as source:
        process = await asyncio.create_subprocess_exec(
            "docker",
            *arguments,
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
            preexec_fn=end_with_parent,  # a build ends when its worker is killed
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
