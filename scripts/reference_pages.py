"""Reference pages of the documentation, generated from the code that they describe.

`PAGES` maps each page's path below docs/ to the function that returns its Markdown. `scripts/docs_hooks.py` adds the
pages to the site while MkDocs builds it; nothing generated is written into the repository, so nothing can be out of
date there. `python -m scripts.reference_pages settings` prints one page.
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import click
import msgspec
import yaml

from knoll.cli import main as knoll_command
from knoll.config.platform import default_config_maps
from knoll.process import settings
from scripts import annotations

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = {"api": "API", "activator": "Activator", "autoscaler": "Autoscaler", "builder": "Builder"}
"""Package of each process, and its name in a heading."""
GIB = 1024**3
CHANGE_A_KEY = """\
```sh
kubectl -n knative-serving patch configmap config-autoscaler --type merge -p '{"data": {"stable-window": "120s"}}'
```"""
METRIC_TYPES = {
    "Counter": "counter", "CounterMetricFamily": "counter",
    "Gauge": "gauge", "GaugeMetricFamily": "gauge",
    "Histogram": "histogram", "HistogramMetricFamily": "histogram",
}  # fmt: skip


def settings_page() -> str:
    """Every environment variable of the processes, and those of compose.yaml."""
    sections = [
        "# Settings",
        "Environment variables wire the processes together: addresses, ports, folders and limits. What the platform"
        " *does* is configured by [ConfigMaps](configmaps.md). `knoll up` and Compose set most of these variables"
        " themselves.",
        "## Docker Compose",
        "`compose.yaml` reads these from the environment or from a file `.env` beside it.",
        _table(("variable", "default", "meaning"), _compose_rows()),
    ]
    for title, fields in process_settings().items():
        rows = [(f"`{name}`", default, _cell(meaning)) for name, default, meaning in fields]
        sections += [f"## {title}", _table(("variable", "default", "meaning"), rows)]
    return _page(sections)


def process_settings() -> dict[str, list[tuple[str, str, str]]]:
    """Section title → variable, default as it is shown, and meaning; in the order of `knoll.process.settings`."""
    sections: dict[str, list[tuple[str, str, str]]] = {}
    for node in ast.parse(inspect.getsource(settings)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        group = getattr(settings, node.name)
        if not issubclass(group, settings.CommonSettings):
            continue
        defaults = {field.name: field.default for field in msgspec.structs.fields(group)}
        title = (ast.get_docstring(node) or node.name).partition("\n")[0].rstrip(".")
        sections[title] = [
            (f"{settings.PREFIX}{name.upper()}", shown_default(name, defaults[name]), meaning)
            for name, meaning in _documented_fields(node)
        ]
    return sections


def _documented_fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, text in pairwise([*node.body, ast.Pass()]):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if not (isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)):
                raise ValueError(f"{node.name}.{statement.target.id} has no docstring below it")
            yield statement.target.id, " ".join(str(text.value.value).split())


def shown_default(name: str, default: object) -> str:
    """A default as a reader of the table understands it: no `None`, no empty cell."""
    if default is None:
        return "not set"
    if default == "":
        return "empty"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if name.endswith("_bytes") and isinstance(default, int) and default and default % GIB == 0:
        return f"`{default}` ({default // GIB} GiB)"
    return f"`{default}`"


def compose_variables() -> dict[str, str]:
    """The variables that the comment at the top of compose.yaml explains, with their explanations."""
    head = (ROOT / "compose.yaml").read_text().partition("\nname:")[0]
    return dict(re.findall(r"^#\s+(KNOLL_\w+)\s+(.+)$", head, re.MULTILINE))


def _compose_rows() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, text in compose_variables().items():
        meaning, _, default = text.rpartition("; default ")
        if not meaning:
            raise ValueError(f"compose.yaml names no default of {name}")
        rows.append((f"`{name}`", default if default == "none" else f"`{default}`", _cell(meaning)))
    return rows


def configmaps_page() -> str:
    """Every key of every ConfigMap, with its default and its explanation, as a new platform has them."""
    sections = [
        "# ConfigMaps",
        "The platform is configured by ConfigMaps in the namespace `knative-serving`: Knative's own, and"
        " `config-security`. A change takes effect within seconds; an invalid value is rejected with the reason. The"
        " texts below are what `kubectl get configmap -n knative-serving NAME -o yaml` shows under `_example`: each"
        " key with its default.",
        CHANGE_A_KEY,
    ]
    for config_map in sorted(default_config_maps(), key=lambda each: each["metadata"]["name"]):
        body = re.sub(r"\A(?:#.*\n)+\n", "", config_map["data"]["_example"])
        yaml.safe_load(body)
        sections += [f"## {config_map['metadata']['name']}", f"```yaml\n{body.rstrip()}\n```"]
    return _page(sections)


def annotations_page() -> str:
    """Annotations and labels that users set, and those that the platform writes."""
    sections = [
        "# Annotations and labels",
        "Knative's annotations keep their meaning; those under `knoll.dev/` are additions. A manifest that uses only"
        " the first kind applies unchanged on Knative, and Knative ignores the second kind.",
    ]
    for section in annotations.SECTIONS:
        rows = [
            (_code_list((key, *annotations.older_spellings(key))), _cell(meaning))
            for key, meaning in section.rows.items()
        ]
        sections += [f"## {section.title}", section.intro, _table(("key", "meaning"), rows)]
    return _page(sections)


def cli_page() -> str:
    """The command `knoll` with all subcommands, from click."""
    root = click.Context(knoll_command, info_name="knoll")
    sections = ["# Command line", _prose(knoll_command.help or "")]
    for name in knoll_command.list_commands(root):
        command = knoll_command.get_command(root, name)
        if command is None:
            raise ValueError(f"`knoll {name}` is listed and does not exist")
        sections += _command_sections(command, root, name, "##")
    return _page(sections)


def _command_sections(command: click.Command, parent: click.Context, name: str, level: str) -> list[str]:
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
    if not command.help:
        raise ValueError(f"`{context.command_path}` has no help text")
    sections = [f"{level} {context.command_path}", f"```text\n{usage}\n```", _prose(command.help)]
    options = [option for option in command.params if isinstance(option, click.Option)]
    records = [record for record in (option.get_help_record(context) for option in options) if record]
    if records:
        rows = [(f"`{option}`", _cell(text)) for option, text in records]
        sections.append(_table(("option", "meaning"), rows))
    if isinstance(command, click.Group):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            assert child is not None
            sections += _command_sections(child, context, child_name, level + "#")
    return sections


def metrics_page() -> str:
    """Every metric that the processes define, by process."""
    sections = [
        "# Metrics",
        "Each process serves Prometheus' text format at `/metrics` of its admin port"
        " ([settings](settings.md)); the API serves its own at `/metrics` of its ports. Python's and the process's"
        " usual metrics are not listed here.",
    ]
    for process, title in PROCESSES.items():
        rows = [
            (f"`{name}`", kind, _code_list(labels) or "none", _cell(text))
            for name, kind, labels, text in metrics(process)
        ]
        if rows:
            sections += [f"## {title}", _table(("metric", "type", "labels", "meaning"), rows)]
    return _page(sections)


def metrics(process: str) -> list[tuple[str, str, tuple[str, ...], str]]:
    """Name, type, labels and help text of the metrics that a process's package defines, sorted by name."""
    rows = []
    for file in sorted((ROOT / process).rglob("*.py")):
        tree = ast.parse(file.read_text())
        label_lists = {
            node.targets[0].id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.List)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in METRIC_TYPES:
                rows += _metric(node, node.func.id, label_lists)
    return sorted(rows)


def _metric(
    call: ast.Call, constructor: str, label_lists: Mapping[str, ast.List]
) -> list[tuple[str, str, tuple[str, ...], str]]:
    """The metric that a call defines, if it defines one."""
    strings = [argument.value for argument in call.args[:2] if isinstance(argument, ast.Constant)]
    if len(strings) != 2 or not str(strings[0]).startswith("knoll_"):
        return []
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    labels = keywords.get("labels", keywords.get("labelnames", call.args[2] if len(call.args) > 2 else None))
    if isinstance(labels, ast.Name):
        labels = label_lists[labels.id]
    names = tuple(str(ast.literal_eval(element)) for element in labels.elts) if isinstance(labels, ast.List) else ()
    kind = METRIC_TYPES[constructor]
    name = str(strings[0]) + ("_total" if kind == "counter" and not str(strings[0]).endswith("_total") else "")
    return [(name, kind, names, str(strings[1]))]


PAGES: dict[str, Callable[[], str]] = {
    "reference/settings.md": settings_page,
    "reference/configmaps.md": configmaps_page,
    "reference/annotations.md": annotations_page,
    "reference/cli.md": cli_page,
    "reference/metrics.md": metrics_page,
}


def _page(sections: list[str]) -> str:
    return "\n\n".join(section for section in sections if section) + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        raise ValueError(f"no rows for the table {' | '.join(head)}")
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code_list(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _prose(help_text: str) -> str:
    """A help text as Markdown: its paragraphs, with angle brackets as text."""
    return inspect.cleandoc(help_text).replace("<(", "&lt;(")


if __name__ == "__main__":
    print(PAGES[f"reference/{sys.argv[1]}.md"]())
