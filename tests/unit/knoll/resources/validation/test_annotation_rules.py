from dataclasses import replace

import pytest
from hypothesis import given

from knoll.config.autoscaler import AutoscalerConfig
from knoll.resources.models.meta import ObjectMeta, OwnerReference
from knoll.resources.validation.annotation_rules import (
    autoscaling_problems,
    knative_key_problems,
    label_problems,
    metadata_problems,
    progress_deadline_problems,
    queue_sidecar_problems,
    rollout_duration_problems,
)
from knoll.resources.validation.problems import merged
from knoll.values.names import dns_1035_problems
from tests.strategies import autoscaling_annotations

CONFIG = AutoscalerConfig()
A = "autoscaling.knative.dev/"
CUSTOM = "class hpa.autoscaling.knative.dev supports the metrics cpu and memory only"


def _problems(annotations: dict[str, str], config: AutoscalerConfig = CONFIG) -> list[str]:
    keyed = {A + key: value for key, value in annotations.items()}
    return [str(problem).replace(f"a.{A}", "") for problem in merged(autoscaling_problems(keyed, config, "a"))]


ROWS: list[tuple[dict[str, str], list[str]]] = [
    ({}, []),
    ({"class": "kpa.autoscaling.knative.dev"}, []),
    ({"class": "hpa.autoscaling.knative.dev", "metric": "cpu"}, []),
    ({"class": "mine.example.com", "metric": "what"}, []),
    ({"class": "foo.autoscaling.knative.dev"}, ["invalid value: foo.autoscaling.knative.dev: class"]),
    ({"metric": "concurrency"}, []),
    ({"metric": "rps"}, []),
    ({"class": "hpa.autoscaling.knative.dev", "metric": "memory", "target": "100"}, []),
    ({"class": "hpa.autoscaling.knative.dev", "metric": ""}, [f"invalid value: : metric\n{CUSTOM}"]),
    ({"class": "hpa.autoscaling.knative.dev", "metric": "rps"}, [f"invalid value: rps: metric\n{CUSTOM}"]),
    ({"class": "hpa.autoscaling.knative.dev", "metric": "queue"}, [f"invalid value: queue: metric\n{CUSTOM}"]),
    ({"metric": "cpu"}, ["invalid value: cpu: metric"]),
    ({"min-scale": "0", "max-scale": "0"}, []),
    ({"min-scale": "2", "max-scale": "2"}, []),
    ({"min-scale": "5"}, []),
    ({"min-scale": "-1"}, ["expected 0 <= -1 <= 2147483647: min-scale"]),
    ({"minScale": "-1"}, ["expected 0 <= -1 <= 2147483647: minScale"]),
    ({"max-scale": "-1"}, ["expected 0 <= -1 <= 2147483647: max-scale"]),
    ({"min-scale": "a"}, ["invalid value: a: min-scale"]),
    ({"min-scale": "1.5"}, ["invalid value: 1.5: min-scale"]),
    ({"min-scale": " 1"}, ["invalid value:  1: min-scale"]),
    ({"min-scale": "1_0"}, ["invalid value: 1_0: min-scale"]),
    ({"max-scale": "2147483648"}, ["expected 0 <= 2147483648 <= 2147483647: max-scale"]),
    ({"max-scale": "2147483647"}, []),
    ({"min-scale": "4", "max-scale": "2"}, ["max-scale=2 is less than min-scale=4: max-scale, min-scale"]),
    ({"minScale": "4", "maxScale": "2"}, ["max-scale=2 is less than min-scale=4: maxScale, minScale"]),
    ({"min-scale": "-1", "maxScale": "x"}, ["expected 0 <= -1 <= 2147483647: min-scale", "invalid value: x: maxScale"]),
    ({"activation-scale": "2"}, []),
    ({"activationScale": "1"}, ["activation-scale=1 must be greater than 1: activationScale"]),
    ({"activation-scale": "0"}, ["activation-scale=0 must be greater than 1: activation-scale"]),
    ({"activation-scale": "x"}, ["invalid value: x: activation-scale"]),
    (
        {"activation-scale": "2", "min-scale": "3"},
        ["min-scale=3 is greater than activation-scale=2: activation-scale"],
    ),
    ({"activation-scale": "4", "max-scale": "3"}, ["max-scale=3 is less than activation-scale=4: activation-scale"]),
    ({"initial-scale": "1"}, []),
    ({"initialScale": "0"}, ["invalid value: 0: initialScale\ninitialScale=0 not allowed by cluster"]),
    ({"initial-scale": "-1"}, ["invalid value: -1: initial-scale\nmust be greater than 0"]),
    ({"initial-scale": "six"}, ["invalid value: six: initial-scale"]),
    ({"target": "0.01"}, []),
    ({"target": "0"}, ["target 0 should be at least 0.01: target"]),
    ({"target": "-5"}, ["target -5 should be at least 0.01: target"]),
    ({"target": "x"}, ["invalid value: x: target"]),
    ({"target": "NaN"}, ["invalid value: NaN: target"]),
    ({"target": "inf"}, ["invalid value: inf: target"]),
    ({"target-utilization-percentage": "1"}, []),
    ({"target-utilization-percentage": "100"}, []),
    ({"targetUtilizationPercentage": "101"}, ["expected 1 <= 101 <= 100: targetUtilizationPercentage"]),
    ({"target-utilization-percentage": "0.9"}, ["expected 1 <= 0.9 <= 100: target-utilization-percentage"]),
    ({"target-burst-capacity": "-1"}, []),
    ({"target-burst-capacity": "0"}, []),
    ({"target-burst-capacity": "200.5"}, []),
    ({"target-burst-capacity": "-2"}, ["invalid value: -2: target-burst-capacity"]),
    ({"targetBurstCapacity": "x"}, ["invalid value: x: targetBurstCapacity"]),
    ({"window": "6s"}, []),
    ({"window": "1h"}, []),
    ({"window": "5s"}, ["expected 6s <= 5s <= 1h0m0s: window"]),
    ({"window": "1h1s"}, ["expected 6s <= 1h1s <= 1h0m0s: window"]),
    ({"window": "6.5s"}, ["must be specified with at most second precision: window"]),
    ({"window": "60"}, ["invalid value: 60: window"]),
    ({"scale-down-delay": "0s"}, []),
    ({"scale-down-delay": "1h"}, []),
    ({"scaleDownDelay": "61m"}, ["expected 0s <= 61m <= 1h0m0s: scaleDownDelay"]),
    ({"scale-down-delay": "-1s"}, ["expected 0s <= -1s <= 1h0m0s: scale-down-delay"]),
    ({"scale-down-delay": "100ms"}, ["must be specified with at most second precision: scale-down-delay"]),
    ({"scale-down-delay": "twice"}, ["invalid value: twice: scale-down-delay"]),
    ({"scale-to-zero-pod-retention-period": "500ms"}, []),
    (
        {"scaleToZeroPodRetentionPeriod": "2h"},
        ["expected 0s <= 2h <= 1h0m0s: scaleToZeroPodRetentionPeriod"],
    ),
    ({"panic-window-percentage": "1"}, []),
    ({"panic-window-percentage": "0.5"}, ["expected 1 <= 0.5 <= 100: panic-window-percentage"]),
    ({"panicWindowPercentage": "101"}, ["expected 1 <= 101 <= 100: panicWindowPercentage"]),
    ({"panic-threshold-percentage": "110"}, []),
    ({"panicThresholdPercentage": "109"}, ["expected 110 <= 109 <= 1000: panicThresholdPercentage"]),
    ({"panic-threshold-percentage": "1001"}, ["expected 110 <= 1001 <= 1000: panic-threshold-percentage"]),
    ({"panic-threshold-percentage": ""}, ["invalid value: : panic-threshold-percentage"]),
    ({"metric-aggregation-algorithm": "linear"}, []),
    ({"metricAggregationAlgorithm": "weightedExponential"}, []),
    ({"metric-aggregation-algorithm": "weighted-exponential"}, []),
    ({"metric-aggregation-algorithm": "mean"}, ["invalid value: mean: metric-aggregation-algorithm"]),
    ({"class": "hpa.autoscaling.knative.dev", "metric-aggregation-algorithm": "mean"}, []),
]


@pytest.mark.parametrize(("annotations", "problems"), ROWS, ids=[str(row[0]) for row in ROWS])
def test_autoscaling_annotations(annotations: dict[str, str], problems: list[str]) -> None:
    assert _problems(annotations) == problems


def test_the_metric_is_held_against_the_class_of_the_configuration() -> None:
    config = replace(CONFIG, pod_autoscaler_class="hpa.autoscaling.knative.dev")
    assert _problems({"metric": "memory", "target": "100"}, config) == []
    assert _problems({"metric": "concurrency"}, config) == [f"invalid value: concurrency: metric\n{CUSTOM}"]


def test_a_new_revision_may_start_at_zero_where_that_is_allowed() -> None:
    config = replace(CONFIG, allow_zero_initial_scale=True)
    assert _problems({"initial-scale": "0"}, config) == []


@pytest.mark.parametrize(
    ("most", "problems"),
    [
        ("10", []),
        ("11", ["expected 1 <= 11 <= 10: max-scale"]),
        ("0", ["max-scale=0 (unlimited), must be less than 10: max-scale"]),
    ],
)
def test_max_scale_can_be_limited(most: str, problems: list[str]) -> None:
    assert _problems({"max-scale": most}, replace(CONFIG, max_scale_limit=10, max_scale=5)) == problems


@given(autoscaling_annotations())
def test_what_may_be_set_together_is_not_refused(annotations: dict[str, str]) -> None:
    assert list(autoscaling_problems(annotations, CONFIG, "a")) == []


def _texts(errors: object) -> list[str]:
    return [str(problem) for problem in errors]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("meta", "starts"),
    [
        (ObjectMeta(name="hello"), []),
        (ObjectMeta(generate_name="hello-"), []),
        (ObjectMeta(), ["name or generateName is required: metadata.name"]),
        (ObjectMeta(name="do.not.use.dots"), [f"not a DNS 1035 label: [{dns_1035_problems('a.b')[0]}]: metadata.name"]),
        (
            ObjectMeta(name="a" * 64),
            ["not a DNS 1035 label: [must be no more than 63 characters]: metadata.name"],
        ),
        (
            ObjectMeta(generate_name="Hello-"),
            [f"not a DNS 1035 label prefix: [{dns_1035_problems('A')[0]}]: metadata.generateName"],
        ),
        (
            ObjectMeta(name="a", annotations={f"{A}min-scale": "1"}),
            [
                f'invalid key name "{A}min-scale": metadata.annotations\nautoscaling annotations must be put under '
                '"spec.template.metadata.annotations" to work'
            ],
        ),
        (
            ObjectMeta(name="a", annotations={"serving.knative.dev/bogus": "1", "serving.knative.dev/no-gc": "true"}),
            ['invalid key name "serving.knative.dev/bogus": metadata.annotations'],
        ),
    ],
)
def test_metadata(meta: ObjectMeta, starts: list[str]) -> None:
    assert _texts(metadata_problems(meta, CONFIG)) == starts


def test_autoscaling_annotations_of_a_revision_are_its_own() -> None:
    meta = ObjectMeta(name="a", annotations={f"{A}min-scale": "x"})
    assert _texts(metadata_problems(meta, CONFIG, autoscaling=True)) == [
        f"invalid value: x: metadata.annotations.{A}min-scale"
    ]


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        ("0s", []),
        ("2m", []),
        ("x", ["invalid value: x", "must be a duration such as 30s or 1h30m, not 'x'"]),
        ("1500ms", ["rolloutDuration=1500ms is not at second precision"]),
        ("-2s", ["rolloutDuration=-2s must be positive"]),
    ],
)
@pytest.mark.parametrize("key", ["serving.knative.dev/rollout-duration", "serving.knative.dev/rolloutDuration"])
def test_the_duration_of_rollouts(key: str, value: str, problems: list[str]) -> None:
    path = f": metadata.annotations.{key}"
    expected = [f"{problems[0]}{path}" + "".join(f"\n{text}" for text in problems[1:])] if problems else []
    assert _texts(rollout_duration_problems({key: value})) == expected


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        ("1s", []),
        ("10m", []),
        ("0s", ["progress-deadline=0s must be positive"]),
        ("-1s", ["progress-deadline=-1s must be positive"]),
        ("1.5s", ["progress-deadline=1.5s is not at second precision"]),
    ],
)
def test_the_progress_deadline(value: str, problems: list[str]) -> None:
    key = "serving.knative.dev/progress-deadline"
    assert _texts(progress_deadline_problems({key: value}, "a")) == [f"{text}: a.{key}" for text in problems]


@pytest.mark.parametrize(("value", "count"), [("0.1", 0), ("100", 0), ("0", 1), ("101", 1), ("x", 1)])
def test_the_percentage_of_queue_sidecars(value: str, count: int) -> None:
    key = "queue.sidecar.serving.knative.dev/resource-percentage"
    assert len(list(queue_sidecar_problems({key: value}, "a"))) == count


@pytest.mark.parametrize(("value", "count"), [("100m", 0), ("1Gi", 0), ("lots", 1)])
def test_the_resources_of_queue_sidecars(value: str, count: int) -> None:
    key = "queue.sidecar.serving.knative.dev/cpu-resource-request"
    assert len(list(queue_sidecar_problems({key: value}, "a"))) == count


def test_keys_of_other_groups_are_everybodys() -> None:
    assert list(knative_key_problems({"example.com/a": "b", "plain": "c"}, "a")) == []


OWNER = OwnerReference(kind="Service", name="hello")


@pytest.mark.parametrize(
    ("labels", "problems"),
    [
        ({"team": "a", "networking.knative.dev/visibility": "cluster-local"}, []),
        (
            {"networking.knative.dev/visibility": "bad-value"},
            ["invalid value: bad-value: metadata.labels.networking.knative.dev/visibility"],
        ),
        (
            {"serving.knative.dev/name": "x"},
            ['invalid key name "serving.knative.dev/name": metadata.labels'],
        ),
        ({"serving.knative.dev/serviceUID": "x"}, []),
        ({"serving.knative.dev/service": "hello"}, []),
        (
            {"serving.knative.dev/service": "absent"},
            ["missing field(s): metadata.labels.serving.knative.dev/service"],
        ),
    ],
)
def test_labels(labels: dict[str, str], problems: list[str]) -> None:
    meta = ObjectMeta(name="a", labels=labels, owner_references=(OWNER,))
    allowed = frozenset({"serving.knative.dev/serviceUID"})
    assert _texts(label_problems(meta, allowed, {"serving.knative.dev/service": "Service"})) == problems


@pytest.mark.parametrize("key", ["knoll.dev/paused-retention-period", "knoll.dev/stopped-retention-period"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("0s", ""),
        ("500ms", ""),
        ("720h", ""),
        ("-1s", "expected 0s <= -1s <= 720h0m0s: a.{}"),
        ("721h", "expected 0s <= 721h <= 720h0m0s: a.{}"),
        ("long", "invalid value: long: a.{}"),
    ],
)
def test_how_long_instances_rest_is_a_duration(key: str, value: str, problem: str) -> None:
    problems = [str(error) for error in merged(autoscaling_problems({key: value}, CONFIG, "a"))]
    assert problems == ([problem.format(key)] if problem else [])


def test_how_long_instances_rest_belongs_to_the_template() -> None:
    meta = ObjectMeta(name="hello", annotations={"knoll.dev/paused-retention-period": "1h"})
    (problem,) = metadata_problems(meta, CONFIG)
    assert "spec.template.metadata.annotations" in str(problem)
    assert list(metadata_problems(meta, CONFIG, autoscaling=True)) == []
