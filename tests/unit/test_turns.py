"""Turns of tests that need Docker."""

import fcntl
import threading
from pathlib import Path

import pytest

from tests import turns
from tests.turns import docker_turn
from tests.waiting import eventually_sync


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "QUEUE", tmp_path / "queue")
    monkeypatch.setattr(turns, "TURN", tmp_path / "turn")


def test_tests_run_side_by_side_and_one_that_runs_alone_waits_for_them_and_holds_up_others() -> None:
    order: list[str] = []

    def run(name: str, *, alone: bool) -> threading.Thread:
        def work() -> None:
            with docker_turn(alone=alone):
                order.append(name)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    with docker_turn(alone=False):
        run("beside", alone=False).join(30)
        assert order == ["beside"]
        alone = run("alone", alone=True)
        eventually_sync(lambda: _is_held(turns.QUEUE))
        later = run("later", alone=False)
        assert order == ["beside"]
    alone.join(30)
    later.join(30)
    assert order == ["beside", "alone", "later"]


def _is_held(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
