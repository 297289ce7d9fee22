"""The current state of one instance, and waiting for another one. The rules are in `transitions`."""

import asyncio
from collections.abc import Callable, Collection

from autoscaler.instances.transitions import Command, LifecycleState, Observation, next_state


class Lifecycle:
    """The state of one instance."""

    def __init__(self, state: LifecycleState, on_change: Callable[[], None]) -> None:
        """
        Args:
            state: initial state.
            on_change: called after each transition to another state.
        """
        self.state = state
        self._on_change = on_change
        self._changed = asyncio.Event()

    def apply(self, event: Command | Observation) -> None:
        """Move to the next state.

        Raises:
            IllegalTransitionError: the state does not allow the command.
        """
        following = next_state(self.state, event)
        if following is self.state:
            return
        self.state = following
        self._changed.set()
        self._changed = asyncio.Event()
        self.notify()

    def notify(self) -> None:
        """Report a change, of the state or of anything else that users are shown."""
        self._on_change()

    async def reached(self, states: Collection[LifecycleState]) -> LifecycleState:
        """Wait until the state is one of `states`."""
        while self.state not in states:
            await self._changed.wait()
        return self.state
