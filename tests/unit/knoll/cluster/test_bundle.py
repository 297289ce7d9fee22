"""What a machine receives when it joins: its settings, and the script that it runs."""

import os
import subprocess
from pathlib import Path

import pytest

from knoll.cluster import bundle
from knoll.cluster.bundle import Bundle

BUNDLE = Bundle(
    first_node="n1",
    first_address="192.0.2.1",
    settings={"KNOLL_HTTP_PORT": "80", "KNOLL_PLATFORM": "shop"},
    keys={"api": {"secrets.keys": b"\x00\xff"}},
    files={"compose.yaml": b"services: {}"},
    swarm_token="SWMTKN-1-x",
    swarm_address="192.0.2.1:2377",
)


def test_a_bundle_survives_its_encoding() -> None:
    assert bundle.decode(bundle.encode(BUNDLE)) == BUNDLE


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"first_node": 1}'])
def test_an_invalid_bundle_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        bundle.decode(data)


def test_a_machine_that_joins_gets_the_shared_settings_and_its_own() -> None:
    settings = bundle.node_settings(BUNDLE, "n2", "192.0.2.2")
    assert settings["KNOLL_PLATFORM"] == "shop"
    assert settings["KNOLL_NODE"] == "n2"
    assert settings["KNOLL_FIRST_ADDRESS"] == "192.0.2.1"
    assert settings["KNOLL_NODE_LEADS"] == "false"
    assert settings["COMPOSE_FILE"].split(":") == ["compose.yaml", "compose.cluster.yaml", "compose.node.yaml"]


def test_a_manager_has_the_files_of_the_first_machine() -> None:
    settings = bundle.node_settings(BUNDLE, "n2", "192.0.2.2") | bundle.manager_settings(2, "uid")
    first = bundle.first_settings("n1", "192.0.2.1", {})
    assert settings["COMPOSE_FILE"] == f"{first['COMPOSE_FILE']}:compose.manager.yaml"
    assert (settings["KNOLL_MANAGER_SLOT"], settings["KNOLL_MANAGER_ID"], settings["KNOLL_NODE_LEADS"]) == (
        "2", "uid", "true",
    )  # fmt: skip
    assert bundle.is_manager(settings)
    assert bundle.is_manager(first)
    assert not bundle.is_manager(bundle.node_settings(BUNDLE, "n3", "192.0.2.3"))
    assert not bundle.is_manager({})


def test_a_machine_that_joins_again_keeps_its_role() -> None:
    worker = bundle.node_settings(BUNDLE, "n2", "192.0.2.2")
    manager = worker | bundle.manager_settings(2, "uid")
    for role, before in ((False, {}), (True, {}), (False, worker), (True, manager)):
        assert list(bundle.role_problems(role, before)) == []
    (problem,) = bundle.role_problems(False, manager)
    assert "--manager" in problem
    (problem,) = bundle.role_problems(True, worker)
    assert "node leave" in problem


def test_the_command_for_managers_says_so_to_the_new_machine() -> None:
    scripts = [
        bundle.script("https://192.0.2.1:8444", "p", "knoll", "/etc/knoll", {}, manager=each) for each in (False, True)
    ]
    assert [" --manager " in text for text in scripts] == [False, True]


def test_the_first_machine_keeps_an_address_that_was_chosen() -> None:
    chosen = bundle.first_settings("n1", "192.0.2.1", {"KNOLL_BIND": "192.0.2.9", "KNOLL_GATEWAY_ADDRESS": "192.0.2.8"})
    assert (chosen["KNOLL_BIND"], chosen["KNOLL_GATEWAY_ADDRESS"]) == ("192.0.2.9", "192.0.2.8")
    derived = bundle.first_settings("n1", "2001:db8::1", {})
    assert (derived["KNOLL_BIND"], derived["KNOLL_GATEWAY_ADDRESS"]) == ("::", "2001:db8::1")


@pytest.mark.parametrize("value", ["plain", "two words", "it's", 'a "quote"', "a#b", "", "$HOME"])
def test_settings_survive_the_file(value: str) -> None:
    text = bundle.dotenv({"KNOLL_A": value, "KNOLL_B": "1"})
    assert bundle.parse_dotenv(text) == {"KNOLL_A": value, "KNOLL_B": "1"}


def test_comments_and_other_lines_stay_when_settings_change() -> None:
    text = "# mine\nKNOLL_BIND=127.0.0.1 \nOTHER=x # why\n"
    changed = bundle.changed_dotenv(text, {"KNOLL_BIND": "0.0.0.0", "KNOLL_NODE": "n1"})
    assert changed.splitlines() == ["# mine", "KNOLL_BIND=0.0.0.0", "OTHER=x # why", "KNOLL_NODE=n1"]
    assert bundle.changed_dotenv("", {"A": "b"}) == "A=b\n"


def test_a_setting_that_occurs_twice_changes_once_and_for_all() -> None:
    text = "KNOLL_BIND=127.0.0.1\nOTHER=1\nKNOLL_BIND=192.0.2.9\nOTHER=2\n"
    changed = bundle.changed_dotenv(text, {"KNOLL_BIND": "0.0.0.0"})
    assert changed.splitlines() == ["KNOLL_BIND=0.0.0.0", "OTHER=1", "OTHER=2"]


@pytest.mark.parametrize("text", ["no setting", "A=b c"])
def test_invalid_lines_are_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"NAME=VALUE"):
        bundle.parse_dotenv(text)


def test_the_script_is_shell_and_has_a_placeholder_for_the_token() -> None:
    script = bundle.script("https://192.0.2.1:8444", "sha256//a+b=", "knoll", "/etc/knoll", {})
    assert script.count("@TOKEN@") == 1
    assert subprocess.run(["sh", "-n"], input=script.encode()).returncode == 0
    hostile = bundle.script("https://x'; touch /tmp/no; '", "p", "i", "/h", {})
    assert subprocess.run(["sh", "-n"], input=hostile.encode()).returncode == 0
    assert "server='https://x'\"'\"'; touch" in hostile


def test_the_name_of_a_machine_is_its_host_name_without_the_domain(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    for command, text in (("docker", f'echo "$@" >> {calls}'), ("curl", ""), ("hostname", "echo Rack_1.example.org")):
        (tmp_path / command).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / command).chmod(0o755)
    home, settings = str(tmp_path / "home"), {"KNOLL_RELAY_PORT": "9444"}
    script = bundle.script("https://192.0.2.1:8444", "sha256//a+b=", "knoll", home, settings)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    assert subprocess.run(["sh"], input=script.encode(), env=environment).returncode == 0
    (joining,) = [line for line in calls.read_text().splitlines() if "node join" in line]
    assert joining.endswith("--name rack-1")
    # The new machine checks them before it receives anything.
    assert "--port KNOLL_AGENT_PORT=7443 --port KNOLL_RELAY_PORT=9444 --port KNOLL_API_TLS_PORT=8444" in joining


def test_a_machine_that_joins_again_keeps_settings_of_its_own_and_gets_the_shared_ones() -> None:
    before = {"KNOLL_BUILD_CPUS": "2", "KNOLL_HTTP_PORT": "1", "KNOLL_IMAGE": "knoll:old", "KNOLL_NODE": "n2"}
    settings = bundle.node_settings(BUNDLE, "n2", "192.0.2.2", before)
    assert settings["KNOLL_BUILD_CPUS"] == "2"
    # What the first machine no longer sets has its default again.
    assert {name: settings.get(name) for name in bundle.KEPT_SETTINGS} == {
        name: BUNDLE.settings.get(name) for name in bundle.KEPT_SETTINGS
    }


@pytest.mark.parametrize("home", ["/etc/knoll", "/srv/a folder; touch x"])
def test_the_command_of_a_machine_that_joined_passes_its_arguments_on(tmp_path: Path, home: str) -> None:
    program = tmp_path / "docker"
    program.write_text('#!/bin/sh\nfor each in "$@"; do echo "$each"; done\n')
    program.chmod(0o755)
    script = bundle.command("knoll:1", "/run/docker.sock", home, "9001")
    arguments = ["sh", "-c", script, "knoll", "node", "drain", "a b"]
    done = subprocess.run(
        arguments, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    passed = done.stdout.splitlines()
    assert passed[0] == "run"
    assert f"{home}:{home}" in passed
    assert "KNOLL_SERVER=http://127.0.0.1:9001" in passed
    assert "/run/docker.sock:/var/run/docker.sock" in passed
    assert passed[-5:] == ["knoll:1", "knoll", "node", "drain", "a b"]
