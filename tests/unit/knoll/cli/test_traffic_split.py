import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.cli.traffic_split import by_revision, largest_share, parse, previous_revision, split
from knoll.values.errors import BadRequestError

REVISIONS = ["shop-v1", "shop-v2", "shop-00003"]


def revision(number: int, ready: str = "True") -> dict[str, Any]:
    meta = {"name": f"shop-{number}", "labels": {"serving.knative.dev/configurationGeneration": str(number)}}
    return {"metadata": meta, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


@pytest.mark.parametrize(
    ("assignments", "problem"),
    [
        (["v1"], "'v1' is not of the form REVISION=PERCENT"),
        (["=5"], "'=5' is not"),
        (["v1=x"], "'v1=x' is not"),
        (["v1=-1", "v2=101"], "'v1=-1' is not"),
        (["v1=50", "v1=50"], "v1 is given twice"),
        (["v1=90", "v2=9"], "percentages add up to 99, expected 100"),
    ],
)
def test_shares_that_make_no_sense_are_refused(assignments: list[str], problem: str) -> None:
    with pytest.raises(BadRequestError, match=re.escape(problem)):
        parse(assignments)


def test_a_percent_sign_is_accepted() -> None:
    assert parse(["v1=90%", "v2=10"]) == {"v1": 90, "v2": 10}


def test_a_revision_may_be_named_whole_or_by_its_end_by_its_tag_or_as_the_latest() -> None:
    before = [{"revisionName": "shop-v2", "tag": "next", "percent": 100}]
    traffic = split("shop", {"shop-v1": 40, "00003": 30, "next": 20, "latest": 10}, REVISIONS, before)
    assert traffic == [
        {"revisionName": "shop-v2", "tag": "next", "percent": 20},
        {"revisionName": "shop-v1", "percent": 40},
        {"revisionName": "shop-00003", "percent": 30},
        {"latestRevision": True, "percent": 10},
    ]


def test_an_unknown_revision_is_refused_with_the_existing_ones() -> None:
    with pytest.raises(BadRequestError, match="its revisions: shop-v1, shop-v2, shop-00003"):
        split("shop", {"v9": 100}, REVISIONS, [])


_tags = st.lists(st.sampled_from(REVISIONS), max_size=4)


@given(tagged=_tags, percent=st.integers(0, 100), order=st.permutations(REVISIONS))
def test_the_shares_add_up_and_no_host_of_a_tag_is_lost(tagged: list[str], percent: int, order: list[str]) -> None:
    before = [{"revisionName": name, "tag": f"t{at}", "percent": 7} for at, name in enumerate(tagged)]
    after = split("shop", {order[0]: percent, order[1]: 100 - percent}, REVISIONS, before)
    assert sum(target["percent"] for target in after) == 100
    assert by_revision(after)[order[0]] == percent
    assert [(target["revisionName"], target["tag"]) for target in after if "tag" in target] == [
        (target["revisionName"], target["tag"]) for target in before
    ]


def test_a_rollback_skips_broken_revisions() -> None:
    revisions = [revision(10), revision(2), revision(9, "False"), revision(11)]
    assert previous_revision(revisions, "shop-10") == "shop-2"
    assert previous_revision(revisions, "shop-11") == "shop-10"


@pytest.mark.parametrize(
    ("serving", "problem"), [("shop-2", "no ready revision before"), ("shop-7", "no longer exists")]
)
def test_a_rollback_without_a_target_is_refused(serving: str, problem: str) -> None:
    with pytest.raises(BadRequestError, match=problem):
        previous_revision([revision(1, "False"), revision(2)], serving)


def test_without_traffic_there_is_no_largest_share() -> None:
    assert largest_share([]) == ""
