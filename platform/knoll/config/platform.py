"""The whole configuration of the platform."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from knoll.config import autoscaler, defaults, deployment, domain, features, gc, network, observability, security
from knoll.config.autoscaler import AutoscalerConfig
from knoll.config.defaults import DefaultsConfig
from knoll.config.deployment import DeploymentConfig
from knoll.config.domain import DomainConfig
from knoll.config.features import FeaturesConfig
from knoll.config.gc import GCConfig
from knoll.config.network import NetworkConfig
from knoll.config.observability import ObservabilityConfig
from knoll.config.reader import Data
from knoll.config.security import SecurityConfig
from knoll.values.errors import InvalidConfigError
from knoll.values.kinds import CONFIG_MAP
from knoll.values.labels import SYSTEM_NAMESPACE

_PARTS = {
    module.NAME: (part, module)
    for part, module in {
        "autoscaler": autoscaler,
        "defaults": defaults,
        "deployment": deployment,
        "domain": domain,
        "features": features,
        "gc": gc,
        "network": network,
        "observability": observability,
        "security": security,
    }.items()
}
NAMES = frozenset(_PARTS)
"""Names of the platform's ConfigMaps."""


@dataclass(frozen=True, slots=True)
class PlatformConfig:
    """The values of all ConfigMaps. Immutable; replaced when one changes."""

    autoscaler: AutoscalerConfig = field(default_factory=AutoscalerConfig)
    defaults: DefaultsConfig = field(default_factory=DefaultsConfig)
    deployment: DeploymentConfig = field(default_factory=DeploymentConfig)
    domain: DomainConfig = field(default_factory=DomainConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    gc: GCConfig = field(default_factory=GCConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    observability: ObservabilityConfig = field(default_factory=ObservabilityConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)

    @classmethod
    def from_config_maps(
        cls, maps: Mapping[str, Data], last: "PlatformConfig | None" = None
    ) -> tuple["PlatformConfig", list[InvalidConfigError]]:
        """Parse the ConfigMaps.

        Args:
            maps: name to data. For a missing ConfigMap, the defaults apply.
            last: the previous valid configuration.

        Returns:
            The configuration, in which each invalid ConfigMap keeps its last valid values (the defaults without
            `last`), and the problems of the invalid ones.
        """
        config, problems = cls(), []
        for name, (part, module) in _PARTS.items():
            try:
                values: Any = module.parse(maps.get(name, {}))
            except InvalidConfigError as problem:
                problems.append(problem)
                values = getattr(last or cls(), part)
            config = replace(config, **{part: values})
        return config, problems

    def with_config_map(self, name: str, data: Data) -> Self:
        """Return this configuration with the new values of one ConfigMap.

        Raises:
            InvalidConfigError: the values are invalid.
        """
        part, module = _PARTS[name]
        return replace(self, **{part: module.parse(data)})


def check_config_map(name: str, data: Data) -> None:
    """Reject a ConfigMap of the platform that has invalid values; other ConfigMaps are accepted.

    Raises:
        InvalidConfigError: names each invalid key and the reason.
    """
    if name in _PARTS:
        _PARTS[name][1].parse(data)


def default_config_maps() -> list[dict[str, Any]]:
    """The ConfigMaps of a new platform: no key is set, and `_example` explains every key with its default."""
    return [
        {
            "apiVersion": CONFIG_MAP.api_version,
            "kind": CONFIG_MAP.kind,
            "metadata": {
                "name": name,
                "namespace": SYSTEM_NAMESPACE,
                "labels": {"app.kubernetes.io/name": "knative-serving", "app.kubernetes.io/component": "controller"},
            },
            "data": {"_example": f"{_HEAD}\n{module.EXPLAINED}"},
        }
        for name, (_, module) in _PARTS.items()
    ]


_HEAD = """\
# This text is documentation and has no effect. To set a key, copy it to the same level as _example.
# Changes take effect within seconds. Invalid values are rejected with the reason.
"""
