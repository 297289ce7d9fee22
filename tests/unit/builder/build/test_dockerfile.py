"""Which images a Dockerfile names, and what happens to its frontend."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.build.dockerfile import directives, images, instructions, without_syntax

CASES: list[tuple[str, str, dict[str, str], tuple[str, ...]]] = [
    ("one stage", "FROM alpine", {}, ("alpine",)),
    (
        "a tag, a name, any case",
        "from golang:1.24 as Build\nFROM scratch\nCOPY --from=build /a /a",
        {},
        ("golang:1.24",),
    ),
    ("a platform", "FROM --platform=$BUILDPLATFORM golang:1.24 AS b", {}, ("golang:1.24",)),
    ("a digest", "FROM r.example/a@sha256:" + "0" * 64, {}, ("r.example/a@sha256:" + "0" * 64,)),
    ("an argument", "ARG V=1.24\nFROM golang:${V}", {}, ("golang:1.24",)),
    ("an argument that is given", "ARG V=1.24\nFROM golang:$V", {"V": "1.25"}, ("golang:1.25",)),
    ("an argument of arguments", "ARG A=x B=${A}y\nFROM $B", {}, ("xy",)),
    ("an argument in quotes", 'ARG A="my/app:v1"\nFROM "${A}"', {}, ("my/app:v1",)),
    ("an argument that nothing declares", "FROM app:${V}", {"V": "2"}, ("app:",)),
    ("a default", "ARG V\nFROM app:${V:-2}", {}, ("app:2",)),
    ("a default for what is set and empty", "ARG V=\nFROM app${V-x}${V:-y}", {}, ("appy",)),
    ("another value", "ARG D=1\nFROM app${D:+-debug}", {}, ("app-debug",)),
    ("arguments of a stage do not count", "FROM a\nARG V=1\nFROM b:${V:-2}", {}, ("a", "b:2")),
    ("a platform in the name is BuildKit's to say", "FROM app-${TARGETARCH}", {}, ()),
    ("stages by name and number", "FROM a AS x\nFROM x\nCOPY --from=0 /a /\nCOPY --from=x /b /", {}, ("a",)),
    ("an image to copy from", "FROM scratch\nCOPY --chown=1:1 --from=busybox:1 /bin /bin", {}, ("busybox:1",)),
    (
        "an image to mount",
        "FROM a\nRUN --mount=type=bind,from=tools:2,target=/t --mount=type=cache,target=/c /t/run",
        {},
        ("a", "tools:2"),
    ),
    ("continued lines with comments between", "FROM \\\n# why\n\n  alpine:3 \\\n  AS x\nFROM x", {}, ("alpine:3",)),
    ("another escape", "# escape=`\nFROM `\n  windows:1\nRUN a\\\nFROM b", {}, ("windows:1", "b")),
    ("a here-document", "FROM a\nRUN <<EOF\nFROM b\nEOF\nFROM c", {}, ("a", "c")),
    (
        "two here-documents, one indented",
        "FROM a\nCOPY <<-X <<'Y' /d/\n\tFROM b\n\tX\nFROM c\nY\nFROM d",
        {},
        ("a", "d"),
    ),
    ("each once", "FROM a\nFROM a", {}, ("a",)),
    ("ONBUILD is for others", "FROM a\nONBUILD COPY --from=b /x /", {}, ("a",)),
    ("comments", "# FROM b\nFROM a\n  # FROM c\n", {}, ("a",)),
    ("Windows' line ends", "FROM a\r\nFROM b\r\n", {}, ("a", "b")),
]


@pytest.mark.parametrize(("text", "arguments", "expected"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_images_that_a_dockerfile_names(text: str, arguments: dict[str, str], expected: tuple[str, ...]) -> None:
    assert images(text, arguments) == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("FROM a\n", "FROM a\n"),
        ("# a comment\n# syntax=x\nFROM a\n", "# a comment\n# syntax=x\nFROM a\n"),
        ("# syntax=docker/dockerfile:1\nFROM a\n", "{filler}FROM a\n"),
        ("#syntax = x\n# escape=`\nFROM a\n", "# escape=`\n{filler}FROM a\n"),
        ("# escape=`\n# SYNTAX=x\n\nFROM a\n", "# escape=`\n{filler}\nFROM a\n"),
    ],
)
def test_the_syntax_directive_is_removed_and_nothing_else_changes(before: str, after: str) -> None:
    result = without_syntax(before)
    assert result == after.format(filler="# (BuildKit's own frontend is used)\n")
    assert "syntax" not in directives(result)
    assert len(result.splitlines()) == len(before.splitlines())


@given(st.text(alphabet="FROM argCPY-=${}:+<\\`#\n\t ae0\"'") | st.text())
def test_any_text_is_parsed_without_an_error(text: str) -> None:
    for image in images(text, {"a": "x"}):
        assert image
    for keyword, _ in instructions(text):
        assert keyword == keyword.upper()
    assert "syntax" not in directives(without_syntax(text))
