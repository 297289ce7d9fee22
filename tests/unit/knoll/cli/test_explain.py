"""What `knoll explain` says of revisions."""

from typing import Any

from knoll.cli.explain import _print, explained

CREATED = "2026-05-01T08:00:0{}Z"


def revision(name: str, second: int, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    meta = {"name": name, "creationTimestamp": CREATED.format(second), "annotations": annotations or {}}
    return {"metadata": meta, "status": {"actualReplicas": 1, "desiredReplicas": 3}}


def autoscaler(name: str, count: int) -> dict[str, Any]:
    decisions = [
        {"time": CREATED.format(n), "desiredScale": n, "message": f"desired {n} (stable)"} for n in range(count)
    ]
    return {"metadata": {"name": name}, "status": {"decisions": decisions}}


def test_the_newest_revision_is_first_with_its_last_decisions_and_what_scales_it() -> None:
    annotations = {
        "autoscaling.knative.dev/target": "7", "knoll.dev/warm-schedule": "…", "serving.knative.dev/creator": "admin"
    }  # fmt: skip
    revisions = [revision("a-00001", 0), revision("a-00002", 1, annotations)]
    newest, oldest = explained(revisions, [autoscaler("a-00001", 2), autoscaler("a-00002", 9)], 3)
    assert (newest["revision"], oldest["revision"]) == ("a-00002", "a-00001")
    assert [decision["desiredScale"] for decision in newest["decisions"]] == [6, 7, 8]
    assert newest["scaling"] == {"autoscaling.knative.dev/target": "7", "knoll.dev/warm-schedule": "…"}
    assert (newest["instances"], newest["wanted"], oldest["scaling"]) == (1, 3, {})


def test_it_reads_as_sentences_with_times(capsys: Any) -> None:
    _print(explained([revision("a-00001", 0), revision("a-00002", 1)], [autoscaler("a-00002", 1)], 3))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a-00002: 1 of 3 instances"
    assert lines[1].endswith("ago)  desired 0 (stable)")
    assert lines[2:4] == ["", "a-00001: 1 of 3 instances"]
    assert "No scaling decision yet" in lines[4]


def test_the_reason_why_a_revision_is_not_ready_is_shown(capsys: Any) -> None:
    unready = revision("a-00001", 0)
    message = "Readiness probe failed: HTTP probe failed with statuscode: 503"
    unready["status"]["conditions"] = [
        {"type": "Active", "status": "Unknown", "reason": "Deploying"},
        {"type": "Ready", "status": "Unknown", "reason": "Unhealthy", "message": message},
    ]
    _print(explained([unready], [autoscaler("a-00001", 1)], 3))
    assert f"  not ready: Unhealthy: {message}" in capsys.readouterr().out.splitlines()


def test_a_revision_at_zero_is_not_shown_as_broken(capsys: Any) -> None:
    idle = revision("a-00001", 0)
    message = "The target is not receiving traffic."
    idle["status"]["conditions"] = [
        {"type": "Active", "status": "False", "reason": "NoTraffic", "message": message},
        {"type": "Ready", "status": "True"},
    ]
    _print(explained([idle], [autoscaler("a-00001", 1)], 3))
    assert "not ready" not in capsys.readouterr().out
