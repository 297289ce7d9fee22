"""`config-network`: hosts, addresses and how traffic moves from one Revision to the next."""

from dataclasses import dataclass

from knoll.config.reader import Data, Reader
from knoll.resources.names import Named, dns_1035_problems, render, subdomain_problems

NAME = "config-network"


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Hosts and addresses."""

    domain_template: str = "{{.Name}}.{{.Namespace}}.{{.Domain}}"
    tag_template: str = "{{.Tag}}-{{.Name}}"
    default_external_scheme: str = "http"
    """Of addresses that users are shown; https where something in front of the gateway speaks it."""
    http_redirected: bool = False
    """http is answered with a redirect to https, for hosts that have a certificate."""
    rollout_duration_seconds: int = 0
    """Seconds over which traffic moves to a new latest Revision; 0 is at once."""
    autocreate_cluster_domain_claims: bool = True


def parse(data: Data) -> NetworkConfig:
    """Raises: InvalidConfigError."""
    read = Reader(NAME, data)
    default = NetworkConfig()
    http = read.choice("http-protocol", "Enabled", ("Enabled", "Redirected"))
    for key in ("external-domain-tls", "auto-tls"):
        if read.choice(key, "Disabled", ("Enabled", "Disabled")) == "Enabled":
            read.refuse(key, "no certificates are made for hosts; give a DomainMapping its own by spec.tls.secretName")
    config = NetworkConfig(
        domain_template=_template(read, "domain-template", default.domain_template),
        tag_template=_template(read, "tag-template", default.tag_template),
        default_external_scheme=read.choice("default-external-scheme", "http", ("http", "https")),
        http_redirected=http == "Redirected",
        rollout_duration_seconds=read.whole("rollout-duration", 0),
        autocreate_cluster_domain_claims=read.flag("autocreate-cluster-domain-claims", True),
    )
    read.finish()
    return config


def _template(read: Reader, key: str, default: str) -> str:
    template = read.text(key, default) or default
    try:
        host = render(template, Named("name", "namespace", "example.com", "tag", {}, {}))
    except ValueError as problem:
        read.refuse(key, str(problem))
        return default
    # Annotations and labels are empty in this trial, which may leave dots and dashes at the ends.
    trial = host.strip(".-") or "a"
    problems = dns_1035_problems(trial) if key == "tag-template" else subdomain_problems(trial)
    if problems or "{{" not in template:
        read.refuse(key, f"gives {host!r}, which cannot be a host")
        return default
    if key == "tag-template" and not (".Tag" in template and ".Name" in template):
        read.refuse(key, "must have .Tag and .Name, or hosts would be the same")
        return default
    return template


EXPLAINED = """\
# The host of a Route, from .Name, .Namespace, .Domain, .Labels and .Annotations.
domain-template: "{{.Name}}.{{.Namespace}}.{{.Domain}}"
# The name that a tag's host is made of, from .Tag and .Name.
tag-template: "{{.Tag}}-{{.Name}}"
# The scheme of addresses that users are shown: http, or https where something in front of the gateway speaks it.
default-external-scheme: "http"
# Whether hosts get certificates of their own: disabled. A DomainMapping's spec.tls.secretName names one.
external-domain-tls: "disabled"
# What becomes of plain http at hosts that have a certificate: enabled, or redirected to https.
http-protocol: "enabled"
# Seconds over which traffic moves to a new latest Revision; 0 is at once.
rollout-duration: "0"
# Whether the first namespace that maps a host owns it.
autocreate-cluster-domain-claims: "true"
"""
