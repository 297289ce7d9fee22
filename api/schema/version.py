"""Which release of Knoll this is."""

from importlib.metadata import PackageNotFoundError, version


def _version() -> str:
    try:
        return version("knoll")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "0.0.0"


VERSION = _version()
