"""Resolves tags to digests, with the local engine first and then the registry, and pins the images.

The engine queries the registry (`/distribution/…`), so its mirrors, certificates and proxies apply here too.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import parse_repository_tag
from requests.exceptions import ReadTimeout, RequestException

from builder.images.access import ImageAccess
from builder.images.built_images import BuiltImage
from builder.images.shared_answers import SharedAnswers
from knoll.auth.registry_auth import Credential, matching
from knoll.resources.validation.reserved_images import PINNED_PREFIX
from knoll.values.errors import ImageError, RuntimeUnavailableError
from knoll.values.image_reference import DEFAULT_REGISTRY, parse_image

ENGINE_SECONDS = 20
"""Timeout of a call of the engine that needs no registry."""
ARCHIVE_SECONDS = 600
"""Timeout of the engine for the start or the end of an image archive."""
OWNERS = ImageAccess()
"""Rights of the owner of an installation without other users: all images and registries."""

PullPolicy = Literal["", "Always", "IfNotPresent", "Never"]


def pin_repository(platform: str) -> str:
    """Return the repository whose tags pin the local images of Revisions, so that no prune removes them."""
    return f"{PINNED_PREFIX}/{platform}"


def pin_of(platform: str, image_id: str) -> str:
    """Return the name that pins an image. Args: image_id: `sha256:<64 hex>`."""
    return f"{pin_repository(platform)}:{image_id.removeprefix('sha256:')[:32]}"


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image of the engine."""

    id: str
    """`sha256:<64 hex>`."""
    repo_digests: tuple[str, ...]
    """`repo@sha256:…` of the registries it was pulled from or pushed to; empty when it was only built here."""
    tagged: float = 0.0
    """Epoch seconds at which it got a name on its engine; 0 when unknown, as after a pull."""
    node: str = ""
    """The machine whose engine has it; empty for the engine here, `*` when unknown."""

    def digest_in(self, repository: str) -> str:
        """Return its digest in the registry of a repository; empty when it was neither pulled from nor pushed there."""
        familiar_name = _familiar(repository)
        for reference in self.repo_digests:
            name, _, digest = reference.partition("@")
            if _familiar(name) == familiar_name:
                return digest
        return ""


def newest(repository: str, here: LocalImage | None, elsewhere: Sequence[LocalImage]) -> LocalImage | None:
    """Return the image that a name refers to, on several machines: the one here, or that of another engine.

    An image that was pulled is the registry's: only the engine here counts. Among those that no registry has, the one
    that got the name last counts, whichever engine has it: with one engine, a later build takes the name away.

    Args: elsewhere: images of that name on other engines.
    """
    local = [image for image in (here, *elsewhere) if image and not image.digest_in(repository)]
    return max(local, key=lambda image: image.tagged, default=here)


def order(
    policy: PullPolicy, repository: str, tag: str, local: LocalImage | None
) -> Sequence[Literal["local", "registry"]]:
    """Return where to look a tag up, in order.

    Kubernetes' rules (`latest` or no tag means Always, another tag IfNotPresent), with one addition: an image that was
    built here and never pushed is found here, whatever its tag.
    """
    if policy == "Never":
        return ("local",)
    if policy == "Always":
        return ("registry",)
    if local and (not local.digest_in(repository) or policy == "IfNotPresent" or tag not in ("", "latest")):
        return ("local",)
    return ("registry", "local") if local else ("registry",)


def local_digest(repository: str, local: LocalImage) -> str:
    """Return `repo@sha256:…` of a local image, with its digest in the registry of `repo` if it has one, else its id."""
    return f"{repository}@{local.digest_in(repository) or local.id}"


def _epoch(time: str) -> float:
    """Parse the engine's form of a time; 0 for its zero and for what it does not have."""
    try:
        return max(0.0, datetime.fromisoformat(time).timestamp())
    except (ValueError, OverflowError):
        return 0.0


def _familiar(repository: str) -> str:
    """Return the short form of Docker Hub's names, as shown by the engine."""
    for prefix in ("index.docker.io/", "docker.io/"):
        repository = repository.removeprefix(prefix)
    return repository.removeprefix("library/")


@contextlib.contextmanager
def engine_at(docker_socket: Path, seconds: int = ENGINE_SECONDS) -> Iterator[docker.DockerClient]:
    """Yield a client of the engine. Raises: RuntimeUnavailableError."""
    client = _connected(docker_socket, seconds)
    try:
        yield client
    finally:
        client.close()


def _connected(docker_socket: Path, seconds: int) -> docker.DockerClient:
    try:
        return docker.DockerClient(base_url=f"unix://{docker_socket}", timeout=seconds)
    except DockerException as error:
        raise RuntimeUnavailableError(f"the container engine does not respond at {docker_socket}: {error}") from error


class EngineClients:
    """Clients of the engine that are used again: to make one costs more than to look an image up. Thread-safe."""

    def __init__(self, docker_socket: Path) -> None:
        self._socket = docker_socket
        self._idle: SimpleQueue[docker.DockerClient] = SimpleQueue()

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[docker.DockerClient]:
        """Yield a client for one thread. Raises: RuntimeUnavailableError."""
        try:
            client = self._idle.get_nowait()
        except Empty:
            client = _connected(self._socket, ENGINE_SECONDS)
        try:
            yield client
        except BaseException:
            client.close()
            raise
        api: Any = client.api
        api.timeout = ENGINE_SECONDS
        self._idle.put(client)

    def close(self) -> None:
        """Close the clients that are not borrowed."""
        while not self._idle.empty():
            self._idle.get_nowait().close()


class EngineImages:
    """The engine's images as one namespace sees them. Uses the Docker SDK, which blocks."""

    def __init__(
        self,
        client: docker.DockerClient,
        platform: str,
        access: ImageAccess = OWNERS,
        answers: SharedAnswers | None = None,
        elsewhere: Mapping[str, Sequence[LocalImage]] | None = None,
    ) -> None:
        """
        Args:
            answers: shared with other look-ups.
            elsewhere: on several machines, the images of other engines by reference; None on a single one.
        """
        self._elsewhere = elsewhere
        self.local: dict[str, LocalImage] = {}
        """Images that `resolve` found and that no registry has, by id."""
        self._answers = answers or SharedAnswers()
        self._client = client
        self._platform = platform
        self._access = access
        self._config = access.deployment

    def resolve(self, reference: str, policy: PullPolicy = "", credentials: Sequence[Credential] = ()) -> str:
        """Find the digest of an image, and pin the image if the engine has it.

        Args:
            reference: `repo[:tag]`, or `repo@sha256:…`, which is returned unchanged if the namespace may use it.
            policy: the container's imagePullPolicy.
            credentials: those that match the registry are tried, one after the other.

        Returns: `repo@sha256:<64 hex>`; the unchanged reference when it needs a registry whose tags are not resolved.

        Raises: ImageError naming the image and the reason; RuntimeUnavailableError when the engine does not respond.
        """
        try:
            parse_image(reference)
        except ValueError as error:
            raise ImageError(f'Unable to fetch image "{reference}": {error}') from error
        repository, tag = parse_repository_tag(reference)
        pinned = bool(tag and tag.startswith("sha256:"))
        if pinned and not self._access.tenants and self._elsewhere is None:
            return reference
        try:
            local = self.find(reference)
            if pinned and self._may_run(repository, local):
                return reference
            problem = "the local engine has no such image"
            for place in ("registry",) if pinned else order(policy, repository, tag or "", local):
                if place == "local" and local:
                    if not local.node:
                        self._answers.pin(local.id, functools.partial(self._pin, local))
                    self._note(repository, local)
                    return local_digest(repository, local)
                if place == "registry":
                    if self._skips(reference) and not pinned:
                        self._check_unresolved(reference)
                        return reference
                    self._access.check_registry(reference)
                    try:
                        digest = self._digest_in_registry(reference, credentials)
                        return reference if pinned else f"{repository}@{digest}"
                    except APIError as error:
                        problem = str(error.explanation or error)
                    except ReadTimeout:
                        seconds = self._config.digest_resolution_timeout_seconds
                        problem = f"the registry did not respond within {seconds:g} s"
        except APIError as error:
            if error.is_client_error():
                problem = str(error.explanation or error)
            else:
                raise RuntimeUnavailableError(f"the container engine failed: {error}") from error
        except (DockerException, RequestException) as error:
            raise RuntimeUnavailableError(f"the container engine does not respond: {error}") from error
        raise ImageError(f'Unable to fetch image "{reference}": failed to resolve image to digest: {problem}')

    def _may_run(self, repository: str, local: LocalImage | None) -> bool:
        """Return whether a namespace may run a digest without a look-up in its registry."""
        if local:
            self._note(repository, local)
        return local is not None or not self._access.tenants

    def _note(self, repository: str, image: LocalImage) -> None:
        if not image.digest_in(repository):
            self.local[image.id] = image

    def _digest_in_registry(self, reference: str, credentials: Sequence[Credential]) -> str:
        """Return the digest in the registry. Raises: APIError (of the last credential), ReadTimeout."""
        api: Any = self._client.api  # its time-out is typed as whole seconds
        api.timeout = self._config.digest_resolution_timeout_seconds
        matches = matching(credentials, reference)
        question = (reference, tuple(matches), api.timeout)
        return self._answers.digest(question, lambda: self._asked(reference, matches))

    def _asked(self, reference: str, matches: Sequence[Credential]) -> str:
        for credential in matches[:-1]:
            with contextlib.suppress(APIError):
                return str(self._client.images.get_registry_data(reference, credential.for_engine()).id)
        last = matches[-1].for_engine() if matches else None
        return str(self._client.images.get_registry_data(reference, last).id)

    def _skips(self, reference: str) -> bool:
        registry = parse_image(reference).registry or DEFAULT_REGISTRY
        return registry in self._config.registries_skipping_tag_resolving

    def describe(self, reference: str) -> tuple[LocalImage, int]:
        """Return a local image and its size in bytes. Raises: ImageError."""
        try:
            image = self._client.images.get(reference)
        except ImageNotFound as error:
            raise ImageError(f"the engine has no image {reference}") from error
        attributes = image.attrs
        tagged = _epoch((attributes.get("Metadata") or {}).get("LastTagTime") or "")
        return LocalImage(attributes["Id"], tuple(attributes.get("RepoDigests") or ()), tagged), int(attributes["Size"])

    def find(self, reference: str) -> LocalImage | None:
        """Return the image of a name: of a Build of the namespace, else any of an engine that the namespace may use."""
        repository, _, digest = reference.partition("@")
        others = (self._elsewhere or {}).get(reference, ())
        if digest:
            image = self._local(digest) or self._local(reference) or newest(repository, None, others)
            own = image is not None and self._access.built.has(image.id)
        else:
            built = self._access.built.newest(reference)
            image = (self._local(built.id) or self._of_record(built)) if built else None
            own = image is not None
            image = image or newest(parse_repository_tag(reference)[0], self._local(reference), others)
        if image is None or own or (self._access.may_use_local(reference) and self._access.may_use_id(image.id)):
            return image
        return None

    def _of_record(self, built: BuiltImage) -> LocalImage | None:
        """Return an image that a Build on another machine made: the platform's registry has it."""
        return LocalImage(built.id, (), built.made, built.node or "*") if self._elsewhere is not None else None

    def _check_unresolved(self, reference: str) -> None:
        """Refuse a name whose digest is not looked up: the engine may have an image of another tenant by that name."""
        if not self._access.may_use_local(reference):
            raise ImageError(
                f'image "{reference}": its registry is listed in registries-skipping-tag-resolving, so the name '
                "must be allowed by local-images in config-security"
            )

    def _local(self, reference: str) -> LocalImage | None:
        try:
            return self.describe(reference)[0]
        except ImageError:
            return None

    def tag(self, image_id: str, name: str) -> None:
        """Add a name to an image on the engine."""
        repository, tag = parse_repository_tag(name)
        self._client.api.tag(image_id, repository, tag or "latest")

    def _pin(self, image: LocalImage) -> None:
        repository, _, tag = pin_of(self._platform, image.id).partition(":")
        self._client.api.tag(image.id, repository, tag)
