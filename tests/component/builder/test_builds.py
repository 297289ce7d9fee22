"""Builds by a real builder on a real engine: how each ends, and what it leaves."""

import asyncio
import base64
import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest

from knoll.values import kinds
from tests.component.builder.conftest import (
    DEBIAN,
    Yard,
    address_on_the_build_network,
    descendants,
    docker,
    tar_of,
)
from tests.conftest import free_port
from tests.waiting import eventually, eventually_sync

ENDLESS = f"FROM {DEBIAN}\nRUN echo begun here && tail -f /dev/null\n"


def fresh(dockerfile: str) -> bytes:
    """A source that no cache of the engine knows."""
    return tar_of({"Dockerfile": f"{dockerfile}# {uuid.uuid4()}\n", "once": uuid.uuid4().hex})


async def test_a_successful_build_has_an_image_a_digest_a_size_and_a_log(yard: Yard) -> None:
    yard.start()
    uid = await yard.submit("good", tar_of({"Dockerfile": f"FROM {DEBIAN}\nCOPY word /word\n", "word": "w" * 1000}))
    ended = await yard.over("good")
    assert (ended.phase, ended.uid, ended.attempts) == ("Succeeded", uid, 1), ended
    image = docker("image", "inspect", "--format={{.Id}} {{.Size}}", f"{yard.prefix}/good:v1").stdout.split()
    assert [ended.digest.rpartition("@")[2], str(ended.size)] == image
    assert any("COPY word /word" in line for line in await yard.log("good"))


async def test_arguments_and_target_reach_the_dockerfile(yard: Yard) -> None:
    yard.start()
    text = f'FROM {DEBIAN} AS first\nARG WORD\nLABEL said="$WORD"\nFROM first\nRUN exit 9\n'
    await yard.submit("chosen", tar_of({"sub/File": text}), dockerfile="sub/File", target="first", args={"WORD": "a b"})
    assert (await yard.over("chosen")).phase == "Succeeded"
    output = docker("image", "inspect", '--format={{index .Config.Labels "said"}}', f"{yard.prefix}/chosen:v1")
    assert output.stdout.strip() == "a b"


@pytest.mark.parametrize(
    ("archive", "reason", "message"),
    [
        (tar_of({"Dockerfile": f"FROM {DEBIAN}\nRUN echo oh no && exit 7\n"}), "BuildFailed", "exit code: 7"),
        (tar_of({"Dockerfile": "FROM no.such.host.invalid/none:1\n"}), "BuildFailed", "no.such.host.invalid/none:1"),
        (tar_of({"Dockerfile": "FRMO nothing\n"}), "BuildFailed", "FRMO"),
        (tar_of({"main.go": "package main"}), "InvalidSource", "no Dockerfile; its top level has: main.go"),
        (b"this is no tar" * 100, "InvalidSource", "not a readable tar archive"),
        (tar_of({"Dockerfile": "FROM scratch\n", "big": "x" * 9000})[:4000], "InvalidSource", "tar archive"),
        (tar_of({"Dockerfile": "FROM scratch\n", "../../etc/cron.d/x": "*"}), "InvalidSource", "outside of the source"),
        (tar_of({"Dockerfile": "FROM scratch\n", "/etc/passwd": "*"}), "InvalidSource", "/etc/passwd"),
    ],
    ids=[
        "failing step",
        "no base image",
        "bad Dockerfile",
        "no Dockerfile",
        "no tar",
        "cut tar",
        "dot dot",
        "absolute",
    ],
)
async def test_an_invalid_source_fails_with_its_reason(yard: Yard, archive: bytes, reason: str, message: str) -> None:
    yard.start()
    await yard.submit("bad", archive)
    ended = await yard.over("bad")
    assert (ended.phase, ended.reason) == ("Failed", reason), ended
    assert message in ended.message
    assert docker("image", "inspect", f"{yard.prefix}/bad:v1").returncode == 1


async def test_a_missing_upload_fails_with_a_request_to_upload_again(yard: Yard) -> None:
    yard.start()
    await yard.submit("gone", source={"upload": {"id": "sha256-" + "0" * 64}})
    ended = await yard.over("gone")
    assert ended.reason == "InvalidSource"
    assert "upload the source again" in ended.message


async def test_a_secret_is_readable_in_the_build_and_not_in_the_image(yard: Yard) -> None:
    meta = {"namespace": "default", "name": "keys", "uid": uuid.uuid4().hex}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"k": base64.b64encode(b"s3cret").decode()}}
    await yard.store.create(kinds.SECRET.id, body)
    text = f"FROM {DEBIAN}\nRUN --mount=type=secret,id=word wc -c < /run/secrets/word > /size\n"
    secrets = [{"id": "word", "name": "keys", "key": "k"}]
    yard.start()
    await yard.submit("secret", fresh(text), secrets=secrets)
    assert (await yard.over("secret")).phase == "Succeeded"
    shown = docker("run", "--rm", f"{yard.prefix}/secret:v1", "sh", "-c", "cat /size; ls -A /run/secrets")
    assert shown.stdout.split() == ["6"]

    await yard.submit("missing", fresh(text), secrets=[{**secrets[0], "key": "other"}])
    ended = await yard.over("missing")
    assert (ended.reason, ended.message) == (
        "InvalidSource",
        "the build needs the key other of the Secret keys, which has no such key",
    )


async def test_an_existing_image_gets_a_second_name(yard: Yard) -> None:
    yard.start()
    await yard.submit("named", source={"image": DEBIAN})
    ended = await yard.over("named")
    assert ended.phase == "Succeeded", ended
    assert ended.digest.partition("@")[0] == f"{yard.prefix}/named"
    await yard.submit("unknown", source={"image": "127.0.0.1:9/no/such:v1"})
    ended = await yard.over("unknown")
    assert (ended.phase, ended.reason) == ("Failed", "BuildFailed")
    assert "127.0.0.1:9" in ended.message


async def test_a_repository_is_built_at_the_revision_that_is_named(yard: Yard, tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *identity, "-C", str(tmp_path / "app.git"), *arguments], check=True, capture_output=True)

    (tmp_path / "app.git").mkdir()
    git("init")
    for word in ("one", "two"):
        (tmp_path / "app.git" / "Dockerfile").write_text(f"FROM {DEBIAN}\nLABEL said={word}\n")
        git("add", ".")
        git("commit", "-m", word)
        git("tag", word)
    host, port = address_on_the_build_network(), free_port()
    await yard.configure(build_destinations=host)
    command = ["git", "daemon", "--export-all", f"--listen={host}", f"--port={port}", f"--base-path={tmp_path}"]
    daemon = await asyncio.create_subprocess_exec(*command, process_group=0, stderr=subprocess.DEVNULL)
    try:
        eventually_sync(lambda: listening(host, port), condition="git daemon")
        yard.start()
        await yard.submit("fetched", source={"git": {"url": f"git://{host}:{port}/app.git", "revision": "one"}})
        ended = await yard.over("fetched")
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        await daemon.wait()
    assert ended.phase == "Succeeded", ended
    output = docker("image", "inspect", '--format={{index .Config.Labels "said"}}', f"{yard.prefix}/fetched:v1")
    assert output.stdout.strip() == "one"


async def test_an_unreachable_repository_fails_the_build_with_its_address(yard: Yard) -> None:
    host = address_on_the_build_network()
    await yard.configure(build_destinations=host)
    yard.start()
    await yard.submit("nowhere", source={"git": {"url": f"http://{host}:9/a/b", "revision": "main"}})
    ended = await yard.over("nowhere")
    assert (ended.phase, ended.reason) == ("Failed", "InvalidSource")
    assert f"http://{host}:9/a/b.git" in ended.message


async def test_a_host_that_resolves_to_this_machine_is_refused_when_the_build_starts(yard: Yard) -> None:
    yard.start()
    await yard.submit("inside", source={"git": {"url": f"https://{socket.gethostname()}/a/b"}})
    ended = await yard.over("inside")
    assert (ended.phase, ended.reason) == ("Failed", "InvalidSource")
    assert "must not be an address of this machine or of a private or link-local network" in ended.message


async def test_deleting_a_running_build_ends_it_and_all_of_its_processes(yard: Yard) -> None:
    builder = yard.start()
    await yard.submit("stopped", fresh(ENDLESS))
    await yard.until_logged("stopped", "begun here")
    await yard.store.delete(kinds.BUILD_KIND.id, "default", "stopped")

    async def forgotten() -> bool:
        return await yard.progress("stopped") is None

    await eventually(forgotten, 30, "the end of a deleted build")
    eventually_sync(lambda: not clients(builder), 30, "no build process left")


async def test_a_build_that_takes_too_long_fails(yard: Yard) -> None:
    yard.environment = {**yard.environment, "KNOLL_BUILD_TIMEOUT_SECONDS": "3"}
    builder = yard.start()
    await yard.submit("slow", fresh(ENDLESS))
    ended = await yard.over("slow")
    assert (ended.reason, ended.message) == ("TimedOut", "the build took longer than 3 s")
    eventually_sync(lambda: not clients(builder), 30, "no build process left")


async def test_a_worker_killed_twice_in_a_build_fails_it_with_the_reason(yard: Yard) -> None:
    builder = yard.start()
    await yard.submit("deadly", fresh(ENDLESS))
    for attempt in (1, 2):

        async def running(number: int = attempt) -> bool:
            progress = await yard.progress("deadly")
            return progress is not None and progress.attempts == number and bool(clients(builder))

        await eventually(running, 60, f"attempt {attempt}")
        for pid in workers(builder):
            os.kill(pid, signal.SIGKILL)
    ended = await yard.over("deadly")
    assert (ended.phase, ended.reason) == ("Failed", "BuilderDied")
    eventually_sync(lambda: not clients(builder), 30, "no build process left")


async def test_a_builder_takes_over_the_build_of_a_dead_one_immediately(yard: Yard) -> None:
    first = yard.start()
    await yard.submit("taken-up", fresh(ENDLESS))
    await yard.until_logged("taken-up", "begun here")
    for pid, _ in [*descendants(first.pid)]:
        os.kill(pid, signal.SIGKILL)
    first.kill()
    first.wait()
    yard.builders.remove(first)
    second = yard.start()

    async def again() -> bool:
        progress = await yard.progress("taken-up")
        return progress is not None and (progress.phase, progress.attempts) == ("Running", 2) and bool(clients(second))

    await eventually(again, 30, "the second attempt")
    await yard.store.delete(kinds.BUILD_KIND.id, "default", "taken-up")
    eventually_sync(lambda: not clients(second), 30, "no build process left")


async def test_secrets_of_a_killed_builder_are_removed_by_the_next(yard: Yard) -> None:
    first = yard.start()
    key = base64.b64encode(b"secret").decode()
    await yard.store.create(
        kinds.SECRET.id, {"metadata": {"namespace": "default", "name": "keys"}, "data": {"key": key}}
    )
    text = f"FROM {DEBIAN}\nRUN --mount=type=secret,id=k echo begun here && tail -f /dev/null\n"
    await yard.submit("deadly", fresh(text), secrets=[{"id": "k", "name": "keys", "key": "key"}])
    await yard.until_logged("deadly", "begun here")
    pids = {pid for pid, _ in descendants(first.pid)}

    def left() -> list[Path]:
        folders = Path(tempfile.gettempdir()).glob("knoll-build-*")
        return [path for path in folders if int(path.name.split("-")[2]) in pids]

    assert left()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it ends with its parent
            os.kill(pid, signal.SIGKILL)
    first.kill()
    first.wait()
    yard.builders.remove(first)
    await yard.store.delete(kinds.BUILD_KIND.id, "default", "deadly")
    yard.start()
    eventually_sync(lambda: not left(), 30, "no file of the dead worker")


def listening(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def clients(builder: subprocess.Popen[bytes]) -> list[int]:
    return [pid for pid, command in descendants(builder.pid) if "buildx build" in command]


def workers(builder: subprocess.Popen[bytes]) -> list[int]:
    """The build worker and the process that has the job, not what it started."""
    return [pid for pid, _ in descendants(builder.pid) if Path(f"/proc/{pid}/comm").read_text().startswith("builds-")]
