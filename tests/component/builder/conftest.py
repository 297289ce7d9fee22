"""A real builder process between a real Redis and a real engine, with the input that the API would provide."""

import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from knoll.builds import build_log
from knoll.builds.queue import JobQueue
from knoll.messages import builds
from knoll.redis.client import RedisClient, connect
from knoll.store.redis_store import RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.labels import SYSTEM_NAMESPACE
from tests.buildkit import NETWORK, shared
from tests.conftest import free_port, need
from tests.images import platform_name, references_of, remove_images
from tests.waiting import eventually

BUILD_SECONDS = 120.0
DEBIAN = "python:3.13-slim"


def address_on_the_build_network() -> str:
    """This machine's address on the network that builds have."""
    arguments = ["network", "inspect", NETWORK, "--format={{(index .IPAM.Config 0).Gateway}}"]
    return docker(*arguments).stdout.strip()


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60)


def tar_of(files: Mapping[str, str | bytes]) -> bytes:
    """A tar with exactly these names, however strange."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@dataclass
class Yard:
    """The builder's surroundings."""

    redis: RedisClient
    store: RedisStore
    queue: JobQueue
    uploads: Path
    environment: Mapping[str, str]
    prefix: str
    """Of every image tag of this test; also the name of its platform, by which its pins are recognised."""
    builders: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> subprocess.Popen[bytes]:
        """Start a builder; the fixture ends it."""
        process = subprocess.Popen([sys.executable, "-m", "builder"], env={**os.environ, **self.environment})
        self.builders.append(process)
        return process

    def check_builders(self) -> None:
        """Fail at once if no builder runs, instead of when the time for its work is over."""
        codes = [builder.poll() for builder in self.builders]
        if codes and None not in codes:
            raise RuntimeError(f"no builder runs; exit codes: {codes}")

    def upload(self, archive: bytes, namespace: str = "default") -> str:
        name = f"sha256-{hashlib.sha256(archive).hexdigest()}"
        (self.uploads / namespace).mkdir(exist_ok=True)
        (self.uploads / namespace / name).write_bytes(archive)
        return name

    async def ask(self, name: str, *images: str, namespace: str = "default", **spec: Any) -> str:
        """Store a Revision and ask for its digests as the controllers do; returns its uid."""
        uid = uuid.uuid4().hex
        body = {
            "metadata": {"namespace": namespace, "name": name, "uid": uid},
            "spec": {
                "containers": [{"name": f"c{place}", "image": image} for place, image in enumerate(images)],
                **spec,
            },
        }
        await self.store.create(kinds.REVISION.id, body)
        await self.unresolved.put(uid, builds.Unresolved(namespace, name))
        return uid

    async def answer(self, name: str, namespace: str = "default") -> builds.Resolution | None:
        """The results about a Revision so far."""
        table: RedisTable[builds.Resolution] = RedisTable(self.redis, builds.RESOLUTIONS, builds.Resolution)
        _, entries = await table.snapshot()
        entry = entries.get(f"{namespace}/{name}")
        return entry[1] if entry else None

    async def answered(self, name: str, namespace: str = "default") -> builds.Resolution:
        async def answer() -> builds.Resolution | None:
            self.check_builders()
            return await self.answer(name, namespace)

        resolution = await eventually(answer, 60, f"the answer about {name}")
        assert resolution
        return resolution

    async def ready(self) -> None:
        """Wait until a builder reports that it is ready."""
        address = f"http://127.0.0.1:{self.environment['KNOLL_BUILDER_ADMIN_PORT']}/readyz"

        async def answers() -> bool:
            async with httpx.AsyncClient() as client:
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get(address)).status_code == 200
            return False

        await eventually(answers, 30, "a builder that is ready")

    @property
    def unresolved(self) -> RedisTable[builds.Unresolved]:
        return RedisTable(self.redis, builds.UNRESOLVED, builds.Unresolved)

    async def submit(self, name: str, archive: bytes | None = None, namespace: str = "default", **spec: Any) -> str:
        """Store a Build and hand it over as the controllers do; returns its uid."""
        if archive is not None:
            spec["source"] = {"upload": {"id": self.upload(archive, namespace)}}
        uid = uuid.uuid4().hex
        body = {
            "apiVersion": kinds.BUILD_KIND.api_version,
            "kind": "Build",
            "metadata": {"namespace": namespace, "name": name, "uid": uid},
            "spec": {"tag": f"{self.prefix}/{name}:v1", **spec},
        }
        await self.store.create(kinds.BUILD_KIND.id, body)
        await self.queue.build(namespace, name, uid)
        return uid

    async def progress(self, name: str, namespace: str = "default") -> builds.BuildProgress | None:
        table: RedisTable[builds.BuildProgress] = RedisTable(self.redis, builds.BUILDS, builds.BuildProgress)
        _, entries = await table.snapshot()
        entry = entries.get(f"{namespace}/{name}")
        return entry[1] if entry else None

    async def over(self, name: str, namespace: str = "default") -> builds.BuildProgress:
        """How the build ended, once it has."""

        async def ended() -> builds.BuildProgress | None:
            self.check_builders()
            progress = await self.progress(name, namespace)
            return progress if progress and progress.phase in ("Succeeded", "Failed") else None

        progress = await eventually(ended, BUILD_SECONDS, f"the end of build {name}")
        assert progress
        return progress

    async def log(self, name: str, namespace: str = "default") -> list[str]:
        return [line async for line in build_log.read(self.redis, namespace, name, follow=False) if line is not None]

    async def configure(self, **keys: str) -> None:
        """Set keys of config-security."""
        data = {key.replace("_", "-"): value for key, value in keys.items()}
        meta = {"namespace": SYSTEM_NAMESPACE, "name": "config-security"}
        await self.store.create(kinds.CONFIG_MAP.id, {"metadata": meta, "data": data})

    async def add_tenant(self, namespace: str) -> None:
        """Give a user rights beside the owner's."""
        await self.store.create(kinds.ROLE_BINDING.id, {"metadata": {"namespace": namespace, "name": "tenant"}})

    async def until_logged(self, name: str, text: str) -> None:
        async def logged() -> bool:
            return any(text in line for line in await self.log(name))

        await eventually(logged, BUILD_SECONDS, f"{text!r} in the log of build {name}")


@pytest.fixture
async def yard(redis_url: str, tmp_path: Path) -> AsyncIterator[Yard]:
    need("DOCKER", docker("info").returncode == 0)
    if docker("image", "inspect", DEBIAN).returncode:
        need("DOCKER", docker("pull", "-q", DEBIAN).returncode == 0)
    buildkit = shared()
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    prefix = platform_name("knoll-test")
    environment = {
        **buildkit,
        "KNOLL_REDIS_URL": redis_url,
        "KNOLL_PLATFORM": prefix,
        "KNOLL_UPLOADS_DIR": str(uploads),
        "KNOLL_BUILDER_ADMIN_PORT": str(free_port()),
        "KNOLL_LOG_LEVEL": "warning",
        "KNOLL_PRUNE_SECONDS": "1",
    }
    redis, queue = connect(redis_url, "test"), JobQueue(redis_url)
    store = RedisStore(redis)
    yard = Yard(redis, store, queue, uploads, environment, prefix)
    try:
        yield yard
    finally:
        for builder in yard.builders:
            end(builder)
        await store.close()
        await queue.close()
        await redis.aclose()
        remove_images(f"{prefix}/*", f"*/{prefix}/*", *references_of(prefix))


def end(builder: subprocess.Popen[bytes]) -> None:
    builder.send_signal(signal.SIGTERM)
    try:
        builder.wait(60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            builder.kill()
        builder.wait()


def images_of(*references: str) -> list[str]:
    """Tags on the engine, by reference with stars."""
    filters = [f"--filter=reference={reference}" for reference in references]
    return docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", *filters).stdout.split()


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Every process below one: pid and command line."""
    completed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True)
    for line in completed.stdout.splitlines():
        child, _, command = line.strip().partition(" ")
        yield int(child), command
        yield from descendants(int(child))
