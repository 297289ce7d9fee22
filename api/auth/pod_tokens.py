"""Tokens that code in an instance gets (projected volumes of `serviceAccountToken`): no one deploys code that gets a
token with more rights than they have themselves.

Kubernetes lets everyone who may create Pods in a namespace run them as any ServiceAccount there. Here the token is the
only thing that a ServiceAccount gives to code, so the same rule holds for it as for `kubectl create token`. Rights that
are bound to a ServiceAccount later reach the code that runs with its token already.
"""

from dataclasses import replace

from api.auth import access, authorization
from api.auth.identity import User, service_account
from api.wire.metadata import Place
from knoll.store.protocol import Store
from knoll.values.json import Json
from knoll.values.kinds import CONFIGURATION, REVISION, SERVICE


async def check(store: Store, place: Place, body: Json, old: Json | None, user: User) -> None:
    """Look at an object that is about to be written.

    Args:
        body: as it is to be stored.
        old: as it is stored; what does not change in it is not looked at again.
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
    """The containers and volumes that an object describes; empty when its kind has none."""
    spec: Json = body.get("spec") or {}
    if place.kind in (SERVICE, CONFIGURATION):
        return (spec.get("template") or {}).get("spec") or {}
    return spec if place.kind == REVISION else {}


def takes_token(spec: Json) -> bool:
    """Whether a volume brings a token of the ServiceAccount into a container."""
    return any(
        "serviceAccountToken" in source
        for volume in spec.get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
    )
