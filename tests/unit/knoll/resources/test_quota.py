"""Bounds of a namespace: what is over them is refused in Kubernetes' words, everything else is not."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.resources import quota
from knoll.values.json import Json


def bounds(name: str = "team", **hard: str) -> Json:
    return {"metadata": {"name": name}, "spec": {"hard": {key.replace("_", "."): value for key, value in hard.items()}}}


def pod(*containers: Json, **more: Any) -> Json:
    return {
        "containers": [{"name": f"c{at}", "resources": resources} for at, resources in enumerate(containers)],
        **more,
    }


def test_what_fits_is_not_refused() -> None:
    asked = quota.of_pod(pod({"requests": {"cpu": "500m"}}))
    assert quota.refusal([bounds(requests_cpu="1", pods="2")], asked, asked, {}) == ""


def test_an_exceeded_quota_is_refused_with_all_three_amounts() -> None:
    asked = quota.of_pod(pod({"requests": {"cpu": "500m", "memory": "64Mi"}}))
    now = {"requests.cpu": Fraction(3, 4), "requests.memory": Fraction(128 * 2**20), "pods": Fraction(3)}
    refusal = quota.refusal([bounds(requests_cpu="1", requests_memory="1Gi", pods="3")], now, asked, {})
    assert refusal == (
        "exceeded quota: team, requested: pods=1,requests.cpu=500m, used: pods=3,requests.cpu=750m, "
        "limited: pods=3,requests.cpu=1"
    )


def test_short_names_mean_requests() -> None:
    asked = quota.of_pod(pod({"requests": {"cpu": "2", "memory": "2Gi"}}))
    assert "requested: cpu=2,memory=2Gi, used: cpu=0,memory=0, limited: cpu=1,memory=1Gi" in quota.refusal(
        [bounds(cpu="1", memory="1Gi")], {}, asked, {}
    )


def test_a_container_that_asks_for_nothing_is_refused_where_that_is_bounded() -> None:
    refusal = quota.refusal([bounds(limits_cpu="1")], {}, {"pods": Fraction(1)}, {"limits.cpu": ("a", "b")})
    assert refusal == "failed quota: team: must specify limits.cpu for: a,b"
    assert quota.refusal([bounds(pods="1")], {}, {"pods": Fraction(1)}, {"limits.cpu": ("a",)}) == ""


def test_every_quota_counts() -> None:
    refusal = quota.refusal([bounds("wide", pods="9"), bounds("narrow", pods="0")], {}, {"pods": Fraction(1)}, {})
    assert refusal == "exceeded quota: narrow, requested: pods=1, used: pods=0, limited: pods=0"


def test_the_largest_init_container_counts_and_a_limit_is_a_request() -> None:
    start = {"name": "init", "resources": {"requests": {"memory": "1Gi"}}}
    asked = quota.of_pod(
        pod({"limits": {"cpu": "1"}}, {"requests": {"cpu": "1", "memory": "1Mi"}}, initContainers=[start])
    )
    assert asked == {
        "pods": 1,
        "limits.cpu": 1,
        "requests.cpu": 2,
        "requests.memory": 2**30,
    }


@pytest.mark.parametrize(
    ("name", "amount", "text"),
    [
        ("pods", Fraction(3), "3"),
        ("requests.cpu", Fraction(1, 3), "334m"),
        ("requests.memory", Fraction(0), "0"),
        ("requests.memory", Fraction(512 * 2**20), "512Mi"),
        ("limits.memory", Fraction(1000), "1k"),
    ],
)
def test_amounts_are_written_as_kubernetes_does(name: str, amount: Fraction, text: str) -> None:
    assert quota.format_amount(name, amount) == text


def test_used_names_what_is_bounded() -> None:
    assert quota.used(bounds(cpu="2", pods="5"), {"requests.cpu": Fraction(1, 2)}) == {"cpu": "500m", "pods": "0"}


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 5))
def test_it_is_refused_exactly_when_the_sum_is_over(most: int, now: int, more: int) -> None:
    refusal = quota.refusal([bounds(pods=str(most))], {"pods": Fraction(now)}, {"pods": Fraction(more)}, {})
    assert bool(refusal) == (now + more > most)


def test_objects_count_by_their_kind_and_claims_by_their_size_too() -> None:
    assert quota.of_object("services.serving.knative.dev", {}) == {"count/services.serving.knative.dev": 1}
    claim = {"spec": {"resources": {"requests": {"storage": "1Ki"}}}}
    asked = quota.of_object("persistentvolumeclaims", claim)
    assert asked == {"count/persistentvolumeclaims": 1, "requests.storage": 1024}
    assert quota.bounds([bounds(persistentvolumeclaims="1")], asked)
    assert not quota.bounds([bounds(configmaps="1"), bounds(pods="1")], asked)
