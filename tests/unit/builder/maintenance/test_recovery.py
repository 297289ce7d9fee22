import os
import subprocess
import sys

import pytest

from builder.maintenance.recovery import Process, is_dead, process, worker_name
from tests.waiting import eventually_sync

SEVEN = (7, 100)


@pytest.mark.parametrize(
    ("name", "listed", "alive", "dead"),
    [
        pytest.param(worker_name("here", SEVEN, "q"), set(), {SEVEN}, False, id="its process lives on this host"),
        pytest.param(
            worker_name("here", SEVEN, "q"),
            {worker_name("here", SEVEN, "q")},
            {(8, 1)},
            True,
            id="its process is gone, though RQ lists it",
        ),
        pytest.param(worker_name("here", SEVEN, "q"), set(), {(7, 200)}, True, id="a later process has its id"),
        pytest.param(
            worker_name("there", SEVEN, "q"),
            {worker_name("there", SEVEN, "q")},
            set(),
            False,
            id="another host, listed",
        ),
        pytest.param(worker_name("there", SEVEN, "q"), set(), {SEVEN}, True, id="another host, not listed any more"),
        pytest.param("by-hand", {"by-hand"}, set(), False, id="a name of another form, listed"),
        pytest.param("by-hand", set(), set(), True, id="a name of another form, not listed"),
        pytest.param(worker_name("here.example.org", SEVEN, "q"), set(), {SEVEN}, True, id="a host that begins alike"),
    ],
)
def test_a_worker_is_dead_when_its_process_or_its_name_is_gone(
    name: str, listed: set[str], alive: set[Process], dead: bool
) -> None:
    assert is_dead(name, "here", listed, alive) is dead


@pytest.mark.parametrize(
    ("name", "alive", "live_hosts", "dead"),
    [
        pytest.param(worker_name("there", SEVEN, "q"), set(), {"there"}, False, id="the builder of its host runs"),
        pytest.param(worker_name("there", SEVEN, "q"), {SEVEN}, set(), True, id="the builder of its host does not run"),
        pytest.param(worker_name("here", SEVEN, "q"), {SEVEN}, set(), False, id="its process lives on this host"),
        pytest.param(worker_name("here", SEVEN, "q"), set(), {"here"}, True, id="its process on this host is gone"),
    ],
)
def test_on_several_machines_a_worker_is_dead_with_the_builder_of_its_host(
    name: str, alive: set[Process], live_hosts: set[str], dead: bool
) -> None:
    assert is_dead(name, "here", {name}, alive, live_hosts) is dead


def test_a_process_that_has_ended_is_not_alive_before_it_is_reaped() -> None:
    assert process(os.getpid()) == process(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    try:
        eventually_sync(lambda: process(child.pid) is None, condition="the end of a child")
    finally:
        child.wait()
    assert process(child.pid) is None
