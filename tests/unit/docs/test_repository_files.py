"""Workflows and templates for the hosting service are well formed, and refer to existing things."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.documents import ROOT

GITHUB = ROOT / ".github"
FILES = sorted(GITHUB.rglob("*.yml"))
TEMPLATES = [file for file in FILES if file.parent.name == "ISSUE_TEMPLATE" and file.name != "config.yml"]
CI: dict[Any, Any] = yaml.safe_load((GITHUB / "workflows/ci.yml").read_text())


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_each_file_is_valid_yaml(file: Path) -> None:
    assert isinstance(yaml.safe_load(file.read_text()), dict)


def test_ci_runs_what_a_contributor_runs() -> None:
    commands = [step["run"] for job in CI["jobs"].values() for step in job["steps"] if "run" in step]
    assert {"make setup", "make check", "make docs", "bash .ci/run"} <= set(commands)
    targets = {target for command in commands for target in re.findall(r"^make ([a-z-]+)$", command)}
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_ci_has_no_more_rights_than_to_read_and_ends_in_time() -> None:
    assert CI["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] for job in CI["jobs"].values())


@pytest.mark.parametrize("file", TEMPLATES, ids=name)
def test_each_form_asks_for_something(file: Path) -> None:
    form = yaml.safe_load(file.read_text())
    assert form["name"]
    assert form["description"]
    identifiers = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert identifiers
    assert len(identifiers) == len(set(identifiers))


def test_dependabot_watches_folders_that_have_what_it_updates() -> None:
    manifests = {"pip": "*.txt", "docker": "Dockerfile", "docker-compose": "compose.yaml", "gomod": "go.mod",
                 "github-actions": ".github/workflows/*.yml"}  # fmt: skip
    for update in yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]:
        folder = ROOT / update["directory"].lstrip("/")
        assert list(folder.glob(manifests[update["package-ecosystem"]]))
