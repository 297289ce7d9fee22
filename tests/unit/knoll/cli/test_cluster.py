"""What `knoll cluster init` checks before it changes anything."""

import json
import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from knoll.auth.join_tokens import JoinToken
from knoll.cli import cluster, main
from knoll.cluster import engine_cli
from tests.conftest import free_port

INACTIVE = {"Swarm": {"LocalNodeState": "inactive"}}


def test_the_names_of_hosts_are_names_of_nodes() -> None:
    assert not list(cluster.name_problems(cluster.default_name()))


@pytest.mark.parametrize("name", ["", "Rack-1", "knoll", "a_b", "-a", "a" * 53])
def test_other_names_are_problems(name: str) -> None:
    assert len(list(cluster.name_problems(name))) == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "169.254.0.9", "fe80::1", "224.0.0.1", "host", ""])
def test_addresses_that_others_cannot_reach_are_problems(address: str) -> None:
    (problem,) = cluster.address_problems(address, INACTIVE, {})
    assert "--address" in problem


def test_an_address_of_another_machine_is_a_problem_of_each_port() -> None:
    problems = list(cluster.address_problems("192.0.2.77", INACTIVE, {}))
    assert len(problems) == 8
    assert all("is not an address of this machine" in problem for problem in problems)


def test_a_port_that_is_taken_is_named() -> None:
    port = free_port()
    assert cluster.port_problem("127.0.0.1", port) == ""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert f"127.0.0.1:{port} cannot be used" in cluster.port_problem("127.0.0.1", port)


def test_a_udp_port_that_is_taken_is_named() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}/udp cannot be used" in cluster.port_problem("127.0.0.1", port, udp=True)
    assert cluster.port_problem("127.0.0.1", port, udp=True) == ""


@pytest.mark.parametrize(
    ("settings", "ports"),
    [
        ({}, {7946, 2377, 7443, 7444, 8444, 8080, 8443}),
        ({"KNOLL_API_TLS_PORT": "9", "KNOLL_RELAY_PORT": "10"}, {7946, 2377, 7443, 10, 9, 8080, 8443}),
        ({"KNOLL_BIND": ""}, {7946, 2377, 7443, 7444, 8444, 8080, 8443}),
        ({"KNOLL_BIND": "0.0.0.0"}, {7946, 2377, 7443, 7444}),  # the platform itself listens on the others
    ],
)
def test_all_ports_on_which_a_machine_will_listen_are_checked(settings: dict[str, str], ports: set[int]) -> None:
    problems = " ".join(cluster.address_problems("192.0.2.77", INACTIVE, settings))
    probed = [port for port, _ in cluster._ports(INACTIVE, settings)]
    assert set(probed) == ports
    assert problems.count("is not an address of this machine") == len(probed)


@pytest.mark.parametrize("bind", ["", "0.0.0.0", "::", "192.0.2.1"])
def test_the_api_of_the_first_machine_is_reached_where_it_listens_on_its_address(bind: str) -> None:
    assert not list(cluster.bind_problems("192.0.2.1", {"KNOLL_BIND": bind} if bind else {}))


@pytest.mark.parametrize("bind", ["127.0.0.1", "::1", "192.0.2.9"])
def test_an_api_that_other_machines_do_not_reach_is_a_problem(bind: str) -> None:
    (problem,) = cluster.bind_problems("192.0.2.1", {"KNOLL_BIND": bind})
    assert f"KNOLL_BIND={bind}" in problem


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (INACTIVE, ""),
        ({"Swarm": {"LocalNodeState": "active"}}, ""),
        ({**INACTIVE, "LiveRestoreEnabled": True}, "live-restore"),
        ({"Swarm": {"LocalNodeState": "locked"}}, "docker swarm leave"),
        ({"Swarm": {"LocalNodeState": "inactive", "Error": "raft"}}, "raft"),
    ],
)
def test_an_engine_that_cannot_be_in_a_cluster_is_a_problem(engine: dict[str, object], expected: str) -> None:
    problems = " ".join(engine_cli.swarm_problems(engine))
    assert (expected in problems) if expected else not problems


def test_a_platform_that_does_not_run_with_compose_is_a_problem(tmp_path: Path) -> None:
    (missing,) = cluster.platform_problems("", "knoll", {})
    assert "docker compose up" in missing
    already = list(cluster.platform_problems(str(tmp_path), "knoll", {"KNOLL_NODE": "n1"}))
    assert "join-command" in already[0]
    assert any("compose.cluster.yaml" in problem for problem in already)


def test_a_machine_whose_ports_cannot_be_used_asks_the_platform_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker").write_text(f"#!/bin/sh\necho '{json.dumps({'Swarm': {'LocalNodeState': 'active'}})}'\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("KNOLL_JOIN_TOKEN", str(JoinToken.fresh()))
    monkeypatch.setattr("knoll.cli.node.address_problems", lambda address, engine, settings: [f"taken: {settings}"])
    server = f"https://127.0.0.1:{free_port()}"
    arguments = ["node", "join", "--server", server, "--pin", "p", "--home", str(tmp_path), "--address", "192.0.2.77"]
    done = CliRunner().invoke(main, [*arguments, "--name", "n2", "--port", "KNOLL_AGENT_PORT=9443"])
    assert done.exit_code
    assert "taken: {'KNOLL_AGENT_PORT': '9443'}" in done.output
    assert server not in done.output
