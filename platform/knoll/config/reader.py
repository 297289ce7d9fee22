"""Parses one ConfigMap: each key with its default and limits; collects all problems."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from knoll.values.duration import format_duration, parse_duration
from knoll.values.errors import InvalidConfigError
from knoll.values.numbers import INT32_MAX, WHOLE, parse_number
from knoll.values.quantity import canonical

Data = Mapping[str, str]

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class ConfigMapReader:
    """The keys of one ConfigMap. Each method returns the value of a key, or the default if it is absent or invalid."""

    def __init__(self, name: str, data: Data) -> None:
        self.name = name
        self._data = data
        self._problems: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def refuse(self, key: str, reason: str) -> None:
        """Add a problem."""
        self._problems.append(f"{key}: {reason}")

    def finish(self) -> None:
        """Raises: InvalidConfigError with all problems, if there are any."""
        if self._problems:
            raise InvalidConfigError(self.name, self._problems)

    def text(self, key: str, default: str) -> str:
        return self._data.get(key, default)

    def choice(self, key: str, default: str, choices: Sequence[str]) -> str:
        """One of `choices`, case-insensitive; returned as spelled there."""
        text = self._data.get(key)
        if text is None:
            return default
        match = next((choice for choice in choices if choice.lower() == text.strip().lower()), None)
        if match is None:
            self.refuse(key, f"must be one of {', '.join(choices)}, not {text!r}")
            return default
        return match

    def flag(self, key: str, default: bool) -> bool:
        text = self._data.get(key)
        if text is not None and text not in _TRUE | _FALSE:
            self.refuse(key, f"must be true or false, not {text!r}")
        return text in _TRUE if text in _TRUE | _FALSE else default

    def whole(self, key: str, default: int, low: int = 0, high: int = INT32_MAX) -> int:
        text = self._data.get(key)
        if text is None:
            return default
        if not WHOLE.fullmatch(text):
            self.refuse(key, f"must be a whole number, not {text[:60]!r}")
            return default
        value = int(text)
        if not low <= value <= high:
            self.refuse(key, f"must be between {low} and {high}, not {value}")
            return default
        return value

    def number(self, key: str, default: float) -> float:
        text = self._data.get(key)
        if text is None:
            return default
        try:
            return parse_number(text)
        except ValueError as problem:
            self.refuse(key, str(problem))
            return default

    def seconds(self, key: str, default: int, low: int = 0, high: int | None = None, *, whole: bool = False) -> float:
        """A duration, in seconds."""
        text = self._data.get(key)
        if text is None:
            return default
        try:
            value = parse_duration(text)
        except ValueError as problem:
            self.refuse(key, str(problem))
            return default
        if value < low or (high is not None and value > high):
            bounds = f"at least {format_duration(low)}" if high is None else (
                f"between {format_duration(low)} and {format_duration(high)}"
            )  # fmt: skip
            self.refuse(key, f"must be {bounds}, not {text}")
            return default
        if whole and value.denominator != 1:
            self.refuse(key, f"must be in whole seconds, not {text}")
            return default
        return _number(value)

    def quantity(self, key: str, default: str = "") -> str:
        """A quantity in canonical form; empty if there is none."""
        text = self._data.get(key)
        if not text:
            return default
        try:
            return canonical(text)
        except ValueError as problem:
            self.refuse(key, str(problem))
            return default


def _number(value: Fraction) -> float:
    return int(value) if value.denominator == 1 else float(value)
