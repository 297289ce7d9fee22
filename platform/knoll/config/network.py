"""`config-network`: hosts, addresses and gradual rollouts."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal, cast

from knoll.config.reader import ConfigMapReader, Data
from knoll.values.names import TemplateValues, dns_1035_problems, render, subdomain_problems

NAME = "config-network"

_AUTOCREATE = "autocreate-cluster-domain-claims"
_OWN = "certificates are not issued automatically; set spec.tls.secretName in the DomainMapping"
_INSIDE = "TLS is not supported for cluster-local hosts and between processes of the platform"
_NEVER = {
    "external-domain-tls": _OWN,
    "auto-tls": _OWN,
    "cluster-local-domain-tls": _INSIDE,
    "system-internal-tls": _INSIDE,
}
"""Knative's keys for features that are not supported here, with the reason: the only valid value is disabled."""


Networks = tuple[IPv4Network | IPv6Network, ...]
Underscores = Literal["drop", "allow", "reject"]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Hosts and addresses."""

    domain_template: str = "{{.Name}}.{{.Namespace}}.{{.Domain}}"
    tag_template: str = "{{.Tag}}-{{.Name}}"
    default_external_scheme: str = "http"
    """Scheme of the URLs in status; https if a proxy in front of the gateway terminates TLS."""
    http_redirected: bool = False
    """Whether HTTP requests are redirected to HTTPS, for hosts that have a certificate."""
    rollout_duration_seconds: int = 0
    """Seconds over which traffic moves to a new latest Revision; 0 is immediately."""
    autocreate_cluster_domain_claims: bool | None = None
    """Whether ClusterDomainClaims are created automatically; None: as long as the owner is the only user."""
    trusted_proxies: Networks = ()
    """Clients of the gateway whose Forwarded and X-Forwarded fields are trusted."""
    headers_with_underscores: Underscores = "drop"
    """What happens to header fields that have an underscore in their name."""
    max_connections_per_address: int = 10_000
    """Per process of the gateway; 0 is no limit."""


def parse(data: Data) -> NetworkConfig:
    """Raises: InvalidConfigError."""
    read = ConfigMapReader(NAME, data)
    default = NetworkConfig()
    http = read.choice("http-protocol", "Enabled", ("Enabled", "Redirected"))
    for key, reason in _NEVER.items():
        if read.choice(key, "Disabled", ("Enabled", "Disabled")) == "Enabled":
            read.refuse(key, reason)
    for key in ("dataplane-trust", "controlplane-trust"):
        if read.text(key, "disabled").strip().lower() != "disabled":
            read.refuse(key, _INSIDE)
    if read.flag("internal-encryption", False):
        read.refuse("internal-encryption", _INSIDE)
    config = NetworkConfig(
        domain_template=_template(read, "domain-template", default.domain_template),
        tag_template=_template(read, "tag-template", default.tag_template),
        default_external_scheme=read.choice("default-external-scheme", "http", ("http", "https")),
        http_redirected=http == "Redirected",
        rollout_duration_seconds=read.whole("rollout-duration", 0),
        autocreate_cluster_domain_claims=(read.flag(_AUTOCREATE, False) if data.get(_AUTOCREATE) is not None else None),
        trusted_proxies=_networks(read, "trusted-proxies"),
        headers_with_underscores=cast(
            Underscores, read.choice("headers-with-underscores", "drop", ("drop", "allow", "reject"))
        ),
        max_connections_per_address=read.whole("max-connections-per-address", 10_000),
    )
    read.finish()
    return config


def _networks(read: ConfigMapReader, key: str) -> Networks:
    networks: list[IPv4Network | IPv6Network] = []
    for text in filter(None, (part.strip() for part in read.text(key, "").split(","))):
        try:
            networks.append(ip_network(text))
        except ValueError as problem:
            read.refuse(key, f"must be addresses or CIDRs separated by commas, such as 10.0.0.0/8: {problem}")
    return tuple(networks)


def _template(read: ConfigMapReader, key: str, default: str) -> str:
    template = read.text(key, default) or default
    try:
        host = render(template, TemplateValues("name", "namespace", "example.com", "tag", {}, {}))
    except ValueError as problem:
        read.refuse(key, str(problem))
        return default
    # Annotations and labels are empty here, which may leave dots and dashes at the ends.
    trial = host.strip(".-") or "a"
    problems = dns_1035_problems(trial) if key == "tag-template" else subdomain_problems(trial)
    if problems or "{{" not in template:
        read.refuse(key, f"renders to {host!r}, which is not a valid host name")
        return default
    if key == "tag-template" and not (".Tag" in template and ".Name" in template):
        read.refuse(key, "must use both .Tag and .Name, otherwise several tags would get the same host")
        return default
    return template


EXPLAINED = """\
# Template of a Route's host, over .Name, .Namespace, .Domain, .Labels and .Annotations.
domain-template: "{{.Name}}.{{.Namespace}}.{{.Domain}}"
# Template of the name in a tag's host, over .Tag and .Name.
tag-template: "{{.Tag}}-{{.Name}}"
# Scheme of the URLs in status: http, or https if a proxy in front of the gateway terminates TLS.
default-external-scheme: "http"
# Whether hosts get certificates automatically: only disabled. A DomainMapping can use its own (spec.tls.secretName).
external-domain-tls: "disabled"
# Plain HTTP at hosts that have a certificate: enabled, or redirected to HTTPS.
http-protocol: "enabled"
# Seconds over which traffic moves to a new latest Revision; 0 is immediately.
rollout-duration: "0"
# Whether cluster-local hosts get certificates: only disabled.
cluster-local-domain-tls: "disabled"
# Whether the platform's processes and instances use TLS between each other: only disabled.
system-internal-tls: "disabled"
# Older names of these keys: only false, disabled and disabled.
# internal-encryption: "false"
# dataplane-trust: "disabled"
# controlplane-trust: "disabled"
# Whether the ClusterDomainClaim of a DomainMapping is created automatically, so that the first namespace that maps a
# host owns it. With false, an administrator creates the claims. If unset, they are created as long as there is no
# RoleBinding or ClusterRoleBinding other than the owner's.
# autocreate-cluster-domain-claims: "false"
# Trusted proxies in front of the gateway, comma-separated addresses or CIDRs ("10.0.0.0/8,192.0.2.7"). Their fields
# Forwarded, X-Forwarded-* and X-Real-IP are passed on; those of other clients are overwritten.
trusted-proxies: ""
# Header fields with an underscore in their name, which CGI, WSGI and PHP programs confuse with a hyphen: drop or allow
# them, or reject the request.
headers-with-underscores: "drop"
# Maximum connections of one address to each process of the gateway, except trusted proxies; at most a quarter of the
# process's limit of open files. 0 is no limit.
max-connections-per-address: "10000"
"""
