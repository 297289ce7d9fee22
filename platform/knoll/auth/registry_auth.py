"""Credentials for image registries, from Secrets as `kubectl create secret docker-registry` creates them. Pure.

Source: Kubernetes, "Pull an Image from a Private Registry": the keys of `auths` are globs of a host, and prefixes of a
path; if several match, the longest is tried first.
"""

import base64
import binascii
import fnmatch
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from knoll.values.errors import ImageError
from knoll.values.image_reference import DEFAULT_REGISTRY, parse_image
from knoll.values.json import Json
from knoll.values.labels import SYSTEM_NAMESPACE

TYPES = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}
"""Types of such Secrets, and the key that contains the credentials."""
PLATFORM_SECRET = (SYSTEM_NAMESPACE, "registry")
"""Namespace and name of the Secret whose credentials all namespaces use."""
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Credential:
    """Credentials for one registry."""

    registry: str
    """Host, with a path if the credentials are limited to it, as in the Secret but without scheme and version."""
    username: str = ""
    password: str = ""
    identity_token: str = ""
    """Used instead of a password, for registries that issue one."""

    def for_engine(self) -> dict[str, str]:
        """In the form of the engine's API."""
        if self.identity_token:
            return {"identitytoken": self.identity_token, "serveraddress": self.registry}
        return {"username": self.username, "password": self.password, "serveraddress": self.registry}

    def header(self) -> str:
        """As the value of the header `X-Registry-Auth`."""
        return base64.urlsafe_b64encode(json.dumps(self.for_engine()).encode()).decode()


def credentials(secret: Json) -> list[Credential]:
    """All credentials of a Secret.

    Raises: ImageError if the Secret has another type or is malformed; the message names it and suggests a fix.
    """
    name = f"{secret['metadata']['namespace']}/{secret['metadata']['name']}"
    key = TYPES.get(secret.get("type", ""))
    if key is None:
        raise ImageError(
            f"the Secret {name} is of type {secret.get('type') or 'Opaque'}, not kubernetes.io/dockerconfigjson: "
            "create it with `kubectl create secret docker-registry`"
        )
    try:
        document = json.loads(base64.b64decode((secret.get("data") or {})[key], validate=True))
        auths = document["auths"] if key == ".dockerconfigjson" else document
        return [_credential(registry, auth) for registry, auth in auths.items()]
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"the key {key} of the Secret {name} is not a Docker configuration: {error!r}") from error


def _credential(registry: str, auth: Json) -> Credential:
    username, password = str(auth.get("username") or ""), str(auth.get("password") or "")
    if auth.get("auth") and not username:
        username, _, password = base64.b64decode(auth["auth"], validate=True).decode().partition(":")
    return Credential(_bare(registry), username, password, str(auth.get("identitytoken") or ""))


def _bare(registry: str) -> str:
    """Without scheme, trailing slash and the version of the protocol, which `docker login` writes for Docker Hub."""
    bare = registry.partition("://")[2] or registry
    bare = bare.rstrip("/")
    for version in ("/v1", "/v2"):
        bare = bare.removesuffix(version)
    return bare


def matching(available: Iterable[Credential], image: str) -> list[Credential]:
    """Return the credentials for the registry of an image, the most specific first; empty if none matches.

    Args: image: a reference that `parse_image` reads.
    """
    reference = parse_image(image)
    host, path = reference.registry or DEFAULT_REGISTRY, reference.path
    if host in _HUB:
        host, path = DEFAULT_REGISTRY, path if "/" in path else f"library/{path}"
    fitting = [credential for credential in available if _fits(credential.registry, host, path)]
    return sorted(fitting, key=lambda credential: len(credential.registry), reverse=True)


def _fits(registry: str, host: str, path: str) -> bool:
    pattern, _, prefix = registry.partition("/")
    if pattern in _HUB:
        pattern = DEFAULT_REGISTRY
    if prefix and not (path == prefix or path.startswith(f"{prefix}/")):
        return False
    pattern_name, _, pattern_port = pattern.partition(":")
    name, _, port = host.partition(":")
    labels, globs = name.split("."), pattern_name.split(".")
    # As in Kubernetes, a star matches within one label of a host name, never a dot.
    return (
        port == pattern_port
        and len(labels) == len(globs)
        and all(fnmatch.fnmatchcase(label, glob) for label, glob in zip(labels, globs, strict=True))
    )


def docker_config(available: Sequence[Credential]) -> str:
    """As the `config.json` that the `docker` command reads; the first of several for one registry is used."""
    auths: dict[str, Json] = {}
    for credential in available:
        place = "https://index.docker.io/v1/" if credential.registry in _HUB else credential.registry
        if credential.identity_token:
            auths.setdefault(place, {"identitytoken": credential.identity_token})
        else:
            auth = base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()
            auths.setdefault(place, {"auth": auth})
    return json.dumps({"auths": auths})


def secret_names(spec: Json, service_account: Json | None) -> list[str]:
    """Secrets in the object's namespace that a spec uses: its own first, then those of its ServiceAccount.

    Args: spec: a Revision's or a Build's, with `imagePullSecrets`.
    """
    named = [*(spec.get("imagePullSecrets") or ()), *((service_account or {}).get("imagePullSecrets") or ())]
    return list(dict.fromkeys(reference["name"] for reference in named if reference.get("name")))
