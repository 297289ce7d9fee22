"""Whether an image with the name of the sandbox's image has its content."""

import hashlib
from typing import Any

import pytest

from autoscaler.runtime.docker import pause_image
from autoscaler.runtime.docker.own_image import is_ours

LAYER = pause_image.layer("amd64")
OURS: dict[str, Any] = {
    "RootFS": {"Layers": [f"sha256:{hashlib.sha256(LAYER).hexdigest()}"]},
    "Config": {"Entrypoint": ["/pause"], "User": "65535:65535", "Labels": {"knoll.dev/pause": pause_image.VERSION}},
}


def test_what_was_made_of_our_layer_is_ours() -> None:
    assert is_ours(OURS, LAYER)


@pytest.mark.parametrize(
    "change",
    [
        {"Entrypoint": ["/bin/evil"]},
        {"Entrypoint": ["/swap"]},
        {"Cmd": ["x"]},
        {"User": "0"},
        {"Labels": {"knoll.dev/pause": "0"}},
        {"Labels": {"knoll.dev/pause": pause_image.VERSION, "knoll.dev/platform": "other"}},
        {"Volumes": {"/data": {}}},
        {"OnBuild": ["RUN x"]},
    ],
    ids=str,
)
def test_another_configuration_is_not_ours(change: dict[str, Any]) -> None:
    assert not is_ours({**OURS, "Config": {**OURS["Config"], **change}}, LAYER)


@pytest.mark.parametrize("layers", [[], ["sha256:" + "0" * 64], OURS["RootFS"]["Layers"] * 2])
def test_other_content_is_not_ours(layers: list[str]) -> None:
    assert not is_ours({**OURS, "RootFS": {"Layers": layers}}, LAYER)


def test_an_answer_without_all_that_is_not_ours() -> None:
    assert not is_ours({}, LAYER)
