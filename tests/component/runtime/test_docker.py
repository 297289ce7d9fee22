"""Docker only: isolation, the warm pool, limits, and an engine that becomes unavailable."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from autoscaler.runtime.docker import pause_image
from autoscaler.runtime.docker.docker_runtime import DockerRuntime
from autoscaler.runtime.docker.own_image import is_ours
from autoscaler.runtime.docker.payloads import CAPABILITIES
from autoscaler.runtime.model import InstanceStartError, Mount, Resources, Resync
from knoll.values.errors import ImageError, RuntimeUnavailableError
from tests.component.runtime.harness import IMAGE, SOCKET, DockerHarness, container, docker, fetch, spec
from tests.images import image_name
from tests.waiting import eventually

pytestmark = pytest.mark.docker

BITS = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7, "NET_BIND_SERVICE": 10}


async def facts(runtime: DockerRuntime, **more: Any) -> dict[str, str]:
    instance = await runtime.start(spec("hello-1", container("serve", **more)))
    answer: dict[str, str] = json.loads(await fetch(instance.address, "/facts"))
    return answer


async def host_config(harness: DockerHarness, name: str = "hello-1") -> dict[str, object]:
    inspected = json.loads(await docker("inspect", f"{harness.platform}.{name}.user-container"))[0]
    config: dict[str, object] = inspected["HostConfig"]
    return config


# --- isolation


async def test_an_app_has_few_capabilities_and_gets_no_more(docker_runtime: DockerRuntime) -> None:
    answer = await facts(docker_runtime)
    assert int(answer["CapBnd"], 16) == sum(1 << BITS[name] for name in CAPABILITIES)
    assert answer["NoNewPrivs"] == "1"
    assert answer["Seccomp"] == "2"


async def test_a_sandbox_runs_our_program_whatever_image_has_its_name(
    docker_harness: DockerHarness, test_image: None
) -> None:
    reference = pause_image.REFERENCE
    async with docker_harness.runtime():
        ours = json.loads(await docker("image", "inspect", reference))[0]["Id"]
        await docker("tag", IMAGE, reference)
    try:
        async with docker_harness.runtime() as runtime:
            await runtime.start(spec("hello-1", container("serve")))
            label = f"--filter=label=knoll.dev/platform={docker_harness.platform}"
            names = await docker("ps", "-a", "--format={{.Names}}", label)
            sandboxes = [name for name in names.split() if not name.endswith(".user-container")]
            assert sandboxes
            for name in sandboxes:
                sandbox = json.loads(await docker("inspect", name))[0]
                image = json.loads(await docker("image", "inspect", sandbox["Image"]))[0]
                assert is_ours(image, pause_image.layer(image["Architecture"])), name
    finally:
        await docker("tag", ours, reference)


async def test_capabilities_can_be_dropped_and_added(docker_runtime: DockerRuntime) -> None:
    answer = await facts(docker_runtime, drop_capabilities=("ALL",), add_capabilities=("CAP_KILL",))
    assert int(answer["CapBnd"], 16) == 1 << BITS["KILL"]


async def test_an_app_has_no_terminal_and_its_stdin_ends_at_once(docker_runtime: DockerRuntime) -> None:
    assert (await facts(docker_runtime))["stdin"] == "EOF"


async def test_limits_are_the_engines(docker_runtime: DockerRuntime, docker_harness: DockerHarness) -> None:
    limits = Resources(cpu_request=0.25, cpu_limit=64.0, memory_request=32 * 1024**2, memory_limit=128 * 1024**2)
    await facts(docker_runtime, resources=limits)
    config = await host_config(docker_harness)
    assert (config["Memory"], config["MemorySwap"], config["MemoryReservation"]) == (128 << 20, 128 << 20, 32 << 20)
    assert (config["CpuShares"], config["CpuQuota"], config["CpuPeriod"]) == (256, 6_400_000, 100_000)
    assert config["PidsLimit"] == 4096


async def test_an_impossible_limit_is_a_clear_error(docker_runtime: DockerRuntime) -> None:
    with pytest.raises(InstanceStartError, match=r"user-container cannot be created: Minimum memory limit") as failed:
        await facts(docker_runtime, resources=Resources(memory_limit=4096))
    assert failed.value.cause == "CreateContainerConfigError"


async def test_user_directory_and_environment_are_those_of_the_spec(docker_runtime: DockerRuntime) -> None:
    answer = await facts(docker_runtime, user=1234, working_dir="/tmp", env={"A": "b c", "EMPTY": ""})
    assert (answer["uid"], answer["gid"], answer["dir"]) == ("1234", "0", "/tmp")
    assert (answer["env A"], answer["env EMPTY"], answer["env HOSTNAME"]) == ("b c", "", "hello-1")


async def test_a_command_replaces_entrypoint_and_command(docker_runtime: DockerRuntime) -> None:
    instance = await docker_runtime.start(spec("hello-1", container("serve", "more", command=("/program",))))
    assert json.loads(await fetch(instance.address, "/facts"))["args"] == "/program serve more"


async def test_an_unprivileged_user_may_serve_on_a_low_port(docker_runtime: DockerRuntime) -> None:
    instance = await docker_runtime.start(spec("hello-1", container("serve", user=1234, env={"PORT": "80"}), port=80))
    assert (await fetch(instance.address, port=80)).strip() == "hello-1"


async def test_an_image_without_tmp_gets_a_writable_one(docker_runtime: DockerRuntime) -> None:
    answer = await facts(docker_runtime)
    assert answer["tmp"] == "dtrwxrwxrwx"
    assert "tmpfs /tmp" in answer["mounts"]


async def test_an_image_with_tmp_keeps_its_own(docker_runtime: DockerRuntime, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nWORKDIR /tmp\n")
    await docker("build", "-q", "-t", image_name("with-tmp"), str(tmp_path))
    answer = await facts(docker_runtime, image=image_name("with-tmp"))
    assert "tmpfs /tmp" not in answer["mounts"]


async def test_a_read_only_root_is_read_only(docker_runtime: DockerRuntime) -> None:
    assert "read-only" in (await facts(docker_runtime, read_only_root=True))["root"]


async def test_mounts_appear_at_their_paths(docker_runtime: DockerRuntime, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("value")
    mounts = (
        Mount("/config", "bind", str(tmp_path), read_only=True),
        Mount("/scratch", "tmpfs", size_bytes=1 << 20, mode=0o777),
    )
    mounted = (await facts(docker_runtime, mounts=mounts))["mounts"].splitlines()
    (config,) = (line for line in mounted if " /config " in line)
    (scratch,) = (line for line in mounted if " /scratch " in line)
    assert " ro," in config
    assert "size=1024k" in scratch


async def test_a_pinned_image_may_be_named_by_the_engines_own_id(docker_runtime: DockerRuntime) -> None:
    image_id = (await docker("image", "inspect", "-f", "{{.Id}}", IMAGE)).strip()
    pinned = f"some.registry/team/hello@{image_id}"
    assert await docker_runtime.ensure_image(pinned) == image_id
    await facts(docker_runtime, image=pinned)
    (instance,) = await docker_runtime.instances()
    assert instance.containers[0].image == pinned


async def test_a_pinned_image_that_was_removed_is_noticed(docker_runtime: DockerRuntime, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nLABEL only-of-this-test={tmp_path.name}\n")
    image_id = (await docker("build", "-q", "-t", image_name("removed"), str(tmp_path))).strip()
    pinned = f"hello@{image_id}"
    await facts(docker_runtime, image=pinned)
    await docker_runtime.remove("hello-1", grace_seconds=0)
    await docker("rmi", "-f", image_id)
    with pytest.raises(ImageError, match="is no longer on the engine"):
        await docker_runtime.start(spec("hello-2", container("serve", image=pinned)))
    with pytest.raises(ImageError, match="cannot be pulled"):
        await docker_runtime.ensure_image(pinned)


# --- what an instance reaches


@pytest.fixture
def listener() -> Iterator[int]:
    """Port of something on the host's loopback, as Redis and the API are under `knoll up`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
async def control_network(docker_harness: DockerHarness) -> AsyncIterator[str]:
    """Address of a server on another network, as Redis and the API are in Compose."""
    name = f"{docker_harness.platform}-control"
    await docker("network", "create", name)
    try:
        await docker("run", "-d", "--name", name, "--network", name, IMAGE, "serve")
        inspected = json.loads(await docker("inspect", name))[0]
        yield str(inspected["NetworkSettings"]["Networks"][name]["IPAddress"])
    finally:
        await docker("rm", "-f", name)
        await docker("network", "rm", name)


async def test_an_instance_reaches_neither_the_hosts_loopback_nor_the_control_network_nor_docker(
    docker_runtime: DockerRuntime, docker_harness: DockerHarness, listener: int, control_network: str
) -> None:
    instance = await docker_runtime.start(spec())
    network = json.loads(await docker("network", "inspect", docker_harness.network))[0]
    gateway = network["IPAM"]["Config"][0]["Gateway"]
    await fetch(control_network)
    for target in (f"{gateway}:{listener}", f"127.0.0.1:{listener}", f"{control_network}:8080"):
        assert (await fetch(instance.address, f"/dial?network=tcp&to={target}")).startswith("closed"), target
    assert (await fetch(instance.address, f"/dial?network=unix&to={SOCKET}")).startswith("closed")


async def test_instances_reach_each_other_as_pods_do(docker_runtime: DockerRuntime) -> None:
    instance, two = await asyncio.gather(docker_runtime.start(spec("hello-1")), docker_runtime.start(spec("hello-2")))
    await fetch(two.address)
    assert (await fetch(instance.address, f"/dial?network=tcp&to={two.address}:8080")).strip() == "open"


# --- warm pool


async def spares(harness: DockerHarness) -> list[str]:
    return [name for name in await harness.names() if ".spare-" in name]


async def until_spares(harness: DockerHarness, count: int, runtime: DockerRuntime | None = None) -> list[str]:
    """Wait until so many sandboxes run and the runtime has finished creating them."""

    async def settled() -> list[str]:
        assert runtime is None or runtime.spare_sandboxes == count
        names = await spares(harness)
        assert len(names) == count, names
        states = await docker("inspect", "-f", "{{.State.Status}}", *names) if names else ""
        assert states.split() == ["running"] * count
        return [*names, "end"]

    return (await eventually(settled))[:-1]


async def test_an_instance_takes_a_sandbox_made_ahead_which_is_then_replaced(
    docker_runtime: DockerRuntime, docker_harness: DockerHarness
) -> None:
    before = await until_spares(docker_harness, 2)
    ids = (await docker("inspect", "-f", "{{.Id}}", *before)).split()
    await docker_runtime.start(spec())
    assert await docker_harness.sandbox_of("hello-1") in ids
    after = await until_spares(docker_harness, 2)
    assert len(set(after) & set(before)) == 1
    assert f"{docker_harness.platform}.hello-1" in await docker_harness.names()


async def test_without_a_pool_the_host_name_is_the_instances(test_image: None) -> None:
    harness = DockerHarness(warm_sandboxes=0)
    try:
        async with harness.runtime() as runtime:
            assert (await facts(runtime))["hostname"] == "hello-1"
            assert await spares(harness) == []
    finally:
        await harness.clean()


async def test_spare_sandboxes_are_removed_at_the_end(docker_harness: DockerHarness) -> None:
    async with docker_harness.runtime():
        await until_spares(docker_harness, 2)
    assert await docker_harness.names() == []


async def test_what_a_killed_process_left_is_adopted_or_removed(docker_harness: DockerHarness) -> None:
    killed = docker_harness.runtime()
    await killed.__aenter__()
    before = await until_spares(docker_harness, 2, killed)
    await killed._stop_tasks()  # as kill -9 does: nothing is tidied up
    await killed._engine.close()
    network = docker_harness.network
    stray = ["--label", f"knoll.dev/platform={docker_harness.platform}", "--label", "knoll.dev/role=sandbox"]
    await docker("run", "-d", "--name", f"{docker_harness.platform}.half-made", *stray, "--network", network, IMAGE)
    async with docker_harness.runtime() as runtime:
        assert await spares(docker_harness) == before
        assert await docker_harness.leftovers() == []
        await runtime.start(spec())


async def test_a_pool_that_has_learned_of_a_burst_is_as_large_after_a_kill(docker_harness: DockerHarness) -> None:
    docker_harness.warm_sandboxes = 6
    killed = docker_harness.runtime()
    await killed.__aenter__()
    await asyncio.gather(*(killed.start(spec(f"hello-{number}")) for number in range(4)))
    before = await until_spares(docker_harness, 4, killed)
    await killed._stop_tasks()
    await killed._engine.close()
    async with docker_harness.runtime() as runtime:
        assert await spares(docker_harness) == before
        await runtime.start(spec("hello-5"))
        after = await until_spares(docker_harness, 4)
        assert len(set(after) & set(before)) == 3


async def test_a_revision_that_may_be_woken_gets_a_warm_sandbox_the_first_time(docker_harness: DockerHarness) -> None:
    docker_harness.warm_sandboxes = 5
    async with docker_harness.runtime() as runtime:
        runtime.set_warm_demand(4)
        before = await until_spares(docker_harness, 4)
        await asyncio.gather(*(runtime.start(spec(f"hello-{number}")) for number in range(3)))
        runtime.set_warm_demand(1)
        after = await until_spares(docker_harness, 3)  # what came at once is remembered
        assert len(set(after) & set(before)) == 1
        runtime.set_warm_demand(99)
        await until_spares(docker_harness, 5)


async def test_surplus_sandboxes_are_removed(docker_harness: DockerHarness) -> None:
    first = docker_harness.runtime()
    await first.__aenter__()
    await until_spares(docker_harness, 2, first)
    await first._stop_tasks()
    await first._engine.close()
    docker_harness.warm_sandboxes = 1
    async with docker_harness.runtime():
        await until_spares(docker_harness, 1)


async def test_a_standby_leaves_the_pool_alone_until_it_takes_over(
    docker_runtime: DockerRuntime, docker_harness: DockerHarness
) -> None:
    before = await until_spares(docker_harness, 2)
    async with docker_harness.runtime(standby=True) as standby:
        started = await docker_runtime.start(spec("hello-1"))
        assert await standby.instances() == [started]
        assert standby.spare_sandboxes == 0
        await docker_runtime.step_down()
        assert docker_runtime.spare_sandboxes == 0
        await standby.take_over()
        after = await until_spares(docker_harness, 2)
        assert set(after) & set(before)
        two = await standby.start(spec("hello-2"))
        assert two.address != started.address
        assert (await fetch(two.address)).strip() == "hello-2"


async def test_a_spare_sandbox_that_died_is_not_used(
    docker_runtime: DockerRuntime, docker_harness: DockerHarness
) -> None:
    await docker("kill", *await until_spares(docker_harness, 2))
    instance = await docker_runtime.start(spec())
    assert (await fetch(instance.address)).strip() == "hello-1"
    await until_spares(docker_harness, 2)


# --- an unavailable engine


class Relay:
    """A socket in front of the engine's that can be cut, as a restart of the engine does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        self.path.unlink(missing_ok=True)
        for writer in list(self._writers):
            writer.transport.abort()
        await eventually(lambda: not self._writers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_unix_connection(str(SOCKET))
        self._writers.add(writer)
        copies = [asyncio.create_task(_copy(reader, back)), asyncio.create_task(_copy(onward, writer))]
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for copy in copies:
            copy.cancel()
        for end in (writer, back):
            end.transport.abort()
        self._writers.discard(writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def test_the_platform_recovers_by_itself_when_the_engine_is_back(
    docker_harness: DockerHarness, tmp_path: Path
) -> None:
    relay = Relay(tmp_path / "engine.sock")
    await relay.open()
    runtime = DockerRuntime(
        relay.path, platform=docker_harness.platform, network=docker_harness.network, warm_sandboxes=1
    )
    async with runtime, aclosing(runtime.events()) as events:
        assert isinstance(await anext(events), Resync)
        await runtime.start(spec())
        await relay.cut()
        with pytest.raises(RuntimeUnavailableError, match="Docker is running"):
            await runtime.instances()
        await relay.open()
        async with asyncio.timeout(30):
            assert await anext(events) == Resync("the container engine is available again")
        assert [instance.name for instance in await runtime.instances()] == ["hello-1"]
        await runtime.start(spec("hello-2"))
        await docker_harness.kill("hello-2")
        async with asyncio.timeout(30):
            died = await anext(events)
        assert getattr(died, "instance", None) == "hello-2"
    await relay.cut()


async def test_an_engine_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    missing = tmp_path / "no.sock"
    with pytest.raises(RuntimeUnavailableError, match=str(missing)):
        async with DockerRuntime(missing, platform="test-none", network="none", warm_sandboxes=0):
            pass


@asynccontextmanager
async def engine_saying(path: Path, status: str, body: bytes) -> AsyncIterator[None]:
    """An engine that answers everything in one way."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body))
        writer.close()

    server = await asyncio.start_unix_server(answer, str(path))
    async with server:
        yield


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        pytest.param("200 OK", b'{"ApiVersion": "1.30", "Arch": "amd64"}', r"has API version 1\.30", id="too old"),
        pytest.param("500 Oops", b'{"message": "no space left"}', "failed: no space left", id="broken"),
        pytest.param("503 Busy", b"<html>", "failed: <html>", id="not even JSON"),
    ],
)
async def test_an_unusable_engine_is_a_clear_error(tmp_path: Path, status: str, body: bytes, message: str) -> None:
    path = tmp_path / "engine.sock"
    async with engine_saying(path, status, body):
        with pytest.raises(RuntimeUnavailableError, match=message):
            async with DockerRuntime(path, platform="test-none", network="none", warm_sandboxes=0):
                pass
