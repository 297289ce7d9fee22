"""The checks of `knoll doctor` for several machines."""

import contextlib
import os
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from knoll.cli import cluster_checks
from knoll.values.json import Json
from tests.component.cluster import certified
from tests.conftest import free_port


def node(name: str, version: str = "v1.4.0", *, ready: bool = True) -> Json:
    return {
        "metadata": {"name": name},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
            "nodeInfo": {"kubeletVersion": version},
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
        },
    }


def test_a_single_machine_is_not_a_cluster() -> None:
    assert not cluster_checks.is_cluster([node("knoll")])
    assert not cluster_checks.is_cluster([])
    assert cluster_checks.is_cluster([node("n1")])


def test_a_machine_that_is_silent_is_a_problem() -> None:
    good, bad = cluster_checks.states([node("n1"), node("n2", ready=False)])
    assert good == (True, "n1 is ready", "")
    assert not bad[0]
    assert "knoll node rm n2" in bad[2]


@pytest.mark.parametrize(
    ("versions", "ok", "fix"),
    [
        (["v1.4.0", "v1.4.0"], True, ""),
        (["v1.4.0", "v1.4.1"], True, "finish the upgrade"),
        (["v1.4.0", "v1.5.0"], True, "finish the upgrade"),
        (["v1.4.0", "v1.6.0"], False, "one minor version"),
        (["v1.4.0", "v1.5.0", "v1.6.0"], False, "one minor version"),
        (["v1.9.0", "v2.0.0"], False, "one minor version"),
        (["v1.4.0", ""], False, "one minor version"),
    ],
)
def test_versions_may_differ_by_one(versions: list[str], ok: bool, fix: str) -> None:
    nodes = [node(f"n{at}", version) for at, version in enumerate(versions)]
    result = cluster_checks.versions(nodes, own=versions[0])
    assert result[0] is ok
    assert fix in result[2]
    assert bool(fix) == bool(result[2])


def test_the_settings_of_the_engine_are_checked() -> None:
    active = {"Swarm": {"LocalNodeState": "active"}}
    second = 1_000_000_000
    fast = {"Spec": {"Dispatcher": {"HeartbeatPeriod": second}}}
    assert [ok for ok, _, _ in cluster_checks.engine(active, fast)] == [True]
    assert not list(cluster_checks.engine(active, None))
    (slow,) = cluster_checks.engine(active, {"Spec": {"Dispatcher": {"HeartbeatPeriod": 5 * second}}})
    assert not slow[0]
    assert "dispatcher-heartbeat 1s" in slow[2]
    texts = " ".join(state for _, state, _ in cluster_checks.engine({"LiveRestoreEnabled": True}, None))
    assert "live-restore" in texts
    assert "no cluster" in texts


def test_ports_that_are_not_reached_are_named() -> None:
    closed = free_port()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        good, bad = cluster_checks.reached("n2", "127.0.0.1", (port, closed))
    assert good[0]
    assert not bad[0]
    assert f"127.0.0.1:{closed}" in bad[1]


def test_the_ports_are_those_of_the_settings() -> None:
    assert cluster_checks.ports({}) == (7443, 7444, 7946)
    assert cluster_checks.ports({"KNOLL_AGENT_PORT": "1", "KNOLL_RELAY_PORT": "2"}) == (1, 2, 7946)


def test_doctor_reads_the_ports_of_the_platform_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker").write_text(f"#!/bin/sh\necho {tmp_path}\n")
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / ".env").write_text("KNOLL_AGENT_PORT=1\nKNOLL_RELAY_PORT=2\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KNOLL_RELAY_PORT", "3")
    monkeypatch.delenv("KNOLL_AGENT_PORT", raising=False)
    assert cluster_checks.ports(cluster_checks.platform_settings()) == (1, 3, 7946)


def test_addresses_are_those_between_machines() -> None:
    assert list(cluster_checks.addresses([node("n1")])) == [("n1", "127.0.0.1")]


def test_the_clock_of_a_machine_without_an_api_is_unknown() -> None:
    assert cluster_checks.clock("n2", "127.0.0.1", free_port(), 0.0) is None


def member(engine_id: str, role: str = "worker", state: str = "ready", reachability: str = "") -> Json:
    status: Json = {"ManagerStatus": {"Reachability": reachability}} if reachability else {}
    described = {"Hostname": f"host-{engine_id}"}
    return {"ID": engine_id, "Spec": {"Role": role}, "Status": {"State": state}, "Description": described, **status}


def with_engine(name: str, engine_id: str) -> Json:
    return {**node(name), "spec": {"providerID": f"docker://{engine_id}"}}


def test_the_swarm_needs_more_than_half_of_its_managers() -> None:
    members = [member("a", "manager", reachability="reachable"), member("b")]
    nodes = [with_engine("n1", "a"), with_engine("n2", "b")]
    assert list(cluster_checks.swarm_members(members, nodes)) == [
        (True, "1 of 1 managers of the Swarm respond, 1 are needed to place instances", "")
    ]
    three = [member(each, "manager", reachability="reachable") for each in "abc"]
    three[2] = member("c", "manager", "down", "unreachable")
    lost = next(cluster_checks.swarm_members(three, nodes))
    assert not lost[0]
    assert "2 of 3 managers" in lost[1]
    assert "start the others" in lost[2]
    two = next(cluster_checks.swarm_members(three[:2], nodes))
    assert two[0]
    assert "use one or three" in two[2]


def test_the_swarm_has_the_machines_of_the_platform() -> None:
    members = [member("a", "manager", reachability="reachable"), member("b", state="down"), member("x", state="down")]
    nodes = [with_engine("n1", "a"), with_engine("n2", "b"), with_engine("n3", "c")]
    _, down, missing, left = cluster_checks.swarm_members(members, nodes)
    assert down[:2] == (False, "n2 is down in the Swarm")
    assert "7946" in down[2]
    assert "n3 is not in the Swarm" in missing[1]
    assert "join-command" in missing[2]
    assert left[0]
    assert "docker node rm x" in left[2]


@pytest.mark.parametrize(
    ("name", "days", "ok", "state"),
    [
        ("n1", 0, True, "n1's certificate is valid for"),
        ("n1", 15, False, "n1's certificate ends in"),
        ("n1", 40, False, "n1's certificate has ended"),
        ("n2", 0, False, "has the certificate of n1, not of n2"),
    ],
)
def test_certificates_are_checked_at_the_machine(tmp_path: Path, name: str, days: int, ok: bool, state: str) -> None:
    folder = certified.machine(certified.authority(), "n1", tmp_path)
    context = folder.context(server=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=shake_hands, args=(listener, context))
        accepting.start()
        now = datetime.now(UTC) + timedelta(days=days)
        result = cluster_checks.certificate(name, "127.0.0.1", listener.getsockname()[1], now)
        accepting.join()
    assert result is not None
    assert result[0] is ok
    assert state in result[1]
    assert bool(result[2]) is not ok


def shake_hands(listener: socket.socket, context: ssl.SSLContext) -> None:
    """As an agent: a client without a certificate is refused."""
    connection, _ = listener.accept()
    with contextlib.suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as tls:
        tls.recv(1)


def test_no_certificate_is_reported_for_a_port_that_does_not_respond() -> None:
    assert cluster_checks.certificate("n1", "127.0.0.1", free_port(), datetime.now(UTC)) is None


def test_the_command_itself_may_be_too_new_for_the_machines() -> None:
    ok, state, fix = cluster_checks.versions([node("n1"), node("n2")], own="v1.6.0")
    assert not ok
    assert "this command is v1.6.0" in state
    assert "one minor version at a time" in fix
    assert cluster_checks.versions([node("n1"), node("n2")], own="v1.5.0") == (True, "v1.4.0: n1 n2", "")
