"""Admission: field validation, defaults and the rules of each kind, between a request's body and the store."""

import time
from collections.abc import Callable

from api.auth import authorization
from api.auth.authorization import RBAC
from api.auth.identity import User
from api.resource import core_rules
from api.schema.core_models import MODELS as CORE
from api.wire import bodies, metadata
from api.wire.metadata import Place
from api.wire.options import WriteOptions
from knoll.config.platform import PlatformConfig
from knoll.resources.admission import admit, conversion, parsing
from knoll.values.errors import BadRequestError
from knoll.values.json import Json
from knoll.values.kinds import CLUSTER_ROLE_BINDING, ROLE_BINDING


class Admission:
    """Admits bodies; does no I/O."""

    def __init__(
        self,
        config: Callable[[], PlatformConfig] = PlatformConfig,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            config: returns the platform's current configuration.
            now: returns epoch seconds.
        """
        self._config = config
        self._now = now

    def decode(
        self, parsed: bodies.Parsed, place: Place, options: WriteOptions, subresource: str = ""
    ) -> tuple[Json, list[str]]:
        """Return the body as an object of the path's kind in the stored version, and warnings about it.

        The status is kept for the path `/status` only; elsewhere it is dropped without validation.

        Raises:
            BadRequestError: another kind or version; with `fieldValidation=Strict` also unknown and repeated fields.
            InvalidResourceError: values of wrong types that no later check reports.
        """
        body: Json = parsing.without_nulls(metadata.check_type(parsed.value, place))
        if "status" in place.kind.subresources and subresource != "status":
            body.pop("status", None)
        unknown: list[str] = []
        if place.kind.id in CORE:
            body, unknown = core_rules.read(body, place.kind)
        elif admit.handles(place.kind):
            body = conversion.converted(place.kind, {**body, "apiVersion": place.api_version})
            if options.validation != "Ignore":
                unknown = admit.unknown_fields(place.kind, body)
        body.setdefault("metadata", {})
        problems = [f'unknown field "{path}"' for path in unknown]
        problems += [f'duplicate field "{path}"' for path in parsed.duplicates]
        if problems and options.validation == "Strict":
            kind = place.kind.kind
            raise BadRequestError(
                f'{kind} in version "{place.version}" cannot be handled as a {kind}: strict decoding error: '
                + ", ".join(problems)
            )
        return body, problems if options.validation == "Warn" else []

    def create(self, body: Json, place: Place, user: User, *, uid: str, suffix: str) -> Json:
        """Return a new object as it will be stored.

        Args:
            body: from `decode`; not mutated.
            uid: of the object.
            suffix: random letters that complete a generateName.

        Raises: BadRequestError, AdmissionError, InvalidResourceError.
        """
        fresh = metadata.for_create(
            {**body, "metadata": dict(body["metadata"])}, place, now=self._now(), uid=uid, suffix=suffix
        )
        if not admit.handles(place.kind):
            admitted = core_rules.admit(fresh, None, place.kind)
            self._no_escalation(admitted, None, place, user)
            return admitted
        # The rules of the kind validate what the client wrote, and complete a generated name.
        asked = {**fresh["metadata"], "name": body["metadata"].get("name", "")}
        return admit.admit_create(
            place.kind,
            {**fresh, "metadata": asked},
            user=user.name,
            now=self._now(),
            uid=uid,
            name_suffix=suffix,
            config=self._config(),
        )

    @staticmethod
    def _no_escalation(body: Json, old: Json | None, place: Place, user: User) -> None:
        """Users cannot grant more rights than they have. Raises: ForbiddenError.

        Source: Kubernetes, `pkg/registry/rbac/rolebinding/policybased/storage.go`.
        """
        if place.kind not in (ROLE_BINDING, CLUSTER_ROLE_BINDING):
            return
        if old is not None and (old["roleRef"], old.get("subjects")) == (body["roleRef"], body.get("subjects")):
            return
        binding_name = f'{place.kind.plural}.{RBAC} "{body["metadata"]["name"]}"'
        authorization.refuse_grant(user, body["roleRef"]["name"], place.namespace, binding_name)

    def update(self, body: Json, old: Json, place: Place, user: User) -> Json:
        """Return the next state of an object, with its generation.

        Args:
            body: from `decode`; its metadata is mutated.
            old: the stored object.

        Raises: as `create`; PreconditionError: the body is about an earlier object of that name.
        """
        metadata.for_update(body, old, place)
        if admit.handles(place.kind):
            admitted = admit.admit_update(place.kind, old, body, user=user.name, now=self._now(), config=self._config())
            if "status" in old:
                admitted["status"] = old["status"]
            return admitted
        admitted = core_rules.admit(body, old, place.kind)
        self._no_escalation(admitted, old, place, user)
        metadata.generation(admitted, old)
        return admitted

    def status(self, body: Json, old: Json, place: Place) -> Json:
        """Return the object with a new status, which is all that a write to `/status` changes. Raises: as `create`."""
        metadata.same_object(body["metadata"], old["metadata"], place)
        if admit.handles(place.kind):
            admitted = admit.admit_status(place.kind, old, body)
            return {**old, "status": admitted.get("status", {})}
        return {**old, "status": body.get("status", {})}
