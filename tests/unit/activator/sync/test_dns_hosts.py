"""The files of cluster-local names: their content, and that they match the routing table."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.sync.dns_hosts import HostsFiles, file_name, hosts_lines
from knoll.messages.routing import RequestPolicy, RouteEntry, Share
from knoll.values.names import local_hosts

GATEWAY = "10.201.0.2"


def entry(*names: str, namespace: str = "default", percent: int = 100) -> RouteEntry:
    """A Route's: its own name and those of its tags."""
    shares = (Share("default/r", percent), *([Share("default/s", 100 - percent)] if percent < 100 else []))
    local = {host: shares for name in names for host in local_hosts(name, namespace)}
    return RouteEntry(hosts={"r.example.com": shares}, revisions={"default/r": RequestPolicy()}, local_hosts=local)


def written(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_each_name_resolves_to_the_gateway_in_every_cluster_local_form() -> None:
    assert hosts_lines(entry("shop", "v1-shop"), GATEWAY).splitlines() == [
        f"{GATEWAY} shop.default.svc",
        f"{GATEWAY} shop.default.svc.cluster.local",
        f"{GATEWAY} v1-shop.default.svc",
        f"{GATEWAY} v1-shop.default.svc.cluster.local",
    ]


def test_public_hosts_are_not_ours_to_answer_for() -> None:
    mapping = RouteEntry(
        hosts={"www.example.org": (Share("default/r", 100),)}, revisions={"default/r": RequestPolicy()}
    )
    assert hosts_lines(mapping, GATEWAY) == ""


def test_the_file_of_a_deleted_route_is_removed(tmp_path: Path) -> None:
    files = HostsFiles(tmp_path, GATEWAY)
    files.change("default/shop", entry("shop"))
    assert written(tmp_path) == {"default.shop": hosts_lines(entry("shop"), GATEWAY)}
    files.change("default/shop", None)
    files.change("default/never-there", None)
    assert written(tmp_path) == {}


def test_files_of_an_earlier_process_stay_until_the_table_is_read(tmp_path: Path) -> None:
    HostsFiles(tmp_path, GATEWAY).replace({"default/old": entry("old"), "default/shop": entry("shop")})
    (tmp_path / ".default.shop.77").write_text("half a fi")
    files = HostsFiles(tmp_path, GATEWAY)
    assert {"default.old", "default.shop"} < set(written(tmp_path))
    files.replace({"default/shop": entry("shop")})
    assert written(tmp_path) == {"default.shop": hosts_lines(entry("shop"), GATEWAY)}


def test_other_weights_write_nothing(tmp_path: Path) -> None:
    files = HostsFiles(tmp_path, GATEWAY)
    files.change("default/shop", entry("shop"))
    before = (tmp_path / "default.shop").stat().st_ino
    files.change("default/shop", entry("shop", percent=30))
    files.replace({"default/shop": entry("shop", percent=60)})
    assert (tmp_path / "default.shop").stat().st_ino == before


def test_the_files_are_readable_by_all_users(tmp_path: Path) -> None:
    HostsFiles(tmp_path, GATEWAY).change("default/shop", entry("shop"))
    assert (tmp_path / "default.shop").stat().st_mode & 0o777 == 0o644


def test_an_unwritable_folder_is_reported_and_does_not_stop_routing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "names"
    files = HostsFiles(folder, GATEWAY)
    folder.rmdir()
    files.change("default/shop", entry("shop"))
    assert "cluster-local name not written" in capsys.readouterr().out
    folder.mkdir()
    files.replace({"default/shop": entry("shop")})
    assert written(folder)


routes = st.sampled_from(["default/a", "default/b", "team/a", "team/domainmapping:a.example.com"])
entries = st.one_of(
    st.none(), st.lists(st.sampled_from(["a", "v1-a", "v2-a"]), unique=True).map(lambda names: entry(*names))
)


@given(st.lists(st.one_of(st.tuples(routes, entries), st.dictionaries(routes, entries.filter(bool)))))
def test_whatever_changed_the_files_are_those_of_the_table(
    steps: list[tuple[str, RouteEntry | None] | Mapping[str, RouteEntry]],
) -> None:
    table: dict[str, RouteEntry] = {}
    with TemporaryDirectory() as name:
        files = HostsFiles(Path(name), GATEWAY)
        for step in steps:
            if isinstance(step, Mapping):
                table = dict(step)
                files.replace(step)
                continue
            route, changed = step
            files.change(route, changed)
            table.pop(route, None)
            if changed is not None:
                table[route] = changed
        expected = {file_name(route): hosts_lines(route_entry, GATEWAY) for route, route_entry in table.items()}
        assert written(Path(name)) == {file: text for file, text in expected.items() if text}
