"""What a Build asks for, made ready to run: source checked, secrets and the Dockerfile in files."""

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.build import buildx, dockerfile, secret_dirs, source
from builder.images.access import Access, refusal
from knoll.process.settings import BuilderSettings
from knoll.store.protocol import Store
from knoll.values import kinds
from knoll.values.errors import NotFoundError, SourceError
from knoll.values.git_url import parse_git_url
from knoll.values.json import Json

Docker = Callable[..., Awaitable[str]]
"""Runs `docker` with arguments, `archive` on its standard input; returns why it failed, empty when it did not."""


@dataclass(frozen=True, slots=True)
class Work:
    """A build from source, but for the images that it starts from."""

    recipe: buildx.BuildCommand
    archive: Path | None
    """Read from standard input."""
    images: tuple[str, ...]
    """Names of images in the Dockerfile."""
    folder: Path
    """For files of this build; gone afterwards."""


@contextlib.asynccontextmanager
async def prepared(
    docker: Docker, store: Store, settings: BuilderSettings, access: Access, namespace: str, spec: Json
) -> AsyncIterator[Work]:
    """Everything that a build from source needs; secrets are gone afterwards.

    Raises: SourceError.
    """
    with secret_dirs.folder() as folder:
        secrets = await _secrets(store, namespace, spec.get("secrets", []), folder)
        path, git = spec.get("dockerfile") or "Dockerfile", spec["source"].get("git")
        keep_frontend = bool(settings.build_frontends)
        if git:
            context, text = await _fetched(docker, access, git, path, folder, secrets)
            archive, path = (folder / "Dockerfile", "-") if text else (None, path)
            if archive:
                archive.write_text(text if keep_frontend else dockerfile.without_syntax(text))
        else:
            context, archive = "-", _archive(settings.uploads_dir / namespace, spec["source"])
            text = await asyncio.to_thread(source.check, archive, path)
            builtin = text if keep_frontend else dockerfile.without_syntax(text)
            if builtin != text:
                rewritten = folder / "source.tar"
                await asyncio.to_thread(source.with_dockerfile, archive, rewritten, path, builtin)
                archive = rewritten
        recipe = buildx.BuildCommand(
            namespace,
            dockerfile=path,
            target=spec.get("target", ""),
            args=spec.get("args", {}),
            platform=spec.get("platform", ""),
            context=context,
            secrets=secrets,
        )
        yield Work(recipe, archive, dockerfile.images(text, recipe.args), folder)


async def _fetched(
    docker: Docker, access: Access, git: Json, path: str, folder: Path, secrets: Mapping[str, Path]
) -> tuple[str, str]:
    """A repository as BuildKit takes it and the text of its Dockerfile, empty when BuildKit alone can get that."""
    try:
        url = parse_git_url(git["url"])
    except ValueError as error:
        raise SourceError(f'the repository "{git["url"][:300]}" {error}') from error
    # BuildKit resolves the name anew; what it must not reach, the packet filter of its network drops.
    problem = await asyncio.to_thread(refusal, url.host, access.security.build_destinations)
    if problem:
        raise SourceError(
            f'the repository "{url.text}" {problem}, unless build-destinations in config-security allows it'
        )
    context = buildx.git_context(url.text, git.get("revision", ""))
    if url.scheme == "ssh":
        return context, ""
    fetched, asked = folder / "fetched", folder / "fetch.Dockerfile"
    fetched.mkdir()
    asked.write_text(buildx.fetch_dockerfile(path))
    if why := await docker(*buildx.fetch_command(context, fetched, secrets), archive=asked):
        raise SourceError(f'{path} cannot be fetched from "{context}": {why}')
    file = fetched / "Dockerfile"
    if file.is_symlink() or not file.is_file() or file.stat().st_size > source.MAX_DOCKERFILE_BYTES:
        raise SourceError(f'"{context}" has no file {path} of at most {source.MAX_DOCKERFILE_BYTES} bytes')
    return context, file.read_text(errors="replace")


def _archive(uploads: Path, wanted: Json) -> Path:
    upload = wanted.get("upload")
    if not upload:
        raise SourceError("spec.source.upload is missing: upload a tar of the source first")
    archive = uploads / Path(str(upload["id"])).name
    if not archive.is_file():
        raise SourceError(f"the upload {upload['id']} is not here (any more): upload the source again")
    return archive


async def _secrets(store: Store, namespace: str, wanted: list[Json], folder: Path) -> dict[str, Path]:
    files = {}
    for number, secret in enumerate(wanted):
        name, key = secret["name"], secret["key"]
        try:
            found = await store.get(kinds.SECRET.id, namespace, name)
            content = base64.b64decode(found.get("data", {})[key], validate=True)
        except NotFoundError as error:
            raise SourceError(f"the build wants the Secret {name}, and {namespace} has none of that name") from error
        except KeyError as error:
            raise SourceError(f"the build wants the key {key} of the Secret {name}, which it does not have") from error
        except (binascii.Error, TypeError) as error:
            raise SourceError(f"the key {key} of the Secret {name} is not base64: {error}") from error
        files[secret["id"]] = folder / str(number)
        files[secret["id"]].touch(0o600)
        files[secret["id"]].write_bytes(content)
    return files
