"""Writes of objects through admission, as the API makes them."""

from typing import Any

import pytest

from knoll.config.platform import PlatformConfig
from knoll.resources.admission.admit import admit_create, admit_update
from knoll.values import kinds
from knoll.values.errors import AdmissionError, InvalidResourceError
from knoll.values.json import Json
from knoll.values.kinds import Kind

CONFIG = PlatformConfig()
NOW = 1_000_000_000
CREATOR, MODIFIER = "serving.knative.dev/creator", "serving.knative.dev/lastModifier"


def create(body: Json, kind: Kind = kinds.SERVICE, *, user: str = "ann", config: PlatformConfig = CONFIG) -> Json:
    return admit_create(kind, body, user=user, now=NOW, uid="u-1", name_suffix="x7k2p", config=config)


def update(
    old: Json, new: Json, kind: Kind = kinds.SERVICE, *, user: str = "bob", config: PlatformConfig = CONFIG
) -> Json:
    return admit_update(kind, old, new, user=user, now=NOW + 60, config=config)


def refused(call: Any, *arguments: Any, **options: Any) -> list[str]:
    with pytest.raises((AdmissionError, InvalidResourceError)) as caught:
        call(*arguments, **options)
    return [str(cause) for cause in getattr(caught.value, "causes")]  # noqa: B009  # of both


def object_of(kind: Kind, spec: Json | None, **metadata: Any) -> Json:
    meta = {"name": "hello", "namespace": "default", **metadata}
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "spec": spec}
    return {key: value for key, value in body.items() if value is not None}


def service(image: str = "app:v1", name: str = "", traffic: list[Json] | None = None, **metadata: Any) -> Json:
    template: Json = {"spec": {"containers": [{"image": image}]}}
    if name:
        template["metadata"] = {"name": name}
    spec: Json = {"template": template}
    if traffic is not None:
        spec["traffic"] = traffic
    return object_of(kinds.SERVICE, spec, **metadata)
