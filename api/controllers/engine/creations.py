"""Creates objects that have the status of their own first reconciliation from the beginning. Decides nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeGuard

from api.controllers.engine import dispatch, status_writes
from api.controllers.engine.cluster_state import ClusterState
from api.controllers.engine.executor import Executor
from api.controllers.engine.metrics import ControllerMetrics
from api.controllers.engine.work_queue import WorkQueue
from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import Action, Create, Emit, ObjectKey, ReconcileResult
from knoll.values.errors import KnollError

Step = tuple[ObjectKey, ReconcileResult]
"""An object, and what its reconciliation returned."""


def created_with_status(action: Action) -> TypeGuard[Create]:
    """Whether an action creates an object of such a kind."""
    return isinstance(action, Create) and action.resource in status_writes.CREATED_WITH_STATUS


def are_independent(actions: Sequence[Action]) -> bool:
    """Whether the actions are creations of such objects and Events about them: none waits for another one's result."""
    return all(isinstance(action, Emit) or created_with_status(action) for action in actions)


class Creations:
    """Creates objects in one round trip, each with its first status."""

    def __init__(
        self,
        state: ClusterState,
        queue: WorkQueue,
        executor: Executor,
        metrics: ControllerMetrics,
        clock: Callable[[], float],
    ) -> None:
        """Args: clock: returns epoch seconds."""
        self._state, self._queue, self._executor = state, queue, executor
        self._metrics, self._clock = metrics, clock

    async def create(
        self, key: ObjectKey, actions: Sequence[Create], steps: list[Step], children: set[ObjectKey]
    ) -> list[KnollError | None]:
        """Create objects.

        Args:
            key: the object whose reconciliation returned the actions.
            steps: gets the rest of the first reconciliations of the objects that were created.
            children: gets their keys, which the queue holds until the caller releases them.

        Returns: for each action its error, if it failed.
        """
        with self._state.cache.including() as include:
            planned = []
            for action in actions:
                child, body = objects.key_of(action.resource, action.body), action.body
                first, new = None, body
                if self._queue.hold(child):
                    children.add(child)
                    new = objects.with_identity(body, self._clock())
                    self._metrics.reconciled(child[0])
                    first = dispatch.decide_on(child[0], new, self._state, self._clock())
                    body, others = status_writes.with_first_status(new, first.actions)
                    first = replace(first, actions=others)
                    include(child, body)
                planned.append((child, new, Create(action.resource, body), first))
        errors = await self._executor.create_all(
            [(create, (key,) if first is None else (key, child)) for child, _, create, first in planned]
        )
        for (child, new, create, first), error in zip(planned, errors, strict=True):
            if error is None and first is not None:
                stored = self._state.cache.get(*child) or create.body
                steps.append((child, replace(first, actions=status_writes.about_stored(first.actions, new, stored))))
        return errors
