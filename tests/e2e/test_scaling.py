"""Never too few, never too many: bursts, new revisions under load, and the reported reasons; on the real engine."""

import asyncio
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.platform import Platform
from tests.waiting import eventually, eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

HERE = Path(__file__).parent
WINDOW = 6
QUICK = {"autoscaling.knative.dev/window": f"{WINDOW}s"}
TARGET = 7.0
"""Of ten requests at once that an instance takes, 70 percent."""


@dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    at: float
    """Epoch seconds at which it was there."""
    cold: bool
    """It waited for an instance to start."""
    revision: str = ""
    instance: str = ""
    began: float = 0.0
    """Epoch seconds at which the instance's process began."""


@pytest.fixture(scope="module")
def worker(platform: Platform) -> str:
    """The image of the app that works for as long as it is asked to."""
    command = [sys.executable, "-m", "knoll.cli", "build", str(HERE / "worker"), "--tag", "worker:v1"]
    done = subprocess.run([*command, "--server", platform.api], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return "worker:v1"


@pytest.fixture
def services(platform: Platform) -> Iterator[list[str]]:
    """Names of what a test applied; deleted at its end."""
    names: list[str] = []
    yield names
    for name in names:
        platform.kubectl("delete", "ksvc", name, check=False)
        eventually_sync(lambda name=name: not instances(platform, name), within=60, condition="no instance")  # type: ignore[misc]


def apply(
    platform: Platform,
    name: str,
    image: str,
    annotations: dict[str, str] | None = None,
    on_service: dict[str, str] | None = None,
    **env: str,
) -> None:
    variables = [{"name": key, "value": value} for key, value in env.items()]
    template = {
        "metadata": {"annotations": {**QUICK, **(annotations or {})}},
        "spec": {"containerConcurrency": 10, "containers": [{"image": image, "env": variables}]},
    }
    meta = {"name": name, "annotations": on_service or {}}
    body = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": meta, "spec": {"template": template}}
    platform.kubectl("apply", "-f", "-", stdin=json.dumps(body))


def instances(platform: Platform, name: str) -> list[str]:
    return platform.containers("label=knoll.dev/role=app", f"label=serving.knative.dev/service={name}")


def explained(platform: Platform, name: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "knoll.cli", "explain", name, "--server", platform.api, "-o", "json"]
    done = subprocess.run([*command, "--last", "10"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    body: list[dict[str, Any]] = json.loads(done.stdout)
    return body


async def ask(client: httpx.AsyncClient, name: str, milliseconds: int) -> Answer:
    got = await client.get("/", params={"ms": milliseconds}, headers={"Host": f"{name}.default.localhost"})
    revision, instance, began = got.text.split() if got.text.startswith(name) else ("", "", "0")
    return Answer(got.status_code, time.time(), "Server-Timing" in got.headers, revision, instance, float(began))


def client_of(platform: Platform, connections: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(base_url=platform.gateway, timeout=120, limits=limits)


@pytest.mark.timeout(300)
def test_a_burst_from_zero_is_answered_by_the_desired_instances_which_are_removed_in_time(
    platform: Platform, worker: str, services: list[str]
) -> None:
    services.append("burst")
    apply(platform, "burst", worker)
    platform.kubectl("wait", "ksvc/burst", "--for=condition=Ready", "--timeout=60s")
    eventually_sync(lambda: not instances(platform, "burst"), within=60, condition="zero")

    async def burst() -> list[Answer]:
        async with client_of(platform, 200) as client:
            return await asyncio.gather(*(ask(client, "burst", 300) for _ in range(200)))

    answers = asyncio.run(burst())
    assert [answer.status for answer in answers] == [200] * 200
    most = math.ceil(200 / TARGET)
    assert 1 <= len({answer.instance for answer in answers}) <= most
    eventually_sync(lambda: not instances(platform, "burst"), within=90, condition="zero again")
    (explanation,) = explained(platform, "burst")
    decisions = [decision for decision in explanation["decisions"] if time.time() - 600 < seconds(decision["time"])]
    assert max(decision["desiredScale"] for decision in decisions) <= most
    assert decisions[-1]["desiredScale"] == 0
    # Idle for a stable window, and no instance goes before that (times are told in whole seconds).
    assert seconds(decisions[-1]["time"]) >= max(answer.at for answer in answers) + WINDOW - 1.0
    pods = platform.kubectl("get", "events", "-o", "json").stdout
    scaled = [item for item in json.loads(pods)["items"] if item["reason"] == "Scaled"]
    mine = [event["message"] for event in scaled if event["involvedObject"]["name"] == "burst-00001"]
    assert any(re.match(r"Scaled from \d+ to \d+ instances: desired \d+ \(panic\)", message) for message in mine), mine


def seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


@pytest.mark.timeout(300)
def test_a_new_revision_has_its_instances_before_its_first_request(
    platform: Platform, worker: str, services: list[str]
) -> None:
    services.append("rolling")
    apply(platform, "rolling", worker)
    platform.kubectl("wait", "ksvc/rolling", "--for=condition=Ready", "--timeout=60s")
    answers: list[Answer] = []
    began: list[float] = []
    """When the new revision was applied."""

    async def load(client: httpx.AsyncClient, until: asyncio.Event) -> None:
        while not until.is_set():
            # Long compared with the client's time for each request: otherwise fewer than 20 would be in flight at once.
            answers.append(await ask(client, "rolling", 1000))

    async def reached(revision_name: str) -> None:
        """Wait until requests are answered by that revision alone."""

        def is_so() -> bool:
            return len(answers) > 50 and {answer.revision for answer in answers[-50:]} == {revision_name}

        await eventually(is_so, within=120, condition=f"all answers are of {revision_name}")

    async def roll() -> None:
        until = asyncio.Event()
        async with client_of(platform, 20) as client, asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(load(client, until))
            try:
                await reached("rolling-00001")
                await asyncio.to_thread(grown, platform)
                began.append(time.time())
                await asyncio.to_thread(apply, platform, "rolling", worker, None, None, VERSION="2")
                await reached("rolling-00002")
            finally:
                until.set()

    asyncio.run(roll())
    assert {answer.status for answer in answers} == {200}
    second = [answer for answer in answers if answer.revision == "rolling-00002"]
    assert not [answer for answer in second if answer.cold]
    first_answer = min(answer.at for answer in second)
    early = {answer.instance for answer in second if answer.began < first_answer}
    # The first revision's decisions show what the load required: a busy client sends fewer than 20 at once.
    (first,) = [each for each in explained(platform, "rolling") if each["revision"] == "rolling-00001"]
    decided = [(seconds(each["time"]), each["desiredScale"]) for each in first["decisions"]]
    at_first = [desired for at, desired in decided if at <= began[0]][-1:]
    required = min(at_first + [desired for at, desired in decided if began[0] < at <= first_answer])
    assert required >= 2
    assert len(early) >= required, explained(platform, "rolling")
    platform.kubectl("wait", "ksvc/rolling", "--for=condition=Ready", "--timeout=60s")


def grown(platform: Platform) -> None:
    """Wait until the first revision has what 20 requests at once want."""
    eventually_sync(lambda: len(instances(platform, "rolling")) >= 3, within=60, condition="three instances")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "broken", "says"),
    [
        ("failing", {"FAIL": "500"}, r"100\.0 % of \d+ requests failed, compared with 0\.0 % of \d+ of failing-00001"),
        ("slower", {"SLOW": "300"}, r"p95 is \d+ ms over \d+ requests, compared with \d+ ms over \d+ of slower-00001"),
    ],
)
def test_a_new_revision_that_does_worse_loses_its_traffic_again(
    platform: Platform, worker: str, services: list[str], name: str, broken: dict[str, str], says: str
) -> None:
    services.append(name)
    policy = {"knoll.dev/rollback-on": "error-rate>5%, p95>3x, requests>=20, window=60s"}
    gradual = {"serving.knative.dev/rollout-duration": "40s"}
    apply(platform, name, worker, policy, gradual)
    platform.kubectl("wait", f"ksvc/{name}", "--for=condition=Ready", "--timeout=60s")
    answers: list[Answer] = []

    async def load(client: httpx.AsyncClient, until: asyncio.Event) -> None:
        while not until.is_set():
            answers.append(await ask(client, name, 20))

    def fell() -> str:
        arguments = ("get", "ksvc", name, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].message}")
        message = platform.kubectl(*arguments).stdout
        return message if "was rolled back" in message else ""

    async def roll() -> str:
        until = asyncio.Event()
        async with client_of(platform, 10) as client, asyncio.TaskGroup() as tasks:
            for _ in range(10):
                tasks.create_task(load(client, until))
            try:
                await eventually(lambda: len(answers) > 200, within=60, condition="some requests")
                await asyncio.to_thread(apply, platform, name, worker, policy, gradual, **broken)
                why = await eventually(lambda: asyncio.to_thread(fell), within=90, condition="the rollback")
                there = len(answers)
                await eventually(lambda: len(answers) > there + 300, within=60, condition="requests after it")
                return why
            finally:
                until.set()

    why = asyncio.run(roll())
    assert re.search(f"Traffic was rolled back from {name}-00002 to {name}-00001: {says}", why), why
    assert {answer.revision for answer in answers[-200:]} == {f"{name}-00001"}
    # It fell while its share was small: few users met it.
    assert len([answer for answer in answers if answer.revision == f"{name}-00002"]) < len(answers) / 2
    traffic = platform.kubectl("get", "ksvc", name, "-o", "jsonpath={.status.traffic[*].revisionName}").stdout
    assert traffic == f"{name}-00001"
    events = json.loads(platform.kubectl("get", "events", "-o", "json").stdout)["items"]
    (event,) = [
        event for event in events if event["reason"] == "RolledBack" and event["involvedObject"]["name"] == name
    ]
    assert event["type"] == "Warning"
    assert re.search(says, event["message"])
