"""What all instances of a Service write, those that come later too."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from knoll.cli.client import ApiClient
from knoll.values import kinds, labels
from knoll.values.errors import ForbiddenError, KnollError, UnauthorizedError

APP = "user-container"
RETRY_SECONDS = 1.0


class LogFollower:
    """Follows the logs of a Service in threads that end with the process."""

    def __init__(self, client: ApiClient, namespace: str, name: str, on_line: Callable[[str, str], None]) -> None:
        """Args: on_line: called with the Pod's name and a line; never by two threads at once."""
        self._client = client
        self._namespace = namespace
        self._selector = f"{labels.SERVICE}={name}"
        self._on_line = on_line
        self._lock = threading.Lock()
        self._known: set[str] = set()

    def start(self, tail: int) -> None:
        """Begin, in the background. Args: tail: lines of what each instance wrote before."""
        threading.Thread(target=self._in_background, args=[tail], daemon=True).start()

    def run(self, tail: int) -> None:
        """The same in this thread, until it is interrupted.

        Raises: UnauthorizedError, ForbiddenError: the user may not see Pods here (any more).
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
                pass  # the API starts again: so do we
            pause.wait(RETRY_SECONDS)

    def _see(self, pod: dict[str, Any], tail: int) -> None:
        name = pod["metadata"]["name"]
        states = {one["name"]: one.get("state", {}) for one in pod.get("status", {}).get("containerStatuses", [])}
        if name in self._known or not any(word in states.get(APP, {}) for word in ("running", "terminated")):
            return
        self._known.add(name)
        threading.Thread(target=self._read, args=[name, tail], daemon=True).start()

    def _read(self, pod: str, tail: int) -> None:
        with suppress(KnollError):  # it went away between its event and our question
            for line in self._client.pod_log(self._namespace, pod, APP, follow=True, tail=tail):
                with self._lock:
                    self._on_line(pod, line)
