"""ResourceQuotas, used by many clients at once."""

import asyncio
from collections.abc import Callable
from typing import Any

from knoll.values.json import Json
from tests.component.api.conftest import CONFIG_MAPS, Running

QUOTAS = "/api/v1/namespaces/default/resourcequotas"


def bounds(name: str = "team", **more: Any) -> Json:
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": more}


async def test_concurrent_creations_do_not_exceed_a_quota(api: Running, config_map: Callable[..., Json]) -> None:
    assert (await api.client.post(QUOTAS, json=bounds(hard={"configmaps": "5"}))).status_code == 201
    answers = await asyncio.gather(*(api.client.post(CONFIG_MAPS, json=config_map(f"m{at}")) for at in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [403] * 15
    refused = next(answer.json() for answer in answers if answer.status_code == 403)
    assert refused["reason"] == "Forbidden"
    assert (
        "exceeded quota: team, requested: configmaps=1, used: configmaps=5, limited: configmaps=5" in refused["message"]
    )


async def test_claims_are_bounded_by_their_size(api: Running) -> None:
    await api.client.post(QUOTAS, json=bounds(hard={"requests.storage": "3Gi"}))
    codes = []
    for name, size in (("a", "2Gi"), ("b", "2Gi"), ("c", "1Gi")):
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
        path = "/api/v1/namespaces/default/persistentvolumeclaims"
        codes.append((await api.client.post(path, json=claim)).status_code)
    assert codes == [201, 403, 201]


async def test_quotas_elsewhere_or_with_scopes_bound_nothing(api: Running, config_map: Callable[..., Json]) -> None:
    scoped = bounds("scoped", hard={"configmaps": "0"}, scopes=["Terminating"])
    assert (await api.client.post(QUOTAS, json=scoped)).status_code == 201
    elsewhere = QUOTAS.replace("default", "knative-serving")
    assert (await api.client.post(elsewhere, json=bounds(hard={"configmaps": "0"}))).status_code == 201
    assert (await api.client.post(CONFIG_MAPS, json=config_map())).status_code == 201
