"""Look-ups of digests: many at once, none lost, and as config-deployment configures them."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from knoll.messages import builds
from knoll.values import kinds
from tests.component.builder.conftest import DEBIAN, Yard, descendants
from tests.waiting import eventually


@contextmanager
def silent_registry() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


async def configure(yard: Yard, **data: str) -> None:
    body: dict[str, Any] = {
        "metadata": {"namespace": "knative-serving", "name": "config-deployment"},
        "data": {key.replace("_", "-"): value for key, value in data.items()},
    }
    await yard.store.create(kinds.CONFIG_MAP.id, body)


async def test_every_revision_is_answered_once_and_leaves_the_table(yard: Yard) -> None:
    yard.start()
    uids = {f"r{number}": await yard.ask(f"r{number}", DEBIAN, DEBIAN) for number in range(40)}
    for name, uid in uids.items():
        answer = await yard.answered(name)
        assert (answer.uid, answer.error) == (uid, "")
        assert [image.container for image in answer.images] == ["c0", "c1"]
        assert {image.image for image in answer.images} == {DEBIAN}
        assert all("@sha256:" in image.digest for image in answer.images)
    await eventually(lambda: is_empty(yard), 10, "an empty table")


async def test_a_silent_registry_delays_no_other_look_up_and_is_reported(yard: Yard) -> None:
    yard.start()
    await configure(yard, digest_resolution_timeout="3s")
    with silent_registry() as host:
        for number in range(3):
            await yard.ask(f"slow{number}", f"{host}/app:v1")
        await yard.ask("quick", DEBIAN)
        assert not (await yard.answered("quick")).error
        assert await yard.answer("slow0") is None, "the quick one did not wait for it"
        for number in range(3):
            error = (await yard.answered(f"slow{number}")).error
            assert error.startswith(f'Unable to fetch image "{host}/app:v1": failed to resolve image to digest:')
            assert "the registry did not respond within 3 s" in error


async def test_a_failed_look_up_can_be_requested_again(yard: Yard) -> None:
    yard.start()
    image = f"{yard.prefix}/later:v1"
    uid = await yard.ask("later", image)
    assert image in (await yard.answered("later")).error
    await eventually(lambda: is_empty(yard), 10, "an empty table")
    await yard.submit("later", source={"image": DEBIAN}, tag=image)
    await yard.over("later")
    await yard.unresolved.put(uid, builds.Unresolved("default", "later"))

    async def is_resolved() -> bool:
        answer = await yard.answer("later")
        return bool(answer and answer.images)

    await eventually(is_resolved, 60, "the second answer")


async def test_registries_that_skip_tag_resolving_are_not_contacted(yard: Yard) -> None:
    yard.start()
    await configure(yard, registries_skipping_tag_resolving="ko.local,127.0.0.1:1")
    await yard.ask("skips", "127.0.0.1:1/app:v1", DEBIAN)
    here, other = (await yard.answered("skips")).images
    assert here.digest == "127.0.0.1:1/app:v1"
    assert "@sha256:" in other.digest


async def test_an_invalid_configuration_does_not_end_look_ups(yard: Yard) -> None:
    yard.start()
    await configure(yard, digest_resolution_timeout="soon")
    await yard.ask("any", DEBIAN)
    assert not (await yard.answered("any")).error


async def test_an_invalid_name_is_answered_with_an_error(yard: Yard) -> None:
    yard.start()
    await yard.ask("odd", "UPPER/Case:v1")
    assert "UPPER/Case:v1" in (await yard.answered("odd")).error


async def test_a_revision_that_was_deleted_leaves_the_table_without_an_answer(yard: Yard) -> None:
    await yard.ask("gone", DEBIAN)
    await yard.store.delete(kinds.REVISION.id, "default", "gone")
    await yard.unresolved.put("uid-of-another", builds.Unresolved("default", "never-there"))
    yard.start()
    await eventually(lambda: is_empty(yard), 30, "an empty table")
    assert await yard.answer("gone") is None


async def test_look_ups_of_a_killed_builder_are_continued_by_the_next(yard: Yard) -> None:
    with silent_registry() as host:
        first = yard.start()
        await yard.ask("slow", f"{host}/app:v1")
        await yard.ask("marker", DEBIAN)
        await yard.answered("marker")
        for pid, _ in [*descendants(first.pid), (first.pid, "")]:
            os.kill(pid, signal.SIGKILL)
        first.wait()
        assert not await is_empty(yard)
        assert await yard.answer("slow") is None
    yard.start()
    assert (await yard.answered("slow")).error
    await eventually(lambda: is_empty(yard), 10, "an empty table")


async def test_look_ups_wait_for_an_unavailable_engine(yard: Yard, tmp_path: Path) -> None:
    engine = tmp_path / "docker.sock"
    yard.environment = {**yard.environment, "KNOLL_DOCKER_SOCKET": str(engine)}
    yard.start()
    await yard.ask("waits", DEBIAN)
    await yard.ready()
    assert await yard.answer("waits") is None
    engine.symlink_to("/var/run/docker.sock")
    assert not (await yard.answered("waits")).error


async def is_empty(yard: Yard) -> bool:
    _, entries = await yard.unresolved.snapshot()
    return not entries
