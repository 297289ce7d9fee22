"""Which platform a command uses, with and without options; what the doctor reports about open ports."""

import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from knoll.auth import kubeconfig
from knoll.cli import connection, doctor, running, up
from knoll.cli.client import DEFAULT_SERVER


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("KUBECONFIG", "KNOLL_SERVER", "KNOLL_KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KNOLL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("KNOLL_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "data").mkdir()
    return tmp_path


def write(path: Path, server: str, name: str = kubeconfig.NAME) -> Path:
    path.parent.mkdir(exist_ok=True)
    document = kubeconfig.document(server, token="t") | {"current-context": name}
    document["contexts"][0]["name"] = name
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def up_there(folders: Path) -> Iterator[None]:
    """A platform that `knoll up` runs, which others reach by another address."""
    write(folders / "run" / "kubeconfig", "https://192.0.2.7:9444")
    with running.lock(folders / "data", {"KNOLL_STATE_DIR": str(folders / "run")}):
        yield


def test_without_anything_it_is_the_plain_port_of_this_machine() -> None:
    assert connection.api_client(None).server == DEFAULT_SERVER


@pytest.mark.usefixtures("up_there")
def test_the_platform_that_runs_here_is_asked_over_https_with_its_owner_s_token() -> None:
    client = connection.api_client(None)
    assert client.server == "https://127.0.0.1:9444"
    assert client._http.headers["Authorization"] == "Bearer t"


def test_a_platform_that_has_ended_is_not_asked(folders: Path) -> None:
    (folders / "data" / "up.json").write_text('{"pid": 1, "environment": {"KNOLL_STATE_DIR": "/nowhere"}}')
    assert connection.api_client(None).server == DEFAULT_SERVER


def test_in_the_api_s_container_its_own_kubeconfig_is_used(folders: Path) -> None:
    write(folders / "state" / "kubeconfig", "https://192.0.2.7:8444")
    assert connection.api_client(None).server == "https://127.0.0.1:8444"


@pytest.mark.usefixtures("up_there")
@pytest.mark.parametrize(("context", "used"), [(kubeconfig.NAME, True), ("production", False)])
def test_an_exported_kubeconfig_is_used_when_knoll_wrote_it(
    folders: Path, monkeypatch: pytest.MonkeyPatch, context: str, used: bool
) -> None:
    path = write(folders / "exported", "https://knoll.example:8444", context)
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert connection.api_client(None).server == ("https://knoll.example:8444" if used else "https://127.0.0.1:9444")


@pytest.mark.usefixtures("up_there")
def test_a_kubeconfig_that_is_named_comes_first(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write(folders / "exported", "https://knoll.example:8444")))
    assert (
        connection.api_client(write(folders / "named", "https://named.example:1")).server == "https://named.example:1"
    )


@pytest.mark.parametrize(("closed", "shown"), [("true", True), ("false", False)])
def test_what_is_printed_at_the_start_names_the_ports_that_are_open(
    monkeypatch: pytest.MonkeyPatch, closed: str, shown: bool
) -> None:
    monkeypatch.setenv("KNOLL_API_TRUSTS_PLAIN", closed)
    environment = {
        "KNOLL_API_PORT": "9001",
        "KNOLL_PUBLIC_PORT": "9080",
        "KNOLL_API_TLS_PORT": "9444",
        "KNOLL_STATE_DIR": "/s",
    }
    text = up.summary(environment)
    assert ("kubectl --server http://127.0.0.1:9001" in text) is shown
    assert "export KUBECONFIG=/s/kubeconfig" in text


def entry(name: str, uid: int, shell: str = "/bin/bash") -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", f"/home/{name}", shell))


def test_the_doctor_counts_people_and_no_services() -> None:
    entries = [
        entry("root", 0),
        entry("daemon", 1, "/usr/sbin/nologin"),
        entry("me", 1000),
        entry("ann", 1001),
        entry("bob", 1002, "/usr/sbin/nologin"),
        entry("ci", 1003, "/bin/false"),
        entry("nobody", 65534),
    ]
    assert doctor.login_users(entries, 1000) == ["ann"]
