"""The steps of A's builds reach nothing that is protected, and cannot use B's images."""

import json
import subprocess
import uuid
from collections.abc import Iterable
from pathlib import Path

import pytest

from knoll.values import kinds
from tests.e2e.attacks.conftest import SERVICE
from tests.e2e.attacks.site import ATTACKER, CANARY, VICTIM, Site, User
from tests.e2e.outside import PORT, Outside
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.kubectl]

MARK = "made-by-a"


def build(user: User, program: Path, folder: Path, lines: Iterable[str], tag: str) -> subprocess.CompletedProcess[str]:
    """Build a Dockerfile of these lines, with the program of tests/e2e/caller beside it and nothing from a cache."""
    folder = folder / uuid.uuid4().hex
    folder.mkdir()
    (folder / "caller").write_bytes((program / "caller").read_bytes())
    (folder / "caller").chmod(0o755)
    (folder / "fresh").write_text(folder.name)
    (folder / "Dockerfile").write_text("\n".join(["FROM scratch", "COPY caller fresh /", *lines]) + "\n")
    return user.knoll("build", str(folder), "--tag", tag, "--verbose")


def opened(site: Site, program: Path, folder: Path, places: dict[str, tuple[str, int]]) -> list[str]:
    """The names of the places that a step of A's build connects to."""
    addresses = [f"{address}:{port}" for address, port in places.values()]
    step = f"RUN {json.dumps(['/caller', 'dial', *addresses])}"
    built = build(site.attacker, program, folder, [step], "probe:1")
    output = built.stdout + built.stderr
    assert all(f"{address} open" in output or f"{address} closed" in output for address in addresses), output
    return [name for name, address in zip(places, addresses, strict=True) if f"{address} open" in output]


@pytest.fixture(scope="module")
def guarded(site: Site, external: Outside, host_port: int) -> dict[str, tuple[str, int]]:
    """What the platform's packet filter alone keeps the steps of builds from."""
    return {
        "a service of the machine": (external.machine, host_port),
        "a neighbour of the machine": (external.neighbour, PORT),
        "a link-local service": (external.link_local, PORT),
    }


def test_a_step_connects_to_nothing_that_is_not_public(
    site: Site, program: Path, tmp_path: Path, shop_address: str, external: Outside, guarded: dict[str, tuple[str, int]]
) -> None:
    places = {
        **guarded,
        "B's instance": (shop_address, 8080),
        "the API on loopback": ("127.0.0.1", site.ports["API"]),
        "the API": (site.address("api"), 8001),
        "Redis": (site.address("redis"), 6379),
        "the builder": (site.address("builder"), 8083),
        "the gateway for instances": (f"{site.prefix}.0.2", 80),
        "the Internet": (external.internet, PORT),
    }
    assert opened(site, program, tmp_path, places) == ["the Internet"]


def test_without_the_packet_filter_it_would(
    site: Site, program: Path, tmp_path: Path, guarded: dict[str, tuple[str, int]]
) -> None:
    with site.configured("config-security", network_isolation="disabled"):
        eventually_sync(lambda: opened(site, program, tmp_path, guarded) == list(guarded), within=30)
    eventually_sync(lambda: opened(site, program, tmp_path, guarded) == [], within=30)


@pytest.mark.parametrize("where", ["127.0.0.1", "localhost", "machine"])
def test_what_a_dockerfile_fetches_is_not_of_the_machine(
    site: Site, program: Path, tmp_path: Path, external: Outside, host_port: int, where: str
) -> None:
    secret = f"/api/v1/namespaces/{VICTIM}/secrets/crown"
    url = (
        f"http://{external.machine}:{host_port}/"
        if where == "machine"
        else f"http://{where}:{site.ports['API']}{secret}"
    )
    lines = [f"ADD {url} /leak", 'RUN ["/caller", "print", "/leak"]']
    built = build(site.attacker, program, tmp_path, lines, "leak:1")
    assert built.returncode, built.stdout
    assert CANARY not in built.stdout + built.stderr


@pytest.mark.parametrize("form", ["http://{}/x.git", "git://{}/x", "http://{}/x?y=.git"])
def test_a_git_source_is_not_of_the_machine(site: Site, form: str) -> None:
    """Refused, or failed with nothing of what answered there."""
    url = form.format(f"127.0.0.1:{site.ports['API']}")
    body = {
        "apiVersion": kinds.BUILD_KIND.api_version,
        "kind": "Build",
        "metadata": {"name": f"git-{uuid.uuid4().hex[:6]}"},
        "spec": {"tag": "git:1", "source": {"git": {"url": url}}},
    }
    made = site.attacker.kubectl("create", "-f", "-", stdin=json.dumps(body), check=False)
    assert made.returncode, made.stdout
    assert CANARY not in made.stderr


class TestImages:
    def test_a_tag_of_bs_stays_bs(self, site: Site, program: Path, tmp_path: Path, shop: str) -> None:
        """A builds B's tag; B's next revision runs what B built."""
        lines = [f'ENV K_MARK="{MARK}"', 'ENTRYPOINT ["/none"]']
        built = build(site.attacker, program, tmp_path, lines, "shop:1")
        assert built.returncode == 0, built.stderr
        patch = {"spec": {"template": {"metadata": {"labels": {"again": uuid.uuid4().hex}}}}}
        site.victim.kubectl("patch", "ksvc", "shop", "--type=merge", "-p", json.dumps(patch))
        site.victim.kubectl("wait", "ksvc", "shop", "--for=condition=Ready", "--timeout=60s")
        assert "shop" in site.get(shop).text

    def test_an_image_of_bs_does_not_run_as_as(self, site: Site, program: Path, tmp_path: Path, shop: str) -> None:
        built = build(site.victim, program, tmp_path, [f"ENV VAULT={CANARY}", 'ENTRYPOINT ["/caller"]'], "vault:1")
        assert built.returncode == 0, built.stderr
        manifest = SERVICE.replace("NAME", "thief").replace("IMAGE", "vault:1")
        try:
            site.attacker.kubectl("apply", "-f", "-", stdin=manifest)
            waited = site.attacker.kubectl("wait", "ksvc", "thief", "--for=condition=Ready=False", "--timeout=60s")
            assert "condition met" in waited.stdout
        finally:
            site.attacker.kubectl("delete", "ksvc", "thief", "--ignore-not-found")
        # Or the test would pass because the image does not run at all.
        site.victim.kubectl("apply", "-f", "-", stdin=manifest.replace("thief", "vault"))
        site.victim.kubectl("wait", "ksvc", "vault", "--for=condition=Ready", "--timeout=60s")

    def test_an_image_of_bs_is_no_base_of_as(self, site: Site, program: Path, tmp_path: Path) -> None:
        folder = tmp_path / "from"
        folder.mkdir()
        (folder / "Dockerfile").write_text("FROM vault:1\n")
        built = site.attacker.knoll("build", str(folder), "--tag", "stolen:1", "--verbose")
        assert built.returncode, built.stdout
        assert CANARY not in built.stdout + built.stderr

    @pytest.mark.parametrize("tag", ["knoll:latest", "knoll/pause:3", "knoll-pinned/x:1"])
    def test_the_platforms_images_are_no_ones_tags(self, site: Site, program: Path, tmp_path: Path, tag: str) -> None:
        built = build(site.attacker, program, tmp_path, [], tag)
        assert built.returncode, built.stdout


def test_caches_are_not_shared(site: Site, program: Path, tmp_path: Path) -> None:
    """What A leaves in a cache mount is not there for B; it is for A, or the test would pass for another reason."""
    mount = f"RUN --mount=type=cache,id={ATTACKER},target=/cache "
    name = uuid.uuid4().hex
    write, read = ([mount + json.dumps(["/caller", verb, f"/cache/{name}"])] for verb in ("write", "exists"))
    assert build(site.attacker, program, tmp_path, write, "cache:1").returncode == 0
    again = build(site.attacker, program, tmp_path, read, "cache:1")
    assert f"/cache/{name} is there" in again.stdout + again.stderr
    other = build(site.victim, program, tmp_path, read, "cache:1")
    assert f"/cache/{name} is missing" in other.stdout + other.stderr
