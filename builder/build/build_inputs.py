"""Prepares a Build to run: checks its source, and writes its secrets and Dockerfile to files."""

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.build import buildx, dockerfile, secret_dirs, source
from builder.images.access import ImageAccess, refusal
from knoll.store.protocol import Store
from knoll.values import kinds
from knoll.values.errors import NotFoundError, SourceError
from knoll.values.git_url import parse_git_url
from knoll.values.json import Json

Docker = Callable[..., Awaitable[str]]
"""Runs `docker` with arguments and `archive` as standard input; returns the reason of a failure, or empty text."""

FindArchive = Callable[[str, Json], Awaitable[Path]]
"""Returns the uploaded archive of a Build's source. Args: namespace, `spec.source`; see `uploads.archive`."""


@dataclass(frozen=True, slots=True)
class PreparedBuild:
    """A build from source, before its base images are resolved."""

    command: buildx.BuildCommand
    archive: Path | None
    """Standard input of `docker`."""
    images: tuple[str, ...]
    """References of images in the Dockerfile."""
    folder: Path
    """Folder for files of this build; removed afterwards."""


@contextlib.asynccontextmanager
async def prepare_build(
    docker: Docker,
    store: Store,
    find_archive: FindArchive,
    access: ImageAccess,
    namespace: str,
    spec: Json,
    *,
    keep_frontend: bool,
) -> AsyncIterator[PreparedBuild]:
    """Prepare a build from source; its files are removed afterwards.

    Args: keep_frontend: whether `# syntax=` in a Dockerfile is kept.

    Raises: SourceError.
    """
    with secret_dirs.folder() as folder:
        secrets = await _secrets(store, namespace, spec.get("secrets", []), folder)
        path, git = spec.get("dockerfile") or "Dockerfile", spec["source"].get("git")
        if git:
            context, text = await _fetched(docker, access, git, path, folder, secrets)
            archive, path = (folder / "Dockerfile", "-") if text else (None, path)
            if archive:
                archive.write_text(text if keep_frontend else dockerfile.without_syntax(text))
        else:
            context, archive = "-", await find_archive(namespace, spec["source"])
            text = await asyncio.to_thread(source.check, archive, path)
            builtin = text if keep_frontend else dockerfile.without_syntax(text)
            if builtin != text:
                rewritten = folder / "source.tar"
                await asyncio.to_thread(source.with_dockerfile, archive, rewritten, path, builtin)
                archive = rewritten
        command = buildx.BuildCommand(
            namespace,
            dockerfile=path,
            target=spec.get("target", ""),
            args=spec.get("args", {}),
            platform=spec.get("platform", ""),
            context=context,
            secrets=secrets,
        )
        yield PreparedBuild(command, archive, dockerfile.images(text, command.args), folder)


async def _fetched(
    docker: Docker, access: ImageAccess, git: Json, path: str, folder: Path, secrets: Mapping[str, Path]
) -> tuple[str, str]:
    """Return the URL of the repository for BuildKit, and its Dockerfile (empty with SSH: only BuildKit can read it)."""
    try:
        url = parse_git_url(git["url"])
    except ValueError as error:
        raise SourceError(f'the repository "{git["url"][:300]}" {error}') from error
    # BuildKit resolves the name again; the packet filter of its network drops what it must not reach.
    problem = await asyncio.to_thread(refusal, url.host, access.security.build_destinations)
    if problem:
        raise SourceError(
            f'the repository "{url.text}" {problem}, unless build-destinations in config-security allows it'
        )
    context = buildx.git_context(url.text, git.get("revision", ""))
    if url.scheme == "ssh":
        return context, ""
    fetched, fetch_dockerfile = folder / "fetched", folder / "fetch.Dockerfile"
    fetched.mkdir()
    fetch_dockerfile.write_text(buildx.fetch_dockerfile(path))
    if reason := await docker(*buildx.fetch_arguments(context, fetched, secrets), archive=fetch_dockerfile):
        raise SourceError(f'{path} cannot be fetched from "{context}": {reason}')
    file = fetched / "Dockerfile"
    if file.is_symlink() or not file.is_file() or file.stat().st_size > source.MAX_DOCKERFILE_BYTES:
        raise SourceError(f'"{context}" has no file {path} of at most {source.MAX_DOCKERFILE_BYTES} bytes')
    return context, file.read_text(errors="replace")


async def _secrets(store: Store, namespace: str, references: list[Json], folder: Path) -> dict[str, Path]:
    files = {}
    for number, reference in enumerate(references):
        name, key = reference["name"], reference["key"]
        try:
            secret = await store.get(kinds.SECRET.id, namespace, name)
            content = base64.b64decode(secret.get("data", {})[key], validate=True)
        except NotFoundError as error:
            raise SourceError(f"the build needs the Secret {name}, which {namespace} does not have") from error
        except KeyError as error:
            raise SourceError(f"the build needs the key {key} of the Secret {name}, which has no such key") from error
        except (binascii.Error, TypeError) as error:
            raise SourceError(f"the key {key} of the Secret {name} is not base64: {error}") from error
        path = files[reference["id"]] = folder / str(number)
        path.touch(0o600)
        path.write_bytes(content)
    return files
