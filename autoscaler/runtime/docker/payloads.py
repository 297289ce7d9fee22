"""What the engine is asked to create: pure functions from specs to bodies of Docker's API, isolation included."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autoscaler.runtime.docker import labels, pause_image
from autoscaler.runtime.protocol import ADDRESS, ContainerSpec, InstanceSpec, Mount, Resources
from knoll.process import dns_server
from knoll.values.json import Json

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
"""What is kept of Docker's fourteen: images that begin as root to prepare files, drop to a user and signal their
workers (nginx, databases behind gosu) work; raw sockets, devices, chroot, file capabilities and audit do not."""
PIDS_LIMIT = 4096
"""Processes and threads of one container: room for large thread pools, not for a fork bomb."""
LOG_CONFIG = {"Type": "local", "Config": {"max-size": "10m", "max-file": "2", "compress": "false"}}
"""20 MB a container; compressing would take the CPU of requests."""
QUOTA_MARGIN = 16 * 1024**2
"""Bytes that a quota is above the limit, at least: the engine's file systems count in blocks."""
CPU_PERIOD = 100_000
SUB_PATHS = (1, 45)
"""First API that mounts parts of volumes; older ones would mount all of it without a word."""
TMP = "/tmp"  # noqa: S108 - the container's


def cpu_shares(cores: float) -> int:
    """Kubernetes' formula: max(2, millicores x 1024 / 1000)."""
    return max(2, round(cores * 1000) * 1024 // 1000)


def network(name: str, platform: str) -> Json:
    """The instance network. An activator in a container of its own reaches instances there; that they do not reach
    each other is the firewall's affair. Redis, the API and the engine are on no network of theirs."""
    return {
        "Name": name,
        "Driver": "bridge",
        "Labels": {labels.PLATFORM: platform, labels.ROLE: "network"},
        "Options": {"com.docker.network.bridge.enable_icc": "true"},
    }


def sandbox(platform: str, network_name: str, image: str, hostname: str, group: str, dns: str = "") -> Json:
    """A sandbox: asleep, without rights, without log, sharing its network and its shared memory with who joins.

    It shares its shim as well, as Kubernetes' pods do: an app's start is a process and 4 MB cheaper (measured: 17 ms
    of 117).

    Args:
        dns: address of the server that knows cluster-local names; without one, names are the engine's affair.
    """
    return {
        "Image": image,
        "Hostname": hostname,
        "Labels": {labels.PLATFORM: platform, labels.ROLE: "sandbox", labels.GROUP: group, labels.DNS: dns},
        "HostConfig": {
            **_names(dns),
            "Annotations": {labels.SHIM_GROUP: group},
            "NetworkMode": network_name,
            "IpcMode": "shareable",
            "CapDrop": ["ALL"],
            # Only our own program runs here, and all it does is sleep: a filter for it would take a tenth of the CPU
            # that making a sandbox takes.
            "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
            "ReadonlyRootfs": True,
            "PidsLimit": 16,
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
        },
    }


def _names(dns: str) -> Json:
    """What all that join a sandbox find in /etc/resolv.conf."""
    if not dns:
        return {}
    return {"Dns": [dns], "DnsSearch": list(dns_server.SEARCH), "DnsOptions": list(dns_server.OPTIONS)}


def helper(platform: str, image: str, volume: str, target: str, swap: Sequence[str]) -> Json:
    """A container through which a volume is filled.

    Args:
        volume: the engine's name of it.
        target: where it is mounted.
        swap: arguments of `pause_image.SWAP`, which it runs if it is started.
    """
    return {
        "Image": image,
        "User": "0:0",
        "Entrypoint": [pause_image.SWAP],
        "Cmd": list(swap),
        "Labels": {labels.PLATFORM: platform, labels.ROLE: "helper"},
        "HostConfig": {
            "NetworkMode": "none",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "PidsLimit": 16,
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
            "Mounts": [{"Type": "volume", "Source": volume, "Target": target, "VolumeOptions": {"NoCopy": True}}],
        },
    }


def quota(limit: int) -> Json:
    """Where the engine can bound a container's file system: a little above the limit, so that the instance is evicted
    with its reason and the disk is safe in the meantime.

    Args: limit: bytes.
    """
    return {"StorageOpt": {"size": str(limit + max(limit // 10, QUOTA_MARGIN))}}


def look(platform: str, image_id: str) -> Json:
    """A container that is never started: its file system is an image's, and can be asked."""
    return {
        "Image": image_id,
        "Entrypoint": ["/knoll-never-runs"],
        "Labels": {labels.PLATFORM: platform, labels.ROLE: "look"},
        "HostConfig": {
            "NetworkMode": "none", "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "PidsLimit": 16,
        },
    }  # fmt: skip


def container(
    spec: InstanceSpec,
    one: ContainerSpec,
    *,
    platform: str,
    role: str,
    sandbox_id: str,
    group: str,
    address: str,
    image_id: str,
    image_has_tmp: bool,
    now: float,
    image_user: str = "",
) -> Json:
    """One container of an instance, joined to a sandbox.

    Args:
        spec: the instance.
        one: which of its containers, init containers included.
        platform: name of the platform.
        role: `app` or `init`.
        sandbox_id: engine's id of the sandbox.
        group: its `labels.GROUP`; empty for none.
        address: its IP address.
        image_id: engine's id of the image.
        image_has_tmp: False has a tmpfs put at /tmp, which every process may expect.
        now: epoch seconds.
        image_user: as `Image.user`.
    """
    body: Json = {
        "Image": image_id,
        "Env": [
            f"{key}={value.replace(ADDRESS, address)}" for key, value in {"HOSTNAME": spec.name, **one.env}.items()
        ],
        "Labels": _labels(spec, one, platform, role, sandbox_id, address, now),
        "Tty": False,
        "OpenStdin": False,
        # The platform probes; the image's own check would only burn CPU beside it, and Kubernetes ignores it too.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(one, platform, sandbox_id, group, image_has_tmp),
    }
    if one.command:
        body["Entrypoint"] = [part.replace(ADDRESS, address) for part in one.command]
    if one.command or one.args:
        body["Cmd"] = [part.replace(ADDRESS, address) for part in one.args]
    if one.user is not None:
        body["User"] = f"{one.user}:{one.group or 0}"
    elif one.group is not None:
        body["User"] = f"{image_user.partition(':')[0] or 0}:{one.group}"
    if one.working_dir:
        body["WorkingDir"] = one.working_dir
    return body


def refusal(one: ContainerSpec, image_user: str, api: tuple[int, int]) -> str:
    """Why a container is not to be made; empty when it is.

    Args:
        image_user: as `Image.user`.
        api: version of the engine's API.

    Source of the rules for root: Kubernetes, pkg/kubelet/kuberuntime/security_context.go, `verifyRunAsNonRoot`.
    """
    if api < SUB_PATHS and any(mount.sub_path for mount in one.mounts):
        return f"container {one.name} mounts a part of a volume (subPath), which needs Docker 26 or newer"
    if not one.non_root:
        return ""
    if one.user is not None:
        return "" if one.user else "container's runAsUser (0) breaks non-root policy"
    user = image_user.partition(":")[0]
    if user and not user.isdecimal():
        return (
            f"container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root: "
            "say runAsUser"
        )
    return "" if int(user or 0) else "container has runAsNonRoot and image will run as root"


def again(inspected: Mapping[str, Any], *, restarts: int, now: float) -> Json:
    """The body that makes a container once more, from what the engine says of its predecessor.

    Args:
        inspected: answer of `GET /containers/{id}/json`.
        restarts: the new count.
        now: epoch seconds.
    """
    config = dict(inspected["Config"])
    for inherited in ("Hostname", "Domainname", "ExposedPorts", "MacAddress", "Volumes", "OnBuild"):
        config.pop(inherited, None)  # of the sandbox or of the image; refused when they are asked for
    config["Image"] = inspected["Image"]
    config["Labels"] = {**config["Labels"], labels.RESTARTS: str(restarts), labels.STARTED: repr(now)}
    return {**config, "HostConfig": inspected["HostConfig"]}


def _labels(
    spec: InstanceSpec, one: ContainerSpec, platform: str, role: str, sandbox_id: str, address: str, now: float
) -> dict[str, str]:
    return {
        **spec.labels,
        labels.PLATFORM: platform,
        labels.ROLE: role,
        labels.INSTANCE: spec.name,
        labels.SANDBOX: sandbox_id,
        labels.ADDRESS: address,
        labels.REVISION: spec.revision,
        labels.UID: spec.uid,
        labels.CONTAINER: one.name,
        labels.CONTAINERS: ",".join(each.name for each in spec.containers),
        labels.PORT: str(spec.port),
        labels.GRACE: repr(float(spec.grace_seconds)),
        labels.IMAGE: one.image,
        labels.RESTARTS: "0",
        labels.CREATED: repr(now),
        labels.STARTED: repr(now),
        labels.USER_LABELS: json.dumps(sorted(spec.labels)),
    }


def _host_config(one: ContainerSpec, platform: str, sandbox_id: str, group: str, image_has_tmp: bool) -> Json:
    mounts = [mount for mount in one.mounts if mount.kind != "tmpfs"]
    tmpfs = {mount.target: _tmpfs_options(mount) for mount in one.mounts if mount.kind == "tmpfs"}
    if not image_has_tmp and not any(mount.target.rstrip("/") == TMP for mount in one.mounts):
        tmpfs[TMP] = "rw,nosuid,nodev,exec,mode=1777"
    return {
        "Annotations": {labels.SHIM_GROUP: group} if group else {},
        "NetworkMode": f"container:{sandbox_id}",
        "IpcMode": f"container:{sandbox_id}",
        "SecurityOpt": ["no-new-privileges"],
        "CapDrop": ["ALL"],
        "CapAdd": _capabilities(one),
        "GroupAdd": [str(group) for group in one.groups],
        "PidsLimit": PIDS_LIMIT,
        "ReadonlyRootfs": one.read_only_root,
        "LogConfig": LOG_CONFIG,
        "RestartPolicy": {"Name": "no"},
        "Mounts": [_mount(mount, platform) for mount in mounts],
        "Tmpfs": tmpfs,
        **_limits(one.resources),
    }


def _capabilities(one: ContainerSpec) -> list[str]:
    dropped = {_plain(name) for name in one.drop_capabilities}
    kept = [] if "ALL" in dropped else [name for name in CAPABILITIES if name not in dropped]
    return sorted({*kept, *(_plain(name) for name in one.add_capabilities)})


def _plain(capability: str) -> str:
    return capability.upper().removeprefix("CAP_")


def _limits(resources: Resources) -> Json:
    limits: Json = {}
    cpu = resources.cpu_request if resources.cpu_request is not None else resources.cpu_limit
    if cpu is not None:
        # Without a request the engine's default stays: the least share would starve an app that is starting.
        limits["CpuShares"] = cpu_shares(cpu)
    if resources.cpu_limit is not None:
        # Not NanoCpus: it refuses more cores than the machine has, which a manifest made elsewhere may well say.
        limits |= {"CpuPeriod": CPU_PERIOD, "CpuQuota": max(1000, round(resources.cpu_limit * CPU_PERIOD))}
    if resources.memory_limit is not None:
        limits |= {"Memory": resources.memory_limit, "MemorySwap": resources.memory_limit}
    if resources.memory_request is not None:
        bound = resources.memory_limit or resources.memory_request
        limits["MemoryReservation"] = min(resources.memory_request, bound)
    return limits


def _mount(mount: Mount, platform: str) -> Json:
    if mount.kind == "own":
        # Not what the image has at that place: a volume of Kubernetes hides it.
        options = {"NoCopy": True, **({"Subpath": mount.sub_path} if mount.sub_path else {})}
        source = labels.volume_name(platform, mount.source)
        return {
            "Type": "volume", "Source": source, "Target": mount.target, "ReadOnly": mount.read_only,
            "VolumeOptions": options,
        }  # fmt: skip
    return {"Type": mount.kind, "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}


def _tmpfs_options(mount: Mount) -> str:
    options = ["ro" if mount.read_only else "rw", "nosuid", "nodev", "exec", f"mode={mount.mode:o}"]
    return ",".join(options if mount.size_bytes is None else [*options, f"size={mount.size_bytes}"])
