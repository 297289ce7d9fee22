"""Brings to containers what their Revisions ask of other objects, and keeps it as those objects are.

Variables are read at each start of an instance; files lie in volumes that all instances of a Revision share, are
written before the first instance starts and again whenever what they come from is another.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

import structlog

from autoscaler.runtime.protocol import Capacity, InstanceSpec, Runtime, Volume
from autoscaler.spec.compressed_revision import Packed
from autoscaler.spec.engine_volumes import engine_volumes, folders, pod_volume
from autoscaler.spec.env_sources import Find, MissingSourceError, Reference, references
from autoscaler.spec.instance_spec import about, instance_spec
from autoscaler.spec.service_tokens import ServiceTokens
from autoscaler.spec.volume_files import files, has_files, has_token
from knoll.auth import tokens
from knoll.auth.tokens import SigningKey
from knoll.resources.models import pod
from knoll.resources.models.revision import Revision
from knoll.store.informer import Informer, ObjectChange
from knoll.values import kinds
from knoll.values.errors import KnollError

log = structlog.get_logger()

SWEEP_SECONDS = 15.0
"""Between two looks for volumes that nobody needs, and for tokens that are to be renewed."""
RETRY_SECONDS = 1.0


class Delivery:
    """What all Revisions are given, while this process leads."""

    def __init__(
        self,
        runtime: Runtime,
        informers: Mapping[str, Informer],
        *,
        needed: Callable[[Volume], bool],
        changed: Callable[[str], None],
        key: Callable[[], Awaitable[SigningKey]],
        longest_token: Callable[[], int] = lambda: tokens.MOST_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            informers: of ConfigMaps, Secrets and PersistentVolumeClaims, by resource id.
            needed: whether a volume's owner is still there.
            changed: told the uid of each Revision of whose sources one is another.
            key: what tokens are signed with.
            longest_token: longest life of a token, in seconds.
            clock: epoch seconds.
        """
        self._runtime, self._informers = runtime, informers
        self._needed, self._changed = needed, changed
        self._key, self._tokens = key, ServiceTokens(clock, longest_token)
        self._known: dict[str, Packed] = {}
        """By uid."""
        self._with_tokens: set[str] = set()
        """uids of those whose volumes hold tokens, which grow old."""
        self._by_key: dict[str, str] = {}
        """`namespace/name` of a Revision to its uid."""
        self._waiting: defaultdict[tuple[str, Reference], set[str]] = defaultdict(set)
        """Namespace and object to the uids of Revisions that refer to it."""
        self._delivered: dict[str, Volume] = {}
        """Volumes of files that are on the engine, by name."""
        self._deleted_claims: set[str] = set()
        """uids of claims that were seen to go, until their volumes are gone too."""
        self._due: dict[str, None] = {}
        """uids of Revisions whose volumes may be out of date."""
        self._wake, self._began = asyncio.Event(), asyncio.Event()
        self._sweep_due = True
        self._capacity = Capacity(1.0, 0)

    def know(self, revision: Revision, packed: Packed) -> None:
        """A Revision is looked after from now on, or has other metadata. Args: packed: the same, to be kept."""
        meta = revision.metadata
        if meta.uid in self._known:
            self._due[meta.uid] = None
            self._wake.set()
        self._known[meta.uid] = packed
        if any(has_token(volume) for volume in revision.spec.volumes):
            self._with_tokens.add(meta.uid)
        self._by_key[f"{meta.namespace}/{meta.name}"] = meta.uid
        for each in references(revision.spec):
            self._waiting[meta.namespace, each].add(meta.uid)

    def forget(self, revision: Revision) -> None:
        """A Revision and all of its instances are gone."""
        meta = revision.metadata
        self._known.pop(meta.uid, None)
        self._with_tokens.discard(meta.uid)
        self._tokens.forget(meta.uid)
        for each in references(revision.spec):
            self._waiting[meta.namespace, each].discard(meta.uid)
            if not self._waiting[meta.namespace, each]:
                del self._waiting[meta.namespace, each]
        if self._by_key.get(f"{meta.namespace}/{meta.name}") == meta.uid:
            del self._by_key[f"{meta.namespace}/{meta.name}"]
        self._sweep_due = True
        self._wake.set()

    async def prepare(self, revision: Revision, name: str) -> InstanceSpec:
        """Have everything that an instance is promised, and say how it is started.

        Raises:
            MissingSourceError: an object or key is missing.
            RuntimeUnavailableError: the engine does not make a volume.
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

    def noticed(self, notice: ObjectChange) -> None:
        """An object changed: whoever waits for it tries again, whoever shows it shows the new."""
        namespace, _, name = notice.key.rpartition("/")
        for uid in self._waiting.get((namespace, (notice.resource, name)), ()):
            self._changed(uid)
            self._due[uid] = None
        if notice.resource == kinds.VOLUME_CLAIM.id and notice.old is not None and notice.new is None:
            self._sweep_due = True
            if notice.seen:
                self._deleted_claims.add(notice.old["metadata"]["uid"])
        self._wake.set()

    async def run(self) -> None:
        """Keep volumes as they should be until cancelled."""
        await self._begin()
        while True:
            try:
                await self._catch_up()
            except KnollError as error:
                log.warning("volumes are not up to date yet", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            self._sweep_due = self._sweep_due or not self._due

    async def _begin(self) -> None:
        while True:
            try:
                self._capacity = await self._runtime.capacity()
                self._tokens.sign_with(await self._key())
                found = await self._runtime.volumes()
                break
            except KnollError as error:
                log.warning("volumes are not looked at yet", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
        self._delivered |= {one.name: one for one in found if one.kind == "files"}
        self._due |= dict.fromkeys(self._known)
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
        """Write a Revision's volumes again, where they are others."""
        packed = self._known.get(uid)
        if packed is None:
            return
        revision = packed.unpacked()
        key = f"{revision.metadata.namespace}/{revision.metadata.name}"
        for volume in [one for one in self._delivered.values() if uid == one.owner or key == one.about]:
            wanted = _volume(revision.spec, pod_volume(volume))
            if not self._needed(volume) or not has_files(wanted):
                continue
            try:
                await self._put(revision, volume.owner, wanted, volume)
            except MissingSourceError as error:
                # As the kubelet does: what is there stays, until something better comes.
                log.warning("a volume keeps its old content", revision=key, volume=volume.name, error=str(error))

    async def _put(self, revision: Revision, instance: str, wanted: pod.Volume, volume: Volume) -> None:
        spec, find = revision.spec, self._finder(revision)
        content = files(wanted, spec, about(revision, instance, self._capacity), find, self._tokens.of(revision, find))
        await self._runtime.put_files(volume, content)
        self._delivered[volume.name] = volume

    async def _sweep(self) -> None:
        """Remove what nobody needs any more, and have tokens looked at."""
        for volume in await self._runtime.volumes():
            if volume.owner not in self._deleted_claims and self._needed(volume):
                continue
            if await self._runtime.remove_volume(volume.name):
                self._delivered.pop(volume.name, None)
                self._deleted_claims.discard(volume.owner)
                log.info("volume removed", volume=volume.name, of=volume.about)
        if self._with_tokens:
            self._tokens.sign_with(await self._key())
        for uid in list(self._with_tokens):
            await self._refresh(uid)

    def _finder(self, revision: Revision) -> Find:
        namespace = revision.metadata.namespace
        return lambda resource, name: self._informers[resource].get(namespace, name)


def _volume(spec: pod.PodSpec, name: str) -> pod.Volume:
    return next((one for one in spec.volumes if one.name == name), pod.Volume())
