"""The hosts of Routes, and the hosts that DomainMappings cannot have. Pure.

A host that a Route has or could have belongs to the platform: with the default template every
`NAME.NAMESPACE.localhost`. A DomainMapping of such a host would receive the requests for that Route.
"""

import re
from collections.abc import Collection
from functools import lru_cache

from knoll.config.domain import DomainConfig
from knoll.config.network import NetworkConfig
from knoll.resources.models.meta import ObjectMeta
from knoll.values import names
from knoll.values.labels import SYSTEM_NAMESPACE
from knoll.values.names import TemplateValues

_CLUSTER, _SHORT = "cluster.local", "svc"
_API_SERVER = "kubernetes.default"
"""Host at which clients in a cluster expect the API; the longer forms end in `.svc` or `.svc.cluster.local`."""
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
"""A last label with which a host is parsed as an IPv4 address (WHATWG URL, "ends in a number")."""


def host_problem(host: str) -> str:
    """Why `host` is not a DNS name, with Kubernetes' message; empty if it is one.

    Source: Kubernetes, pkg/util/validation, `IsFullyQualifiedDomainName`.
    """
    for label in host.split("."):
        if problems := names.dns_1123_problems(label):
            return f'url: Invalid value: "{label[:253]}": {problems[0]}'
    if problems := names.subdomain_problems(host):
        return f'url: Invalid value: "{host[:300]}": {problems[0]}'
    return ""


def tag_name(meta: ObjectMeta, tag: str, domain: DomainConfig, network: NetworkConfig) -> str:
    """The part before the namespace in the hosts of a Route or one of its tags."""
    return names.render(network.tag_template, _named(meta, tag, meta.name, domain)) if tag else meta.name


def route_host_problem(meta: ObjectMeta, tag: str, domain: DomainConfig, network: NetworkConfig) -> str:
    """Why a Route with this metadata, or its tag, cannot have a host; empty if it can.

    Args:
        meta: of the Route, or of the Service that will own it.
    """
    name = tag_name(meta, tag, domain, network)
    domain_name = domain.lookup(meta.labels)
    if names.is_local_domain(domain_name):
        host = names.local_host(name, meta.namespace)
    else:
        host = names.render(network.domain_template, _named(meta, tag, name, domain)).lower()
    problem = host_problem(host)
    return f'invalid domain name "{host[:300]}": {problem}' if problem else ""


def _named(meta: ObjectMeta, tag: str, name: str, domain: DomainConfig) -> TemplateValues:
    return TemplateValues(name, meta.namespace, domain.lookup(meta.labels), tag, meta.annotations, meta.labels)


def unclaimable(host: str, domain: DomainConfig, network: NetworkConfig) -> str:
    """Why no DomainMapping can have a host, independent of the existing namespaces; empty if one can.

    Args:
        host: lower case, a DNS subdomain with at least one dot.
    """
    last = host.rpartition(".")[2]
    if _NUMBER.fullmatch(last):
        return "must not be an IP address"
    for local in (_CLUSTER, _SHORT):
        if host == local or host.endswith(f".{local}"):
            return f'must not be a subdomain of cluster local domain "{local}"'
    if host == _API_SERVER:
        return "must not be a host of the platform"
    if _route_hosts(domain, network).fullmatch(host):
        return (
            "must not be a host that a Route has or could have "
            f"(domain-template {network.domain_template} of config-network)"
        )
    return ""


def names_of_namespace(host: str, namespace: str, namespaces: Collection[str]) -> str:
    """Why a DomainMapping of `namespace` cannot have a host that is `NAME.NAMESPACE` for instances; empty if it can.

    A DomainMapping in that namespace can have such a host: `shop.dev` is a public name too.

    Args:
        namespaces: all existing ones.
    """
    name, _, last = host.partition(".")
    if "." in last or not name or last not in namespaces or (last == namespace and last != SYSTEM_NAMESPACE):
        return ""
    return f'must not be the cluster local name of a Service in the namespace "{last}"'


@lru_cache(16)
def _route_hosts(domain: DomainConfig, network: NetworkConfig) -> re.Pattern[str]:
    domains = [domain_name for domain_name, _ in domain.domains if not names.is_local_domain(domain_name)]
    return names.matching(network.domain_template, domains)
