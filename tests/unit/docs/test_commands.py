"""Commands in the documents exist, are well formed, and are run by a test or marked as an example."""

import re
import shlex
import subprocess

import click
import pytest

from knoll.cli import main
from tests.documents import DOCUMENTS, ROOT, SHELL_LANGUAGES, Block, blocks, prose

BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
COMMANDS = [block for block in BLOCKS if block.language in SHELL_LANGUAGES]
MAKE_TARGETS = {
    target
    for line in (ROOT / "Makefile").read_text().splitlines()
    if (rule := re.match(r"([a-z][a-z -]*):(?!=)", line))
    for target in rule[1].split()
}
INLINE = sorted({code for document in DOCUMENTS for code in re.findall(r"`(knoll [a-z][^`]*)`", prose(document))})


def place(block: Block) -> str:
    return block.place


@pytest.mark.parametrize("block", BLOCKS, ids=place)
def test_each_block_names_its_language(block: Block) -> None:
    assert block.language


@pytest.mark.parametrize("block", COMMANDS, ids=place)
def test_each_command_block_is_run_by_a_test_or_marked_as_an_example(block: Block) -> None:
    assert block.directive in ("run", "lab", "tested", "example")
    if block.directive == "lab":
        assert block.document.name == "several-machines.md"
        assert block.argument.partition(",")[0] in ("n1", "n2")
    if block.directive == "example":
        assert len(block.argument.split()) >= 3, "give the reason"
    if block.directive == "tested":
        tested_by = (ROOT / block.argument).read_text()
        for command in block.commands():
            assert runs(tested_by, command, python=block.argument.endswith(".py")), command


def runs(tested_by: str, command: str, *, python: bool) -> bool:
    """Whether a test or a script has the first two arguments of a command."""
    first, second = command.split()[:2]
    if python:
        return f'"{second}"' in tested_by and first in tested_by
    if first == "make" and f"scripts/{second}.sh" in tested_by:
        return True
    return re.search(rf"\b{first}\b( [a-z-]+)* {re.escape(second)}\b", tested_by) is not None


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.directive == "output"], ids=place)
def test_each_output_follows_a_block_that_is_run(block: Block) -> None:
    siblings = blocks(block.document)
    before = siblings[siblings.index(block) - 1]
    assert before.directive == "run"
    assert block.text.strip()


@pytest.mark.parametrize("block", [block for block in COMMANDS if block.language != "console"], ids=place)
def test_each_command_block_is_valid_shell(block: Block) -> None:
    checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_each_make_target_in_a_document_exists() -> None:
    text = "\n".join(
        [*(command for block in COMMANDS for command in block.commands())]
        + [code for document in DOCUMENTS for code in re.findall(r"`(make [^`]+)`", prose(document))]
    )
    targets = set(re.findall(r"\bmake ([a-z][a-z-]+)", text))
    assert targets
    assert targets <= MAKE_TARGETS


@pytest.mark.parametrize("block", COMMANDS, ids=place)
def test_each_knoll_command_in_a_block_is_accepted_by_the_command_line(block: Block) -> None:
    for line in block.commands():
        for command in re.findall(r"(?:^|[\s(])knoll ([^|>;)]+)", line):
            check(command)


@pytest.mark.parametrize("code", INLINE)
def test_each_knoll_command_in_a_text_is_accepted_by_the_command_line(code: str) -> None:
    check(re.split(r"[|>;]", code)[0].removeprefix("knoll "))


def check(command: str) -> None:
    """Fail unless the subcommand and its options exist; arguments may be anything."""
    arguments = shlex.split(command)
    group: click.Command = main
    context = click.Context(main)
    while isinstance(group, click.Group) and arguments and not arguments[0].startswith("-"):
        child = group.get_command(context, arguments[0])
        assert child is not None, f"there is no `knoll {arguments[0]}`"
        group, arguments = child, arguments[1:]
    option_names = {name for option in group.get_params(context) for name in option.opts}
    for word in arguments:
        if re.match(r"--?[a-z]", word):
            assert word.partition("=")[0] in option_names, f"`knoll {command}` has no option {word}"
