"""Pulling images: a real engine, and a registry of one image that counts its requests."""

import asyncio
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from autoscaler.runtime.docker.docker_runtime import DockerRuntime
from autoscaler.runtime.docker.pause_image import program
from autoscaler.runtime.model import PullProgress
from knoll.auth.registry_auth import Credential, docker_config
from knoll.auth.registry_secrets import RegistryCredentials
from knoll.values.errors import ImageError
from tests.component.runtime.harness import IMAGE, container, docker, spec
from tests.registry import PASSWORD, USER
from tests.registry import registry as guarded_registry

pytestmark = pytest.mark.docker

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Registry:
    """One image, `hello`, under each tag but `absent`."""

    unique: str
    """Goes into the image, so that no engine has it yet."""
    port: int = 0
    manifests_asked: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes = b""

    def __post_init__(self) -> None:
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
        content = self.layer(architecture)
        config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {"Entrypoint": ["/pause"], "Labels": {"unique": self.unique}},
                "rootfs": {"type": "layers", "diff_ids": [digest(content)]},
            }
        ).encode()
        self.blobs = {digest(content): content, digest(config): config}
        kinds = "application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar"
        descriptors = [
            {"mediaType": kind, "size": len(blob), "digest": digest(blob)}
            for kind, blob in zip(kinds, (config, content), strict=True)
        ]
        self.manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptors[0], "layers": descriptors[1:]}
        ).encode()

    def layer(self, architecture: str) -> bytes:
        """The pause program and a file that makes the layer a new one to every engine."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in (("pause", program(architecture)), ("unique", self.unique.encode())):
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(data), 0o755
                archive.addfile(member, io.BytesIO(data))
        return buffer.getvalue()

    @property
    def reference(self) -> str:
        return f"127.0.0.1:{self.port}/hello"

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path
        if path == "/v2/":
            return web.Response()
        if "/manifests/" in path and not path.endswith("absent"):
            self.manifests_asked += request.method == "GET"
            headers = {"Docker-Content-Digest": digest(self.manifest), "Content-Type": MANIFEST}
            return web.Response(body=self.manifest, headers=headers)
        blob = self.blobs.get(path.rsplit("/", 1)[-1])
        return web.Response(status=404) if blob is None else web.Response(body=blob)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    made = Registry(unique=str(tmp_path))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = int(runner.addresses[0][1])
    yield made
    for image in (await docker("images", "-q", "--filter", f"label=unique={made.unique}")).split():
        await docker("rmi", "-f", image)
    await runner.cleanup()


async def test_a_missing_image_is_pulled_and_its_progress_reported(
    docker_runtime: DockerRuntime, registry: Registry
) -> None:
    progress: list[PullProgress] = []
    image_id = await docker_runtime.ensure_image(f"{registry.reference}:1", progress.append)
    assert image_id in registry.blobs
    assert any("Pull complete" in event.status for event in progress)
    assert all(0 <= event.done_bytes <= max(event.total_bytes, 0) for event in progress)


async def test_an_image_without_tag_is_the_latest_one(docker_runtime: DockerRuntime, registry: Registry) -> None:
    await docker_runtime.ensure_image(registry.reference)
    assert f"{registry.reference}:latest" in await docker("images", "--format", "{{.Repository}}:{{.Tag}}")


async def test_calls_for_one_image_share_a_pull(docker_runtime: DockerRuntime, registry: Registry) -> None:
    pinned = f"{registry.reference}@{digest(registry.manifest)}"
    ids = await asyncio.gather(*(docker_runtime.ensure_image(pinned) for _ in range(5)))
    assert len(set(ids)) == 1
    assert registry.manifests_asked == 1


async def test_an_image_pinned_by_its_repository_digest_runs(docker_runtime: DockerRuntime, registry: Registry) -> None:
    pinned = f"{registry.reference}@{digest(registry.manifest)}"
    await docker_runtime.ensure_image(pinned)
    instance = await docker_runtime.start(spec("hello-1", container(image=pinned)))
    assert (instance.state, instance.containers[0].image) == ("running", pinned)
    await docker_runtime.remove("hello-1", grace_seconds=0)


async def test_credentials_are_shown_one_after_the_other_until_one_is_taken(
    docker_runtime: DockerRuntime, tmp_path: Path
) -> None:
    with guarded_registry(tmp_path / "guarded", password=True) as place:
        tag = place.image("private:v1")
        await docker("tag", IMAGE, tag)
        offered = RegistryCredentials(
            (Credential(place.host, "tester", "wrong"), Credential(place.host, USER, PASSWORD))
        )
        folder = tmp_path / "login"
        folder.mkdir()
        (folder / "config.json").write_text(docker_config(offered.credentials[1:]))
        await docker("--config", str(folder), "push", tag)
        await docker("rmi", tag)
        asked = []

        async def credentials() -> RegistryCredentials:
            asked.append(tag)
            return offered

        async def refused() -> RegistryCredentials:
            return RegistryCredentials(
                offered.credentials[:1], ("the Secret default/x in imagePullSecrets does not exist",)
            )

        with pytest.raises(ImageError, match=r"no basic auth credentials|unauthorized"):
            await docker_runtime.ensure_image(tag)
        with pytest.raises(ImageError, match=r"unauthorized.*; the Secret default/x in imagePullSecrets does not"):
            await docker_runtime.ensure_image(tag, credentials=refused)
        try:
            await docker_runtime.ensure_image(tag, credentials=credentials)
            await docker_runtime.ensure_image(tag, credentials=credentials)
        finally:
            await docker("rmi", tag)
        assert asked == [tag], "only a pull wants credentials"


async def test_an_image_that_the_registry_does_not_have_is_named(
    docker_runtime: DockerRuntime, registry: Registry
) -> None:
    with pytest.raises(ImageError, match=f"{registry.reference}:absent cannot be pulled"):
        await docker_runtime.ensure_image(f"{registry.reference}:absent")
