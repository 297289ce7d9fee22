"""The hosts and URLs of a Route, made from the platform's domain and templates. Pure."""

from dataclasses import dataclass, field

from api.controllers.reconciler import objects
from knoll.config.domain import DomainConfig
from knoll.config.network import NetworkConfig
from knoll.values import names
from knoll.values.json import Json
from knoll.values.names import TemplateValues


@dataclass(frozen=True, slots=True)
class Naming:
    """The settings that host names depend on: config-domain, config-network and the activator's ports."""

    domain: DomainConfig = field(default_factory=DomainConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    port: int = 80
    """The activator's port as users reach it; part of URLs unless it is 80."""
    https_port: int = 443
    """The same for HTTPS; part of URLs unless it is 443."""
    reserved: frozenset[str] = frozenset()
    """Hosts of the platform itself, lower case; no DomainMapping can have them."""


def domain_of(route: Json, naming: Naming) -> str:
    """The domain of a Route; `svc.cluster.local` if it is cluster-local."""
    return naming.domain.lookup(objects.labels(route))


def is_local(route: Json, naming: Naming) -> bool:
    """Whether a Route is cluster-local: only instances can reach it."""
    return names.is_local_domain(domain_of(route, naming))


def public_host(route: Json, naming: Naming, tag: str = "") -> str:
    """The host of a Route, or of one of its tags, under its domain. Lower case, without port."""
    named = _named(route, naming, tag, tag_name(route, tag, naming))
    return names.render(naming.network.domain_template, named).lower()


def local_hosts(route: Json, naming: Naming, tag: str = "") -> tuple[str, str, str]:
    """The cluster-local hosts of a Route or one of its tags, longest first."""
    return names.local_hosts(tag_name(route, tag, naming), route["metadata"]["namespace"])


def local_url(route: Json, naming: Naming, tag: str = "") -> str:
    return names.url(local_hosts(route, naming, tag)[0])


def url(route: Json, naming: Naming, tag: str = "", *, local: bool = False) -> str:
    """The URL of a Route or one of its tags.

    Args:
        local: whether the tag alone is cluster-local.
    """
    if local or is_local(route, naming):
        return local_url(route, naming, tag)
    return public_url(public_host(route, naming, tag), naming)


def public_url(host: str, naming: Naming, *, certificate: bool = False) -> str:
    """The URL of a public host. Args: certificate: whether the host has its own, which makes its scheme https."""
    scheme = "https" if certificate else naming.network.default_external_scheme
    return names.url(host, scheme, naming.https_port if scheme == "https" else naming.port)


def tag_name(route: Json, tag: str, naming: Naming) -> str:
    """The part of a host before the namespace: the Route's name, or the tag template's result."""
    name = str(route["metadata"]["name"])
    return names.render(naming.network.tag_template, _named(route, naming, tag, name)) if tag else name


def _named(route: Json, naming: Naming, tag: str, name: str) -> TemplateValues:
    return TemplateValues(
        name=name,
        namespace=route["metadata"]["namespace"],
        domain=domain_of(route, naming),
        tag=tag,
        annotations=objects.annotations(route),
        labels=objects.labels(route),
    )
