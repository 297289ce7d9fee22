"""Reading a Dockerfile for what it starts from. Pure.

BuildKit does the real parsing. This finds the images that its `FROM`, `COPY --from` and `RUN --mount=from` name, so
that those that are on the engine can be handed over. An image that is missed here is looked for at its registry.

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
    """The parser directives at the top, by lower-case name."""
    return {name: value for _, name, value in _header(text)}


def without_syntax(text: str) -> str:
    """The same Dockerfile for the frontend that is part of BuildKit: without `# syntax=`, every line where it was.

    The other directives must come first, so they move up and a comment fills the place.
    """
    header = _header(text)
    if all(name != "syntax" for _, name, _ in header):
        return text
    lines = text.splitlines(keepends=True)
    kept = [lines[at] for at, name, _ in header if name != "syntax"]
    filler = ["# (the frontend is the one that is part of BuildKit)\n"] * (len(header) - len(kept))
    return "".join([*kept, *filler, *lines[len(header) :]])


def _header(text: str) -> list[tuple[int, str, str]]:
    """Line, name and value of each directive: they are at the top, without an empty line or another comment between."""
    found: list[tuple[int, str, str]] = []
    for at, line in enumerate(text.removeprefix("\ufeff").splitlines()):
        match = _DIRECTIVE.fullmatch(line)
        if not match or match[1].lower() not in ("syntax", "escape", "check"):
            break
        found.append((at, match[1].lower(), match[2]))
    return found


def images(text: str, arguments: Mapping[str, str]) -> tuple[str, ...]:
    """References of the images that a Dockerfile names, each once, in their order, as written but for variables.

    Args: arguments: build arguments, which win over the defaults of `ARG`.
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
            flags, words = _split_flags(rest)
            del flags
            if not words:
                continue
            image = _expanded(words[0], variables)
            if image and image.lower() not in stages and image != "scratch" and "$" not in image:
                named[image] = None
            if len(words) >= 3 and words[1].upper() == "AS":
                stages.add(words[2].lower())
            stages.add(str(count))
            count += 1
        elif keyword in ("COPY", "RUN"):
            for image in _sources(keyword, rest):
                image = _expanded(image, variables)
                if image and image.lower() not in stages and "$" not in image:
                    named[image] = None
    return tuple(named)


def _sources(keyword: str, rest: str) -> Iterator[str]:
    """What `--from` and `--mount=…,from=` of an instruction name."""
    for name, value in _split_flags(rest)[0]:
        if keyword == "COPY" and name == "from":
            yield value
        elif keyword == "RUN" and name == "mount":
            fields = dict(part.partition("=")[::2] for part in value.strip("\"'").split(","))
            if "from" in fields:
                yield fields["from"]


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Keyword in upper case and the rest of each instruction: lines joined, without comments and here-documents."""
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
                for inside in lines:
                    if (inside.lstrip("\t") if dash else inside) == name:
                        break


def _continues(line: str, escape: str) -> bool:
    return line.rstrip().endswith(escape)


def _split_flags(rest: str) -> tuple[list[tuple[str, str]], Sequence[str]]:
    flags: list[tuple[str, str]] = []
    words = rest.split()
    while words and (match := _FLAG.fullmatch(words[0])):
        flags.append((match[1], match[2] or ""))
        words = words[1:]
    return flags, words


def _arguments(rest: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"([A-Za-z_][A-Za-z0-9_]*)(?:=(\"[^\"]*\"|'[^']*'|\S*))?", rest):
        yield match[1], (match[2] or "").strip("\"'")


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """Variables as a shell writes them: `$A`, `${A}`, `${A:-default}`, `${A-default}`, `${A:+other}`, `${A+other}`.

    What only BuildKit can say, such as the platform, stays as it is.
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
