"""What the engine's list of containers means."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.runtime.docker import labels, payloads
from autoscaler.runtime.docker.listing import ListedContainer, classify, listed
from autoscaler.runtime.model import ContainerSpec, InstanceSpec

CONTAINERS = (ContainerSpec("user-container", "hello:1"), ContainerSpec("sidecar", "side:1"))
SPEC = InstanceSpec("hello-1", "default/hello", "uid-1", CONTAINERS, 8080, labels={"a": "b"}, grace_seconds=7)


def app(
    container: str = "user-container", state: str = "running", status: str = "", restarts: int = 0
) -> ListedContainer:
    spec = next(each for each in CONTAINERS if each.name == container)
    body = payloads.container(
        SPEC,
        spec,
        platform="knoll",
        role="app",
        sandbox_id="box",
        group="g",
        address="10.0.0.2",
        image_id="sha256:1",
        image_has_tmp=True,
        now=5.0,
    )
    own = {**body["Labels"], labels.RESTARTS: str(restarts), "of-the-image": "x"}
    return ListedContainer(
        f"{container}-{restarts}", f"knoll.hello-1.{container}", state, status, own, "", "container:box"
    )


def sandbox(
    key: str = "box", name: str = "knoll.hello-1", state: str = "running", network: str = "net", dns: str = "10.0.0.3"
) -> ListedContainer:
    own = {labels.PLATFORM: "knoll", labels.ROLE: "sandbox", labels.DNS: dns}
    return ListedContainer(key, name, state, "", own, "10.0.0.2", network)


def test_an_instance_is_rebuilt_from_its_labels() -> None:
    (instance,) = classify("knoll", "net", [app("sidecar"), sandbox(), app()]).instances
    assert (instance.name, instance.revision, instance.uid, instance.port) == (
        "hello-1",
        "default/hello",
        "uid-1",
        8080,
    )
    assert (instance.address, instance.state, instance.created, instance.grace_seconds) == (
        "10.0.0.2",
        "running",
        5.0,
        7.0,
    )
    assert [each.name for each in instance.containers] == ["user-container", "sidecar"]
    assert instance.labels == {"a": "b"}


@pytest.mark.parametrize(
    ("members", "state"),
    [
        pytest.param([sandbox(), app(), app("sidecar")], "running", id="all run"),
        pytest.param([sandbox(), app(state="exited"), app("sidecar")], "exited", id="one ended"),
        pytest.param([sandbox(), app(state="paused"), app("sidecar", "paused")], "paused", id="frozen"),
        pytest.param([sandbox(), app()], "lost", id="a container is missing"),
        pytest.param([app(), app("sidecar")], "lost", id="the sandbox is missing"),
        pytest.param([sandbox(state="exited"), app(), app("sidecar")], "lost", id="the sandbox ended"),
        pytest.param([sandbox(), app(state="created"), app("sidecar")], "lost", id="its start was cut short"),
    ],
)
def test_states(members: list[ListedContainer], state: str) -> None:
    assert classify("knoll", "net", members).instances[0].state == state


def test_what_this_process_is_starting_is_starting() -> None:
    (instance,) = classify("knoll", "net", [sandbox(), app(state="created")], {"hello-1"}).instances
    assert instance.state == "starting"


def test_the_newest_of_a_container_counts_when_a_restart_was_cut_short() -> None:
    members = [app(state="exited"), app(restarts=1), app("sidecar"), sandbox()]
    classified = classify("knoll", "net", members)
    assert classified.instances[0].state == "running"
    assert classified.instances[0].containers[0].restarts == 1
    assert len(classified.by_instance["hello-1"]) == 3


@pytest.mark.parametrize(
    ("sandbox", "spare"),
    [
        pytest.param(sandbox("s", "knoll.spare-1"), True, id="running"),
        pytest.param(sandbox("s", "knoll.spare-1", "exited"), False, id="ended"),
        pytest.param(sandbox("s", "knoll.spare-1", network="old"), False, id="on another network"),
        pytest.param(sandbox("s", "knoll.spare-1", dns="10.9.0.3"), False, id="asks another DNS server"),
        pytest.param(sandbox("s", "knoll.spare-1", dns=""), False, id="asks the engine alone"),
        pytest.param(sandbox("s", "knoll.hello-9"), False, id="used before"),
    ],
)
def test_a_sandbox_without_an_instance_is_spare_or_left_over(sandbox: ListedContainer, spare: bool) -> None:
    classified = classify("knoll", "net", [sandbox], dns="10.0.0.3")
    assert (classified.spare, classified.leftovers) == (([sandbox], []) if spare else ([], [sandbox]))


@given(st.permutations([app(), app("sidecar"), sandbox(), sandbox("s", "knoll.spare-1"), sandbox("t", "knoll.x")]))
def test_the_order_of_the_list_means_nothing(order: list[ListedContainer]) -> None:
    classified = classify("knoll", "net", order, dns="10.0.0.3")
    assert [instance.state for instance in classified.instances] == ["running"]
    assert [sandbox.id for sandbox in classified.spare] == ["s"]
    assert [sandbox.id for sandbox in classified.leftovers] == ["t"]


@pytest.mark.parametrize(
    ("status", "code"), [("Exited (137) 2 minutes ago", 137), ("Exited (0) now", 0), ("Up 3 seconds", None)]
)
def test_exit_codes_are_read_from_the_status(status: str, code: int | None) -> None:
    state = "running" if code is None else "exited"
    classified = classify("knoll", "net", [replace(app(), state=state, status=status), app("sidecar"), sandbox()])
    assert classified.instances[0].containers[0].exit_code == code


def test_an_element_of_the_engines_list_is_read() -> None:
    container = listed(
        {
            "Id": "1",
            "Names": ["/knoll.spare-1"],
            "State": "running",
            "Status": "Up",
            "Labels": {"a": "b"},
            "HostConfig": {"NetworkMode": "net"},
            "NetworkSettings": {"Networks": {"net": {"IPAddress": "10.0.0.9"}}},
        }
    )
    assert container == ListedContainer("1", "knoll.spare-1", "running", "Up", {"a": "b"}, "10.0.0.9", "net")


def test_an_element_with_nothing_in_it_is_read() -> None:
    container = listed({"Id": "1", "State": "created", "Names": None, "Labels": None, "NetworkSettings": None})
    assert (container.name, container.labels, container.address) == ("", {}, "")
