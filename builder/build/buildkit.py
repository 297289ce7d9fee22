"""The BuildKit daemon: how `docker buildx` connects to it, and its container where this process runs it.

The daemon belongs to the platform, so that builds have no access to the engine's network and images. Every build runs
in its container: without root, on a separate network, within its limits of memory, CPU and processes. It listens only
on a Unix socket that the steps of a build cannot reach.
"""

import asyncio
import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
import structlog
from docker.errors import DockerException, NotFound
from requests.exceptions import RequestException

from builder.images.engine_images import engine_at
from knoll.concurrency.backoff import Backoff
from knoll.process.settings import BuilderSettings
from knoll.values.errors import BuildKitUnavailableError, RuntimeUnavailableError

log = structlog.get_logger()

START = Path(__file__).with_name("buildkitd.sh")
SOCKET_FOLDER = "/run/user/1000"
"""Folder of the image that contains `buildkit`, with the socket."""
STATE_FOLDER = "/home/user/.local/share/buildkit"
LABEL = "knoll.dev/buildkit"
"""Label of the container, the network and the volume; its value is the platform."""
ROOTLESS = ("seccomp=unconfined", "apparmor=unconfined")
"""Required to create user namespaces and mounts in them; the steps get BuildKit's own seccomp profile."""
WAIT_SECONDS = 60.0
"""Time within which a starting daemon must respond."""
_STOP_SECONDS = 5
_PRUNE_SECONDS = 120


def client_folder(settings: BuilderSettings) -> Path:
    """Return the configuration folder of `docker buildx`, one for each socket."""
    key = hashlib.sha256(str(settings.buildkit_socket).encode()).hexdigest()[:12]
    return settings.layers_dir / f"buildx-{key}"


def prepare_client(settings: BuilderSettings) -> None:
    """Register the daemon with `docker buildx`, once; the daemon need not run. Blocks."""
    folder = client_folder(settings)
    if (folder / "instances" / "knoll").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["docker", "buildx", "create", "--name", "knoll", "--driver", "remote", f"unix://{settings.buildkit_socket}"],
        env={**os.environ, "BUILDX_CONFIG": str(folder)},
        check=True,
        capture_output=True,
        timeout=60,
    )


def drop_cache(settings: BuilderSettings) -> None:
    """Remove the part of the build cache that no build is using. Blocks."""
    prepare_client(settings)
    try:
        subprocess.run(
            ["docker", "buildx", "prune", "--builder=knoll", "--all", "--force"],
            env={**os.environ, "BUILDX_CONFIG": str(client_folder(settings))},
            check=True,
            capture_output=True,
            timeout=_PRUNE_SECONDS,
        )
    except (subprocess.SubprocessError, OSError) as error:
        log.warning("build cache not removed", problem=str(error))


async def until_it_answers(settings: BuilderSettings) -> None:
    """Wait for the daemon's socket.

    Raises: BuildKitUnavailableError: the daemon does not respond in time.
    """
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(settings.buildkit_socket)
        except OSError as error:
            if asyncio.get_running_loop().time() > deadline:
                raise BuildKitUnavailableError(
                    f"the BuildKit daemon does not respond at {settings.buildkit_socket}: {error.strerror or error}; "
                    "see the logs of the container buildkit and of the builder"
                ) from error
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


class Daemon:
    """The container of the daemon, run by the builder with `knoll up`."""

    def __init__(self, settings: BuilderSettings) -> None:
        self._settings = settings
        self._name = f"{settings.platform}-buildkit"

    async def keep_running(self) -> None:
        """Start the container, and restart it whenever it ends, until cancelled; then remove it."""
        backoff, problem = Backoff(), ""
        try:
            while True:
                try:
                    await asyncio.to_thread(self.ensure)
                    backoff, problem = Backoff(), ""
                    await asyncio.sleep(2)
                except RuntimeUnavailableError as error:
                    if str(error) != problem:
                        problem = str(error)
                        log.warning("buildkit unavailable", problem=problem)
                    await backoff.wait()
        finally:
            await asyncio.shield(asyncio.to_thread(self.remove))

    def ensure(self) -> None:
        with engine_at(self._settings.docker_socket, 300) as client:
            try:
                try:
                    container = client.containers.get(self._name)
                    if container.status == "running":
                        return
                    container.remove(force=True)
                except NotFound:
                    pass
                self._start(client)
            except (DockerException, RequestException, OSError) as error:
                detail = getattr(error, "explanation", None) or error
                raise RuntimeUnavailableError(f"the BuildKit daemon cannot be started: {detail}") from error

    def _start(self, client: docker.DockerClient) -> None:
        settings = self._settings
        folder = settings.buildkit_socket.parent.parent
        folder.mkdir(parents=True, exist_ok=True)
        # The daemon writes here as an unprivileged user; the parent folder keeps other users of the machine out.
        folder.parent.chmod(0o700)
        folder.chmod(0o777)
        settings.buildkit_socket.unlink(missing_ok=True)
        if not client.networks.list(names=[settings.build_network]):
            client.networks.create(
                settings.build_network,
                driver="bridge",
                options={
                    "com.docker.network.bridge.enable_icc": "false",
                    **({"com.docker.network.bridge.name": settings.build_bridge} if settings.build_bridge else {}),
                },
                labels={LABEL: settings.platform},
            )
        try:
            client.images.get(settings.buildkit_image)
        except NotFound:
            client.images.pull(settings.buildkit_image)
        body = client.api.create_host_config(
            network_mode=settings.build_network,
            security_opt=list(ROOTLESS),
            mem_limit=settings.build_memory_bytes,
            memswap_limit=settings.build_memory_bytes,
            nano_cpus=int(settings.build_cpu * 1e9) if settings.build_cpu else None,
            cpu_shares=512,
            pids_limit=settings.build_pids,
            binds={
                str(folder): {"bind": SOCKET_FOLDER, "mode": "rw"},
                f"{self._name}": {"bind": STATE_FOLDER, "mode": "rw"},
                str(START): {"bind": "/buildkitd.sh", "mode": "ro"},
            },
            restart_policy={"Name": "unless-stopped"},
            log_config=docker.types.LogConfig(type="json-file", config={"max-size": "10m", "max-file": "3"}),
        )
        # No masked paths: the daemon mounts /proc for each step, which the kernel refuses below masked paths.
        body["MaskedPaths"], body["ReadonlyPaths"] = [], []
        made: Mapping[str, Any] = client.api.create_container(
            settings.buildkit_image,
            name=self._name,
            entrypoint=["sh", "/buildkitd.sh"],
            environment=environment(settings),
            labels={LABEL: settings.platform},
            host_config=body,
        )
        client.api.start(made["Id"])
        log.info("buildkit daemon started", container=self._name, image=settings.buildkit_image)

    def remove(self) -> None:
        """Remove the container and its network. The caches are kept in a volume."""
        try:
            with engine_at(self._settings.docker_socket) as client:
                container = client.containers.get(self._name)
                container.stop(timeout=_STOP_SECONDS)
                container.remove(force=True)
                for network in client.networks.list(names=[self._settings.build_network], filters={"label": LABEL}):
                    network.remove()
        except (DockerException, RequestException, RuntimeUnavailableError) as error:
            log.debug("buildkit daemon not removed", problem=str(error))


def environment(settings: BuilderSettings) -> dict[str, str]:
    """Return the environment of the container, which `buildkitd.sh` reads."""
    return {
        "KNOLL_BUILD_CACHE_BYTES": str(settings.build_cache_bytes),
        "KNOLL_BUILD_FRONTENDS": settings.build_frontends,
    }
