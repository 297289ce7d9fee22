"""What a Build asks for, made ready to run: source checked, secrets in files, the words for `docker`."""

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import buildx, scratch, source
from knoll import kinds
from knoll.errors import NotFoundError, SourceError
from knoll.store import Json, Store


@dataclass(frozen=True, slots=True)
class Work:
    """One run of `docker`."""

    words: tuple[str, ...]
    archive: Path | None = None
    """Read from standard input."""


@contextlib.asynccontextmanager
async def prepared(store: Store, uploads: Path, namespace: str, spec: Json) -> AsyncIterator[Work]:
    """Everything that a build from source needs; secrets are gone afterwards.

    Raises: SourceError.
    """
    with scratch.folder() as folder:
        more: dict[str, Any] = {"secrets": await _secrets(store, namespace, spec.get("secrets", []), folder)}
        archive = None
        dockerfile = spec.get("dockerfile") or "Dockerfile"
        git = spec["source"].get("git")
        if git:
            more["context"] = buildx.git_context(git["url"], git.get("revision", ""))
        else:
            archive = _archive(uploads, spec["source"])
            await asyncio.to_thread(source.check, archive, dockerfile)
        recipe = buildx.Recipe(
            tag=spec["tag"],
            dockerfile=dockerfile,
            target=spec.get("target", ""),
            args=spec.get("args", {}),
            platform=spec.get("platform", ""),
            **more,
        )
        yield Work(tuple(buildx.command(recipe)), archive)


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
