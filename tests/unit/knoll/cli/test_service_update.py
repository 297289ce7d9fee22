"""Waiting until a Service is ready, and what is printed meanwhile."""

from typing import Any, cast

import pytest

from knoll.cli.client import ApiClient
from knoll.cli.service_update import NotReadyError, until_ready

HINT = 'Revision "a-00001" is not yet ready: nothing listens on 8080; the container listens on 3000'
COMING = ("Unknown", "OutOfDate", "The Configuration is still working to reflect the latest desired specification.")
STUCK = ("Unknown", "Unhealthy", HINT)


class Answers:
    """A client whose Service goes from one state to the next."""

    def __init__(self, *states: tuple[str, str, str]) -> None:
        self._states = list(states)

    def get(self, *_: Any) -> dict[str, Any]:
        status, reason, message = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        each = {"status": status, "reason": reason, "message": message}
        conditions = [{"type": type_, **each} for type_ in ("ConfigurationsReady", "Ready")]
        return {"status": {"observedGeneration": 1, "conditions": conditions}}


def wait(*states: tuple[str, str, str]) -> list[str]:
    obstacles: list[str] = []
    until_ready(cast(ApiClient, Answers(*states)), "default", "a", 1, obstacles.append)
    return obstacles


def test_what_keeps_a_service_from_being_ready_is_printed_once() -> None:
    assert wait(COMING, ("Unknown", "", ""), STUCK, STUCK, ("True", "", "")) == [HINT]


def test_nothing_is_printed_about_a_service_that_becomes_ready() -> None:
    assert wait(COMING, ("Unknown", "", ""), ("True", "", "")) == []


def test_a_time_out_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knoll.cli.service_update.READY_SECONDS", 0)
    with pytest.raises(NotReadyError, match="the container listens on 3000"):
        wait(STUCK)
