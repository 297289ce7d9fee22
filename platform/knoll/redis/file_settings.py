"""Whether the settings of a Redis server keep acknowledged writes. Pure."""

from collections.abc import Mapping

SETTINGS = ("maxmemory-policy", "maxmemory", "appendonly", "appendfsync")


def file_problems(config: Mapping[str, str]) -> list[str]:
    """Return the settings with which a server may lose data, each with a fix. Args: config: reply of CONFIG GET."""
    problems = []
    if config.get("maxmemory", "0") != "0" and config.get("maxmemory-policy") != "noeviction":
        problems.append(f"maxmemory-policy is {config['maxmemory-policy']}: set it to noeviction")
    if config.get("appendonly") != "yes":
        problems.append("appendonly is off: set it to yes")
    elif config.get("appendfsync") != "always":
        problems.append(f"appendfsync is {config.get('appendfsync')}: set it to always")
    return problems
