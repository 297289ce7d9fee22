"""Timing, counting and routing."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.backend.stats import Stats
from activator.request.timing import field, parts
from activator.routing.routing_table import RoutingTable, normal
from knoll.messages.endpoints import StartTiming
from knoll.messages.routing import RequestPolicy, RouteEntry, Share

times = st.floats(0, 1000)


@given(arrived=times, wait=st.floats(0, 1000), work=times, marks=st.tuples(times, times, times, times))
def test_the_parts_of_a_wait_sum_to_the_wait(
    arrived: float, wait: float, work: float, marks: tuple[float, ...]
) -> None:
    durations = parts(arrived, arrived + wait, arrived + wait + work, StartTiming(*marks))
    assert sum(durations.values()) == pytest.approx(wait + work, abs=1e-6)
    assert all(seconds >= -1e-9 for seconds in durations.values())


def test_a_start_that_a_request_asked_for_is_split_at_its_marks() -> None:
    durations = parts(100.0, 101.0, 101.25, StartTiming(100.1, 100.2, 100.5, 100.9))
    assert durations == pytest.approx({"queue": 0.2, "schedule": 0.1, "start": 0.3, "ready": 0.4, "response": 0.25})
    assert field(durations) == (
        b"Server-Timing: queue;dur=200.0, schedule;dur=100.0, start;dur=300.0, ready;dur=400.0, response;dur=250.0\r\n"
    )


def test_concurrency_is_weighted_by_time() -> None:
    stats = Stats(0.0)
    stats.enter(0.0)
    stats.enter(0.5)
    stats.leave(0.75, 0.5, 200)
    report = stats.report("r", 1.0, 1.0, 1, 0)
    assert report is not None
    assert (report.concurrency, report.requests, report.in_flight) == (1.25, 2, 1)
    stats.leave(1.5, 0.0, 200)
    later = stats.report("r", 2.0, 1.0, 0, 0)
    assert later is not None
    assert (later.concurrency, later.requests) == (0.5, 0)


def test_silence_is_reported_once() -> None:
    stats = Stats(0.0)
    assert stats.report("r", 1.0, 1.0, 0, 0) is None
    stats.enter(1.0)
    stats.leave(1.0, 1.0, 200)
    assert stats.report("r", 2.0, 1.0, 0, 0) is not None
    silent = stats.report("r", 3.0, 1.0, 0, 0)
    assert silent is not None
    assert silent.concurrency == 0
    assert stats.report("r", 4.0, 1.0, 0, 0) is None


@pytest.mark.parametrize(
    ("authority", "host"),
    [(b"A.b", "a.b"), (b"a.b:80", "a.b"), (b"a.b.", "a.b"), (b"a.b.:80", "a.b"), (b"[::1]:80", "[::1]"),
     (b"[::1]", "[::1]"),
     (b"a:", "a")],
)  # fmt: skip
def test_a_host_is_found_without_port_case_and_dot(authority: bytes, host: str) -> None:
    assert normal(authority) == host


def entry(host: str, revision: str) -> RouteEntry:
    return RouteEntry(
        {host: (Share(revision, 100),)}, {revision: RequestPolicy()}, {f"local.{host}": (Share(revision, 100),)}
    )


def test_a_changed_route_takes_its_hosts_along() -> None:
    routing: RoutingTable[str] = RoutingTable(lambda name: name, random.random)
    routing.replace({"d/a": entry("a", "r1"), "d/b": entry("b", "r2")})
    host_route = routing.find(b"A:80", False)
    assert host_route is not None
    assert host_route.pick() == "r1"
    routing.change("d/a", entry("c", "r3"))
    assert routing.find(b"A:80", False) is None
    assert routing.find(b"c", False) is not None
    assert routing.find(b"local.b", False) is None
    assert routing.find(b"local.b", True) is not None
    routing.change("d/b", None)
    assert routing.find(b"b", True) is None


def test_a_host_that_moved_to_another_route_stays_when_the_old_one_goes() -> None:
    routing: RoutingTable[str] = RoutingTable(lambda name: name, random.random)
    routing.change("d/a", entry("host", "r1"))
    routing.change("d/b", entry("host", "r2"))
    routing.change("d/a", None)
    host_route = routing.find(b"host", False)
    assert host_route is not None
    assert host_route.pick() == "r2"


PATHS = ("a/shop", "b/shop", "a/domainmapping:h", "b/domainmapping:h")
entries = st.builds(
    lambda hosts, since: (hosts, since), st.sets(st.sampled_from(["h", "g"]), min_size=1), st.sampled_from([1.0, 2.0])
)


@given(st.lists(st.tuples(st.sampled_from(PATHS), st.one_of(st.none(), entries)), max_size=25))
def test_the_owners_of_hosts_do_not_depend_on_earlier_changes(
    steps: list[tuple[str, tuple[set[str], float] | None]],
) -> None:
    changed: RoutingTable[str] = RoutingTable(lambda name: name, random.random)
    live: dict[str, RouteEntry] = {}
    for path, claimed in steps:
        live.pop(path, None)
        if claimed is not None:
            hosts, since = claimed
            shares = (Share(f"{path[0]}/r", 100),)
            live[path] = RouteEntry(
                dict.fromkeys(hosts, shares), {f"{path[0]}/r": RequestPolicy()}, mapping=":" in path,
                since=dict.fromkeys(hosts, since),
            )  # fmt: skip
        changed.change(path, live.get(path))
        for host in ("h", "g"):
            claims = [(":" in name, entry.since[host], name) for name, entry in live.items() if host in entry.hosts]
            host_route = changed.find(host.encode(), local=False)
            assert (host_route.route if host_route else None) == (min(claims)[2] if claims else None)
