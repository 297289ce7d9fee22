"""What compose.yaml gives each process: bounds for all, the engine's socket and root for those that need them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

FILE = yaml.safe_load((Path(__file__).parents[2] / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
AS_ROOT = {"engine-proxy": "the engine's socket is root's", "firewall": "a right that is added is root's alone"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"].keys() >= {"max-size", "max-file"}


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_but_the_proxy_has_the_engines_socket(name: str) -> None:
    mounted = [str(volume) for volume in SERVICES[name].get("volumes", ())]
    assert any("docker.sock" in volume for volume in mounted) is (name == "engine-proxy")


@pytest.mark.parametrize("name", SERVICES)
def test_only_processes_that_need_it_run_as_root(name: str) -> None:
    assert SERVICES[name].get("user", "").startswith(("root", "0")) is (name in AS_ROOT)


@pytest.mark.parametrize("name", SERVICES)
def test_each_process_has_only_its_own_keys(name: str) -> None:
    service = SERVICES[name]
    keys = {str(volume).partition(":")[0] for volume in service.get("volumes", ()) if str(volume).startswith("keys-")}
    if name == "keys":
        assert keys == {volume for volume in FILE["volumes"] if volume.startswith("keys-")}
        return
    assert keys <= {f"keys-{name}"}
    url = service["environment"].get("KNOLL_REDIS_URL", "") if isinstance(service.get("environment"), dict) else ""
    assert not url or url == f"redis://{name}@redis:6379/0"


def test_the_proxy_is_on_no_network() -> None:
    assert SERVICES["engine-proxy"]["network_mode"] == "none"
    assert "networks" not in SERVICES["engine-proxy"]
