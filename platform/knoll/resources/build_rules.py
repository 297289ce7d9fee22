"""Defaults and rules of Builds. Pure."""

import re
from collections.abc import Iterator

from knoll.config.platform import PlatformConfig
from knoll.errors import FieldError
from knoll.resources.build import Build, BuildSpec
from knoll.resources.diff import difference
from knoll.resources.image_reference import parse_image
from knoll.resources.names import subdomain_problems
from knoll.resources.problems import invalid, missing, missing_one_of, multiple_one_of

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?")
_GIT_URL = re.compile(r"(https?|ssh|git)://[^\s]+|[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:[^\s]+")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def defaulted(build: Build, config: PlatformConfig, old: Build | None = None) -> Build:
    """The Build with everything said."""
    return build.changed(spec=build.spec.changed(dockerfile=build.spec.dockerfile or "Dockerfile"))


def validate(build: Build, old: Build | None, config: PlatformConfig) -> list[FieldError]:
    """All problems of a Build."""
    name = build.metadata.name
    problems = [invalid(name, "metadata.name", text) for text in subdomain_problems(name)] if name else []
    if old is None:
        return [*problems, *_spec(build.spec)]
    if build.spec != old.spec:
        details = difference(old.spec.to_json(), build.spec.to_json(), "spec")
        problems.append(FieldError("Immutable fields changed (-old +new)", ("spec",), details))
    return problems


def _spec(spec: BuildSpec) -> Iterator[FieldError]:
    yield from _source(spec)
    if not spec.tag:
        yield missing("spec.tag")
    else:
        try:
            if parse_image(spec.tag).digest:
                yield invalid(spec.tag, "spec.tag", "must be a name and a tag: the digest comes from the build")
        except ValueError as problem:
            yield FieldError(
                "Failed to parse image reference", ("spec.tag",), f'image: "{spec.tag[:300]}", error: {problem}'
            )
    path = spec.dockerfile
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        yield invalid(path, "spec.dockerfile", "must be a relative path without '..'")
    if spec.platform and not _PLATFORM.fullmatch(spec.platform):
        yield invalid(spec.platform, "spec.platform", "must be such as linux/amd64 or linux/arm/v7")
    if spec.target and not _ID.fullmatch(spec.target):
        yield invalid(spec.target, "spec.target", "must be the name of a stage")
    for name in spec.args:
        if not name or "=" in name or name.startswith("-"):
            yield invalid(name, "spec.args", "must be the name of a build argument")
    for at, secret in enumerate(spec.secrets):
        for part in ("id", "name", "key"):
            if not getattr(secret, part):
                yield missing(f"spec.secrets[{at}].{part}")
        if secret.id and not _ID.fullmatch(secret.id):
            yield invalid(secret.id, f"spec.secrets[{at}].id", "letters, digits, '_', '.' and '-'")


def _source(spec: BuildSpec) -> Iterator[FieldError]:
    source = spec.source
    kinds = {"upload": source.upload, "git": source.git, "image": source.image or None}
    present = [name for name, found in kinds.items() if found is not None]
    if len(present) != 1:
        yield (multiple_one_of if present else missing_one_of)(*(f"spec.source.{name}" for name in present or kinds))
    if source.upload is not None:
        if not source.upload.id:
            yield missing("spec.source.upload.id")
        elif not _ID.fullmatch(source.upload.id):
            yield invalid(source.upload.id, "spec.source.upload.id", "must be what the upload was answered with")
        if source.upload.sha256 and not _SHA256.fullmatch(source.upload.sha256):
            yield invalid(source.upload.sha256, "spec.source.upload.sha256", "must be 64 hexadecimal digits")
    if source.git is not None:
        if not source.git.url:
            yield missing("spec.source.git.url")
        elif not _GIT_URL.fullmatch(source.git.url):
            yield invalid(source.git.url, "spec.source.git.url", "must be an https, ssh or git address")
        if source.git.revision.startswith("-"):
            yield invalid(source.git.revision, "spec.source.git.revision", "must be a branch, tag or commit")
    if source.image:
        try:
            parse_image(source.image)
        except ValueError as problem:
            yield FieldError(
                "Failed to parse image reference",
                ("spec.source.image",),
                f'image: "{source.image[:300]}", error: {problem}',
            )
