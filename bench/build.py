"""Building beside `docker buildx build`, and what a large upload costs.

Each round changes one line of the Go sample and builds it by both, in turns: `knoll build` (pack, upload, queue, build,
resolve) and `docker buildx build` with the same Dockerfile. A third measurement uploads 200 MB that do not compress.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from statistics import median

from bench.lib.stopping import stoppable
from tests.e2e.platform import Platform, running

SAMPLE = Path(__file__).parents[1] / "samples" / "rest-api-go"
UPLOAD_BYTES = 200_000_000
EVERY_SECONDS = 0.02


def timed(*command: str) -> float:
    """Return the seconds that a command takes. Raises: CalledProcessError."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"})
    return time.perf_counter() - begun


def knoll(platform: Platform, *arguments: str) -> float:
    return timed(sys.executable, "-m", "knoll.cli", arguments[0], "--server", platform.api, *arguments[1:])


def second_builds(platform: Platform, folder: Path, tag: str, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of the second builds, by Knoll and by buildx."""
    source = folder / "sample"
    shutil.copytree(SAMPLE, source)
    main = source / "main.go"
    before = main.read_text()
    ours, theirs = [], []
    for number in range(rounds + 1):
        main.write_text(f"{before}\n// {uuid.uuid4()}\n")
        ours.append(knoll(platform, "build", str(source), "--tag", f"{tag}/ours:{number}"))
        main.write_text(f"{before}\n// {uuid.uuid4()}\n")
        theirs.append(timed("docker", "buildx", "build", "--load", "--tag", f"{tag}/theirs:{number}", str(source)))
    return ours[1:], theirs[1:]


def upload_growth(platform: Platform, folder: Path, tag: str) -> dict[str, float]:
    """Return the largest growth of each process in MiB while 200 MB are uploaded and built."""
    source = folder / "large"
    source.mkdir()
    with (source / "noise").open("wb") as noise:
        for _ in range(UPLOAD_BYTES // 1_000_000):
            noise.write(os.urandom(1_000_000))
    (source / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    names = ("api", "builder")
    before = {name: resident(platform, name) for name in names}
    most = dict(before)
    done = threading.Event()

    def look() -> None:
        while not done.wait(EVERY_SECONDS):
            for name in names:
                most[name] = max(most[name], resident(platform, name))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        knoll(platform, "build", str(source), "--tag", f"{tag}/large:v1")
    finally:
        done.set()
        watcher.join()
    return {name: (most[name] - before[name]) / 1024 for name in names}


def resident(platform: Platform, name: str) -> int:
    """Return the resident memory of a process in KiB, without its children."""
    status = Path(f"/proc/{platform.pids(name)[0]}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.build", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="builds of each (%(default)s)")
    options = parser.parse_args()
    tag = f"knoll-bench-{uuid.uuid4().hex[:8]}"
    with stoppable(), tempfile.TemporaryDirectory(prefix="knoll-bench-") as directory:
        folder = Path(directory)
        try:
            with running(folder / "platform") as platform:
                ours, theirs = second_builds(platform, folder, tag, options.rounds)
                growth = upload_growth(platform, folder, tag)
        finally:
            listed = ["docker", "image", "ls", "--format={{.Repository}}:{{.Tag}}", f"--filter=reference={tag}/*"]
            for image in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split():
                subprocess.run(["docker", "image", "rm", image], capture_output=True, check=True)
    print(f"knoll build            median {median(ours):.2f} s of {' '.join(f'{seconds:.2f}' for seconds in ours)}")
    print(f"docker buildx build    median {median(theirs):.2f} s of {' '.join(f'{seconds:.2f}' for seconds in theirs)}")
    print(f"RESULT build.second_vs_buildx {median(ours) / median(theirs):.2f} ratio")
    print(f"RESULT build.upload200_api_mib {growth['api']:.1f} MiB")
    print(f"RESULT build.upload200_builder_mib {growth['builder']:.1f} MiB")


if __name__ == "__main__":
    main()
