"""The command blocks of the documents that are marked `<!-- run -->`, as a reader types them.

All blocks of a page run in order in one shell. The addresses of the documents are replaced by those of the tests'
platform.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.documents import DOCUMENTS, ROOT, Block, blocks
from tests.e2e.platform import Platform

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

PAGES = [document for document in DOCUMENTS if any(block.directive == "run" for block in blocks(document))]
API, GATEWAY_PORT = "http://127.0.0.1:8001", ":8080"
"""As the documents write them."""
END_OF_BLOCK = "\x1eend of block"


@pytest.fixture
def objects(platform: Platform) -> Iterator[None]:
    """Takes away what a page leaves when it fails half-way."""
    yield
    for kind, name in (("ksvc", "hello"), ("ksvc", "stock-service-example"), ("build", "sample"),
                       ("rolebinding", "ci"), ("serviceaccount", "ci"), ("clusterdomainclaim", "www.example.com"),
                       ("namespace", "shop")):  # fmt: skip
        platform.kubectl("delete", kind, name, "--ignore-not-found")
    changed = ("-n", "knative-serving", "patch", "configmap", "config-network", "--type=merge")
    platform.kubectl(*changed, "-p", '{"data": {"trusted-proxies": null}}')


@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", PAGES, ids=lambda document: str(document.relative_to(ROOT)))
def test_the_commands_of_a_document_do_what_it_says(
    platform: Platform, objects: None, document: Path, tmp_path: Path
) -> None:
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    marked = [block for block in blocks(document) if block.directive in ("run", "output")]
    script = "".join(
        f"{translated(block.text, platform)}\necho '{END_OF_BLOCK}'\n" for block in marked if block.directive == "run"
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path, env=environment(platform, tmp_path), capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    outputs = iter(done.stdout.split(END_OF_BLOCK))
    for block, output in with_outputs(marked, outputs):
        for line in translated(block.text, platform).splitlines():
            assert line in output, f"{block.place}: {output}"


def with_outputs(marked: list[Block], outputs: Iterator[str]) -> Iterator[tuple[Block, str]]:
    """Each block of the kind `output`, and what the block before it printed."""
    output = ""
    for block in marked:
        if block.directive == "run":
            output = next(outputs)
        else:
            yield block, output


def translated(text: str, platform: Platform) -> str:
    """A block with the addresses and the folder of the tests' platform."""
    for folder in ("~/.local/share/knoll", "$HOME/.local/share/knoll"):
        text = text.replace(folder, str(platform.data))
    return text.replace(API, platform.api).replace(GATEWAY_PORT, f":{platform.gateway.rpartition(':')[2]}")


def environment(platform: Platform, folder: Path) -> dict[str, str]:
    """Where `knoll` and kubectl find the platform without an option."""
    kubeconfig = folder / "kubeconfig"
    named = {"clusters": [{"name": "tests", "cluster": {"server": platform.api}}],
             "contexts": [{"name": "tests", "context": {"cluster": "tests"}}]}  # fmt: skip
    kubeconfig.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "tests", **named}))
    return {
        **os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(platform.home),
        "KUBECONFIG": str(kubeconfig), "KNOLL_SERVER": platform.api, "KNOLL_DATA": str(platform.data), "COLUMNS": "120",
    }  # fmt: skip
