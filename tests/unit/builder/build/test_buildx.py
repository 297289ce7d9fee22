from pathlib import Path

import pytest

from builder.build.buildx import BuildCommand, build_arguments, git_context, reason

LAYERS, METADATA = Path("/layers"), Path("/metadata")


def test_the_command_reads_the_source_from_standard_input() -> None:
    arguments = build_arguments(BuildCommand("team"), LAYERS, METADATA)
    assert arguments[:3] == ["buildx", "build", "--builder=knoll"]
    assert arguments[-1] == "-"
    assert arguments[arguments.index("--file") + 1] == "Dockerfile"
    assert "--output=type=oci,tar=false,dest=/layers,compression=uncompressed" in arguments
    assert not [word for word in arguments if word.startswith(("--allow", "--network", "--ssh"))]


def test_arguments_target_and_platform_are_passed() -> None:
    build = BuildCommand(
        "team", "d/File", "test", {"B": "2", "A": "1 x"}, "linux/amd64", images={"a:1": "oci-layout://x"}
    )
    arguments = build_arguments(build, LAYERS, METADATA)
    assert "--target" in arguments
    assert arguments.index("A=1 x") < arguments.index("B=2")
    assert arguments[arguments.index("--platform") + 1] == "linux/amd64"
    assert arguments[arguments.index("--build-context") + 1] == "a:1=oci-layout://x"


def test_caches_and_steps_carry_the_namespace_whatever_the_arguments_say() -> None:
    arguments = build_arguments(BuildCommand("team", args={"BUILDKIT_CACHE_MOUNT_NS": "other"}), LAYERS, METADATA)
    given = [arguments[at + 1] for at, word in enumerate(arguments) if word == "--build-arg"]
    assert given == ["BUILDKIT_CACHE_MOUNT_NS=team", "BUILDKIT_SANDBOX_HOSTNAME=team"]


def test_the_reason_is_the_last_error_of_buildkit() -> None:
    lines = ["#5 RUN false", 'ERROR: failed to solve: process "/bin/sh -c false" did not complete: exit code: 1', ""]
    assert reason(lines) == 'process "/bin/sh -c false" did not complete: exit code: 1'


def test_without_an_error_line_the_last_line_is_the_reason() -> None:
    assert reason(["one", "two", "  "]) == "two"


def test_a_build_without_output_has_a_reason_too() -> None:
    assert reason([]) == "the build ended without output"


def test_secrets_are_passed_by_id_and_the_source_may_be_a_repository() -> None:
    arguments = build_arguments(
        BuildCommand("team", context="https://x/y.git#v1", secrets={"token": Path("/s/0")}), LAYERS, METADATA
    )
    assert arguments[arguments.index("--secret") + 1] == "id=token,src=/s/0"
    assert arguments[-1] == "https://x/y.git#v1"


@pytest.mark.parametrize(
    ("url", "revision", "context"),
    [
        ("https://host/a/b", "", "https://host/a/b.git"),
        ("https://host/a/b.git", "main", "https://host/a/b.git#main"),
        ("https://host/a/b/", "v1", "https://host/a/b.git#v1"),
        ("git@host:a/b.git", "", "git@host:a/b.git"),
        ("git://host/a", "abc", "git://host/a#abc"),
    ],
)
def test_a_repository_is_written_in_buildkits_form(url: str, revision: str, context: str) -> None:
    assert git_context(url, revision) == context
