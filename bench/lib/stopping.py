"""Lets a bench clean up when a signal ends it."""

import contextlib
import signal
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Make both signals raise KeyboardInterrupt once, so that contexts and `finally` blocks run.

    Further ones are ignored: a terminal sends SIGINT to `make`, to `bench` and to the measurement that it runs, and
    each of them sends SIGTERM to the next.
    """

    def interrupt(*_: object) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [(number, signal.signal(number, interrupt)) for number in SIGNALS]
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        for number, handler in before:
            signal.signal(number, handler)
