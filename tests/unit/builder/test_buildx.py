from builder.buildx import Recipe, command, reason


def test_the_command_reads_the_source_from_standard_input() -> None:
    words = command(Recipe("app:v1"))
    assert words[:2] == ["buildx", "build"]
    assert words[-1] == "-"
    assert words[words.index("--tag") + 1] == "app:v1"
    assert words[words.index("--file") + 1] == "Dockerfile"


def test_arguments_target_and_platform_are_passed() -> None:
    words = command(Recipe("app:v1", "d/File", "test", {"B": "2", "A": "1 x"}, "linux/amd64"))
    assert "--target" in words
    assert words.count("--build-arg") == 2
    assert words.index("A=1 x") < words.index("B=2")
    assert words[words.index("--platform") + 1] == "linux/amd64"


def test_the_reason_is_the_builders_own_last_error() -> None:
    lines = ["#5 RUN false", 'ERROR: failed to solve: process "/bin/sh -c false" did not complete: exit code: 1', ""]
    assert reason(lines) == 'process "/bin/sh -c false" did not complete: exit code: 1'


def test_without_an_error_line_the_last_line_is_the_reason() -> None:
    assert reason(["one", "two", "  "]) == "two"


def test_silence_has_a_reason_too() -> None:
    assert reason([]) == "the build ended without a word"
