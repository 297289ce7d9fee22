"""Versions of the platform, and which of them may run on the machines of one cluster. Pure.

Machines may differ by one minor version, as during an upgrade. What they send to each other holds to that: a reader
ignores fields that it does not know, and a missing field has a default.
"""

import re
from collections.abc import Mapping

_FORM = re.compile(r"v?(\d+)\.(\d+)")
HOW = (
    "machines may differ by one minor version: upgrade one minor version at a time, and all machines before the next "
    "(docs/how-to/several-machines.md)"
)
"""What to do about other differences."""


def minor_version(version: str) -> tuple[int, int] | None:
    """Return major and minor number of a version such as `v1.4.0`; None if it has another form."""
    match = _FORM.match(version)
    return (int(match[1]), int(match[2])) if match else None


def are_compatible(*versions: str) -> bool:
    """Return whether machines of one cluster may have these versions."""
    numbers = {minor_version(version) for version in versions}
    if None in numbers:
        return len(set(versions)) <= 1
    majors, minors = zip(*(pair for pair in numbers if pair is not None), strict=True) if numbers else ((), ())
    return len(set(majors)) <= 1 and max(minors, default=0) - min(minors, default=0) <= 1


def problem(own: str, others: Mapping[str, str], subject: str = "this machine") -> str:
    """Return why a machine of a version must not be in a cluster; empty if it may.

    Args:
        others: versions of the other machines by name.
        subject: what has the version, for the message.
    """
    different = {name: version for name, version in sorted(others.items()) if not are_compatible(own, version)}
    if not different:
        return ""
    listed = ", ".join(f"{name} runs {version or 'an unknown version'}" for name, version in different.items())
    return f"{subject} has the version {own}, but {listed}; {HOW}"


def protocol(name: str, version: str) -> str:
    """Return the ALPN protocol of a service between machines, as a machine of this version offers it."""
    major, minor = minor_version(version) or (0, 0)
    return f"{name}/{major}.{minor}"


def accepted_protocols(name: str, version: str) -> list[str]:
    """Return the ALPN protocols of a service that a machine of this version accepts, its own first."""
    major, minor = minor_version(version) or (0, 0)
    return [f"{name}/{major}.{each}" for each in (minor, minor - 1, minor + 1) if each >= 0]
