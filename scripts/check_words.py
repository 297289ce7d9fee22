"""Names and words that the style forbids, in files and folders: `python scripts/check_words.py PATH...`.

Three checks. Bindings (variables, parameters, attributes, functions) do not have a name that fits everything. Prose
does not speak of persons where it means a program. A module that calls itself pure is in the contract of import-linter
that forbids input, output and clocks. Prints one line for each violation, and ends with status 1 if there is any.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

NAMES = frozenset({"found", "one", "told", "wanted", "known", "said", "words", "who", "what", "stuff", "world"})
"""Names that do not describe the value they are bound to."""
PROSE = re.compile(
    r"(?<![=\"])\b((?:no|some|any)body|who(?:ever)|(?:there|here)by|h(?:e|is|im(?:self)?))\b"
    r"|\bserves? on\b|\bto mend\b",
    re.IGNORECASE,
)
"""Words that hide the subject of a sentence. After `=` or a quote it is the name of a Unix user."""
SUFFIXES = (".md", ".py", ".sh")
"""Of the files of a folder that are checked."""
PURE = re.compile(r"\bPure\b")
ROOT = Path(__file__).resolve().parent.parent


def bindings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of everything that gets a name in a module."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield node.lineno, name


def files(path: Path) -> Iterator[Path]:
    """Yield the file itself, or the checked files of a folder."""
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
    else:
        yield path


def violations(path: Path, pure: frozenset[str]) -> Iterator[str]:
    """Yield what is wrong with one file.

    Args:
        pure: modules and packages of the contract, dotted.
    """
    text = path.read_text()
    if path.suffix == ".py":
        tree = ast.parse(text)
        for line, name in sorted(set(bindings(tree))):
            if name.lstrip("_") in NAMES:
                yield f"{path}:{line}: `{name}` does not say what it holds"
        if PURE.search((ast.get_docstring(tree) or "").partition("\n\n")[0]) and not _listed(path, pure):
            yield f"{path}:1: calls itself pure and is not in the contract of pyproject.toml"
    for number, line_text in enumerate(text.splitlines(), 1):
        if match := PROSE.search(line_text):
            yield f"{path}:{number}: `{match.group()}`"


def pure_modules() -> frozenset[str]:
    """Return the modules and packages that import-linter keeps free of input, output and clocks."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = configuration["tool"]["importlinter"]["contracts"]
    return frozenset(
        next(contract["source_modules"] for contract in contracts if contract["name"].startswith("pure modules"))
    )


def _listed(path: Path, pure: frozenset[str]) -> bool:
    parts = path.with_suffix("").parts
    module = ".".join(parts[1:] if parts[0] == "platform" else parts).removesuffix(".__init__")
    return any(module == entry or module.startswith(f"{entry}.") for entry in pure)


def main() -> None:
    pure = pure_modules()
    paths = [path for name in sys.argv[1:] for path in files(Path(name))]
    lines = [line for path in paths for line in violations(path, pure)]
    print("\n".join(lines))
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
