"""What the documents say exists, and how they are written."""

import re
from pathlib import Path

import pytest

from knoll import __version__
from scripts.check_words import PROSE
from tests.documents import DOCUMENTS, PAGES, ROOT, prose

COLUMNS = 130
GENERATED = {
    ROOT / "docs/reference" / name
    for name in ("settings.md", "configmaps.md", "annotations.md", "cli.md", "metrics.md")
}
ON_SITE = {ROOT / "docs/architecture.md": ROOT / "ARCHITECTURE.md", ROOT / "docs/changelog.md": ROOT / "CHANGELOG.md",
           ROOT / "docs/contributing.md": ROOT / "CONTRIBUTING.md",
           ROOT / "docs/reference/api.md": ROOT / "api/README.md"}  # fmt: skip
"""Pages that scripts/docs_hooks.py adds to the site, and what they are made of."""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_each_relative_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", prose(document)):
        if "://" in target:
            continue
        path = (document.parent / target).resolve() if target else document
        assert path.exists() or (document in PAGES and path in GENERATED | ON_SITE.keys()), target
        if anchor and path not in GENERATED:
            headings = re.findall(r"^#+ (.+)$", ON_SITE.get(path, path).read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_lines_fit_on_a_screen(document: Path) -> None:
    tables_too = document not in PAGES
    lines = [line for line in document.read_text().splitlines() if tables_too or not line.startswith("|")]
    assert [line for line in lines if len(line) > COLUMNS] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_sentences_name_their_subjects(document: Path) -> None:
    vague = [match[0] for match in PROSE.finditer(prose(document))]
    assert vague == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_no_default_is_shown_as_python_shows_it(document: Path) -> None:
    assert not re.search(r"\|\s*`?(?:None|True|False)`?\s*\|", document.read_text())


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_each_test_that_is_named_exists(document: Path) -> None:
    paths = re.findall(r"(?<![\w/.-])(?:tests/)?((?:unit|component|e2e)/[\w/]+(?:\.py)?)", document.read_text())
    assert [path for path in paths if not (ROOT / "tests" / path).exists()] == []
    files = re.findall(r"(?<![\w/])test_\w+\.py", document.read_text())
    assert [file for file in files if not list((ROOT / "tests").rglob(file))] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_each_source_file_and_folder_that_is_named_exists(document: Path) -> None:
    """Paths in code spans, from the repository's root; `knoll/` stands for `platform/knoll/`."""
    spans = re.findall(
        r"`((?:platform/)?(?:knoll|api|activator|autoscaler|builder|scripts)/[\w./-]+)`", document.read_text()
    )
    named = [span for span in spans if "NAME" not in span]  # which the reader chooses
    assert [span for span in named if not (ROOT / re.sub(r"^knoll/", "platform/knoll/", span)).exists()] == []


def test_the_map_of_the_activator_names_modules_of_each_of_its_folders() -> None:
    folder = ROOT / "activator"
    rows = re.findall(r"^\| (`[a-z]+/.+?`) \|", (folder / "README.md").read_text(), re.MULTILINE)
    listed = [module for row in rows for module in re.findall(r"`([^`]+)`", row)]
    modules = {
        str(file.relative_to(folder).with_suffix("")) for file in folder.glob("*/*.py") if file.stem != "__init__"
    }
    assert set(listed) <= modules
    assert {Path(module).parent for module in listed} == {Path(module).parent for module in modules}


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == __version__
    assert len(versions) == len(set(versions))
