"""Cluster-local names inside instances, and what of them is reached from outside; a host of one's own with TLS."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from knoll.process import dns_server
from tests.component.activator.test_config_watch import certificate
from tests.conftest import need
from tests.e2e.calling import LOCAL, Caller, image, service  # noqa: F401 - a fixture
from tests.e2e.platform import Platform, http
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

DOMAIN = "shop.example.com"


@pytest.fixture(scope="module")
def services(platform: Platform, image: str) -> Iterator[None]:  # noqa: F811
    """A public caller, a cluster-local Service beside it, one in another namespace."""
    need("DNSMASQ", dns_server.program() is not None)
    platform.kubectl("create", "namespace", "team")
    manifest = service("caller") + service("inner", labels=LOCAL) + service("inner", "team", LOCAL)
    platform.kubectl("apply", "-f", "-", stdin=manifest)
    for namespace in ("default", "team"):
        platform.kubectl("wait", "-n", namespace, "ksvc", "--all", "--for=condition=Ready", "--timeout=60s")
    yield
    platform.kubectl("delete", "-f", "-", stdin=manifest)
    platform.kubectl("delete", "namespace", "team")


@pytest.fixture
def inside(platform: Platform, services: None) -> "Caller":
    return Caller(platform)


def outside(platform: Platform, host: str) -> int:
    with http(platform) as client:
        return client.get("/", headers={"Host": host}).status_code


FORMS = ("inner.default.svc.cluster.local", "inner.default.svc", "inner.default")


@pytest.mark.parametrize("prefix", ["", "v1-"], ids=["route", "tag"])
@pytest.mark.parametrize("form", FORMS)
def test_an_instance_reaches_a_cluster_local_service_by_each_form_of_its_name(
    inside: Caller, prefix: str, form: str
) -> None:
    def reached() -> bool:
        response = inside.get(f"http://{prefix}{form}/")
        assert (response["status"], response["body"]) == (200, f"inner was asked as {prefix}{form}"), response
        return True

    eventually_sync(reached, within=30)


def test_namespaces_do_not_mix(inside: Caller) -> None:
    eventually_sync(lambda: inside.get("http://inner.team/")["status"] == 200, within=30)
    assert inside.get("http://inner.team/")["body"] == "inner was asked as inner.team"


@pytest.mark.parametrize("form", [*FORMS, "inner.default.localhost", "v1-inner.default.svc.cluster.local"])
def test_the_public_gateway_does_not_serve_cluster_local_hosts(platform: Platform, inside: Caller, form: str) -> None:
    assert outside(platform, form) == 404


def test_nor_does_a_public_service_have_its_inner_names_outside(platform: Platform, inside: Caller) -> None:
    assert outside(platform, "caller.default.localhost") == 200
    assert outside(platform, "caller.default.svc.cluster.local") == 404
    assert inside.get("http://caller.default.svc.cluster.local/")["status"] == 200


def test_the_address_of_a_cluster_local_service_is_its_inner_one(platform: Platform, inside: Caller) -> None:
    status = json.loads(platform.kubectl("get", "ksvc", "inner", "-o", "json").stdout)["status"]
    assert status["url"] == status["address"]["url"] == "http://inner.default.svc.cluster.local"
    assert status["traffic"][0]["url"] == "http://v1-inner.default.svc.cluster.local"


@pytest.mark.parametrize(
    "name", ["nope.default.svc.cluster.local", "nope.default.svc", "inner.nowhere.svc.cluster.local", "inner"]
)
def test_unknown_names_fail_at_once(inside: Caller, name: str) -> None:
    assert inside.lookup(name)["notFound"]


def test_names_outside_are_not_ours(platform: Platform, inside: Caller) -> None:
    # Whether this machine knows the name or not: no answer of ours stands in for it.
    assert gateway_address(platform) not in (inside.lookup("example.com")["addresses"] or [])
    assert inside.lookup("inner.default.svc.cluster.local")["addresses"] == [gateway_address(platform)]


def test_an_instance_reaches_the_public_gateway_too(platform: Platform, inside: Caller) -> None:
    port = platform.gateway.rpartition(":")[2]
    url = f"http://{gateway_address(platform)}:{port}/"
    assert inside.get(url, host="caller.default.localhost")["body"] == "caller was asked as caller.default.localhost"
    assert inside.get(url, host="inner.default.svc.cluster.local")["status"] == 404


def test_an_instance_reaches_nothing_of_ours_but_the_gateway(platform: Platform, inside: Caller) -> None:
    """Neither by its own loopback, nor by the bridge's address on this machine, nor by any other of its addresses."""
    tls = yaml.safe_load((platform.data / "state" / "kubeconfig").read_text())["clusters"][0]["cluster"]["server"]
    ports = {address.rpartition(":")[2] for address in (platform.api, tls)} | {
        port for name, port in platform.environment.items() if name.endswith("_ADMIN_PORT")
    }
    assert len(ports) == 5
    own = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    for address in {
        "127.0.0.1",
        gateway_address(platform),
        *(address_of_container for address_of_container in own if ":" not in address_of_container),
    }:
        for port in ports:
            response = inside.get(f"http://{address}:{port}/healthz")
            assert (response["status"], "connection refused" in response["error"]) == (0, True), (
                address,
                port,
                response,
            )


def test_a_call_inside_wakes_a_service_that_sleeps(platform: Platform, inside: Caller) -> None:
    def asleep() -> bool:
        return not platform.containers("label=knoll.dev/role=app", "label=knoll.dev/revision=default/inner-one")

    eventually_sync(asleep, within=60, condition="inner sleeps")
    assert inside.get("http://inner.default/")["status"] == 200
    assert not asleep()


def test_resolv_conf_is_readable_by_all_users(inside: Caller) -> None:
    assert inside.ask("/mode", path="/etc/resolv.conf").text == "-rw-r--r--"


def test_a_name_is_removed_with_its_service(platform: Platform, inside: Caller) -> None:
    platform.kubectl("apply", "-f", "-", stdin=service("brief", labels=LOCAL))
    platform.kubectl("wait", "ksvc/brief", "--for=condition=Ready", "--timeout=60s")
    eventually_sync(lambda: inside.get("http://brief.default/")["status"] == 200, within=30)
    platform.kubectl("delete", "ksvc", "brief")
    eventually_sync(lambda: inside.lookup("brief.default.svc.cluster.local")["notFound"], within=30)


def test_a_host_of_ones_own_serves_https_at_the_address_that_it_says(
    platform: Platform, inside: Caller, tmp_path: Path
) -> None:
    authority, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    for file, text in zip((authority, key), certificate(DOMAIN), strict=True):
        file.write_bytes(text)
    platform.kubectl("create", "secret", "tls", "shop", f"--cert={authority}", f"--key={key}")
    mapping = {
        "apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping",
        "metadata": {"name": DOMAIN, "namespace": "default"},
        "spec": {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "caller"},
                 "tls": {"secretName": "shop"}},
    }  # fmt: skip
    platform.kubectl("apply", "-f", "-", stdin=json.dumps(mapping))
    platform.kubectl("wait", f"domainmapping/{DOMAIN}", "--for=condition=Ready", "--timeout=60s")
    url = platform.kubectl("get", "domainmapping", DOMAIN, "-o", "jsonpath={.status.url}").stdout
    assert url == f"https://{DOMAIN}:{platform.https_port}"

    def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
        resolve = f"{DOMAIN}:{platform.https_port}:127.0.0.1"
        command = ["curl", "-sS", "--cacert", str(authority), "--resolve", resolve, *arguments, url]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    for version in ("--http1.1", "--http2"):
        eventually_sync(lambda arguments=version: curl(arguments).returncode == 0, within=30, condition="https")  # type: ignore[misc]
        assert re.fullmatch(rf"caller was asked as {DOMAIN}:\d+", curl(version).stdout)
    platform.kubectl("delete", "domainmapping", DOMAIN)
    platform.kubectl("delete", "secret", "shop")


def mapping(host: str, namespace: str, target: str = "inner") -> str:
    ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": target}
    meta = {"name": host, "namespace": namespace}
    kind = {"apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping"}
    return json.dumps({**kind, "metadata": meta, "spec": {"ref": ref}})


@pytest.mark.parametrize(
    "host",
    ["caller.default.localhost", "v1-caller.default.localhost", "inner.default.svc", "inner.default", "127.0.0.1"],
)
def test_no_namespace_maps_the_host_of_another_ones_service(platform: Platform, inside: Caller, host: str) -> None:
    refused = platform.kubectl("apply", "-f", "-", stdin=mapping(host, "team"), check=False)
    if refused.returncode == 0:  # only the controllers know which namespaces there are
        jsonpath = '{.status.conditions[?(@.type=="DomainClaimed")].reason}'
        reason = ("get", "domainmapping", host, "-n", "team", "-o", f"jsonpath={jsonpath}")
        eventually_sync(lambda: platform.kubectl(*reason).stdout == "DomainClaimFailed", within=30)
        platform.kubectl("delete", "domainmapping", host, "-n", "team")
    else:
        assert f'invalid name "{host}"' in refused.stderr
    assert inside.get("http://inner.default/")["body"] == "inner was asked as inner.default"
    assert outside(platform, "caller.default.localhost") == 200


def test_with_tenants_an_administrator_gives_hosts_away_and_takes_them_back(platform: Platform, inside: Caller) -> None:
    host = "team.example.com"
    platform.kubectl("create", "serviceaccount", "ci", "-n", "team")
    platform.kubectl("create", "rolebinding", "ci", "-n", "team", "--clusterrole=edit", "--serviceaccount=team:ci")
    # From now on images that only the engine has are no longer for every namespace.
    local_images = ("patch", "configmap", "config-security", "-n", "knative-serving", "--type=merge", "-p")
    platform.kubectl(*local_images, json.dumps({"data": {"local-images": "*"}}))
    try:
        tenant = ("--as", "system:serviceaccount:team:ci")
        platform.kubectl("apply", "-f", "-", *tenant, stdin=mapping(host, "team", "hello"))
        platform.kubectl("apply", "-f", "-", stdin=service("hello", "team"))
        wait = ("wait", f"domainmapping/{host}", "-n", "team", "--timeout=60s")
        platform.kubectl(*wait, "--for=condition=DomainClaimed=False")
        assert outside(platform, host) == 404
        claim = json.dumps({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ClusterDomainClaim",
            "metadata": {"name": host}, "spec": {"namespace": "team"},
        })  # fmt: skip
        refused = platform.kubectl("apply", "-f", "-", *tenant, stdin=claim, check=False)
        assert "forbidden" in refused.stderr
        platform.kubectl("apply", "-f", "-", stdin=claim)
        platform.kubectl(*wait, "--for=condition=Ready")
        assert outside(platform, host) == 200
        platform.kubectl("delete", "cdc", host)
        platform.kubectl(*wait, "--for=condition=Ready=False")
        eventually_sync(lambda: outside(platform, host) == 404, within=30)
    finally:
        platform.kubectl("delete", "rolebinding", "ci", "-n", "team")
        platform.kubectl(*local_images, json.dumps({"data": {"local-images": None}}))
        platform.kubectl("delete", "domainmapping", host, "-n", "team", "--ignore-not-found")
        platform.kubectl("delete", "ksvc", "hello", "-n", "team", "--ignore-not-found")


@pytest.mark.parametrize("part", ["names", "activator"])
def test_names_lead_where_they_did_after_a_part_was_killed(platform: Platform, inside: Caller, part: str) -> None:
    (before,) = platform.pids(part)
    os.kill(before, signal.SIGKILL)
    eventually_sync(lambda: platform.pids(part) not in ([], [before]), within=30, condition=f"{part} starts again")

    def reached() -> bool:
        try:
            return bool(inside.get("http://inner.default.svc.cluster.local/")["status"] == 200)
        except (httpx.TransportError, ValueError):  # the way to the caller itself is the activator's
            return False

    eventually_sync(reached, within=60)


def gateway_address(platform: Platform) -> str:
    """This machine on the instances' network."""
    command = ["docker", "network", "inspect", f"{platform.name}-instances", "--format",
             "{{range .IPAM.Config}}{{.Gateway}}{{end}}"]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
