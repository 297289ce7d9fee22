"""Uploads of sources for builds."""

import asyncio
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from msgspec.structs import replace

from api.app import create_app
from api.auth.access import TrustedPort
from knoll.builds.build_log import BuildLogWriter
from knoll.config.platform import PlatformConfig
from knoll.config.security import SecurityConfig
from knoll.process.admin import QuietServer
from knoll.process.settings import ApiSettings
from knoll.redis.client import RedisClient, connected
from knoll.values.kinds import BUILD_KIND
from tests.component.api.conftest import Kubectl, Running
from tests.conftest import need
from tests.doubles.memory_store import MemoryStore
from tests.waiting import eventually


@pytest.fixture
async def store() -> MemoryStore:
    return MemoryStore()


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("Dockerfile")
        info.size = 12
        tar.addfile(info, io.BytesIO(b"FROM scratch"))
    return buffer.getvalue()


def files(api: Running) -> list[Path]:
    return [path for path in api.settings.uploads_dir.rglob("*") if path.is_file()]


async def test_an_upload_is_addressed_by_what_it_holds(api: Running) -> None:
    content = archive()
    answer = await api.client.post("/uploads", content=content)
    assert answer.status_code == 201
    body = answer.json()
    assert body == {"id": f"sha256-{hashlib.sha256(content).hexdigest()}", "size": len(content)}
    assert (api.settings.uploads_dir / "default" / body["id"]).read_bytes() == content
    assert (await api.client.head(f"/uploads/{body['id']}")).status_code == 200
    assert (await api.client.post("/uploads", content=content)).json() == body
    assert [path.name for path in files(api)] == [body["id"]]


async def test_an_upload_belongs_to_its_namespace(api: Running, store: MemoryStore) -> None:
    for name in ("team", "other"):
        assert (await api.client.post("/api/v1/namespaces", json={"metadata": {"name": name}})).status_code == 201
    sent = await api.client.post("/namespaces/team/uploads", content=archive())
    assert sent.status_code == 201
    upload = sent.json()["id"]
    assert (await api.client.head(f"/namespaces/team/uploads/{upload}")).status_code == 200
    for path in (f"/namespaces/other/uploads/{upload}", f"/uploads/{upload}", f"/namespaces/default/uploads/{upload}"):
        assert (await api.client.head(path)).status_code == 404, path
    missing = await api.client.post("/namespaces/nowhere/uploads", content=archive())
    assert (missing.status_code, missing.json()["message"]) == (404, 'namespaces "nowhere" not found')


async def test_a_namespace_has_a_quota_of_uploads(settings: ApiSettings) -> None:
    config = PlatformConfig(security=SecurityConfig(upload_quota=150_000))
    transport = httpx.ASGITransport(TrustedPort(create_app(MemoryStore(), settings, config=lambda: config)))

    async def undeclared() -> AsyncIterator[bytes]:
        yield b"z" * 100_000

    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.post("/uploads", content=b"x" * 100_000)).status_code == 201
        for content in (b"y" * 100_000, undeclared()):
            answer = await client.post("/uploads", content=content)
            assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")
            assert "exceeded quota: upload-quota" in answer.json()["message"]
            assert "used: 100000 bytes, limited: 150000 bytes" in answer.json()["message"]
        assert (await client.post("/uploads", content=b"x" * 40_000)).status_code == 201


@pytest.mark.parametrize("name", ["sha256-" + "0" * 64, "..%2F..%2Fetc%2Fpasswd", "x"])
async def test_what_was_not_uploaded_is_not_found(api: Running, name: str) -> None:
    assert (await api.client.get(f"/uploads/{name}")).status_code == 404


async def test_a_declared_size_over_the_bound_is_refused_with_both_numbers(api: Running) -> None:
    limit = api.settings.max_upload_bytes
    answer = await api.client.post("/uploads", content=b"x" * (limit + 1))
    assert answer.status_code == 413
    assert answer.json()["reason"] == "RequestEntityTooLarge"
    assert str(limit) in answer.json()["message"]
    assert str(limit + 1) in answer.json()["message"]


async def test_a_stream_over_the_bound_is_refused_and_leaves_nothing(api: Running) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    try:
        answer = await api.client.post("/uploads", content=endless())
        assert answer.status_code == 413
        assert str(api.settings.max_upload_bytes) in answer.json()["message"]
    except (httpx.WriteError, httpx.ReadError):
        pass  # the server may close while the client still sends
    await eventually(lambda: files(api) == [], condition="an empty folder")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    need("DOCKER", mounted.returncode == 0)  # who may run an engine may mount
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_the_error_for_a_full_disk_names_the_folder_and_nothing_is_left(
    settings: ApiSettings, small_disk: Path
) -> None:
    settings = replace(settings, uploads_dir=small_disk, max_upload_bytes=64 * 1024**2)
    unbound = PlatformConfig(security=SecurityConfig(disk_pressure_free=0))
    transport = httpx.ASGITransport(TrustedPort(create_app(MemoryStore(), settings, config=lambda: unbound)))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post("/uploads", content=b"x" * 8 * 1024**2)
        assert answer.status_code == 507
        assert answer.json()["reason"] == "InsufficientStorage"
        assert f"free space on the disk of {small_disk}" in answer.json()["message"]
        assert os.listdir(small_disk / "default") == []
        assert (await client.post("/uploads", content=archive())).status_code == 201


async def test_before_the_disk_is_full_uploads_and_builds_are_refused(settings: ApiSettings, small_disk: Path) -> None:
    settings = replace(settings, uploads_dir=small_disk)
    transport = httpx.ASGITransport(TrustedPort(create_app(MemoryStore(), settings)))
    builds = "/apis/build.knoll.dev/v1alpha1/namespaces/default/builds"
    build = {
        "apiVersion": "build.knoll.dev/v1alpha1", "kind": "Build", "metadata": {"name": "b"},
        "spec": {"tag": "app:v1", "source": {"image": "redis:8"}},
    }  # fmt: skip
    maps = "/api/v1/namespaces/default/configmaps"
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await client.post("/api/v1/namespaces", json={"metadata": {"name": "default"}})
        for answer in (await client.post("/uploads", content=archive()), await client.post(builds, json=build)):
            assert (answer.status_code, answer.json()["reason"]) == (507, "InsufficientStorage"), answer.text
            assert "DiskPressure: " in answer.json()["message"]
            assert "less than 2Gi (config-security, disk-pressure-free)" in answer.json()["message"]
        assert os.listdir(small_disk) == []
        assert (await client.post(maps, json=config_map)).status_code == 201


async def test_before_the_disk_of_redis_is_full_writes_are_refused_and_deletions_work(
    settings: ApiSettings, small_disk: Path, tmp_path: Path
) -> None:
    store = MemoryStore()
    maps = "/api/v1/namespaces/default/configmaps"
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "v"}}
    plenty, full = (replace(settings, state_dir=folder) for folder in (tmp_path, small_disk))
    for state, made in ((plenty, 201), (full, 507)):
        transport = httpx.ASGITransport(TrustedPort(create_app(store, state)))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            if made == 201:
                await client.post("/api/v1/namespaces", json={"metadata": {"name": "default"}})
            answer = await client.post(maps, json={**config_map, "metadata": {"name": f"m-{made}"}})
            assert answer.status_code == made, answer.text
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert f"the disk of {small_disk}, where Redis keeps its file, is nearly full" in answer.json()["message"]
        assert (await client.get(f"{maps}/m-201")).status_code == 200
        changed = {**config_map, "metadata": {"name": "m-201"}, "data": {"k": "w"}}
        assert (await client.put(f"{maps}/m-201", json=changed)).status_code == 507
        assert (await client.delete(f"{maps}/m-201")).status_code == 200


async def test_twenty_gigabytes_are_refused_before_a_byte_of_them_is_read(api: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(b"POST /uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000000\r\n\r\n")
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413")
    writer.close()
    await writer.wait_closed()
    assert files(api) == []


async def test_an_empty_upload_is_refused(api: Running) -> None:
    answer = await api.client.post("/uploads", content=b"")
    assert answer.status_code == 400
    assert "empty" in answer.json()["message"]


async def test_an_upload_that_breaks_off_leaves_nothing(api: Running) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(b"POST /uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf")
    await writer.drain()
    await eventually(lambda: list(api.settings.uploads_dir.glob("*/*.part")), condition="the upload to begin")
    writer.close()
    await writer.wait_closed()
    await eventually(lambda: files(api) == [], condition="an empty folder")


@dataclass
class Builds:
    """An API with one Build, on a real socket."""

    url: str
    redis: RedisClient
    store: MemoryStore
    log: BuildLogWriter

    async def phase(self, phase: str, **status: str) -> None:
        body = await self.store.get(BUILD_KIND.id, "default", "b")
        await self.store.update(BUILD_KIND.id, {**body, "status": {"phase": phase, **status}})


@pytest.fixture
async def builds(redis_url: str, settings: ApiSettings) -> AsyncIterator[Builds]:
    body = {
        "apiVersion": BUILD_KIND.api_version,
        "kind": "Build",
        "metadata": {"name": "b", "namespace": "default", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"tag": "app:v1"},
    }
    store = MemoryStore()
    await store.create(BUILD_KIND.id, body)
    async with connected(redis_url, "test") as redis:
        app = TrustedPort(create_app(store, settings, redis=redis))
        server = QuietServer(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None))
        work = asyncio.create_task(server.serve())
        await eventually(lambda: server.started)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        log = BuildLogWriter(redis, "default", "b")
        await log.begin()
        yield Builds(url, redis, store, log)
        server.should_exit = True
        await work


@pytest.mark.redis
@pytest.mark.parametrize(
    "path",
    ["/apis/build.knoll.dev/v1alpha1/namespaces/default/builds/b/log", "/api/v1/namespaces/default/pods/b/log"],
    ids=["of the Build", "of a Pod of its name"],
)
async def test_a_builds_log_streams_until_the_build_has_ended(builds: Builds, path: str) -> None:
    await builds.log.line("first")
    async with httpx.AsyncClient(base_url=builds.url, timeout=30) as client:
        assert (await client.get(path)).text == "first\n"
        async with client.stream("GET", path, params={"follow": "true"}) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "first"
            await builds.log.line("second")
            assert await anext(lines) == "second"
            await builds.log.end()
            assert [line async for line in lines] == []
        for tail, expected in (("0", ""), ("1", "second\n"), ("2", "first\nsecond\n"), ("9", "first\nsecond\n")):
            assert (await client.get(path, params={"tailLines": tail})).text == expected
        missing = await client.get(path.replace("/b/", "/c/"))
        assert missing.status_code == 404
        assert missing.json()["details"] == {"name": "c", "kind": "pods" if "/pods/" in path else "builds"} | (
            {} if "/pods/" in path else {"group": "build.knoll.dev"}
        )


@pytest.mark.redis
@pytest.mark.kubectl
async def test_kubectl_reads_a_builds_log(builds: Builds, tmp_path: Path) -> None:
    need("KUBECTL", shutil.which("kubectl") is not None)
    (tmp_path / "config").touch()
    kubectl = Kubectl("kubectl", builds.url, tmp_path)
    await builds.phase("Running", startTime="2026-01-01T00:00:01Z")
    for line in ("#1 load", "#2 build", "#3 done"):
        await builds.log.line(line)
    assert await kubectl("logs", "b") == "#1 load\n#2 build\n#3 done\n"
    assert await kubectl("logs", "b", "--tail=1", "-c", "build") == "#3 done\n"
    following = await kubectl.start("logs", "-f", "b", "--tail=2")
    assert following.stdout
    assert await asyncio.wait_for(following.stdout.readline(), 20) == b"#2 build\n"
    await builds.log.line("#4 more")
    await builds.log.end()
    assert await asyncio.wait_for(following.stdout.read(), 20) == b"#3 done\n#4 more\n"
    assert await asyncio.wait_for(following.wait(), 20) == 0
    assert "No resources found" in (await kubectl.run("get", "pods")).err
    assert "Running" in await kubectl("get", "pod", "b")
    await builds.phase("Failed", startTime="2026-01-01T00:00:01Z", completionTime="2026-01-01T00:00:09Z")
    assert "Error" in await kubectl("get", "pod", "b")
    gone = await kubectl.run("logs", "unknown")
    assert 'pods "unknown" not found' in gone.err
