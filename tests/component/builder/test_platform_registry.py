"""The registry of a platform on several machines: what goes there, what comes back, and what is removed.

The machines have one engine here, from which images are removed to stand for a machine that lacks them.
"""

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from autoscaler.runtime.docker.engine import Engine
from autoscaler.runtime.docker.images import Images
from builder.images.built_images import BuiltImages
from builder.images.engine_images import pin_repository
from builder.images.other_engines import OtherEngines
from builder.images.platform_registry import PlatformRegistry
from builder.maintenance import pruning
from builder.maintenance.image_publisher import ImagePublisher
from builder.maintenance.leftovers import Leftovers
from builder.maintenance.pruning import Needs
from builder.maintenance.registry_keeper import RegistryKeeper
from knoll.messages import builds
from knoll.process.settings import BuilderSettings
from knoll.redis import keys
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.errors import ImageError, RuntimeUnavailableError
from knoll.values.platform_registry import image_name, repository
from tests.component.builder.conftest import Yard, docker, images_of, tar_of
from tests.registry import Registry, registry
from tests.waiting import eventually

SOCKET = Path("/var/run/docker.sock")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Registry]:
    with registry(tmp_path / "registry", deletes=True) as server:
        yield server


def settings(yard: Yard, place: Registry, node: str = "n1") -> BuilderSettings:
    environment = {
        **yard.environment,
        "KNOLL_NODE": node,
        "KNOLL_REGISTRY": place.host,
        "KNOLL_REGISTRY_URL": f"http://{place.host}",
    }
    return BuilderSettings.read(environment)


def source(yard: Yard, name: str = "") -> bytes:
    """A small image that no other test has."""
    return tar_of({"Dockerfile": f"FROM scratch\nCOPY name /\nLABEL test={yard.prefix}{name}\n", "name": yard.prefix})


def start(yard: Yard, place: Registry, node: str = "n1") -> None:
    several = {"KNOLL_NODE": node, "KNOLL_REGISTRY": place.host, "KNOLL_REGISTRY_URL": f"http://{place.host}"}
    yard.environment = {**yard.environment, **several}
    yard.start()


def tags(yard: Yard, place: Registry) -> set[str]:
    """The images that the registry has, as ids."""
    answer = httpx.get(f"http://{place.host}/v2/{repository(yard.prefix)}/tags/list").json()
    return {f"sha256:{tag}" for tag in answer.get("tags") or []}


def image_id(reference: str) -> str:
    return docker("image", "inspect", "--format={{.Id}}", reference).stdout.strip()


def lose(yard: Yard, *references: str) -> None:
    """Remove all names of images from the engine, and with them the images."""
    patterns = (
        *references,
        f"knoll-built/{yard.prefix}/*",
        pin_repository(yard.prefix),
        f"*/{repository(yard.prefix)}",
    )
    for name in images_of(*patterns):
        assert docker("image", "rm", "--force", name).returncode == 0


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    connection = Engine(SOCKET)
    await connection.open()
    yield connection
    await connection.close()


async def test_a_build_is_in_the_registry_before_it_has_succeeded_and_a_node_without_it_pulls_it(
    yard: Yard, place: Registry, engine: Engine
) -> None:
    start(yard, place)
    tag = f"{yard.prefix}/shop:v1"
    await yard.submit("shop", source(yard), tag=tag)
    ended = await yard.over("shop")
    assert ended.phase == "Succeeded", ended
    built = ended.digest.partition("@")[2]
    assert tags(yard, place) == {built}
    await yard.ask("shop", tag)
    pinned = (await yard.answered("shop")).images[0].digest
    assert pinned == f"{yard.prefix}/shop@{built}"

    lose(yard, tag)
    assert not image_id(built)
    images = Images(engine, yard.prefix, place.host)
    assert await images.ensure(pinned, None, None) == built
    assert image_id(built) == built


async def test_an_image_that_only_an_engine_has_is_pushed_before_a_revision_is_pinned_to_it(
    yard: Yard, place: Registry
) -> None:
    tag = f"{yard.prefix}/mine:v1"
    build_by_hand(tag)
    start(yard, place)
    await yard.ask("mine", tag)
    answer = await yard.answered("mine")
    assert answer.images[0].digest == f"{yard.prefix}/mine@{image_id(tag)}"
    assert tags(yard, place) == {image_id(tag)}


async def test_an_image_that_no_machine_has_is_refused_with_its_name(yard: Yard, place: Registry) -> None:
    start(yard, place)
    await yard.ask("absent", f"{place.host}/{yard.prefix}/absent:v1")
    error = (await yard.answered("absent")).error
    assert f'Unable to fetch image "{place.host}/{yard.prefix}/absent:v1"' in error


async def test_the_record_of_a_build_on_another_machine_is_enough(yard: Yard, place: Registry) -> None:
    start(yard, place, "n2")
    tag = f"{yard.prefix}/shop:v1"
    await yard.submit("shop", source(yard), tag=tag)
    built = (await yard.over("shop")).digest.partition("@")[2]
    lose(yard, tag)
    await yard.ask("shop", tag)
    assert (await yard.answered("shop")).images[0].digest == f"{yard.prefix}/shop@{built}"
    # A build from the image needs its layers here.
    await yard.submit("more", tar_of({"Dockerfile": f"FROM {tag}\nLABEL more=1\n"}))
    ended = await yard.over("more")
    assert ended.phase == "Succeeded", ended


async def test_another_image_under_an_id_is_not_started(yard: Yard, place: Registry, engine: Engine) -> None:
    build_by_hand(f"{yard.prefix}/evil:v1")
    claimed = "sha256:" + "a" * 64
    name = image_name(place.host, yard.prefix, claimed)
    assert docker("tag", f"{yard.prefix}/evil:v1", name).returncode == 0
    assert docker("push", name).returncode == 0
    lose(yard, f"{yard.prefix}/evil:v1")
    with pytest.raises(ImageError, match="has another image"):
        await Images(engine, yard.prefix, place.host).ensure(f"no.example/shop@{claimed}", None, None)


async def test_a_registry_that_lost_its_data_gets_what_engines_have(yard: Yard, place: Registry) -> None:
    tag = f"{yard.prefix}/mine:v1"
    build_by_hand(tag)
    mine = image_id(tag)
    own = settings(yard, place)
    await yard.redis.execute("SADD", keys.REGISTRY_IMAGES, mine)  # before the loss
    keeper = RegistryKeeper(own, yard.redis, Leftovers())
    assert await keeper.record() == set()
    await publisher(own, yard).publish(Needs({f"{yard.prefix}/mine@{mine}", "no.example/x:1"}, set(), set(), {}))
    assert tags(yard, place) == {mine} == await keeper.record()
    assert await yard.redis.execute("SMEMBERS", keys.REGISTRY_IMAGES) == [mine.encode()]


async def test_images_are_removed_from_the_registry_when_nothing_needs_them(
    yard: Yard, place: Registry, tmp_path: Path
) -> None:
    own = settings(yard, place)
    requests = tmp_path / "requests"
    requests.mkdir()
    ids = []
    for name in ("kept", "dropped"):
        build_by_hand(f"{yard.prefix}/{name}:v1")
        ids.append(image_id(f"{yard.prefix}/{name}:v1"))
        await platform_registry(own, yard).push(ids[-1])
    keeper = RegistryKeeper(msgspec.structs.replace(own, registry_dir=requests), yard.redis, Leftovers(0.0))
    assert await keeper.prune({ids[0]}) == 1
    assert tags(yard, place) == {ids[0]}
    assert await yard.redis.execute("SMEMBERS", keys.REGISTRY_IMAGES) == [ids[0].encode()]
    before = place.size()
    assert (requests / "collect").read_text()
    place.collect_garbage()
    assert place.size() < before
    # What is left is whole, and what was removed can come again.
    lose(yard, f"{yard.prefix}/kept:v1")
    await platform_registry(own, yard).fetch(ids[0])
    await platform_registry(own, yard).push(ids[1])
    assert tags(yard, place) == set(ids)


async def test_each_machine_removes_its_own_names_and_keeps_what_another_one_needs(yard: Yard, place: Registry) -> None:
    own = settings(yard, place)
    start(yard, place)
    for name in ("kept", "dropped"):
        await yard.submit(name, source(yard, name), tag=f"{yard.prefix}/{name}:v1")
        assert (await yard.over(name)).phase == "Succeeded"
    yard.builders[0].terminate()
    yard.builders[0].wait(30)
    pushed = image_id(f"{yard.prefix}/kept:v1")
    names = {image_name(place.host, yard.prefix, pushed)}
    await yard.store.delete(kinds.BUILD_KIND.id, "default", "dropped")
    record = BuiltImages(yard.redis)
    dropped = next(each for each in (await record.all())["default"] if each.tag.endswith("dropped:v1"))
    await record.forget("default", [dropped])  # as the clean-up of another machine does
    answers: RedisTable[builds.Resolution] = RedisTable(yard.redis, builds.RESOLUTIONS, builds.Resolution)
    await pruning.prune(own, yard.redis, yard.store, answers, Leftovers(0.0))
    assert set(images_of(f"*/{repository(yard.prefix)}")) == names
    assert len(images_of(f"knoll-built/{yard.prefix}/*")) == 1


async def test_a_build_of_a_machine_that_runs_is_not_forgotten_by_another(yard: Yard, place: Registry) -> None:
    start(yard, place, "n2")
    await yard.submit("shop", source(yard), tag=f"{yard.prefix}/shop:v1")
    assert (await yard.over("shop")).phase == "Succeeded"
    yard.builders[0].terminate()
    yard.builders[0].wait(30)
    await yard.store.delete(kinds.BUILD_KIND.id, "default", "shop")
    await yard.redis.execute("HSET", keys.built_images("default"), *await aged(yard))
    answers: RedisTable[builds.Resolution] = RedisTable(yard.redis, builds.RESOLUTIONS, builds.Resolution)
    without_registry = BuilderSettings.read({**yard.environment, "KNOLL_NODE": "n3", "KNOLL_REGISTRY_URL": ""})
    await pruning.prune(without_registry, yard.redis, yard.store, answers, Leftovers())
    assert len((await BuiltImages(yard.redis).all())["default"]) == 1
    # The machine with the registry removes the records of machines that do not run.
    await pruning.prune(settings(yard, place, "n1"), yard.redis, yard.store, answers, Leftovers())
    assert not await BuiltImages(yard.redis).all()


async def test_a_registry_that_does_not_respond_is_said(yard: Yard, place: Registry) -> None:
    own = BuilderSettings.read({**yard.environment, "KNOLL_NODE": "n1", "KNOLL_REGISTRY_URL": "http://127.0.0.1:1"})
    with pytest.raises(RuntimeUnavailableError, match="the platform's registry does not respond"):
        await RegistryKeeper(own, yard.redis, Leftovers()).record()


async def test_one_of_two_builders_looks_up_each_revision(yard: Yard, place: Registry) -> None:
    tag = f"{yard.prefix}/mine:v1"
    build_by_hand(tag)
    start(yard, place, "n1")
    await yard.ready()
    holder = await eventually(lambda: lease(yard), 30, "a builder that looks up digests")
    assert holder == "n1"
    yard.builders[0].kill()
    yard.builders[0].wait()
    start(yard, place, "n2")
    await yard.ask("mine", tag)
    assert (await yard.answered("mine")).images[0].digest.endswith(image_id(tag))
    assert await lease(yard) == "n2"


async def lease(yard: Yard) -> str:
    stored = await yard.redis.execute("GET", keys.lease("digest-resolver"))
    return (stored or b"").decode().partition(" ")[0]


async def aged(yard: Yard) -> list[str]:
    """The records of the namespace, as if they were old."""
    stored = await yard.redis.execute("HGETALL", keys.built_images("default"))
    pairs = stored.items() if isinstance(stored, dict) else zip(stored[::2], stored[1::2], strict=True)
    return [part for key, value in pairs for part in (key.decode(), json.dumps({**json.loads(value), "made": 0.0}))]


def build_by_hand(tag: str) -> None:
    """Make an image as a user does, with the engine alone."""
    command = ["import", "--change", f"LABEL of={tag}", "-", tag]
    archive = tar_of({"name": tag})
    done = subprocess.run(["docker", *command], input=archive, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def platform_registry(own: BuilderSettings, yard: Yard) -> PlatformRegistry:
    return PlatformRegistry(own, yard.redis, OtherEngines(own, yard.redis))


def publisher(own: BuilderSettings, yard: Yard) -> ImagePublisher:
    return ImagePublisher(own, yard.redis, platform_registry(own, yard))
