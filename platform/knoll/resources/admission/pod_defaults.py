"""Defaults of a Revision's spec. Pure and idempotent."""

from collections.abc import Sequence

from knoll.config.defaults import DefaultsConfig
from knoll.config.platform import PlatformConfig
from knoll.resources.models.meta import ObjectMeta
from knoll.resources.models.pod import Container, ResourceRequirements
from knoll.resources.models.probe import Probe, TCPSocketAction
from knoll.resources.models.revision import RevisionSpec
from knoll.resources.models.security_context import Capabilities, PodSecurityContext, SeccompProfile, SecurityContext
from knoll.resources.models.volume import VolumeMount
from knoll.values.names import TemplateValues, child_name, render

LOW_PORTS = 1024


def defaulted_spec(
    spec: RevisionSpec, config: PlatformConfig, parent: ObjectMeta, *, service_links: bool = True
) -> RevisionSpec:
    """Return the spec with its defaults.

    Args:
        parent: metadata of the Service or Configuration, for templates of container names.
        service_links: whether an absent enableServiceLinks gets its default.
    """
    defaults = config.defaults
    timeout = spec.timeout_seconds or defaults.revision_timeout_seconds
    start = spec.response_start_timeout_seconds
    if start is None and defaults.revision_response_start_timeout_seconds < timeout:
        start = defaults.revision_response_start_timeout_seconds
    idle = spec.idle_timeout_seconds
    if idle is None and defaults.revision_idle_timeout_seconds:
        idle = defaults.revision_idle_timeout_seconds
    concurrency = spec.container_concurrency
    links = spec.enable_service_links
    containers, init_containers = _named(spec, defaults, parent)
    # These are writable; all others are created from objects.
    writable = frozenset(
        volume.name
        for volume in spec.volumes
        if volume.empty_dir is not None or volume.persistent_volume_claim is not None or volume.ephemeral is not None
    )
    return spec.changed(
        timeout_seconds=timeout,
        response_start_timeout_seconds=start,
        idle_timeout_seconds=idle,
        container_concurrency=defaults.container_concurrency if concurrency is None else concurrency,
        enable_service_links=defaults.enable_service_links if links is None and service_links else links,
        containers=tuple(_container(item, containers, writable, spec, config) for item in containers),
        init_containers=tuple(_init_container(item, writable, spec, config) for item in init_containers),
    )


def _named(
    spec: RevisionSpec, defaults: DefaultsConfig, parent: ObjectMeta
) -> tuple[tuple[Container, ...], tuple[Container, ...]]:
    named = TemplateValues(parent.name, parent.namespace, annotations=parent.annotations, labels=parent.labels)
    taken = {container.name for container in (*spec.containers, *spec.init_containers)}
    return (
        _with_names(spec.containers, render(defaults.user_container_name, named), taken),
        _with_names(spec.init_containers, render(defaults.init_container_name, named), taken),
    )


def _with_names(containers: Sequence[Container], default: str, taken: set[str]) -> tuple[Container, ...]:
    result, suffix = [], 0
    for container in containers:
        if not container.name:
            name = default
            while len(containers) > 1 or name in taken:
                name = child_name(default, f"-{suffix}")
                suffix += 1
                if name not in taken:
                    break
            container = container.changed(name=name)
        result.append(container)
    return tuple(result)


def _container(
    container: Container,
    all_: Sequence[Container],
    writable: frozenset[str],
    spec: RevisionSpec,
    config: PlatformConfig,
) -> Container:
    container = _init_container(container, writable, spec, config)
    serving = len(all_) == 1 or bool(container.ports)
    readiness = container.readiness_probe
    if serving:
        readiness = _readiness(readiness or Probe())
    elif readiness is not None and config.features.multi_container_probing != "Disabled":
        readiness = _thresholds(readiness)
    return container.changed(
        readiness_probe=_ports(readiness),
        liveness_probe=_ports(container.liveness_probe),
        startup_probe=_ports(container.startup_probe),
    )


def _init_container(
    container: Container, writable: frozenset[str], spec: RevisionSpec, config: PlatformConfig
) -> Container:
    resources = container.resources or ResourceRequirements()
    return container.changed(
        resources=resources.changed(
            requests={**config.defaults.requests, **resources.requests},
            limits={**config.defaults.limits, **resources.limits},
        ),
        volume_mounts=tuple(_mount(mount, writable) for mount in container.volume_mounts),
        security_context=_security(container, spec, config),
    )


def _mount(mount: VolumeMount, writable: frozenset[str]) -> VolumeMount:
    return mount if mount.name in writable else mount.changed(read_only=True)


def _readiness(probe: Probe) -> Probe:
    if not (probe.tcp_socket or probe.http_get or probe.exec or probe.grpc):
        probe = probe.changed(tcp_socket=TCPSocketAction(port=0))
    return _thresholds(probe)


def _thresholds(probe: Probe) -> Probe:
    probe = probe.changed(success_threshold=probe.success_threshold or 1)
    if probe.period_seconds == 0:
        return probe
    return probe.changed(failure_threshold=probe.failure_threshold or 3, timeout_seconds=probe.timeout_seconds or 1)


def _ports(probe: Probe | None) -> Probe | None:
    """Return the probe with its port and gRPC service: 0 is the container's port."""
    if probe is None:
        return None
    for name in ("http_get", "tcp_socket", "grpc"):
        action = getattr(probe, name)
        if action is None:
            continue
        if action.port is None:
            action = action.changed(port=0)
        if name == "grpc" and action.service is None:
            action = action.changed(service="")
        probe = probe.changed(**{name: action})
    return probe


def _security(container: Container, spec: RevisionSpec, config: PlatformConfig) -> SecurityContext | None:
    """The strict settings of the feature secure-pod-defaults, for fields that the container does not set."""
    context = container.security_context
    level = config.features.secure_pod_defaults
    if level not in ("Enabled", "AllowRootBounded"):
        return context
    context = context or SecurityContext()
    pod = spec.security_context or PodSecurityContext()
    if context.allow_privilege_escalation is None:
        context = context.changed(allow_privilege_escalation=False)
    if context.seccomp_profile is None and pod.seccomp_profile is None:
        context = context.changed(seccomp_profile=SeccompProfile(type="RuntimeDefault"))
    if context.capabilities is None:
        low = any(0 < port.container_port < LOW_PORTS for port in container.ports)
        context = context.changed(capabilities=Capabilities(drop=("ALL",), add=("NET_BIND_SERVICE",) if low else ()))
    if level == "Enabled" and context.run_as_non_root is None and pod.run_as_non_root is None:
        context = context.changed(run_as_non_root=True)
    return context
