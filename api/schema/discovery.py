"""Discovery of groups, versions and resources, plain and aggregated. Pure."""

from collections.abc import Mapping, Sequence

import orjson

from api.wire.content_negotiation import ranges
from knoll import __version__
from knoll.values.json import Json
from knoll.values.kinds import KINDS, Kind

JSON = "application/json"
KUBERNETES_MINOR = 32
"""The minor version of Kubernetes that the API reports; clients warn if theirs differs by much."""

REVIEWS: Mapping[str, Mapping[str, str]] = {
    "authorization.k8s.io": {
        "selfsubjectaccessreviews": "SelfSubjectAccessReview",
        "selfsubjectrulesreviews": "SelfSubjectRulesReview",
    },
    "policy": {},
    "authentication.k8s.io": {"selfsubjectreviews": "SelfSubjectReview", "tokenreviews": "TokenReview"},
}
"""The review kinds by group and plural. They can only be created.

The group `policy` has none: without it, kubectl does not evict.
"""
EVICTION = {"group": "policy", "version": "v1", "kind": "Eviction"}
"""The kind of the subresource `eviction` of Pods."""


def versions(group: str) -> list[str]:
    """Return the versions of a group, preferred first: by stability, then newest."""
    if group in REVIEWS:
        return ["v1"]
    served = {version for kind in KINDS if kind.group == group for version in kind.versions}
    return sorted(served, key=_stability)


def _stability(version: str) -> tuple[int, str]:
    return (0 if "alpha" not in version and "beta" not in version else 1 if "beta" in version else 2, version)


def groups() -> list[str]:
    """Return every named group."""
    names: dict[str, None] = {kind.group: None for kind in KINDS if kind.group}
    return [*names, *REVIEWS]


def core_versions() -> Json:
    """`/api`."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def group(name: str) -> Json:
    """`/apis/GROUP`."""
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions(name)]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": listed, "preferredVersion": listed[0]}


def group_list() -> Json:
    """`/apis`."""
    listed = [
        {key: value for key, value in group(name).items() if key not in ("kind", "apiVersion")} for name in groups()
    ]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def _kinds(group_name: str, version: str) -> Sequence[Kind]:
    return [kind for kind in KINDS if kind.group == group_name and version in kind.versions]


def resource_list(group_name: str, version: str) -> Json:
    """`/api/v1` and `/apis/GROUP/__version__`."""
    resources: list[Json] = []
    for kind in _kinds(group_name, version):
        entry: Json = {
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(kind.verbs),
        }
        if kind.short_names:
            entry["shortNames"] = list(kind.short_names)
        # With an older version, `kubectl get all` would list the same objects twice.
        if kind.categories and version == kind.version:
            entry["categories"] = list(kind.categories)
        resources.append(entry)
        resources.extend(
            {
                "name": f"{kind.plural}/{sub}",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": kind.kind,
                **(EVICTION if sub == "eviction" else {}),
                "verbs": _sub_verbs(sub),
            }
            for sub in kind.subresources
        )
    for plural, name in REVIEWS.get(group_name, {}).items():
        resources.append({"name": plural, "singularName": "", "namespaced": False, "kind": name, "verbs": ["create"]})
    group_version = f"{group_name}/{version}" if group_name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def _sub_verbs(subresource: str) -> list[str]:
    if subresource in ("token", "eviction"):
        return ["create"]
    return ["get"] if subresource == "log" else ["get", "patch", "update"]


def aggregated(document_version: str, names: Sequence[str]) -> Json:
    """Return the `APIGroupDiscoveryList` of these groups ("" is the core group)."""
    items = []
    for name in names:
        listed = []
        for version in versions(name):
            listed.append(
                {"version": version, "resources": _aggregated_resources(name, version), "freshness": "Current"}
            )
        metadata: Json = {"creationTimestamp": None}
        if name:
            metadata["name"] = name
        items.append({"metadata": metadata, "versions": listed})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{document_version}",
        "metadata": {},
        "items": items,
    }


def _aggregated_resources(group_name: str, version: str) -> list[Json]:
    resources: list[Json] = []
    for entry in resource_list(group_name, version)["resources"]:
        name, _, subresource = entry["name"].partition("/")
        response = {"group": group_name, "version": version, "kind": entry["kind"]}
        response |= {field: entry[field] for field in response if field in entry}
        if subresource:
            parent = next(resource_entry for resource_entry in resources if resource_entry["resource"] == name)
            parent.setdefault("subresources", []).append(
                {"subresource": subresource, "responseKind": response, "verbs": entry["verbs"]}
            )
            continue
        resource: Json = {
            "resource": name,
            "responseKind": response,
            "scope": "Namespaced" if entry["namespaced"] else "Cluster",
            "singularResource": entry["singularName"],
            "verbs": entry["verbs"],
        }
        for field in ("shortNames", "categories"):
            if field in entry:
                resource[field] = entry[field]
        resources.append(resource)
    return resources


def aggregated_version(accept: str) -> str:
    """Return `v2` or `v2beta1` if the client prefers an aggregated document to plain JSON; else empty.

    Never another version: clients that only know v2beta1 see no resources in v2.
    """
    for media, parameters in ranges(accept):
        if media not in (JSON, "*/*", "application/*"):
            continue
        if parameters.get("as") != "APIGroupDiscoveryList":
            return ""
        if parameters.get("g") == "apidiscovery.k8s.io" and parameters.get("v") in ("v2", "v2beta1"):
            return parameters["v"]
    return ""


def document(path: str, accept: str) -> tuple[bytes, str]:
    """Return the negotiated body and content type for `/api` or `/apis`."""
    version = aggregated_version(accept)
    if version:
        body = aggregated(version, [""] if path == "/api" else groups())
        return orjson.dumps(body), f"{JSON};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    return orjson.dumps(core_versions() if path == "/api" else group_list()), JSON


def version() -> Json:
    """`/version`."""
    return {
        "major": "1",
        "minor": str(KUBERNETES_MINOR),
        "gitVersion": f"v1.{KUBERNETES_MINOR}.0+knoll.{__version__}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "knoll",
    }
