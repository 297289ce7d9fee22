"""What to run for a Revision: its spec as the runtime and the probes take it. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from autoscaler.probes.schedule import LATER_PERIOD
from autoscaler.probes.spec import Check, ExecCheck, GrpcCheck, HttpCheck, Probe, Probes, TcpCheck
from autoscaler.runtime.protocol import Capacity, ContainerSpec, InstanceSpec, Resources
from autoscaler.spec.engine_volumes import engine_volumes, mount, shared
from autoscaler.spec.env_sources import About, Find, account_of, references, variables
from autoscaler.spec.expansion import expand
from autoscaler.spec.volume_files import has_files
from knoll.resources.models import pod
from knoll.resources.models.revision import Revision
from knoll.values import labels as known
from knoll.values.names import child_name
from knoll.values.node import NODE
from knoll.values.quantity import parse_quantity

DEFAULT_PORT = 8080
HASH_LENGTH = 10
UNKNOWN_MACHINE = Capacity(1.0, 0)
PREFIX_LENGTH = 58
"""What Kubernetes leaves of a name before it adds five letters, so that the whole is a host name."""


def deployment_name(revision: str) -> str:
    """Name of the emulated Deployment."""
    return child_name(revision, "-deployment")


def instance_name(revision: Revision, suffix: str) -> str:
    """Name of an instance, and of the Pod that stands for it.

    Args:
        suffix: five letters or digits, drawn outside.
    """
    name = revision.metadata.name
    digest = hashlib.sha256(revision.metadata.uid.encode()).hexdigest()[:HASH_LENGTH]
    return f"{deployment_name(name)}-{digest}-"[:PREFIX_LENGTH] + suffix


def serving_port(revision: Revision) -> int:
    """Port that takes the requests."""
    ports = revision.spec.serving_container.ports
    return ports[0].container_port if ports and ports[0].container_port else DEFAULT_PORT


def instance_spec(
    revision: Revision, name: str, find: Find | None = None, machine: Capacity = UNKNOWN_MACHINE
) -> InstanceSpec:
    """An instance of a Revision whose images are resolved.

    Args:
        find: looks up what containers take from other objects; None leaves that out.
        machine: what a container without a limit is told of its resources.

    Raises:
        KeyError: a container's image is not resolved.
        MissingSourceError: an object or key is missing.
    """
    meta, spec = revision.metadata, revision.spec
    status = revision.status
    digests = {one.name: one.image_digest for one in (*status.container_statuses, *status.init_container_statuses)}
    serving, port = spec.serving_container, serving_port(revision)
    identity = {
        "K_SERVICE": meta.labels.get(known.SERVICE, ""),
        "K_CONFIGURATION": meta.labels.get(known.CONFIGURATION, ""),
        "K_REVISION": meta.name,
    }
    volumes = {volume.name: volume for volume in spec.volumes}
    own = engine_volumes(revision, name, find) if find else {}
    itself = about(revision, name, machine)

    def container(one: pod.Container) -> ContainerSpec:
        ours = {**identity, "PORT": str(port)} if one is serving else identity
        env = variables(one if find else _without_sources(one), ours, itself, find or _nothing)
        mounts = (mount(each, volumes[each.name], own) for each in one.volume_mounts)
        security, together = one.security_context or _NO_CONTEXT, spec.security_context or _NO_POD_CONTEXT
        capabilities = security.capabilities or pod.Capabilities()
        return ContainerSpec(
            name=one.name,
            image=digests[one.name],
            command=tuple(expand(part, env) for part in one.command),
            args=tuple(expand(part, env) for part in one.args),
            env=env,
            resources=resources(one.resources or pod.ResourceRequirements()),
            mounts=tuple(each for each in mounts if each is not None),
            user=_first(security.run_as_user, together.run_as_user),
            group=_first(security.run_as_group, together.run_as_group),
            groups=together.supplemental_groups,
            non_root=bool(_first(security.run_as_non_root, together.run_as_non_root)),
            working_dir=one.working_dir,
            read_only_root=bool(security.read_only_root_filesystem),
            add_capabilities=capabilities.add,
            drop_capabilities=capabilities.drop,
        )

    return InstanceSpec(
        name=name,
        revision=f"{meta.namespace}/{meta.name}",
        uid=meta.uid,
        containers=tuple(container(one) for one in spec.containers),
        init_containers=tuple(container(one) for one in spec.init_containers),
        port=port,
        serving=serving.name,
        labels=instance_labels(revision),
        grace_seconds=float(spec.timeout_seconds or 300),
    )


_NO_CONTEXT, _NO_POD_CONTEXT = pod.SecurityContext(), pod.PodSecurityContext()


def _first(own: int | None, together: int | None) -> int | None:
    """What a container says for itself, else what is said for all."""
    return own if own is not None else together


def needs_delivery(spec: pod.PodSpec) -> bool:
    """Whether anything must be looked up or made before an instance can start."""
    asks = any(variable.value_from for one in (*spec.containers, *spec.init_containers) for variable in one.env)
    kept = any(has_files(volume) or volume.persistent_volume_claim for volume in spec.volumes)
    return asks or kept or bool(references(spec)) or bool(shared(spec))


def about(revision: Revision, name: str, machine: Capacity = UNKNOWN_MACHINE) -> About:
    """What an instance may ask of itself."""
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


def _without_sources(one: pod.Container) -> pod.Container:
    plain = tuple(variable for variable in one.env if variable.value_from is None)
    return one.model_copy(update={"env": plain, "env_from": ()})


def _nothing(_: str, __: str) -> None:
    return None


def instance_labels(revision: Revision) -> dict[str, str]:
    """Labels of the emulated Pod."""
    meta = revision.metadata
    inherited = (
        known.SERVICE, known.SERVICE_UID, known.CONFIGURATION, known.CONFIGURATION_UID, known.CONFIGURATION_GENERATION,
    )  # fmt: skip
    return {
        known.APP: meta.name,
        known.REVISION: meta.name,
        known.REVISION_UID: meta.uid,
        **{key: meta.labels[key] for key in inherited if key in meta.labels},
    }


def resources(wanted: pod.ResourceRequirements) -> Resources:
    """Cores and bytes."""

    def read(group: Mapping[str, str], key: str) -> float | None:
        return float(parse_quantity(str(group[key]))) if key in group else None

    def whole(group: Mapping[str, str], key: str) -> int | None:
        found = read(group, key)
        return None if found is None else int(found)

    return Resources(
        cpu_request=read(wanted.requests, "cpu"),
        cpu_limit=read(wanted.limits, "cpu"),
        memory_request=whole(wanted.requests, "memory"),
        memory_limit=whole(wanted.limits, "memory"),
        storage_request=whole(wanted.requests, "ephemeral-storage"),
        storage_limit=whole(wanted.limits, "ephemeral-storage"),
    )


def probes(revision: Revision) -> dict[str, Probes]:
    """Each container's probes, by name. Only the serving container has a readiness probe by default."""
    spec, port = revision.spec, serving_port(revision)
    return {
        one.name: Probes(
            startup=_with_period(probe(one.startup_probe, port, eager=True)),
            readiness=probe(one.readiness_probe, port, eager=True),
            liveness=_with_period(probe(one.liveness_probe, port)),
        )
        for one in spec.containers
    }


def probe(wanted: pod.Probe | None, port: int, *, eager: bool = False) -> Probe | None:
    """A probe with Kubernetes' defaults; port 0 is the serving port.

    Args: eager: see `Probe.eager`.
    """
    if wanted is None:
        return None
    return Probe(
        check(wanted, port),
        initial_delay_seconds=wanted.initial_delay_seconds,
        period_seconds=wanted.period_seconds,
        timeout_seconds=wanted.timeout_seconds or 1.0,
        success_threshold=wanted.success_threshold or 1,
        failure_threshold=wanted.failure_threshold or 3,
        eager=eager,
    )


def _with_period(one: Probe | None) -> Probe | None:
    """No period means Kubernetes' default; for a readiness probe alone it means Knative's eager probing."""
    return replace(one, period_seconds=LATER_PERIOD) if one and not one.period_seconds else one


def check(wanted: pod.Probe, port: int) -> Check:
    """What a probe asks: the instance, whatever host it names, for the prober reaches more than a tenant may."""
    if wanted.http_get:
        get = wanted.http_get
        headers = tuple((header.name, header.value) for header in get.http_headers)
        where = _port(get.port, port)
        return HttpCheck(where, get.path or "/", get.scheme or "http", headers=headers)
    if wanted.exec:
        return ExecCheck(wanted.exec.command)
    if wanted.grpc:
        return GrpcCheck(wanted.grpc.port or port, wanted.grpc.service or "")
    socket = wanted.tcp_socket or pod.TCPSocketAction()
    return TcpCheck(_port(socket.port, port))


def _port(wanted: int | str | None, port: int) -> int:
    """A named port is the serving one: it is the only one a Revision has."""
    return wanted if isinstance(wanted, int) and wanted else port
