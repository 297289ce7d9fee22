"""The kernel accepts every policy as a whole, and lists it the same each time."""

import subprocess
import sys

from hypothesis import HealthCheck, given, settings

from knoll.firewall import nft
from knoll.firewall.policy import FirewallPolicy
from knoll.firewall.ruleset import Wiring, ruleset
from tests.component.firewall import hosts
from tests.component.firewall.hosts import Machine
from tests.firewall_policies import policies, resolutions

WIRING = Wiring(
    "taken",
    gateways=(("10.201.0.2", 80), ("10.201.0.2", 8080)),
    dns="10.201.0.3",
    own=("10.201.0.0/17",),
    resolvers=("192.168.1.1", "192.168.1.2"),
    build_bridge=hosts.BUILD_BRIDGE,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(policies(), resolutions())
def test_every_policy_is_taken(machine: Machine, policy: FirewallPolicy, resolved: dict[str, tuple[str, ...]]) -> None:
    command = ["ip", "netns", "exec", machine["machine"].namespace, "nft", "-f", "-"]
    done = subprocess.run(command, input=ruleset(WIRING, policy, resolved), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_this_machine_can_filter(machine: Machine) -> None:
    assert nft.obstacle() == ""
    assert "knoll-trial" not in machine["machine"].nft("list", "tables")


def test_a_missing_capability_is_named() -> None:
    code = "from knoll.firewall import nft; print(nft.obstacle())"
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "NET_ADMIN" in done.stdout
