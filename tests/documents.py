"""The Markdown documents of the repository, and the command blocks in them.

Every fenced block of shell commands says in the comment above it how the commands are tested:

    <!-- run -->             tests/e2e/test_documents.py runs it: all such blocks of a page in order, in one shell
    <!-- lab: MACHINE -->    tests/e2e/machines/test_newcomer.py runs it on that machine; `lab: n2, the printed command`
                             stands for what the block before it printed
    <!-- tested: FILE -->    FILE (a test, a script or .ci/run) runs these commands
    <!-- example: REASON --> not run, for the reason given

A block of the language `text` under `<!-- output -->` holds lines that the block before it prints, among others.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ROOT_DOCUMENTS = sorted(ROOT.glob("*.md"))
PART_DOCUMENTS = sorted(
    path
    for folder in ("api", "activator", "bench", "scripts", "tests", "tests/e2e/conformance", "samples/rest-api-go")
    for path in (ROOT / folder).glob("*.md")
)
DOCUMENTS = [*ROOT_DOCUMENTS, *PAGES, *PART_DOCUMENTS]
SHELL_LANGUAGES = frozenset({"sh", "bash", "shell", "console"})
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_DIRECTIVE = re.compile(r"<!-- (?P<name>run|lab|output|tested|example)(?:: (?P<argument>[^>]+?))? -->\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a document."""

    document: Path
    line: int
    """Line of the opening fence, from 1."""
    language: str
    text: str
    directive: str
    """`run`, `lab`, `output`, `tested`, `example`, or empty."""
    argument: str

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[str]:
        """Its commands: one a line, continued lines joined, without prompts, comments and here-documents."""
        text = re.sub(r"<<'(\w+)'(.*?\n).*?^\1$", r"\2", self.text, flags=re.MULTILINE | re.DOTALL)
        lines = text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        stripped = (re.sub(r"(?:^|\s+)#.*$", "", line).strip() for line in lines)
        return [line for line in stripped if line]


def blocks(document: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text = document.read_text()
    result = []
    for fence in _FENCE.finditer(text):
        above = _DIRECTIVE.search(text[: fence.start()])
        result.append(
            Block(
                document=document,
                line=text.count("\n", 0, fence.start()) + 1,
                language=fence["language"],
                text=fence["text"],
                directive=above["name"] if above else "",
                argument=(above["argument"] or "") if above else "",
            )
        )
    return result


def prose(document: Path) -> str:
    """The text of a document without its fenced blocks."""
    return _FENCE.sub("", document.read_text())
