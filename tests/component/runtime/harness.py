"""One way to set up instances and failures, for Docker and for the fake, so that both share their tests."""

import asyncio
import json
import shutil
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from autoscaler.runtime.docker.docker_runtime import DockerRuntime
from autoscaler.runtime.model import ContainerSpec, InstanceSpec
from autoscaler.runtime.protocol import Runtime
from tests.doubles.fake_engine import FakeEngine, FakeProgram
from tests.doubles.fake_runtime import FakeRuntime
from tests.images import build_once, image_name
from tests.waiting import eventually

SOCKET = Path("/var/run/docker.sock")
PROGRAM = Path(__file__).parent / "program"
IMAGE = image_name("runtime-program")
CONFIGURED = image_name("runtime-program-configured")
PORT = 8080


def behave(spec: ContainerSpec) -> FakeProgram:
    """program/main.go in the terms of the fake."""
    if spec.command and spec.command[0] != "/program":
        return FakeProgram(refusal=f"exec: {spec.command[0]!r}: no such file or directory")
    match list(spec.args) or ["serve"]:
        case ["serve"]:
            return FakeProgram(output=b"serving on 8080\n", loopback=spec.env.get("HOST") == "127.0.0.1")
        case ["exit", code, *message]:
            output = f"{' '.join(message)}\n".encode() if message else b""
            return FakeProgram(listens_after=None, exits_after=0.0, exit_code=int(code), output=output)
        case ["leave", path, text]:
            return FakeProgram(listens_after=None, exits_after=0.0, writes={path: text.encode()})
        case ["sleep"]:
            return FakeProgram(listens_after=None)
        case ["stubborn"]:
            return FakeProgram(listens_after=None, ignores_term=True)
        case ["hog"]:
            return FakeProgram(listens_after=None, exits_after=0.0, oom=True)
        case other:
            return FakeProgram(listens_after=None, exits_after=0.0, exit_code=2, output=f"unknown {other}\n".encode())


def container(*args: str, name: str = "user-container", **more: Any) -> ContainerSpec:
    return replace(ContainerSpec(name, IMAGE, args=args), **more)


def spec(name: str = "hello-1", *containers: ContainerSpec, **more: Any) -> InstanceSpec:
    made = InstanceSpec(name, "default/hello", "uid-1", containers or (container("serve"),), PORT, grace_seconds=10.0)
    return replace(made, **more)


class Harness(Protocol):
    def runtime(self) -> Runtime:
        """Return a driver of the same engine; several may be created, one after the other."""

    async def lose(self, name: str) -> None:
        """Another program removes an instance's sandbox."""

    async def kill(self, name: str, container: str = "user-container") -> None:
        """A container's process gets SIGKILL from another program."""

    async def read(self, name: str, path: str, container: str = "user-container") -> str:
        """What a container finds in a file; begins with `error` when it finds none."""

    async def leftovers(self) -> list[str]:
        """Return the names of containers that belong to no instance and are no spare sandboxes."""

    async def clean(self) -> None: ...


class FakeHarness:
    def __init__(self) -> None:
        self.engine = FakeEngine(behave)
        self.engine.images = {IMAGE}

    def runtime(self) -> Runtime:
        return FakeRuntime(self.engine)

    async def lose(self, name: str) -> None:
        self.engine.lose(name)

    async def kill(self, name: str, container: str = "user-container") -> None:
        self.engine.kill(name, container)

    async def read(self, name: str, path: str, container: str = "user-container") -> str:
        content = self.engine.read(name, path, container)
        return "error: no such file" if content is None else content.decode()

    async def leftovers(self) -> list[str]:
        return sorted(self.engine.instances)

    async def clean(self) -> None:
        await self.runtime().destroy()


class DockerHarness:
    def __init__(self, warm_sandboxes: int = 2) -> None:
        self.platform = f"test-{uuid.uuid4().hex[:8]}"
        self.network = f"knoll-{self.platform}"
        self.warm_sandboxes = warm_sandboxes
        self.socket = SOCKET

    def runtime(self, standby: bool = False) -> DockerRuntime:
        return DockerRuntime(
            self.socket,
            platform=self.platform,
            network=self.network,
            warm_sandboxes=self.warm_sandboxes,
            standby=standby,
        )

    async def lose(self, name: str) -> None:
        await docker("rm", "-f", await self.sandbox_of(name))

    async def kill(self, name: str, container: str = "user-container") -> None:
        await docker("kill", f"{self.platform}.{name}.{container}")

    async def read(self, name: str, path: str, container: str = "user-container") -> str:
        container_labels = json.loads(await docker("inspect", f"{self.platform}.{name}.{container}"))[0]["Config"][
            "Labels"
        ]
        port = 9090 if container != "user-container" else PORT
        return await fetch(container_labels["knoll.dev/address"], f"/file?path={path}", port)

    async def sandbox_of(self, name: str) -> str:
        inspected = json.loads(await docker("inspect", f"{self.platform}.{name}.user-container"))[0]
        return str(inspected["Config"]["Labels"]["knoll.dev/sandbox"])

    async def names(self) -> list[str]:
        out = await docker(
            "ps", "-a", "--filter", f"label=knoll.dev/platform={self.platform}", "--format", "{{.Names}}"
        )
        return sorted(out.split())

    async def leftovers(self) -> list[str]:
        return [name for name in await self.names() if not name.startswith(f"{self.platform}.spare-")]

    async def volumes(self) -> list[str]:
        out = await docker("volume", "ls", "-q", "--filter", f"label=knoll.dev/platform={self.platform}")
        return sorted(out.split())

    async def clean(self) -> None:
        async with self.runtime() as runtime:
            await runtime.destroy()
        assert await self.names() == []
        claims = await self.volumes()
        assert all(claim.startswith(f"{self.platform}.claim.") for claim in claims)
        if claims:
            await docker("volume", "rm", *claims)


async def docker(*args: str) -> str:
    """Run a command of Docker's client, a driver that shares nothing with ours."""
    process = await asyncio.create_subprocess_exec(
        "docker", *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"docker {' '.join(args)}: {err.decode()}"
    return out.decode()


def docker_runs() -> bool:
    return (
        shutil.which("docker") is not None and subprocess.run(["docker", "info"], capture_output=True).returncode == 0
    )


def build_image(directory: Path, reference: str = IMAGE) -> None:
    """The test program in an empty image, built once a run: by this machine's Go, or else that of an image."""
    build_once(reference, lambda: _build_image(directory, reference))


def build_configured_image() -> str:
    """The test program with ENTRYPOINT and CMD, a relative command, a user, a working directory and a variable."""
    changes = (
        'ENTRYPOINT ["./program"]', 'CMD ["serve", "two words"]', "USER 1234:5678", "WORKDIR /",
        "ENV OF_IMAGE=yes", "STOPSIGNAL SIGINT",
    )  # fmt: skip

    def commit() -> None:
        made = _run("docker", "create", IMAGE).strip()
        _run("docker", "commit", *(part for change in changes for part in ("--change", change)), made, CONFIGURED)
        _run("docker", "rm", made)

    build_once(CONFIGURED, commit)
    return CONFIGURED


def _build_image(directory: Path, reference: str) -> None:
    binary = directory / "program"
    if shutil.which("go"):
        environment = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
        _run("env", *(f"{k}={v}" for k, v in environment.items()), "go", "build", "-o", str(binary), ".", cwd=PROGRAM)
    else:
        mounts = ["-v", f"{PROGRAM}:/src:ro", "-v", f"{directory}:/out", "-w", "/src", "-e", "CGO_ENABLED=0"]
        _run("docker", "run", "--rm", *mounts, "golang:1.24", "go", "build", "-o", "/out/program", ".")
    archive = directory / "program.tar"
    _run("tar", "-C", str(directory), "-cf", str(archive), "program")
    _run("docker", "import", "--change", 'ENTRYPOINT ["/program"]', str(archive), reference)


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


async def fetch(address: str, path: str = "/", port: int = PORT, within: float = 30.0) -> str:
    """The body of a GET, once the instance listens."""

    async def ask() -> str:
        try:
            async with aiohttp.ClientSession() as client, client.get(f"http://{address}:{port}{path}") as answer:
                assert answer.status == 200
                return await answer.text()
        except aiohttp.ClientConnectionError as error:
            raise AssertionError(repr(error)) from error

    return await eventually(ask, within, f"an answer of {address}:{port}{path}")
