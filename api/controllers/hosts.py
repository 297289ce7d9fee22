"""Which hosts a Route answers to, as the platform's domain and templates say. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from api.controllers import objects
from knoll.store import Json

LOCAL_DOMAIN = "svc.cluster.local"
DOMAIN_TEMPLATE = "{{.Name}}.{{.Namespace}}.{{.Domain}}"
TAG_TEMPLATE = "{{.Tag}}-{{.Name}}"

_FIELD = re.compile(r"\{\{-?\s*(?:\.(\w+)|index\s+\.(Annotations|Labels)\s+\"([^\"]*)\")\s*-?\}\}")


@dataclass(frozen=True, slots=True)
class Naming:
    """What config-domain and config-network say about names, and where users reach the activator."""

    domains: tuple[tuple[str, Mapping[str, str]], ...] = (("localhost", {}),)
    """Domain and the labels a Route must have for it; the one with most labels that match wins."""
    domain_template: str = DOMAIN_TEMPLATE
    tag_template: str = TAG_TEMPLATE
    port: int = 80
    """Port that users reach the activator on; shown in URLs unless it is 80."""


def naming_of(config_maps: Mapping[tuple[str, str], Json], port: int) -> Naming:
    """What the ConfigMaps of the platform say about names.

    Args:
        config_maps: by namespace and name; those that are not the platform's do not matter.
        port: that users reach the activator on.
    """
    domains = _data(config_maps, "config-domain")
    network = _data(config_maps, "config-network")
    return Naming(
        domains=tuple((domain, _selector(text)) for domain, text in sorted(domains.items())) or (("localhost", {}),),
        domain_template=network.get("domain-template") or DOMAIN_TEMPLATE,
        tag_template=network.get("tag-template") or TAG_TEMPLATE,
        port=port,
    )


def _data(config_maps: Mapping[tuple[str, str], Json], name: str) -> dict[str, str]:
    found = (config_maps.get(("knative-serving", name)) or {}).get("data") or {}
    return {key: str(value) for key, value in found.items() if not key.startswith("_")}


def _selector(text: str) -> dict[str, str]:
    parsed = yaml.load(text, Loader=yaml.CSafeLoader) if text.strip() else None
    selector = parsed.get("selector") if isinstance(parsed, dict) else None
    return {str(key): str(value) for key, value in selector.items()} if isinstance(selector, dict) else {}


def domain_of(route: Json, naming: Naming) -> str:
    """The domain of a Route: `svc.cluster.local` when it is cluster-local."""
    if objects.labels(route).get(objects.VISIBILITY) == objects.CLUSTER_LOCAL:
        return LOCAL_DOMAIN
    found = objects.labels(route).items()
    matching = [(-len(wanted), domain) for domain, wanted in naming.domains if wanted.items() <= found]
    return min(matching)[1] if matching else "localhost"


def public_host(route: Json, naming: Naming, tag: str = "") -> str:
    """The host of a Route, or of one of its tags, under its domain. Lower case, without port."""
    meta = route["metadata"]
    values = {"Name": tag_name(route, tag, naming), "Namespace": meta["namespace"], "Domain": domain_of(route, naming)}
    return _filled(naming.domain_template, values, route).lower()


def local_hosts(route: Json, naming: Naming, tag: str = "") -> tuple[str, str, str]:
    """The names a Route or one of its tags has inside, longest first."""
    inside = f"{tag_name(route, tag, naming)}.{route['metadata']['namespace']}"
    return (f"{inside}.{LOCAL_DOMAIN}", f"{inside}.svc", inside)


def local_url(route: Json, naming: Naming, tag: str = "") -> str:
    return f"http://{local_hosts(route, naming, tag)[0]}"


def url(route: Json, naming: Naming, tag: str = "", *, local: bool = False) -> str:
    """The URL that users see.

    Args:
        local: the tag was made cluster-local by itself.
    """
    if local or is_local(route, naming):
        return local_url(route, naming, tag)
    port = "" if naming.port == 80 else f":{naming.port}"
    return f"http://{public_host(route, naming, tag)}{port}"


def is_local(route: Json, naming: Naming) -> bool:
    return domain_of(route, naming) == LOCAL_DOMAIN


def tag_name(route: Json, tag: str, naming: Naming) -> str:
    """What stands before the namespace: the Route's name, or the tag's by its template."""
    name = str(route["metadata"]["name"])
    return _filled(naming.tag_template, {"Tag": tag, "Name": name}, route) if tag else name


def _filled(template: str, values: Mapping[str, str], route: Json) -> str:
    maps = {"Annotations": objects.annotations(route), "Labels": objects.labels(route)}

    def value(match: re.Match[str]) -> str:
        field, map_name, key = match.groups()
        return maps[map_name].get(key, "") if map_name else values.get(field, "")

    return _FIELD.sub(value, template)
