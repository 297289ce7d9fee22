"""`knoll dev` from the view of a developer: a folder is built and served again whenever it changes."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.e2e.platform import Platform
from tests.waiting import eventually_sync

GO = """package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	fmt.Println("begun as %s")
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "%s") })
	panic(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
"""
NAME = "devloop"


def test_each_change_is_served_and_a_broken_one_leaves_the_last_good_one_serving(
    platform: Platform, tmp_path: Path
) -> None:
    (tmp_path / "go.mod").write_text("module x\n\ngo 1.22\n")
    (tmp_path / "main.go").write_text(GO % ("one", "one"))
    (tmp_path / ".dockerignore").write_text("notes.txt\n")
    with dev(platform, tmp_path) as output:
        seen(output, "serving", 1)
        assert get(platform) == "one"
        seen(output, "begun as one", 1)

        (tmp_path / "notes.txt").write_text("does not belong to the source")
        (tmp_path / "main.go").write_text("package main\nfunc main() { broken }\n")
        seen(output, "failed ", 1)
        assert any("undefined: broken" in line for line in output)
        assert get(platform) == "one"

        (tmp_path / "main.go").write_text('package main\nfunc main() { panic("ouch") }\n')
        seen(output, "failed ", 2)
        assert get(platform) == "one"

        (tmp_path / "main.go").write_text(GO % ("two", "two"))
        seen(output, "serving", 2)
        assert get(platform) == "two"
        seen(output, "begun as two", 1)
    assert not any("notes.txt" in line for line in output)
    assert platform.kubectl("get", "ksvc", NAME, "--ignore-not-found", "-o", "name").stdout == ""


@contextmanager
def dev(platform: Platform, folder: Path) -> Iterator[list[str]]:
    """`knoll dev`; its output so far. Ctrl-C at the end takes the Service away."""
    command = [sys.executable, "-m", "knoll.cli", "dev", str(folder), "--name", NAME, "--delete"]
    process = subprocess.Popen(
        [*command, "--server", platform.api],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "300"},
    )
    output: list[str] = []
    assert process.stdout is not None
    lines = process.stdout
    reader = threading.Thread(target=lambda: output.extend(iter(lines.readline, "")), daemon=True)
    reader.start()
    try:
        yield output
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, "".join(output)
    finally:
        process.kill()
        process.wait()
        reader.join(30)
        lines.close()
        platform.kubectl("delete", "ksvc", NAME, "--ignore-not-found")
        listed = ["docker", "image", "ls", "--format={{.Repository}}:{{.Tag}}", f"--filter=reference={NAME}"]
        for image in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split():
            subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True, check=True)


def seen(output: list[str], text: str, times: int) -> None:
    eventually_sync(
        lambda: sum(text in line for line in output) >= times, within=120, condition=f"{text!r} {times} times"
    )


def get(platform: Platform) -> str:
    return httpx.get(platform.gateway, headers={"Host": f"{NAME}.default.localhost"}, timeout=60).text
