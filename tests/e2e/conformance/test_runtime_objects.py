"""Variables that come from Secrets and ConfigMaps, one by one and all at once."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.e2e.conformance.conftest import Namespace, service

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

OBJECTS = """
apiVersion: v1
kind: Secret
metadata: {name: kept}
stringData: {TEST_WORD: sesame}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: told}
data: {TEST_WORD: open}
"""


def events_of(kind: str, name: str) -> list[dict[str, Any]]:
    return [{"name": "TEST_WORD", "valueFrom": {f"{kind}KeyRef": {"name": name, "key": "TEST_WORD"}}}]


SERVICES = [
    service("secret-one", env=events_of("secret", "kept")),
    service("secret-all", envFrom=[{"secretRef": {"name": "kept"}}]),
    service("config-one", env=events_of("configMap", "told")),
    service("config-all", envFrom=[{"configMapRef": {"name": "told"}}]),
]


@pytest.fixture(scope="module")
def here(make_namespace: Callable[[str], AbstractContextManager[Namespace]]) -> Iterator[Namespace]:
    with make_namespace("runtime-objects") as here:
        here.kubectl("apply", "-f", "-", stdin=OBJECTS)
        here.apply(*SERVICES)
        yield here


@pytest.mark.parametrize("name", ["secret-one", "secret-all"])
def test_a_secret_is_read_from_variables(here: Namespace, name: str) -> None:
    """TestSecretsViaEnv."""
    assert here.report(name)["env"]["TEST_WORD"] == "sesame"


@pytest.mark.parametrize("name", ["config-one", "config-all"])
def test_a_config_map_is_read_from_variables(here: Namespace, name: str) -> None:
    """TestConfigsViaEnv."""
    assert here.report(name)["env"]["TEST_WORD"] == "open"
