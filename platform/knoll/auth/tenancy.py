"""Whether a platform has tenants: users other than its owner who have permissions. Pure.

Some defaults are convenient for a single user and unsafe between tenants. They apply until the first RoleBinding, or
the first ClusterRoleBinding other than the owner's, exists.
"""

from collections.abc import Collection

OWNER_BINDING = "knoll-owner"
"""Name of the ClusterRoleBinding that makes the owner the administrator; created at the first start."""


def has_tenants(role_bindings: Collection[object], cluster_role_bindings: Collection[str]) -> bool:
    """Whether users other than the owner have permissions.

    Args:
        role_bindings: the RoleBindings of all namespaces, in any form.
        cluster_role_bindings: names of the ClusterRoleBindings.
    """
    return bool(role_bindings) or any(name != OWNER_BINDING for name in cluster_role_bindings)
