"""Exported manifests make the same Service elsewhere."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from api.controllers.reconciler import objects
from knoll.cli import main
from knoll.cli.client import ApiClient
from knoll.cli.export import ExportError, replay
from knoll.config.platform import PlatformConfig
from knoll.resources.admission.admit import admit_create, admit_update
from knoll.values import kinds
from knoll.values.json import Json
from tests.unit.api.controllers.simulation import Simulation

SPLITS: dict[str, list[Json]] = {
    "two pinned": [{"revisionName": "hello-00001", "percent": 40, "tag": "old"},
                   {"revisionName": "hello-00002", "percent": 60}],
    "one pinned and the latest": [{"revisionName": "hello-00002", "percent": 10},
                                  {"latestRevision": True, "percent": 90}],
    "the latest by its name": [{"revisionName": "hello-00003", "percent": 100}],
    "all three": [{"revisionName": "hello-00001", "percent": 10}, {"revisionName": "hello-00002", "percent": 20},
                  {"revisionName": "hello-00003", "percent": 70}, {"latestRevision": True, "percent": 0, "tag": "new"}],
    "the latest alone": [{"latestRevision": True, "percent": 100}],
}  # fmt: skip


def platform(traffic: list[Json]) -> Simulation:
    """A Service that had three Revisions, with its traffic."""
    simulation = Simulation()
    for number in (1, 2, 3):
        simulation.now += 60
        simulation.service(
            image=f"r.example/app:v{number}", template_annotations={"autoscaling.knative.dev/min-scale": "1"}
        )
        simulation.ready(f"hello-0000{number}")
    simulation.service(image="r.example/app:v3", traffic=traffic,
                  template_annotations={"autoscaling.knative.dev/min-scale": "1"})  # fmt: skip
    simulation.settle()
    simulation.acknowledge()
    simulation.settle()
    return simulation


def revisions(simulation: Simulation) -> dict[str, Json]:
    return {name: simulation.get(kinds.REVISION, name) for name in simulation.names(kinds.REVISION)}


def served(simulation: Simulation) -> list[tuple[str, int, str]]:
    """What the traffic comes to: image, percent and tag of each target."""
    targets = []
    for target in simulation.traffic():
        spec = simulation.get(kinds.REVISION, target["revisionName"])["spec"]
        targets.append((spec["containers"][0]["image"].partition("@")[0], target["percent"], target.get("tag", "")))
    return targets


@pytest.mark.parametrize("traffic", SPLITS.values(), ids=SPLITS)
def test_the_manifests_applied_in_their_order_make_the_same_service_elsewhere(traffic: list[Json]) -> None:
    here = platform(traffic)
    elsewhere, stored = Simulation(), None
    for manifest in replay(here.get(kinds.SERVICE), revisions(here)):
        options: Json = {"user": "me", "now": elsewhere.now, "config": PlatformConfig()}
        if stored is None:
            stored = admit_create(kinds.SERVICE, manifest, uid="new", name_suffix="", **options)
        else:
            stored = admit_update(kinds.SERVICE, elsewhere.get(kinds.SERVICE), manifest, **options)
        elsewhere.store(kinds.SERVICE.id, stored)
        elsewhere.settle()
        elsewhere.ready(elsewhere.get(kinds.SERVICE)["status"]["latestCreatedRevisionName"])
        assert objects.is_ready(elsewhere.get(kinds.SERVICE)), elsewhere.conditions(kinds.SERVICE)
    assert [(percent, tag) for _, percent, tag in served(elsewhere)] == [
        (percent, tag) for _, percent, tag in served(here)
    ]


def test_a_deleted_revision_is_named() -> None:
    service = platform(SPLITS["two pinned"]).get(kinds.SERVICE)
    with pytest.raises(ExportError, match="hello sends traffic to revision hello-00001, which no longer exists"):
        replay(service, {})


def test_earlier_revisions_run_the_image_that_they_ran() -> None:
    here = platform(SPLITS["two pinned"])
    first, second, last = replay(here.get(kinds.SERVICE), revisions(here))
    assert first["spec"]["template"]["metadata"]["name"] == "hello-00001"
    assert first["spec"]["template"]["metadata"]["annotations"] == {"autoscaling.knative.dev/min-scale": "1"}
    assert first["spec"]["template"]["spec"]["containers"][0]["image"].startswith("repo@sha256:")
    assert [step["spec"]["traffic"] for step in (first, second)] == [[{"latestRevision": True, "percent": 100}]] * 2
    assert last["spec"]["template"]["spec"]["containers"][0]["image"] == "r.example/app:v3"


def test_files_are_numbered_and_the_way_to_apply_them_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = platform(SPLITS["two pinned"])
    monkeypatch.setattr(ApiClient, "get", lambda *_: here.get(kinds.SERVICE))
    monkeypatch.setattr(ApiClient, "list", lambda *_: list(revisions(here).values()))
    done = CliRunner().invoke(main, ["export", "hello", "--dir", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    files = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert files == ["hello.1.yaml", "hello.2.yaml", "hello.3.yaml"]
    assert yaml.safe_load((tmp_path / "out" / "hello.3.yaml").read_text())["spec"]["traffic"] == SPLITS["two pinned"]
    assert f"for file in {tmp_path}/out/hello.*.yaml" in done.stdout
    assert "kubectl wait -n default ksvc/hello --for=condition=Ready" in done.stdout
    printed = CliRunner().invoke(main, ["export", "hello", "-o", "json"])
    assert len(json.loads(printed.stdout)["items"]) == 3
    assert "apply its 3 manifests in order" in printed.stderr
