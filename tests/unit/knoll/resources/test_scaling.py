from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from knoll.config.autoscaler import AutoscalerConfig
from knoll.config.deployment import DeploymentConfig
from knoll.config.platform import PlatformConfig
from knoll.resources.models.meta import ObjectMeta
from knoll.resources.models.revision import Revision, RevisionSpec
from knoll.resources.scaling import ScalingSpec, scaling_spec
from knoll.resources.validation.annotation_rules import autoscaling_problems
from tests.strategies import autoscaling_annotations

A = "autoscaling.knative.dev/"


def _spec(annotations: dict[str, str] | None = None, concurrency: int | None = 0, **config: Any) -> ScalingSpec:
    keyed = {key if "/" in key else A + key: value for key, value in (annotations or {}).items()}
    platform = PlatformConfig(autoscaler=replace(AutoscalerConfig(), **config))
    revision = Revision(metadata=ObjectMeta(annotations=keyed), spec=RevisionSpec(container_concurrency=concurrency))
    return scaling_spec(revision, platform)


def test_without_annotations_the_configuration_counts() -> None:
    assert _spec() == ScalingSpec(
        class_="kpa.autoscaling.knative.dev",
        metric="concurrency",
        total=100,
        utilization=0.7,
        target=70,
        target_burst_capacity=211,
        window_seconds=60,
        panic_window_fraction=0.1,
        panic_threshold_fraction=2,
        min_scale=0,
        max_scale=0,
        initial_scale=1,
        activation_scale=1,
        scale_down_delay_seconds=0,
        retention_seconds=0,
        max_scale_up_rate=1000,
        max_scale_down_rate=2,
        grace_seconds=30,
        progress_deadline_seconds=600,
        exponential=False,
        scale_to_zero=True,
        reachable=True,
        activator_capacity=100,
    )
    assert _spec().panic_window_seconds == 6


ROWS: list[tuple[dict[str, str], int, dict[str, object]]] = [
    ({}, 10, {"total": 10, "target": 7}),
    ({"target": "5"}, 0, {"total": 5, "target": 3.5}),
    ({"target": "5"}, 10, {"total": 5}),
    ({"target": "50"}, 10, {"total": 10}),
    ({"target": "50", "target-utilization-percentage": "100"}, 0, {"utilization": 1, "target": 50}),
    ({"targetUtilizationPercentage": "50"}, 0, {"utilization": 0.5, "target": 50}),
    ({"target": "0.01", "target-utilization-percentage": "1"}, 0, {"target": 0.01}),
    ({"metric": "rps"}, 10, {"metric": "rps", "total": 200, "target": 140}),
    ({"metric": "rps", "target": "20"}, 10, {"total": 20, "target": 14}),
    ({"min-scale": "2"}, 0, {"min_scale": 2, "initial_scale": 2}),
    ({"minScale": "2", "maxScale": "5"}, 0, {"min_scale": 2, "max_scale": 5}),
    ({"min-scale": "2", "minScale": "9"}, 0, {"min_scale": 2}),
    ({"initial-scale": "4"}, 0, {"initial_scale": 4}),
    ({"initial-scale": "4", "max-scale": "2"}, 0, {"initial_scale": 2, "max_scale": 2}),
    ({"initial-scale": "0"}, 0, {"initial_scale": 1}),
    ({"activation-scale": "3"}, 0, {"activation_scale": 3}),
    ({"window": "2m"}, 0, {"window_seconds": 120}),
    ({"panic-window-percentage": "50"}, 0, {"panic_window_fraction": 0.5}),
    ({"panicThresholdPercentage": "150"}, 0, {"panic_threshold_fraction": 1.5}),
    ({"target-burst-capacity": "-1"}, 0, {"target_burst_capacity": -1}),
    ({"scale-down-delay": "15m"}, 0, {"scale_down_delay_seconds": 900}),
    ({"scale-to-zero-pod-retention-period": "1m5s"}, 0, {"retention_seconds": 65}),
    ({"metric-aggregation-algorithm": "weightedExponential"}, 0, {"exponential": True}),
    ({"metricAggregationAlgorithm": "weighted-exponential"}, 0, {"exponential": True}),
    ({"class": "mine.example.com"}, 0, {"class_": "mine.example.com"}),
    ({"serving.knative.dev/progress-deadline": "30s"}, 0, {"progress_deadline_seconds": 30}),
    (
        {"min-scale": "junk", "window": "junk", "target": "junk"},
        0,
        {"min_scale": 0, "window_seconds": 60, "total": 100},
    ),
]


@pytest.mark.parametrize(("annotations", "concurrency", "shown"), ROWS, ids=[str(row[0]) for row in ROWS])
def test_annotations_win_over_the_configuration(
    annotations: dict[str, str], concurrency: int, shown: dict[str, object]
) -> None:
    scaling = _spec(annotations, concurrency)
    assert {name: getattr(scaling, name) for name in shown} == {
        name: pytest.approx(value) if isinstance(value, float) else value for name, value in shown.items()
    }


def test_the_configuration_can_change_every_default() -> None:
    scaling = _spec(min_scale=2, max_scale=4, initial_scale=3, enable_scale_to_zero=False, scale_down_delay_seconds=7)
    assert (scaling.min_scale, scaling.max_scale, scaling.initial_scale) == (2, 4, 3)
    assert not scaling.scale_to_zero
    assert scaling.scale_down_delay_seconds == 7


def test_a_new_revision_may_start_at_zero_where_that_is_allowed() -> None:
    assert _spec({"initial-scale": "0"}, allow_zero_initial_scale=True).initial_scale == 0


def test_a_minimum_above_a_maximum_of_the_configuration_gives_way() -> None:
    assert _spec({"min-scale": "5"}, max_scale=3).min_scale == 3


def test_the_progress_deadline_comes_from_config_deployment() -> None:
    config = PlatformConfig(deployment=DeploymentConfig(progress_deadline_seconds=5))
    assert scaling_spec(Revision(), config).progress_deadline_seconds == 5


@pytest.mark.parametrize(
    ("state", "reachable"), [("active", True), ("pending", True), ("reserve", False), (None, True)]
)
def test_a_revision_without_a_route_is_not_reachable(state: str | None, reachable: bool) -> None:
    labels = {"serving.knative.dev/routingState": state} if state else {}
    assert scaling_spec(Revision(metadata=ObjectMeta(labels=labels)), PlatformConfig()).reachable is reachable


@given(autoscaling_annotations())
def test_what_validation_lets_in_makes_sense(annotations: dict[str, str]) -> None:
    assert list(autoscaling_problems(annotations, AutoscalerConfig(), "a")) == []
    scaling = _spec(annotations)
    assert scaling.target >= 0.01
    assert 0 < scaling.utilization <= 1
    assert 6 <= scaling.window_seconds <= 3600
    assert scaling.max_scale == 0 or scaling.min_scale <= scaling.max_scale
    assert scaling.initial_scale >= scaling.min_scale


def test_idle_periods_come_from_annotations_or_the_configuration() -> None:
    assert (_spec({}).paused_seconds, _spec({}).stopped_seconds) == (0, 0)
    assert _spec({}, paused_retention_seconds=60, stopped_retention_seconds=90).paused_seconds == 60
    annotations = {"knoll.dev/paused-retention-period": "5m", "knoll.dev/stopped-retention-period": "1h"}
    scaling = _spec(annotations, paused_retention_seconds=60)
    assert (scaling.paused_seconds, scaling.stopped_seconds) == (300, 3600)
