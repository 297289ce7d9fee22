"""Finds the images that a Dockerfile names. Pure.

BuildKit does the real parsing. The images of `FROM`, `COPY --from` and `RUN --mount=from` are found here so that those
that are on the engine can be passed to BuildKit. It pulls an image that is missed here from its registry.

Source: BuildKit, `frontend/dockerfile/parser` and `frontend/dockerfile/shell`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_HEREDOC = re.compile(r"<<(-?)([\"']?)([A-Za-z0-9_.]+)\2")
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")
_FLAG = re.compile(r"--([a-z-]+)(?:=(\S*))?")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-+])([^{}]*))?\})")
_PLATFORM_ARGS = ("TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT", "BUILDPLATFORM", "BUILDOS", "BUILDARCH")


def directives(text: str) -> dict[str, str]:
    """Return the parser directives at the top, by lower-case name."""
    return {name: value for _, name, value in _header(text)}


def without_syntax(text: str) -> str:
    """Return the Dockerfile without `# syntax=`, for BuildKit's own frontend; every other line keeps its number.

    Directives must be at the top, so the others move up and a comment fills the line that becomes free.
    """
    header = _header(text)
    if all(name != "syntax" for _, name, _ in header):
        return text
    lines = text.splitlines(keepends=True)
    kept = [lines[at] for at, name, _ in header if name != "syntax"]
    filler = ["# (BuildKit's own frontend is used)\n"] * (len(header) - len(kept))
    return "".join([*kept, *filler, *lines[len(header) :]])


def _header(text: str) -> list[tuple[int, str, str]]:
    """Return line, name and value of each directive: the first lines, without empty lines or comments between them."""
    header: list[tuple[int, str, str]] = []
    for at, line in enumerate(text.removeprefix("\ufeff").splitlines()):
        match = _DIRECTIVE.fullmatch(line)
        if not match or match[1].lower() not in ("syntax", "escape", "check"):
            break
        header.append((at, match[1].lower(), match[2]))
    return header


def images(text: str, arguments: Mapping[str, str]) -> tuple[str, ...]:
    """Return the references of the images that a Dockerfile names, each once and in order, with variables expanded.

    Args: arguments: build arguments, which override the defaults of `ARG`.
    """
    variables: dict[str, str] = {}
    stages: set[str] = set()
    named: dict[str, None] = {}
    before_first = True
    count = 0
    for keyword, rest in instructions(text):
        if keyword == "ARG" and before_first:
            for name, default in _arguments(rest):
                variables[name] = arguments.get(name, _expanded(default, variables))
        elif keyword == "FROM":
            before_first = False
            _, tokens = _split_flags(rest)
            if not tokens:
                continue
            image = _expanded(tokens[0], variables)
            if image and image.lower() not in stages and image != "scratch" and "$" not in image:
                named[image] = None
            if len(tokens) >= 3 and tokens[1].upper() == "AS":
                stages.add(tokens[2].lower())
            stages.add(str(count))
            count += 1
        elif keyword in ("COPY", "RUN"):
            for image in _sources(keyword, rest):
                image = _expanded(image, variables)
                if image and image.lower() not in stages and "$" not in image:
                    named[image] = None
    return tuple(named)


def _sources(keyword: str, rest: str) -> Iterator[str]:
    """Yield the images of `--from` and `--mount=…,from=` of an instruction."""
    for name, value in _split_flags(rest)[0]:
        if keyword == "COPY" and name == "from":
            yield value
        elif keyword == "RUN" and name == "mount":
            fields = dict(part.partition("=")[::2] for part in value.strip("\"'").split(","))
            if "from" in fields:
                yield fields["from"]


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield keyword (upper case) and rest of each instruction: lines joined, comments and here-documents removed."""
    escape = directives(text).get("escape", "\\")
    lines = iter(text.removeprefix("\ufeff").splitlines())
    for line in lines:
        logical = line.strip()
        if not logical or logical.startswith("#"):
            continue
        while _continues(logical, escape):
            following = next((more for more in lines if more.strip() and not more.strip().startswith("#")), None)
            logical = logical.rstrip()[:-1]
            if following is None:
                break
            logical += following.strip() if following.strip() else ""
        keyword, _, rest = logical.partition(" ")
        keyword, rest = keyword.strip().upper(), rest.strip()
        if keyword == "ONBUILD":
            continue
        yield keyword, rest
        if keyword in _WITH_HEREDOCS:
            for dash, _, name in _HEREDOC.findall(rest):
                for content in lines:
                    if (content.lstrip("\t") if dash else content) == name:
                        break


def _continues(line: str, escape: str) -> bool:
    return line.rstrip().endswith(escape)


def _split_flags(rest: str) -> tuple[list[tuple[str, str]], Sequence[str]]:
    flags: list[tuple[str, str]] = []
    tokens = rest.split()
    while tokens and (match := _FLAG.fullmatch(tokens[0])):
        flags.append((match[1], match[2] or ""))
        tokens = tokens[1:]
    return flags, tokens


def _arguments(rest: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"([A-Za-z_][A-Za-z0-9_]*)(?:=(\"[^\"]*\"|'[^']*'|\S*))?", rest):
        yield match[1], (match[2] or "").strip("\"'")


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """Expand variables as a shell does: `$A`, `${A}`, `${A:-default}`, `${A-default}`, `${A:+other}`, `${A+other}`.

    Variables that only BuildKit knows, such as the platform, are kept.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name in _PLATFORM_ARGS and name not in variables:
            return match[0]
        current, operator = variables.get(name), match[3] or ""
        is_set = current is not None and (current != "" or ":" not in operator)
        if operator.endswith("-"):
            return str(current) if is_set else _expanded(match[4], variables)
        if operator.endswith("+"):
            return _expanded(match[4], variables) if is_set else ""
        return current or ""

    return _VARIABLE.sub(value, text.strip("\"'"))
