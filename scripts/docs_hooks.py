"""MkDocs hooks: add the pages that are not written below docs/ to the site.

These are the generated reference pages (`scripts/reference_pages.py`), and documents that have their place elsewhere in
the repository. Their links are changed to pages of the site; a link to a file that is not on the site becomes its path.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from scripts.reference_pages import PAGES

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "api/README.md": "reference/api.md",
}
"""Path in the repository → page of the site."""
_LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]+)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs once it has listed the files of docs/."""
    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    for source, page_path in DOCUMENTS.items():
        files.append(
            File.generated(config, page_path, content=relinked((ROOT / source).read_text(), source, page_path))
        )
    return files


def relinked(text: str, source: str, page_path: str) -> str:
    """A document of the repository with its relative links as they are on the site.

    Args:
        text: Markdown.
        source: its path in the repository, which its links start from.
        page_path: its path on the site.
    """

    def replaced(link: re.Match[str]) -> str:
        label, target, anchor = link[1], link[2], link[3] or ""
        if "://" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        page = DOCUMENTS.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if page is None:
            return f"`{path}`" if label.strip("`") in (path, target) else f"{label} (`{path}`)"
        return f"[{label}]({posixpath.relpath(page, posixpath.dirname(page_path) or '.')}{anchor})"

    return _LINK.sub(replaced, text)
