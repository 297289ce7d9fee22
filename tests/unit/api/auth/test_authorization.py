"""Who may do what: the built-in roles, bound in a namespace or everywhere."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.auth import authorization
from api.auth.access import upload_namespace
from api.auth.authorization import ROLES, Attributes, Binding
from api.auth.identity import ANONYMOUS, LOCAL, User
from knoll.values.errors import ForbiddenError
from knoll.values.kinds import BUILD, KINDS

SERVING = "serving.knative.dev"
RBAC = authorization.RBAC
ROBOT = User("system:serviceaccount:team:robot", ("system:serviceaccounts", "system:authenticated"))

namespaces = st.sampled_from(["", "team", "other"])
requested = st.builds(
    Attributes,
    st.sampled_from(["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]),
    st.sampled_from(["", SERVING, RBAC, "apps", "build.knoll.dev", "strange.example"]),
    st.sampled_from(["services", "secrets", "pods", "rolebindings", "clusterrolebindings", "namespaces", "builds"]),
    st.sampled_from(["", "status", "log", "token"]),
    namespaces,
)


def bound(role: str, namespace: str = "team") -> list[Binding]:
    return [Binding(role, "b", namespace, frozenset({ROBOT.name}))]


@given(requested, namespaces)
def test_each_role_may_what_the_one_before_it_may(asked: Attributes, namespace: str) -> None:
    may = [authorization.allowed(ROBOT, asked, bound(role, namespace)) is not None for role in ROLES]
    assert may == sorted(may)


@given(requested, st.sampled_from(list(ROLES)))
def test_a_role_bound_in_a_namespace_gives_nothing_elsewhere(asked: Attributes, role: str) -> None:
    if asked.namespace != "team":
        assert authorization.allowed(ROBOT, asked, bound(role)) is None


@given(requested, st.sampled_from(list(ROLES)))
def test_a_role_bound_everywhere_gives_the_same_in_each_namespace(asked: Attributes, role: str) -> None:
    here = Attributes(asked.verb, asked.group, asked.resource, asked.subresource, "team")
    everywhere = authorization.allowed(ROBOT, asked, bound(role, "")) is not None
    assert everywhere == (authorization.allowed(ROBOT, here, bound(role)) is not None)


@given(requested)
def test_users_without_a_binding_may_nothing_and_masters_everything(asked: Attributes) -> None:
    assert authorization.allowed(ROBOT, asked, []) is None
    assert authorization.allowed(ROBOT, asked, [Binding("admin", "b", "", frozenset({"other"}))]) is None
    assert authorization.allowed(LOCAL, asked, []) == ""


@given(requested, st.sampled_from(list(ROLES)), namespaces)
def test_the_list_of_rules_is_what_is_allowed(asked: Attributes, role: str, namespace: str) -> None:
    bindings = bound(role, namespace)
    listed = any(rule.allows(asked) for rule in authorization.rules(ROBOT, asked.namespace, bindings))
    assert listed == (authorization.allowed(ROBOT, asked, bindings) is not None)


@pytest.mark.parametrize(
    ("role", "verb", "group", "resource", "sub", "may"),
    [
        ("view", "get", SERVING, "services", "", True),
        ("view", "create", SERVING, "services", "", False),
        ("view", "get", "", "pods", "log", True),
        ("view", "get", "", "secrets", "", False),
        ("view", "list", RBAC, "rolebindings", "", False),
        ("edit", "create", SERVING, "services", "", True),
        ("edit", "update", SERVING, "revisions", "", True),
        ("edit", "update", SERVING, "revisions", "status", False),
        ("edit", "patch", BUILD, "builds", "status", False),
        ("edit", "get", BUILD, "builds", "status", True),
        ("cluster-admin", "update", SERVING, "revisions", "status", True),
        ("edit", "get", "", "secrets", "", True),
        ("edit", "create", "", "serviceaccounts", "token", True),
        ("edit", "list", RBAC, "rolebindings", "", False),
        ("edit", "create", "", "resourcequotas", "", False),
        ("admin", "create", RBAC, "rolebindings", "", True),
        ("admin", "create", RBAC, "clusterrolebindings", "", False),
        ("admin", "create", "", "resourcequotas", "", False),
        ("admin", "delete", "", "namespaces", "", False),
        ("cluster-admin", "create", "", "resourcequotas", "", True),
    ],
)
def test_the_roles_mean_what_they_mean_in_kubernetes(
    role: str, verb: str, group: str, resource: str, sub: str, may: bool
) -> None:
    asked = Attributes(verb, group, resource, sub, "team")
    assert (authorization.allowed(ROBOT, asked, bound(role)) is not None) is may


def test_a_viewer_sees_every_kind_but_secrets() -> None:
    hidden = {
        kind.plural
        for kind in KINDS
        if authorization.allowed(ROBOT, Attributes("list", kind.group, kind.plural, "", "team"), bound("view")) is None
    }
    assert {"secrets"} <= hidden <= {"secrets", "rolebindings", "clusterrolebindings", "clusterroles", "nodes"}


def with_role(role: str, namespace: str = "team", user: User = ROBOT) -> User:
    return replace(user, roles=frozenset({(namespace, role)}))


@given(st.sampled_from(list(ROLES)), st.sampled_from(list(ROLES)), namespaces, namespaces)
def test_a_role_can_be_granted_by_users_with_its_rights_in_that_namespace(
    held: str, given_away: str, here: str, there: str
) -> None:
    order = list(ROLES)
    may = order.index(given_away) <= order.index(held) and here in ("", there)
    assert (authorization.exceeding(with_role(held, here), given_away, there) == []) is may


@given(requested, st.sampled_from(list(ROLES)), st.sampled_from(list(ROLES)), namespaces, namespaces)
def test_what_may_be_given_away_allows_nothing_that_its_giver_may_not_do(
    asked: Attributes, held: str, given_away: str, here: str, there: str
) -> None:
    if authorization.exceeding(with_role(held, here), given_away, there) == []:
        for scope in {there, asked.namespace} if not there else {there}:
            attributes = replace(asked, namespace=scope)
            if authorization.allowed(ROBOT, attributes, bound(given_away, there)) is not None:
                assert authorization.allowed(ROBOT, attributes, bound(held, here)) is not None


@pytest.mark.parametrize("role", list(ROLES))
def test_masters_give_away_everything(role: str) -> None:
    assert authorization.exceeding(LOCAL, role, "") == []


def test_a_refused_grant_names_the_rules_that_are_missing() -> None:
    with pytest.raises(ForbiddenError) as caught:
        authorization.refuse_grant(with_role("edit"), "admin", "team", f'rolebindings.{RBAC} "b"')
    assert str(caught.value) == (
        f'rolebindings.{RBAC} "b" is forbidden: user "{ROBOT.name}" '
        '(groups=["system:serviceaccounts" "system:authenticated"]) is attempting to grant RBAC permissions not '
        f'currently held:\n{{APIGroups:["{RBAC}"], Resources:["rolebindings"], '
        'Verbs:["create" "delete" "deletecollection" "patch" "update" "get" "list" "watch"]}'
    )


@pytest.mark.parametrize(
    ("path", "namespace"),
    [
        ("/uploads", "default"),
        ("/uploads/sha256-0", "default"),
        ("/namespaces/team/uploads", "team"),
        ("/namespaces/team/uploads/sha256-0", "team"),
        ("/namespaces/../uploads", ""),
        ("/namespaces/a/b/uploads", ""),
        ("/uploadsx", ""),
        ("/uploads/a/b", ""),
    ],
)
def test_uploads_are_about_a_namespace(path: str, namespace: str) -> None:
    assert upload_namespace(path) == namespace


def test_unauthenticated_users_see_only_health_and_version() -> None:
    for path in ("/healthz", "/readyz", "/version"):
        assert authorization.allowed(ANONYMOUS, Attributes("get", path=path), []) == ""
    for path in ("/api", "/openapi/v3", "/uploads", "/metrics", "/"):
        assert authorization.allowed(ANONYMOUS, Attributes("get", path=path), []) is None
    asked = Attributes("create", "authorization.k8s.io", "selfsubjectaccessreviews")
    assert authorization.allowed(ANONYMOUS, asked, []) is None


def test_authenticated_users_may_discover_and_review_their_own_rights() -> None:
    for path in ("/api", "/apis/serving.knative.dev", "/version", "/readyz", "/openapi/v3"):
        assert authorization.allowed(ROBOT, Attributes("get", path=path), []) is not None
    assert authorization.allowed(ROBOT, Attributes("get", path="/metrics"), []) is None
    asked = Attributes("create", "authorization.k8s.io", "selfsubjectaccessreviews")
    assert authorization.allowed(ROBOT, asked, []) is not None


def test_a_refusal_is_worded_as_in_kubernetes() -> None:
    name = ROBOT.name
    assert str(authorization.forbidden(ROBOT, Attributes("list", "apps", "deployments", "", "team"))) == (
        f'deployments.apps is forbidden: User "{name}" cannot list resource "deployments" in API group "apps" '
        'in the namespace "team"'
    )
    assert str(authorization.forbidden(ROBOT, Attributes("get", "", "pods", "log", "team", "p"))) == (
        f'pods "p" is forbidden: User "{name}" cannot get resource "pods/log" in API group "" in the namespace "team"'
    )
    assert str(authorization.forbidden(ROBOT, Attributes("list", "", "namespaces"))) == (
        f'namespaces is forbidden: User "{name}" cannot list resource "namespaces" in API group "" at the cluster scope'
    )
    assert str(authorization.forbidden(ROBOT, Attributes("get", path="/metrics"))) == (
        f'forbidden: User "{name}" cannot get path "/metrics"'
    )


def test_a_stored_binding_names_users_groups_and_service_accounts() -> None:
    binding = authorization.binding(
        {
            "metadata": {"name": "b", "namespace": "team"},
            "roleRef": {"kind": "ClusterRole", "name": "edit"},
            "subjects": [
                {"kind": "ServiceAccount", "namespace": "team", "name": "robot"},
                {"kind": "User", "name": "ann"},
                {"kind": "Group", "name": "crew"},
            ],
        }
    )
    assert binding.covers(ROBOT, "team")
    assert binding.covers(User("ann"), "team")
    assert binding.covers(User("bo", ("crew",)), "team")
    assert not binding.covers(User("bo"), "team")
    assert not binding.covers(User("crew"), "team")
    assert binding.reason == 'RBAC: allowed by RoleBinding "b/team" of ClusterRole "edit"'


@pytest.mark.parametrize("role", list(ROLES))
@pytest.mark.parametrize("verb", ["create", "update", "delete"])
def test_only_users_with_rights_everywhere_grant_hosts(role: str, verb: str) -> None:
    asked = Attributes(verb, "networking.internal.knative.dev", "clusterdomainclaims", name="www.example.com")
    assert authorization.allowed(ROBOT, asked, bound(role)) is None
    assert (authorization.allowed(ROBOT, asked, bound(role, "")) is not None) == (role != "view")
