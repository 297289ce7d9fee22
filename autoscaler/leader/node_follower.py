"""The leader's reaction when nodes are lost, return or are cordoned. Does nothing on a single machine."""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from autoscaler.instances.transitions import LifecycleState
from autoscaler.leader.node_watch import NodeWatch
from autoscaler.leader.nodes import Nodes
from autoscaler.leader.placing import Placing
from knoll.store.informer import Informer
from knoll.store.protocol import Store
from knoll.values import kinds

log = structlog.get_logger()


class NodeFollower:
    """Follows the nodes while this process leads; implements `NodeObserver`."""

    def __init__(self, nodes: Nodes, store: Store, placing: Placing, on_change: Callable[[str], None]) -> None:
        """Args: on_change: called with the Revision, `namespace/name`, of each instance that is lost with its node."""
        self._nodes, self._placing, self._on_change = nodes, placing, on_change
        self._informer = Informer(store, kinds.NODE.id)
        self._lost: frozenset[str] = frozenset()
        self.cordoned: frozenset[str] = frozenset()
        """Nodes that operators have cordoned: they get no new instance."""

    @property
    def watch(self) -> NodeWatch | None:
        """None on a single machine."""
        return self._nodes.watch

    @property
    def excluded(self) -> frozenset[str]:
        """Nodes that get no new instance: cordoned ones, and those that do not respond."""
        return self._placing.excluded

    @property
    def labels(self) -> Mapping[str, Mapping[str, str]]:
        """Labels of each node."""
        return self._placing.node_labels

    def informers(self) -> list[Informer]:
        """Return the informer of Node objects, which is run with that of Pods: a drain cordons a node and then deletes
        its Pods, which must be seen in this order. None on a single machine.
        """
        return [self._informer] if self.watch is not None else []

    async def begin(self, tasks: asyncio.TaskGroup) -> None:
        """Read which nodes respond and which are cordoned, and follow both from then on; the informer has synced."""
        watch = self._nodes.watch
        if watch is None:
            return
        self._informer.subscribe(lambda _: self._cordons_changed(self._informer))
        watch.begin(self)
        tasks.create_task(watch.run())
        await watch.synced()
        if self._nodes.claims is not None:
            tasks.create_task(self._nodes.claims.run())
            await self._nodes.claims.synced()

    def node_lost(self, node: str) -> None:
        """Withdraw its endpoints at once, and replace its instances."""
        self._lost |= {node}
        self._placing.absent -= {node}
        self._exclude()
        for instance in [each for each in self._placing.handles.values() if each.placed and each.node == node]:
            log.warning("instance lost with its node", instance=instance.name, revision=instance.revision, node=node)
            self._placing.removed(instance.name)
            self._on_change(instance.revision)

    def node_absent(self, node: str) -> None:
        """Place nothing there, and replace what is starting; the others serve, and are adopted by its next process."""
        self._placing.absent |= {node}
        self._exclude()
        here = [each for each in self._placing.handles.values() if each.placed and each.node == node]
        for instance in [each for each in here if each.state is LifecycleState.STARTING]:
            log.info("instance started elsewhere", instance=instance.name, revision=instance.revision, node=node)
            self._placing.removed(instance.name)
            self._on_change(instance.revision)

    def node_returned(self, node: str) -> None:
        """Process the reports of the node again: instances that were replaced meanwhile are removed."""
        self._lost -= {node}
        self._placing.absent -= {node}
        self._exclude()
        self._nodes.link.returned(node)

    def node_forgotten(self, node: str) -> None:
        """Remove what the node has reported."""
        self._lost -= {node}
        self._nodes.link.forget(node)

    def _cordons_changed(self, informer: Informer) -> None:
        nodes = informer.list()
        closed = (node for node in nodes if (node.get("spec") or {}).get("unschedulable"))
        self.cordoned = frozenset(node["metadata"]["name"] for node in closed)
        self._placing.node_labels = {node["metadata"]["name"]: node["metadata"].get("labels") or {} for node in nodes}
        self._exclude()

    def _exclude(self) -> None:
        self._placing.excluded = self.cordoned | self._lost | self._placing.absent
        self._nodes.link.candidates_changed()
