"""Parses URL paths of objects. Pure."""

from dataclasses import dataclass

from api.wire.metadata import Place
from api.wire.status import Subject, UnknownPathError, UnknownResourceError
from knoll.values.kinds import KINDS, Kind, is_builtin

_BY_PATH: dict[tuple[str, str, str], Kind] = {
    (kind.group, version, kind.plural): kind for kind in KINDS for version in kind.versions
}
_GROUP_VERSIONS = {(group, version) for group, version, _ in _BY_PATH}


@dataclass(frozen=True, slots=True)
class ResourcePath:
    """A path below `/api` or `/apis` that names a kind."""

    place: Place
    subresource: str = ""

    @property
    def namespace(self) -> str | None:
        """The namespace to list; None lists all namespaces."""
        return self.place.namespace or None if self.place.kind.namespaced else ""


def parse(path: str) -> ResourcePath:
    """Parse `/api/v1/…` or `/apis/GROUP/VERSION/…` down to a resource.

    Raises:
        UnknownPathError: no such group, version, or resource of a group of custom resources.
        UnknownResourceError: a built-in group has no such resource, or the resource has no such subresource.
    """
    parts = path.strip("/").split("/")
    if parts[0] == "api":
        group, rest = "", parts[1:]
    else:
        group, rest = (parts[1] if len(parts) > 1 else ""), parts[2:]
    if not rest or (parts[0] != "api" and not group) or (group, rest[0]) not in _GROUP_VERSIONS or "" in rest:
        raise unknown()
    version, rest = rest[0], rest[1:]
    missing = UnknownResourceError() if is_builtin(group) else unknown()
    namespace = ""
    # namespaces/NS/RESOURCE names the resource; namespaces/NAME and namespaces/NAME/status name the namespace.
    if len(rest) > 2 and rest[0] == "namespaces" and (group, version, rest[2]) in _BY_PATH:
        namespace, rest = rest[1], rest[2:]
    elif len(rest) > 2 and rest[0] == "namespaces" and group:
        raise missing
    if not rest or len(rest) > 3:
        raise missing
    kind = _BY_PATH.get((group, version, rest[0]))
    if kind is None or (namespace and not kind.namespaced):
        raise missing
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if name and kind.namespaced and not namespace:
        raise missing
    if subresource and subresource not in kind.subresources:
        # kube-apiserver names the object for custom resources only; kubectl debug relies on it.
        raise missing if kind.builtin else UnknownResourceError(Subject(kind, name))
    return ResourcePath(Place(kind, version, namespace, name), subresource)


def unknown() -> UnknownPathError:
    """Return the error for an unknown path."""
    return UnknownPathError("404 page not found")
