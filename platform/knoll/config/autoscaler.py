"""`config-autoscaler`: the number of instances and how fast it changes."""

from dataclasses import dataclass

from knoll.config.reader import ConfigMapReader, Data

NAME = "config-autoscaler"

KPA = "kpa.autoscaling.knative.dev"
HPA = "hpa.autoscaling.knative.dev"
WINDOW_MIN, WINDOW_MAX = 6, 3600
"""Seconds."""
REST_MAX = 30 * 24 * 3600
"""Maximum number of seconds for which an instance stays in one idle state."""
TARGET_MIN = 0.01


@dataclass(frozen=True, slots=True)
class AutoscalerConfig:
    """Units are converted: fractions instead of percentages, seconds instead of durations."""

    container_concurrency_target_fraction: float = 0.7
    container_concurrency_target_default: float = 100.0
    """Concurrent requests per instance."""
    requests_per_second_target_default: float = 200.0
    target_burst_capacity: float = 211.0
    """Concurrent requests; -1 keeps the activator in the path always, 0 only at zero."""
    stable_window_seconds: float = 60
    panic_window_fraction: float = 0.1
    """As a fraction of the stable window."""
    panic_threshold_fraction: float = 2.0
    """As a fraction of what the ready instances can handle."""
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    enable_scale_to_zero: bool = True
    scale_to_zero_grace_seconds: float = 30
    scale_to_zero_retention_seconds: float = 0
    pod_autoscaler_class: str = KPA
    activator_capacity: float = 100.0
    initial_scale: int = 1
    allow_zero_initial_scale: bool = False
    min_scale: int = 0
    max_scale: int = 0
    """0 is no limit."""
    max_scale_limit: int = 0
    """Upper bound of a Revision's max-scale; 0 is no limit."""
    scale_down_delay_seconds: float = 0
    paused_retention_seconds: float = 0
    stopped_retention_seconds: float = 0


def parse(data: Data) -> AutoscalerConfig:
    """Raises: InvalidConfigError."""
    read = ConfigMapReader(NAME, data)
    default = AutoscalerConfig()
    config = AutoscalerConfig(
        container_concurrency_target_fraction=_fraction(read),
        container_concurrency_target_default=read.number("container-concurrency-target-default", 100.0),
        requests_per_second_target_default=read.number("requests-per-second-target-default", 200.0),
        target_burst_capacity=read.number("target-burst-capacity", default.target_burst_capacity),
        stable_window_seconds=read.seconds("stable-window", 60, WINDOW_MIN, WINDOW_MAX, whole=True),
        panic_window_fraction=read.number("panic-window-percentage", 10.0) / 100,
        panic_threshold_fraction=read.number("panic-threshold-percentage", 200.0) / 100,
        max_scale_up_rate=read.number("max-scale-up-rate", default.max_scale_up_rate),
        max_scale_down_rate=read.number("max-scale-down-rate", default.max_scale_down_rate),
        enable_scale_to_zero=read.flag("enable-scale-to-zero", True),
        scale_to_zero_grace_seconds=read.seconds("scale-to-zero-grace-period", 30, WINDOW_MIN),
        scale_to_zero_retention_seconds=read.seconds("scale-to-zero-pod-retention-period", 0),
        pod_autoscaler_class=read.text("pod-autoscaler-class", KPA) or KPA,
        activator_capacity=read.number("activator-capacity", default.activator_capacity),
        initial_scale=read.whole("initial-scale", 1),
        allow_zero_initial_scale=read.flag("allow-zero-initial-scale", False),
        min_scale=read.whole("min-scale", 0),
        max_scale=read.whole("max-scale", 0),
        max_scale_limit=read.whole("max-scale-limit", 0),
        scale_down_delay_seconds=read.seconds("scale-down-delay", 0, 0, WINDOW_MAX, whole=True),
        paused_retention_seconds=read.seconds("paused-retention-period", 0, 0, REST_MAX),
        stopped_retention_seconds=read.seconds("stopped-retention-period", 0, 0, REST_MAX),
    )
    _check(config, read)
    read.finish()
    return config


def _fraction(read: ConfigMapReader) -> float:
    # Both 70 and 0.7 mean seventy percent.
    value = read.number("container-concurrency-target-percentage", 70.0)
    fraction = value / 100 if value > 1 else value
    if not 0 < fraction <= 1:
        read.refuse("container-concurrency-target-percentage", f"must be above 0 and at most 100, not {value:g}")
        return 0.7
    return fraction


def _check(config: AutoscalerConfig, read: ConfigMapReader) -> None:
    target = config.container_concurrency_target_default
    too_low = f"multiplied by container-concurrency-target-percentage, it must be at least {TARGET_MIN}"
    if target * config.container_concurrency_target_fraction < TARGET_MIN:
        read.refuse("container-concurrency-target-default", too_low)
    if config.requests_per_second_target_default * config.container_concurrency_target_fraction < TARGET_MIN:
        read.refuse("requests-per-second-target-default", too_low)
    if config.target_burst_capacity < 0 and config.target_burst_capacity != -1:
        read.refuse("target-burst-capacity", f"must be at least 0, or -1, not {config.target_burst_capacity:g}")
    if not 0 < config.panic_window_fraction <= 1:
        read.refuse("panic-window-percentage", "must be above 0 and at most 100")
    elif config.panic_window_fraction * config.stable_window_seconds < 1:
        seconds = config.panic_window_fraction * config.stable_window_seconds
        read.refuse("panic-window-percentage", f"results in a panic window of {seconds:g} s; it must be at least 1 s")
    if config.panic_threshold_fraction < 1.1:
        read.refuse("panic-threshold-percentage", "must be at least 110")
    for key, rate in (
        ("max-scale-up-rate", config.max_scale_up_rate),
        ("max-scale-down-rate", config.max_scale_down_rate),
    ):
        if rate <= 1:
            read.refuse(key, f"must be above 1, not {rate:g}")
    if config.activator_capacity < 1:
        read.refuse("activator-capacity", f"must be at least 1, not {config.activator_capacity:g}")
    if config.initial_scale == 0 and not config.allow_zero_initial_scale:
        read.refuse("initial-scale", "may be 0 only with allow-zero-initial-scale: true")
    if config.max_scale and config.min_scale > config.max_scale:
        read.refuse("min-scale", f"must not be above max-scale, which is {config.max_scale}")
    if config.max_scale_limit and not 0 < config.max_scale <= config.max_scale_limit:
        read.refuse("max-scale", f"must be between 1 and max-scale-limit, which is {config.max_scale_limit}")


EXPLAINED = """\
# Desired utilization of an instance, in percent of its target.
container-concurrency-target-percentage: "70"
# Default target of concurrent requests per instance, without containerConcurrency and annotations.
container-concurrency-target-default: "100"
# Default target of requests per second per instance, for the metric rps.
requests-per-second-target-default: "200"
# Target burst capacity in concurrent requests: with less spare capacity, the activator stays in the path. With -1 it
# always stays, with 0 only while there is no instance.
target-burst-capacity: "211"
# Stable window over which load is averaged, 6s to 1h.
stable-window: "60s"
# Panic window for sudden load, in percent of the stable window.
panic-window-percentage: "10.0"
# Load that starts panic mode, in percent of what the ready instances can handle; at least 110.
panic-threshold-percentage: "200.0"
# Maximum factor by which one decision increases the number of instances.
max-scale-up-rate: "1000.0"
# Maximum factor by which one decision decreases the number of instances.
max-scale-down-rate: "2.0"
# Whether services without requests scale to zero.
enable-scale-to-zero: "true"
# Maximum time that the last instance is kept while the network is reconfigured; at least 6s. No effect: the gateway is
# always in the path, so nothing is reconfigured.
scale-to-zero-grace-period: "30s"
# Minimum time that the last instance is kept after the decision to scale to zero.
scale-to-zero-pod-retention-period: "0s"
# Default autoscaler class.
pod-autoscaler-class: "kpa.autoscaling.knative.dev"
# Capacity of one activator in concurrent requests. No effect: all activators are in the path of all services.
activator-capacity: "100.0"
# Number of instances that a new Revision starts with.
initial-scale: "1"
# Whether initial-scale may be 0.
allow-zero-initial-scale: "false"
# Default minimum number of instances.
min-scale: "0"
# Default maximum number of instances; 0 is no limit.
max-scale: "0"
# Time that lower load must last before instances are removed, 0s to 1h.
scale-down-delay: "0s"
# Upper bound of max-scale in annotations; 0 is no limit.
max-scale-limit: "0"
# Time that an idle instance stays paused with its memory kept; a request resumes it in milliseconds. 0s disables it.
# Per Revision: annotation knoll.dev/paused-retention-period.
paused-retention-period: "0s"
# Time that it then stays stopped, with its memory freed and its files kept, before it is removed.
# Per Revision: annotation knoll.dev/stopped-retention-period.
stopped-retention-period: "0s"
"""
