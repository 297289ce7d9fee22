"""References to images: `alpine`, `localhost:5000/team/app:v1`, `registry.example/app@sha256:…`. Pure.

Source: the grammar of the OCI distribution reference (distribution/reference).
"""

import re
from dataclasses import dataclass

DEFAULT_REGISTRY = "index.docker.io"
"""The registry of names without one."""
MAX_REPOSITORY = 255

_HOST = re.compile(
    r"(?:(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])(?:\.(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9]))*"
    r"|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)
_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A parsed reference."""

    registry: str
    """As written; empty if there is none."""
    path: str
    """The repository in the registry, as written: `library/` is not added."""
    tag: str
    """Empty if there is none; means `latest` if there is no digest either."""
    digest: str
    """`sha256:<64 hex digits>`; empty when there is none."""

    @property
    def repository(self) -> str:
        """Registry and path as written, without tag and digest."""
        return f"{self.registry}/{self.path}" if self.registry else self.path

    def pinned(self, digest: str) -> str:
        """This reference with a digest instead of the tag."""
        return f"{self.repository}@{digest}"


def parse_image(text: str) -> ImageReference:
    """Parse a reference.

    Raises:
        ValueError: not a reference; the message names the invalid part.
    """
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError("the digest after @ must be sha256: and 64 hexadecimal digits")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    elif not _TAG.fullmatch(tag):
        raise ValueError(f"the tag {tag[:130]!r} must consist of at most 128 letters, digits, '_', '.' and '-'")
    registry, slash, path = name.partition("/")
    if not slash or not (any(mark in registry for mark in ".:") or registry == "localhost"):
        registry, path = "", name
    if registry and not _HOST.fullmatch(registry):
        raise ValueError(f"the registry {registry[:100]!r} is not a host")
    if not path:
        raise ValueError("the name of the repository is missing")
    if len(path) > MAX_REPOSITORY:
        raise ValueError(f"the name of the repository is longer than {MAX_REPOSITORY} characters")
    for part in path.split("/"):
        if not _PART.fullmatch(part):
            raise ValueError(
                f"{part[:60]!r} cannot be part of a repository's name: lower case letters and digits, "
                "with '.', '_' or '-' between them"
            )
    return ImageReference(registry, path, tag, digest)
