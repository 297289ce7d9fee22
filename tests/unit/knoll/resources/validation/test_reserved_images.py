"""Names that no Build may take."""

import pytest

from knoll.resources.validation.reserved_images import reserved
from knoll.values.image_reference import parse_image


@pytest.mark.parametrize(
    "text",
    ["knoll:latest", "knoll", "knoll/pause:3", "knoll-pinned/knoll:abc", "knoll-built/knoll/sec-b:abc", "redis:8",
     "python:3.13-slim", "golang:1.24", "docker.io/library/python:3.13-slim", "index.docker.io/knoll/pause:3",
     "library/redis", "moby/buildkit:x", "knoll-standin/debian:trixie",
     "127.0.0.1:7445/knoll-images/knoll:abc"],
)  # fmt: skip
def test_the_platforms_own_and_base_images_are_reserved(text: str) -> None:
    assert reserved(parse_image(text))


@pytest.mark.parametrize("text", ["shop:v1", "sec-b/shop:v1", "registry.example/python:3", "knolly:v1", "team/redis:8"])
def test_other_names_are_free(text: str) -> None:
    assert not reserved(parse_image(text))
