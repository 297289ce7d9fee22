"""Creates the objects that every installation has: namespaces, roles, the owner, the gateway that clients look up."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable

import structlog

from api.auth import authorization
from api.controllers.pods import knative_objects
from api.resource import core_rules
from api.wire import metadata
from api.wire.metadata import Place
from knoll.auth.kubeconfig import OWNER
from knoll.auth.tenancy import OWNER_BINDING
from knoll.concurrency.backoff import until_available
from knoll.config.platform import default_config_maps
from knoll.process.settings import ApiSettings
from knoll.store.protocol import Store
from knoll.values.errors import AlreadyExistsError, ConflictError, NotFoundError, StoreUnavailableError
from knoll.values.json import Json
from knoll.values.kinds import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    CONFIG_MAP,
    CORE_SERVICE,
    ENDPOINT_SLICE,
    NAMESPACE,
    SERVICE_ACCOUNT,
    Kind,
)
from knoll.values.labels import SYSTEM_NAMESPACE

log = structlog.get_logger()

CREDENTIALS_NAMESPACE = "kube-system"
"""Namespace of the platform's own credentials, as on Kubernetes."""
NAMESPACES = ("default", SYSTEM_NAMESPACE, "istio-system", "kube-public", CREDENTIALS_NAMESPACE)
GATEWAY = ("istio-system", "istio-ingressgateway")
"""Where clients of Knative look for the ingress, whatever its implementation."""
ACTIVATOR = (SYSTEM_NAMESPACE, "activator-service")
LAST = GATEWAY
"""The object that is created last; the API is ready when it exists."""
_CHECK_SECONDS = 5.0


async def _nothing() -> None:
    pass


async def ensure(store: Store, settings: ApiSettings, on_created: Callable[[], Awaitable[None]] = _nothing) -> None:
    """Create all objects, again whenever the store has lost them, and call `on_created` each time."""
    while True:
        await create_all(store, settings)
        await until_available(
            on_created,
            "credentials not written",
            (ConflictError, NotFoundError, OSError, StoreUnavailableError),
        )
        with contextlib.suppress(NotFoundError):
            while True:
                await asyncio.sleep(_CHECK_SECONDS)
                with contextlib.suppress(StoreUnavailableError):
                    await store.get(NAMESPACE.id, "", NAMESPACES[0])


async def create_all(store: Store, settings: ApiSettings) -> None:
    """Create missing objects and update the gateway; retries until the store is available."""
    await until_available(
        lambda: _create_all(store, settings),
        "initial objects not created",
        (ConflictError, NotFoundError, StoreUnavailableError),
    )


async def _create_all(store: Store, settings: ApiSettings) -> None:
    for name in NAMESPACES:
        await create_missing(store, NAMESPACE, "", name, {})
    for role in authorization.cluster_roles():
        await create_or_update(store, CLUSTER_ROLE, "", role["metadata"]["name"], role)
    await create_missing(store, SERVICE_ACCOUNT, *OWNER, {})
    await create_missing(store, CLUSTER_ROLE_BINDING, "", OWNER_BINDING, _owned())
    for body in default_config_maps():
        await create_missing(store, CONFIG_MAP, SYSTEM_NAMESPACE, body["metadata"]["name"], body)
    await _activator(store, settings)
    await _gateway(store, settings)


async def create_missing(store: Store, kind: Kind, namespace: str, name: str, content: Json) -> None:
    """Create an object unless it exists."""
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, **content}
    body["metadata"] = dict(body["metadata"])
    place = Place(kind, kind.version, namespace)
    metadata.for_create(body, place, now=time.time(), uid=str(uuid.uuid4()), suffix="")
    if content.get("status"):
        body["status"] = content["status"]
    try:
        await store.create(kind.id, core_rules.admit(body, None, kind))
    except AlreadyExistsError:
        return


async def create_or_update(store: Store, kind: Kind, namespace: str, name: str, content: Json) -> None:
    """Create an object, or update the existing one."""
    await create_missing(store, kind, namespace, name, content)
    current = await store.get(kind.id, namespace, name)
    await store.update(
        kind.id, core_rules.admit({**current, **content, "metadata": current["metadata"]}, current, kind)
    )


def _owned() -> Json:
    namespace, name = OWNER
    return {
        "roleRef": {"apiGroup": authorization.RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": name}],
    }


async def _gateway(store: Store, settings: ApiSettings) -> None:
    namespace, name = GATEWAY
    ports = [_port("http2", 80, settings.public_port)]
    if settings.public_https_port:
        ports.append(_port("https", 443, settings.public_https_port))
    content = {
        "spec": {"type": "LoadBalancer", "ports": ports},
        "status": {"loadBalancer": {"ingress": [{"ip": settings.gateway_address}]}},
    }
    await create_or_update(store, CORE_SERVICE, namespace, name, content)


def _port(name: str, port: int, published: int) -> Json:
    return {"name": name, "port": port, "targetPort": published, "nodePort": published, "protocol": "TCP"}


async def _activator(store: Store, settings: ApiSettings) -> None:
    """The activator's Service and EndpointSlice, from which clients of Knative learn whether it is in the path."""
    namespace, name = ACTIVATOR
    await create_or_update(
        store, CORE_SERVICE, namespace, name, {"spec": {"ports": [_port("http", 80, settings.public_port)]}}
    )
    endpoints = knative_objects.activator_slice(
        knative_objects.ActivatorAddress(settings.gateway_address, settings.public_port)
    )
    labels = {knative_objects.SERVICE_NAME: name}
    await create_or_update(
        store, ENDPOINT_SLICE, namespace, name, {"metadata": {"name": name, "labels": labels}, **endpoints}
    )
