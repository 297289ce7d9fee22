"""Docker only: what runs in an armed instance after its release, and who can release it."""

import asyncio
import contextlib
import json
import os
import platform
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from autoscaler.runtime.docker import arm_payload
from autoscaler.runtime.docker.docker_runtime import DockerRuntime
from autoscaler.runtime.docker.programs import build
from autoscaler.runtime.model import ArmingUnavailableError, ContainerSpec, InstanceSpec, Mount, Resources
from tests.component.runtime.harness import (
    PORT,
    DockerHarness,
    build_configured_image,
    container,
    docker,
    fetch,
    spec,
)

pytestmark = pytest.mark.docker


@pytest.fixture
def configured(test_image: None) -> str:
    return build_configured_image()


VARIANTS: dict[str, dict[str, Any]] = {
    "entrypoint and command of the image": {},
    "arguments of the spec": {"args": ("serve", "", "a b")},
    "command of the spec, found through PATH": {
        "command": ("program",), "args": ("serve",), "env": {"PATH": "/nowhere:/"},
    },
    "relative command in another folder": {"command": ("../program",), "working_dir": "/proc"},
    "another user and groups": {"user": 4321, "group": 8765, "groups": (7, 8)},
    "root": {"user": 0},
    "variables, limits and mounts": {
        "env": {"B": "2", "A": "", "PORT": str(PORT)}, "read_only_root": True,
        "resources": Resources(cpu_request=0.1, memory_limit=64 * 1024**2),
        "mounts": (Mount("/scratch", "tmpfs", size_bytes=1024**2),), "drop_capabilities": ("ALL",),
    },
}  # fmt: skip
SHOWN = {
    "argv": "/proc/1/cmdline",
    "environment": "/proc/1/environ",
    "limits": "/proc/1/limits",
    "score": "/proc/1/oom_score_adj",
    "mounts": "/proc/1/mounts",
    "status": "/proc/1/status",
}
ABOUT_RIGHTS = (
    "Uid",
    "Gid",
    "Groups",
    "Cap",
    "NoNewPrivs",
    "Seccomp:",
    # Not SigQ: the signals that are queued for all processes of the user on this machine.
    "SigPnd",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "ShdPnd",
    "Umask",
    "Pid",
    "NSpid",
    "PPid",
)


async def shown(address: str) -> dict[str, list[str]]:
    """What a program finds of itself."""
    texts = {name: await fetch(address, f"/file?path={path}") for name, path in SHOWN.items()}
    lines = {name: text.splitlines() for name, text in texts.items()}
    lines["status"] = [line for line in lines["status"] if line.startswith(ABOUT_RIGHTS)]
    # The engine keeps tmpfs mounts in a map, so their order differs from one container to the next.
    lines["mounts"] = sorted(
        line for line in lines["mounts"] if arm_payload.TARGET not in line and "overlay" not in line
    )
    lines["environment"] = ["\n".join(lines["environment"])]
    facts = json.loads(await fetch(address, "/facts"))
    lines["facts"] = [f"{key}={facts.get(key)}" for key in ("args", "dir", "root", "stdin", "tmp")]
    return lines


@pytest.mark.parametrize("how", VARIANTS.values(), ids=VARIANTS.keys())
async def test_a_released_program_finds_what_a_started_one_finds(
    docker_runtime: DockerRuntime, configured: str, how: dict[str, Any]
) -> None:
    own = spec("hello-1", ContainerSpec("user-container", configured, **how))
    started = await shown((await docker_runtime.start(own)).address)
    await docker_runtime.remove("hello-1", 0)
    await docker_runtime.arm(own)
    released = await shown((await docker_runtime.release("hello-1")).address)
    for name in started:
        assert released[name] == started[name], name


async def test_an_armed_instance_has_its_name_as_host_name_and_nothing_new_in_its_file_system(
    docker_runtime: DockerRuntime, docker_harness: DockerHarness, configured: str
) -> None:
    await docker_runtime.arm(spec("hello-1", ContainerSpec("user-container", configured)))
    released = await docker_runtime.release("hello-1")
    assert (await fetch(released.address, "/file?path=/proc/sys/kernel/hostname")).strip() == "hello-1"
    changes = (await docker("diff", f"{docker_harness.platform}.hello-1.user-container")).splitlines()
    assert changes == ["A /tmp"], "where every app has a tmpfs"
    assert (await docker_runtime.disk_bytes("hello-1")) == {"user-container": 0}


async def test_a_released_program_gets_its_stop_signal(docker_runtime: DockerRuntime) -> None:
    await docker_runtime.arm(spec())
    released = await docker_runtime.release("hello-1")
    await fetch(released.address)
    request = asyncio.create_task(fetch(released.address, "/?sleep=700"))
    await asyncio.wait({request}, timeout=0.3)
    await docker_runtime.remove("hello-1")
    assert (await request).strip() == "hello-1"


async def armed_place(harness: DockerHarness) -> tuple[str, int, str]:
    """Return address, port and token of an armed container, as only the engine tells them."""
    own = json.loads(await docker("inspect", f"{harness.platform}.hello-1.user-container"))[0]["Config"]["Labels"]
    return own["knoll.dev/address"], int(own["knoll.dev/arm-port"]), own["knoll.dev/arm-token"]


@contextlib.asynccontextmanager
async def connected(address: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_without_its_token_nothing_releases_an_instance(
    docker_runtime: DockerRuntime, docker_harness: DockerHarness
) -> None:
    await docker_runtime.arm(spec())
    address, port, token = await armed_place(docker_harness)
    for foreign in (b"r", b"r" * 33, b"0" * 32 + b"r", token[::-1].encode() + b"r"):
        async with connected(address, port) as (reader, writer):
            writer.write(foreign)
            writer.write_eof()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
    assert [instance.state for instance in await docker_runtime.instances()] == ["armed"]
    await docker_runtime.release("hello-1")


async def test_the_token_of_one_instance_is_worth_nothing_for_the_next_at_its_address(
    docker_runtime: DockerRuntime, docker_harness: DockerHarness
) -> None:
    await docker_runtime.arm(spec())
    _, _, replayed = await armed_place(docker_harness)
    await docker_runtime.remove("hello-1", 0)
    await docker_runtime.arm(spec())
    address, port, _ = await armed_place(docker_harness)
    async with connected(address, port) as (reader, writer):
        writer.write(replayed.encode() + b"r")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    assert [instance.state for instance in await docker_runtime.instances()] == ["armed"]


async def test_an_instance_whose_connection_broke_is_released_all_the_same(
    docker_runtime: DockerRuntime, docker_harness: DockerHarness
) -> None:
    await docker_runtime.arm(spec())
    address, port, token = await armed_place(docker_harness)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(6):  # more than it holds: ours is among those that it gives up
            reader, writer = await stack.enter_async_context(connected(address, port))
            writer.write(token.encode())
            assert await reader.read(1) == b"w"
        released = await docker_runtime.release("hello-1")
    assert (await fetch(released.address)).strip() == "hello-1"


ARMS = """
import asyncio, sys
from tests.component.runtime.harness import DockerHarness, spec

async def admit(address):
    print("half armed", flush=True)
    await asyncio.Event().wait()

async def main():
    harness = DockerHarness()
    harness.platform, harness.network = sys.argv[1:]
    async with harness.runtime() as runtime:
        await runtime.arm(spec("hello-1"))
        await runtime.arm(spec("hello-2"), admit=admit)

asyncio.run(main())
"""


async def test_what_an_autoscaler_leaves_armed_or_half_armed_when_it_is_killed_is_removed_with_the_platform(
    docker_harness: DockerHarness, test_image: None
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ARMS, docker_harness.platform, docker_harness.network),
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"half armed\n"
    process.kill()
    await process.communicate()
    assert f"{docker_harness.platform}.hello-2" in await docker_harness.names()
    async with docker_harness.runtime() as later:
        assert [(each.name, each.state) for each in await later.instances()] == [("hello-1", "armed")]
        assert f"{docker_harness.platform}.hello-2" not in await docker_harness.names()
        await later.destroy()
    assert await docker_harness.names() == []
    assert await docker_harness.volumes() == []


async def test_an_engine_where_the_program_does_not_run_starts_instances_as_before(
    docker_runtime: DockerRuntime, docker_harness: DockerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: str, __: str) -> bytes:
        raise build.ProgramError("arm.c is not compiled for this machine")

    monkeypatch.setattr(build, "program", broken)
    with pytest.raises(ArmingUnavailableError, match="not compiled"):
        await docker_runtime.arm(spec())
    assert "not compiled" in docker_runtime.arming_problem()
    assert await docker_harness.leftovers() == []
    assert await fetch((await docker_runtime.start(spec())).address)


async def test_a_program_that_never_listens_is_a_problem_of_the_engine(
    docker_runtime: DockerRuntime, docker_harness: DockerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = build.program(build.ARM, {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()])
    monkeypatch.setattr(build, "program", lambda _, __: program[:64] + b"\0" * (len(program) - 64))
    with pytest.raises(ArmingUnavailableError, match="cannot be reached"):
        await docker_runtime.arm(spec())
    assert docker_runtime.arming_problem()
    assert await docker_harness.leftovers() == []
    assert await fetch((await docker_runtime.start(spec())).address)


async def test_volumes_of_our_programs_are_not_shown_among_those_of_revisions(
    docker_runtime: DockerRuntime, docker_harness: DockerHarness
) -> None:
    await docker_runtime.arm(spec())
    assert await docker_runtime.volumes() == []
    assert len(await docker_harness.volumes()) == 1


async def test_arming_waits_for_starts(docker_runtime: DockerRuntime) -> None:
    order: list[str] = []
    entered, go = asyncio.Event(), asyncio.Event()

    async def admit(_: str) -> None:
        entered.set()
        await go.wait()

    def instance(name: str) -> InstanceSpec:
        return spec(name, container("serve"))

    async def start() -> None:
        await docker_runtime.start(instance("hello-1"), admit=admit)
        order.append("started")

    async def arm() -> None:
        await docker_runtime.arm(instance("hello-2"))
        order.append("armed")

    starting = asyncio.create_task(start())
    await entered.wait()
    arming = asyncio.create_task(arm())
    go.set()
    await asyncio.gather(starting, arming)
    assert order == ["started", "armed"]
