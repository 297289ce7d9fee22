"""Kubeconfig files: the API's address and the credentials for kubectl, kn and other Kubernetes clients. Pure."""

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
    """Address of an API, and the certificate authority to trust."""

    server: str
    authority: str
    """PEM; empty for the machine's trust store."""

    @classmethod
    def of(cls, document: Json) -> "Cluster":
        """The only cluster of a kubeconfig."""
        cluster = document["clusters"][0]["cluster"]
        return cls(cluster["server"], base64.b64decode(cluster.get("certificate-authority-data", "")).decode())


def document(server: str, authority: str = "", token: str = "", namespace: str = "default", user: str = NAME) -> Json:
    """A kubeconfig with one context.

    Args:
        authority: PEM of the certificates to trust; without it, the machine's trust store is used.
        token: bearer token; without it, requests are unauthenticated.
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
