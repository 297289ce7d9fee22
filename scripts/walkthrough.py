"""The walkthrough: shows what Knoll does on a running platform, step by step, with each command and its output.

    python scripts/walkthrough.py [--server URL] [--gateway URL]

Each step checks what it shows; the first failure ends the walkthrough with exit code 1. It can be run repeatedly: it
first deletes the Services of an earlier run.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from math import comb
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "samples" / "rest-api-go"
SERVICE, BURST = "stock-service-example", "stock-burst"
IMAGE = "rest-api-go:v1"
CLIENT_IMAGE = "python:3.13-slim"
"""Image of the client beside the sample, whose own image has no HTTP client."""
READY_SECONDS, ZERO_SECONDS = 60, 60
BURST_REQUESTS, BURST_LIMIT = 50, 5


class StepError(Exception):
    """A check of a step failed; the message has the actual result."""


def bounds(requests: int, percent: int, beyond: float = 0.001) -> tuple[int, int]:
    """Return the bounds of the requests that a share of `percent` gets, with probability 1 - `beyond`."""
    share = percent / 100
    chance = [comb(requests, k) * share**k * (1 - share) ** (requests - k) for k in range(requests + 1)]
    low, below = 0, chance[0]
    while below <= beyond / 2:
        low += 1
        below += chance[low]
    high, above = requests, chance[requests]
    while above <= beyond / 2:
        high -= 1
        above += chance[high]
    return low, high


@dataclass
class Walkthrough:
    """A run against one platform."""

    server: str
    gateway: str
    console: Console = field(default_factory=lambda: Console(highlight=False))
    namespace: str = "default"

    def __post_init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="knoll-walkthrough-")
        self._environment = {**os.environ, "KUBECONFIG": "/dev/null", "HOME": self._scratch.name}
        self._number = 0

    def __enter__(self) -> "Walkthrough":
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    async def run(self) -> None:
        """All steps in order. Raises: StepError."""
        steps: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("Build the sample's image from its folder", self.build),
            ("Apply v1, which gets all requests", self.v1),
            ("Call a Service from a container by its cluster-local name", self.inside),
            ("Apply v2: each gets half of the requests and a tag host", self.v2),
            ("Apply v3 without traffic, reachable only by its tag host", self.v3),
            ("Shift traffic to 40 / 30 / 30", self.shift),
            ("Roll back to v1 under load", self.rollback),
            ("Scale to zero without requests", self.to_zero),
            ("Scale from zero with one request", self.from_zero),
            (f"Serve a burst of {BURST_REQUESTS} requests with containerConcurrency {BURST_LIMIT}", self.burst),
        ]
        await self.clean()
        for title, step in steps:
            self._number += 1
            self.console.rule(f"[bold]{self._number}. {title}", align="left")
            await step()
        self.console.rule("[bold green]All steps succeeded", align="left")

    async def clean(self) -> None:
        """Delete the Services of an earlier run."""
        self._kubectl("delete", "ksvc", SERVICE, BURST, "--ignore-not-found", show=False)

    async def build(self) -> None:
        self._run([sys.executable, "-m", "knoll.cli", "build", str(SAMPLE), "--tag", IMAGE, "--server", self.server],
                  shown=f"knoll build samples/rest-api-go --tag {IMAGE}")  # fmt: skip

    async def v1(self) -> None:
        self._apply("revision-v1.yaml")
        self._kubectl("get", "ksvc,configuration,revision,route")
        await self.expect({"v1": 100}, 20)

    async def inside(self) -> None:
        await self._ask(1, "")
        selector = f"serving.knative.dev/service={SERVICE}"
        pod = self._kubectl("get", "pods", "-l", selector, "-o", "jsonpath={.items[0].metadata.name}", show=False)
        filters = [f"--filter=label=knoll.dev/instance={pod}", "--filter=label=knoll.dev/role=app"]
        container = self._run(["docker", "ps", "-q", *filters], shown="").split()[0]
        host = f"{SERVICE}.{self.namespace}"
        call = f'from urllib.request import urlopen; print(urlopen("http://{host}").read().decode(), end="")'
        client = ["docker", "run", "--rm", "--network", f"container:{container}", CLIENT_IMAGE]
        if "svc.cluster.local" not in self._run([*client, "cat", "/etc/resolv.conf"], shown=""):
            self.console.print("cluster-local names are disabled here; `knoll up` printed the reason when it started")
            return
        body = self._run([*client, "python", "-c", call], shown=f"curl http://{host}     # beside {pod}")
        if body != "Welcome to the v1 app!\n":
            raise StepError(f"expected v1 at http://{host}, got {body!r}")

    async def v2(self) -> None:
        self._apply("revision-v2.yaml")
        await self.expect({"v1": 50, "v2": 50}, 200)
        await self.expect({"v1": 100}, 20, tag="v1")
        await self.expect({"v2": 100}, 20, tag="v2")

    async def v3(self) -> None:
        self._apply("revision-v3.yaml")
        self._kubectl("get", "revision", "-l", f"serving.knative.dev/service={SERVICE}")
        await self.expect({"v1": 50, "v2": 50, "v3": 0}, 200)
        await self.expect({"v3": 100}, 20, tag="v3")

    async def shift(self) -> None:
        self._apply("revision-v3-2.yaml")
        await self.expect({"v1": 40, "v2": 30, "v3": 30}, 400)

    async def rollback(self) -> None:
        traffic = [{"tag": "v1", "revisionName": f"{SERVICE}-v1", "percent": 100}]
        patch = json.dumps({"spec": {"traffic": traffic}})
        async with self._flow() as answers:
            await _until(lambda: sum(answers.values()) > 100, 30, "requests")
            self._kubectl("patch", "ksvc", SERVICE, "--type=merge", "-p", patch)
            self._wait_ready(SERVICE)
            before = sum(answers.values())
            await _until(lambda: sum(answers.values()) > before + 100, 30, "requests")
        self._show(answers, "while traffic was shifted")
        failed = sum(count for answer, count in answers.items() if not answer.startswith("v"))
        if failed:
            raise StepError(f"{failed} requests failed while traffic was shifted: {dict(answers)}")
        await self.expect({"v1": 100, "v2": 0, "v3": 0}, 50)

    async def to_zero(self) -> None:
        await self._at_zero(SERVICE)
        self._kubectl("get", "revision", "-l", f"serving.knative.dev/service={SERVICE}")

    async def from_zero(self) -> None:
        host = self._host(SERVICE)
        async with httpx.AsyncClient(timeout=60) as client:
            began = time.perf_counter()
            answer = await client.get(self.gateway, headers={"Host": host})
            took = (time.perf_counter() - began) * 1000
        self._say(f"curl -H 'Host: {host}' {self.gateway}")
        self.console.print(f"{answer.status_code} {answer.text.strip()}   [bold]{took:.0f} ms[/] from zero")
        timing = answer.headers.get("Server-Timing", "")
        if answer.status_code != 200 or not timing:
            raise StepError(f"expected 200 with Server-Timing, got {answer.status_code} with {dict(answer.headers)}")
        parts = Table("part", "ms", title="Server-Timing")
        for part, milliseconds in re.findall(r"([\w-]+);dur=([\d.]+)", timing):
            parts.add_row(part, milliseconds)
        self.console.print(parts)

    async def burst(self) -> None:
        self._apply("burst.yaml", BURST)
        await self._at_zero(BURST)
        host = self._host(BURST)
        self._say(f"{BURST_REQUESTS} concurrent requests: curl -H 'Host: {host}' '{self.gateway}/?sleep=500ms'")
        limits = httpx.Limits(max_connections=BURST_REQUESTS)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            requests = (
                client.get(f"{self.gateway}/?sleep=500ms", headers={"Host": host}) for _ in range(BURST_REQUESTS)
            )
            answers = await asyncio.gather(*requests)
        failed = [answer for answer in answers if answer.status_code != 200]
        served = Counter(answer.headers["X-Instance"] for answer in answers if answer not in failed)
        most = {name: max(int(answer.headers["X-Max-In-Flight"]) for answer in answers
                          if answer.headers.get("X-Instance") == name) for name in served}  # fmt: skip
        table = Table("instance", "requests", "most concurrent")
        for name, count in served.most_common():
            table.add_row(name, str(count), str(most[name]))
        self.console.print(table)
        if failed:
            raise StepError(f"{len(failed)} of {BURST_REQUESTS} failed: {failed[0].status_code} {failed[0].text}")
        if len(served) < 2 or max(most.values()) > BURST_LIMIT:
            raise StepError(f"expected several instances with at most {BURST_LIMIT} concurrent requests, got {most}")
        await self._at_zero(BURST)

    async def expect(self, shares: dict[str, int], requests: int, tag: str = "") -> None:
        """Send requests and compare their split with the shares, within bounds that hold with a probability of 99.9 %.

        A split outside of the bounds is measured once more, since it happens by chance in some of many runs.
        """
        for last in (False, True):
            counts = await self._ask(requests, tag)
            if self._compare(counts, shares, requests, tag):
                return
            if last:
                raise StepError(f"expected {shares} percent of {requests} requests, got {dict(counts)}")
            self.console.print("outside of the bounds, measuring once more")

    async def _ask(self, requests: int, tag: str) -> Counter[str]:
        host = self._host(SERVICE, tag)
        self._say(f"{requests} requests: curl -H 'Host: {host}' {self.gateway}")
        counts: Counter[str] = Counter()
        async with httpx.AsyncClient(timeout=60) as client:
            for _ in range(requests):
                counts[_revision_of(await client.get(self.gateway, headers={"Host": host}))] += 1
        return counts

    def _compare(self, counts: Counter[str], shares: dict[str, int], requests: int, tag: str) -> bool:
        table = Table("revision", "share", "requests", "bounds")
        held = set(counts) <= set(shares)
        for name in sorted({*shares, *counts}):
            low, high = bounds(requests, shares.get(name, 0))
            held = held and low <= counts[name] <= high
            table.add_row(name, f"{shares.get(name, 0)} %", str(counts[name]), f"{low}-{high}")
        self.console.print(table)
        return held

    def _show(self, answers: Counter[str], title: str) -> None:
        table = Table("revision", "requests", title=title)
        for name, count in sorted(answers.items()):
            table.add_row(name, str(count))
        self.console.print(table)

    @contextlib.asynccontextmanager
    async def _flow(self) -> AsyncIterator[Counter[str]]:
        """Send requests from eight clients without pauses; yields the number of answers of each revision."""
        answers: Counter[str] = Counter()
        host, stop = self._host(SERVICE), asyncio.Event()

        async def client_loop(client: httpx.AsyncClient) -> None:
            while not stop.is_set():
                try:
                    answers[_revision_of(await client.get(self.gateway, headers={"Host": host}))] += 1
                except httpx.HTTPError as error:
                    answers[f"failed: {error!r}"] += 1

        async with httpx.AsyncClient(timeout=30) as client:
            clients = [asyncio.create_task(client_loop(client)) for _ in range(8)]
            try:
                yield answers
            finally:
                stop.set()
                await asyncio.gather(*clients)

    async def _at_zero(self, service: str) -> None:
        self._say(f"waiting until {service} is at zero")
        began = time.monotonic()
        selector = f"serving.knative.dev/service={service}"

        def idle() -> bool:
            text = self._kubectl("get", "revision", "-l", selector, "-o", "json", show=False)
            return all((item.get("status") or {}).get("actualReplicas") == 0 for item in json.loads(text)["items"])

        await _until(idle, ZERO_SECONDS, f"{service} to be at zero")
        self.console.print(f"at zero after {time.monotonic() - began:.0f} s")

    def _apply(self, manifest: str, service: str = SERVICE) -> None:
        self._kubectl("apply", "-f", str(SAMPLE / manifest))
        self._wait_ready(service)

    def _wait_ready(self, service: str) -> None:
        self._kubectl("wait", f"ksvc/{service}", "--for=condition=Ready", f"--timeout={READY_SECONDS}s")

    def _host(self, service: str, tag: str = "") -> str:
        url = self._kubectl("get", "route", service, "-o", "jsonpath={.status.url}", show=False)
        host = url.partition("://")[2]
        return f"{tag}-{host}" if tag else host

    def _kubectl(self, *arguments: str, show: bool = True) -> str:
        shown = " ".join(["kubectl", *arguments]).replace(f"{ROOT}/", "")
        return self._run(["kubectl", "--server", self.server, "-n", self.namespace, *arguments], shown if show else "")

    def _run(self, command: list[str], shown: str) -> str:
        if shown:
            self._say(shown)
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, check=False)
        if shown:
            self.console.print((done.stdout or "").rstrip(), markup=False, soft_wrap=True)
        if done.returncode:
            raise StepError(f"{shown or ' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def _say(self, text: str) -> None:
        self.console.print(f"[bold cyan]$[/] {text}", soft_wrap=True)


def _revision_of(answer: httpx.Response) -> str:
    welcome = re.fullmatch(r"Welcome to the (\w+) app!\n", answer.text)
    return welcome[1] if welcome and answer.status_code == 200 else f"failed: {answer.status_code} {answer.text[:80]}"


async def _until(condition: Callable[[], bool], seconds: float, goal: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise StepError(f"waited {seconds} s in vain for {goal}")
        await asyncio.sleep(0.2)


def main() -> None:
    ports = os.environ.get("KNOLL_API_PORT", "8001"), os.environ.get("KNOLL_HTTP_PORT", "8080")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--server", default=f"http://127.0.0.1:{ports[0]}", help="Knoll's API (%(default)s)")
    parser.add_argument(
        "--gateway", default=f"http://127.0.0.1:{ports[1]}", help="the gateway for requests (%(default)s)"
    )
    chosen = parser.parse_args()
    with Walkthrough(chosen.server.rstrip("/"), chosen.gateway.rstrip("/")) as walk:
        try:
            asyncio.run(walk.run())
        except StepError as error:
            walk.console.print("[bold red]failed:[/]", end=" ")
            walk.console.print(str(error), markup=False)
            sys.exit(1)


if __name__ == "__main__":
    main()
