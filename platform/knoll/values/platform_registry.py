"""Names of images in the registry of a platform on several machines. Pure.

The registry has the images that a registry of the user's does not have: those of Builds and those of engines. Each has
its id as its tag, so what was pulled can be compared with what a Revision is pinned to.
"""

REPOSITORY = "knoll-images"
"""First part of the path of the platform's repository."""


def repository(platform: str) -> str:
    """Return the path of the platform's repository in the registry."""
    return f"{REPOSITORY}/{platform}"


def tag_of(image_id: str) -> str:
    """Return the tag of an image. Args: image_id: `sha256:<64 hex>`."""
    return image_id.removeprefix("sha256:")


def image_name(registry: str, platform: str, image_id: str) -> str:
    """Return the name by which an engine pushes and pulls an image.

    Args:
        registry: `HOST:PORT` of the registry, as the engine reaches it.
        image_id: `sha256:<64 hex>`.
    """
    return f"{registry}/{repository(platform)}:{tag_of(image_id)}"
