"""What the engine's list of containers means: instances and spare sandboxes. Pure."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoscaler.runtime.docker import labels
from autoscaler.runtime.protocol import ContainerState, Instance, InstanceState, Network


@dataclass(frozen=True, slots=True)
class Listed:
    """One container in the engine's list."""

    id: str
    name: str
    state: str
    """`created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`."""
    status: str
    """For people: `Up 3 seconds`, `Exited (137) 2 minutes ago`."""
    labels: Mapping[str, str]
    address: str
    """IP address; empty for a container that joined another's network."""
    network: str = ""
    """Network mode: a network's name, or `container:<id>`."""

    @property
    def alive(self) -> bool:
        return self.state in ("running", "paused")


@dataclass(frozen=True, slots=True)
class Found:
    """All of a platform's containers, sorted out."""

    instances: list[Instance]
    """By name. Exit codes are those of the list; `oom_killed` and `message` are not in it."""
    members: dict[str, list[Listed]]
    """Instance name to its app and init containers."""
    sandboxes: dict[str, str]
    """Instance name to the id of its sandbox, also when that is gone."""
    spare: list[Listed]
    """Running sandboxes that no instance has."""
    leftovers: list[Listed]
    """Sandboxes that are of no use to anybody."""


def listed(item: Mapping[str, Any]) -> Listed:
    """One element of the answer of `GET /containers/json`."""
    networks = (item.get("NetworkSettings") or {}).get("Networks") or {}
    addresses = [net.get("IPAddress") or "" for net in networks.values()]
    return Listed(
        id=item["Id"],
        name=(item.get("Names") or ["/"])[0].lstrip("/"),
        state=item["State"],
        status=item.get("Status") or "",
        labels=item.get("Labels") or {},
        address=next(filter(None, addresses), ""),
        network=(item.get("HostConfig") or {}).get("NetworkMode") or "",
    )


def network_of(inspected: Mapping[str, Any]) -> Network:
    """What the engine says of a network.

    Args: inspected: body of its `GET /networks/NAME`.
    """
    if inspected.get("Driver") != "bridge":
        return Network()
    own = (inspected.get("Options") or {}).get("com.docker.network.bridge.name")
    configs = (inspected.get("IPAM") or {}).get("Config") or ()
    subnets = (str(config.get("Subnet") or "") for config in configs)
    return Network(own or f"br-{inspected['Id'][:12]}", tuple(each for each in subnets if each and ":" not in each))


def sort_out(
    platform: str, network: str, found: Iterable[Listed], starting: Collection[str] = (), dns: str = ""
) -> Found:
    """Tell instances, spare sandboxes and leftovers apart.

    Args:
        platform: whose they are.
        network: where a spare sandbox must be; one on another (the setting changed) is a leftover.
        found: all containers with the platform's label.
        starting: names of instances that this process is starting now.
        dns: the server that a spare sandbox must ask, likewise.
    """
    sandboxes: dict[str, Listed] = {}
    members: dict[str, list[Listed]] = defaultdict(list)
    for one in found:
        if one.labels.get(labels.ROLE) == "sandbox":
            sandboxes[one.id] = one
        elif one.labels.get(labels.INSTANCE):
            members[one.labels[labels.INSTANCE]].append(one)
    for group in members.values():
        # A restart that was cut short leaves a container beside its predecessor: the newest comes first.
        group.sort(key=lambda one: -int(one.labels[labels.RESTARTS]))
    joined = {one.labels.get(labels.SANDBOX, "") for group in members.values() for one in group}

    def usable(one: Listed) -> bool:
        fits = one.network == network and one.labels.get(labels.DNS, "") == dns
        return one.state == "running" and fits and labels.is_spare(platform, one.name)

    free = [one for key, one in sandboxes.items() if key not in joined]
    return Found(
        instances=[_instance(name, members[name], sandboxes, name in starting) for name in sorted(members)],
        members=dict(members),
        sandboxes={name: group[0].labels.get(labels.SANDBOX, "") for name, group in members.items()},
        spare=[one for one in free if usable(one)],
        leftovers=[one for one in free if not usable(one)],
    )


def _instance(name: str, group: Sequence[Listed], sandboxes: Mapping[str, Listed], starting: bool) -> Instance:
    told = group[0].labels
    apps = {one.labels[labels.CONTAINER]: one for one in reversed(group) if one.labels[labels.ROLE] == "app"}
    wanted = told[labels.CONTAINERS].split(",")
    sandbox = sandboxes.get(told[labels.SANDBOX])
    whole = sandbox is not None and sandbox.alive and all(each in apps for each in wanted)
    return Instance(
        name=name,
        revision=told[labels.REVISION],
        uid=told[labels.UID],
        address=told[labels.ADDRESS] if sandbox is not None and sandbox.alive else "",
        port=int(told[labels.PORT]),
        state=_state(list(apps.values()), whole, starting),
        containers=tuple(_container(apps[each]) for each in wanted if each in apps),
        labels={key: told[key] for key in json.loads(told[labels.USER_LABELS])},
        created=min(float(one.labels[labels.CREATED]) for one in group),
        grace_seconds=float(told[labels.GRACE]),
    )


def _state(apps: Sequence[Listed], whole: bool, starting: bool) -> InstanceState:
    if starting:
        return "starting"
    if not whole or any(one.state in ("created", "removing", "dead") for one in apps):
        return "lost"
    if any(one.state == "paused" for one in apps):
        return "paused"
    return "running" if all(one.state == "running" for one in apps) else "exited"


def _container(one: Listed) -> ContainerState:
    exited = re.match(r"Exited \((-?\d+)\)", one.status)
    return ContainerState(
        name=one.labels[labels.CONTAINER],
        running=one.alive,
        exit_code=int(exited[1]) if exited else None,
        restarts=int(one.labels[labels.RESTARTS]),
        started_at=0.0 if one.state == "created" else float(one.labels[labels.STARTED]),
        image=one.labels[labels.IMAGE],
    )
