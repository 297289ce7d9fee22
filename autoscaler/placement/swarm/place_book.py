"""Which places exist, which instance has which, and which are to be created and removed. Pure.

A place is a service with one task, on the node to which Swarm assigned the task. Places of one size are
interchangeable: an instance takes a free one at once, and releases it when it ends. If there is none, a place is
created for the instance.

- Free places without resource requests are created ahead of demand, so that a cold start does not wait for Swarm.
- Free places with resource requests are kept for a while; they are removed first when another instance does not fit.
- An instance without requests fits on every node. While Swarm does not decide, because its managers elect a leader, it
  is bound here, and its place is created afterwards.
- A new leader reads from the engine which places exist, and from the nodes which instances run. A place that no
  instance claims is free, whatever it was created for, and expires like any other.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from autoscaler.placement.protocol import Constraints
from autoscaler.placement.swarm import reasons
from autoscaler.placement.swarm.balance import moves
from autoscaler.placement.swarm.model import Cluster, SwarmService, SwarmTask
from autoscaler.placement.swarm.place_queue import Waiting, in_turn, reserved_on
from autoscaler.placement.swarm.places import (
    PLACED,
    Claim,
    Place,
    PlaceOptions,
    PlacePlan,
    PlaceState,
    target_of,
)
from autoscaler.placement.swarm.services import EMPTY, PlaceSize, node_constraints

RETRY_SECONDS = 1.0
"""Delay before a place that was lost or refused is requested again."""
SUSPECT_SECONDS = 30.0
"""How long a machine that failed to run a place gets no other one."""


class PlaceBook:
    """All places of a platform, and all instances that have or need one. Times are seconds on any monotonic clock."""

    def __init__(self, options: PlaceOptions, new_name: Callable[[], str]) -> None:
        """Args: new_name: returns a name for a service, a new one each time."""
        self.cluster = Cluster()
        self.excluded: frozenset[str] = frozenset()
        """Nodes that get no new place, according to the newest call of `place`."""
        self.bound: list[tuple[str, str]] = []
        """New bindings, as instance and node; the caller removes them."""
        self.swarm_decides = True
        """False while no manager responds."""
        self._options, self._new_name = options, new_name
        self._places: dict[str, Place] = {}
        """By name, oldest first."""
        self._claims: dict[str, Claim] = {}
        """By instance, oldest first."""
        self._removals: set[str] = set()
        """Services to remove."""
        self._dropped: set[str] = set()
        """Names of services that are being created and are not needed any more."""
        self._suspects: dict[str, float] = {}
        """Machine that failed to run a place to the time until which it gets no other one."""
        self._synced = False

    # Instances

    def restore(self, instance: str, node: str, size: PlaceSize) -> None:
        """Record an instance that a node runs; `plan` gives it a free place, or has one created."""
        self._claims.setdefault(instance, Claim(size, Constraints(node=node), node))

    def place(self, instance: str, size: PlaceSize, constraints: Constraints, namespace: str = "") -> None:
        """Find a place for an instance; `bound` contains it at once if that needs no call to Swarm."""
        self.excluded = constraints.excluded
        claim = self._claims.setdefault(instance, Claim(size, constraints, namespace=namespace))
        if claim.node is not None:
            return
        claim.constraints = constraints
        if place := self._free(claim):
            self._take(instance, claim, place)
        elif node := self._node_without_decision(claim):
            if claim.place is not None:
                self._discard(claim.place)
            self._bind(instance, claim, node)
        elif claim.place is None:
            claim.place = self._new(size, instance=instance)

    def withdraw(self, instance: str, now: float) -> None:
        """Release the place of an instance that has ended, or no longer needs one."""
        claim = self._claims.pop(instance, None)
        self.bound = [binding for binding in self.bound if binding[0] != instance]
        if claim is None or claim.place is None:
            return
        place = claim.place
        if place.state not in PLACED:
            self._discard(place)
            return
        place.instance, place.free_since = "", now
        self._serve(place)

    def problem(self, instance: str) -> str:
        """Return why an instance has no node; empty when it has one, or there is no problem yet."""
        claim = self._claims.get(instance)
        if claim is None or claim.node is not None or not self._synced:
            return ""
        waits = claim.place is not None and (claim.place.state is PlaceState.WAITING or claim.place.held)
        if waits or not self._allowed(claim):
            return reasons.explain(self.cluster, claim.size, claim.constraints, reserved_on(self._places.values()))
        return claim.place.error if claim.place else ""

    def unbound(self) -> list[str]:
        """Return the instances without a node."""
        return [name for name, claim in self._claims.items() if claim.node is None]

    # The Swarm

    def created(self, name: str, service: str) -> None:
        """Record that a service was created, or exists."""
        place = self._places.get(name)
        if place is not None:
            place.service, place.error = service, ""
            if place.state is PlaceState.QUEUED:
                place.state = PlaceState.REQUESTED
        else:
            self._dropped.discard(name)
            self._removals.add(service)

    def refused(self, name: str, error: str, now: float) -> None:
        """Record that a service was not created. Args: error: why; empty if the service itself was not the reason."""
        self._dropped.discard(name)
        if place := self._places.get(name):
            place.state, place.error, place.retry_at = PlaceState.QUEUED, error, now + RETRY_SECONDS

    def removed(self, service: str) -> None:
        """Record that a service was removed."""
        self._removals.discard(service)

    def services(self) -> frozenset[str]:
        """Return the ids of all services of places."""
        return frozenset(place.service for place in self._places.values() if place.service)

    def undecided(self, *states: PlaceState) -> list[str]:
        """Return the ids of the services of places in these states."""
        return [place.service for place in self._places.values() if place.service and place.state in states]

    def sync(
        self, services: Iterable[SwarmService], tasks: Sequence[SwarmTask], before: frozenset[str], now: float
    ) -> None:
        """Compare with all services and tasks of the platform.

        Args: before: `services()` when the lists were requested.
        """
        listed = {service.id: service for service in services}
        by_id = {place.service: place for place in self._places.values() if place.service}
        for service in listed.values():
            if service.id in by_id or service.id in self._removals:
                continue
            if service.name in self._places or service.name in self._dropped:
                self.created(service.name, service.id)
                continue
            size = PlaceSize(service.nano_cpus, service.memory_bytes)
            self._places[service.name] = Place(
                service.name, size, state=PlaceState.REQUESTED, service=service.id, free_since=now
            )
        for gone in before - listed.keys():
            if gone in by_id:
                self._lost(by_id[gone], now)
        self.observe(tasks, now)
        for place in list(self._places.values()):
            # An earlier leader requested it for an instance that it had not bound yet.
            if not place.instance and place.service in listed and place.state is PlaceState.WAITING:
                self._discard(place)
        self._synced = True

    def observe(self, tasks: Iterable[SwarmTask], now: float) -> None:
        """Apply the states of some or all tasks."""
        by_service: dict[str, SwarmTask] = {}
        for task in tasks:
            if task.service not in by_service or by_service[task.service].ended:
                by_service[task.service] = task
        for place in list(self._places.values()):
            task_of_place = by_service.get(place.service)
            if task_of_place and place.name in self._places:  # one before it may have replaced it
                self._observe(place, task_of_place, now)

    def plan(self, now: float) -> PlacePlan:
        """Return what is to be done now; the places to create count as REQUESTED from now on."""
        if not self._synced:
            return PlacePlan()
        self._suspects = {machine: until for machine, until in self._suspects.items() if until > now}
        self._settle(now)
        self._expire(now)
        self._make_ahead(now)
        self._balance(now)
        return PlacePlan(self._to_create(now), sorted(self._removals))

    def has_removals(self) -> bool:
        """Return whether services are to be removed."""
        return bool(self._removals)

    def is_blocked(self) -> bool:
        """Return whether places are queued."""
        return any(place.state is PlaceState.QUEUED for place in self._places.values())

    # Claims

    def _node_without_decision(self, claim: Claim) -> str:
        """Return a node for an instance whose place can be created afterwards; empty if Swarm has to choose it.

        That is its only node or, while Swarm does not decide, the node with the fewest instances.
        """
        node = claim.constraints.node
        if not claim.size.is_empty or (node is None and self.swarm_decides):
            return ""
        allowed = [name for name in self.cluster.names if _may_have(claim.constraints, name)]
        if node is None:
            allowed = [name for name in allowed if self.cluster.is_active(name)]
        counts = Counter(each.node for each in self._claims.values())
        return min(allowed, key=lambda name: (counts[name], name), default="")

    def _free(self, claim: Claim) -> Place | None:
        """Return the best free place for an instance.

        That is one on a node with few instances of its Revision, on the node that it prefers, or where most are free.
        """
        fitting = [place for place in self._places.values() if not place.instance and self._fits(place, claim)]
        if not fitting:
            return None
        free = Counter(place.machine for place in fitting)
        preferred = self.cluster.names.get(claim.constraints.preferred or "", "")
        siblings = {self.cluster.names.get(name, ""): count for name, count in claim.constraints.instances.items()}

        def order(place: Place) -> tuple[int, bool, int, str]:
            machine = place.machine
            return siblings.get(machine, 0), machine != preferred, -free[machine], machine

        return min(fitting, key=order)

    def _fits(self, place: Place, claim: Claim) -> bool:
        if place.state not in PLACED or place.size != claim.size:
            return False
        node = self.cluster.name_of(place.machine)
        return bool(node) and _may_have(claim.constraints, node)

    def _serve(self, place: Place) -> None:
        """Give a place that has become free to the instance that has waited longest for one like it."""
        for instance, claim in self._claims.items():
            if claim.node is None and self._fits(place, claim):
                self._take(instance, claim, place)
                return

    def _take(self, instance: str, claim: Claim, place: Place) -> None:
        if claim.place is not None and claim.place is not place:
            self._discard(claim.place)
        place.instance, claim.place = instance, place
        if claim.node is None:
            self._bind(instance, claim, self.cluster.name_of(place.machine))

    def _bind(self, instance: str, claim: Claim, node: str) -> None:
        claim.node = node
        self.bound.append((instance, node))

    # Places

    def _new(self, size: PlaceSize, instance: str = "", retry_at: float = 0.0) -> Place:
        claim = self._claims.get(instance)
        namespace = claim.namespace if claim is not None else ""
        place = Place(self._new_name(), size, instance, retry_at=retry_at, namespace=namespace)
        self._places[place.name] = place
        return place

    def _discard(self, place: Place) -> None:
        """Remove a place, and its service if it has one."""
        del self._places[place.name]
        if place.service:
            self._removals.add(place.service)
        elif place.state is not PlaceState.QUEUED:
            self._dropped.add(place.name)
        claim = self._claims.get(place.instance)
        if claim is not None and claim.place is place:
            claim.place = None

    def _observe(self, place: Place, task: SwarmTask, now: float) -> None:
        if task.ended:
            if task.node and place.state is not PlaceState.RUNNING:
                self._suspects[task.node] = now + SUSPECT_SECONDS
            self._lost(place, now)
        elif task.node:
            place.machine = task.node
            place.state = PlaceState.RUNNING if task.state == "running" else PlaceState.STARTING
            claim = self._claims.get(place.instance)
            if claim is None:
                self._serve(place)
            elif claim.node is None and self._fits(place, claim):
                self._take(place.instance, claim, place)
            elif claim.node is None:  # its node is excluded by now, or does not belong to the platform
                self._lost(place, now)
        else:
            place.state = PlaceState.WAITING if task.error else PlaceState.REQUESTED

    def _lost(self, place: Place, now: float) -> None:
        """Replace a place that no longer exists; an instance that is bound keeps its node."""
        instance = place.instance
        self._discard(place)
        if claim := self._claims.get(instance):
            claim.place = self._new(place.size, instance, retry_at=now + RETRY_SECONDS)

    def _settle(self, now: float) -> None:
        """Find places for the instances that are bound and have none."""
        for instance, claim in self._claims.items():
            if claim.node is None or (claim.place and claim.place.state in PLACED):
                continue
            own = Claim(claim.size, Constraints(node=claim.node))
            if place := self._free(own):
                self._take(instance, claim, place)
            elif claim.place is None:
                claim.place = self._new(claim.size, instance)

    def _expire(self, now: float) -> None:
        """Discard free places that have expired, or whose capacity another instance needs."""
        free = [place for place in self._places.values() if not place.instance and place.state in PLACED]
        ahead = [place for place in free if place.size.is_empty and self._is_usable(place)][: self._options.ahead]
        short = any(self._lacks_room(claim) for claim in self._claims.values())
        for place in free:
            in_the_way = short and not place.size.is_empty
            outdated = place not in ahead and now - place.free_since >= self._options.keep_seconds
            if in_the_way or outdated or self.cluster.name_of(place.machine) == "":
                self._discard(place)
        for claim in self._claims.values():
            if claim.place and claim.place.state is PlaceState.WAITING and self._is_outdated(claim, claim.place):
                self._lost(claim.place, now - RETRY_SECONDS)

    def _is_outdated(self, claim: Claim, place: Place) -> bool:
        """Return whether the machines that are allowed for a place have changed since it was requested."""
        allowed = self._allowed(claim)
        return bool(allowed) and place.constraints != node_constraints(allowed, self.cluster.machines)

    def _lacks_room(self, claim: Claim) -> bool:
        """Return whether an instance waits for capacity that others have reserved."""
        waits = claim.node is None and claim.place is not None and claim.place.state is PlaceState.WAITING
        return waits and not reasons.is_impossible(self.cluster, claim.size, claim.constraints)

    def _make_ahead(self, now: float) -> None:
        usable = [
            place
            for place in self._places.values()
            if not place.instance and place.size.is_empty and self._is_usable(place)
        ]
        if any(
            self.cluster.takes_tasks(name) and self.cluster.names[name] not in self._suspects
            for name in self.cluster.names.keys() - self.excluded
        ):
            for _ in range(self._options.ahead - len(usable)):
                self._new(EMPTY).free_since = now

    def _balance(self, now: float) -> None:
        machines = [
            machine
            for name, machine in self.cluster.names.items()
            if name not in self.excluded and self.cluster.takes_tasks(name) and machine not in self._suspects
        ]
        for place, machine in moves(list(self._places.values()), machines, now):
            self._discard(place)
            replacement = self._new(EMPTY)
            replacement.only, replacement.free_since = machine, now

    def _is_usable(self, place: Place) -> bool:
        return place.state not in PLACED or self.cluster.name_of(place.machine) not in self.excluded

    def _to_create(self, now: float) -> list[Place]:
        """Return the queued places to create now, those of instances first."""
        busy = [place for place in self._places.values() if place.state in (PlaceState.REQUESTED, PlaceState.STARTING)]
        ready = sum(self.cluster.takes_tasks(name) for name in self.cluster.names)
        room_in_all = self._options.per_node * max(1, ready)
        room = room_in_all - len(busy) - len(self._dropped)
        on_machine = Counter(target_of(place) for place in busy)
        waiting = Waiting(self.cluster, list(self._places.values()), room_in_all)
        create: list[Place] = []
        for place in in_turn(self._places.values(), now):
            if len(create) >= room:
                break
            allowed = self._allowed(self._claims.get(place.instance) or Claim(place.size, self._anywhere))
            if place.only in allowed:
                allowed = [place.only]
            if not allowed:
                continue
            place.constraints = node_constraints(allowed, self.cluster.machines)
            place.held = waiting.holds(place, allowed)
            if place.held:
                continue
            if on_machine[target := target_of(place)] >= self._options.per_node and target:
                continue
            on_machine[target] += 1
            place.state = PlaceState.REQUESTED
            create.append(place)
        return create

    @property
    def _anywhere(self) -> Constraints:
        return Constraints(excluded=self.excluded)

    def _allowed(self, claim: Claim) -> list[str]:
        """Return the ids of the machines that may have an instance's place.

        Those that failed are among them only if there is no other.
        """
        if claim.node is not None:
            machine = self.cluster.names.get(claim.node, "")
            return [machine] if machine in self.cluster.machines else []
        allowed = [
            machine
            for name, machine in self.cluster.names.items()
            if _may_have(claim.constraints, name) and machine in self.cluster.machines
        ]
        return [machine for machine in allowed if machine not in self._suspects] or allowed


def _may_have(constraints: Constraints, node: str) -> bool:
    """Return whether constraints allow a node."""
    return node not in constraints.excluded | constraints.unsuitable and constraints.node in (None, node)
