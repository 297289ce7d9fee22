"""The managers of a cluster: machines that may lead, each with a Redis server and a sentinel. Pure.

Each manager has a *slot*, a number from 1. On every machine, the forwarder offers the Redis server of slot N on port
6380 + N and its sentinel on port 26380 + N, and the primary on port 6379. So all machines see every server under the
same address, which is what servers announce and sentinels name; nothing but the port differs between managers.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from knoll.cluster.members import members_of
from knoll.redis.address import Address
from knoll.values.errors import ConflictError
from knoll.values.json import Json

SLOT_ANNOTATION, ADDRESS_ANNOTATION = "knoll.dev/manager-slot", "knoll.dev/manager-address"
"""Annotations of a manager's ServiceAccount: its slot, and the IP address of the machine."""
SLOTS = 7
"""Largest number of managers; Docker Swarm recommends no more."""
GROUP = 3
"""With so many managers, Redis replicates, and the platform survives the loss of any of them."""
FORWARDER = "redis-forwarder"
"""Host name of the forwarder on every machine."""
PRIMARY_PORT, REDIS_BASE, SENTINEL_BASE = 6379, 6380, 26380
PRIMARY_NAME = "knoll"
"""Name by which the sentinels know the primary."""
MANAGER = "manager"
"""Role of a join token with which a machine becomes a manager."""
_FIRST = re.compile(r"([a-z0-9.-]+)/([0-9a-fA-F.:]+)")


class Manager(msgspec.Struct, frozen=True, order=True):
    """One manager."""

    slot: int
    name: str
    address: str
    """IP address of the machine."""

    @property
    def redis_port(self) -> int:
        return REDIS_BASE + self.slot

    @property
    def sentinel_port(self) -> int:
        return SENTINEL_BASE + self.slot


def managers_of(accounts: Iterable[Json]) -> list[Manager]:
    """Return the managers in the order of their slots. Args: accounts: ServiceAccounts of their namespace."""
    managers = []
    for name, account in members_of(accounts).items():
        annotations = account["metadata"]["annotations"]
        slot, address = annotations.get(SLOT_ANNOTATION, ""), annotations.get(ADDRESS_ANNOTATION, "")
        if slot.isdigit() and address:
            managers.append(Manager(int(slot), name, address))
    return sorted(managers)


def free_slot(managers: Iterable[Manager]) -> int:
    """Return the slot of a new manager. Raises: ConflictError: there are too many managers."""
    taken = {manager.slot for manager in managers}
    for slot in range(1, SLOTS + 1):
        if slot not in taken:
            return slot
    raise ConflictError(f"there are {SLOTS} managers, the largest number: let the machine join without --manager")


def annotations_of(slot: int, address: str) -> dict[str, str]:
    """Return the annotations of a manager's ServiceAccount."""
    return {SLOT_ANNOTATION: str(slot), ADDRESS_ANNOTATION: address}


def encode(managers: Sequence[Manager]) -> bytes:
    return msgspec.json.encode(sorted(managers))


def decode(data: bytes) -> list[Manager]:
    """Raises: ValueError."""
    try:
        return msgspec.json.decode(data, type=list[Manager])
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a list of managers: {error}") from error


def convert(listed: object) -> list[Manager]:
    """Return managers as the API lists them. Raises: ValueError."""
    try:
        return msgspec.convert(listed, list[Manager])
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a list of managers: {error}") from error


def first(text: str) -> Manager:
    """Parse `NODE/ADDRESS`: the only manager, before a list of managers was stored. Raises: ValueError."""
    match = _FIRST.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not of the form NODE/ADDRESS")
    return Manager(1, match[1], match[2])


def sentinels(managers: Iterable[Manager], host: str) -> Address:
    """Return the address of the group's primary, by sentinels that a forwarder on `host` offers.

    It logs in without a password, as the user for health checks.
    """
    login = Address(host, user="health", password="health")  # noqa: S106 - this user has no password
    each = tuple(login.at(host, manager.sentinel_port) for manager in managers)
    return Address(user=login.user, password=login.password, sentinels=each, primary_name=PRIMARY_NAME)


def quorum_problem(name: str, managers: Sequence[Manager], ready: Mapping[str, bool]) -> str:
    """Return why a manager must not be removed; empty if it may.

    After the removal, a majority of the remaining managers must respond.

    Args: ready: by name of a node, whether it responds.
    """
    left = [manager.name for manager in managers if manager.name != name]
    if len(left) == len(managers):
        return ""
    if not left:
        return f"{name} is the only manager: the platform's objects are there"
    responding = [each for each in left if ready.get(each)]
    needed = len(left) // 2 + 1
    if len(responding) < needed:
        return (
            f"without {name}, {len(responding)} of the {len(left)} remaining managers would respond "
            f"({', '.join(responding) or 'none'}), and {needed} are needed: start {_names(left, responding)} first, or "
            "add a manager with `knoll node join-command --manager`"
        )
    if len(managers) >= GROUP - 1 and len(left) == 1:
        return (
            f"without {name}, {left[0]} would be the only manager, and Redis keeps each write on two: add a manager "
            "first with `knoll node join-command --manager`"
        )
    return ""


def _names(left: Sequence[str], responding: Sequence[str]) -> str:
    return " and ".join(each for each in left if each not in responding)
