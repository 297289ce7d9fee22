"""Parts of the platform are killed at random under load, and its guarantees hold.

CHAOS_SECONDS is the duration (default 40; the full form is 120), CHAOS_SEED repeats a sequence.
"""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx
import pytest

from tests.component.runtime.harness import IMAGE
from tests.e2e import armed
from tests.e2e.platform import PROCESSES, Platform
from tests.own_engine import OwnEngine
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

SECONDS = float(os.environ.get("CHAOS_SECONDS", "40"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.randrange(1, 10**6)
SERVICES = {"pair": 2, "single": 1, "idle": 0}
"""Name to min-scale."""
CLIENTS = ("pair", "pair", "single", "single", "idle")
INSIDE_SECONDS = 1.0
"""A request that was in a container which was killed had begun before, or was on its way there."""
PAUSE = (0.3, 2.5)
"""Seconds between two deaths."""


def manifest(name: str) -> str:
    annotations = {
        "autoscaling.knative.dev/min-scale": str(SERVICES[name]), "autoscaling.knative.dev/max-scale": "4",
        "autoscaling.knative.dev/window": "6s",
    }  # fmt: skip
    spec = {"timeoutSeconds": 10, "containers": [{"image": IMAGE}]}
    template = {"metadata": {"annotations": annotations}, "spec": spec}
    kind = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name}}
    return json.dumps({**kind, "spec": {"template": template}})


@dataclass(frozen=True)
class Failed:
    service: str
    began: float
    ended: float
    why: str


@dataclass
class FailureWindow:
    """A time in which requests may fail: those of one Service, or all."""

    began: float
    service: str = ""
    ended: float = float("inf")

    def covers(self, failure: Failed) -> bool:
        return self.service in ("", failure.service) and failure.began <= self.ended and failure.ended >= self.began


@dataclass
class Load:
    """Requests without a pause, from several clients."""

    platform: Platform
    good: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SERVICES, 0))
    latest_good: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SERVICES, 0.0))
    """When the latest request of each Service that was answered began."""
    failed: list[Failed] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def client(self, service: str) -> None:
        dice = random.Random(f"{SEED} {service}")
        with httpx.Client(base_url=self.platform.gateway, timeout=60) as client:
            while not self.stop.is_set():
                began, why = time.monotonic(), ""
                try:
                    millis = dice.randrange(40)
                    answer = client.get(f"/?sleep={millis}", headers={"Host": f"{service}.default.localhost"})
                    why = "" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:200]}"
                except httpx.HTTPError as error:
                    why = repr(error)
                if why:
                    self.failed.append(Failed(service, began, time.monotonic(), why))
                    self.stop.wait(0.02)
                else:
                    self.good[service] += 1
                    self.latest_good[service] = max(self.latest_good[service], began)
                if service == "idle":
                    self.stop.wait(dice.choice((0.1, 9.0)))

    @contextmanager
    def running(self) -> Iterator[None]:
        clients = [threading.Thread(target=self.client, args=(service,)) for service in CLIENTS]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            self.stop.set()
            for client in clients:
                client.join()

    def wait_until_served(self) -> None:
        """Wait until each Service with constant load has answered a request that began after this call.

        A count of responses would not do: one that was received before this call may be counted after it.
        """
        called = time.monotonic()
        for service in ("pair", "single"):
            eventually_sync(
                lambda service=service: self.latest_good[service] > called,  # type: ignore[misc]
                within=90,
                condition=f"{service} to answer; {self.failed[-3:]}",
            )


class Chaos:
    """Kills parts of the platform, and records when requests may fail."""

    def __init__(self, engine: OwnEngine, platform: Platform, load: Load) -> None:
        self.engine, self.platform, self.load = engine, platform, load
        self.dice = random.Random(SEED)
        self.failure_windows: list[FailureWindow] = []
        self.done: list[str] = []

    def steps(self) -> list[Callable[[], None]]:
        return [
            *(self._killer(part) for part in (*PROCESSES, "redis")),
            self.freeze_redis,
            self.kill_container,
            self.kill_container,
            self.kill_sandbox,
        ]

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        with_engine = time.monotonic() + seconds / 3
        steps: list[Callable[[], None]] = []
        while time.monotonic() < end:
            if not steps:
                steps = self.steps()
                self.dice.shuffle(steps)
            if time.monotonic() > with_engine:
                with_engine = float("inf") if seconds < 100 else time.monotonic() + seconds / 3
                self.restart_engine()
            steps.pop()()
            self.load.stop.wait(self.dice.uniform(*PAUSE))

    def _killer(self, part: str) -> Callable[[], None]:
        def kill() -> None:
            self.done.append(part)
            if part != "activator":
                self.platform.kill(part)
                return
            window = FailureWindow(time.monotonic())
            self.failure_windows.append(window)
            killed = self.platform.pids(part)
            self.platform.kill(part)
            eventually_sync(
                lambda: not set(killed) & set(self.platform.pids(part)), within=30, condition=f"{part} to be dead"
            )
            self.load.wait_until_served()
            window.ended = time.monotonic()

        return kill

    def freeze_redis(self) -> None:
        self.done.append("redis is frozen")
        pids = self.platform.pids("redis")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            self.load.stop.wait(self.dice.uniform(1, 7))
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def kill_container(self) -> None:
        self._kill_one("app")

    def kill_sandbox(self) -> None:
        self._kill_one("sandbox")

    def _kill_one(self, role: str) -> None:
        try:
            containers_left = containers(self.engine, self.platform)
        except AssertionError:
            return  # a container was removed while the engine listed them
        apps = [container for container in containers_left if container["role"] == "app"]
        if not apps:
            return
        app = self.dice.choice(apps)
        victim = app["id"] if role == "app" else app["sandbox"]
        self.done.append(f"{role} of {app['service']}")
        window = FailureWindow(time.monotonic() - INSIDE_SECONDS, app["service"])
        self.failure_windows.append(window)
        self.engine.docker("kill", victim, check=False)
        window.ended = time.monotonic()

    def restart_engine(self) -> None:
        self.done.append("engine")
        window = FailureWindow(time.monotonic())
        self.failure_windows.append(window)
        self.engine.kill()
        self.engine.start()
        self.load.wait_until_served()
        window.ended = time.monotonic()


def containers(engine: OwnEngine, platform: Platform) -> list[dict[str, str]]:
    """Running containers of the platform."""
    fields = ("id", "name", "role", "instance", "sandbox", "service")
    labels = [f'{{{{.Label "knoll.dev/{word}"}}}}' for word in fields[2:5]]
    line = "|".join(["{{.ID}}", "{{.Names}}", *labels, '{{.Label "serving.knative.dev/service"}}'])
    output = engine.docker(
        "ps", "--no-trunc", "--format", line, f"--filter=label=knoll.dev/platform={platform.name}", check=False
    )
    assert output.returncode == 0, output.stderr
    return [dict(zip(fields, splitline.split("|"), strict=True)) for splitline in output.stdout.splitlines()]


def pods_are_what_docker_runs(engine: OwnEngine, platform: Platform) -> bool:
    """Whether the pods of the API are the instances on the engine, and there is nothing else."""
    pods = platform.kubectl("get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.name} {end}", check=False)
    containers_left = containers(engine, platform)
    apps = [container for container in containers_left if container["role"] == "app"]
    joined = {app["sandbox"] for app in apps}
    docker = lambda *arguments: engine.docker(*arguments, check=False).stdout  # noqa: E731
    apps = [app for app in apps if not armed.is_armed(app["id"], docker)]
    strays = [
        container
        for container in containers_left
        if container["role"] == "sandbox" and container["id"] not in joined and ".spare-" not in container["name"]
    ]
    assert sorted(pods.stdout.split()) == sorted(app["instance"] for app in apps)
    assert not strays
    counts = {name: sum(app["service"] == name for app in apps) for name in SERVICES}
    assert counts == SERVICES, "other instances than without load"
    return True


@pytest.mark.timeout(int(SECONDS) + 400)
def test_only_requests_inside_a_killed_part_fail_and_nothing_leaks(engine: OwnEngine, platform: Platform) -> None:
    print(f"CHAOS_SEED={SEED} CHAOS_SECONDS={SECONDS:g}")
    for name in SERVICES:
        platform.kubectl("apply", "-f", "-", stdin=manifest(name))
    for name in SERVICES:
        platform.kubectl("wait", f"ksvc/{name}", "--for=condition=Ready", "--timeout=60s")
    load = Load(platform)
    chaos = Chaos(engine, platform, load)
    with load.running():
        load.wait_until_served()
        chaos.run(SECONDS)
        load.wait_until_served()
    print(f"died: {', '.join(chaos.done)}; answered: {load.good}; failed: {len(load.failed)}")
    unexpected = [
        failure for failure in load.failed if not any(window.covers(failure) for window in chaos.failure_windows)
    ]
    assert unexpected == []
    for part in (*PROCESSES, "redis"):
        eventually_sync(lambda part=part: platform.pids(part), within=60, condition=f"{part} to be back")  # type: ignore[misc]
    eventually_sync(
        lambda: pods_are_what_docker_runs(engine, platform), within=120, condition="exactly the desired instances"
    )
    platform.kubectl("delete", "ksvc", *SERVICES)
    eventually_sync(
        lambda: all(".spare-" in container["name"] for container in containers(engine, platform)),
        within=60,
        condition="nothing left",
    )
