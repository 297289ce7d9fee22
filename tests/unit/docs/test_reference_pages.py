"""The generated reference pages cover the code that they describe."""

import ast
import re
from pathlib import Path

import click
import msgspec
import pytest

from knoll.cli import main
from knoll.config import platform as config
from knoll.process import settings
from scripts import annotations, docs_hooks, reference_pages
from tests.documents import DOCUMENTS, ROOT

SETTINGS_PAGE = reference_pages.settings_page()
GROUPS = [
    group for group in vars(settings).values() if isinstance(group, type) and issubclass(group, settings.CommonSettings)
]
FIELDS = {
    f"{settings.PREFIX}{field.name.upper()}": field for group in GROUPS for field in msgspec.structs.fields(group)
}
VARIABLE = re.compile(r"KNOLL_[A-Z0-9_]*[A-Z0-9]")


@pytest.mark.parametrize("path", reference_pages.PAGES)
def test_each_page_is_generated_with_a_title(path: str) -> None:
    page = reference_pages.PAGES[path]()
    assert page.startswith("# ")
    assert "None" not in page


@pytest.mark.parametrize("variable", FIELDS)
def test_each_setting_is_listed_with_its_default_and_its_meaning(variable: str) -> None:
    rows = [row for rows in reference_pages.process_settings().values() for row in rows if row[0] == variable]
    assert rows
    _, default, meaning = rows[0]
    assert meaning
    assert f"| `{variable}` | {default} | " in SETTINGS_PAGE
    value = FIELDS[variable].default
    expected = {"None": "not set", "": "empty", "True": "`true`", "False": "`false`"}.get(str(value), f"`{value}`")
    assert default.startswith(expected)


def test_no_setting_is_listed_that_does_not_exist() -> None:
    listed = {variable for rows in reference_pages.process_settings().values() for variable, _, _ in rows}
    assert listed == FIELDS.keys()


def test_each_variable_of_the_compose_file_is_explained() -> None:
    used = set(re.findall(r"\$\{(KNOLL_\w+)", (ROOT / "compose.yaml").read_text()))
    own = {"KNOLL_IMAGE"}  # set by tests
    explained = reference_pages.compose_variables().keys() | FIELDS.keys()
    assert used
    assert used - own <= explained


@pytest.mark.parametrize("variable", reference_pages.compose_variables())
def test_each_default_of_the_compose_file_is_the_one_that_it_explains(variable: str) -> None:
    explained = reference_pages.compose_variables()[variable].rpartition("; default ")[2]
    used = set(re.findall(rf"\$\{{{variable}:-([^}}]*)\}}", (ROOT / "compose.yaml").read_text()))
    assert used == ({"" if variable != "KNOLL_CA_BUNDLE" else "/dev/null"} if explained == "none" else {explained})


def test_each_variable_in_a_document_exists() -> None:
    scripts = [ROOT / "Makefile", ROOT / ".ci/run", *(ROOT / "scripts").glob("*.sh"), *(ROOT / "tests").rglob("*.py")]
    in_scripts = {name for script in scripts for name in VARIABLE.findall(script.read_text())}
    in_cli = {str(option.envvar) for command in all_commands() for option in command.params if option.envvar}
    existing = FIELDS.keys() | reference_pages.compose_variables().keys() | in_scripts | in_cli
    in_documents = {name for document in DOCUMENTS for name in VARIABLE.findall(document.read_text())}
    assert in_documents <= existing


def test_each_config_map_is_shown_with_all_of_its_keys() -> None:
    page = reference_pages.configmaps_page()
    assert set(re.findall(r"^## (\S+)$", page, re.MULTILINE)) == config.NAMES
    for config_map in config.default_config_maps():
        keys = re.findall(r"^[\w.-]+(?=:)", config_map["data"]["_example"], re.MULTILINE)
        assert keys
        assert all(f"\n{key}: " in page for key in keys)


def test_each_annotation_and_label_in_the_code_is_described_once() -> None:
    described = annotations.described_keys()
    assert len(described) == len(set(described))
    assert set(described) == annotations.keys_in_code()


def test_each_option_of_each_command_is_listed() -> None:
    sections = re.split(r"^##+ knoll ", reference_pages.cli_page(), flags=re.MULTILINE)
    by_command = {section.partition("\n")[0].split()[-1]: section for section in sections[1:]}
    for command in all_commands():
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.opts[-1] in by_command[str(command.name)]


def all_commands() -> list[click.Command]:
    context = click.Context(main)
    commands: list[click.Command] = []
    for command_name in main.list_commands(context):
        command = main.get_command(context, command_name)
        assert command is not None
        children = list(command.commands.values()) if isinstance(command, click.Group) else []
        commands += [command, *children]
    return commands


@pytest.mark.parametrize("process", ["api", "activator", "autoscaler"])
def test_each_metric_that_the_code_names_is_listed(process: str) -> None:
    listed = {metric_name.removesuffix("_total") for metric_name, *_ in reference_pages.metrics(process)}
    assert listed
    assert metric_names(ROOT / process) <= listed
    assert all(text for *_, text in reference_pages.metrics(process))


def metric_names(package: Path) -> set[str]:
    """First arguments of calls that look like a metric's name."""
    calls = (
        node
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
    )
    first = (call.args[0].value for call in calls if call.args and isinstance(call.args[0], ast.Constant))
    return {text for text in first if isinstance(text, str) and re.fullmatch(r"knoll(?:_[a-z]+)+", text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[guide](docs/security.md)", "[guide](security.md)"),
        ("[guide](docs/security.md#boundaries)", "[guide](security.md#boundaries)"),
        ("[changes](CHANGELOG.md)", "[changes](changelog.md)"),
        ("[api/README.md](api/README.md)", "[api/README.md](reference/api.md)"),
        ("[bench](bench/README.md)", "bench (`bench/README.md`)"),
        ("[LICENSE](LICENSE)", "`LICENSE`"),
        ("[site](https://example.com/a)", "[site](https://example.com/a)"),
    ],
)
def test_links_of_a_document_lead_to_pages_of_the_site(text: str, expected: str) -> None:
    assert docs_hooks.relinked(text, "ARCHITECTURE.md", "architecture.md") == expected
