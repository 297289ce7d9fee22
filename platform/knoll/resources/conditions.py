"""The conditions of a status: how marking one changes them, and how `Ready` aggregates them. Pure.

Source: the condition sets of knative.dev/pkg, apis.ConditionSet.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from knoll.resources.models.meta import Status
from knoll.values.kinds import BUILD_KIND, CONFIGURATION, DOMAIN_MAPPING, REVISION, ROUTE, SERVICE, Kind
from knoll.values.timestamps import timestamp

READY = "Ready"
SUCCEEDED = "Succeeded"
ConditionStatus = Literal["True", "False", "Unknown"]
TRUE: Literal["True"] = "True"
FALSE: Literal["False"] = "False"
UNKNOWN: Literal["Unknown"] = "Unknown"
INFO = "Info"
NEW_GENERATION = "NewObservedGenFailure"


class ConditionValues(NamedTuple):
    """One condition, as `models.meta.Condition`, which costs thirty times as much to make."""

    type: str
    status: ConditionStatus
    severity: str = ""
    last_transition_time: str = ""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class ConditionSet:
    """The conditions of a kind."""

    feeding: tuple[str, ...]
    """Conditions that `happy` aggregates."""
    informing: tuple[str, ...] = ()
    """Conditions that do not affect `happy`; they have severity Info."""
    happy: str = READY

    def initial(self, now: float) -> "Conditions":
        """Conditions of a new object: all aggregated ones are Unknown."""
        return Conditions(self, (), now).initialized()

    def over(self, status: Status, now: float) -> "Conditions":
        """The conditions of an existing status."""
        values = (
            ConditionValues(item.type, item.status, item.severity, item.last_transition_time, item.reason, item.message)
            for item in status.conditions
        )
        return Conditions(self, tuple(values), now)


_TLS = "CertificateProvisioned"
SETS: dict[str, ConditionSet] = {
    SERVICE.id: ConditionSet(("ConfigurationsReady", "RoutesReady")),
    CONFIGURATION.id: ConditionSet(()),
    REVISION.id: ConditionSet(("ContainerHealthy", "ResourcesAvailable"), ("Active",)),
    ROUTE.id: ConditionSet(("AllTrafficAssigned", _TLS, "IngressReady")),
    DOMAIN_MAPPING.id: ConditionSet((_TLS, "DomainClaimed", "IngressReady", "ReferenceResolved")),
    BUILD_KIND.id: ConditionSet((SUCCEEDED,)),
}
"""Resource id to the conditions of its kind."""


def conditions_of(kind: Kind, status: Status, now: float) -> "Conditions":
    """The conditions of a status, for changes at `now` (epoch seconds)."""
    return SETS[kind.id].over(status, now)


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of one status at one time. Every method returns a new instance."""

    kinds: ConditionSet
    items: tuple[ConditionValues, ...]
    """Sorted by type."""
    now: float
    """Epoch seconds: the transition time of changed conditions."""

    def get(self, type_: str) -> ConditionValues | None:
        return next((item for item in self.items if item.type == type_), None)

    def status_of(self, type_: str) -> ConditionStatus:
        """`True`, `False` or `Unknown`; also `Unknown` if there is no such condition."""
        condition = self.get(type_)
        return condition.status if condition else UNKNOWN

    @property
    def is_happy(self) -> bool:
        return self.status_of(self.kinds.happy) == TRUE

    def initialized(self) -> "Conditions":
        """Add missing aggregated conditions, and the aggregate, as Unknown."""
        missing = [type_ for type_ in (*self.kinds.feeding, self.kinds.happy) if self.get(type_) is None]
        return self._with(ConditionValues(type=type_, status=UNKNOWN) for type_ in missing)

    def mark_true(self, type_: str, reason: str = "", message: str = "") -> "Conditions":
        """Set a condition to True; a reason is rarely given."""
        return self._mark(type_, TRUE, reason, message)

    def mark_false(self, type_: str, reason: str, message: str = "") -> "Conditions":
        """Set a condition to False."""
        return self._mark(type_, FALSE, reason, message)

    def mark_unknown(self, type_: str, reason: str = "", message: str = "") -> "Conditions":
        """Set a condition to Unknown."""
        return self._mark(type_, UNKNOWN, reason, message)

    def new_generation(self, message: str = "unsuccessfully observed a new generation") -> "Conditions":
        """The spec changed and was not reconciled yet: sets the aggregate to Unknown, and keeps the rest."""
        happy = ConditionValues(type=self.kinds.happy, status=UNKNOWN, reason=NEW_GENERATION, message=message)
        return self._with([happy])

    def marked(self, conditions: Iterable[tuple[str, ConditionStatus, str, str]]) -> "Conditions":
        """Set several conditions. Args: conditions: type, status, reason and message of each."""
        happy, feeding = self.kinds.happy, self.kinds.feeding
        changed = self._with(
            ConditionValues(type_, status, "" if type_ == happy or type_ in feeding else INFO, "", reason, message)
            for type_, status, reason, message in conditions
        )
        return changed._summed() if feeding else changed

    def _mark(self, type_: str, status: ConditionStatus, reason: str, message: str) -> "Conditions":
        if type_ != self.kinds.happy and type_ not in self.kinds.feeding:
            return self._with([ConditionValues(type_, status, INFO, "", reason, message)])
        return self.marked([(type_, status, reason, message)])

    def _summed(self) -> "Conditions":
        feeding = [condition for type_ in self.kinds.feeding if (condition := self.get(type_)) is not None]
        for status in (FALSE, UNKNOWN):
            same = [item for item in feeding if item.status == status]
            if same:
                # The one that changed last; if several did, prefer one with a reason, then one with a message, then the
                # first of the set, in which causes precede their effects.
                worst = max(same, key=lambda item: (item.last_transition_time, bool(item.reason), bool(item.message)))
                return self._with([worst._replace(type=self.kinds.happy)])
        if len(feeding) < len(self.kinds.feeding):
            return self._with([ConditionValues(type=self.kinds.happy, status=UNKNOWN)])
        return self._with([ConditionValues(type=self.kinds.happy, status=TRUE)])

    def _with(self, conditions: Iterable[ConditionValues]) -> "Conditions":
        items = {item.type: item for item in self.items}
        for item in conditions:
            before = items.get(item.type)
            if before is None or (before[:3], before[4:]) != (item[:3], item[4:]):
                items[item.type] = ConditionValues(*item[:3], timestamp(self.now), *item[4:])
        return Conditions(self.kinds, tuple(items[type_] for type_ in sorted(items)), self.now)
