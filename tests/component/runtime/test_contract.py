"""The contract of every runtime, tested with Docker and with the fake."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from autoscaler.probes.checks import connect
from autoscaler.runtime.model import (
    ContainerDied,
    Instance,
    InstanceLost,
    InstanceStartError,
    NotArmedError,
    Resources,
    Resync,
    RuntimeEvent,
)
from autoscaler.runtime.protocol import Runtime
from autoscaler.runtime.termination_message import termination_message
from knoll.values.errors import AlreadyExistsError, ImageError, NotFoundError
from tests.component.runtime.harness import IMAGE, PORT, Harness, container, fetch, spec
from tests.waiting import eventually


async def only(runtime: Runtime) -> Instance:
    (instance,) = await runtime.instances()
    return instance


async def until_state(runtime: Runtime, state: str) -> Instance:
    async def reached() -> Instance:
        instance = await only(runtime)
        assert instance.state == state, instance
        return instance

    return await eventually(reached)


async def first(events: AsyncIterator[RuntimeEvent], kind: type[RuntimeEvent]) -> RuntimeEvent:
    async with asyncio.timeout(30):
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError("the events ended")


async def text(runtime: Runtime, name: str, container: str = "user-container", **how: object) -> str:
    chunks = [chunk.data async for chunk in runtime.logs(name, container, **how)]  # type: ignore[arg-type]
    return b"".join(chunks).decode()


# --- start and stop


async def test_a_started_instance_answers_at_its_address(runtime: Runtime) -> None:
    instance = await runtime.start(spec())
    assert instance.state == "running"
    assert (await fetch(instance.address, port=instance.port)).strip() == "hello-1"


async def test_a_started_instance_is_listed_as_start_returned_it(runtime: Runtime) -> None:
    started = await runtime.start(spec(labels={"serving.knative.dev/service": "hello"}))
    assert await only(runtime) == started


async def test_the_address_is_reported_before_the_app_is_up(runtime: Runtime) -> None:
    scheduled: list[Instance] = []
    instance = await runtime.start(spec(), scheduled=scheduled.append)
    assert [(each.state, each.address, each.name) for each in scheduled] == [("starting", instance.address, "hello-1")]


async def test_another_runtime_finds_everything_that_an_earlier_one_left(harness: Harness) -> None:
    async with harness.runtime() as earlier:
        started = await earlier.start(spec(labels={"a/b": "c"}))
    async with harness.runtime() as later:
        assert await only(later) == started
        assert (await fetch(started.address)).strip() == "hello-1"


async def test_two_instances_have_two_addresses_and_the_same_port(runtime: Runtime) -> None:
    instance, two = await asyncio.gather(runtime.start(spec("hello-1")), runtime.start(spec("hello-2")))
    assert instance.address != two.address
    assert (await fetch(instance.address)).strip() == "hello-1"
    assert (await fetch(two.address)).strip() == "hello-2"


async def test_eight_starts_at_once_all_succeed(runtime: Runtime) -> None:
    names = [f"hello-{number}" for number in range(8)]
    started = await asyncio.gather(*(runtime.start(spec(name)) for name in names))
    assert len({instance.address for instance in started}) == 8
    assert [instance.name for instance in await runtime.instances()] == names


async def test_a_second_instance_of_a_name_is_refused_and_the_first_lives_on(runtime: Runtime) -> None:
    instance = await runtime.start(spec())
    with pytest.raises(AlreadyExistsError, match="hello-1"):
        await runtime.start(spec())
    assert await only(runtime) == instance
    assert await fetch(instance.address)


async def test_stop_removes_all_of_it(runtime: Runtime, harness: Harness) -> None:
    await runtime.start(spec())
    await runtime.remove("hello-1")
    assert await runtime.instances() == []
    assert await harness.leftovers() == []


async def test_stopping_what_is_not_there_does_nothing(runtime: Runtime) -> None:
    await runtime.remove("unknown")


async def test_stop_lets_a_request_in_flight_end(runtime: Runtime) -> None:
    instance = await runtime.start(spec())
    await fetch(instance.address)
    request = asyncio.create_task(fetch(instance.address, "/?sleep=700"))
    await asyncio.wait({request}, timeout=0.3)
    await runtime.remove("hello-1")
    assert (await request).strip() == "hello-1"


async def test_stop_kills_what_does_not_end_within_its_grace(runtime: Runtime) -> None:
    await runtime.start(spec("hello-1", container("stubborn")))
    await runtime.remove("hello-1", grace_seconds=1)
    assert await runtime.instances() == []


async def test_stop_without_grace_sends_no_sigterm(runtime: Runtime) -> None:
    await runtime.start(spec("hello-1", container("stubborn"), grace_seconds=300))
    async with asyncio.timeout(30):
        await runtime.remove("hello-1", grace_seconds=0)
    assert await runtime.instances() == []


async def test_destroy_removes_everything(runtime: Runtime, harness: Harness) -> None:
    await runtime.start(spec("hello-1"))
    await runtime.start(spec("hello-2"))
    await runtime.destroy()
    assert await harness.leftovers() == []


# --- starts that fail


async def test_a_command_that_cannot_be_run_fails_the_start_and_leaves_nothing(
    runtime: Runtime, harness: Harness
) -> None:
    with pytest.raises(InstanceStartError, match="no such file") as failed:
        await runtime.start(spec("hello-1", container(command=("/nothing-here",))))
    assert (failed.value.container, failed.value.cause) == ("user-container", "StartError")
    assert await harness.leftovers() == []


async def test_an_image_that_is_not_there_fails_the_start_and_leaves_nothing(
    runtime: Runtime, harness: Harness
) -> None:
    with pytest.raises(ImageError, match="knoll-test/absent:1"):
        await runtime.start(spec("hello-1", container("serve", image="knoll-test/absent:1")))
    assert await harness.leftovers() == []


async def test_an_image_that_cannot_be_pulled_is_named(runtime: Runtime) -> None:
    with pytest.raises(ImageError, match="knoll-test/absent:1 cannot be pulled"):
        await runtime.ensure_image("knoll-test/absent:1")


async def test_an_image_that_is_there_needs_no_pull(runtime: Runtime) -> None:
    assert (await runtime.ensure_image(IMAGE)).startswith("sha256:")


async def test_a_cancelled_start_leaves_nothing(runtime: Runtime, harness: Harness) -> None:
    task = asyncio.create_task(runtime.start(spec(init_containers=(container("stubborn", name="setup"),))))
    await eventually(harness.leftovers)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def nothing() -> bool:
        return await harness.leftovers() == []

    await eventually(nothing)


# --- init containers and sidecars


async def test_init_containers_run_before_the_others(runtime: Runtime) -> None:
    inits = (container("exit", "0", "one", name="first"), container("exit", "0", "two", name="second"))
    instance = await runtime.start(spec(init_containers=inits))
    assert [each.name for each in instance.containers] == ["user-container"]
    assert await text(runtime, "hello-1", "first") == "one\n"
    assert await only(runtime) == instance


async def test_a_failed_init_container_fails_the_start_with_its_last_output(runtime: Runtime, harness: Harness) -> None:
    with pytest.raises(InstanceStartError, match="setup ended with exit code 3: no database") as failed:
        await runtime.start(spec(init_containers=(container("exit", "3", "no", "database", name="setup"),)))
    assert (failed.value.container, failed.value.cause, failed.value.exit_code) == ("setup", "InitContainerError", 3)
    assert await harness.leftovers() == []


async def test_containers_of_an_instance_share_its_address(runtime: Runtime) -> None:
    sidecar = container("serve", name="sidecar", env={"PORT": "9090"})
    instance = await runtime.start(spec("hello-1", container("serve"), sidecar))
    assert [each.name for each in instance.containers] == ["user-container", "sidecar"]
    assert (await fetch(instance.address, port=8080)).strip() == "hello-1"
    assert (await fetch(instance.address, port=9090)).strip() == "hello-1"


# --- ends and restarts


async def test_a_process_that_ends_is_reported_with_its_exit_code(runtime: Runtime) -> None:
    async with aclosing(runtime.events()) as events:
        assert isinstance(await anext(events), Resync)
        await runtime.start(spec("hello-1", container("exit", "7")))
        died = await first(events, ContainerDied)
    assert isinstance(died, ContainerDied)
    assert (died.instance, died.revision, died.container) == ("hello-1", "default/hello", "user-container")
    assert (died.exit_code, died.oom_killed) == (7, False)
    instance = await until_state(runtime, "exited")
    assert [(each.running, each.exit_code) for each in instance.containers] == [(False, 7)]


async def test_a_process_that_is_out_of_memory_is_reported_as_such(runtime: Runtime) -> None:
    limits = Resources(memory_limit=64 * 1024**2)
    async with aclosing(runtime.events()) as events:
        assert isinstance(await anext(events), Resync)
        await runtime.start(spec("hello-1", container("hog", resources=limits)))
        died = await first(events, ContainerDied)
    assert isinstance(died, ContainerDied)
    assert (died.exit_code, died.oom_killed) == (137, True)
    instance = await until_state(runtime, "exited")
    assert [each.oom_killed for each in instance.containers] == [True]


async def test_containers_that_we_end_are_not_reported(runtime: Runtime, harness: Harness) -> None:
    async with aclosing(runtime.events()) as events:
        assert isinstance(await anext(events), Resync)
        await runtime.start(spec("hello-1"))
        await runtime.restart_container("hello-1", "user-container")
        await runtime.remove("hello-1")
        await runtime.start(spec("hello-2"))
        await harness.kill("hello-2")
        died = await first(events, ContainerDied)
    assert isinstance(died, ContainerDied)
    assert died.instance == "hello-2"


async def test_a_container_that_ended_starts_again_in_place(runtime: Runtime, harness: Harness) -> None:
    instance = await runtime.start(spec())
    await harness.kill("hello-1")
    await until_state(runtime, "exited")
    state = await runtime.restart_container("hello-1", "user-container")
    assert (state.running, state.restarts) == (True, 1)
    again = await only(runtime)
    assert (again.state, again.address, again.created) == ("running", instance.address, instance.created)
    assert again.containers == (state,)
    assert (await fetch(instance.address)).strip() == "hello-1"


async def test_a_restart_leaves_the_other_containers_alone(runtime: Runtime) -> None:
    sidecar = container("serve", name="sidecar", env={"PORT": "9090"})
    instance = await runtime.start(spec("hello-1", container("serve"), sidecar))
    await runtime.restart_container("hello-1", "sidecar")
    await runtime.restart_container("hello-1", "sidecar")
    again = await only(runtime)
    assert [each.restarts for each in again.containers] == [0, 2]
    assert again.containers[0] == instance.containers[0]


async def test_a_container_that_is_ended_stays_until_it_is_started_again(runtime: Runtime, harness: Harness) -> None:
    async with aclosing(runtime.events()) as events:
        assert isinstance(await anext(events), Resync)
        sidecar = container("serve", name="sidecar", env={"PORT": "9090"})
        instance = await runtime.start(spec("hello-1", container("serve"), sidecar))
        state = await runtime.stop_container("hello-1", "sidecar", 0)
        assert (state.name, state.running, state.exit_code, state.restarts) == ("sidecar", False, 137, 0)
        assert await runtime.stop_container("hello-1", "sidecar") == state
        assert [each.running for each in (await until_state(runtime, "exited")).containers] == [True, False]
        again = await runtime.restart_container("hello-1", "sidecar")
        assert (again.running, again.restarts) == (True, 1)
        assert (await fetch(instance.address)).strip() == "hello-1"
        await harness.kill("hello-1")
        died = await first(events, ContainerDied)
    assert isinstance(died, ContainerDied)
    assert died.container == "user-container", "what was ended is no news"
    with pytest.raises(NotFoundError, match="nothing"):
        await runtime.stop_container("hello-1", "nothing")


async def test_listeners_of_an_instance_are_listed(runtime: Runtime) -> None:
    sidecar = container("serve", name="sidecar", env={"PORT": "9090", "HOST": "127.0.0.1"})
    instance = await runtime.start(spec("hello-1", container("serve", env={"PORT": "3000"}), sidecar))
    await fetch(instance.address, port=3000)

    async def listens() -> list[tuple[str, int]]:
        listeners = await runtime.listening("hello-1")
        assert len(listeners) == 2
        return [("" if each.address in ("::", "0.0.0.0") else each.address, each.port) for each in listeners]

    assert await eventually(listens, condition="both listen") == [("", 3000), ("127.0.0.1", 9090)]
    with pytest.raises(NotFoundError):
        await runtime.listening("unknown")


async def test_a_loopback_listener_is_reached_through_a_forwarder(runtime: Runtime, harness: Harness) -> None:
    instance = await runtime.start(spec("hello-1", container("serve", env={"HOST": "127.0.0.1"})))

    async def listens() -> bool:
        return [(each.address, each.port) for each in await runtime.listening("hello-1")] == [("127.0.0.1", PORT)]

    async def refused() -> bool:
        try:
            await connect(instance.address, PORT)
        except ConnectionRefusedError:
            return True
        return False

    await eventually(listens, condition="it listens")
    assert await refused()
    await runtime.unforward("hello-1")
    await runtime.forward("hello-1", PORT, "4")
    assert (await fetch(instance.address)).strip() == "hello-1"
    await runtime.unforward("hello-1")
    await eventually(refused, condition="the forwarder ends")
    await runtime.forward("hello-1", PORT, "4")
    assert (await fetch(instance.address)).strip() == "hello-1"
    # What looks whether the program listens must not find the forwarder in its place.
    await harness.kill("hello-1")
    await until_state(runtime, "exited")
    await runtime.unforward("hello-1")
    await eventually(refused, condition="the forwarder ends")
    with pytest.raises(NotFoundError):
        await runtime.forward("unknown", PORT, "4")


async def test_restarting_what_is_not_there_is_refused(runtime: Runtime) -> None:
    await runtime.start(spec())
    with pytest.raises(NotFoundError, match="nothing"):
        await runtime.restart_container("hello-1", "nothing")
    with pytest.raises(NotFoundError, match="unknown"):
        await runtime.restart_container("unknown", "user-container")


async def test_an_instance_without_its_sandbox_is_lost_and_can_be_stopped(runtime: Runtime, harness: Harness) -> None:
    async with aclosing(runtime.events()) as events:
        assert isinstance(await anext(events), Resync)
        await runtime.start(spec())
        await harness.lose("hello-1")
        lost = await first(events, InstanceLost)
    assert isinstance(lost, InstanceLost)
    assert (lost.instance, lost.revision) == ("hello-1", "default/hello")
    instance = await until_state(runtime, "lost")
    assert instance.address == ""
    await runtime.remove("hello-1", grace_seconds=1)
    assert await harness.leftovers() == []


# --- pausing


async def test_a_paused_instance_answers_only_after_it_is_resumed(runtime: Runtime) -> None:
    instance = await runtime.start(spec())
    await fetch(instance.address)
    await runtime.pause("hello-1")
    assert (await only(runtime)).state == "paused"
    request = asyncio.create_task(fetch(instance.address))
    done, _ = await asyncio.wait({request}, timeout=0.3)
    assert not done
    await runtime.resume("hello-1")
    assert (await request).strip() == "hello-1"
    assert (await only(runtime)).state == "running"


async def test_pausing_and_resuming_twice_is_fine(runtime: Runtime) -> None:
    await runtime.start(spec())
    await runtime.resume("hello-1")
    await runtime.pause("hello-1")
    await runtime.pause("hello-1")
    await runtime.resume("hello-1")
    await runtime.resume("hello-1")
    assert (await only(runtime)).state == "running"


async def test_a_paused_instance_can_be_stopped(runtime: Runtime) -> None:
    await runtime.start(spec())
    await runtime.pause("hello-1")
    await runtime.remove("hello-1")
    assert await runtime.instances() == []


async def test_a_halted_instance_keeps_its_place_and_answers_again(runtime: Runtime) -> None:
    instance = await runtime.start(spec())
    await runtime.stop("hello-1", 5)
    assert (await until_state(runtime, "exited")).address == instance.address
    (state,) = await runtime.start_stopped("hello-1")
    assert (state.name, state.running, state.restarts) == ("user-container", True, 0)
    assert (await fetch(instance.address)).strip() == "hello-1"
    await until_state(runtime, "running")


async def test_a_paused_instance_can_be_halted_and_a_halted_one_stopped(runtime: Runtime, harness: Harness) -> None:
    await runtime.start(spec())
    await runtime.pause("hello-1")
    await runtime.stop("hello-1", 5)
    await until_state(runtime, "exited")
    await runtime.remove("hello-1")
    assert await harness.leftovers() == []


async def test_stopping_is_not_reported_and_an_end_after_it_is(runtime: Runtime, harness: Harness) -> None:
    await runtime.start(spec())
    async with aclosing(runtime.events()) as events:
        await first(events, Resync)
        await runtime.stop("hello-1", 5)
        await runtime.start_stopped("hello-1")
        await harness.kill("hello-1")
        died = await first(events, ContainerDied)
    assert isinstance(died, ContainerDied)
    assert died.exit_code == 137


@pytest.mark.parametrize("method", ["pause", "resume", "memory_bytes", "usage", "disk_bytes", "stop", "start_stopped"])
async def test_what_is_not_there_is_named(runtime: Runtime, method: str) -> None:
    with pytest.raises(NotFoundError, match="unknown"):
        await getattr(runtime, method)("unknown")


# --- the disk


async def test_what_a_container_writes_is_measured(runtime: Runtime) -> None:
    await runtime.start(spec("hello-1", container("serve"), container("sleep", name="sidecar")))
    before = await runtime.disk_bytes("hello-1")
    await runtime.exec("hello-1", "user-container", ["/program", "leave", "/large", "x" * 100_000], 10)
    after = await runtime.disk_bytes("hello-1")
    assert before.keys() == after.keys() == {"user-container", "sidecar"}
    assert 100_000 <= after["user-container"] - before["user-container"] < 200_000
    assert after["sidecar"] == before["sidecar"]
    assert await runtime.free_disk_bytes() > 0


# --- looking inside


async def test_exec_returns_exit_code_and_output(runtime: Runtime) -> None:
    await runtime.start(spec())
    done = await runtime.exec("hello-1", "user-container", ["/program", "exit", "4", "some", "words"], 10)
    assert (done.exit_code, done.output) == (4, b"some words\n")


async def test_exec_of_a_command_that_takes_too_long_times_out(runtime: Runtime) -> None:
    await runtime.start(spec())
    with pytest.raises(TimeoutError):
        await runtime.exec("hello-1", "user-container", ["/program", "sleep"], 0.5)


async def test_exec_in_what_does_not_run_is_refused(runtime: Runtime) -> None:
    await runtime.start(spec("hello-1", container("exit", "0")))
    await until_state(runtime, "exited")
    with pytest.raises(NotFoundError, match="is not running"):
        await runtime.exec("hello-1", "user-container", ["/program", "exit", "0"], 10)


async def test_logs_give_what_was_written(runtime: Runtime) -> None:
    await runtime.start(spec("hello-1", container("exit", "1", "it is over")))
    await until_state(runtime, "exited")
    assert await text(runtime, "hello-1") == "it is over\n"
    assert await text(runtime, "hello-1", tail=0) == ""
    assert await termination_message(runtime, "hello-1", "user-container") == "it is over"


async def test_lines_of_a_log_can_begin_with_their_time(runtime: Runtime) -> None:
    await runtime.start(spec("hello-1", container("exit", "1", "it is over")))
    await until_state(runtime, "exited")
    written = await text(runtime, "hello-1", timestamps=True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z it is over\n", written)


async def test_followed_logs_end_with_the_container(runtime: Runtime, harness: Harness) -> None:
    await runtime.start(spec())
    following = asyncio.create_task(text(runtime, "hello-1", follow=True))
    await asyncio.wait({following}, timeout=0.2)
    await harness.kill("hello-1")
    async with asyncio.timeout(30):
        assert await following == "serving on 8080\n"


async def test_logs_of_what_is_not_there_are_refused(runtime: Runtime) -> None:
    with pytest.raises(NotFoundError, match="unknown"):
        await text(runtime, "unknown")


async def test_the_machine_and_an_instance_have_memory(runtime: Runtime) -> None:
    capacity = await runtime.capacity()
    assert capacity.cores >= 1
    await runtime.start(spec())
    assert 0 < await runtime.memory_bytes("hello-1") < capacity.memory_bytes
    usage = await runtime.usage("hello-1")
    assert 0 < usage.memory_bytes < capacity.memory_bytes
    assert 0 <= usage.cpu_seconds < 60


# --- armed instances


async def test_an_armed_instance_runs_nothing_and_is_listed_as_armed(runtime: Runtime) -> None:
    armed = await runtime.arm(spec(labels={"a/b": "c"}))
    assert (armed.state, armed.name, armed.armed) == ("armed", "hello-1", spec(labels={"a/b": "c"}).digest)
    assert not any(container.running for container in armed.containers)
    assert await only(runtime) == armed
    assert await text(runtime, "hello-1") == ""
    with pytest.raises(ConnectionRefusedError):
        await connect(armed.address, PORT)


async def test_a_released_instance_answers_and_its_times_count_from_the_release(runtime: Runtime) -> None:
    armed = await runtime.arm(spec())
    released = await runtime.release("hello-1")
    assert (released.state, released.address) == ("running", armed.address)
    assert (await fetch(released.address)).strip() == "hello-1"
    assert released.created > armed.created
    assert all(container.started_at >= released.created for container in released.containers)
    assert await only(runtime) == released
    assert "serving" in await text(runtime, "hello-1")


async def test_all_containers_of_an_armed_instance_are_released(runtime: Runtime) -> None:
    sidecar = container("serve", name="sidecar", env={"PORT": "9090"})
    await runtime.arm(spec("hello-1", container("serve"), sidecar))
    released = await runtime.release("hello-1")
    for port in (PORT, 9090):
        assert await fetch(released.address, port=port)


async def test_an_armed_instance_is_admitted_before_it_is_released(runtime: Runtime) -> None:
    admitted: list[str] = []

    async def admit(address: str) -> None:
        admitted.append(address)

    armed = await runtime.arm(spec(), admit=admit)
    assert admitted == [armed.address]


async def test_an_instance_that_is_not_admitted_is_not_armed(runtime: Runtime, harness: Harness) -> None:
    async def refuse(_: str) -> None:
        raise AlreadyExistsError("not this one")

    with pytest.raises(AlreadyExistsError, match="not this one"):
        await runtime.arm(spec(), admit=refuse)
    assert await harness.leftovers() == []


async def test_what_was_never_armed_or_is_released_already_cannot_be_released(runtime: Runtime) -> None:
    with pytest.raises(NotArmedError, match="hello-1"):
        await runtime.release("hello-1")
    await runtime.arm(spec())
    await runtime.release("hello-1")
    with pytest.raises(NotArmedError, match="hello-1"):
        await runtime.release("hello-1")
    assert await fetch((await only(runtime)).address)


async def test_a_program_that_cannot_be_executed_is_not_released_and_a_start_gives_the_reason(
    runtime: Runtime, harness: Harness
) -> None:
    missing = spec("hello-1", container(command=("/nothing-here",)))
    await runtime.arm(missing)
    with pytest.raises(NotArmedError):
        await runtime.release("hello-1")
    await runtime.remove("hello-1", grace_seconds=0)
    with pytest.raises(InstanceStartError, match="no such file"):
        await runtime.start(missing)
    assert await harness.leftovers() == []


async def test_an_armed_instance_is_removed_without_waiting(runtime: Runtime, harness: Harness) -> None:
    await runtime.arm(spec(grace_seconds=300))
    async with asyncio.timeout(30):
        await runtime.remove("hello-1", grace_seconds=0)
    assert await runtime.instances() == []
    assert await harness.leftovers() == []


async def test_instances_with_init_containers_are_not_armed(runtime: Runtime, harness: Harness) -> None:
    with pytest.raises(NotArmedError, match="init containers"):
        await runtime.arm(spec(init_containers=(container("exit", "0", name="setup"),)))
    assert await harness.leftovers() == []


async def test_an_image_that_is_not_there_is_not_armed(runtime: Runtime, harness: Harness) -> None:
    with pytest.raises(ImageError, match="knoll-test/absent:1"):
        await runtime.arm(spec("hello-1", container("serve", image="knoll-test/absent:1")))
    assert await harness.leftovers() == []


async def test_the_death_of_an_armed_container_is_told_and_it_cannot_be_released(
    runtime: Runtime, harness: Harness
) -> None:
    async with aclosing(runtime.events()) as events:
        await first(events, Resync)
        await runtime.arm(spec())
        await harness.kill("hello-1")
        died = await first(events, ContainerDied)
        assert isinstance(died, ContainerDied)
        assert died.instance == "hello-1"
    await until_state(runtime, "exited")
    with pytest.raises(NotArmedError):
        await runtime.release("hello-1")
    await runtime.remove("hello-1", grace_seconds=0)
    assert await harness.leftovers() == []


async def test_the_loss_of_an_armed_instance_is_told(runtime: Runtime, harness: Harness) -> None:
    async with aclosing(runtime.events()) as events:
        await first(events, Resync)
        await runtime.arm(spec())
        await harness.lose("hello-1")
        lost = await first(events, InstanceLost)
        assert isinstance(lost, InstanceLost)
        assert lost.instance == "hello-1"
    await runtime.remove("hello-1", grace_seconds=0)


async def test_a_later_runtime_releases_what_an_earlier_one_armed(harness: Harness) -> None:
    async with harness.runtime() as earlier:
        armed = await earlier.arm(spec())
    async with harness.runtime() as later:
        assert await only(later) == armed
        released = await later.release("hello-1")
        assert (await fetch(released.address)).strip() == "hello-1"
    async with harness.runtime() as last:
        assert (await only(last)).state == "running"


async def test_a_released_container_is_restarted_in_place_and_starts_after_a_stop_as_any_other(
    runtime: Runtime,
) -> None:
    await runtime.arm(spec())
    released = await runtime.release("hello-1")
    assert await fetch(released.address)
    await runtime.stop("hello-1")
    await runtime.start_stopped("hello-1")
    assert (await fetch(released.address)).strip() == "hello-1"
    restarted = await runtime.restart_container("hello-1", "user-container")
    assert (restarted.running, restarted.restarts) == (True, 1)
    assert (await fetch(released.address)).strip() == "hello-1"
    await runtime.stop("hello-1")
    await runtime.start_stopped("hello-1")
    assert (await fetch(released.address)).strip() == "hello-1"


async def test_a_cancelled_arming_leaves_nothing(runtime: Runtime, harness: Harness) -> None:
    entered, forever = asyncio.Event(), asyncio.Event()

    async def admit(_: str) -> None:
        entered.set()
        await forever.wait()

    task = asyncio.create_task(runtime.arm(spec(), admit=admit))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await harness.leftovers() == []


async def test_two_armed_instances_are_released_at_once(runtime: Runtime) -> None:
    await runtime.arm(spec("hello-1"))
    await runtime.arm(spec("hello-2"))
    instances = await asyncio.gather(runtime.release("hello-1"), runtime.release("hello-2"))
    for instance in instances:
        assert (await fetch(instance.address)).strip() == instance.name
