"""`config-features`: optional fields of Kubernetes' PodSpec that a Revision may use."""

from dataclasses import dataclass, fields
from typing import Literal

from knoll.config.reader import ConfigMapReader, Data

NAME = "config-features"

Flag = Literal["Enabled", "Allowed", "Disabled"]
_CHOICES: tuple[Flag, ...] = ("Enabled", "Allowed", "Disabled")


@dataclass(frozen=True, slots=True)
class FeaturesConfig:
    """Flags. `Allowed` accepts the same fields as `Enabled`, but changes no defaults."""

    multi_container: Flag = "Enabled"
    multi_container_probing: Flag = "Disabled"
    pod_spec_affinity: Flag = "Disabled"
    pod_spec_topology_spread_constraints: Flag = "Disabled"
    pod_spec_field_ref: Flag = "Disabled"
    pod_spec_node_selector: Flag = "Disabled"
    pod_spec_security_context: Flag = "Disabled"
    pod_spec_priority_class_name: Flag = "Disabled"
    pod_spec_scheduler_name: Flag = "Disabled"
    pod_spec_tolerations: Flag = "Disabled"
    pod_spec_init_containers: Flag = "Disabled"
    pod_spec_empty_dir: Flag = "Enabled"
    pod_spec_persistent_volume_claim: Flag = "Disabled"
    pod_spec_persistent_volume_write: Flag = "Disabled"
    container_spec_add_capabilities: Flag = "Disabled"
    tag_header_based_routing: Flag = "Disabled"
    secure_pod_defaults: Literal["Enabled", "AllowRootBounded", "Allowed", "Disabled"] = "Disabled"


KEYS = {
    "multi_container": "multi-container",
    "multi_container_probing": "multi-container-probing",
    "pod_spec_affinity": "kubernetes.podspec-affinity",
    "pod_spec_topology_spread_constraints": "kubernetes.podspec-topologyspreadconstraints",
    "pod_spec_field_ref": "kubernetes.podspec-fieldref",
    "pod_spec_node_selector": "kubernetes.podspec-nodeselector",
    "pod_spec_security_context": "kubernetes.podspec-securitycontext",
    "pod_spec_priority_class_name": "kubernetes.podspec-priorityclassname",
    "pod_spec_scheduler_name": "kubernetes.podspec-schedulername",
    "pod_spec_tolerations": "kubernetes.podspec-tolerations",
    "pod_spec_init_containers": "kubernetes.podspec-init-containers",
    "pod_spec_empty_dir": "kubernetes.podspec-volumes-emptydir",
    "pod_spec_persistent_volume_claim": "kubernetes.podspec-persistent-volume-claim",
    "pod_spec_persistent_volume_write": "kubernetes.podspec-persistent-volume-write",
    "container_spec_add_capabilities": "kubernetes.containerspec-addcapabilities",
    "tag_header_based_routing": "tag-header-based-routing",
    "secure_pod_defaults": "secure-pod-defaults",
}
"""Name of each flag here to its key in the ConfigMap."""

_NEVER = {
    "autodetect-http2": "the protocol of a container is not detected; name its port h2c for HTTP/2",
    "kubernetes.podspec-hostaliases": "instances cannot have hostAliases",
    "kubernetes.podspec-hostipc": "instances do not share the host's IPC namespace",
    "kubernetes.podspec-hostnetwork": "instances do not share the host's network namespace",
    "kubernetes.podspec-hostpid": "instances do not share the host's process namespace",
    "kubernetes.podspec-runtimeclassname": "instances run with the engine's default runtime",
    "kubernetes.podspec-dnspolicy": "instances always use the platform's DNS server",
    "kubernetes.podspec-dnsconfig": "instances always use the platform's DNS server",
    "kubernetes.podspec-shareprocessnamespace": "containers of an instance do not share a process namespace",
    "kubernetes.podspec-volumes-hostpath": "volumes cannot mount files of the host; use a PersistentVolumeClaim",
    "kubernetes.podspec-volumes-csi": "csi volumes are not supported",
    "kubernetes.podspec-volumes-image": "image volumes are not supported",
    "kubernetes.podspec-volumes-mount-propagation": "mounts are not propagated",
}
"""Knative's keys for features that are not supported here, with the reason: the only valid value is disabled."""

_SECURE_CHOICES = ("Enabled", "AllowRootBounded", "Allowed", "Disabled")


def parse(data: Data) -> FeaturesConfig:
    """Raises: InvalidConfigError."""
    read = ConfigMapReader(NAME, data)
    flags = {
        item.name: read.choice(
            KEYS[item.name],
            str(item.default),
            _SECURE_CHOICES if item.name == "secure_pod_defaults" else _CHOICES,
        )
        for item in fields(FeaturesConfig)
    }
    for key, reason in _NEVER.items():
        if read.choice(key, "Disabled", _CHOICES) != "Disabled":
            read.refuse(key, f"cannot be enabled: {reason}")
    read.finish()
    return FeaturesConfig(**flags)  # type: ignore[arg-type]  # `choice` returns one of the choices


_WORDS = {
    "multi_container": "Several containers in one instance.",
    "multi_container_probing": "Probes of containers that do not receive requests.",
    "pod_spec_affinity": "affinity. Only required node affinity has an effect, on several machines.",
    "pod_spec_topology_spread_constraints": "topologySpreadConstraints. Accepted, but without effect.",
    "pod_spec_field_ref": "fieldRef and resourceFieldRef in env.",
    "pod_spec_node_selector": "nodeSelector. It has an effect on several machines.",
    "pod_spec_security_context": "The securityContext of the Pod.",
    "pod_spec_priority_class_name": "priorityClassName. Accepted, but without effect.",
    "pod_spec_scheduler_name": "schedulerName. Accepted, but without effect.",
    "pod_spec_tolerations": "tolerations. Accepted, but without effect.",
    "pod_spec_init_containers": "Init containers, which run to completion before the others start.",
    "pod_spec_empty_dir": "Volumes of type emptyDir.",
    "pod_spec_persistent_volume_claim": "Volumes of type persistentVolumeClaim.",
    "pod_spec_persistent_volume_write": "Volumes of type persistentVolumeClaim that are not read-only.",
    "container_spec_add_capabilities": "Adding Linux capabilities other than NET_BIND_SERVICE.",
    "tag_header_based_routing": "Selecting a tag with the request header Knative-Serving-Tag.",
    "secure_pod_defaults": "Strict security settings as the default of all containers.",
}

EXPLAINED = (
    "# Each flag is enabled, allowed or disabled.\n"
    + "".join(
        f'# {_WORDS[item.name]}\n{KEYS[item.name]}: "{str(item.default).lower()}"\n' for item in fields(FeaturesConfig)
    )
    + "".join(f'# Not supported: {reason}.\n{key}: "disabled"\n' for key, reason in _NEVER.items())
)
