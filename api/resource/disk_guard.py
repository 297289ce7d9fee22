"""Refuses uploads and objects while a disk is nearly full, before Redis or the engine run out of space."""

from collections.abc import Callable

from knoll.config.platform import PlatformConfig
from knoll.process import disk
from knoll.process.settings import ApiSettings
from knoll.values import kinds
from knoll.values.kinds import Kind


class DiskGuard:
    """Checked before each upload and each write of an object. Reads and deletions are never refused."""

    def __init__(self, settings: ApiSettings, config: Callable[[], PlatformConfig]) -> None:
        """Args: config: returns the platform's current configuration."""
        self._uploads, self._state, self._config = settings.uploads_dir, settings.state_dir, config

    def check_upload(self) -> None:
        """Raises: StorageFullError."""
        disk.check_pressure(self._uploads, self._config().security.disk_pressure_free, "an upload")

    def check_object(self, kind: Kind, *, new: bool) -> None:
        """Args: new: whether the object is created. Raises: StorageFullError."""
        disk.check_writable(self._state)
        if new and kind == kinds.BUILD_KIND:
            disk.check_pressure(self._uploads, self._config().security.disk_pressure_free, "a Build")
