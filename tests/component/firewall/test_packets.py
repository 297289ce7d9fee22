"""Which packets pass: the real process, the real kernel, real connections between network namespaces."""

import subprocess

import msgspec
import pytest

from knoll.config.egress import parse_egress
from knoll.firewall.policy import FirewallPolicy, NamespaceEgress
from tests.component.firewall import hosts
from tests.component.firewall.conftest import PLATFORM, POLICY, Firewall
from tests.component.firewall.hosts import (
    BUILD,
    BUILD_MACHINE,
    FIRST,
    GATEWAY,
    INTERNET,
    LAN_MACHINE,
    MACHINE,
    METADATA,
    NAMES,
    NEIGHBOUR,
    OTHER_MACHINE,
    REDIS,
    RESOLVER,
    SECOND,
    Machine,
)  # fmt: skip
from tests.waiting import eventually_sync

OFF = FirewallPolicy(isolated=False)
PUBLISHED = 6380
"""Port of the machine that leads to the other container's 8000, as the engine publishes ports."""

CLOSED = {
    "instance to instance": ("first", SECOND, 8000),
    "instance to instance's DNS port": ("first", SECOND, 53),
    "instance to another port of the gateway": ("first", GATEWAY, 8000),
    "instance to another port of the names server": ("first", NAMES, 80),
    "instance to machine": ("first", MACHINE, 8000),
    "instance to the machine's other address": ("first", LAN_MACHINE, 8000),
    "instance to the machine on another bridge": ("first", OTHER_MACHINE, 8000),
    "instance to another network's container": ("first", REDIS, 8000),
    "instance to a published port": ("first", LAN_MACHINE, PUBLISHED),
    "instance to the machine's neighbour": ("first", NEIGHBOUR, 8000),
    "instance to the metadata service": ("first", METADATA, 80),
    "instance to the machine's DNS server": ("first", RESOLVER, 53),
    "instance to a build": ("first", BUILD, 8000),
    "build to machine": ("build", BUILD_MACHINE, 8000),
    "build to the machine's other address": ("build", LAN_MACHINE, 8000),
    "build to a published port": ("build", LAN_MACHINE, PUBLISHED),
    "build to instance": ("build", FIRST, 8000),
    "build to gateway": ("build", GATEWAY, 80),
    "build to another network's container": ("build", REDIS, 8000),
    "build to the machine's neighbour": ("build", NEIGHBOUR, 8000),
    "build to the metadata service": ("build", METADATA, 80),
    "build to another port of the machine's DNS server": ("build", RESOLVER, 80),
    "names server to the machine's neighbour": ("names", NEIGHBOUR, 8000),
    "another network's container to instance": ("redis", FIRST, 8000),
    "another network's container to build": ("redis", BUILD, 8000),
    "outside to instance": ("outside", FIRST, 8000),
    "outside to gateway, past its published port": ("outside", GATEWAY, 8000),
    "outside to build": ("outside", BUILD, 8000),
}
OPEN = {
    "instance to the Internet": ("first", INTERNET, 8000),
    "instance to gateway": ("first", GATEWAY, 80),
    "instance to names server": ("first", NAMES, 53),
    "instance to a gateway of the machine": ("first", MACHINE, 80),
    "gateway to instance": ("gateway", FIRST, 8000),
    "gateway to the machine's neighbour": ("gateway", NEIGHBOUR, 8000),
    "machine to instance": ("machine", FIRST, 8000),
    "build to the Internet": ("build", INTERNET, 8000),
    "build to the machine's DNS server": ("build", RESOLVER, 53),
    "outside to a published port": ("outside", LAN_MACHINE, PUBLISHED),
    "another network's container to the machine's neighbour": ("redis", NEIGHBOUR, 8000),
}


@pytest.fixture(scope="module", autouse=True)
def publish(machine: Machine) -> None:
    """As the engine does."""
    rule = f"ip daddr {LAN_MACHINE} tcp dport {PUBLISHED} dnat to {REDIS}:8000"
    chain = f"chain ip nat pre {{ type nat hook prerouting priority -100 ; }}; add rule ip nat pre {rule}"
    machine["machine"].nft(f"add table ip nat; add {chain}")


@pytest.fixture(autouse=True)
def default_policy(firewall: Firewall) -> None:
    firewall.put(POLICY)


def reaches(machine: Machine, where: tuple[str, str, int]) -> bool:
    name, address, port = where
    return machine[name].reaches(address, port)


@pytest.mark.parametrize("where", CLOSED.values(), ids=CLOSED.keys())
def test_what_is_closed_is_not_reached(machine: Machine, where: tuple[str, str, int]) -> None:
    assert not reaches(machine, where)


@pytest.mark.parametrize("where", OPEN.values(), ids=OPEN.keys())
def test_what_is_open_is_reached(machine: Machine, where: tuple[str, str, int]) -> None:
    assert reaches(machine, where)


def test_without_the_rules_all_of_it_is_reached(machine: Machine, firewall: Firewall) -> None:
    """Or the tests above would pass for another reason."""
    firewall.put(OFF)
    assert [name for name, where in {**CLOSED, **OPEN}.items() if not reaches(machine, where)] == []


def test_datagrams_follow_the_same_rules(machine: Machine) -> None:
    assert machine["first"].reaches(NAMES, 53, "udp")
    assert not machine["first"].reaches(SECOND, 8000, "udp")
    assert not machine["first"].reaches(MACHINE, 8000, "udp")
    assert not machine["first"].reaches(GATEWAY, 8000, "udp")


def test_broadcasts_reach_no_other_instance(machine: Machine, firewall: Firewall) -> None:
    before = machine["second"].ask("received")
    machine["first"].ask("broadcast", "8000")
    assert not machine["first"].reaches(SECOND, 8000)  # by now it would have come
    assert machine["second"].ask("received") == before
    firewall.put(OFF)
    machine["first"].ask("broadcast", "8000")
    eventually_sync(lambda: machine["second"].ask("received") != before)


def test_bridges_without_the_ip_layer_are_closed_too(machine: Machine) -> None:
    """Newer engines do without br_netfilter."""
    sysctl = ["ip", "netns", "exec", machine["machine"].namespace, "sysctl", "-q"]
    subprocess.run([*sysctl, "net.bridge.bridge-nf-call-iptables=0"], check=True)
    try:
        assert not machine["first"].reaches(SECOND, 8000)
        assert not machine["first"].reaches(GATEWAY, 8000)
        assert machine["first"].reaches(GATEWAY, 80)
        assert machine["gateway"].reaches(FIRST, 8000)
    finally:
        subprocess.run([*sysctl, "net.bridge.bridge-nf-call-iptables=1"], check=True)


def test_an_instance_with_a_foreign_address_reaches_nothing(machine: Machine) -> None:
    """It cannot take one without NET_ADMIN; were it to, it would gain nothing but that of another instance."""
    machine["first"].ip("address", "add", "10.77.0.1/32", "dev", "lo")
    machine["first"].ip("route", "add", f"{INTERNET}/32", "via", MACHINE, "src", "10.77.0.1")
    machine["machine"].ip("route", "add", "10.77.0.0/16", "dev", hosts.BRIDGE)
    try:
        assert not machine["first"].reaches(INTERNET, 8000)
    finally:
        machine["first"].ip("route", "delete", f"{INTERNET}/32")
        machine["first"].ip("address", "delete", "10.77.0.1/32", "dev", "lo")
    assert machine["first"].reaches(INTERNET, 8000)


class TestLists:
    def test_listed_destinations_are_open_to_instances_and_no_others(
        self, machine: Machine, firewall: Firewall
    ) -> None:
        firewall.put(msgspec.structs.replace(POLICY, allow=parse_egress(f"{NEIGHBOUR}:8000, {REDIS}/32")))
        assert machine["first"].reaches(NEIGHBOUR, 8000)
        assert machine["first"].reaches(NEIGHBOUR, 8000, "udp")
        assert not machine["first"].reaches(NEIGHBOUR, 5432)
        assert machine["first"].reaches(REDIS, 5432)
        assert not machine["build"].reaches(NEIGHBOUR, 8000)

    def test_builds_have_their_own_list(self, machine: Machine, firewall: Firewall) -> None:
        firewall.put(msgspec.structs.replace(POLICY, build_allow=parse_egress(f"192.168.7.0/24, {LAN_MACHINE}")))
        assert machine["build"].reaches(NEIGHBOUR, 8000)
        assert machine["build"].reaches(LAN_MACHINE, 8000)
        assert not machine["first"].reaches(NEIGHBOUR, 8000)

    def test_a_published_port_is_opened_by_the_address_that_its_user_knows(
        self, machine: Machine, firewall: Firewall
    ) -> None:
        firewall.put(msgspec.structs.replace(POLICY, allow=parse_egress(f"{LAN_MACHINE}:{PUBLISHED}")))
        assert machine["first"].reaches(LAN_MACHINE, PUBLISHED)
        assert not machine["first"].reaches(LAN_MACHINE, 8000)

    def test_host_names_are_looked_up(self, machine: Machine, firewall: Firewall) -> None:
        # /etc/hosts has the first one wherever the tests run.
        policy = msgspec.structs.replace(POLICY, allow=parse_egress("localhost:8000, nothing.invalid:1"))
        firewall.put(policy)
        eventually_sync(lambda: firewall.put(policy).unresolved == ("nothing.invalid",), within=20)
        rules = machine["machine"].nft("list", "table", "inet", f"knoll-{PLATFORM}")
        assert "ct original ip daddr 127.0.0.1 " in rules

    def test_overlapping_entries_are_taken(self, machine: Machine, firewall: Firewall) -> None:
        text = f"192.168.0.0/16:5432, {NEIGHBOUR}, 192.168.7.0/24:8000, {NEIGHBOUR}:8000, 192.168.7.0/25:8000"
        firewall.put(msgspec.structs.replace(POLICY, allow=parse_egress(text)))
        assert machine["first"].reaches(NEIGHBOUR, 80)
        assert machine["first"].reaches(LAN_MACHINE, 5432)
        assert not machine["first"].reaches(LAN_MACHINE, 80)


class TestEgress:
    def test_it_can_be_denied_to_all(self, machine: Machine, firewall: Firewall) -> None:
        firewall.put(msgspec.structs.replace(POLICY, egress="deny", allow=parse_egress(NEIGHBOUR)))
        assert not machine["first"].reaches(INTERNET, 8000)
        assert machine["first"].reaches(NEIGHBOUR, 8000)
        assert machine["first"].reaches(GATEWAY, 80)
        assert machine["first"].reaches(NAMES, 53)
        assert machine["gateway"].reaches(FIRST, 8000)
        assert machine["build"].reaches(INTERNET, 8000)

    def test_it_can_be_denied_to_one_namespace(self, machine: Machine, firewall: Firewall) -> None:
        closed = NamespaceEgress(egress="deny", addresses=(FIRST,))
        firewall.put(msgspec.structs.replace(POLICY, allow=parse_egress(NEIGHBOUR), namespaces={"a": closed}))
        assert not machine["first"].reaches(INTERNET, 8000)
        assert not machine["first"].reaches(NEIGHBOUR, 8000)
        assert machine["first"].reaches(GATEWAY, 80)
        assert machine["second"].reaches(INTERNET, 8000)
        assert machine["second"].reaches(NEIGHBOUR, 8000)

    def test_it_can_be_allowed_to_one_namespace(self, machine: Machine, firewall: Firewall) -> None:
        listed = parse_egress(f"{NEIGHBOUR}:8000, {LAN_MACHINE}:5432")
        opened = NamespaceEgress(egress="allow", addresses=(FIRST,), allow=listed)
        firewall.put(msgspec.structs.replace(POLICY, egress="deny", namespaces={"a": opened}))
        assert machine["first"].reaches(INTERNET, 8000)
        assert machine["first"].reaches(NEIGHBOUR, 8000)
        assert machine["first"].reaches(LAN_MACHINE, 5432)
        assert not machine["first"].reaches(METADATA, 80)
        assert not machine["first"].reaches(LAN_MACHINE, 8000)
        assert not machine["second"].reaches(INTERNET, 8000)
        assert not machine["second"].reaches(NEIGHBOUR, 8000)


class TestRepair:
    def test_flushed_rules_come_back(self, machine: Machine) -> None:
        machine["machine"].nft("delete table inet", f"knoll-{PLATFORM}")
        eventually_sync(lambda: not machine["first"].reaches(MACHINE, 8000))
        machine["machine"].nft("delete table bridge", f"knoll-{PLATFORM}")
        machine["machine"].nft("flush chain inet", f"knoll-{PLATFORM}", "refused")
        eventually_sync(lambda: "reject" in machine["machine"].nft("list table inet", f"knoll-{PLATFORM}"))
        assert "arp" in machine["machine"].nft("list table bridge", f"knoll-{PLATFORM}")

    def test_a_restarted_process_keeps_the_rules_until_it_gets_others(
        self, machine: Machine, firewall: Firewall
    ) -> None:
        firewall.kill()
        assert not machine["first"].reaches(SECOND, 8000)
        firewall.start()
        assert not machine["first"].reaches(SECOND, 8000)
        firewall.put(POLICY)
        assert not machine["first"].reaches(SECOND, 8000)

    def test_builds_are_closed_before_there_is_a_policy(self, machine: Machine, firewall: Firewall) -> None:
        firewall.kill()
        firewall.remove()
        assert machine["build"].reaches(BUILD_MACHINE, 8000)
        firewall.start()
        assert not machine["build"].reaches(BUILD_MACHINE, 8000)
        assert machine["build"].reaches(INTERNET, 8000)

    def test_nothing_is_left_when_they_are_removed(self, machine: Machine, firewall: Firewall) -> None:
        firewall.put(POLICY)
        firewall.kill()
        firewall.remove()
        assert f"knoll-{PLATFORM}" not in machine["machine"].nft("list", "tables")
        firewall.start()

    def test_an_invalid_policy_changes_nothing(self, machine: Machine, firewall: Firewall) -> None:
        answer = firewall.put_raw(b'{"isolated": "no"}')
        assert (answer.status_code, "isolated" in answer.text) == (400, True)
        assert not machine["first"].reaches(SECOND, 8000)


def test_only_its_user_and_group_can_use_the_socket(firewall: Firewall) -> None:
    assert firewall.socket.stat().st_mode & 0o777 == 0o660
