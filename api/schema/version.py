"""The version of Knoll."""

from importlib.metadata import PackageNotFoundError, version


def _version() -> str:
    try:
        return version("knoll")
    except PackageNotFoundError:  # not installed, but run from a checkout
        return "0.0.0"


VERSION = _version()
