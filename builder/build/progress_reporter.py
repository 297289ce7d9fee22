"""The output of a build: written to its log, and read for its progress."""

import time

import msgspec

from knoll.builds.build_log import BuildLogWriter
from knoll.builds.progress import Steps
from knoll.messages.builds import BuildProgress
from knoll.tables.protocol import Table

REPORT_SECONDS = 1.0
"""Shortest interval between two reports of the current step: each report is a write of the Build's status."""


class ProgressReporter:
    """Receives the output of one build."""

    def __init__(self, log: BuildLogWriter, progress: Table[BuildProgress], field: str, running: BuildProgress) -> None:
        """Args: field: of the Build in the table. running: its progress at the start."""
        self._log = log
        self._progress = progress
        self._field = field
        self._running = running
        self._steps = Steps()
        self._reported = ("", 0.0)
        """The step that was last reported, and the monotonic time of that report."""

    async def begin(self) -> None:
        await self._log.begin()

    async def line(self, text: str) -> None:
        """Receive one line, without its newline."""
        await self._log.line(text)
        self._steps.read(text)
        step, (reported, at) = self._steps.description, self._reported
        if step != reported and time.monotonic() - at >= REPORT_SECONDS:
            self._reported = (step, time.monotonic())
            await self._progress.put(self._field, msgspec.structs.replace(self._running, step=step))

    async def end(self) -> None:
        await self._log.end()
