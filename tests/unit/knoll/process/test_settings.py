"""Settings come from the environment, and errors about invalid values name the variable."""

import subprocess
import sys
from pathlib import Path

import pytest

from knoll.process.settings import (
    ActivatorSettings,
    ApiSettings,
    AutoscalerSettings,
    BuilderSettings,
    CommonSettings,
    EngineProxySettings,
    NamesSettings,
    SettingsError,
)

ALL = (ActivatorSettings, ApiSettings, AutoscalerSettings, BuilderSettings, EngineProxySettings, NamesSettings)


@pytest.mark.parametrize("kind", ALL)
def test_an_empty_environment_gives_the_defaults(kind: type[CommonSettings]) -> None:
    assert kind.read({}) == kind()
    assert kind.read({"KNOLL_OTHER": "1", "API_PORT": "1"}) == kind()


def test_values_are_read_as_what_they_are() -> None:
    settings = ApiSettings.read(
        {"KNOLL_API_PORT": "0", "KNOLL_API_TRUSTS_PLAIN": "true", "KNOLL_STATE_DIR": "/x", "KNOLL_PLATFORM": "a-1"}
    )
    assert (settings.api_port, settings.api_trusts_plain, settings.state_dir, settings.platform) == (
        0,
        True,
        Path("/x"),
        "a-1",
    )
    assert ActivatorSettings.read({"KNOLL_ACTIVATOR_OVERLOAD_STATUS": "429"}).activator_overload_status == 429
    autoscaler = AutoscalerSettings.read(
        {"KNOLL_CAPACITY_CPU": "1.5", "KNOLL_INSTANCE_DNS": "10.0.0.1", "KNOLL_TICK_SECONDS": "1"}
    )
    assert (autoscaler.capacity_cpu, autoscaler.instance_dns, autoscaler.tick_seconds) == (1.5, "10.0.0.1", 1.0)


@pytest.mark.parametrize(
    ("kind", "variable", "value", "problem"),
    [
        (ApiSettings, "KNOLL_API_PORT", "http", "KNOLL_API_PORT=http: expected `int`"),
        (ApiSettings, "KNOLL_API_PORT", "65536", "KNOLL_API_PORT=65536: expected `int` <= 65535"),
        (ApiSettings, "KNOLL_PUBLIC_PORT", "0", ">= 1"),
        (ApiSettings, "KNOLL_PLATFORM", "Not a name", "KNOLL_PLATFORM=Not a name: expected `str` matching regex"),
        (ApiSettings, "KNOLL_LOG_FORMAT", "xml", "KNOLL_LOG_FORMAT=xml: invalid enum value 'xml'"),
        (ActivatorSettings, "KNOLL_ACTIVATOR_WORKERS", "0", ">= 1"),
        (ActivatorSettings, "KNOLL_ACTIVATOR_OVERLOAD_STATUS", "500", "KNOLL_ACTIVATOR_OVERLOAD_STATUS=500"),
        (ActivatorSettings, "KNOLL_REPORT_SECONDS", "0", "KNOLL_REPORT_SECONDS=0: expected `float` > 0.0"),
        (AutoscalerSettings, "KNOLL_WARM_SANDBOXES", "257", "<= 256"),
        (AutoscalerSettings, "KNOLL_INSTANCE_DNS", "here", "KNOLL_INSTANCE_DNS: 'here' does not appear to be an IPv4"),
        (NamesSettings, "KNOLL_NAMES_HOST", "", "KNOLL_NAMES_HOST: '' does not appear to be an IPv4"),
    ],
)
def test_an_invalid_setting_is_reported_with_its_variable(
    kind: type[CommonSettings], variable: str, value: str, problem: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        kind.read({variable: value})
    assert problem in str(raised.value)


@pytest.mark.parametrize("process", ["api", "activator", "autoscaler", "builder"])
def test_a_process_ends_with_one_line_about_it(process: str) -> None:
    environment = {"KNOLL_REDIS_URL": "redis://127.0.0.1:1/0", "KNOLL_LOG_FORMAT": "xml"}
    done = subprocess.run([sys.executable, "-m", process], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr == "KNOLL_LOG_FORMAT=xml: invalid enum value 'xml'\n"


@pytest.mark.parametrize(
    ("settings", "trusts"),
    [
        ({}, True),
        ({"KNOLL_API_HOST": "::1"}, True),
        ({"KNOLL_API_HOST": "localhost"}, True),
        ({"KNOLL_API_HOST": "0.0.0.0"}, False),
        ({"KNOLL_API_HOST": "192.0.2.1"}, False),
        ({"KNOLL_API_HOST": "host.example"}, False),
        ({"KNOLL_API_HOST": "0.0.0.0", "KNOLL_API_TRUSTS_PLAIN": "true"}, True),
        ({"KNOLL_API_TRUSTS_PLAIN": "false"}, False),
    ],
)
def test_the_plain_port_is_trusted_where_only_this_machine_reaches_it(settings: dict[str, str], trusts: bool) -> None:
    assert ApiSettings.read(settings).trusts_plain is trusts
