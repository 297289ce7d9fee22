"""Validation of annotations and labels. Pure; every function returns all problems.

Source: the rules and messages of knative.dev/serving, pkg/apis/autoscaling and pkg/apis/serving.
"""

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

from knoll.config.autoscaler import HPA, KPA, REST_MAX, TARGET_MIN, WINDOW_MAX, WINDOW_MIN, AutoscalerConfig
from knoll.resources.annotations.rollback import parse_policy
from knoll.resources.annotations.warm_schedule import parse_windows
from knoll.resources.models.meta import ObjectMeta
from knoll.resources.validation.problems import invalid, invalid_key, missing, out_of_bounds
from knoll.values import labels as well_known
from knoll.values.duration import format_duration, parse_duration
from knoll.values.errors import FieldError
from knoll.values.names import dns_1035_problems, joined
from knoll.values.numbers import INT32_MAX, WHOLE, parse_number
from knoll.values.quantity import parse_quantity

Annotations = Mapping[str, str]

CONCURRENCY, RPS = "concurrency", "rps"
CPU, MEMORY = "cpu", "memory"
ALGORITHMS = ("linear", "weightedExponential", "weighted-exponential")

_ALLOWED = frozenset(
    {
        well_known.CREATOR, well_known.LAST_MODIFIER, well_known.LAST_PINNED, well_known.ROUTING_STATE_MODIFIED,
        well_known.FORCE_UPGRADE, well_known.REVISION_PRESERVED, well_known.ROUTES, well_known.ROLLOUT_DURATION,
        *well_known.ALIASES[well_known.ROLLOUT_DURATION], well_known.ROLLOUT_IN_PROGRESS, well_known.PROGRESS_DEADLINE,
    }
)  # fmt: skip
_AUTOSCALING_ON_TEMPLATE = 'autoscaling annotations must be put under "spec.template.metadata.annotations" to work'


def metadata_problems(meta: ObjectMeta, config: AutoscalerConfig, *, autoscaling: bool = False) -> Iterator[FieldError]:
    """Problems of the name and annotations of an object.

    Args:
        autoscaling: whether autoscaling annotations have an effect on this kind.
    """
    path = "metadata.annotations"
    if meta.generate_name and (problems := dns_1035_problems(meta.generate_name, prefix=True)):
        yield FieldError(f"not a DNS 1035 label prefix: {joined(problems)}", ("metadata.generateName",))
    if meta.name and (problems := dns_1035_problems(meta.name)):
        yield FieldError(f"not a DNS 1035 label: {joined(problems)}", ("metadata.name",))
    if not meta.name and not meta.generate_name:
        yield FieldError("name or generateName is required", ("metadata.name",))
    yield from knative_key_problems(meta.annotations, path)
    if autoscaling:
        yield from autoscaling_problems(meta.annotations, config, path)
        return
    for key in meta.annotations:
        if key.startswith(well_known.AUTOSCALING_PREFIX) or key in well_known.ON_TEMPLATE:
            yield invalid_key(key, path, _AUTOSCALING_ON_TEMPLATE)


def knative_key_problems(annotations: Annotations, path: str) -> Iterator[FieldError]:
    """Unknown keys of Knative's group."""
    for key in annotations:
        if key.startswith(well_known.SERVING) and key not in _ALLOWED:
            yield invalid_key(key, path)


def label_problems(meta: ObjectMeta, allowed: frozenset[str], owners: Mapping[str, str]) -> Iterator[FieldError]:
    """Problems of labels of Knative's group.

    Args:
        allowed: keys that are valid for this kind.
        owners: keys whose value must be the name of the owner of that kind.
    """
    for key, value in meta.labels.items():
        if key == well_known.VISIBILITY and value != well_known.CLUSTER_LOCAL:
            yield invalid(value, f"metadata.labels.{key}")
        if key in owners:
            kind = owners[key]
            if not any(owner.kind == kind and owner.name == value for owner in meta.owner_references):
                yield missing(f"metadata.labels.{key}")
        elif key.startswith(well_known.SERVING) and key not in allowed:
            yield invalid_key(key, "metadata.labels")


def rollout_duration_problems(annotations: Annotations) -> Iterator[FieldError]:
    """Problems of the rollout duration."""
    key, value = well_known.find_annotation(annotations, well_known.ROLLOUT_DURATION)
    if value is None:
        return
    path = f"metadata.annotations.{key}"
    try:
        duration = parse_duration(value)
    except ValueError as problem:
        yield invalid(value, path, str(problem))
        return
    if duration.denominator != 1:
        yield FieldError(f"rolloutDuration={value} is not at second precision", (path,))
    if duration < 0:
        yield FieldError(f"rolloutDuration={value} must be positive", (path,))


def progress_deadline_problems(annotations: Annotations, path: str) -> Iterator[FieldError]:
    """Problems of the progress deadline."""
    key, value = well_known.find_annotation(annotations, well_known.PROGRESS_DEADLINE)
    if value is None:
        return
    here = f"{path}.{key}"
    try:
        duration = parse_duration(value)
    except ValueError as problem:
        yield invalid(value, here, str(problem))
        return
    if duration.denominator != 1:
        yield FieldError(f"progress-deadline={value} is not at second precision", (here,))
    if duration <= 0:
        yield FieldError(f"progress-deadline={value} must be positive", (here,))


def queue_sidecar_problems(annotations: Annotations, path: str) -> Iterator[FieldError]:
    """Problems of the resources of Knative's queue-proxy, which are validated although there is none here."""
    value = annotations.get(well_known.QUEUE_SIDECAR_PERCENTAGE)
    if value is not None:
        here = f"{path}[{well_known.QUEUE_SIDECAR_PERCENTAGE}]"
        number = _number(value)
        if number is None:
            yield invalid(value, here)
        elif not 0.1 <= number <= 100:
            yield out_of_bounds(value, 0.1, 100, here)
    for key in well_known.QUEUE_SIDECAR_AMOUNTS:
        if key in annotations:
            try:
                parse_quantity(annotations[key])
            except ValueError as problem:
                yield invalid(annotations[key], f"{path}[{key}]", str(problem))


def autoscaling_problems(annotations: Annotations, config: AutoscalerConfig, path: str) -> Iterator[FieldError]:
    """Problems of all autoscaling annotations, in both spellings."""
    for rule in _RULES:
        yield from rule(_Found(annotations, path), config)


class _Found:
    """Look-ups of annotations in every spelling."""

    def __init__(self, annotations: Annotations, path: str) -> None:
        self._annotations = annotations
        self._path = path

    def get(self, key: str) -> tuple[str | None, str]:
        """The value and its path."""
        spelling, value = well_known.find_annotation(self._annotations, key)
        return value, f"{self._path}.{spelling}"

    def has(self, key: str) -> bool:
        return self.get(key)[0] is not None


def _number(value: str) -> float | None:
    try:
        return parse_number(value)
    except ValueError:
        return None


def _class(annotations: _Found, config: AutoscalerConfig) -> Iterator[FieldError]:
    value, path = annotations.get(well_known.CLASS)
    if value is not None and value.endswith("autoscaling.knative.dev") and value not in (KPA, HPA):
        yield invalid(value, path)


def _scales(annotations: _Found, config: AutoscalerConfig) -> Iterator[FieldError]:
    numbers = {}
    for key in (well_known.MIN_SCALE, well_known.MAX_SCALE):
        value, path = annotations.get(key)
        number = int(value) if value is not None and WHOLE.fullmatch(value) else 0
        if value is not None and not WHOLE.fullmatch(value):
            yield invalid(value, path)
        elif not 0 <= number <= INT32_MAX:
            yield out_of_bounds(value, 0, INT32_MAX, path)
            number = 0
        numbers[key] = number
    least, most = numbers[well_known.MIN_SCALE], numbers[well_known.MAX_SCALE]
    where = (annotations.get(well_known.MAX_SCALE)[1], annotations.get(well_known.MIN_SCALE)[1])
    if most and most < least:
        yield FieldError(f"max-scale={most} is less than min-scale={least}", where)
    limit = config.max_scale_limit
    if limit and annotations.has(well_known.MAX_SCALE):
        if most > limit:
            yield out_of_bounds(most, 1, limit, where[0])
        if most == 0:
            yield FieldError(f"max-scale=0 (unlimited), must be less than {limit}", where[:1])
    yield from _activation_scale(annotations, least, most)


def _activation_scale(annotations: _Found, least: int, most: int) -> Iterator[FieldError]:
    value, path = annotations.get(well_known.ACTIVATION_SCALE)
    if value is None:
        return
    number = int(value) if WHOLE.fullmatch(value) else None
    if number is None or number > INT32_MAX:
        yield invalid(value, path)
    elif least > number:
        yield FieldError(f"min-scale={least} is greater than activation-scale={number}", (path,))
    elif most and most < number:
        yield FieldError(f"max-scale={most} is less than activation-scale={number}", (path,))
    elif number < 2:
        yield FieldError(f"activation-scale={number} must be greater than 1", (path,))


def _initial_scale(annotations: _Found, config: AutoscalerConfig) -> Iterator[FieldError]:
    value, path = annotations.get(well_known.INITIAL_SCALE)
    if value is None:
        return
    if not WHOLE.fullmatch(value) or int(value) > INT32_MAX:
        yield invalid(value, path)
    elif int(value) < 0:
        yield invalid(value, path, "must be greater than 0")
    elif int(value) == 0 and not config.allow_zero_initial_scale:
        yield invalid(value, path, f"{path.rpartition('/')[2]}=0 not allowed by cluster")


def _between(key: str, low: float, high: float) -> Callable[[_Found, AutoscalerConfig], Iterator[FieldError]]:
    def rule(annotations: _Found, config: AutoscalerConfig) -> Iterator[FieldError]:
        value, path = annotations.get(key)
        if value is None:
            return
        number = _number(value)
        if number is None:
            yield invalid(value, path)
        elif not low <= number <= high:
            yield out_of_bounds(value, f"{low:g}", f"{high:g}", path)

    return rule


def _target(annotations: _Found, config: AutoscalerConfig) -> Iterator[FieldError]:
    value, path = annotations.get(well_known.TARGET)
    if value is None:
        return
    number = _number(value)
    if number is None:
        yield invalid(value, path)
    elif number < TARGET_MIN:
        yield FieldError(f"target {value} should be at least {TARGET_MIN:g}", (path,))


def _burst_capacity(annotations: _Found, config: AutoscalerConfig) -> Iterator[FieldError]:
    value, path = annotations.get(well_known.TARGET_BURST_CAPACITY)
    if value is not None:
        number = _number(value)
        if number is None or (number < 0 and number != -1):
            yield invalid(value, path)


def _duration(
    key: str, low: int, *, whole: bool, high: int = WINDOW_MAX
) -> Callable[[_Found, AutoscalerConfig], Iterator[FieldError]]:
    def rule(annotations: _Found, config: AutoscalerConfig) -> Iterator[FieldError]:
        value, path = annotations.get(key)
        if value is None:
            return
        try:
            duration: Fraction = parse_duration(value)
        except ValueError:
            yield invalid(value, path)
            return
        if not low <= duration <= high:
            yield out_of_bounds(value, format_duration(low), format_duration(high), path)
        elif whole and duration.denominator != 1:
            yield FieldError("must be specified with at most second precision", (path,))

    return rule


def _warm_schedule(annotations: _Found, config: AutoscalerConfig) -> Iterator[FieldError]:
    value, path = annotations.get(well_known.WARM_SCHEDULE)
    if value is None:
        return
    try:
        windows = parse_windows(value)
    except ValueError as problem:
        yield invalid(value, path, str(problem))
        return
    limit, where = annotations.get(well_known.MAX_SCALE)
    most = int(limit) if limit and WHOLE.fullmatch(limit) else 0
    for window in windows:
        if most and window.min_scale > most:
            yield FieldError(
                f"max-scale={most} is less than min-scale={window.min_scale} of a warm window", (where, path)
            )


def _rollback_on(annotations: _Found, config: AutoscalerConfig) -> Iterator[FieldError]:
    value, path = annotations.get(well_known.ROLLBACK_ON)
    if value is not None:
        try:
            parse_policy(value)
        except ValueError as problem:
            yield invalid(value, path, str(problem))


def _metric(annotations: _Found, config: AutoscalerConfig) -> Iterator[FieldError]:
    value, path = annotations.get(well_known.METRIC)
    if value is None:
        return
    class_ = annotations.get(well_known.CLASS)[0] or config.pod_autoscaler_class
    if class_ == KPA and value not in (CONCURRENCY, RPS):
        yield invalid(value, path)
    elif class_ == HPA and value not in (CPU, MEMORY):
        yield invalid(value, path, f"class {HPA} supports the metrics cpu and memory only")


def _algorithm(annotations: _Found, config: AutoscalerConfig) -> Iterator[FieldError]:
    value, path = annotations.get(well_known.AGGREGATION_ALGORITHM)
    if value and (annotations.get(well_known.CLASS)[0] or KPA) == KPA and value not in ALGORITHMS:
        yield invalid(value, path)


_RULES: tuple[Callable[[_Found, AutoscalerConfig], Iterator[FieldError]], ...] = (
    _class,
    _scales,
    _initial_scale,
    _between(well_known.PANIC_WINDOW, 1, 100),
    _between(well_known.PANIC_THRESHOLD, 110, 1000),
    _target,
    _between(well_known.TARGET_UTILIZATION, 1, 100),
    _burst_capacity,
    _duration(well_known.WINDOW, WINDOW_MIN, whole=True),
    _duration(well_known.POD_RETENTION, 0, whole=False),
    _duration(well_known.SCALE_DOWN_DELAY, 0, whole=True),
    _duration(well_known.PAUSED_RETENTION, 0, whole=False, high=REST_MAX),
    _duration(well_known.STOPPED_RETENTION, 0, whole=False, high=REST_MAX),
    _warm_schedule,
    _rollback_on,
    _metric,
    _algorithm,
)
