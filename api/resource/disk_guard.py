"""Refuses what would fill a disk that is nearly full, before Redis or the engine run out of it."""

from collections.abc import Callable

from knoll.config.platform import PlatformConfig
from knoll.process import disk
from knoll.process.settings import ApiSettings
from knoll.values import kinds
from knoll.values.kinds import Kind


class DiskGuard:
    """Asked before each upload and each new object. Reading and deleting are never refused."""

    def __init__(self, settings: ApiSettings, config: Callable[[], PlatformConfig]) -> None:
        """Args: config: gives the platform's configuration as it is now."""
        self._uploads, self._state, self._config = settings.uploads_dir, settings.state_dir, config

    def check_upload(self) -> None:
        """Raises: StorageFullError."""
        disk.check_pressure(self._uploads, self._config().security.disk_pressure_free, "an upload")

    def check_object(self, kind: Kind, *, new: bool) -> None:
        """Args: new: it is created, not changed. Raises: StorageFullError."""
        disk.check_writable(self._state)
        if new and kind == kinds.BUILD_KIND:
            disk.check_pressure(self._uploads, self._config().security.disk_pressure_free, "a Build")
