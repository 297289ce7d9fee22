"""Every label, annotation, finalizer and well-known value that Knoll reads or writes."""

from collections.abc import Mapping

SYSTEM_NAMESPACE = "knative-serving"
"""Namespace of the platform's own objects: its configuration and its owner's ServiceAccount."""

SERVING = "serving.knative.dev/"
_AUTOSCALING = "autoscaling.knative.dev/"
_NETWORKING = "networking.knative.dev/"

# Labels.
SERVICE = SERVING + "service"
SERVICE_UID = SERVING + "serviceUID"
CONFIGURATION = SERVING + "configuration"
CONFIGURATION_UID = SERVING + "configurationUID"
CONFIGURATION_GENERATION = SERVING + "configurationGeneration"
REVISION = SERVING + "revision"
REVISION_UID = SERVING + "revisionUID"
ROUTE = SERVING + "route"
ROUTING_STATE = SERVING + "routingState"
"""Label of a Revision: one of the three below."""
ACTIVE, RESERVE, PENDING = "active", "reserve", "pending"
VISIBILITY = _NETWORKING + "visibility"
CLUSTER_LOCAL = "cluster-local"
"""Value of `VISIBILITY`: reachable from instances only."""
APP = "app"

# Annotations.
CREATOR = SERVING + "creator"
LAST_MODIFIER = SERVING + "lastModifier"
ROUTES = SERVING + "routes"
ROUTING_STATE_MODIFIED = SERVING + "routingStateModified"
REVISION_PRESERVED = SERVING + "no-gc"
ROLLOUT_DURATION = SERVING + "rollout-duration"
ROLLOUT_IN_PROGRESS = SERVING + "rollout"
PROGRESS_DEADLINE = SERVING + "progress-deadline"
FORCE_UPGRADE = SERVING + "forceUpgrade"
LAST_PINNED = SERVING + "lastPinned"
QUEUE_SIDECAR_PREFIX = "queue.sidecar." + SERVING
QUEUE_SIDECAR_PERCENTAGE = QUEUE_SIDECAR_PREFIX + "resource-percentage"
QUEUE_SIDECAR_AMOUNTS = tuple(
    f"{QUEUE_SIDECAR_PREFIX}{quantity}-resource-{kind}"
    for quantity in ("cpu", "memory", "ephemeral-storage")
    for kind in ("request", "limit")
)
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
HTTP_PROTOCOL = _NETWORKING + "http-protocol"

AUTOCREATED = "knoll.dev/autocreated"
"""On a ClusterDomainClaim that was created for a DomainMapping and is deleted with it: its namespace."""

# Older spellings, read where the newer one is absent.
ALIASES: dict[str, tuple[str, ...]] = {
    ROLLOUT_DURATION: (SERVING + "rolloutDuration",),
    HTTP_PROTOCOL: (_NETWORKING + "httpProtocol", _NETWORKING + "httpOption"),
}

# Autoscaling annotations.
AUTOSCALING_PREFIX = _AUTOSCALING
CLASS = _AUTOSCALING + "class"
METRIC = _AUTOSCALING + "metric"
MIN_SCALE = _AUTOSCALING + "min-scale"
MAX_SCALE = _AUTOSCALING + "max-scale"
INITIAL_SCALE = _AUTOSCALING + "initial-scale"
ACTIVATION_SCALE = _AUTOSCALING + "activation-scale"
TARGET = _AUTOSCALING + "target"
TARGET_UTILIZATION = _AUTOSCALING + "target-utilization-percentage"
TARGET_BURST_CAPACITY = _AUTOSCALING + "target-burst-capacity"
WINDOW = _AUTOSCALING + "window"
PANIC_WINDOW = _AUTOSCALING + "panic-window-percentage"
PANIC_THRESHOLD = _AUTOSCALING + "panic-threshold-percentage"
SCALE_DOWN_DELAY = _AUTOSCALING + "scale-down-delay"
POD_RETENTION = _AUTOSCALING + "scale-to-zero-pod-retention-period"
AGGREGATION_ALGORITHM = _AUTOSCALING + "metric-aggregation-algorithm"
PAUSED_RETENTION = "knoll.dev/paused-retention-period"
"""Time that an idle instance stays paused; 0 or absent disables it."""
STOPPED_RETENTION = "knoll.dev/stopped-retention-period"
"""Time that it then stays stopped before it is removed."""
WARM_SCHEDULE = "knoll.dev/warm-schedule"
"""Times at which instances are kept independent of load; see `annotations.warm_schedule`."""
ROLLOUT_SCALE = "knoll.dev/rollout-scale"
"""Set by the Route on a Revision that is rolled out: the number of instances that its next share of traffic needs."""
ROLLOUT_FROM = "knoll.dev/rollout-from"
"""Set by the Route on a Revision that is compared with its predecessor: the name of the predecessor."""
OF_ROLLOUT = frozenset({ROLLOUT_SCALE, ROLLOUT_FROM})
ROLLBACK_ON = "knoll.dev/rollback-on"
"""Rules that roll back a new Revision; see `annotations.rollback`."""
ROLLBACK = "knoll.dev/rollback"
"""In a Route's status: Revisions that are compared with their predecessors or were rolled back, as JSON. In a
Revision's status: why it performs worse than its predecessor."""
IDLE_RETENTIONS = frozenset({PAUSED_RETENTION, STOPPED_RETENTION})
ON_TEMPLATE = IDLE_RETENTIONS | {WARM_SCHEDULE, ROLLBACK_ON}
"""Our annotations that configure the scaling of a Revision."""
KEPT_MEMORY = "knoll.dev/kept-memory-bytes"
"""On a Pod whose instance is paused: the memory that it keeps."""

ALIASES |= {
    MIN_SCALE: (_AUTOSCALING + "minScale",),
    MAX_SCALE: (_AUTOSCALING + "maxScale",),
    INITIAL_SCALE: (_AUTOSCALING + "initialScale",),
    ACTIVATION_SCALE: (_AUTOSCALING + "activationScale",),
    TARGET_UTILIZATION: (_AUTOSCALING + "targetUtilizationPercentage",),
    TARGET_BURST_CAPACITY: (_AUTOSCALING + "targetBurstCapacity",),
    PANIC_WINDOW: (_AUTOSCALING + "panicWindowPercentage",),
    PANIC_THRESHOLD: (_AUTOSCALING + "panicThresholdPercentage",),
    SCALE_DOWN_DELAY: (_AUTOSCALING + "scaleDownDelay",),
    POD_RETENTION: (_AUTOSCALING + "scaleToZeroPodRetentionPeriod",),
    AGGREGATION_ALGORITHM: (_AUTOSCALING + "metricAggregationAlgorithm",),
}

# Finalizers.
ROUTE_FINALIZER = "routes.serving.knative.dev"


def find_annotation(annotations: Mapping[str, str], key: str) -> tuple[str, str | None]:
    """The present spelling of `key` and its value; the key itself and None if there is none."""
    for spelling in (key, *ALIASES.get(key, ())):
        if spelling in annotations:
            return spelling, annotations[spelling]
    return key, None
