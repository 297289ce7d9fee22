"""Instances and spare sandboxes from the engine's list of containers. Pure."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoscaler.runtime.docker import labels
from autoscaler.runtime.model import ContainerState, Instance, InstanceState, Network


@dataclass(frozen=True, slots=True)
class ListedContainer:
    """One container in the engine's list."""

    id: str
    name: str
    state: str
    """`created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`."""
    status: str
    """Human-readable: `Up 3 seconds`, `Exited (137) 2 minutes ago`."""
    labels: Mapping[str, str]
    address: str
    """IP address; empty for a container that joined another's network."""
    network: str = ""
    """Network mode: a network's name, or `container:<id>`."""

    @property
    def alive(self) -> bool:
        return self.state in ("running", "paused")


@dataclass(frozen=True, slots=True)
class PlatformContainers:
    """All of a platform's containers, by what they are."""

    instances: list[Instance]
    """By name. Exit codes are those of the list; `oom_killed` and `message` are not in it."""
    by_instance: dict[str, list[ListedContainer]]
    """Instance name to its app and init containers."""
    sandboxes: dict[str, str]
    """Instance name to the id of its sandbox, even when that is gone."""
    spare: list[ListedContainer]
    """Running sandboxes without an instance."""
    leftovers: list[ListedContainer]
    """Sandboxes that cannot be used."""


def listed(item: Mapping[str, Any]) -> ListedContainer:
    """Parse one element of the response of `GET /containers/json`."""
    networks = (item.get("NetworkSettings") or {}).get("Networks") or {}
    addresses = [net.get("IPAddress") or "" for net in networks.values()]
    return ListedContainer(
        id=item["Id"],
        name=(item.get("Names") or ["/"])[0].lstrip("/"),
        state=item["State"],
        status=item.get("Status") or "",
        labels=item.get("Labels") or {},
        address=next(filter(None, addresses), ""),
        network=(item.get("HostConfig") or {}).get("NetworkMode") or "",
    )


def network_of(inspected: Mapping[str, Any]) -> Network:
    """Return the network of instances.

    Args: inspected: response of `GET /networks/NAME`.
    """
    if inspected.get("Driver") != "bridge":
        return Network()
    own = (inspected.get("Options") or {}).get("com.docker.network.bridge.name")
    configs = (inspected.get("IPAM") or {}).get("Config") or ()
    subnets = (str(config.get("Subnet") or "") for config in configs)
    return Network(own or f"br-{inspected['Id'][:12]}", tuple(each for each in subnets if each and ":" not in each))


def classify(
    platform: str, network: str, containers: Iterable[ListedContainer], starting: Collection[str] = (), dns: str = ""
) -> PlatformContainers:
    """Tell instances, spare sandboxes and leftovers apart.

    Args:
        platform: its name.
        network: where a spare sandbox must be; one on another network (the setting changed) is a leftover.
        containers: all containers with the platform's label.
        starting: names of instances that this process is starting now.
        dns: the server that a spare sandbox must use.
    """
    sandboxes: dict[str, ListedContainer] = {}
    by_instance: dict[str, list[ListedContainer]] = defaultdict(list)
    for container in containers:
        if container.labels.get(labels.ROLE) == "sandbox":
            sandboxes[container.id] = container
        elif container.labels.get(labels.INSTANCE):
            by_instance[container.labels[labels.INSTANCE]].append(container)
    for group in by_instance.values():
        # An interrupted restart leaves a container beside its predecessor: the newest comes first.
        group.sort(key=lambda container: -int(container.labels[labels.RESTARTS]))
    joined = {container.labels.get(labels.SANDBOX, "") for group in by_instance.values() for container in group}

    def usable(sandbox: ListedContainer) -> bool:
        fits = sandbox.network == network and sandbox.labels.get(labels.DNS, "") == dns
        return sandbox.state == "running" and fits and labels.is_spare(platform, sandbox.name)

    free = [sandbox for key, sandbox in sandboxes.items() if key not in joined]
    return PlatformContainers(
        instances=[_instance(name, by_instance[name], sandboxes, name in starting) for name in sorted(by_instance)],
        by_instance=dict(by_instance),
        sandboxes={name: group[0].labels.get(labels.SANDBOX, "") for name, group in by_instance.items()},
        spare=[sandbox for sandbox in free if usable(sandbox)],
        leftovers=[sandbox for sandbox in free if not usable(sandbox)],
    )


def label_filter(*selectors: str) -> str:
    """Return the `filters` parameter of a list that selects by labels, each `KEY=VALUE`."""
    return json.dumps({"label": list(selectors)})


def _instance(
    name: str, group: Sequence[ListedContainer], sandboxes: Mapping[str, ListedContainer], starting: bool
) -> Instance:
    newest = group[0].labels
    apps = {each.labels[labels.CONTAINER]: each for each in reversed(group) if each.labels[labels.ROLE] == "app"}
    names = newest[labels.CONTAINERS].split(",")
    sandbox = sandboxes.get(newest[labels.SANDBOX])
    whole = sandbox is not None and sandbox.alive and all(each in apps for each in names)
    return Instance(
        name=name,
        revision=newest[labels.REVISION],
        uid=newest[labels.UID],
        address=newest[labels.ADDRESS] if sandbox is not None and sandbox.alive else "",
        port=int(newest[labels.PORT]),
        state=_state(list(apps.values()), whole, starting),
        containers=tuple(_container(apps[each]) for each in names if each in apps),
        labels={key: newest[key] for key in json.loads(newest[labels.USER_LABELS])},
        created=min(float(container.labels[labels.CREATED]) for container in group),
        grace_seconds=float(newest[labels.GRACE]),
        armed=next((app.labels[labels.ARMED] for app in apps.values() if labels.ARMED in app.labels), ""),
    )


def _state(apps: Sequence[ListedContainer], whole: bool, starting: bool) -> InstanceState:
    if starting:
        return "starting"
    if not whole or any(app.state in ("created", "removing", "dead") for app in apps):
        return "lost"
    if any(app.state == "paused" for app in apps):
        return "paused"
    return "running" if all(app.state == "running" for app in apps) else "exited"


def _container(container: ListedContainer) -> ContainerState:
    exited = re.match(r"Exited \((-?\d+)\)", container.status)
    return ContainerState(
        name=container.labels[labels.CONTAINER],
        running=container.alive,
        exit_code=int(exited[1]) if exited else None,
        restarts=int(container.labels[labels.RESTARTS]),
        started_at=0.0 if container.state == "created" else float(container.labels[labels.STARTED]),
        image=container.labels[labels.IMAGE],
    )
