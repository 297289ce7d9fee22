"""Request bodies of Docker's API from specs, isolation included. No I/O."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autoscaler.runtime.docker import labels, pause_image
from autoscaler.runtime.model import ADDRESS, ContainerSpec, InstanceSpec, Mount, Resources
from knoll.process import dns_server
from knoll.values.json import Json

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
"""The part of Docker's fourteen that is kept: images that start as root to prepare files, drop to a user and signal
their workers (nginx, databases behind gosu) work; raw sockets, devices, chroot, file capabilities and audit do not."""
PIDS_LIMIT = 4096
"""Processes and threads of one container: enough for large thread pools, not for a fork bomb."""
LOG_CONFIG = {"Type": "local", "Config": {"max-size": "10m", "max-file": "2", "compress": "false"}}
"""20 MB per container; compression would take CPU from requests."""
QUOTA_MARGIN = 16 * 1024**2
"""Least bytes by which a quota exceeds the limit: the engine's file systems count in blocks."""
CPU_PERIOD = 100_000
SUB_PATHS = (1, 45)
"""First API version that mounts parts of volumes; older ones silently mount all of it."""
TMP = "/tmp"  # noqa: S108 - the container's


def cpu_shares(cores: float) -> int:
    """Kubernetes' formula: max(2, millicores x 1024 / 1000)."""
    return max(2, round(cores * 1000) * 1024 // 1000)


def network(name: str, platform: str) -> Json:
    """Return the instance network.

    An activator in its own container reaches instances there; the firewall keeps instances from reaching each other.
    Redis, the API and the engine are not on this network.
    """
    return {
        "Name": name,
        "Driver": "bridge",
        "Labels": {labels.PLATFORM: platform, labels.ROLE: "network"},
        "Options": {"com.docker.network.bridge.enable_icc": "true"},
    }


def sandbox(platform: str, network_name: str, image: str, hostname: str, group: str, dns: str = "") -> Json:
    """Return a sandbox: without rights or log; containers that join share its network and its shared memory.

    They share its shim as well, as in Kubernetes' pods: an app's start is a process and 4 MB cheaper (measured: 17 ms
    of 117).

    Args:
        dns: address of the DNS server for cluster-local names; empty for the engine's.
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
            # Only our own program runs here, and it only sleeps: a filter would take a tenth of the CPU of creating a
            # sandbox.
            "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
            "ReadonlyRootfs": True,
            "PidsLimit": 16,
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
        },
    }


def _names(dns: str) -> Json:
    """Return the DNS settings in /etc/resolv.conf of all containers that join a sandbox."""
    if not dns:
        return {}
    return {"Dns": [dns], "DnsSearch": list(dns_server.SEARCH), "DnsOptions": list(dns_server.OPTIONS)}


def helper(platform: str, image: str, volume: str, target: str, swap: Sequence[str]) -> Json:
    """Return a container through which a volume is filled.

    Args:
        volume: its name on the engine.
        target: where it is mounted.
        swap: arguments of `pause_image.SWAP`, which the container runs if it is started.
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
    """Return the engine's limit of a container's file system.

    It is slightly above the instance's limit: the instance is evicted with a reason, and the disk is safe until then.

    Args: limit: of the instance, in bytes.
    """
    return {"StorageOpt": {"size": str(limit + max(limit // 10, QUOTA_MARGIN))}}


def never_started(platform: str, image_id: str) -> Json:
    """Return a container that is never started, to inspect the file system of an image."""
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
    own: ContainerSpec,
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
    """Return one container of an instance, joined to a sandbox.

    Args:
        spec: the instance.
        own: the container, which may be an init container.
        platform: name of the platform.
        role: `app` or `init`.
        sandbox_id: engine's id of the sandbox.
        group: its `labels.GROUP`; empty for none.
        address: its IP address.
        image_id: engine's id of the image.
        image_has_tmp: False adds a tmpfs at /tmp, which every process may expect.
        now: epoch seconds.
        image_user: as `Image.user`.
    """
    body: Json = {
        "Image": image_id,
        "Env": [
            f"{key}={value.replace(ADDRESS, address)}" for key, value in {"HOSTNAME": spec.name, **own.env}.items()
        ],
        "Labels": _labels(spec, own, platform, role, sandbox_id, address, now),
        "Tty": False,
        "OpenStdin": False,
        # The platform probes. The image's own check would only cost CPU, and Kubernetes ignores it as well.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(own, platform, sandbox_id, group, image_has_tmp),
    }
    if own.command:
        body["Entrypoint"] = [part.replace(ADDRESS, address) for part in own.command]
    if own.command or own.args:
        body["Cmd"] = [part.replace(ADDRESS, address) for part in own.args]
    if own.user is not None:
        body["User"] = f"{own.user}:{own.group or 0}"
    elif own.group is not None:
        body["User"] = f"{image_user.partition(':')[0] or 0}:{own.group}"
    if own.working_dir:
        body["WorkingDir"] = own.working_dir
    return body


def refusal(container: ContainerSpec, image_user: str, api: tuple[int, int]) -> str:
    """Return why a container must not be created; empty when it may.

    Args:
        image_user: as `Image.user`.
        api: version of the engine's API.

    Source of the rules for root: Kubernetes, pkg/kubelet/kuberuntime/security_context.go, `verifyRunAsNonRoot`.
    """
    if api < SUB_PATHS and any(mount.sub_path for mount in container.mounts):
        return f"container {container.name} mounts a part of a volume (subPath), which needs Docker 26 or newer"
    if not container.non_root:
        return ""
    if container.user is not None:
        return "" if container.user else "container's runAsUser (0) breaks non-root policy"
    user = image_user.partition(":")[0]
    if user and not user.isdecimal():
        return (
            f"container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root: "
            "set runAsUser"
        )
    return "" if int(user or 0) else "container has runAsNonRoot and image will run as root"


def recreate(inspected: Mapping[str, Any], *, restarts: int, now: float) -> Json:
    """Return the body that creates a container once more, from the engine's description of its predecessor.

    Args:
        inspected: response of `GET /containers/{id}/json`.
        restarts: the new count.
        now: epoch seconds.
    """
    config = dict(inspected["Config"])
    for inherited in ("Hostname", "Domainname", "ExposedPorts", "MacAddress", "Volumes", "OnBuild"):
        config.pop(inherited, None)  # of the sandbox or of the image; refused in a request
    config["Image"] = inspected["Image"]
    config["Labels"] = {**config["Labels"], labels.RESTARTS: str(restarts), labels.STARTED: repr(now)}
    return {**config, "HostConfig": inspected["HostConfig"]}


def _labels(
    spec: InstanceSpec, container: ContainerSpec, platform: str, role: str, sandbox_id: str, address: str, now: float
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
        labels.CONTAINER: container.name,
        labels.CONTAINERS: ",".join(each.name for each in spec.containers),
        labels.PORT: str(spec.port),
        labels.GRACE: repr(float(spec.grace_seconds)),
        labels.IMAGE: container.image,
        labels.RESTARTS: "0",
        labels.CREATED: repr(now),
        labels.STARTED: repr(now),
        labels.USER_LABELS: json.dumps(sorted(spec.labels)),
    }


def _host_config(container: ContainerSpec, platform: str, sandbox_id: str, group: str, image_has_tmp: bool) -> Json:
    mounts = [mount for mount in container.mounts if mount.kind != "tmpfs"]
    tmpfs = {mount.target: _tmpfs_options(mount) for mount in container.mounts if mount.kind == "tmpfs"}
    if not image_has_tmp and not any(mount.target.rstrip("/") == TMP for mount in container.mounts):
        tmpfs[TMP] = "rw,nosuid,nodev,exec,mode=1777"
    return {
        "Annotations": {labels.SHIM_GROUP: group} if group else {},
        "NetworkMode": f"container:{sandbox_id}",
        "IpcMode": f"container:{sandbox_id}",
        "SecurityOpt": ["no-new-privileges"],
        "CapDrop": ["ALL"],
        "CapAdd": _capabilities(container),
        "GroupAdd": [str(group) for group in container.groups],
        "PidsLimit": PIDS_LIMIT,
        "ReadonlyRootfs": container.read_only_root,
        "LogConfig": LOG_CONFIG,
        "RestartPolicy": {"Name": "no"},
        "Mounts": [_mount(mount, platform) for mount in mounts],
        "Tmpfs": tmpfs,
        **_limits(container.resources),
    }


def _capabilities(container: ContainerSpec) -> list[str]:
    dropped = {_plain(name) for name in container.drop_capabilities}
    kept = [] if "ALL" in dropped else [name for name in CAPABILITIES if name not in dropped]
    return sorted({*kept, *(_plain(name) for name in container.add_capabilities)})


def _plain(capability: str) -> str:
    return capability.upper().removeprefix("CAP_")


def _limits(resources: Resources) -> Json:
    limits: Json = {}
    cpu = resources.cpu_request if resources.cpu_request is not None else resources.cpu_limit
    if cpu is not None:
        # Without a request the engine's default stays: the smallest share would starve an app that is starting.
        limits["CpuShares"] = cpu_shares(cpu)
    if resources.cpu_limit is not None:
        # Not NanoCpus: it refuses more cores than the machine has, which a manifest written elsewhere may request.
        limits |= {"CpuPeriod": CPU_PERIOD, "CpuQuota": max(1000, round(resources.cpu_limit * CPU_PERIOD))}
    if resources.memory_limit is not None:
        limits |= {"Memory": resources.memory_limit, "MemorySwap": resources.memory_limit}
    if resources.memory_request is not None:
        bound = resources.memory_limit or resources.memory_request
        limits["MemoryReservation"] = min(resources.memory_request, bound)
    return limits


def _mount(mount: Mount, platform: str) -> Json:
    if mount.kind == "own":
        # NoCopy: on Kubernetes a volume hides what the image has at that path.
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
