"""How evenly several activators use the instances of their nodes, in a simulation of programs that use CPU."""

import math
import random
from dataclasses import dataclass, field

import pytest

from activator.backend.breaker import Breaker
from activator.backend.endpoint import UpstreamEndpoint, UpstreamPool
from activator.backend.nodes import Nodes, RemoteEndpoint, node_is_busier

STEP, SECONDS = 0.001, 6.0
SERVICE_SECONDS = 0.01
"""Mean CPU time of a request; an instance has one core, which its requests share."""


def no_http2(_: object) -> UpstreamPool:
    raise AssertionError("not used")


@dataclass
class Request:
    work: float
    view: UpstreamEndpoint
    """The instance, as the activator where it arrived sees it."""
    arrived: float


@dataclass
class Instance:
    """An instance, as its own node sees it."""

    endpoint: UpstreamEndpoint
    requests: list[Request] = field(default_factory=list)
    busy_seconds: float = 0.0

    def run(self, seconds: float) -> list[Request]:
        """Work for a time; returns the requests that ended."""
        ended: list[Request] = []
        while seconds > 1e-12 and self.requests:
            share = min(seconds / len(self.requests), min(request.work for request in self.requests))
            for request in self.requests:
                request.work -= share
            seconds -= share * len(self.requests)
            self.busy_seconds += share * len(self.requests)
            ended += [request for request in self.requests if request.work <= 1e-12]
            self.requests = [request for request in self.requests if request.work > 1e-12]
        return ended


class Cluster:
    """Activators by node, with the policies and counts of real ones; a report takes one step to arrive."""

    def __init__(self, placed: list[str], rates: dict[str, float]) -> None:
        """Args: placed: node of each instance. rates: requests per second that arrive at each node."""
        self.draw = random.Random(1)
        self.rates = rates
        self.instances = {f"i{n}": Instance(UpstreamEndpoint(f"i{n}", "", 0, 0, no_http2)) for n in range(len(placed))}
        self.breakers: dict[str, Breaker[int, UpstreamEndpoint]] = {}
        nodes = Nodes(lambda *_: False, lambda: None)
        for node in rates:
            local = [self.instances[f"i{n}"].endpoint for n, at in enumerate(placed) if at == node]
            remote = [RemoteEndpoint(nodes, "default/a", f"i{n}", at, 0) for n, at in enumerate(placed) if at != node]
            self.breakers[node] = Breaker(0, 100, self.draw.random)
            self.breakers[node].resize([*local, *remote], 0, len(local) if remote else None)
        self.latencies: list[float] = []
        self.total = self.relayed = 0
        self._reports: list[tuple[RemoteEndpoint, int]] = []

    def run(self) -> None:
        for step in range(round(SECONDS / STEP)):
            for view, count in self._reports:
                view.load_reported(count)
            self._reports = []
            if step % 1000 == 999:
                for breaker in self.breakers.values():
                    for endpoint in breaker.candidates:
                        endpoint.sweep(step * STEP)
            for node, rate in self.rates.items():
                for _ in range(self._arrivals(rate)):
                    self._arrive(node, step * STEP)
            for instance in self.instances.values():
                for request in instance.run(STEP):
                    self._leave(request, instance, step * STEP)

    def _arrivals(self, rate: float) -> int:
        count, product, bound = 0, self.draw.random(), math.exp(-rate * STEP)
        while product > bound:
            count, product = count + 1, product * self.draw.random()
        return count

    def _arrive(self, node: str, now: float) -> None:
        breaker = self.breakers[node]
        view = breaker.enter(self.total)
        assert view is not None
        instance = self.instances[view.id]
        self.total += 1
        if isinstance(view, RemoteEndpoint):
            self.relayed += 1
            instance.endpoint.in_flight += 1
            if instance.endpoint.load_is_due(node, now):
                self._reports.append((view, instance.endpoint.in_flight))
                node_is_busier(self.breakers[view.node].candidates, node, instance.endpoint.in_flight)
        instance.requests.append(Request(self.draw.expovariate(1 / SERVICE_SECONDS), view, now))

    def _leave(self, request: Request, instance: Instance, now: float) -> None:
        request.view.release_slot()
        if request.view is not instance.endpoint:
            instance.endpoint.release_slot()
        self.latencies.append(now - request.arrived)


@pytest.mark.parametrize(
    ("placed", "rates", "relayed"),
    [
        (["n1", "n2", "n3"], {"n1": 240.0, "n2": 0.0, "n3": 0.0}, (0.5, 0.7)),
        (["n1", "n2"], {"n1": 60.0, "n2": 0.0, "n3": 100.0}, (0.6, 0.8)),
        (["n1", "n2", "n3"], {"n1": 150.0, "n2": 70.0, "n3": 20.0}, (0.15, 0.35)),
        (["n1", "n2", "n3"], {"n1": 70.0, "n4": 85.0, "n5": 85.0, "n2": 0.0, "n3": 0.0}, (0.7, 0.85)),
        (["n1", "n2", "n3"], {"n1": 80.0, "n2": 80.0, "n3": 80.0}, (0.0, 0.2)),
        (["n1", "n2", "n3"], {"n1": 30.0, "n2": 0.0, "n3": 0.0}, (0.0, 0.1)),
    ],
    ids=["all arrive at one node", "a node without an instance", "skewed", "two nodes without an instance", "even",
         "few requests stay here"],
)  # fmt: skip
def test_instances_share_the_load_wherever_it_arrives(
    placed: list[str], rates: dict[str, float], relayed: tuple[float, float]
) -> None:
    cluster = Cluster(placed, rates)
    cluster.run()
    load = sum(rates.values()) * SERVICE_SECONDS / len(placed)
    mean = sum(cluster.latencies) / len(cluster.latencies)
    even = SERVICE_SECONDS / (1 - load)
    """Mean if each instance had an equal part of the requests, drawn at random."""
    assert mean < even * (0.7 if load > 0.5 else 1.0)
    assert relayed[0] <= cluster.relayed / cluster.total <= relayed[1]
