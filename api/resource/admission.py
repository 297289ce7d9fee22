"""What stands between a request's body and the store: field validation, defaults, and the rules of each kind."""

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
    """Decides about bodies; touches nothing outside."""

    def __init__(
        self,
        config: Callable[[], PlatformConfig] = PlatformConfig,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            config: gives the platform's configuration as it is now.
            now: gives epoch seconds.
        """
        self._config = config
        self._now = now

    def decode(
        self, parsed: bodies.Parsed, place: Place, options: WriteOptions, subresource: str = ""
    ) -> tuple[Json, list[str]]:
        """The body as an object of the path's kind in the version it is stored in, and warnings about it.

        A status goes along only to the path of its own: elsewhere nobody may be blamed for what is in it.

        Raises:
            BadRequestError: another kind or version; with `fieldValidation=Strict` also unknown and repeated fields.
            InvalidResourceError: values of wrong types, as far as nothing later tells of them.
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
        """A new object as it is to be stored.

        Args:
            body: as `decode` gave it; not changed.
            uid: for the object.
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
        # A generated name is completed by the rules of the kind, which judge what the client wrote.
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
        """No one grants more rights than they have. Raises: ForbiddenError.

        Source: Kubernetes, `pkg/registry/rbac/rolebinding/policybased/storage.go`.
        """
        if place.kind not in (ROLE_BINDING, CLUSTER_ROLE_BINDING):
            return
        if old is not None and (old["roleRef"], old.get("subjects")) == (body["roleRef"], body.get("subjects")):
            return
        binding_name = f'{place.kind.plural}.{RBAC} "{body["metadata"]["name"]}"'
        authorization.refuse_grant(user, body["roleRef"]["name"], place.namespace, binding_name)

    def update(self, body: Json, old: Json, place: Place, user: User) -> Json:
        """The next state of an object, its generation counted.

        Args:
            body: as `decode` gave it; its metadata is changed.
            old: as it is stored.

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
        """The object with another status: all that a write to `/status` may change. Raises: as `create`."""
        metadata.same_object(body["metadata"], old["metadata"], place)
        if admit.handles(place.kind):
            admitted = admit.admit_status(place.kind, old, body)
            return {**old, "status": admitted.get("status", {})}
        return {**old, "status": body.get("status", {})}
