"""What a build prints: kept as its log, and read for how far it is."""

import time

import msgspec

from knoll.builds.build_log import BuildLogWriter
from knoll.builds.progress import Steps
from knoll.messages.builds import BuildProgress
from knoll.tables.protocol import Table

EVERY_SECONDS = 1.0
"""Between two words about the step at work: each becomes a write of the Build's status."""


class ProgressReporter:
    """Takes the lines of one build."""

    def __init__(self, log: BuildLogWriter, progress: Table[BuildProgress], field: str, running: BuildProgress) -> None:
        """Args: field: of the Build in the table. running: its entry while it runs."""
        self._log = log
        self._progress = progress
        self._field = field
        self._running = running
        self._steps = Steps()
        self._told = ("", 0.0)

    async def begin(self) -> None:
        await self._log.begin()

    async def line(self, text: str) -> None:
        """Take one line, without its newline."""
        await self._log.line(text)
        self._steps.read(text)
        words, (told, at) = self._steps.words, self._told
        if words != told and time.monotonic() - at >= EVERY_SECONDS:
            self._told = (words, time.monotonic())
            await self._progress.put(self._field, msgspec.structs.replace(self._running, step=words))

    async def end(self) -> None:
        await self._log.end()
