"""Authorization: Kubernetes' built-in roles, bound to users in a namespace or cluster-wide. Pure.

There are no other roles. `view` reads everything but Secrets, RoleBindings and the rights of others; `edit` changes the
objects of a namespace; `admin` also manages its RoleBindings; `cluster-admin` may do everything.

Source: Kubernetes, `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go`; Knative's aggregated roles
`knative-serving-namespaced-{view,edit,admin}`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from api.auth.identity import AUTHENTICATED, User
from knoll.values.errors import ForbiddenError
from knoll.values.json import Json
from knoll.values.kinds import BUILD, KINDS, SERVING

RBAC = "rbac.authorization.k8s.io"
MASTERS = "system:masters"
"""Group whose members may do everything, without a binding."""
ALL = "*"
_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes of a request that authorization needs: those of a resource, or a non-resource `path`."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a role: verbs on resources of groups, where `pods/log` is a resource of its own, or on paths."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    """A `*` at the end matches any suffix."""

    def allows(self, attributes: Attributes) -> bool:
        if not _has(self.verbs, attributes.verb):
            return False
        if attributes.path:
            return any(
                attributes.path.startswith(path[:-1]) if path.endswith(ALL) else attributes.path == path
                for path in self.paths
            )
        full = f"{attributes.resource}/{attributes.subresource}" if attributes.subresource else attributes.resource
        return _has(self.groups, attributes.group) and _has(self.resources, full)

    def document(self) -> Json:
        """The rule as in a ClusterRole."""
        if self.paths:
            return {"verbs": list(self.verbs), "nonResourceURLs": list(self.paths)}
        return {"verbs": list(self.verbs), "apiGroups": list(self.groups), "resources": list(self.resources)}


def _has(listed: Sequence[str], value: str) -> bool:
    return value in listed or ALL in listed


_KNATIVE = (SERVING, "networking.internal.knative.dev", "autoscaling.internal.knative.dev")
_VIEWED = (
    "configmaps", "events", "namespaces", "namespaces/status", "persistentvolumeclaims",
    "persistentvolumeclaims/status", "pods", "pods/log", "pods/status", "resourcequotas", "resourcequotas/status",
    "serviceaccounts", "services", "services/status",
)  # fmt: skip
_EDITED = ("configmaps", "events", "persistentvolumeclaims", "pods", "secrets", "serviceaccounts", "services")
_WRITTEN = tuple(sorted({kind.plural for kind in KINDS if kind.group in (*_KNATIVE, BUILD)}))
"""Without `/status`: instances run the image in the status of their Revision."""
_VIEW = (
    Rule(_READ, ("",), _VIEWED),
    Rule(_READ, ("apps",), ("deployments", "deployments/status")),
    Rule(_READ, ("discovery.k8s.io",), ("endpointslices",)),
    Rule(_READ, ("autoscaling",), ("horizontalpodautoscalers", "horizontalpodautoscalers/status")),
    Rule(_READ, (*_KNATIVE, BUILD), (ALL,)),
)
_EDIT = (
    *_VIEW,
    Rule(_READ, ("",), ("secrets",)),
    Rule(_WRITE, ("",), _EDITED),
    Rule(("create",), ("",), ("pods/eviction", "serviceaccounts/token")),
    Rule(_WRITE, (*_KNATIVE, BUILD), _WRITTEN),
)
_ADMIN = (*_EDIT, Rule((*_WRITE, *_READ), (RBAC,), ("rolebindings",)))
_EVERYTHING = (Rule((ALL,), (ALL,), (ALL,)), Rule((ALL,), paths=(ALL,)))

ROLES: Mapping[str, tuple[Rule, ...]] = {"view": _VIEW, "edit": _EDIT, "admin": _ADMIN, "cluster-admin": _EVERYTHING}
"""The built-in ClusterRoles, each containing those before it."""

PUBLIC = (Rule(("get",), paths=("/healthz", "/livez", "/readyz", "/version", "/version/")),)
"""Rights of all users, authenticated or not."""
BASIC = (
    *PUBLIC,
    Rule(
        ("create",),
        ("authorization.k8s.io", "authentication.k8s.io"),
        ("selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"),
    ),
    Rule(("get",), paths=("/", "/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")),
)
"""Rights of all authenticated users: discovery, and reviews of their own rights."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A RoleBinding, or a ClusterRoleBinding if it has no namespace."""

    role: str
    name: str
    namespace: str = ""
    users: frozenset[str] = frozenset()
    """User names, those of ServiceAccounts included."""
    groups: frozenset[str] = frozenset()

    def covers(self, user: User, namespace: str) -> bool:
        """Whether it grants `user` its role in `namespace`; in all namespaces if that is empty."""
        return self.namespace in ("", namespace) and self.names(user)

    def names(self, user: User) -> bool:
        """Whether `user` is a subject of the binding."""
        return user.name in self.users or not self.groups.isdisjoint(user.groups)

    @property
    def reason(self) -> str:
        """Why a request is allowed, worded as in Kubernetes."""
        kind, named = (
            ("RoleBinding", f"{self.name}/{self.namespace}") if self.namespace else ("ClusterRoleBinding", self.name)
        )
        return f'RBAC: allowed by {kind} "{named}" of ClusterRole "{self.role}"'


def cluster_roles() -> list[Json]:
    """Return the built-in roles as ClusterRole objects."""
    return [
        {
            "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
            "rules": [rule.document() for rule in granted],
        }
        for name, granted in ROLES.items()
    ]


def binding(body: Json) -> Binding:
    """Parse a stored RoleBinding or ClusterRoleBinding."""
    users, groups = set(), set()
    meta = body["metadata"]
    for subject in body.get("subjects") or ():
        if subject["kind"] == "ServiceAccount":
            users.add(f"system:serviceaccount:{subject['namespace']}:{subject['name']}")
        elif subject["kind"] == "User":
            users.add(subject["name"])
        else:
            groups.add(subject["name"])
    return Binding(
        body["roleRef"]["name"], meta["name"], meta.get("namespace", ""), frozenset(users), frozenset(groups)
    )


def allowed(user: User, attributes: Attributes, bindings: Iterable[Binding]) -> str | None:
    """Return the reason why `user` may do this, which may be empty; None if it is forbidden."""
    if MASTERS in user.groups:
        return ""
    if any(rule.allows(attributes) for rule in _basic(user)):
        return ""
    for bound in bindings:
        if bound.covers(user, attributes.namespace) and any(
            rule.allows(attributes) for rule in ROLES.get(bound.role, ())
        ):
            return bound.reason
    return None


def _basic(user: User) -> tuple[Rule, ...]:
    return BASIC if AUTHENTICATED in user.groups else PUBLIC


def roles_of(user: User, bindings: Iterable[Binding]) -> frozenset[tuple[str, str]]:
    """Return namespace and name of each role that is bound to `user`; an empty namespace means all."""
    return frozenset((bound.namespace, bound.role) for bound in bindings if bound.names(user))


def exceeding(user: User, role: str, namespace: str) -> list[Rule]:
    """Return the rules of a role in a namespace (cluster-wide if empty) that `user` does not hold there.

    Args: user: with `roles`.

    Source: Kubernetes, `pkg/registry/rbac/validation/policy_comparator.go`, `Covers`.
    """
    if MASTERS in user.groups:
        return []
    held = [rule for place, name in user.roles if place in ("", namespace) for rule in ROLES.get(name, ())]
    return [rule for rule in ROLES.get(role, ()) if not _covered(rule, held)]


def _covered(rule: Rule, held: Sequence[Rule]) -> bool:
    asked = [Attributes(verb, path=path) for verb in rule.verbs for path in rule.paths]
    asked += [
        Attributes(verb, group, resource) for verb in rule.verbs for group in rule.groups for resource in rule.resources
    ]
    return all(any(held_rule.allows(attributes) for held_rule in held) for attributes in asked)


def refuse_more(user: User, other: User, action: str) -> None:
    """Refuse to let `user` act as `other`, or get a token of `other`, if `other` has more rights.

    Args:
        user, other: with `roles`.
        action: for the message, such as "get a token".

    Raises: ForbiddenError.
    """
    if user.name == other.name:
        return
    for namespace, role in sorted(other.roles):
        if missing := exceeding(user, role, namespace):
            where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
            raise ForbiddenError(
                f'user "{user.name}" (groups={_listed(user.groups)}) is attempting to {action} of "{other.name}", '
                f'which has RBAC permissions not currently held, those of ClusterRole "{role}" {where}:\n'
                + described(missing)
            )


def refuse_grant(user: User, role: str, namespace: str, binding_name: str) -> None:
    """Refuse to let `user` bind a role with more rights than `user` has in its namespace.

    Args:
        user: with `roles`.
        binding_name: such as `rolebindings.rbac.authorization.k8s.io "mine"`.

    Raises: ForbiddenError, worded as in kube-apiserver.
    """
    if missing := exceeding(user, role, namespace):
        raise ForbiddenError(
            f'{binding_name} is forbidden: user "{user.name}" (groups={_listed(user.groups)}) is attempting to grant '
            f"RBAC permissions not currently held:\n{described(missing)}"
        )


def described(listed: Iterable[Rule]) -> str:
    """Rules, one per line, in kube-apiserver's notation."""

    def fields(rule: Rule) -> Iterable[tuple[str, Sequence[str]]]:
        if rule.paths:
            yield "NonResourceURLs", rule.paths
        else:
            yield "APIGroups", rule.groups
            yield "Resources", rule.resources
        yield "Verbs", rule.verbs

    return "\n".join(
        "{" + ", ".join(f"{name}:{_listed(values)}" for name, values in fields(rule)) + "}" for rule in listed
    )


def _listed(values: Sequence[str]) -> str:
    """A slice of strings as Go's `%q` formats it."""
    return "[" + " ".join(f'"{value}"' for value in values) + "]"


def rules(user: User, namespace: str, bindings: Iterable[Binding]) -> list[Rule]:
    """Return all rules that hold for `user` in `namespace`."""
    names = {bound.role for bound in bindings if bound.covers(user, namespace)}
    if MASTERS in user.groups:
        names.add("cluster-admin")
    granted = [rule for name in ROLES if name in names for rule in ROLES[name]]
    return list(dict.fromkeys([*_basic(user), *granted]))


def forbidden(user: User, attributes: Attributes) -> ForbiddenError:
    """Return the error for a forbidden request, worded as in kube-apiserver."""
    if attributes.path:
        return ForbiddenError(f'forbidden: User "{user.name}" cannot {attributes.verb} path "{attributes.path}"')
    resource = f"{attributes.resource}.{attributes.group}" if attributes.group else attributes.resource
    named = f'{resource} "{attributes.name}"' if attributes.name else resource
    full = f"{attributes.resource}/{attributes.subresource}" if attributes.subresource else attributes.resource
    where = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    return ForbiddenError(
        f'{named} is forbidden: User "{user.name}" cannot {attributes.verb} resource "{full}" '
        f'in API group "{attributes.group}" {where}'
    )
