"""The progress of a build, parsed from BuildKit's output (`--progress=plain`). Pure."""

import re
from dataclasses import dataclass, field

_STEP = re.compile(r"#(\d+) \[(?:(?P<stage>\S+) +)?(?P<number>\d+)/(?P<of>\d+)\] (?P<what>.+)")
_OVER = re.compile(r"#(\d+) (?:DONE (?P<seconds>[\d.]+)s|CACHED|ERROR|CANCELED)")
_BYTES = re.compile(r"#(\d+) sha256:\S+ (?P<have>[\d.]+\w*B) / (?P<all>[\d.]+\w*B)")
_WHOLE = re.compile(r"#(\d+) (?P<what>exporting to image)$")


@dataclass(slots=True)
class Steps:
    """The steps of one build, in all stages. The steps of a stage are known once its first one starts."""

    done: int = 0
    """Finished steps, including cached ones."""
    cached: int = 0
    """Steps whose result was in the cache."""
    current: str = ""
    """The latest unfinished step as written in the Dockerfile, or the pulled image with its bytes."""
    _stages: dict[str, int] = field(default_factory=dict)
    _open: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of steps so far; grows when a stage begins."""
        return sum(self._stages.values())

    @property
    def description(self) -> str:
        """Number and text of the current step, such as `3/7 RUN go build`; empty before the first."""
        return f"{min(self.done + 1, self.total)}/{self.total} {self.current}" if self.current else ""

    def read(self, line: str) -> bool:
        """Parse one line of output; return whether anything changed."""
        if begun := _STEP.match(line):
            self._stages[begun["stage"] or ""] = int(begun["of"])
            self._begin(begun[1], begun["what"])
        elif whole := _WHOLE.match(line):
            self._stages.setdefault(whole["what"], 1)
            self._begin(whole[1], whole["what"])
        elif (over := _OVER.match(line)) and over[1] in self._open:
            del self._open[over[1]]
            self.done += 1
            self.cached += line.endswith("CACHED")
            self.current = next(reversed(self._open.values()), self.current)
        elif (part := _BYTES.match(line)) and part[1] in self._open:
            self.current = f"{self._open[part[1]]} ({part['have']} of {part['all']})"
        else:
            return False
        return True

    def _begin(self, number: str, step: str) -> None:
        # BuildKit repeats the heading of a step when it resumes it.
        if number not in self._open:
            self._open[number] = step
        self.current = step
