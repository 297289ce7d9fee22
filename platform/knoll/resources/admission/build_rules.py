"""Defaults and rules of Builds. Pure."""

import re
from collections.abc import Iterator

from knoll.config.platform import PlatformConfig
from knoll.resources.models.build import Build, BuildSpec, GitSource
from knoll.resources.validation.problems import invalid, missing, missing_one_of, multiple_one_of
from knoll.resources.validation.reserved_images import reserved
from knoll.values.destinations import Destinations, host_problem
from knoll.values.errors import FieldError
from knoll.values.git_url import is_git_revision, parse_git_url
from knoll.values.image_reference import parse_image
from knoll.values.json_diff import difference
from knoll.values.names import subdomain_problems

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?")
_OWN_ARGUMENTS = ("BUILDKIT_CACHE_MOUNT_NS", "BUILDKIT_SANDBOX_HOSTNAME", "BUILDKIT_SYNTAX")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def defaulted(build: Build, config: PlatformConfig, old: Build | None = None) -> Build:
    """Return the Build with its defaults."""
    return build.changed(spec=build.spec.changed(dockerfile=build.spec.dockerfile or "Dockerfile"))


def validate(build: Build, old: Build | None, config: PlatformConfig) -> list[FieldError]:
    """Yield all problems of a Build."""
    name = build.metadata.name
    problems = [invalid(name, "metadata.name", text) for text in subdomain_problems(name)] if name else []
    if old is None:
        return [*problems, *_spec(build.spec, config)]
    if build.spec != old.spec:
        details = difference(old.spec.to_json(), build.spec.to_json(), "spec")
        problems.append(FieldError("Immutable fields changed (-old +new)", ("spec",), details))
    return problems


def _spec(spec: BuildSpec, config: PlatformConfig) -> Iterator[FieldError]:
    yield from _source(spec, config.security.build_destinations)
    yield from _tag(spec.tag)
    path = spec.dockerfile
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        yield invalid(path, "spec.dockerfile", "must be a relative path without '..'")
    if spec.platform and not _PLATFORM.fullmatch(spec.platform):
        yield invalid(spec.platform, "spec.platform", "must be a platform such as linux/amd64 or linux/arm/v7")
    if spec.target and not _ID.fullmatch(spec.target):
        yield invalid(spec.target, "spec.target", "must be the name of a build stage")
    for name in spec.args:
        if not name or "=" in name or name.startswith("-"):
            yield invalid(name, "spec.args", "must be the name of a build argument")
        elif name in _OWN_ARGUMENTS:
            yield invalid(name, "spec.args", "the argument is set by the platform")
    for at, secret in enumerate(spec.secrets):
        for part in ("id", "name", "key"):
            if not getattr(secret, part):
                yield missing(f"spec.secrets[{at}].{part}")
        if secret.id and not _ID.fullmatch(secret.id):
            yield invalid(secret.id, f"spec.secrets[{at}].id", "must consist of letters, digits, '_', '.' and '-'")


def _tag(tag: str) -> Iterator[FieldError]:
    if not tag:
        yield missing("spec.tag")
    else:
        try:
            image = parse_image(tag)
            if image.digest:
                yield invalid(tag, "spec.tag", "must be a name and a tag: the digest comes from the build")
            if reserved(image):
                yield invalid(tag, "spec.tag", "the name is reserved for the platform and its base images")
        except ValueError as problem:
            yield FieldError(
                "Failed to parse image reference", ("spec.tag",), f'image: "{tag[:300]}", error: {problem}'
            )


def _source(spec: BuildSpec, destinations: Destinations) -> Iterator[FieldError]:
    source = spec.source
    kinds = {"upload": source.upload, "git": source.git, "image": source.image or None}
    present = [name for name, value in kinds.items() if value is not None]
    if len(present) != 1:
        yield (multiple_one_of if present else missing_one_of)(*(f"spec.source.{name}" for name in present or kinds))
    if source.upload is not None:
        if not source.upload.id:
            yield missing("spec.source.upload.id")
        elif not _ID.fullmatch(source.upload.id):
            yield invalid(source.upload.id, "spec.source.upload.id", "must be the id in the response to the upload")
        if source.upload.sha256 and not _SHA256.fullmatch(source.upload.sha256):
            yield invalid(source.upload.sha256, "spec.source.upload.sha256", "must be 64 hexadecimal digits")
    if source.git is not None:
        yield from _git(source.git, destinations)
    if source.image:
        try:
            parse_image(source.image)
        except ValueError as problem:
            yield FieldError(
                "Failed to parse image reference",
                ("spec.source.image",),
                f'image: "{source.image[:300]}", error: {problem}',
            )


def _git(git: GitSource, destinations: Destinations) -> Iterator[FieldError]:
    if not git.url:
        yield missing("spec.source.git.url")
    else:
        try:
            problem = host_problem(parse_git_url(git.url).host, destinations)
        except ValueError as error:
            problem = str(error)
        if problem:
            yield invalid(git.url[:300], "spec.source.git.url", problem)
    if git.revision and not is_git_revision(git.revision):
        yield invalid(git.revision[:300], "spec.source.git.revision", "must be a branch, tag or commit")
