"""Volumes on Docker and on the fake, and properties that only Docker's volumes have."""

import asyncio

import pytest

from autoscaler.runtime.docker import pause_image
from autoscaler.runtime.docker.docker_runtime import DockerRuntime
from autoscaler.runtime.model import ADDRESS, EngineVolume, File, InstanceStartError, Mount
from autoscaler.runtime.protocol import Runtime
from tests.component.runtime.harness import DockerHarness, Harness, container, docker, fetch, spec
from tests.waiting import eventually

FILES = EngineVolume("files.uid-1.config", "files", "uid-1", "default/hello")
CLAIM = EngineVolume("claim.uid-2", "claim", "uid-2", "default/data")
SCRATCH = EngineVolume("scratch.hello-1.work", "scratch", "hello-1", "default/hello")
SHOWN = Mount("/etc/config", "own", FILES.name, read_only=True)


async def test_files_are_found_where_they_are_mounted(runtime: Runtime, harness: Harness) -> None:
    await runtime.put_files(FILES, {"key": File(b"value"), "deep/down/key": File(b"below")})
    await runtime.start(spec("hello-1", container("serve", mounts=(SHOWN,))))
    assert await harness.read("hello-1", "/etc/config/key") == "value"
    assert await harness.read("hello-1", "/etc/config/deep/down/key") == "below"


async def test_files_that_change_are_seen_by_what_runs(runtime: Runtime, harness: Harness) -> None:
    await runtime.put_files(FILES, {"kept": File(b"one"), "gone": File(b"x"), "a/b": File(b"y")})
    await runtime.start(spec("hello-1", container("serve", mounts=(SHOWN,))))
    await runtime.put_files(FILES, {"kept": File(b"two"), "new": File(b"n"), "a/c": File(b"z")})
    for path, content in {"kept": "two", "new": "n", "a/c": "z"}.items():
        assert await harness.read("hello-1", f"/etc/config/{path}") == content
    for path in ("gone", "a/b"):
        assert (await harness.read("hello-1", f"/etc/config/{path}")).startswith("error")


async def test_a_volume_may_be_empty_and_be_filled_later(runtime: Runtime, harness: Harness) -> None:
    await runtime.put_files(FILES, {})
    await runtime.start(spec("hello-1", container("serve", mounts=(SHOWN,))))
    await runtime.put_files(FILES, {"late": File(b"it came")})
    assert await harness.read("hello-1", "/etc/config/late") == "it came"


async def test_a_part_of_a_volume_stays_as_it_was_mounted(runtime: Runtime, harness: Harness) -> None:
    await runtime.put_files(FILES, {"one": File(b"old"), "folder/two": File(b"old")})
    mounts = (
        Mount("/etc/one.txt", "own", FILES.name, read_only=True, sub_path="one"),
        Mount("/etc/folder", "own", FILES.name, read_only=True, sub_path="folder"),
    )
    await runtime.start(spec("hello-1", container("serve", mounts=mounts)))
    await runtime.put_files(FILES, {"one": File(b"new"), "folder/two": File(b"new")})
    assert await harness.read("hello-1", "/etc/one.txt") == "old"
    await runtime.start(spec("hello-2", container("serve", mounts=mounts)))
    assert await harness.read("hello-2", "/etc/one.txt") == "new"
    assert await harness.read("hello-2", "/etc/folder/two") == "new"


async def test_a_part_that_is_not_there_fails_the_start(runtime: Runtime, harness: Harness) -> None:
    await runtime.put_files(FILES, {"one": File(b"old")})
    mounts = (Mount("/etc/two", "own", FILES.name, read_only=True, sub_path="two"),)
    with pytest.raises(InstanceStartError, match="two"):
        await runtime.start(spec("hello-1", container("serve", mounts=mounts)))
    assert await harness.leftovers() == []


async def test_a_volume_that_is_used_is_not_removed_until_its_user_is_gone(runtime: Runtime) -> None:
    await runtime.put_files(FILES, {"key": File(b"value")})
    await runtime.start(spec("hello-1", container("serve", mounts=(SHOWN,))))
    assert not await runtime.remove_volume(FILES.name)
    await runtime.remove("hello-1")
    assert await runtime.volumes() == [FILES]
    assert await runtime.remove_volume(FILES.name)
    assert await runtime.volumes() == []
    assert await runtime.remove_volume(FILES.name)


async def test_containers_of_an_instance_share_its_scratch_volume_and_it_goes_with_them(
    runtime: Runtime, harness: Harness
) -> None:
    await runtime.ensure_volume(SCRATCH)
    shared = (Mount("/work", "own", SCRATCH.name),)
    before = container("leave", "/work/ready", "prepared", name="before", user=65532, mounts=shared)
    await runtime.start(spec("hello-1", container("serve", mounts=shared), init_containers=(before,)))
    assert await harness.read("hello-1", "/work/ready") == "prepared"
    assert len("prepared") <= (await runtime.scratch_bytes())[SCRATCH.name] < 100_000
    await runtime.remove("hello-1")
    assert await runtime.volumes() == []


async def test_a_claim_keeps_its_content_for_the_next_instance_and_when_all_is_removed(
    runtime: Runtime, harness: Harness
) -> None:
    await runtime.ensure_volume(CLAIM, ["a/b"])
    mounts = (Mount("/data", "own", CLAIM.name), Mount("/part", "own", CLAIM.name, sub_path="a/b"))
    writer = container("leave", "/data/kept", "for later", name="writer", user=65532, mounts=mounts)
    await runtime.start(spec("hello-1", container("serve", mounts=mounts), init_containers=(writer,)))
    await runtime.remove("hello-1")
    await runtime.put_files(FILES, {"key": File(b"value")})
    await runtime.destroy()
    async with harness.runtime() as later:
        assert await later.volumes() == [CLAIM]
        await later.ensure_volume(CLAIM, ["a/b"])
        await later.start(spec("hello-2", container("serve", mounts=mounts)))
        assert await harness.read("hello-2", "/data/kept") == "for later"


async def test_another_runtime_finds_volumes_as_they_were_left(runtime: Runtime, harness: Harness) -> None:
    await runtime.put_files(FILES, {"key": File(b"one")})
    await runtime.start(spec("hello-1", container("serve", mounts=(SHOWN,))))
    async with harness.runtime() as later:
        assert await later.volumes() == [FILES]
        await later.put_files(FILES, {"key": File(b"two")})
    assert await harness.read("hello-1", "/etc/config/key") == "two"


# --- Docker only


async def test_many_changes_at_once_end_with_one_of_them_whole(docker_runtime: DockerRuntime) -> None:
    puts = [docker_runtime.put_files(FILES, {"a": File(b"%d" % at), "b": File(b"%d" % at)}) for at in range(4)]
    await asyncio.gather(*puts)
    instance = await docker_runtime.start(spec("hello-1", container("serve", mounts=(SHOWN,))))
    first = await fetch(instance.address, "/file?path=/etc/config/a")
    assert first == await fetch(instance.address, "/file?path=/etc/config/b")


async def test_a_reader_never_finds_a_file_missing_while_it_changes(docker_runtime: DockerRuntime) -> None:
    await docker_runtime.put_files(FILES, {"key": File(b"0")})
    instance = await docker_runtime.start(spec("hello-1", container("serve", mounts=(SHOWN,))))
    await fetch(instance.address)
    changing = asyncio.create_task(_change(docker_runtime, 5))
    seen = []
    while not changing.done():
        seen.append(await fetch(instance.address, "/file?path=/etc/config/key"))
    await changing
    assert {len(each) for each in seen} == {1}, seen
    assert seen == sorted(seen)


async def _change(runtime: Runtime, times: int) -> None:
    for at in range(1, times + 1):
        await runtime.put_files(FILES, {"key": File(b"%d" % at)})


async def test_files_are_readable_by_any_user_have_their_modes_and_cannot_be_written(
    docker_runtime: DockerRuntime,
) -> None:
    await docker_runtime.put_files(FILES, {"open": File(b"x"), "run": File(b"x", 0o755), "mine": File(b"x", 0o400)})
    mounts = (SHOWN, Mount("/writable/config", "own", FILES.name))
    instance = await docker_runtime.start(spec("hello-1", container("serve", user=65532, mounts=mounts)))

    async def ask(path: str) -> str:
        return (await fetch(instance.address, path)).strip()

    assert await ask("/file?path=/etc/config/open") == "x"
    assert await ask("/stat?path=/etc/config/open") == "-rw-r--r--"
    assert await ask("/stat?path=/etc/config/run") == "-rwxr-xr-x"
    assert "permission denied" in await ask("/file?path=/etc/config/mine")
    assert "read-only file system" in await ask("/write?path=/etc/config/new&data=x")


async def test_an_instance_gets_its_address_in_variables_and_arguments(docker_runtime: DockerRuntime) -> None:
    instance = await docker_runtime.start(
        spec("hello-1", container("serve", f"--at={ADDRESS}", env={"POD_IP": ADDRESS, "URL": f"http://{ADDRESS}/"}))
    )
    facts = await fetch(instance.address, "/facts")
    assert f'"env POD_IP":"{instance.address}"' in facts
    assert f'"env URL":"http://{instance.address}/"' in facts
    assert f"--at={instance.address}" in facts


async def test_a_restart_keeps_the_mounts(docker_runtime: DockerRuntime) -> None:
    await docker_runtime.put_files(FILES, {"key": File(b"one")})
    mounts = (SHOWN, Mount("/key", "own", FILES.name, read_only=True, sub_path="key"))
    instance = await docker_runtime.start(spec("hello-1", container("serve", mounts=mounts)))
    await docker_runtime.put_files(FILES, {"key": File(b"two")})
    await docker_runtime.restart_container("hello-1", "user-container")
    assert await fetch(instance.address, "/file?path=/etc/config/key") == "two"
    assert await fetch(instance.address, "/file?path=/key") == "two"


async def test_a_helper_that_a_killed_process_left_is_removed(docker_harness: DockerHarness, test_image: None) -> None:
    labels = [f"--label=knoll.dev/platform={docker_harness.platform}", "--label=knoll.dev/role=helper"]
    async with docker_harness.runtime():
        await docker("create", *labels, pause_image.REFERENCE, pause_image.SWAP)
        assert len(await docker_harness.leftovers()) == 1
    async with docker_harness.runtime():
        assert await docker_harness.leftovers() == []


async def test_a_volume_that_was_removed_is_created_again_at_the_next_check(
    docker_harness: DockerHarness, test_image: None
) -> None:
    async with docker_harness.runtime() as runtime:
        await runtime.put_files(FILES, {"key": File(b"value")})
        await docker("volume", "rm", f"{docker_harness.platform}.{FILES.name}")
        await runtime.take_over()
        await runtime.put_files(FILES, {"key": File(b"value")})
        await eventually(docker_harness.volumes, condition="the volume")


@pytest.mark.parametrize("user", [None, 0])
async def test_a_container_that_must_not_be_root_does_not_start_as_root(
    docker_runtime: DockerRuntime, docker_harness: DockerHarness, user: int | None
) -> None:
    with pytest.raises(InstanceStartError, match="root") as raised:
        await docker_runtime.start(spec("hello-1", container("serve", non_root=True, user=user)))
    assert raised.value.cause == "CreateContainerConfigError"
    assert await docker_harness.leftovers() == []
    instance = await docker_runtime.start(spec("hello-2", container("serve", non_root=True, user=65532)))
    assert await fetch(instance.address)
