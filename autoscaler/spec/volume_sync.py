"""Provides containers with what their Revisions refer to in other objects, and keeps their volumes up to date.

Variables are read at each start of an instance. Files are in volumes that all instances of a Revision share; they are
written before the first instance starts, and again whenever their sources change.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

import structlog

from autoscaler.runtime.model import Capacity, EngineVolume, InstanceSpec
from autoscaler.runtime.protocol import Runtime
from autoscaler.spec.compressed_revision import CompressedRevision
from autoscaler.spec.engine_volumes import engine_volumes, folders, pod_volume
from autoscaler.spec.env_sources import Find, MissingSourceError, Reference, references
from autoscaler.spec.instance_spec import about, instance_spec
from autoscaler.spec.service_tokens import ServiceTokens
from autoscaler.spec.volume_files import files, has_files, has_token
from knoll.auth import tokens
from knoll.auth.tokens import SigningKey
from knoll.concurrency.backoff import Backoff, until_available
from knoll.resources.models import pod
from knoll.resources.models.revision import Revision
from knoll.resources.models.volume import Volume
from knoll.store.informer import Informer, ObjectChange
from knoll.values import kinds
from knoll.values.errors import KnollError

log = structlog.get_logger()

SWEEP_SECONDS = 15.0
"""Interval at which unneeded volumes are removed and tokens renewed."""


class VolumeSync:
    """Volumes and variables of all Revisions, while this process leads.

    It has more attributes than the style allows: they index the same Revisions in the ways that events refer to them.
    """

    def __init__(
        self,
        runtime: Runtime,
        informers: Mapping[str, Informer],
        *,
        is_needed: Callable[[EngineVolume], bool],
        on_change: Callable[[str], None],
        key: Callable[[], Awaitable[SigningKey]],
        longest_token: Callable[[], int] = lambda: tokens.MOST_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            informers: of ConfigMaps, Secrets and PersistentVolumeClaims, by resource id.
            is_needed: returns whether a volume's owner exists.
            on_change: called with the uid of each Revision with a changed source.
            key: returns the key that signs tokens.
            longest_token: returns the longest lifetime of a token, in seconds.
            clock: epoch seconds.
        """
        self._runtime, self._informers = runtime, informers
        self._is_needed, self._on_change = is_needed, on_change
        self._key, self._tokens = key, ServiceTokens(clock, longest_token)
        self._revisions: dict[str, CompressedRevision] = {}
        """By uid."""
        self._with_tokens: set[str] = set()
        """uids of those whose volumes contain tokens, which expire."""
        self._by_key: dict[str, str] = {}
        """`namespace/name` of a Revision to its uid."""
        self._referring: defaultdict[tuple[str, Reference], set[str]] = defaultdict(set)
        """Namespace and object to the uids of Revisions that refer to it."""
        self._written: dict[str, EngineVolume] = {}
        """Volumes of files that are on the engine, by name."""
        self._deleted_claims: set[str] = set()
        """uids of claims that were deleted, until their volumes are removed."""
        self._due: dict[str, None] = {}
        """uids of Revisions whose volumes may be out of date."""
        self._wake, self._began = asyncio.Event(), asyncio.Event()
        self._sweep_due = True
        self._capacity = Capacity(1.0, 0)

    def add(self, revision: Revision, compressed: CompressedRevision) -> None:
        """Add a Revision, or update its metadata. Args: compressed: the same Revision, to be kept."""
        meta = revision.metadata
        if meta.uid in self._revisions:
            self._due[meta.uid] = None
            self._wake.set()
        self._revisions[meta.uid] = compressed
        if any(has_token(volume) for volume in revision.spec.volumes):
            self._with_tokens.add(meta.uid)
        self._by_key[f"{meta.namespace}/{meta.name}"] = meta.uid
        for reference in references(revision.spec):
            self._referring[meta.namespace, reference].add(meta.uid)

    def remove(self, revision: Revision) -> None:
        """Remove a Revision that is gone, as are all of its instances."""
        meta = revision.metadata
        self._revisions.pop(meta.uid, None)
        self._with_tokens.discard(meta.uid)
        self._tokens.forget(meta.uid)
        for reference in references(revision.spec):
            self._referring[meta.namespace, reference].discard(meta.uid)
            if not self._referring[meta.namespace, reference]:
                del self._referring[meta.namespace, reference]
        if self._by_key.get(f"{meta.namespace}/{meta.name}") == meta.uid:
            del self._by_key[f"{meta.namespace}/{meta.name}"]
        self._sweep_due = True
        self._wake.set()

    async def prepare(self, revision: Revision, name: str) -> InstanceSpec:
        """Create and write the volumes of an instance; returns its final specification.

        Raises:
            MissingSourceError: an object or key is missing.
            RuntimeUnavailableError: the engine cannot create a volume.
        """
        await self._began.wait()
        find = self._finder(revision)
        spec = instance_spec(revision, name, find, self._capacity)
        for key, volume in engine_volumes(revision, name, find).items():
            if volume.kind == "files":
                await self._put(revision, name, _volume(revision.spec, key), volume)
            else:
                await self._runtime.ensure_volume(volume, folders(revision.spec, key))
        return spec

    def source_changed(self, notice: ObjectChange) -> None:
        """An object changed: Revisions that wait for it try again, and volumes with its content are written again."""
        namespace, _, name = notice.key.rpartition("/")
        for uid in self._referring.get((namespace, (notice.resource, name)), ()):
            self._on_change(uid)
            self._due[uid] = None
        if notice.resource == kinds.VOLUME_CLAIM.id and notice.old is not None and notice.new is None:
            self._sweep_due = True
            if notice.seen:
                self._deleted_claims.add(notice.old["metadata"]["uid"])
        self._wake.set()

    async def run(self) -> None:
        """Keep volumes up to date until cancelled."""
        await until_available(self._begin, "volumes not listed yet")
        backoff = Backoff()
        while True:
            try:
                await self._catch_up()
                backoff.reset()
            except KnollError as error:
                log.warning("volumes not up to date yet", error=str(error))
                await backoff.wait()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            self._sweep_due = self._sweep_due or not self._due

    async def _begin(self) -> None:
        self._capacity = await self._runtime.capacity()
        self._tokens.sign_with(await self._key())
        volumes = await self._runtime.volumes()
        self._written |= {volume.name: volume for volume in volumes if volume.kind == "files"}
        self._due |= dict.fromkeys(self._revisions)
        self._began.set()

    async def _catch_up(self) -> None:
        failed: KnollError | None = None
        due, self._due = self._due, {}
        for uid in due:
            try:
                await self._refresh(uid)
            except KnollError as error:
                self._due[uid], failed = None, error
        if failed:
            raise failed
        if self._sweep_due:
            await self._sweep()
            self._sweep_due = False

    async def _refresh(self, uid: str) -> None:
        """Write a Revision's volumes again, where their content changed."""
        compressed = self._revisions.get(uid)
        if compressed is None:
            return
        revision = compressed.revision()
        key = f"{revision.metadata.namespace}/{revision.metadata.name}"
        for volume in [each for each in self._written.values() if uid == each.owner or key == each.about]:
            source = _volume(revision.spec, pod_volume(volume))
            if not self._is_needed(volume) or not has_files(source):
                continue
            try:
                await self._put(revision, volume.owner, source, volume)
            except MissingSourceError as error:
                # As kubelet does: the old content stays until the new one is complete.
                log.warning("volume keeps its old content", revision=key, volume=volume.name, error=str(error))

    async def _put(self, revision: Revision, instance: str, source: Volume, volume: EngineVolume) -> None:
        spec, find = revision.spec, self._finder(revision)
        content = files(source, spec, about(revision, instance, self._capacity), find, self._tokens.of(revision, find))
        await self._runtime.put_files(volume, content)
        self._written[volume.name] = volume

    async def _sweep(self) -> None:
        """Remove unneeded volumes, and renew tokens."""
        for volume in await self._runtime.volumes():
            if volume.owner not in self._deleted_claims and self._is_needed(volume):
                continue
            if await self._runtime.remove_volume(volume.name):
                self._written.pop(volume.name, None)
                self._deleted_claims.discard(volume.owner)
                log.info("volume removed", volume=volume.name, of=volume.about)
        if self._with_tokens:
            self._tokens.sign_with(await self._key())
        for uid in list(self._with_tokens):
            await self._refresh(uid)

    def _finder(self, revision: Revision) -> Find:
        namespace = revision.metadata.namespace
        return lambda resource, name: self._informers[resource].get(namespace, name)


def _volume(spec: pod.PodSpec, name: str) -> Volume:
    return next((volume for volume in spec.volumes if volume.name == name), Volume())
