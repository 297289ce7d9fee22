"""Kubeconfig files: how kubectl, kn and every Kubernetes client find the API and say who they are. Pure."""

import base64
from dataclasses import dataclass

from knoll.values.json import Json
from knoll.values.labels import SYSTEM_NAMESPACE

NAME = "knoll"
OWNER = (SYSTEM_NAMESPACE, "owner")
"""ServiceAccount of the platform's owner, with all permissions."""
CLUSTER_INFO = ("kube-public", "cluster-info")
"""ConfigMap with the API's address and certificate authority in its key `kubeconfig`.

Source: Kubernetes, bootstrap tokens (`kubeadm`).
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where an API is, and whom to trust there."""

    server: str
    authority: str
    """PEM; empty for whom the machine trusts."""

    @classmethod
    def of(cls, document: Json) -> "Cluster":
        """That of a kubeconfig's only cluster."""
        cluster = document["clusters"][0]["cluster"]
        return cls(cluster["server"], base64.b64decode(cluster.get("certificate-authority-data", "")).decode())


def document(server: str, authority: str = "", token: str = "", namespace: str = "default", user: str = NAME) -> Json:
    """A kubeconfig with one context.

    Args:
        authority: PEM of the certificates to trust; without it, those of the machine.
        token: bearer token; without it, the client says nothing of who it is.
    """
    cluster: Json = {"server": server}
    if authority:
        cluster["certificate-authority-data"] = base64.b64encode(authority.encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token} if token else {}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": user, "namespace": namespace}}],
        "current-context": NAME,
    }
