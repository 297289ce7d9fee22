"""What look-ups share: answers of registries, and which images were just pinned. Thread-safe."""

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future

KEPT_SECONDS = 1.0
"""How long the digest of a tag is kept: a burst of Services asks once, and the next push is noticed."""
PINNED_SECONDS = 5.0
"""How long an image counts as just pinned."""


class SharedAnswers:
    """Asks once for what several look-ups need at the same time or soon after each other."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: clock: seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: dict[Hashable, tuple[Future[str], float | None]] = {}
        """By question, the answer and until when it is kept; None while it is awaited."""
        self._pinned: dict[str, float] = {}

    def digest(self, question: Hashable, ask: Callable[[], str]) -> str:
        """Return the answer to a question. Blocks.

        Args:
            question: everything that the answer depends on.
            ask: called unless the same question is being asked, or was answered just now; its errors are not kept, and
                raised in all callers that wait.
        """
        with self._lock:
            now = self._clock()
            self._answers = {key: entry for key, entry in self._answers.items() if entry[1] is None or entry[1] > now}
            kept = self._answers.get(question)
            answer: Future[str] = kept[0] if kept else Future()
            if not kept:
                self._answers[question] = (answer, None)
        if not kept:
            try:
                answer.set_result(ask())
            except BaseException as error:
                answer.set_exception(error)
            with self._lock:
                if answer.exception() is None:
                    self._answers[question] = (answer, self._clock() + KEPT_SECONDS)
                else:
                    del self._answers[question]
        return answer.result()

    def pin(self, image_id: str, pin: Callable[[], None]) -> None:
        """Pin an image, unless that was just done. Args: pin: may be called concurrently."""
        with self._lock:
            now = self._clock()
            self._pinned = {key: until for key, until in self._pinned.items() if until > now}
            if image_id in self._pinned:
                return
        pin()
        with self._lock:
            self._pinned[image_id] = self._clock() + PINNED_SECONDS

    def forget_pins(self) -> None:
        """Called when pins may have been removed."""
        with self._lock:
            self._pinned.clear()
