"""`config-gc`: which Revisions without traffic are deleted."""

from dataclasses import dataclass

from knoll.config.reader import ConfigMapReader, Data

NAME = "config-gc"
DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class GCConfig:
    """None means `disabled`: the rule or limit is off."""

    retain_since_create_seconds: float | None = 48 * 3600
    retain_since_last_active_seconds: float | None = 15 * 3600
    min_non_active_revisions: int = 20
    max_non_active_revisions: int | None = 1000
    max_finished_builds: int | None = 10
    """Per repository and namespace; an addition of this platform."""


def parse(data: Data) -> GCConfig:
    """Raises: InvalidConfigError."""
    read = ConfigMapReader(NAME, data)

    def disabled(key: str) -> bool:
        return read.text(key, "").strip().lower() == DISABLED

    def seconds(key: str, default: int) -> float | None:
        return None if disabled(key) else read.seconds(key, default)

    most = None if disabled("max-non-active-revisions") else read.whole("max-non-active-revisions", 1000)
    least = read.whole("min-non-active-revisions", 20)
    if most is not None and least > most:
        if "min-non-active-revisions" in read:
            read.refuse("min-non-active-revisions", f"must not be above max-non-active-revisions, which is {most}")
        least = most
    config = GCConfig(
        retain_since_create_seconds=seconds("retain-since-create-time", 48 * 3600),
        retain_since_last_active_seconds=seconds("retain-since-last-active-time", 15 * 3600),
        min_non_active_revisions=least,
        max_non_active_revisions=most,
        max_finished_builds=None if disabled("max-finished-builds") else read.whole("max-finished-builds", 10, 1),
    )
    read.finish()
    return config


EXPLAINED = """\
# Revisions younger than this are kept; disabled: age-based retention is off.
retain-since-create-time: "48h"
# Revisions that had a route within this time are kept; disabled: this retention is off.
retain-since-last-active-time: "15h"
# Minimum number of Revisions without a route to keep.
min-non-active-revisions: "20"
# Maximum number of Revisions without a route to keep; disabled: no maximum.
max-non-active-revisions: "1000"
# Maximum number of finished Builds to keep per image repository, with their images unless a Revision needs them;
# disabled: no maximum.
max-finished-builds: "10"
"""
