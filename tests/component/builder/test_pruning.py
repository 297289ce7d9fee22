"""Images that are not needed are removed from the engine; all others are kept."""

import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builder.images.built_images import BuiltImage, BuiltImages
from builder.maintenance.pruning import (
    GRACE_SECONDS,
    KEEP_UPLOAD_SECONDS,
    images_of,
    names_of,
    remove_uploads,
    superfluous,
    uploads_of,
)
from knoll.messages import builds as jobs
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from tests.component.builder.conftest import DEBIAN, Yard, docker, tar_of
from tests.component.builder.conftest import images_of as tags_on_the_engine
from tests.waiting import eventually


def source(word: str) -> bytes:
    return tar_of({"Dockerfile": f"FROM {DEBIAN}\nLABEL said={word}\n"})


async def test_images_are_removed_with_the_last_build_and_revision_that_need_them(yard: Yard) -> None:
    yard.start()
    tags = {word: f"{yard.prefix}/app:{word}" for word in ("kept", "served", "dropped")}
    for word, tag in tags.items():
        await yard.submit(word, source(f"{word}-{yard.prefix}"), tag=tag)
        assert (await yard.over(word)).phase == "Succeeded"
    await yard.ask("served", tags["served"])
    await yard.answered("served")
    await age(yard)
    for word in ("served", "dropped"):
        await yard.store.delete(kinds.BUILD_KIND.id, "default", word)

    await eventually(lambda: tags["dropped"] not in there(yard), 60)
    assert there(yard) == {tags["kept"], tags["served"]}
    assert len(tags_on_the_engine(f"knoll-pinned/{yard.prefix}")) == 1

    async def recorded() -> bool:
        return {image.tag for image in await record(yard)} == {tags["kept"], tags["served"]}

    await eventually(recorded, 60)
    await yard.store.delete(kinds.REVISION.id, "default", "served")
    table: RedisTable[jobs.Resolution] = RedisTable(yard.redis, jobs.RESOLUTIONS, jobs.Resolution)
    await table.remove("default/served")
    await eventually(lambda: there(yard) == {tags["kept"]}, 60)
    assert not tags_on_the_engine(f"knoll-pinned/{yard.prefix}")
    assert len(tags_on_the_engine(f"knoll-built/{yard.prefix}/default")) == 1


async def test_a_new_image_is_kept_for_a_revision_that_is_about_to_name_it(yard: Yard) -> None:
    yard.start()
    for number in (1, 2):
        await yard.submit(f"b{number}", source(f"{number}-{yard.prefix}"), tag=f"{yard.prefix}/fresh:v1")
        assert (await yard.over(f"b{number}")).phase == "Succeeded"
        await yard.store.delete(kinds.BUILD_KIND.id, "default", f"b{number}")
    await yard.submit("old", source(f"old-{yard.prefix}"), tag=f"{yard.prefix}/old:v1")
    assert (await yard.over("old")).phase == "Succeeded"
    await age(yard, f"{yard.prefix}/old:v1")
    await yard.store.delete(kinds.BUILD_KIND.id, "default", "old")

    async def recorded() -> bool:
        return {image.tag for image in await record(yard)} == {f"{yard.prefix}/fresh:v1"}

    await eventually(recorded, 60)
    assert len(await record(yard)) == 2
    assert len(tags_on_the_engine(f"knoll-built/{yard.prefix}/default")) == 2


async def test_a_failed_build_removes_no_image_name(yard: Yard) -> None:
    tag = f"{yard.prefix}/mine:v1"
    assert docker("tag", DEBIAN, tag).returncode == 0
    yard.start()
    await yard.submit("fails", tar_of({"Dockerfile": f"FROM {DEBIAN}\nRUN exit 3\n"}), tag=tag)
    assert (await yard.over("fails")).phase == "Failed"
    await yard.submit("other", source(f"other-{yard.prefix}"))
    assert (await yard.over("other")).phase == "Succeeded"
    await age(yard)
    for name in ("fails", "other"):
        await yard.store.delete(kinds.BUILD_KIND.id, "default", name)
    await eventually(lambda: there(yard) == {tag}, 60)


async def test_an_image_is_kept_while_it_is_in_use(yard: Yard) -> None:
    yard.start()
    tag = f"{yard.prefix}/busy:v1"
    await yard.submit("busy", source(f"busy-{yard.prefix}"), tag=tag)
    assert (await yard.over("busy")).phase == "Succeeded"
    await age(yard)
    image = docker("image", "inspect", "--format={{.Id}}", tag).stdout.strip()
    container = docker("create", "--name", f"{yard.prefix}-busy", tag, "true").stdout.strip()
    try:
        await yard.store.delete(kinds.BUILD_KIND.id, "default", "busy")
        await eventually(lambda: tag not in there(yard), 60)
        assert docker("inspect", "--format={{.Image}}", container).stdout.strip() == image
        assert docker("image", "inspect", image).returncode == 0
    finally:
        docker("rm", "--force", container)
    await eventually(lambda: docker("image", "inspect", image).returncode == 1, 60)


NOW = 1_000_000.0
OLD = NOW - GRACE_SECONDS - 1


def image(tag: str, image_id: str, made: float = OLD) -> BuiltImage:
    return BuiltImage(tag, image_id, made)


@pytest.mark.parametrize(
    ("listed", "named", "ids", "gone"),
    [
        ([image("a:1", "x")], [], [], ["x"]),
        ([image("a:1", "x", NOW - GRACE_SECONDS)], [], [], []),
        ([image("a:1", "x")], [("ns", "a:1")], [], []),
        ([image("a:1", "x")], [("other", "a:1")], [], ["x"]),
        ([image("a:1", "x")], [], ["x"], []),
        ([image("a:1", "x"), image("a:1", "y", OLD + 0.5)], [("ns", "a:1")], [], ["x"]),
        ([image("a:1", "x"), image("a:1", "y", NOW)], [], [], ["x"]),
    ],
    ids=["old", "fresh", "a build has the name", "another namespace has it", "a Revision runs it", "replaced",
         "replaced just now"],
)  # fmt: skip
def test_images_that_nothing_needs_are_superfluous(
    listed: list[BuiltImage], named: list[tuple[str, str]], ids: list[str], gone: list[str]
) -> None:
    assert [image.id for _, image in superfluous({"ns": listed}, named, ids, NOW)] == gone


def test_builds_and_revisions_name_images_in_their_namespace() -> None:
    builds = [{"metadata": {"namespace": "a"}, "spec": {"tag": "docker.io/library/shop"}}]
    spec = {"containers": [{"image": "x:1"}, {"image": "NOT AN IMAGE"}], "initContainers": [{"image": "r.example/y"}]}
    revisions = [{"metadata": {"namespace": "b"}, "spec": spec}]
    assert names_of(builds, revisions) == {("a", "shop:latest"), ("b", "x:1"), ("b", "r.example/y:latest")}


async def record(yard: Yard) -> tuple[BuiltImage, ...]:
    return (await BuiltImages(yard.redis).all()).get("default", ())


async def age(yard: Yard, *tags: str) -> None:
    """Let images be older than the time that fresh ones are kept for: those of some names, else all."""
    for image in await record(yard):
        if not tags or image.tag in tags:
            await BuiltImages(yard.redis).record("default", msgspec.structs.replace(image, made=0.0))


def test_uploads_are_kept_while_a_build_may_read_them_and_for_a_day(tmp_path: Path) -> None:
    now = time.time()
    for name, age in (("a/sha256-old", 2), ("a/sha256-new", 0), ("a/sha256-wanted", 2), ("b/sha256-wanted", 2),
                      ("a/x.part", 2)):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (now - age * KEEP_UPLOAD_SECONDS, now - age * KEEP_UPLOAD_SECONDS))
    remove_uploads(tmp_path, {"a/sha256-wanted"}, now)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["a/sha256-new", "a/sha256-wanted", "a/x.part"]


def test_only_unfinished_builds_need_their_upload() -> None:
    def build(upload: str, phase: str, namespace: str = "ns") -> dict[str, Any]:
        return {
            "metadata": {"namespace": namespace},
            "spec": {"source": {"upload": {"id": upload}}},
            "status": {"phase": phase},
        }

    builds = [build("a", "Queued"), build("b", "Running"), build("c", "Succeeded"), build("d", "Failed")]
    builds += [{"metadata": {"namespace": "ns"}, "spec": {"source": {"git": {}}}}, build("a", "", "other")]
    assert uploads_of(builds) == {"ns/a", "ns/b", "other/a"}


def test_a_revision_needs_the_images_that_it_names_and_was_resolved_to() -> None:
    spec = {"containers": [{"image": "a"}, {"image": "b"}], "initContainers": [{"image": "c"}]}
    status = {"containerStatuses": [{"imageDigest": "a@x"}, {}], "initContainerStatuses": [{"imageDigest": "c@x"}]}
    assert images_of([{"spec": spec, "status": status}, {"spec": {"containers": [{"image": "d"}]}}]) == {
        "a", "b", "c", "a@x", "c@x", "d",
    }  # fmt: skip


def there(yard: Yard) -> set[str]:
    return set(tags_on_the_engine(f"{yard.prefix}/*"))
