"""The Compose files of a cluster: an agent without privileges, and certificates that only it may write."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from knoll.cluster import agent, bundle
from knoll.cluster.managers import FORWARDER, PRIMARY_PORT
from knoll.cluster.node_folder import accepted_protocols, protocol
from knoll.process.settings import (
    ActivatorSettings,
    AgentSettings,
    ApiSettings,
    AutoscalerSettings,
    BuilderSettings,
    CommonSettings,
    EngineProxySettings,
    FirewallSettings,
)

ROOT = Path(__file__).parents[2]


class _Loader(yaml.SafeLoader):
    """Reads values with Compose's tags, such as `!override`, without the tags."""


def _mapping(loader: _Loader, node: yaml.Node) -> Any:
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("!override", _mapping)
_Loader.add_constructor("!reset", lambda loader, node: None)


def services(name: str) -> dict[str, dict[str, Any]]:
    """Return the services that a file adds or changes."""
    loaded: dict[str, dict[str, dict[str, Any]]] = yaml.load((ROOT / name).read_text(), _Loader)
    return {name: service for name, service in loaded["services"].items() if service is not None}


CLUSTER, NODE = services("compose.cluster.yaml"), services("compose.node.yaml")
AGENTS = [CLUSTER["agent"], CLUSTER["redis-forwarder"], NODE["redis"]]


@pytest.mark.parametrize("service", AGENTS, ids=["agent", "redis-forwarder", "redis"])
def test_agents_are_bounded_and_have_no_rights(service: dict[str, Any]) -> None:
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"].keys() >= {"max-size", "max-file"}
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"]
    assert "user" not in service
    assert list(service["networks"]) == ["control"]
    assert "docker.sock" not in str(service["volumes"])
    assert "keys-" not in str(service["volumes"])


def test_only_the_agent_may_write_the_certificate() -> None:
    mounts = {
        (name, volume)
        for part in (CLUSTER, NODE)
        for name, service in part.items()
        for volume in service.get("volumes", ())
    }
    writers = {name for name, volume in mounts if volume.startswith("node:") and not volume.endswith(":ro")}
    assert writers == {"agent"}
    assert CLUSTER["sentinel"]["volumes"] == ["sentinel:/data", "keys-redis:/etc/redis-users:ro"]


def test_the_port_of_the_registry_is_one_of_loopback_and_needs_no_rights() -> None:
    service = CLUSTER["registry-port"]
    environment = service["environment"]
    written = re.sub(r"\$\{KNOLL_NODE_ADDRESS:\?\}", "192.0.2.1", environment["KNOLL_AGENT_FORWARDS"])
    assert re.match(r"127\.0\.0\.1:\$\{KNOLL_REGISTRY_PORT:-7445\}=registry@", written)
    assert service["network_mode"] == "host"
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert "user" not in service
    # It connects to other machines only: it accepts no connection of theirs.
    assert "KNOLL_AGENT_SERVICES" not in environment


def test_the_registry_is_on_no_network_of_instances_or_builds_and_publishes_no_port() -> None:
    service = CLUSTER["registry"]
    assert service["networks"] == ["control"]
    assert "ports" not in service
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"]


def test_the_registry_is_switched_off_unless_the_operator_chooses_it() -> None:
    assert CLUSTER["registry"]["profiles"] == CLUSTER["registry-port"]["profiles"] == ["registry"]
    for name in ("builder", "autoscaler"):
        assert CLUSTER[name]["environment"]["KNOLL_REGISTRY"] == "${KNOLL_REGISTRY:-}"


def test_only_the_first_machine_has_the_registry() -> None:
    assert NODE["registry"] == {"scale": 0}
    assert NODE["builder"]["environment"]["KNOLL_REGISTRY_URL"] == ""
    assert protocol("registry") not in agent.targets(NODE["agent"]["environment"]["KNOLL_AGENT_SERVICES"])
    assert protocol("registry") in agent.targets(CLUSTER["agent"]["environment"]["KNOLL_AGENT_SERVICES"])


@pytest.mark.parametrize("name", ["sentinel", "redis-keeper"])
def test_the_other_services_of_managers_are_bounded_and_have_no_rights(name: str) -> None:
    service = CLUSTER[name]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"]
    assert service["networks"] == ["control"]
    assert "ports" not in service


def test_only_redis_and_its_keeper_read_the_passwords_of_the_group() -> None:
    readers = {name for name, service in CLUSTER.items() if "keys-redis" in str(service.get("volumes", ""))}
    assert readers == {"sentinel", "redis-keeper"}
    assert not any("keys-redis" in str(service.get("volumes", "")) for service in NODE.values())


def test_a_machine_that_is_no_manager_has_no_servers() -> None:
    text = (ROOT / "compose.node.yaml").read_text()
    assert all(f"  {name}: !reset null\n" in text for name in ("redis-forwarder", "redis-keeper", "sentinel"))
    assert NODE["redis"]["networks"] == {"control": {"aliases": ["redis-forwarder"]}}
    assert "keys" in NODE


def test_all_processes_follow_the_primary() -> None:
    for name in ("api", "builder", "autoscaler", "activator"):
        url = CLUSTER[name]["environment"]["KNOLL_REDIS_URL"]
        assert url == f"redis://{name}@{FORWARDER}:{PRIMARY_PORT}/0?replicas=auto"


def test_redis_is_published_on_no_address() -> None:
    for part in (CLUSTER, NODE):
        published = {name: service["ports"] for name, service in part.items() if "ports" in service}
        assert set(published) <= {"activator", "agent"}
        assert all("${KNOLL_NODE_ADDRESS:?}:" in port for ports in published.values() for port in ports)
    assert "ports" not in NODE["redis"]


def test_a_machine_that_joined_offers_no_redis() -> None:
    offered = agent.targets(NODE["agent"]["environment"]["KNOLL_AGENT_SERVICES"])
    assert not offered.keys() & set(accepted_protocols("redis"))
    assert protocol("redis") in agent.targets(CLUSTER["agent"]["environment"]["KNOLL_AGENT_SERVICES"])


SETTINGS: dict[str, type[CommonSettings]] = {
    "api": ApiSettings,
    "builder": BuilderSettings,
    "autoscaler": AutoscalerSettings,
    "activator": ActivatorSettings,
    "agent": AgentSettings,
    "redis-forwarder": AgentSettings,
    "redis-keeper": AgentSettings,
    "registry-port": AgentSettings,
    "engine-proxy": EngineProxySettings,
    "firewall": FirewallSettings,
}


@pytest.mark.parametrize("part", [CLUSTER, NODE], ids=["cluster", "node"])
def test_each_setting_is_one_of_its_process(part: dict[str, dict[str, Any]]) -> None:
    for name, service in part.items():
        process = AgentSettings if service is NODE["redis"] else SETTINGS.get(name, CommonSettings)
        fields = {f"KNOLL_{field.upper()}" for field in process.__struct_fields__}
        given = set(service.get("environment", ()))
        assert (given if process is not CommonSettings else {key for key in given if "KNOLL" in key}) <= fields, name


def test_a_machine_that_joins_gets_all_files_of_the_platform() -> None:
    mounted = [
        volume.partition(":")[0].removeprefix("./")
        for service in services("compose.yaml").values()
        for volume in service.get("volumes", ())
        if volume.startswith("./")
    ]
    assert set(mounted) <= set(bundle.FILES)
    assert all((ROOT / name).is_file() for name in bundle.FILES)


@pytest.mark.parametrize(("name", "port"), bundle.DEFAULT_PORTS.items())
def test_the_commands_know_the_default_ports_of_the_compose_files(name: str, port: int) -> None:
    texts = " ".join((ROOT / file).read_text() for file in bundle.FILES if file.endswith(".yaml"))
    assert set(re.findall(rf"\$\{{{name}:-(\d+)\}}", texts)) == {str(port)}
