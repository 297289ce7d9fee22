"""Variables and files from other objects: waited for, provided, kept up to date, and removed."""

import base64
import time
from typing import Any

from autoscaler.runtime.model import EngineVolume, File
from knoll.auth import token_key, tokens
from knoll.values import kinds
from knoll.values.errors import RuntimeUnavailableError
from tests.component.autoscaler.conftest import AutoscalerHarness
from tests.doubles.fake_engine import FakeVolume
from tests.unit.autoscaler.sample_revisions import body
from tests.waiting import eventually

WORD = {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "password", "key": "word"}}}
SHOWN = [{"name": "v", "configMap": {"name": "settings"}}]
MOUNTED = [{"name": "v", "mountPath": "/etc/v"}]
DISK = [{"name": "d", "persistentVolumeClaim": {"claimName": "disk"}}]


def asking(
    volumes: list[Any] | None = None, annotations: dict[str, str] | None = None, **container: Any
) -> dict[str, Any]:
    user_container = {
        "name": "user-container",
        "image": "app",
        "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
        **container,
    }
    return {"spec": {"containers": [user_container], "volumes": volumes or []}, "annotations": annotations or {}}


async def put(harness: AutoscalerHarness, kind: kinds.Kind, name: str, **fields: Any) -> None:
    """Create an object, or give it other fields."""
    try:
        there = await harness.store.get(kind.id, "default", name)
        await harness.store.update(kind.id, {**there, **fields})
    except Exception as error:
        if type(error).__name__ != "NotFoundError":
            raise
        meta = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
        made = {"apiVersion": "v1", "kind": kind.kind, "metadata": meta, **fields}
        await harness.store.create(kind.id, made)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def holds(harness: AutoscalerHarness, volume: str, files: dict[str, File]) -> None:
    """Wait until a volume holds exactly these files."""

    def does() -> bool:
        assert volume in harness.engine.volumes, list(harness.engine.volumes)
        assert harness.engine.volumes[volume].files == files
        return True

    await eventually(does, condition=f"{files} in {volume}")


async def test_a_revision_reports_missing_sources_and_starts_once_they_exist(
    harness: AutoscalerHarness,
) -> None:
    await harness.start()
    key = await harness.apply(**asking(env=[WORD]))

    async def waits(message: str) -> bool:
        status = await harness.status(key)
        assert status is not None
        assert status.failure is not None
        failure = (status.failure.condition, status.failure.reason, status.failure.message, status.failure.final)
        assert failure == ("ResourcesAvailable", "CreateContainerConfigError", message, False)
        _, shown = await harness.instances.snapshot()
        assert key in shown
        (row,) = shown[key][1].instances[0].containers
        assert (row.running, row.reason, row.message) == (False, "CreateContainerConfigError", message)
        return True

    await eventually(lambda: waits('secret "password" not found'), condition="that it waits for the Secret")
    await put(harness, kinds.SECRET, "password", data={})
    await eventually(
        lambda: waits("couldn't find key word in Secret default/password"), condition="that it waits for the key"
    )
    await put(harness, kinds.SECRET, "password", data={"word": encoded("sesame")})
    await harness.ready(key)
    (instance,) = harness.engine.instances.values()
    assert instance.spec.containers[0].env["WORD"] == "sesame"
    assert (await harness.has_status(key, actual=1)).failure is None


async def test_a_revision_whose_deadline_is_over_fails_for_what_was_missing_and_still_heals(
    harness: AutoscalerHarness,
) -> None:
    await harness.start()
    annotations = {"serving.knative.dev/progress-deadline": "1s"}
    key = await harness.apply(**asking(env=[WORD], annotations=annotations))
    status = await harness.has_status(key, active="False", active_reason="TimedOut", desired=0)
    assert status.failure is not None
    assert (status.failure.reason, status.failure.final) == ("CreateContainerConfigError", True)
    await put(harness, kinds.SECRET, "password", data={"word": encoded("sesame")})
    await harness.ready(key)


async def test_files_come_before_the_first_instance_and_change_with_their_object(harness: AutoscalerHarness) -> None:
    await put(harness, kinds.CONFIG_MAP, "settings", data={"colour": "blue"})
    await harness.start()
    key = await harness.apply(**asking(SHOWN, volumeMounts=MOUNTED))
    await harness.ready(key)
    (name,) = harness.engine.instances
    assert harness.engine.read(name, "/etc/v/colour") == b"blue"
    await put(harness, kinds.CONFIG_MAP, "settings", data={"colour": "red", "size": "9"})
    await holds(harness, "files.uid-hello-00001.v", {"colour": File(b"red"), "size": File(b"9")})
    assert list(harness.engine.instances) == [name]


async def test_a_volume_keeps_its_content_when_its_object_is_deleted(harness: AutoscalerHarness) -> None:
    await put(harness, kinds.CONFIG_MAP, "settings", data={"colour": "blue"})
    await put(harness, kinds.CONFIG_MAP, "others", data={"size": "1"})
    await harness.start()
    await harness.ready(await harness.apply(**asking(SHOWN, volumeMounts=MOUNTED)))
    await harness.ready(
        await harness.apply(
            "bye-00001", **asking([{"name": "v", "configMap": {"name": "others"}}], volumeMounts=MOUNTED)
        )
    )
    await harness.store.delete(kinds.CONFIG_MAP.id, "default", "settings")
    await put(harness, kinds.CONFIG_MAP, "others", data={"size": "2"})
    await holds(harness, "files.uid-bye-00001.v", {"size": File(b"2")})
    await holds(harness, "files.uid-hello-00001.v", {"colour": File(b"blue")})


async def test_changes_without_a_leader_are_caught_up_with(harness: AutoscalerHarness) -> None:
    await put(harness, kinds.CONFIG_MAP, "settings", data={"colour": "blue"})
    await harness.start()
    await harness.ready(await harness.apply(**asking(SHOWN, volumeMounts=MOUNTED)))
    await harness.stop()
    await put(harness, kinds.CONFIG_MAP, "settings", data={"colour": "red"})
    await harness.start()
    await holds(harness, "files.uid-hello-00001.v", {"colour": File(b"red")})


async def test_volumes_of_a_revision_go_with_it(harness: AutoscalerHarness) -> None:
    await put(harness, kinds.CONFIG_MAP, "settings", data={"colour": "blue"})
    await harness.start()
    annotations = {"autoscaling.knative.dev/window": "6s"}
    key = await harness.apply(**asking(SHOWN, annotations=annotations, volumeMounts=MOUNTED))
    await harness.ready(key)
    await harness.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await eventually(lambda: not harness.engine.volumes, 40, "no volume")
    assert not harness.engine.instances


async def test_volumes_of_a_revision_that_was_deleted_without_a_leader_are_removed(harness: AutoscalerHarness) -> None:
    await put(harness, kinds.CONFIG_MAP, "settings", data={"colour": "blue"})
    await harness.start()
    await harness.ready(await harness.apply(**asking(SHOWN, volumeMounts=MOUNTED)))
    await harness.store.create(kinds.REVISION.id, body("other-00001"))
    await harness.stop()
    await harness.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await harness.start()
    await eventually(lambda: not harness.engine.volumes, 40, "no volume")


async def test_a_claims_volume_outlives_revisions_and_is_removed_with_the_claim_once_unused(
    harness: AutoscalerHarness,
) -> None:
    await harness.start()
    key = await harness.apply(**asking(DISK, volumeMounts=[{"name": "d", "mountPath": "/d"}]))

    async def waits() -> bool:
        status = await harness.status(key)
        assert status is not None
        assert status.failure is not None
        return status.failure.message == 'persistentvolumeclaim "disk" not found'

    await eventually(waits, condition="that it waits for the claim")
    await put(harness, kinds.VOLUME_CLAIM, "disk", spec={})
    await harness.ready(key)
    second = await harness.apply("hello-00002", **asking(DISK, volumeMounts=[{"name": "d", "mountPath": "/d"}]))
    await harness.ready(second)
    assert list(harness.engine.volumes) == ["claim.uid-disk"]
    await harness.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await eventually(lambda: len(harness.engine.instances) == 1, condition="the first Revision is gone")
    await harness.store.delete(kinds.VOLUME_CLAIM.id, "default", "disk")
    await harness.apply("other-00001")
    await harness.ready("default/other-00001")
    assert list(harness.engine.volumes) == ["claim.uid-disk"]
    await harness.store.delete(kinds.REVISION.id, "default", "hello-00002")
    await eventually(lambda: not harness.engine.volumes, 40, "no volume")


async def test_a_claims_volume_is_removed_with_the_claim_also_without_a_revision(harness: AutoscalerHarness) -> None:
    await harness.start()
    await put(harness, kinds.VOLUME_CLAIM, "disk", spec={})
    await harness.ready(await harness.apply(**asking(DISK, volumeMounts=[{"name": "d", "mountPath": "/d"}])))
    await harness.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await harness.gone()
    assert list(harness.engine.volumes) == ["claim.uid-disk"]
    await harness.store.delete(kinds.VOLUME_CLAIM.id, "default", "disk")
    await eventually(lambda: not harness.engine.volumes, 40, "no volume")


async def test_claims_volumes_stay_when_the_store_comes_back_empty(harness: AutoscalerHarness) -> None:
    await harness.start()
    await put(harness, kinds.VOLUME_CLAIM, "disk", spec={})
    await harness.ready(await harness.apply(**asking(DISK, volumeMounts=[{"name": "d", "mountPath": "/d"}])))
    await harness.stop()
    await harness.redis.execute("FLUSHALL")
    await harness.start()
    await put(harness, kinds.VOLUME_CLAIM, "other", spec={})
    harness.engine.volumes["claim.uid-other"] = FakeVolume(
        EngineVolume("claim.uid-other", "claim", "uid-other", "default/other")
    )
    await harness.store.delete(kinds.VOLUME_CLAIM.id, "default", "other")
    # Of the two, the one whose claim was seen to go; they are looked at in the order of their names.
    await eventually(lambda: "claim.uid-other" not in harness.engine.volumes, 40, "the other's volume goes")
    assert "claim.uid-disk" in harness.engine.volumes


async def test_an_engine_that_refuses_a_volume_for_a_while_only_delays_it(harness: AutoscalerHarness) -> None:
    await put(harness, kinds.CONFIG_MAP, "settings", data={"colour": "blue"})
    await harness.start()
    harness.engine.fail("put_files", RuntimeUnavailableError("the engine is busy"))
    await harness.ready(await harness.apply(**asking(SHOWN, volumeMounts=MOUNTED)))
    harness.engine.fail("put_files", RuntimeUnavailableError("the engine is busy"), times=2)
    await put(harness, kinds.CONFIG_MAP, "settings", data={"colour": "red"})
    await holds(harness, "files.uid-hello-00001.v", {"colour": File(b"red")})


async def test_an_instance_gets_the_facts_of_the_machine_from_the_first_start_on(harness: AutoscalerHarness) -> None:
    await harness.start()
    env = [{"name": "CORES", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]
    await harness.ready(await harness.apply(**asking(env=env)))
    (instance,) = harness.engine.instances.values()
    assert instance.spec.containers[0].env["CORES"] == "8"


async def test_a_token_of_the_service_account_waits_for_it_and_can_be_verified(harness: AutoscalerHarness) -> None:
    await harness.start()
    source = {"serviceAccountToken": {"path": "token", "audience": "bank", "expirationSeconds": 600}}
    spec = asking([{"name": "v", "projected": {"sources": [source]}}], volumeMounts=MOUNTED)
    spec["spec"]["serviceAccountName"] = "robot"
    key = await harness.apply(**spec)

    async def says() -> bool:
        status = await harness.status(key)
        return bool(status and status.failure and 'serviceaccount "robot" not found' in status.failure.message)

    await eventually(says, condition="the reason")
    await put(harness, kinds.SERVICE_ACCOUNT, "robot")
    await harness.ready(key)
    (name,) = harness.engine.instances
    token = harness.engine.read(name, "/etc/v/token")
    assert token is not None
    claims = tokens.verify(await token_key.shared_key(harness.redis), token.decode(), time.time(), "bank")
    assert (claims.username, claims.uid) == ("system:serviceaccount:default:robot", "uid-robot")
    assert claims.expires <= time.time() + 600
