"""What the end of a run of tests removes, and what it leaves to other runs."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

from knoll.firewall import nft
from tests.conftest import need

ROOT = Path(__file__).parents[2]
RUN = """
import subprocess
from tests import images

def named(*words):
    subprocess.run(words, check=True, capture_output=True)

name = images.platform_name("test")
for reference in (images.image_name("app"), f"knoll-pinned/{name}:1", f"knoll-built/{name}/default:1"):
    named("docker", "tag", "BASE", reference)
for family in ("inet", "bridge"):
    named("nft", "add", "table", family, f"knoll-{name}")
images.clean_up()
print(name)
"""


def output(*command: str, **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_end_of_a_run_removes_the_images_and_packet_filters_of_its_platforms_alone() -> None:
    need("DOCKER", subprocess.run(["docker", "info"], capture_output=True).returncode == 0)
    need("NFT", not nft.obstacle())
    token = uuid.uuid4().hex[:8]
    base, others = f"knoll-test-{token}/base:1", f"knoll-built/other-{token}/default:1"
    output("bash", "-c", f"tar -c --files-from=/dev/null | docker import - {base}")
    try:
        output("docker", "tag", base, others)
        output("nft", "add", "table", "inet", f"knoll-other-{token}")
        path = os.pathsep.join(("platform", str(ROOT)))
        name = output(
            sys.executable, "-c", RUN.replace("BASE", base), KNOLL_TEST_RUN=uuid.uuid4().hex[:8], PYTHONPATH=path
        ).strip()
        images = output("docker", "image", "ls", "--format={{.Repository}}").split()
        assert others.removesuffix(":1") in images
        assert [image for image in images if name in image] == []
        tables = output("nft", "list", "tables")
        assert f"knoll-other-{token}" in tables
        assert name not in tables
    finally:
        subprocess.run(["docker", "image", "rm", base, others], capture_output=True)
        subprocess.run(["nft", "delete", "table", "inet", f"knoll-other-{token}"], capture_output=True)
