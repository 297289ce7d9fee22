"""Follows the logs of all instances of a Service, including later ones."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from knoll.cli.client import ApiClient
from knoll.values import kinds, labels
from knoll.values.errors import ForbiddenError, KnollError, UnauthorizedError

APP = "user-container"
WATCH_RETRY_SECONDS = 1.0
"""Pause before an ended watch is started again."""


class LogFollower:
    """Follows the logs of a Service in threads that end with the process."""

    def __init__(self, client: ApiClient, namespace: str, name: str, on_line: Callable[[str, str], None]) -> None:
        """Args: on_line: called with the Pod's name and a line; never by two threads at once."""
        self._client = client
        self._namespace = namespace
        self._selector = f"{labels.SERVICE}={name}"
        self._on_line = on_line
        self._lock = threading.Lock()
        self._followed: set[str] = set()

    def start(self, tail: int) -> None:
        """Follow in a background thread. Args: tail: number of past lines per instance."""
        threading.Thread(target=self._in_background, args=[tail], daemon=True).start()

    def run(self, tail: int) -> None:
        """Follow in this thread until interrupted.

        Raises: UnauthorizedError, ForbiddenError: the user may not (or no longer) watch Pods here.
        """
        self._watch(tail)

    def _in_background(self, tail: int) -> None:
        try:
            self._watch(tail)
        except KnollError as error:
            self._on_line("logs", f"cannot be followed: {error}")

    def _watch(self, tail: int) -> None:
        pause = threading.Event()
        while True:
            try:
                for event in self._client.watch(kinds.POD, self._namespace, self._selector):
                    self._see(event["object"], tail)
            except (ForbiddenError, UnauthorizedError):
                raise
            except KnollError:
                pass  # the API restarts; watch again
            pause.wait(WATCH_RETRY_SECONDS)

    def _see(self, pod: dict[str, Any], tail: int) -> None:
        name = pod["metadata"]["name"]
        statuses = pod.get("status", {}).get("containerStatuses", [])
        states = {status["name"]: status.get("state", {}) for status in statuses}
        if name in self._followed or not any(state in states.get(APP, {}) for state in ("running", "terminated")):
            return
        self._followed.add(name)
        threading.Thread(target=self._read, args=[name, tail], daemon=True).start()

    def _read(self, pod: str, tail: int) -> None:
        with suppress(KnollError):  # the Pod was deleted after its event
            for line in self._client.pod_log(self._namespace, pod, APP, follow=True, tail=tail):
                with self._lock:
                    self._on_line(pod, line)
