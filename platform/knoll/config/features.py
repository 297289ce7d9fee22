"""`config-features`: what of Kubernetes' pods a Revision may use beyond the usual."""

from dataclasses import dataclass, fields
from typing import Literal

from knoll.config.reader import Data, Reader

NAME = "config-features"

Flag = Literal["Enabled", "Allowed", "Disabled"]
_CHOICES: tuple[Flag, ...] = ("Enabled", "Allowed", "Disabled")


@dataclass(frozen=True, slots=True)
class FeaturesConfig:
    """Flags. `Allowed` takes what `Enabled` takes, and does nothing on its own."""

    multi_container: Flag = "Enabled"
    multi_container_probing: Flag = "Disabled"
    pod_spec_affinity: Flag = "Disabled"
    pod_spec_topology_spread_constraints: Flag = "Disabled"
    pod_spec_field_ref: Flag = "Disabled"
    pod_spec_host_aliases: Flag = "Disabled"
    pod_spec_node_selector: Flag = "Disabled"
    pod_spec_runtime_class_name: Flag = "Disabled"
    pod_spec_security_context: Flag = "Disabled"
    pod_spec_share_process_namespace: Flag = "Disabled"
    pod_spec_host_ipc: Flag = "Disabled"
    pod_spec_host_pid: Flag = "Disabled"
    pod_spec_host_network: Flag = "Disabled"
    pod_spec_priority_class_name: Flag = "Disabled"
    pod_spec_scheduler_name: Flag = "Disabled"
    pod_spec_tolerations: Flag = "Disabled"
    pod_spec_dns_policy: Flag = "Disabled"
    pod_spec_dns_config: Flag = "Disabled"
    pod_spec_init_containers: Flag = "Disabled"
    pod_spec_empty_dir: Flag = "Enabled"
    pod_spec_host_path: Flag = "Disabled"
    pod_spec_csi: Flag = "Disabled"
    pod_spec_image_volume: Flag = "Disabled"
    pod_spec_mount_propagation: Flag = "Disabled"
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
    "pod_spec_host_aliases": "kubernetes.podspec-hostaliases",
    "pod_spec_node_selector": "kubernetes.podspec-nodeselector",
    "pod_spec_runtime_class_name": "kubernetes.podspec-runtimeclassname",
    "pod_spec_security_context": "kubernetes.podspec-securitycontext",
    "pod_spec_share_process_namespace": "kubernetes.podspec-shareprocessnamespace",
    "pod_spec_host_ipc": "kubernetes.podspec-hostipc",
    "pod_spec_host_pid": "kubernetes.podspec-hostpid",
    "pod_spec_host_network": "kubernetes.podspec-hostnetwork",
    "pod_spec_priority_class_name": "kubernetes.podspec-priorityclassname",
    "pod_spec_scheduler_name": "kubernetes.podspec-schedulername",
    "pod_spec_tolerations": "kubernetes.podspec-tolerations",
    "pod_spec_dns_policy": "kubernetes.podspec-dnspolicy",
    "pod_spec_dns_config": "kubernetes.podspec-dnsconfig",
    "pod_spec_init_containers": "kubernetes.podspec-init-containers",
    "pod_spec_empty_dir": "kubernetes.podspec-volumes-emptydir",
    "pod_spec_host_path": "kubernetes.podspec-volumes-hostpath",
    "pod_spec_csi": "kubernetes.podspec-volumes-csi",
    "pod_spec_image_volume": "kubernetes.podspec-volumes-image",
    "pod_spec_mount_propagation": "kubernetes.podspec-volumes-mount-propagation",
    "pod_spec_persistent_volume_claim": "kubernetes.podspec-persistent-volume-claim",
    "pod_spec_persistent_volume_write": "kubernetes.podspec-persistent-volume-write",
    "container_spec_add_capabilities": "kubernetes.containerspec-addcapabilities",
    "tag_header_based_routing": "tag-header-based-routing",
    "secure_pod_defaults": "secure-pod-defaults",
}
"""Name of each flag here to its key in the ConfigMap."""

_SECURE_CHOICES = ("Enabled", "AllowRootBounded", "Allowed", "Disabled")


def parse(data: Data) -> FeaturesConfig:
    """Raises: InvalidConfigError."""
    read = Reader(NAME, data)
    found = {
        item.name: read.choice(
            KEYS[item.name],
            str(item.default),
            _SECURE_CHOICES if item.name == "secure_pod_defaults" else _CHOICES,
        )
        for item in fields(FeaturesConfig)
    }
    if read.choice("autodetect-http2", "Disabled", _CHOICES) == "Enabled":
        read.refuse("autodetect-http2", "containers are not asked what they speak; name a port that speaks HTTP/2 h2c")
    read.finish()
    return FeaturesConfig(**found)  # type: ignore[arg-type]  # `choice` returns one of the choices


_WORDS = {
    "multi_container": "Several containers in one instance.",
    "multi_container_probing": "Probes of containers that do not take the requests.",
    "pod_spec_affinity": "affinity. Everything runs on one engine: it is kept and has no effect.",
    "pod_spec_topology_spread_constraints": "topologySpreadConstraints. Kept, no effect.",
    "pod_spec_field_ref": "fieldRef and resourceFieldRef in env.",
    "pod_spec_host_aliases": "hostAliases.",
    "pod_spec_node_selector": "nodeSelector. Kept, no effect.",
    "pod_spec_runtime_class_name": "runtimeClassName.",
    "pod_spec_security_context": "The securityContext of all containers together.",
    "pod_spec_share_process_namespace": "shareProcessNamespace.",
    "pod_spec_host_ipc": "hostIPC. Opens the machine to the container: think twice.",
    "pod_spec_host_pid": "hostPID. Opens the machine to the container: think twice.",
    "pod_spec_host_network": "hostNetwork. Opens the machine to the container: think twice.",
    "pod_spec_priority_class_name": "priorityClassName. Kept, no effect.",
    "pod_spec_scheduler_name": "schedulerName. Kept, no effect.",
    "pod_spec_tolerations": "tolerations. Kept, no effect.",
    "pod_spec_dns_policy": "dnsPolicy.",
    "pod_spec_dns_config": "dnsConfig.",
    "pod_spec_init_containers": "Containers that run to their end first.",
    "pod_spec_empty_dir": "Volumes of kind emptyDir.",
    "pod_spec_host_path": "Volumes of kind hostPath. Opens the machine's files: think twice.",
    "pod_spec_csi": "Volumes of kind csi.",
    "pod_spec_image_volume": "Volumes of kind image.",
    "pod_spec_mount_propagation": "mountPropagation of volume mounts.",
    "pod_spec_persistent_volume_claim": "Volumes of kind persistentVolumeClaim.",
    "pod_spec_persistent_volume_write": "Writing to them.",
    "container_spec_add_capabilities": "Adding Linux capabilities other than NET_BIND_SERVICE.",
    "tag_header_based_routing": "Choosing a tag by the header Knative-Serving-Tag.",
    "secure_pod_defaults": "Strict security settings where a container says nothing.",
}

EXPLAINED = (
    "# Each is enabled, allowed or disabled.\n"
    + "".join(
        f'# {_WORDS[item.name]}\n{KEYS[item.name]}: "{str(item.default).lower()}"\n' for item in fields(FeaturesConfig)
    )
    + """\
# Finding out what a container speaks: always disabled. A port that speaks HTTP/2 is named h2c.
autodetect-http2: "disabled"
"""
)
