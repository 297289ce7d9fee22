"""Names of images that no Build may take: the platform's own, and those that it and its recipes start from. Pure."""

from knoll.values.image_reference import DEFAULT_REGISTRY, ImageReference

BUILT_PREFIX = "knoll-built"
"""What Builds made is kept on the engine under this name."""
PINNED_PREFIX = "knoll-pinned"
"""Local images that Revisions need are kept on the engine under this name."""
_OWN = frozenset({"knoll", BUILT_PREFIX, PINNED_PREFIX, "knoll-standin"})
_BASES = frozenset({"redis", "moby/buildkit", "python", "golang", "node", "debian"})
_DOCKER_HUB = frozenset({"", "docker.io", DEFAULT_REGISTRY, "registry-1.docker.io"})


def reserved(image: ImageReference) -> bool:
    """Whether the name belongs to the platform: by itself or on Docker Hub, which a name without a registry means."""
    if image.registry not in _DOCKER_HUB:
        return False
    path = image.path.removeprefix("library/")
    return path.partition("/")[0] in _OWN or path in _BASES
