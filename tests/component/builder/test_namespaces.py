"""Images and caches belong to the namespace whose Build made them."""

import uuid

from tests.component.builder.conftest import DEBIAN, Yard, docker, tar_of

A, B = "sec-a", "sec-b"
LOCAL = "python:*"
"""Base images, which an administrator allows: no registry answers in tests."""


def labelled(word: str) -> bytes:
    return tar_of({"Dockerfile": f"FROM {DEBIAN}\nLABEL said={word}\n"})


def label_of(image: str) -> str:
    return docker("image", "inspect", '--format={{index .Config.Labels "said"}}', image).stdout.strip()


async def tenants(yard: Yard, **keys: str) -> None:
    for namespace in (A, B):
        await yard.add_tenant(namespace)
    await yard.configure(**{"local_images": LOCAL, **keys})


async def built(yard: Yard, name: str, namespace: str, archive: bytes, **spec: object) -> str:
    await yard.submit(name, archive, namespace, **spec)
    ended = await yard.over(name, namespace)
    assert ended.phase == "Succeeded", ended
    return ended.digest.rpartition("@")[2]


async def test_the_same_name_is_a_different_image_in_another_namespace(yard: Yard) -> None:
    await tenants(yard)
    yard.start()
    tag = f"{yard.prefix}/shop:v1"
    theirs = await built(yard, "shop", B, labelled("theirs"), tag=tag)
    ours = await built(yard, "shop", A, labelled("ours"), tag=tag)
    for namespace, image_id in ((B, theirs), (A, ours)):
        await yard.ask("asks", tag, namespace=namespace)
        assert (await yard.answered("asks", namespace)).images[0].digest == f"{yard.prefix}/shop@{image_id}"
    assert (label_of(theirs), label_of(ours)) == ("theirs", "ours")
    assert docker("image", "inspect", tag).returncode == 1, "with tenants no Build takes a name of the engine"


async def test_a_tenant_can_neither_run_nor_build_from_the_images_of_another(yard: Yard) -> None:
    await tenants(yard)
    yard.start()
    tag = f"{yard.prefix}/private:v1"
    image_id = await built(yard, "private", B, labelled("secret"), tag=tag)
    engine_name = docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", f"knoll-built/{yard.prefix}/{B}").stdout
    names = [tag, f"{yard.prefix}/private@{image_id}", f"x@{image_id}", f"python@{image_id}", engine_name.strip()]
    for number, name in enumerate(names):
        await yard.ask(f"asks{number}", name, namespace=A)
        assert "Unable to fetch image" in (await yard.answered(f"asks{number}", A)).error, name
    for number, name in enumerate([tag, f"x@{image_id}", engine_name.strip()]):
        for text in (f"FROM {name}\n", f"FROM {DEBIAN}\nCOPY --from={name} /etc/passwd /x\n"):
            build = f"from{number}-{len(text)}"
            await yard.submit(build, tar_of({"Dockerfile": text}), A)
            assert (await yard.over(build, A)).phase == "Failed", text
    await yard.submit("mirrors", namespace=A, source={"image": tag})
    assert (await yard.over("mirrors", A)).phase == "Failed"

    await built(yard, "own", B, tar_of({"Dockerfile": f"FROM {tag}\nLABEL more=1\n"}))
    await yard.ask("own", f"x@{image_id}", namespace=B)
    assert (await yard.answered("own", B)).images[0].digest == f"x@{image_id}"


async def test_local_images_are_reserved_to_the_owner_until_allowed(yard: Yard) -> None:
    name = f"{yard.prefix}/local:v1"
    assert docker("tag", DEBIAN, name).returncode == 0
    await yard.ask("before", name, namespace=A)
    yard.start()
    assert (await yard.answered("before", A)).images[0].digest
    await tenants(yard, local_images=f"{LOCAL}, {yard.prefix}/allowed")
    await yard.ask("after", name, namespace=A)
    assert "Unable to fetch image" in (await yard.answered("after", A)).error
    assert docker("tag", DEBIAN, f"{yard.prefix}/allowed:v7").returncode == 0
    await yard.ask("allowed", f"{yard.prefix}/allowed:v7", namespace=A)
    assert (await yard.answered("allowed", A)).images[0].digest
    await yard.ask("unresolved", "ko.local/anything:v1", namespace=A)
    assert "local-images" in (await yard.answered("unresolved", A)).error


async def test_a_single_user_finds_the_image_under_its_own_name_on_the_engine(yard: Yard) -> None:
    yard.start()
    tag = f"{yard.prefix}/plain:v1"
    await built(yard, "first", "default", labelled("one"), tag=tag)
    assert label_of(tag) == "one"
    await built(yard, "second", "default", labelled("two"), tag=tag)
    assert label_of(tag) == "two"
    other = f"{yard.prefix}/taken:v1"
    assert docker("tag", DEBIAN, other).returncode == 0
    image_id = await built(yard, "third", "default", labelled("three"), tag=other)
    assert label_of(other) != "three", "an image that no Build made keeps its name"
    assert any("already names another image on the engine" in line for line in await yard.log("third"))
    await yard.ask("asks", other)
    assert (await yard.answered("asks")).images[0].digest.endswith(image_id)


async def test_namespaces_do_not_share_cache_mounts(yard: Yard) -> None:
    await tenants(yard)
    yard.start()
    word = uuid.uuid4().hex
    mount = "--mount=type=cache,id={id},target=/cache"
    put = f"FROM {DEBIAN}\nRUN {mount.format(id='shared')} echo {word} > /cache/word\n"
    get = "FROM {base}\nRUN {mount} : " + word + "; cat /cache/word > /word 2>/dev/null || echo nothing > /word\n"
    await built(yard, "put", B, tar_of({"Dockerfile": put}))
    for number, cache in enumerate(("shared", f"../{B}/shared", f"/{B}/shared", f"{B}/shared")):
        text = get.format(base=DEBIAN, mount=mount.format(id=cache))
        image_id = await built(yard, f"get{number}", A, tar_of({"Dockerfile": text}))
        assert docker("run", "--rm", image_id, "cat", "/word").stdout.strip() == "nothing", cache
    image_id = await built(
        yard, "own", B, tar_of({"Dockerfile": get.format(base=DEBIAN, mount=mount.format(id="shared"))})
    )
    assert docker("run", "--rm", image_id, "cat", "/word").stdout.strip() == word


async def test_a_step_that_another_namespace_ran_is_run_again(yard: Yard) -> None:
    """What it left may come from a secret, which is no part of what BuildKit remembers a step by."""
    await tenants(yard)
    yard.start()
    source = tar_of({"Dockerfile": f"FROM {DEBIAN}\nRUN : {uuid.uuid4()}; cat /proc/sys/kernel/random/uuid > /word\n"})

    async def word(name: str, namespace: str) -> str:
        return docker("run", "--rm", await built(yard, name, namespace, source), "cat", "/word").stdout.strip()

    first = await word("first", B)
    assert await word("again", B) == first, "the same namespace has its caches"
    assert await word("first", A) != first
