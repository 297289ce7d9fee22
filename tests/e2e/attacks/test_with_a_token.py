"""A's token gives no rights outside of A's namespace, and inside only those of A's role."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.e2e.attacks.conftest import Spy
from tests.e2e.attacks.site import ATTACKER, CANARY, VICTIM, Site
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.kubectl]

CORE, SERVING, RBAC = "/api/v1", "/apis/serving.knative.dev/v1", "/apis/rbac.authorization.k8s.io/v1"
SPEC = {"template": {"spec": {"containers": [{"image": "spy:1"}]}}}


def body(api_version: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **more}


SERVICE, ACCOUNT = body("serving.knative.dev/v1", "Service", "evil", spec=SPEC), body("v1", "ServiceAccount", "evil")
ATTACKS: dict[str, tuple[str, str, object]] = {
    "read a Secret": ("GET", f"{CORE}/namespaces/{VICTIM}/secrets/crown", None),
    "list Secrets": ("GET", f"{CORE}/namespaces/{VICTIM}/secrets", None),
    "watch Secrets": ("GET", f"{CORE}/namespaces/{VICTIM}/secrets?watch=true&timeoutSeconds=1", None),
    "read a ConfigMap": ("GET", f"{CORE}/namespaces/{VICTIM}/configmaps/plans", None),
    "list Services": ("GET", f"{SERVING}/namespaces/{VICTIM}/services", None),
    "read logs": ("GET", f"{CORE}/namespaces/{VICTIM}/pods/any/log", None),
    "deploy": ("POST", f"{SERVING}/namespaces/{VICTIM}/services", SERVICE),
    "change a ConfigMap": ("PATCH", f"{CORE}/namespaces/{VICTIM}/configmaps/plans", {"data": {"plan": "other"}}),
    "delete a Secret": ("DELETE", f"{CORE}/namespaces/{VICTIM}/secrets/none", None),
    "make a ServiceAccount": ("POST", f"{CORE}/namespaces/{VICTIM}/serviceaccounts", ACCOUNT),
}  # fmt: skip
"""What `edit` in B's namespace would allow."""


def attack(site: Site, name: str) -> httpx.Response:
    method, path, content = ATTACKS[name]
    return site.attacker.api(method, path, content)


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused_in_the_others_namespace(site: Site, name: str) -> None:
    answer = attack(site, name)
    assert answer.status_code == 403, answer.text
    assert CANARY not in answer.text
    assert base64.b64encode(CANARY.encode()).decode() not in answer.text


def test_without_authorisation_all_of_it_would_be_done(site: Site) -> None:
    """A role in B's namespace stands for authorisation that lets everything pass."""
    with site.bound("edit", VICTIM):
        answers: Mapping[str, httpx.Response] = {name: attack(site, name) for name in ATTACKS}
    # 404: the Pod and the Secret that are named are not there.
    assert {name: answer.text for name, answer in answers.items() if answer.status_code not in (200, 201, 404)} == {}
    assert base64.b64encode(CANARY.encode()).decode() in answers["read a Secret"].text
    site.admin.kubectl("delete", "-n", VICTIM, "ksvc/evil", "serviceaccount/evil", "--ignore-not-found")
    site.admin.kubectl("patch", "-n", VICTIM, "configmap", "plans", "-p", json.dumps({"data": {"plan": CANARY}}))
    assert attack(site, "read a Secret").status_code == 403


PLATFORM: dict[str, tuple[str, str, object]] = {
    "read every Secret": ("GET", f"{CORE}/secrets", None),
    "configure the platform": ("PATCH", f"{CORE}/namespaces/knative-serving/configmaps/config-security",
                               {"data": {"network-isolation": "disabled"}}),
    "open the own namespace": ("PATCH", f"{CORE}/namespaces/{ATTACKER}",
                               {"metadata": {"annotations": {"knoll.dev/egress-allow": "10.0.0.0/8"}}}),
    "make a namespace": ("POST", f"{CORE}/namespaces", body("v1", "Namespace", "evil")),
    "bind a role to oneself": ("POST", f"{RBAC}/namespaces/{VICTIM}/rolebindings", body(
        "rbac.authorization.k8s.io/v1", "RoleBinding", "evil",
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        subjects=[{"kind": "ServiceAccount", "name": "user", "namespace": ATTACKER}])),
    "bind a role everywhere": ("POST", f"{RBAC}/clusterrolebindings", body(
        "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "evil",
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        subjects=[{"kind": "ServiceAccount", "name": "user", "namespace": ATTACKER}])),
    "take a token of the owner": ("POST", f"{CORE}/namespaces/knative-serving/serviceaccounts/knoll-owner/token", body(
        "authentication.k8s.io/v1", "TokenRequest", "", spec={"expirationSeconds": 3600})),
    "take a token of B's": ("POST", f"{CORE}/namespaces/{VICTIM}/serviceaccounts/user/token", body(
        "authentication.k8s.io/v1", "TokenRequest", "", spec={"expirationSeconds": 3600})),
}  # fmt: skip


@pytest.mark.parametrize("name", PLATFORM)
def test_it_does_nothing_to_the_platform(site: Site, name: str) -> None:
    method, path, content = PLATFORM[name]
    answer = site.attacker.api(method, path, content)
    assert answer.status_code == 403, answer.text


def test_without_authorisation_it_would_take_the_platform(site: Site) -> None:
    arguments = ("clusterrolebinding", "off")
    site.admin.kubectl("create", *arguments, "--clusterrole=cluster-admin", f"--serviceaccount={ATTACKER}:user")
    try:
        for name in ("read every Secret", "open the own namespace", "take a token of B's"):
            method, path, content = PLATFORM[name]
            assert site.attacker.api(method, path, content).is_success, name
    finally:
        site.admin.kubectl("delete", *arguments)
        site.admin.kubectl("annotate", "namespace", ATTACKER, "knoll.dev/egress-allow-")


def test_it_impersonates_no_one(site: Site) -> None:
    method, path, _ = ATTACKS["read a Secret"]
    for user in ("system:admin", f"system:serviceaccount:{VICTIM}:user"):
        refused = site.attacker.api(method, path, Impersonate_User=user)
        assert refused.status_code == 403
        assert "cannot impersonate" in refused.text
    mine = site.admin.api(method, path, Impersonate_User=f"system:serviceaccount:{VICTIM}:user")
    assert mine.is_success, "a user who may impersonate reads it"


def test_it_takes_no_token_of_an_account_that_may_do_more(site: Site) -> None:
    """`edit` lets it ask for tokens in its namespace; not for those of an account that may do more than itself."""
    path = f"{CORE}/namespaces/{ATTACKER}/serviceaccounts/boss/token"
    request = body("authentication.k8s.io/v1", "TokenRequest", "", spec={"expirationSeconds": 3600})
    site.admin.kubectl("create", "serviceaccount", "boss", "-n", ATTACKER)
    try:
        assert site.attacker.api("POST", path, request).is_success, "an account that may do nothing"
        arguments = ("clusterrolebinding", "boss")
        site.admin.kubectl("create", *arguments, "--clusterrole=cluster-admin", f"--serviceaccount={ATTACKER}:boss")
        try:
            assert site.attacker.api("POST", path, request).status_code == 403
        finally:
            site.admin.kubectl("delete", *arguments)
    finally:
        site.admin.kubectl("delete", "serviceaccount", "boss", "-n", ATTACKER)


def test_a_watch_ends_with_the_right_to_it(site: Site) -> None:
    path = f"{CORE}/namespaces/{VICTIM}/secrets"
    lines: list[str] = []
    with site.attacker.client() as client:
        with site.bound("edit", VICTIM):
            stream = client.stream("GET", path, params={"watch": "true", "timeoutSeconds": "60"})
            answer = stream.__enter__()
            incoming = answer.iter_lines()
            lines.append(next(incoming))
        site.victim.kubectl("create", "secret", "generic", "later", f"--from-literal=a={CANARY}")
        lines += incoming  # until it ends
        stream.__exit__(None, None, None)
    site.victim.kubectl("delete", "secret", "later")
    assert "crown" in lines[0]
    assert not [line for line in lines if '"later"' in line]
    assert '"ERROR"' in lines[-1]


def test_the_plain_port_rejects_invalid_tokens(site: Site) -> None:
    """A's token sent there counts as A, not as the administrator."""
    headers = {"Authorization": f"Bearer {site.attacker.token}"}
    answer = httpx.get(f"{site.plain}{CORE}/namespaces/{VICTIM}/secrets/crown", headers=headers)
    assert answer.status_code == 403


def test_no_one_gets_in_over_https_without_a_token(site: Site) -> None:
    with httpx.Client(verify=False, timeout=10) as client:
        answer = client.get(f"{site.attacker.server}{CORE}/namespaces/{VICTIM}/secrets/crown")
    assert answer.status_code in (401, 403)


class TestHosts:
    def mapping(self, host: str) -> dict[str, Any]:
        ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "spy"}
        return body("serving.knative.dev/v1beta1", "DomainMapping", host, spec={"ref": ref})

    @pytest.mark.parametrize(
        "host",
        [f"shop.{VICTIM}.localhost", f"shop.{VICTIM}", f"shop.{VICTIM}.svc", f"shop.{VICTIM}.svc.cluster.local",
         f"v1-shop.{VICTIM}.localhost", "kubernetes.default.svc", "127.0.0.1"],
    )  # fmt: skip
    def test_it_cannot_take_a_host_of_another_namespace(self, site: Site, shop: str, spy: Spy, host: str) -> None:
        path = f"/apis/serving.knative.dev/v1beta1/namespaces/{ATTACKER}/domainmappings"
        made = site.attacker.api("POST", path, self.mapping(host))
        try:
            for _ in range(5):
                assert site.get(shop).text.startswith("shop was asked")
            for inner in (f"shop.{VICTIM}", f"shop.{VICTIM}.svc", f"shop.{VICTIM}.svc.cluster.local"):
                assert spy.get(f"http://{inner}/").startswith("shop was asked")
            if made.is_success:
                conditions = site.attacker.api("GET", f"{path}/{host}").json().get("status", {}).get("conditions", ())
                assert ("Ready", "True") not in {(condition["type"], condition["status"]) for condition in conditions}
        finally:
            site.attacker.api("DELETE", f"{path}/{host}")

    def test_a_free_host_is_taken_the_same_way(self, site: Site, spy: Spy) -> None:
        """Or the test above would pass because the attack is written wrongly."""
        path = f"/apis/serving.knative.dev/v1beta1/namespaces/{ATTACKER}/domainmappings"
        host = "free.example.com"
        site.admin.kubectl("apply", "-f", "-", stdin=json.dumps(
            body("networking.internal.knative.dev/v1alpha1", "ClusterDomainClaim", host, spec={"namespace": ATTACKER})
        ))  # fmt: skip
        assert site.attacker.api("POST", path, self.mapping(host)).is_success
        try:
            eventually_sync(lambda: site.get(host).text.startswith("spy was asked"), within=20)
        finally:
            site.attacker.api("DELETE", f"{path}/{host}")
