"""Guards `serviceAccountToken` volumes: users cannot deploy code with a token that has more rights than they have.

Kubernetes lets users who may create Pods in a namespace run them as any ServiceAccount there. Here the token is the
only thing that code gets from a ServiceAccount, so the rule of `kubectl create token` applies to it as well. Rights
that are bound to a ServiceAccount later also reach code that already runs with its token.
"""

from dataclasses import replace

from api.auth import access, authorization
from api.auth.identity import User, service_account
from api.wire.metadata import Place
from knoll.store.protocol import Store
from knoll.values.json import Json
from knoll.values.kinds import CONFIGURATION, REVISION, SERVICE


async def check(store: Store, place: Place, body: Json, old: Json | None, user: User) -> None:
    """Check an object before it is written.

    Args:
        body: as it is to be stored.
        old: the stored object; an unchanged PodSpec is not checked again.
        user: with roles.

    Raises: ForbiddenError.
    """
    spec = pod_spec(place, body)
    if not takes_token(spec) or (old is not None and pod_spec(place, old) == spec):
        return
    account = service_account(place.namespace, spec.get("serviceAccountName") or "default")
    account = replace(account, roles=authorization.roles_of(account, await access.bindings(store)))
    authorization.refuse_more(user, account, "run code with a token")


def pod_spec(place: Place, body: Json) -> Json:
    """The PodSpec in an object; empty if its kind has none."""
    spec: Json = body.get("spec") or {}
    if place.kind in (SERVICE, CONFIGURATION):
        return (spec.get("template") or {}).get("spec") or {}
    return spec if place.kind == REVISION else {}


def takes_token(spec: Json) -> bool:
    """Whether a volume projects a token of the ServiceAccount."""
    return any(
        "serviceAccountToken" in source
        for volume in spec.get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
    )
