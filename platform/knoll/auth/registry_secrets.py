"""Reads the credentials that an object may use for image registries."""

import asyncio
from dataclasses import dataclass

from knoll.auth.registry_auth import PLATFORM_SECRET, Credential, credentials, secret_names
from knoll.store.protocol import Store
from knoll.values import kinds
from knoll.values.errors import ImageError, NotFoundError
from knoll.values.json import Json


@dataclass(frozen=True, slots=True)
class RegistryCredentials:
    """Usable credentials, and the problems of the other Secrets."""

    credentials: tuple[Credential, ...] = ()
    """The object's own come before those that all namespaces use."""
    problems: tuple[str, ...] = ()
    """Secrets that are missing or malformed. As on Kubernetes, the image is then pulled without them."""

    @property
    def hint(self) -> str:
        """The problems, as the end of an error message; empty without any."""
        return "".join(f"; {problem}" for problem in self.problems)


async def read(store: Store, namespace: str, spec: Json) -> RegistryCredentials:
    """Credentials of a Revision's or Build's `imagePullSecrets`, its ServiceAccount's, and the platform's.

    Raises: StoreUnavailableError.
    """
    account, of_platform = await asyncio.gather(
        _find(store, kinds.SERVICE_ACCOUNT.id, namespace, spec.get("serviceAccountName") or "default"),
        _find(store, kinds.SECRET.id, *PLATFORM_SECRET),
    )
    named = [(namespace, name) for name in secret_names(spec, account)]
    readable: list[Credential] = []
    problems: list[str] = []
    for place in [*named, PLATFORM_SECRET]:
        secret = of_platform if place == PLATFORM_SECRET else await _find(store, kinds.SECRET.id, *place)
        if secret is None:
            if place != PLATFORM_SECRET:
                problems.append(f"the Secret {place[0]}/{place[1]} in imagePullSecrets does not exist")
            continue
        try:
            readable += credentials(secret)
        except ImageError as error:
            problems.append(str(error))
    return RegistryCredentials(tuple(readable), tuple(problems))


async def _find(store: Store, resource: str, namespace: str, name: str) -> Json | None:
    try:
        return await store.get(resource, namespace, name)
    except NotFoundError:
        return None
