"""Image names that Builds cannot use: those of the platform, and base images of it and its recipes. Pure."""

from knoll.values.image_reference import DEFAULT_REGISTRY, ImageReference
from knoll.values.platform_registry import REPOSITORY

BUILT_PREFIX = "knoll-built"
"""Name prefix under which the engine keeps built images."""
PINNED_PREFIX = "knoll-pinned"
"""Name prefix under which the engine keeps local images that Revisions need."""
_OWN = frozenset({"knoll", BUILT_PREFIX, PINNED_PREFIX, "knoll-standin"})
_BASES = frozenset({"redis", "moby/buildkit", "python", "golang", "node", "debian"})
_DOCKER_HUB = frozenset({"", "docker.io", DEFAULT_REGISTRY, "registry-1.docker.io"})


def reserved(image: ImageReference) -> bool:
    """Whether the name is reserved: on Docker Hub, which is also what no registry means, or in the platform's own."""
    if image.path.partition("/")[0] == REPOSITORY:
        return True
    if image.registry not in _DOCKER_HUB:
        return False
    path = image.path.removeprefix("library/")
    return path.partition("/")[0] in _OWN or path in _BASES
