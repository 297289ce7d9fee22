import asyncio
import os
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from knoll.process.supervise import FIRST_PAUSE, LONGEST_PAUSE, STEADY_SECONDS, Child, keep_running, next_pause
from tests.waiting import eventually


@given(pause=st.floats(0, 100), ran=st.floats(0, STEADY_SECONDS, exclude_max=True))
def test_a_child_that_dies_young_waits_longer_each_time_within_bounds(pause: float, ran: float) -> None:
    following = next_pause(pause, ran)
    assert FIRST_PAUSE <= following <= LONGEST_PAUSE
    assert following >= min(pause, LONGEST_PAUSE)


def test_a_child_that_ran_for_long_is_restarted_immediately() -> None:
    assert next_pause(LONGEST_PAUSE, STEADY_SECONDS) == FIRST_PAUSE


async def test_a_child_that_dies_is_started_again_and_recovery_comes_first(tmp_path: Path) -> None:
    stop, lines = asyncio.Event(), []

    async def recover() -> None:
        lines.append("recover")

    script = "print('ran', flush=True); raise SystemExit(3)"
    child = Child("one", [sys.executable, "-c", script], on_line=lambda _, line: lines.append(line), recover=recover)
    running = asyncio.create_task(keep_running(child, stop))
    await eventually(lambda: lines.count("ran") >= 2)
    stop.set()
    await asyncio.wait_for(running, 10)
    assert lines[:3] == ["ran", "recover", "ran"]


async def test_stopping_ends_a_child_with_sigterm() -> None:
    stop, lines = asyncio.Event(), []
    script = (
        "import signal,sys,time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\nsignal.pause()"
    )
    child = Child("one", [sys.executable, "-c", script], on_line=lambda _, line: lines.append(line))
    running = asyncio.create_task(keep_running(child, stop))
    await eventually(lambda: "up" in lines)
    stop.set()
    assert await asyncio.wait_for(running, 10) == 0
    assert lines == ["up", "bye"]


async def test_a_child_that_ignores_sigterm_is_killed_with_what_it_started() -> None:
    stop, lines = asyncio.Event(), []
    script = (
        "import signal,subprocess,sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen(['sleep', '1000'], stdout=subprocess.DEVNULL).pid, flush=True)\nsignal.pause()"
    )
    child = Child("one", [sys.executable, "-c", script], grace_seconds=0.1, on_line=lambda _, line: lines.append(line))
    running = asyncio.create_task(keep_running(child, stop))
    await eventually(lambda: lines)
    stop.set()
    assert await asyncio.wait_for(running, 10) == -9
    await eventually(lambda: not alive(int(lines[0])))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")


async def test_a_child_that_dies_is_started_again_though_its_own_child_holds_the_output_open() -> None:
    stop, lines = asyncio.Event(), []
    script = "import subprocess; print(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid, flush=True)"
    child = Child("one", [sys.executable, "-c", script], on_line=lambda _, line: lines.append(line))
    running = asyncio.create_task(keep_running(child, stop))
    try:
        await eventually(lambda: len(lines) >= 2)
        stop.set()
        await asyncio.wait_for(running, 10)
    finally:
        for pid in lines:
            os.kill(int(pid), 9)


async def test_a_child_ends_when_its_supervisor_is_killed() -> None:
    script = (
        "import asyncio, sys\nfrom knoll.process.supervise import Child, keep_running\n"
        "print_pid = 'import os, signal; print(os.getpid(), flush=True); signal.pause()'\n"
        "asyncio.run(keep_running(Child('one', [sys.executable, '-c', print_pid]), asyncio.Event()))"
    )
    supervisor = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert supervisor.stdout is not None
    child = int(await supervisor.stdout.readline())
    supervisor.kill()
    await supervisor.wait()
    await eventually(lambda: not alive(child))
