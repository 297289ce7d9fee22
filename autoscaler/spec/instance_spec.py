"""The specification of an instance and its probes, from a Revision. Pure."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from autoscaler.probes.schedule import LATER_PERIOD
from autoscaler.probes.spec import Check, ExecCheck, GrpcCheck, HttpCheck, Probes, ProbeSpec, TcpCheck
from autoscaler.runtime.model import Capacity, ContainerSpec, InstanceSpec, Resources
from autoscaler.spec.engine_volumes import engine_volumes, mount, shared
from autoscaler.spec.env_sources import About, Find, account_of, references, variables
from autoscaler.spec.expansion import expand
from autoscaler.spec.volume_files import has_files
from knoll.resources.models import pod
from knoll.resources.models.probe import Probe, TCPSocketAction
from knoll.resources.models.revision import Revision
from knoll.resources.models.security_context import Capabilities, PodSecurityContext, SecurityContext
from knoll.values import labels
from knoll.values.names import child_name
from knoll.values.node import NODE
from knoll.values.quantity import parse_quantity

HASH_LENGTH = 10
UNKNOWN_MACHINE = Capacity(1.0, 0)
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
PREFIX_LENGTH = 58
"""Length to which Kubernetes cuts a name before it adds five letters, so that the result is a valid host name."""


def deployment_name(revision: str) -> str:
    """Return the name of the emulated Deployment."""
    return child_name(revision, "-deployment")


def instance_name(revision: Revision, suffix: str) -> str:
    """Return the name of an instance and its Pod.

    Args:
        suffix: five random letters or digits.
    """
    name = revision.metadata.name
    digest = hashlib.sha256(revision.metadata.uid.encode()).hexdigest()[:HASH_LENGTH]
    return f"{deployment_name(name)}-{digest}-"[:PREFIX_LENGTH] + suffix


def new_instance_name(revision: Revision, choose: Callable[[str], str]) -> str:
    """Return a new name of an instance. Args: choose: returns a random character of a text."""
    return instance_name(revision, "".join(choose(_ALPHABET) for _ in range(5)))


def serving_port(revision: Revision) -> int:
    """Return the port that takes the requests."""
    ports = revision.spec.serving_container.ports
    return ports[0].container_port if ports and ports[0].container_port else pod.DEFAULT_PORT


def instance_spec(
    revision: Revision, name: str, find: Find | None = None, machine: Capacity = UNKNOWN_MACHINE
) -> InstanceSpec:
    """Return the specification of an instance of a Revision whose images are resolved.

    Args:
        find: looks up the objects that containers refer to; None leaves these references out.
        machine: the resources of a container without a limit.

    Raises:
        KeyError: a container's image is not resolved.
        MissingSourceError: an object or key is missing.
    """
    meta, spec = revision.metadata, revision.spec
    status = revision.status
    statuses = (*status.container_statuses, *status.init_container_statuses)
    digests = {container.name: container.image_digest for container in statuses}
    serving, port = spec.serving_container, serving_port(revision)
    identity = {
        "K_SERVICE": meta.labels.get(labels.SERVICE, ""),
        "K_CONFIGURATION": meta.labels.get(labels.CONFIGURATION, ""),
        "K_REVISION": meta.name,
    }
    volumes = {volume.name: volume for volume in spec.volumes}
    own = engine_volumes(revision, name, find) if find else {}
    itself = about(revision, name, machine)

    def container_spec(container: pod.Container) -> ContainerSpec:
        ours = {**identity, "PORT": str(port)} if container is serving else identity
        env = variables(container if find else _without_sources(container), ours, itself, find or _find_nothing)
        mounts = (mount(each, volumes[each.name], own) for each in container.volume_mounts)
        security, pod_security = container.security_context or _NO_CONTEXT, spec.security_context or _NO_POD_CONTEXT
        capabilities = security.capabilities or Capabilities()
        return ContainerSpec(
            name=container.name,
            image=digests[container.name],
            command=tuple(expand(part, env) for part in container.command),
            args=tuple(expand(part, env) for part in container.args),
            env=env,
            resources=resources(container.resources or pod.ResourceRequirements()),
            mounts=tuple(each for each in mounts if each is not None),
            user=_first(security.run_as_user, pod_security.run_as_user),
            group=_first(security.run_as_group, pod_security.run_as_group),
            groups=pod_security.supplemental_groups,
            non_root=bool(_first(security.run_as_non_root, pod_security.run_as_non_root)),
            working_dir=container.working_dir,
            read_only_root=bool(security.read_only_root_filesystem),
            add_capabilities=capabilities.add,
            drop_capabilities=capabilities.drop,
        )

    return InstanceSpec(
        name=name,
        revision=f"{meta.namespace}/{meta.name}",
        uid=meta.uid,
        containers=tuple(container_spec(container) for container in spec.containers),
        init_containers=tuple(container_spec(container) for container in spec.init_containers),
        port=port,
        serving=serving.name,
        labels=instance_labels(revision),
        grace_seconds=float(spec.timeout_seconds or 300),
    )


_NO_CONTEXT, _NO_POD_CONTEXT = SecurityContext(), PodSecurityContext()


def _first(own: int | None, of_pod: int | None) -> int | None:
    """Return a container's own value, else the pod's."""
    return own if own is not None else of_pod


def needs_preparation(spec: pod.PodSpec) -> bool:
    """Return whether objects must be looked up or volumes created before an instance can start."""
    containers = (*spec.containers, *spec.init_containers)
    refers = any(variable.value_from for container in containers for variable in container.env)
    stored = any(has_files(volume) or volume.persistent_volume_claim for volume in spec.volumes)
    return refers or stored or bool(references(spec)) or bool(shared(spec))


def about(revision: Revision, name: str, machine: Capacity = UNKNOWN_MACHINE) -> About:
    """Return what an instance may refer to of itself."""
    meta = revision.metadata
    return About(
        name=name,
        namespace=meta.namespace,
        labels=instance_labels(revision),
        annotations=meta.annotations,
        service_account=account_of(revision.spec),
        node=NODE,
        cores=machine.cores,
        memory_bytes=machine.memory_bytes,
    )


def _without_sources(container: pod.Container) -> pod.Container:
    plain = tuple(variable for variable in container.env if variable.value_from is None)
    return container.model_copy(update={"env": plain, "env_from": ()})


def _find_nothing(_: str, __: str) -> None:
    return None


def instance_labels(revision: Revision) -> dict[str, str]:
    """Return the labels of the emulated Pod."""
    meta = revision.metadata
    inherited = (
        labels.SERVICE,
        labels.SERVICE_UID,
        labels.CONFIGURATION,
        labels.CONFIGURATION_UID,
        labels.CONFIGURATION_GENERATION,
    )
    return {
        labels.APP: meta.name,
        labels.REVISION: meta.name,
        labels.REVISION_UID: meta.uid,
        **{key: meta.labels[key] for key in inherited if key in meta.labels},
    }


def resources(requirements: pod.ResourceRequirements) -> Resources:
    """Return requests and limits in cores and bytes."""

    def read(group: Mapping[str, str], key: str) -> float | None:
        return float(parse_quantity(str(group[key]))) if key in group else None

    def whole(group: Mapping[str, str], key: str) -> int | None:
        value = read(group, key)
        return None if value is None else int(value)

    return Resources(
        cpu_request=read(requirements.requests, "cpu"),
        cpu_limit=read(requirements.limits, "cpu"),
        memory_request=whole(requirements.requests, "memory"),
        memory_limit=whole(requirements.limits, "memory"),
        storage_request=whole(requirements.requests, "ephemeral-storage"),
        storage_limit=whole(requirements.limits, "ephemeral-storage"),
    )


def probes(revision: Revision) -> dict[str, Probes]:
    """Return each container's probes, by name. Only the serving container has a readiness probe by default."""
    spec, port = revision.spec, serving_port(revision)
    return {
        container.name: Probes(
            startup=_with_period(probe(container.startup_probe, port, eager=True)),
            readiness=probe(container.readiness_probe, port, eager=True),
            liveness=_with_period(probe(container.liveness_probe, port)),
        )
        for container in spec.containers
    }


def probe(spec: Probe | None, port: int, *, eager: bool = False) -> ProbeSpec | None:
    """Return a probe with Kubernetes' defaults; port 0 is the serving port.

    Args: eager: see `ProbeSpec.eager`.
    """
    if spec is None:
        return None
    return ProbeSpec(
        check(spec, port),
        initial_delay_seconds=spec.initial_delay_seconds,
        period_seconds=spec.period_seconds,
        timeout_seconds=spec.timeout_seconds or 1.0,
        success_threshold=spec.success_threshold or 1,
        failure_threshold=spec.failure_threshold or 3,
        eager=eager,
    )


def _with_period(probe: ProbeSpec | None) -> ProbeSpec | None:
    """Without a period, use Kubernetes' default; only for a readiness probe it means Knative's eager probing."""
    return replace(probe, period_seconds=LATER_PERIOD) if probe and not probe.period_seconds else probe


def check(spec: Probe, port: int) -> Check:
    """Return what a probe checks. It ignores `host`: the prober can reach more than a tenant may."""
    if spec.http_get:
        get = spec.http_get
        headers = tuple((header.name, header.value) for header in get.http_headers)
        return HttpCheck(_port(get.port, port), get.path or "/", get.scheme or "http", headers=headers)
    if spec.exec:
        return ExecCheck(spec.exec.command)
    if spec.grpc:
        return GrpcCheck(spec.grpc.port or port, spec.grpc.service or "")
    socket = spec.tcp_socket or TCPSocketAction()
    return TcpCheck(_port(socket.port, port))


def _port(own: int | str | None, serving: int) -> int:
    """A named port is the serving port: a Revision has no other."""
    return own if isinstance(own, int) and own else serving
