"""Tag to digest: what the local engine has, else what the registry says. Pins what was resolved.

The engine asks the registry for us (`/distribution/…`), so its mirrors, certificates and proxies count here too.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import parse_repository_tag
from requests.exceptions import ReadTimeout, RequestException

from builder.images.access import Access
from knoll.auth.registry_auth import Credential, matching
from knoll.resources.validation.reserved_images import PINNED_PREFIX
from knoll.values.errors import ImageError, RuntimeUnavailableError
from knoll.values.image_reference import DEFAULT_REGISTRY, parse_image

ENGINE_SECONDS = 20
"""For one answer of the engine by itself."""
ARCHIVE_SECONDS = 600
"""For the engine to begin or to end with an archive of an image."""
OWNERS = Access()
"""What the single user of an installation may use: everything."""

PullPolicy = Literal["", "Always", "IfNotPresent", "Never"]


def pin_repository(platform: str) -> str:
    """Every local image that a Revision resolved to is tagged in this repository, so that no prune takes it away."""
    return f"{PINNED_PREFIX}/{platform}"


def pin_of(platform: str, image_id: str) -> str:
    """The name that pins an image. Args: image_id: `sha256:<64 hex>`."""
    return f"{pin_repository(platform)}:{image_id.removeprefix('sha256:')[:32]}"


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image the engine has."""

    id: str
    """`sha256:<64 hex>`."""
    repo_digests: tuple[str, ...]
    """`repo@sha256:…` of the registries it came from or went to; empty when it was built here."""

    def digest_in(self, repository: str) -> str:
        """`sha256:…` that the registry of a repository has it by; empty when it neither came from there nor went."""
        wanted = _familiar(repository)
        for reference in self.repo_digests:
            name, _, digest = reference.partition("@")
            if _familiar(name) == wanted:
                return digest
        return ""


def order(
    policy: PullPolicy, repository: str, tag: str, local: LocalImage | None
) -> Sequence[Literal["local", "registry"]]:
    """Where to look a tag up, first to last.

    Kubernetes' rules (`latest` or no tag means Always, another tag IfNotPresent), with one addition: what was built
    here and never pushed is found here, whatever its tag.
    """
    if policy == "Never":
        return ("local",)
    if policy == "Always":
        return ("registry",)
    if local and (not local.digest_in(repository) or policy == "IfNotPresent" or tag not in ("", "latest")):
        return ("local",)
    return ("registry", "local") if local else ("registry",)


def local_digest(repository: str, local: LocalImage) -> str:
    """`repo@sha256:…` of a local image: the registry's digest where it has one for this repository, else its id."""
    return f"{repository}@{local.digest_in(repository) or local.id}"


def _familiar(repository: str) -> str:
    """The short form of Docker Hub's names, as the engine shows them."""
    for prefix in ("index.docker.io/", "docker.io/"):
        repository = repository.removeprefix(prefix)
    return repository.removeprefix("library/")


@contextlib.contextmanager
def engine_at(docker_socket: Path, seconds: int = ENGINE_SECONDS) -> Iterator[docker.DockerClient]:
    """The engine's client, closed at the end. Raises: RuntimeUnavailableError."""
    try:
        client = docker.DockerClient(base_url=f"unix://{docker_socket}", timeout=seconds)
    except DockerException as error:
        raise RuntimeUnavailableError(f"the container engine does not answer at {docker_socket}: {error}") from error
    try:
        yield client
    finally:
        client.close()


class EngineImages:
    """The engine's images as one namespace sees them, by the Docker SDK (which blocks)."""

    def __init__(self, client: docker.DockerClient, platform: str, access: Access = OWNERS) -> None:
        self._client = client
        self._platform = platform
        self._access = access
        self._config = access.deployment

    def resolve(self, reference: str, policy: PullPolicy = "", known: Sequence[Credential] = ()) -> str:
        """Find the digest of an image and pin it if it is here.

        Args:
            reference: `repo[:tag]` or `repo@sha256:…`, which is kept as it is, if the namespace may use it.
            policy: the container's imagePullPolicy.
            known: credentials; those that fit are shown to the registry, one after the other.

        Returns: `repo@sha256:<64 hex>`; of a registry whose tags are not to be resolved, and which is needed, the
        reference as it is.

        Raises: ImageError naming the image and the reason; RuntimeUnavailableError when the engine does not answer.
        """
        try:
            parse_image(reference)
        except ValueError as error:
            raise ImageError(f'Unable to fetch image "{reference}": {error}') from error
        repository, tag = parse_repository_tag(reference)
        pinned = bool(tag and tag.startswith("sha256:"))
        if pinned and not self._access.tenants:
            return reference
        try:
            local = self.find(reference)
            if pinned and local:
                return reference
            problem = "the local engine has no such image"
            for place in ("registry",) if pinned else order(policy, repository, tag or "", local):
                if place == "local" and local:
                    self._pin(local)
                    return local_digest(repository, local)
                if place == "registry":
                    if self._skips(reference) and not pinned:
                        self._check_unresolved(reference)
                        return reference
                    self._access.check_registry(reference)
                    try:
                        digest = self._asked(reference, known)
                        return reference if pinned else f"{repository}@{digest}"
                    except APIError as error:
                        problem = str(error.explanation or error)
                    except ReadTimeout:
                        seconds = self._config.digest_resolution_timeout_seconds
                        problem = f"the registry did not answer within {seconds:g} s"
        except APIError as error:
            if error.is_client_error():
                problem = str(error.explanation or error)
            else:
                raise RuntimeUnavailableError(f"the container engine fails: {error}") from error
        except (DockerException, RequestException) as error:
            raise RuntimeUnavailableError(f"the container engine does not answer: {error}") from error
        raise ImageError(f'Unable to fetch image "{reference}": failed to resolve image to digest: {problem}')

    def _asked(self, reference: str, known: Sequence[Credential]) -> str:
        """The digest that the registry has for a reference. Raises: APIError, the last credential's; ReadTimeout."""
        api: Any = self._client.api  # which is typed as if it counted whole seconds
        api.timeout = self._config.digest_resolution_timeout_seconds
        fitting = matching(known, reference)
        for credential in fitting[:-1]:
            with contextlib.suppress(APIError):
                return str(self._client.images.get_registry_data(reference, credential.for_engine()).id)
        last = fitting[-1].for_engine() if fitting else None
        return str(self._client.images.get_registry_data(reference, last).id)

    def _skips(self, reference: str) -> bool:
        registry = parse_image(reference).registry or DEFAULT_REGISTRY
        return registry in self._config.registries_skipping_tag_resolving

    def describe(self, reference: str) -> tuple[LocalImage, int]:
        """A local image and its size in bytes. Raises: ImageError."""
        try:
            found = self._client.images.get(reference)
        except ImageNotFound as error:
            raise ImageError(f"the engine has no image {reference}") from error
        return LocalImage(found.attrs["Id"], tuple(found.attrs.get("RepoDigests") or ())), int(found.attrs["Size"])

    def find(self, reference: str) -> LocalImage | None:
        """The image on the engine that a name stands for: what a Build of the namespace made, else what is allowed."""
        _, _, digest = reference.partition("@")
        if digest:
            image = self._local(digest) or self._local(reference)
            own = image is not None and self._access.built.has(image.id)
        else:
            built = self._access.built.newest(reference)
            image = self._local(built.id) if built else None
            own = image is not None
            image = image or self._local(reference)
        if image is None or own or (self._access.may_use_local(reference) and self._access.may_use_id(image.id)):
            return image
        return None

    def _check_unresolved(self, reference: str) -> None:
        """A name whose digest is not looked up stands for whatever the engine has, which may be another tenant's."""
        if not self._access.may_use_local(reference):
            raise ImageError(
                f'image "{reference}": its registry is one of registries-skipping-tag-resolving, so its name must be '
                "allowed by local-images in config-security"
            )

    def _local(self, reference: str) -> LocalImage | None:
        try:
            return self.describe(reference)[0]
        except ImageError:
            return None

    def tag(self, image_id: str, name: str) -> None:
        """Give an image a name on the engine."""
        repository, tag = parse_repository_tag(name)
        self._client.api.tag(image_id, repository, tag or "latest")

    def _pin(self, image: LocalImage) -> None:
        repository, _, tag = pin_of(self._platform, image.id).partition(":")
        self._client.api.tag(image.id, repository, tag)
