"""Scaling by CPU and memory: Kubernetes' algorithm, on its own examples and as properties."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision.hpa import STEP_UP, TOLERANCE, InstanceUsage, Recommendations, decide, explain
from autoscaler.revisions.usage import ResourceScale
from autoscaler.runtime.model import Usage
from knoll.config.platform import PlatformConfig
from knoll.resources.scaling import ScalingSpec, scaling_spec
from tests.unit.autoscaler.sample_revisions import revision

HPA = "hpa.autoscaling.knative.dev"


def spec(**annotations: str) -> ScalingSpec:
    named = {f"autoscaling.knative.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    annotated = revision(annotations={"autoscaling.knative.dev/class": HPA, **named})
    return scaling_spec(annotated, PlatformConfig())


def pods(*usage: float | None, ready: bool = True, request: float = 1.0) -> list[InstanceUsage]:
    return [InstanceUsage(ready, each, request) for each in usage]


def desired(scaling: ScalingSpec, samples: list[InstanceUsage], current: int) -> int:
    return decide(scaling, samples, current, Recommendations(), 0.0)[0].desired


@pytest.mark.parametrize(
    ("annotations", "metric", "target"),
    [
        ({}, "cpu", 80),
        ({"metric": "cpu"}, "cpu", 80),
        ({"metric": "cpu", "target": "50"}, "cpu", 50),
        ({"metric": "memory", "target": "100"}, "memory", 100 * 1024**2),
        ({"metric": "memory"}, "cpu", 80),
        ({"target": "30", "target_utilization_percentage": "50"}, "cpu", 30),
    ],
    ids=["nothing", "cpu", "percent of the request", "mebibytes", "memory without a target", "no utilization"],
)
def test_metric_and_target_are_read_as_knatives_hpa_class_does(
    annotations: dict[str, str], metric: str, target: float
) -> None:
    scaling = spec(**annotations)
    assert (scaling.metric, scaling.target, scaling.by_resources) == (metric, target, True)
    assert (scaling.down_stabilization_seconds, scaling.up_stabilization_seconds) == (300, 0)
    scaling = spec(window="60s", **annotations)
    assert (scaling.down_stabilization_seconds, scaling.up_stabilization_seconds) == (60, 60)


CPU = spec(metric="cpu", target="50", max_scale="20")
MEMORY = spec(metric="memory", target="100", max_scale="20")
MIB = 1024.0**2


@pytest.mark.parametrize(
    ("scaling", "samples", "current", "expected"),
    [
        # The examples of replica_calculator_test.go, in cores.
        (spec(metric="cpu", target="30"), pods(0.3, 0.5, 0.7), 3, 5),
        (spec(metric="cpu", target="50"), pods(0.1, 0.3, 0.5, 0.25, 0.25), 5, 3),
        (spec(metric="cpu", target="100"), pods(1.01, 1.03, 1.02), 3, 3),
        (spec(metric="cpu", target="30"), [*pods(0.3, 0.7), *pods(0.5, ready=False)], 3, 4),
        (spec(metric="cpu", target="30"), [*pods(0.4), *pods(0.5, 0.7, ready=False)], 3, 3),
        (CPU, pods(0.0), 1, 1),
        (CPU, pods(0.0, 0.0, 0.0), 3, 1),
        (CPU, pods(None, None), 2, 2),
        (CPU, pods(5.0), 1, 5),
        (CPU, pods(*[5.0] * 5), 5, 10),
        (CPU, pods(0.1, 0.1, None), 3, 3),
        (CPU, pods(0.9, 0.9, None), 3, 4),
        (CPU, pods(0.9, request=0.0), 1, 1),
        (MEMORY, pods(250 * MIB, 150 * MIB), 2, 4),
        (MEMORY, pods(50 * MIB, 50 * MIB), 2, 1),
        (MEMORY, pods(50 * MIB, request=0.0), 3, 1),
        (spec(metric="cpu", target="50", min_scale="2"), pods(0.0, 0.0, 0.0), 3, 2),
        (spec(metric="cpu", target="50", max_scale="3"), pods(2.0, 2.0), 2, 3),
    ],
)
def test_the_number_is_kubernetes(
    scaling: ScalingSpec, samples: list[InstanceUsage], current: int, expected: int
) -> None:
    assert desired(scaling, samples, current) == expected


usages = st.lists(st.floats(0, 4), min_size=1, max_size=12)


@given(usage=usages, target=st.integers(1, 200), least=st.integers(0, 5), most=st.integers(5, 30))
def test_it_is_never_zero_nor_out_of_bounds_nor_more_than_a_step_up(
    usage: list[float], target: int, least: int, most: int
) -> None:
    scaling = spec(metric="cpu", target=str(target), min_scale=str(least), max_scale=str(most))
    count = desired(scaling, pods(*usage), len(usage))
    assert max(1, least) <= count <= most
    assert count <= max(least, 2 * len(usage), len(usage) + STEP_UP)


@given(usage=usages, target=st.integers(1, 200))
def test_within_the_tolerance_nothing_changes_and_beyond_it_the_direction_is_right(
    usage: list[float], target: int
) -> None:
    scaling = spec(metric="cpu", target=str(target))
    ratio = sum(usage) / len(usage) * 100 / target
    count = desired(scaling, pods(*usage), len(usage))
    if abs(1 - ratio) < TOLERANCE - 1e-6:
        assert count == len(usage)
    elif ratio > 1:
        assert count >= len(usage)
    else:
        assert count <= len(usage)


@given(st.lists(st.tuples(st.floats(1, 60), st.floats(0, 1)), max_size=40))
def test_it_goes_down_only_to_the_most_of_five_minutes(steps: list[tuple[float, float]]) -> None:
    now, state, current = 0.0, Recommendations(), 1
    recommended: list[tuple[float, int]] = []
    for gap, usage in steps:
        now += gap
        alone = desired(CPU, pods(*[usage] * current), current)
        recommended.append((now, alone))
        decision, state = decide(CPU, pods(*[usage] * current), current, state, now)
        recent = [count for at, count in recommended if now - at <= 300]
        assert decision.desired <= max(recent)
        if decision.desired < current:
            assert decision.desired == max(recent)
        current = decision.desired


def test_cpu_is_the_rate_between_two_measurements_and_a_restart_gives_none() -> None:
    scale = ResourceScale()
    instances: dict[str, Any] = {"a": (True, 1.0)}
    first = scale.decide(CPU, instances, {"a": Usage(100.0, 0)}, 1, 1000.0)
    assert (first.desired, first.average, first.problem) == (1, None, "no metrics of a ready instance yet")
    assert scale.decide(CPU, instances, {"a": Usage(115.0, 0)}, 1, 1015.0).average == 100
    assert scale.decide(CPU, instances, {"a": Usage(3.0, 0)}, 2, 1030.0).average is None
    assert scale.decide(CPU, instances, {"a": Usage(6.0, 0)}, 2, 1045.0).average == 20


def test_a_decision_reads_as_a_sentence() -> None:
    decision, _ = decide(CPU, pods(0.75), 1, Recommendations(), 0.0)
    assert explain(CPU, decision) == ("desired 2: average cpu usage 75%, target 50% per instance")
    decision, _ = decide(MEMORY, pods(250 * MIB), 1, Recommendations(), 0.0)
    assert explain(MEMORY, decision) == ("desired 3: average memory usage 250Mi, target 100Mi per instance")
    decision, _ = decide(CPU, pods(0.5, request=0), 1, Recommendations(), 0.0)
    assert explain(CPU, decision) == ("desired 1: cpu usage unknown: missing request for cpu in a container")
