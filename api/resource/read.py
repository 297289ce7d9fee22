"""Gets and lists objects."""

from dataclasses import dataclass

from api.resource import build_pods
from api.wire.options import ListOptions, make_token
from api.wire.paths import ResourcePath
from api.wire.status import FutureVersionError
from knoll.store.protocol import Store
from knoll.values.errors import ExpiredError
from knoll.values.json import Json
from knoll.values.kinds import BUILD_KIND, POD


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    items: list[Json]
    version: int
    token: str = ""
    remaining: int = 0

    def metadata(self) -> Json:
        metadata: Json = {"resourceVersion": str(self.version)}
        if self.token:
            metadata["continue"] = self.token
            metadata["remainingItemCount"] = self.remaining
        return metadata


class Reads:
    """All reads of clients except watches."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, target: ResourcePath) -> Json:
        """Raises: NotFoundError."""
        place = target.place
        if place.kind.id != POD.id:
            return await self._store.get(place.kind.id, place.namespace, place.name)
        body = await build_pods.pod_or_build(self._store, place.namespace, place.name)
        return build_pods.pod_of(body) if body.get("kind") == BUILD_KIND.kind else body

    async def list(self, target: ResourcePath, options: ListOptions) -> Page:
        """Return the selected objects, or one page of them.

        A later page shows the current state after the end of the last page, under the version of the first page: an
        object that existed throughout is listed once, and a watch from that version reports all changes in between.

        Raises:
            FutureVersionError: `options.version` does not exist yet.
            ExpiredError: exactly that version is requested, and it is not the current one.
        """
        listing = await self._store.list(target.place.kind.id, target.namespace)
        if options.version > listing.version:
            raise FutureVersionError(
                f"Timeout: Too large resource version: {options.version}, current: {listing.version}"
            )
        if options.exact and options.version != listing.version:
            raise ExpiredError(
                f"The provided resource version {options.version} is not available, only the current one "
                f"({listing.version}) is"
            )
        version = options.version if options.after else listing.version
        items = listing.items
        if not options.selector.everything:
            items = [body for body in items if options.selector.matches(body)]
        if options.after:
            after = tuple(options.after.partition("/")[::2])
            items = [body for body in items if _key(body) > after]
        if not options.limit or len(items) <= options.limit:
            return Page(items, version)
        page = items[: options.limit]
        remaining = len(items) - options.limit
        return Page(page, version, make_token(version, "/".join(_key(page[-1]))), remaining)


def _key(body: Json) -> tuple[str, str]:
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]
