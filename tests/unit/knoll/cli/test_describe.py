"""One page about a Service, of plain objects."""

from datetime import UTC, datetime
from typing import Any

import pytest

from knoll.cli.describe import described
from knoll.cli.output import age, one_line

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def test_of_events_those_of_the_service_and_its_children_show_in_the_order_they_happened() -> None:
    events = [
        event("b", "Revision", "hello-00001", "2026-03-01T11:00:00Z", 12),
        event("a", "Service", "hello", "2026-03-01T11:00:00Z", 11),
        event("other", "Service", "elsewhere", "2026-03-01T11:00:00Z", 10),
        event("pod", "Pod", "hello", "2026-03-01T11:00:00Z", 13),
    ]
    description = described(service(), [revision("hello-00001")], events)
    assert [event["message"] for event in description["events"]] == ["a", "b"]


def test_a_revision_shows_its_share_over_all_entries_and_its_tags() -> None:
    traffic = [
        {"revisionName": "hello-00001", "percent": 30},
        {"revisionName": "hello-00001", "percent": 20, "tag": "old", "url": "http://old-hello"},
        {"revisionName": "hello-00002", "percent": 50},
    ]
    description = described(service(traffic), [revision("hello-00001"), revision("hello-00002", hour=10)], [])
    assert [(shown["name"], shown["traffic"], shown["tags"]) for shown in description["revisions"]] == [
        ("hello-00002", 50, {}),
        ("hello-00001", 50, {"old": "http://old-hello"}),
    ]


def test_a_service_without_status_is_described() -> None:
    bare = service()
    del bare["status"]
    description = described(bare, [], [])
    assert (description["ready"], description["conditions"], description["revisions"]) == ("Unknown", [], [])


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        ("2026-03-01T12:00:00Z", "0s"),
        ("2026-03-01T11:59:01Z", "59s"),
        ("2026-03-01T11:59:00Z", "1m"),
        ("2026-03-01T09:01:00Z", "2h"),
        ("2026-02-20T12:00:00Z", "9d"),
        ("2026-03-01T12:00:30Z", "0s"),
        ("", ""),
    ],
)
def test_an_age_is_shown_in_one_unit(timestamp: str, text: str) -> None:
    assert age(timestamp, NOW) == text


def test_a_cell_holds_one_line() -> None:
    assert one_line("panic: ouch\n\ngoroutine 1:\n\tmain.go") == "panic: ouch goroutine 1: main.go"


def service(traffic: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    meta = {"name": "hello", "namespace": "default", "creationTimestamp": "2026-03-01T09:00:00Z"}
    return {"metadata": meta, "spec": {}, "status": {"traffic": traffic or []}}


def revision(name: str, hour: int = 9) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "creationTimestamp": f"2026-03-01T{hour:02d}:00:00Z"},
        "spec": {"containers": [{"name": "user-container", "image": "hello:1"}]},
    }


def event(message: str, kind: str, name: str, time: str, version: int) -> dict[str, Any]:
    return {
        "metadata": {"resourceVersion": str(version), "creationTimestamp": time},
        "involvedObject": {"kind": kind, "name": name},
        "lastTimestamp": time,
        "message": message,
    }
