"""The documentation site builds without a warning, and needs nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import PAGES, ROOT

EXTERNAL = re.compile(
    r"""<(?:script|img|iframe|source|video)[^>]+src="?(?:https?:)?//"""
    r"""|<link[^>]+rel="?(?:stylesheet|preload|preconnect|icon)"?[^>]+href="?(?:https?:)?//"""
    r"""|url\((?:https?:)?//|@import"""
)
"""What makes a browser fetch something from another host."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    return folder


def test_each_page_is_on_the_site_and_so_are_the_generated_ones(site: Path) -> None:
    pages = {str(page.relative_to(ROOT / "docs").with_suffix(".html")) for page in PAGES}
    generated = {
        f"reference/{name}.html" for name in ("settings", "configmaps", "annotations", "cli", "metrics", "api")
    }
    built = {str(page.relative_to(site)) for page in site.rglob("*.html")}
    assert pages | generated | {"architecture.html", "changelog.html", "contributing.html"} <= built
    assert "KNOLL_REDIS_URL" in (site / "reference/settings.html").read_text()


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loading = {
        str(file.relative_to(site)): match[0]
        for file in [*site.rglob("*.html"), *site.rglob("*.css")]
        if (match := EXTERNAL.search(file.read_text()))
    }
    assert loading == {}


def test_generated_pages_leave_nothing_in_the_repository(site: Path) -> None:
    assert not (ROOT / "docs/reference").exists()
