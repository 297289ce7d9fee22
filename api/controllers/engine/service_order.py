"""The order of reconciliations by the arrival of Services, as `arrival_order` decides it. No I/O."""

from api.controllers.engine.arrival_order import ArrivalOrder, Rank, root_of
from api.controllers.engine.cache import Cache
from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import ObjectKey
from api.controllers.reconciler.conditions import UNKNOWN
from knoll.values import kinds
from knoll.values.labels import SERVICE


class ServiceOrder:
    """Knows which Service an object belongs to, and whether that Service has reached its goal."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._order = ArrivalOrder()

    def rank(self, key: ObjectKey, in_background: bool) -> Rank:
        return self._order.rank(root_of(key, self._service_of(key)), in_background=in_background)

    def _service_of(self, key: ObjectKey) -> str:
        if key[0] == kinds.REVISION.id:
            return objects.labels(self._cache.get(*key) or {"metadata": {}}).get(SERVICE, "")
        return key[2] if key[0] in (kinds.SERVICE.id, kinds.CONFIGURATION.id, kinds.ROUTE.id) else ""

    def reconciled(self, key: ObjectKey) -> None:
        """Count the next change of a Service as a new arrival if it is ready, has failed, or was deleted."""
        name = self._service_of(key)
        service = self._cache.get(kinds.SERVICE.id, key[1], name) if name else None
        if service is None or (objects.observed(service) and objects.condition_status(service) != UNKNOWN):
            self._order.settled(root_of(key, name))
