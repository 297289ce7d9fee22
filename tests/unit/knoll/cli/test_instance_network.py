"""What instances of `knoll up` can reach here, and the messages when that is not everything."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from knoll.cli import instance_network
from knoll.process import dns_server

ENVIRONMENT = {"KNOLL_ACTIVATOR_PORTS": "8080", "KNOLL_ACTIVATOR_TLS_PORTS": "8443"}


def program(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> str:
    """Use the loopback address as that of the instance network, because it can be bound."""

    async def loopback(_: object) -> tuple[str, str]:
        return "127.0.0.9", ""

    monkeypatch.setattr(instance_network, "_address", loopback)
    return "127.0.0.9"


@pytest.fixture
def listener(address: str) -> Iterator[socket.socket]:
    with socket.socket() as taken:
        yield taken


async def test_without_an_engine_there_is_a_warning_that_names_it(tmp_path: Path) -> None:
    missing = {**ENVIRONMENT, "KNOLL_DOCKER_SOCKET": str(tmp_path / "none.sock")}
    network = await instance_network.inspect(missing, tmp_path)
    assert not network.environment
    assert not network.dns_command
    assert "none.sock" in network.warning


async def test_without_dnsmasq_there_is_a_warning_and_the_public_gateway_all_the_same(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(dns_server, "PLACES", "")
    network = await instance_network.inspect(ENVIRONMENT, tmp_path)
    assert network.environment == {"KNOLL_ACTIVATOR_HOST": f"127.0.0.1,{address}"}
    assert not network.dns_command
    assert "dnsmasq-base" in network.warning
    assert "NAME.NAMESPACE.svc.cluster.local" in network.warning


async def test_dnsmasq_is_found_where_only_root_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "dnsmasq", "exit 0")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(dns_server, "PLACES", str(tmp_path))
    assert dns_server.command(tmp_path, "127.0.0.9")[0] == str(tmp_path / "dnsmasq")


async def test_a_port_that_is_taken_is_named(
    address: str, listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "dnsmasq", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    listener.bind((address, 0))
    listener.listen()
    port = listener.getsockname()[1]
    monkeypatch.setattr(instance_network, "GATEWAY_PORT", port)
    network = await instance_network.inspect(ENVIRONMENT, tmp_path)
    assert f"{address}:{port}" in network.warning
    assert "Address already in use" in network.warning
    assert "KNOLL_INSTANCE_DNS" not in network.environment


async def test_a_wildcard_listener_takes_the_port_too(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(dns_server, "PLACES", "")
    monkeypatch.setenv("KNOLL_ACTIVATOR_HOST", "0.0.0.0")
    assert not (await instance_network.inspect(ENVIRONMENT, tmp_path)).environment


async def test_with_all_requirements_every_process_gets_the_network(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "dnsmasq", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(instance_network, "_bind_problem", lambda *_, **__: "")
    network = await instance_network.inspect(ENVIRONMENT, tmp_path / "names")
    assert network.environment == {
        "KNOLL_ACTIVATOR_HOST": f"127.0.0.1,{address}",
        "KNOLL_ACTIVATOR_LOCAL_HOST": address,
        "KNOLL_ACTIVATOR_LOCAL_PORTS": "80",
        "KNOLL_NAMES_DIR": str(tmp_path / "names"),
        "KNOLL_INSTANCE_DNS": address,
    }
    assert f"--listen-address={address}" in network.dns_command
    assert not network.warning
