"""Validation of a Revision's containers. Pure; every function returns all problems.

Source: the rules and messages of knative.dev/serving, pkg/apis/serving (ValidatePodSpec).
"""

import posixpath
from collections.abc import Iterator, Mapping

from knoll.config.features import FeaturesConfig
from knoll.resources.models.env import EnvFromSource, EnvVar
from knoll.resources.models.pod import Container, ContainerPort, PodSpec
from knoll.resources.models.volume import Volume
from knoll.resources.validation.probe_rules import probe_problems, readiness_problems
from knoll.resources.validation.problems import (
    disallowed,
    invalid,
    invalid_key,
    missing,
    missing_one_of,
    multiple_one_of,
    out_of_bounds,
)
from knoll.resources.validation.security_rules import pod_security_problems, security_problems
from knoll.resources.validation.unsupported_fields import refused
from knoll.resources.validation.volume_rules import volume_problems
from knoll.values.errors import FieldError
from knoll.values.image_reference import parse_image
from knoll.values.names import CONTROL, QUEUE_PROXY, VARIABLE, dns_1123_problems, printable, subdomain_problems
from knoll.values.quantity import parse_quantity

RESERVED_CONTAINER_NAMES = frozenset({QUEUE_PROXY})
RESERVED_ENV = frozenset({"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"})
RESERVED_PORTS = frozenset({8008, 8012, 8013, 8022, 9090, 9091})
RESERVED_PATHS = frozenset({"/"})
RESERVED_TREES = ("/dev", "/proc", "/sys")
"""Kernel file systems: nothing can be mounted on or below them."""
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the container's
"""The exception: browsers and databases need a larger one."""
RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage"})
TERMINATION_LOG = "/dev/termination-log"
_VARIABLE_WORDS = "a valid environment variable name must consist only of printable ASCII characters other than '='"
PORT_NAMES = frozenset({"", "h2c", "http1"})
_PULL_POLICIES = frozenset({"", "Always", "IfNotPresent", "Never"})
_MESSAGE_POLICIES = frozenset({"", "File", "FallbackToLogsOnError"})

_POD_FEATURES = {
    "affinity": "pod_spec_affinity",
    "node_selector": "pod_spec_node_selector",
    "tolerations": "pod_spec_tolerations",
    "topology_spread_constraints": "pod_spec_topology_spread_constraints",
    "scheduler_name": "pod_spec_scheduler_name",
    "priority_class_name": "pod_spec_priority_class_name",
    "security_context": "pod_spec_security_context",
}


def pod_problems(spec: PodSpec, features: FeaturesConfig, path: str) -> list[FieldError]:
    """Yield all problems of the PodSpec part of a spec at `path`."""
    allowed = [name for name, flag in _POD_FEATURES.items() if getattr(features, flag) != "Disabled"]
    problems = refused(spec, path, allowed)
    if spec.automount_service_account_token:
        problems.append(disallowed(f"{path}.automountServiceAccountToken"))
    if spec.security_context is not None:
        problems += pod_security_problems(spec.security_context, f"{path}.securityContext")
    volumes: dict[str, Volume] = {}
    mounted = frozenset(
        mount.name for item in (*spec.init_containers, *spec.containers) for mount in item.volume_mounts
    )
    for at, volume in enumerate(spec.volumes):
        problems += volume_problems(volume, f"{path}.volumes[{at}]", volumes, mounted, features)
        volumes[volume.name] = volume
    problems += _all_containers(spec, volumes, features, path)
    problems += [
        invalid(spec.service_account_name, f"{path}.serviceAccountName", text)
        for text in (subdomain_problems(spec.service_account_name) if spec.service_account_name else ())
    ]
    return problems


def _all_containers(
    spec: PodSpec, volumes: Mapping[str, Volume], features: FeaturesConfig, path: str
) -> Iterator[FieldError]:
    several = len(spec.containers) > 1
    ports = [port for container in spec.containers for port in container.ports]
    if not spec.containers:
        yield missing(f"{path}.containers")
    if several and features.multi_container != "Enabled":
        yield FieldError(f"multi-container is off, but found {len(spec.containers)} containers", (path,))
        return
    if several and not ports:
        yield missing(f"{path}.containers[*].ports")
    if len(ports) > 1:
        where = (f"{path}.containers[*].ports",)
        yield FieldError(
            "more than one container port is set", where, "Only a single port is allowed across all containers"
        )
    if spec.init_containers and features.pod_spec_init_containers != "Enabled":
        count = len(spec.init_containers)
        yield FieldError(
            f"pod spec support for init-containers is off, but found {count} init containers", (path,),
            'Set kubernetes.podspec-init-containers to "enabled" in the ConfigMap config-features.',
        )  # fmt: skip
    seen: set[str] = set()
    for at, container in enumerate(spec.containers):
        here = f"{path}.containers[{at}]"
        if container.name in seen:
            yield FieldError(f'duplicate container name "{container.name}"', (f"{here}.name",))
        seen.add(container.name)
        serving = not several or bool(container.ports)
        yield from _container(container, here, volumes, features, "serving" if serving else "sidecar")
        yield from _probes(container, here, ports[0] if ports else ContainerPort(), features, serving)
    for at, container in enumerate(spec.init_containers):
        here = f"{path}.initContainers[{at}]"
        if container.name in seen:
            yield FieldError(f'duplicate container name "{container.name}"', (f"{here}.name",))
        seen.add(container.name)
        yield from _container(container, here, volumes, features, "init")
        for name in ("liveness_probe", "readiness_probe", "startup_probe"):
            if getattr(container, name) is not None:
                alias = Container.model_fields[name].alias
                yield FieldError("field not allowed in an init container", (f"{here}.{alias}",))


def _probes(
    container: Container, path: str, port: ContainerPort, features: FeaturesConfig, serving: bool
) -> Iterator[FieldError]:
    if not serving and features.multi_container_probing != "Enabled":
        for probe, alias in (
            (container.liveness_probe, "livenessProbe"),
            (container.readiness_probe, "readinessProbe"),
            (container.startup_probe, "startupProbe"),
        ):
            if probe is not None:
                yield disallowed(f"{path}.{alias}")
        return
    name = (port.name or "http") if serving else ""
    yield from readiness_problems(container.readiness_probe, f"{path}.readinessProbe", name)
    yield from probe_problems(container.liveness_probe, f"{path}.livenessProbe", name)
    yield from probe_problems(container.startup_probe, f"{path}.startupProbe", name)


def _container(
    container: Container, path: str, volumes: Mapping[str, Volume], features: FeaturesConfig, role: str
) -> Iterator[FieldError]:
    yield from refused(container, path)
    yield from _container_name(container.name, path)
    reserved = RESERVED_ENV if role == "serving" else RESERVED_ENV - {"PORT"}
    for at, variable in enumerate(container.env):
        yield from _env(variable, f"{path}.env[{at}]", reserved, features)
    for at, source in enumerate(container.env_from):
        yield from _env_from(source, f"{path}.envFrom[{at}]")
    yield from _image(container.image, f"{path}.image")
    yield from _process(container, path)
    for port in container.ports[:1] if role != "init" else container.ports:
        yield from _port(port, f"{path}.ports", role)
    yield from _resources(container, f"{path}.resources")
    if container.security_context is not None:
        yield from security_problems(container.security_context, f"{path}.securityContext", features)
    if container.image_pull_policy not in _PULL_POLICIES:
        yield invalid(container.image_pull_policy, f"{path}.imagePullPolicy")
    if container.termination_message_policy not in _MESSAGE_POLICIES:
        yield invalid(container.termination_message_policy, f"{path}.terminationMessagePolicy")
    if container.termination_message_path not in ("", TERMINATION_LOG):
        details = f"termination messages are read from the end of the log: use {TERMINATION_LOG}, or omit the field"
        yield invalid(printable(container.termination_message_path), f"{path}.terminationMessagePath", details)
    yield from _mounts(container, path, volumes, features)


def _container_name(name: str, path: str) -> Iterator[FieldError]:
    if name in RESERVED_CONTAINER_NAMES:
        yield FieldError(f'"{name}" is a reserved container name', (f"{path}.name",))
    elif name:
        for text in dns_1123_problems(name):
            # Knative detects this with a dry run of the Pod, which the message mentions.
            yield FieldError(f"validation callback failed: invalid value: {name[:100]}", (f"{path}.name",), text)


def _env(variable: EnvVar, path: str, reserved: frozenset[str], features: FeaturesConfig) -> Iterator[FieldError]:
    if not variable.name:
        yield missing(f"{path}.name")
    elif variable.name in reserved:
        yield FieldError(f'"{variable.name}" is a reserved environment variable', (f"{path}.name",))
    elif not VARIABLE.fullmatch(variable.name):
        yield invalid(printable(variable.name), f"{path}.name", _VARIABLE_WORDS)
    if "\0" in variable.value:
        yield invalid(printable(variable.value), f"{path}.value", "must not contain a NUL byte")
    source = variable.value_from
    if source is None:
        return
    here = f"{path}.valueFrom"
    allowed = ("field_ref", "resource_field_ref") if features.pod_spec_field_ref != "Disabled" else ()
    yield from refused(source, here, allowed)
    if variable.value:
        yield multiple_one_of(f"{path}.value", here)
    keys = {"configMapKeyRef": source.config_map_key_ref, "secretKeyRef": source.secret_key_ref}
    present = [name for name, selector in keys.items() if selector is not None]
    if len(present) > 1:
        yield multiple_one_of(*(f"{here}.{name}" for name in present))
    if not present and source.field_ref is None and source.resource_field_ref is None and source.file_key_ref is None:
        yield missing_one_of(*(f"{here}.{name}" for name in keys))
    for name, selector in keys.items():
        if selector is not None:
            for part in ("name", "key"):
                if not getattr(selector, part):
                    yield missing(f"{here}.{name}.{part}")


def _env_from(source: EnvFromSource, path: str) -> Iterator[FieldError]:
    if source.prefix and not VARIABLE.fullmatch(source.prefix):
        yield invalid(printable(source.prefix), f"{path}.prefix", _VARIABLE_WORDS)
    sources = {"configMapRef": source.config_map_ref, "secretRef": source.secret_ref}
    present = [name for name, ref in sources.items() if ref is not None]
    if len(present) != 1:
        yield (multiple_one_of if present else missing_one_of)(*(f"{path}.{name}" for name in sources))
    for name in present:
        ref = sources[name]
        if ref is not None and not ref.name:
            yield missing(f"{path}.{name}.name")


def _process(container: Container, path: str) -> Iterator[FieldError]:
    for name, strings in (("command", container.command), ("args", container.args)):
        for at, word in enumerate(strings):
            if "\0" in word:
                yield invalid(repr(word)[1:-1], f"{path}.{name}[{at}]", "must not contain a NUL byte")
    folder = container.working_dir
    if folder and (not folder.startswith("/") or "\0" in folder):
        yield invalid(folder.replace("\0", "\\0"), f"{path}.workingDir", "must be an absolute path")


def _image(image: str, path: str) -> Iterator[FieldError]:
    if not image:
        yield missing(path)
        return
    try:
        parse_image(image)
    except ValueError as problem:
        yield FieldError("Failed to parse image reference", (path,), f'image: "{image[:300]}", error: {problem}')


def _port(port: ContainerPort, path: str, role: str) -> Iterator[FieldError]:
    yield from refused(port, path)
    number = port.container_port
    if number in RESERVED_PORTS:
        text = f"{number} is a reserved port"
        yield invalid(text, f"{path}.containerPort", f"{text}, please use a different value")
    if not 0 <= number <= 65535:
        yield out_of_bounds(number, 0, 65535, f"{path}.containerPort")
    if role == "init":
        return
    if port.protocol not in ("", "TCP"):
        yield invalid(port.protocol, f"{path}.protocol")
    if port.name not in PORT_NAMES:
        yield FieldError(
            f"Port name {port.name[:63]} is not allowed", (path,), "Name must be empty, or one of: 'h2c', 'http1'"
        )


_LISTED = ", ".join(sorted(RESOURCES))


def _resources(container: Container, path: str) -> Iterator[FieldError]:
    resources = container.resources
    if resources is None:
        return
    yield from refused(resources, path)
    for name, amounts in (("limits", resources.limits), ("requests", resources.requests)):
        for key, amount in amounts.items():
            if key not in RESOURCES:
                yield invalid_key(key, f"{path}.{name}", f"unsupported resource: use {_LISTED}")
            if parse_quantity(amount) < 0:
                yield invalid(amount, f"{path}.{name}[{key}]", "must not be negative")
    for key in resources.limits.keys() & resources.requests.keys():
        if parse_quantity(resources.requests[key]) > parse_quantity(resources.limits[key]):
            details = f"must not exceed the limit, which is {resources.limits[key]}"
            yield invalid(resources.requests[key], f"{path}.requests[{key}]", details)


def _reserved(path: str) -> bool:
    """Whether nothing can be mounted at this path."""
    return path in RESERVED_PATHS or (
        path != SHARED_MEMORY and any(path == tree or path.startswith(f"{tree}/") for tree in RESERVED_TREES)
    )


def _mounts(
    container: Container, path: str, volumes: Mapping[str, Volume], features: FeaturesConfig
) -> Iterator[FieldError]:
    seen: set[str] = set()
    for at, mount in enumerate(container.volume_mounts):
        here = f"{path}.volumeMounts[{at}]"
        yield from refused(mount, here)
        volume = volumes.get(mount.name)
        if volume is None:
            yield FieldError("volumeMount has no matching volume", (f"{here}.name",))
        clean = posixpath.normpath(mount.mount_path).replace("//", "/")
        if not mount.mount_path:
            yield missing(f"{here}.mountPath")
        elif _reserved(clean):
            yield FieldError(f'mountPath "{clean}" is a reserved path', (f"{here}.mountPath",))
        elif not mount.mount_path.startswith("/"):
            yield invalid(mount.mount_path, f"{here}.mountPath")
        elif ":" in clean or ".." in mount.mount_path.split("/") or CONTROL.search(clean):
            reason = "must not contain ':', '..' or control characters"
            yield invalid(printable(mount.mount_path), f"{here}.mountPath", reason)
        elif clean in seen:
            yield invalid(f'"{mount.mount_path}" must be unique', f"{here}.mountPath")
        seen.add(clean)
        if mount.sub_path.startswith("/") or ".." in mount.sub_path.split("/") or CONTROL.search(mount.sub_path):
            reason = "must be a relative path without '..' and control characters"
            yield invalid(printable(mount.sub_path), f"{here}.subPath", reason)
        if volume is None:
            continue
        claim = volume.persistent_volume_claim
        if volume.empty_dir is None and claim is None and not mount.read_only:
            reason = "volume mount should be readOnly for this type of volume"
            yield FieldError(reason, (f"{here}.readOnly",))
        if claim is not None and claim.read_only and not mount.read_only:
            yield FieldError("volume is readOnly but volume mount is not", (f"{here}.readOnly",))
