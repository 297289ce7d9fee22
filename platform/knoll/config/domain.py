"""`config-domain`: the domain of a Route's host."""

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from knoll.config.reader import ConfigMapReader, Data
from knoll.values import labels as well_known
from knoll.values.names import CLUSTER_DOMAIN, subdomain_problems

NAME = "config-domain"
DEFAULT_DOMAIN = "localhost"
"""`http://NAME.NAMESPACE.localhost` works in browsers and curl without set-up."""


@dataclass(frozen=True, slots=True)
class DomainConfig:
    """Domains and their label selectors."""

    domains: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ((DEFAULT_DOMAIN, ()),)
    """Domain and the labels that a Route must have to get it; the one without labels is the default."""

    def lookup(self, labels: Mapping[str, str]) -> str:
        """The domain for a Route with these labels: of those that match, the one with the most labels.

        A cluster-local Route gets `svc.cluster.local`.
        """
        if labels.get(well_known.VISIBILITY) == well_known.CLUSTER_LOCAL:
            return CLUSTER_DOMAIN
        matching = [
            (len(selector), domain)
            for domain, selector in self.domains
            if all(labels.get(key) == value for key, value in selector)
        ]
        # Ties are broken by name, so that the result is stable.
        return min(matching, key=lambda match: (-match[0], match[1]))[1] if matching else DEFAULT_DOMAIN


def parse(data: Data) -> DomainConfig:
    """Raises: InvalidConfigError."""
    read = ConfigMapReader(NAME, data)
    domains = [(domain, _selector(read, domain, text)) for domain, text in data.items() if not domain.startswith("_")]
    for domain, _ in domains:
        for problem in subdomain_problems(domain):
            read.refuse(domain, problem)
    if sum(not selector for _, selector in domains) > 1:
        names = ", ".join(sorted(domain for domain, selector in domains if not selector))
        read.refuse(names, "only one domain may be without a selector: it is the default")
    read.finish()
    if all(selector for _, selector in domains):
        domains.append((DEFAULT_DOMAIN, ()))
    return DomainConfig(tuple(sorted(domains)))


def _selector(read: ConfigMapReader, domain: str, text: str) -> tuple[tuple[str, str], ...]:
    try:
        parsed = yaml.safe_load(text) if text.strip() else {}
    except yaml.YAMLError as error:
        read.refuse(domain, f"must be empty or YAML such as `selector: {{app: web}}`: {str(error)[:200]}")
        return ()
    selector = parsed.get("selector") if isinstance(parsed, dict) else parsed
    if isinstance(parsed, dict) and set(parsed) <= {"selector", "type"} and selector is None:
        return ()
    if not isinstance(parsed, dict) or not isinstance(selector, dict):
        read.refuse(domain, "must be empty or YAML such as `selector: {app: web}`")
        return ()
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in selector.items()):
        read.refuse(domain, "labels and their values must be strings")
        return ()
    return tuple(sorted(selector.items()))


EXPLAINED = """\
# Each key is a domain. The one with an empty value is the default for all Routes.
localhost: ""
# A domain for the Routes that have these labels; when several match, the one with the most labels wins.
# example.org: |
#   selector:
#     app: web
# A domain for cluster-local Routes, which only instances can reach.
# svc.cluster.local: |
#   selector:
#     app: internal
"""
