"""Which of the engine's images a namespace may use, and which registries it may contact."""

import asyncio
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import TypeVar

import structlog

from builder.images.built_images import BuiltImages, NamespaceImages, canonical
from knoll.auth.tenancy import has_tenants
from knoll.config import deployment, security
from knoll.config.deployment import DeploymentConfig
from knoll.config.security import SecurityConfig
from knoll.store.protocol import Store
from knoll.values import kinds
from knoll.values.destinations import INTERNAL_ADDRESS, Destinations, IPAddress, host_problem, literal
from knoll.values.errors import ImageError, InvalidConfigError, NotFoundError
from knoll.values.image_reference import parse_image
from knoll.values.json import Json
from knoll.values.labels import SYSTEM_NAMESPACE
from knoll.values.platform_registry import REPOSITORY

log = structlog.get_logger()

Config = TypeVar("Config")
LookUpHost = Callable[[str], Collection[IPAddress]]
"""Returns all addresses of a name."""

EVERYTHING = Destinations(everything=True)
NOTHING = Destinations()


def resolve_host(host: str) -> Collection[IPAddress]:
    """Return all addresses of a name; empty when it does not resolve. Blocks."""
    try:
        return {ip_address(str(entry[4][0]).partition("%")[0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return ()


@dataclass(frozen=True, slots=True)
class ImageAccess:
    """Rights of one namespace."""

    tenants: bool = False
    """Whether there are users other than the owner."""
    built: NamespaceImages = field(default_factory=NamespaceImages)
    deployment: DeploymentConfig = field(default_factory=DeploymentConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)

    def may_use_local(self, reference: str) -> bool:
        """Return whether the engine's image of that name may be used, unless a Build of another namespace made it."""
        patterns = self.security.local_images
        if patterns is None:
            return not self.tenants
        return any(fnmatchcase(canonical(reference), _with_tag(pattern)) for pattern in patterns)

    def may_use_id(self, image_id: str) -> bool:
        """Return whether the image is free to use: no Build of another namespace made it, or there is a single user."""
        return not self.tenants or image_id not in self.built.others

    @property
    def registries(self) -> Destinations:
        """Registries in internal address ranges that may be contacted."""
        allowed = self.security.registry_destinations
        if allowed is not None:
            return allowed
        return NOTHING if self.tenants else EVERYTHING

    def check_registry(self, reference: str, resolve: LookUpHost = resolve_host) -> None:
        """Refuse a registry that must not be contacted. Blocks: the host is resolved.

        Raises: ImageError.
        """
        if parse_image(reference).path.partition("/")[0] == REPOSITORY:
            raise ImageError(f'image "{reference}": {REPOSITORY} is the name of the platform\'s own registry')
        host = registry_host(reference)
        problem = refusal(host, self.registries, resolve) if host else ""
        if problem:
            raise ImageError(
                f'image "{reference}": the registry {problem}, '
                "unless registry-destinations in config-security allows it"
            )


def refusal(host: str, allowed: Destinations, resolve: LookUpHost = resolve_host) -> str:
    """Return why a host must not be contacted, by its name and its addresses; empty when it may be. Blocks."""
    problem = host_problem(host, allowed)
    if problem or literal(host) is not None or allowed.allow_name(host):
        return problem
    addresses = resolve(host)
    if not addresses:
        return "must have an address"
    return "" if allowed.allow_all(host, addresses) else INTERNAL_ADDRESS


def is_internal(reference: str) -> bool:
    """Return whether the registry is in an internal range, which the engine reaches and BuildKit does not. Blocks."""
    host = registry_host(reference)
    return bool(host) and refusal(host, NOTHING) == INTERNAL_ADDRESS


def _with_tag(pattern: str) -> str:
    """Return the pattern; one without a tag is made to match all tags."""
    return pattern if pattern == "*" or ":" in pattern.rpartition("/")[2] else f"{pattern}:*"


def registry_host(reference: str) -> str:
    """Return the host of an image's registry without port; empty for Docker Hub."""
    registry = parse_image(reference).registry
    host, colon, port = registry.rpartition(":")
    return host if colon and port.isdigit() else registry


async def access_of(store: Store, built: BuiltImages, namespace: str) -> ImageAccess:
    """Read the current rights of a namespace. Raises: StoreUnavailableError."""
    bindings, of_cluster, images, of_deployment, of_security = await asyncio.gather(
        store.list(kinds.ROLE_BINDING.id),
        store.list(kinds.CLUSTER_ROLE_BINDING.id),
        built.of(namespace),
        _data(store, deployment.NAME),
        _data(store, security.NAME),
    )
    return ImageAccess(
        tenants=has_tenants(bindings.items, [item["metadata"]["name"] for item in of_cluster.items]),
        built=images,
        deployment=_parsed(of_deployment, deployment.parse, DeploymentConfig()),
        security=_parsed(of_security, security.parse, SecurityConfig()),
    )


async def _data(store: Store, name: str) -> Json:
    try:
        return (await store.get(kinds.CONFIG_MAP.id, SYSTEM_NAMESPACE, name)).get("data") or {}
    except NotFoundError:
        return {}


def _parsed(data: Mapping[str, str], parse: Callable[[Mapping[str, str]], Config], default: Config) -> Config:
    """Parse a ConfigMap; defaults replace invalid data, which admission normally rejects."""
    try:
        return parse(data)
    except InvalidConfigError as error:
        log.warning("configuration ignored", problem=str(error))
        return default
