"""The current configuration of the platform: follows its ConfigMaps, so that changes need no restart."""

from collections.abc import Callable

import structlog

from knoll.config.platform import NAMES, PlatformConfig
from knoll.store.informer import Informer, ObjectChange
from knoll.store.protocol import Source
from knoll.values.kinds import CONFIG_MAP
from knoll.values.labels import SYSTEM_NAMESPACE

log = structlog.get_logger()

ConfigSubscriber = Callable[[PlatformConfig], object]
"""Called with the new configuration, in the event loop; must not block."""


class ConfigWatcher:
    """Starts with the defaults until the ConfigMaps are read. An invalid ConfigMap keeps its last valid values."""

    def __init__(self, config_maps: Informer) -> None:
        """
        Args:
            config_maps: informer of ConfigMaps; run by the caller.
        """
        self._informer = config_maps
        self._maps: dict[str, dict[str, str]] = {}
        self._current = PlatformConfig()
        self._subscribers: list[ConfigSubscriber] = []
        config_maps.subscribe(self._note)

    @classmethod
    def of(cls, store: Source) -> "tuple[ConfigWatcher, Informer]":
        """Create it with its own informer, which the caller must run."""
        informer = Informer(store, CONFIG_MAP.id)
        return cls(informer), informer

    @property
    def current(self) -> PlatformConfig:
        """The newest valid configuration; another object after each change."""
        return self._current

    async def synced(self) -> None:
        """Wait until the ConfigMaps were read once."""
        await self._informer.synced()

    def subscribe(self, subscriber: ConfigSubscriber) -> Callable[[], None]:
        """Call the subscriber after every change from now on.

        Returns: a function that ends the subscription.
        """
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def _note(self, notice: ObjectChange) -> None:
        namespace, _, name = notice.key.partition("/")
        if namespace != SYSTEM_NAMESPACE or name not in NAMES:
            return
        if notice.new is None:
            self._maps.pop(name, None)
        else:
            self._maps[name] = notice.new.get("data") or {}
        config, problems = PlatformConfig.from_config_maps(self._maps, self._current)
        for problem in problems:
            log.warning("configuration ignored", problem=str(problem))
        if config == self._current:
            return
        self._current = config
        log.info("configuration changed", config_map=name)
        for subscriber in tuple(self._subscribers):
            subscriber(config)
