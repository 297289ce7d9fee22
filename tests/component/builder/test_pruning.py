"""What nobody needs is taken off the engine; what somebody needs stays."""

import os
import time
from pathlib import Path
from typing import Any

from builder.pruning import KEEP_UPLOAD_SECONDS, images_of, remove_uploads, uploads_of
from knoll import jobs, keys, kinds
from knoll.redis_tables import RedisTable
from tests.component.builder.conftest import DEBIAN, Yard, docker, tar_of
from tests.component.builder.conftest import images_of as tags_on_the_engine
from tests.waiting import eventually


def source(word: str) -> bytes:
    return tar_of({"Dockerfile": f"FROM {DEBIAN}\nLABEL said={word}\n"})


async def test_images_go_with_the_last_build_and_revision_that_need_them(yard: Yard) -> None:
    yard.start()
    tags = {word: f"{yard.prefix}/app:{word}" for word in ("kept", "served", "dropped")}
    for word, tag in tags.items():
        await yard.submit(word, source(f"{word}-{yard.prefix}"), tag=tag)
        assert (await yard.over(word)).phase == "Succeeded"
    await yard.ask("served", tags["served"])
    await yard.answered("served")
    pins = set(tags_on_the_engine(f"knoll-pinned/{yard.prefix}"))
    assert len(pins) == 3
    for word in ("served", "dropped"):
        await yard.store.delete(kinds.BUILD_KIND.id, "default", word)

    await eventually(lambda: tags["dropped"] not in there(yard), 60)
    assert there(yard) == {tags["kept"], tags["served"]}
    assert len(tags_on_the_engine(f"knoll-pinned/{yard.prefix}")) == 1
    assert {member.decode() for member in await yard.redis.smembers(keys.BUILT_IMAGES)} >= {tags["kept"]}

    await yard.store.delete(kinds.REVISION.id, "default", "served")
    table: RedisTable[jobs.Resolution] = RedisTable(yard.redis, jobs.RESOLUTIONS, jobs.Resolution)
    await table.remove("default/served")
    await eventually(lambda: not tags_on_the_engine(f"knoll-pinned/{yard.prefix}"), 60)
    assert tags["kept"] in there(yard)


async def test_an_image_in_use_stays_until_it_is_not(yard: Yard) -> None:
    yard.start()
    tag = f"{yard.prefix}/busy:v1"
    await yard.submit("busy", source(f"busy-{yard.prefix}"), tag=tag)
    assert (await yard.over("busy")).phase == "Succeeded"
    container = docker("create", "--name", f"{yard.prefix}-busy", tag, "true").stdout.strip()
    try:
        await yard.store.delete(kinds.BUILD_KIND.id, "default", "busy")
        await eventually(lambda: not tags_on_the_engine(f"knoll-pinned/{yard.prefix}"), 60)
        assert docker("inspect", "--format={{.Id}}", container).stdout.strip() == container
    finally:
        docker("rm", "--force", container)
    await eventually(lambda: tag not in there(yard), 60)


def test_uploads_stay_while_a_build_may_read_them_and_a_day_after(tmp_path: Path) -> None:
    now = time.time()
    for name, age in (("sha256-old", 2), ("sha256-new", 0), ("sha256-wanted", 2), ("x.part", 2)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (now - age * KEEP_UPLOAD_SECONDS, now - age * KEEP_UPLOAD_SECONDS))
    remove_uploads(tmp_path, {"sha256-wanted"}, now)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sha256-new", "sha256-wanted", "x.part"]


def test_only_builds_that_are_not_over_need_their_upload() -> None:
    def build(upload: str, phase: str) -> dict[str, Any]:
        return {"spec": {"source": {"upload": {"id": upload}}}, "status": {"phase": phase}}

    builds = [build("a", "Queued"), build("b", "Running"), build("c", "Succeeded"), build("d", "Failed")]
    builds += [{"spec": {"source": {"git": {}}}}, {"spec": {"source": {"upload": {"id": "e"}}}}]
    assert uploads_of(builds) == {"a", "b", "e"}


def test_a_revision_needs_what_it_names_and_what_it_was_pinned_to() -> None:
    spec = {"containers": [{"image": "a"}, {"image": "b"}], "initContainers": [{"image": "c"}]}
    status = {"containerStatuses": [{"imageDigest": "a@x"}, {}], "initContainerStatuses": [{"imageDigest": "c@x"}]}
    assert images_of([{"spec": spec, "status": status}, {"spec": {"containers": [{"image": "d"}]}}]) == {
        "a", "b", "c", "a@x", "c@x", "d",
    }  # fmt: skip


def there(yard: Yard) -> set[str]:
    return set(tags_on_the_engine(f"{yard.prefix}/*"))
