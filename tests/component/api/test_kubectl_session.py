"""A session of the real kubectl against the API as a process, with its controllers: the commands and their output."""

import asyncio
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.component.api.conftest import Kubectl
from tests.component.api.processes import ApiProcess
from tests.conftest import need
from tests.waiting import eventually

pytestmark = [pytest.mark.kubectl, pytest.mark.redis]

Write = Callable[[str], str]

SHORT = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: NAME
spec:
  template:
    spec:
      containers:
      - image: registry.example/hello:v1
        env:
        - name: RESOURCE
          value: v1
"""
FULL = (
    SHORT
    + """\
        name: user-container
        readinessProbe:
          successThreshold: 1
          tcpSocket:
            port: 0
        resources: {}
"""
)
"""The same with the defaults of its lists written out."""


@pytest.fixture(scope="module")
def process(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    client = redis.Redis.from_url(redis_server)
    client.flushall()
    client.close()
    with ApiProcess(redis_server, tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
def kubectl(process: ApiProcess, tmp_path: Path) -> Kubectl:
    need("KUBECTL", shutil.which("kubectl") is not None)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config").touch()
    return Kubectl("kubectl", process.url, tmp_path / "home")


@pytest.fixture
def manifest(tmp_path: Path) -> Write:
    """Writes a text into a file; returns its path."""

    def write(text: str) -> str:
        path = tmp_path / f"file-{abs(hash(text))}.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
async def applied(kubectl: Kubectl, manifest: Write, request: pytest.FixtureRequest) -> str:
    """A Service of this test alone, all of whose children are there; its name."""
    name = re.sub(r"[^a-z]+", "-", request.node.name)[5:40].strip("-")
    created = await kubectl("apply", "-f", manifest(SHORT.replace("NAME", name)))
    assert created == f"service.serving.knative.dev/{name} created\n"
    await reconciled(kubectl, name)
    return name


async def reconciled(kubectl: Kubectl, name: str, generation: int = 1) -> None:
    """Wait until the controllers have done what they can without a runtime."""
    for condition in (
        f"{{.status.latestCreatedRevisionName}}={name}-0000{generation}",
        f"{{.status.observedGeneration}}={generation}",
    ):
        await kubectl("wait", f"ksvc/{name}", f"--for=jsonpath={condition}", "--timeout=60s")
    await eventually(lambda: settled(kubectl, name), within=60, condition="the statuses")


async def settled(kubectl: Kubectl, name: str) -> bool:
    """Whether two looks in a row, with kubectl's own work in between, see the same versions."""
    first, second = await versions(kubectl, name), await versions(kubectl, name)
    return first == second and f"{name}-00001" in first


async def versions(kubectl: Kubectl, name: str) -> str:
    """Versions of the Service and all of its children."""
    columns = "custom-columns=K:.kind,N:.metadata.name,V:.metadata.resourceVersion,G:.metadata.generation"
    kinds = "ksvc,configurations,revisions,routes"
    selector = f"serving.knative.dev/service={name}"
    return await kubectl("get", kinds, "-l", selector, "-o", columns) + await kubectl(
        "get", "ksvc", name, "-o", columns
    )


async def field(kubectl: Kubectl, name: str, path: str) -> str:
    return await kubectl("get", "ksvc", name, "-o", f"jsonpath={{{path}}}")


# Applying again. kubectl compares lists as wholes with what is stored, where the defaults are, so it sends a patch and
# says "configured", on a cluster as here. What counts is that nothing is written.


async def test_applying_again_writes_nothing(kubectl: Kubectl, manifest: Write, applied: str) -> None:
    before = await versions(kubectl, applied)
    for _ in range(3):
        output = await kubectl("apply", "-f", manifest(SHORT.replace("NAME", applied)))
        assert output == f"service.serving.knative.dev/{applied} configured\n"
    assert await versions(kubectl, applied) == before
    sent = await kubectl.run("apply", "-v=8", "-f", manifest(SHORT.replace("NAME", applied)))
    patch = re.search(r'Request Body" body="(\{\\"spec\\".*)"$', sent.err, re.M)
    assert patch is not None
    containers = [{"env": [{"name": "RESOURCE", "value": "v1"}], "image": "registry.example/hello:v1"}]
    assert json.loads(json.loads(f'"{patch[1]}"')) == {"spec": {"template": {"spec": {"containers": containers}}}}


async def test_applying_again_with_the_defaults_of_lists_is_unchanged(kubectl: Kubectl, manifest: Write) -> None:
    full = manifest(FULL.replace("NAME", "complete"))
    assert await kubectl("apply", "-f", full) == "service.serving.knative.dev/complete created\n"
    await reconciled(kubectl, "complete")
    before = await versions(kubectl, "complete")
    assert await kubectl("apply", "-f", full) == "service.serving.knative.dev/complete unchanged\n"
    assert await versions(kubectl, "complete") == before
    changed = manifest(FULL.replace("NAME", "complete").replace("value: v1", "value: v2"))
    assert await kubectl("apply", "-f", changed) == "service.serving.knative.dev/complete configured\n"
    await reconciled(kubectl, "complete", 2)
    assert await field(kubectl, "complete", ".metadata.generation") == "2"


async def test_server_side_apply_writes_once_conflicts_and_forces(kubectl: Kubectl, manifest: Write) -> None:
    text = SHORT.replace("NAME", "server-side")
    for _ in range(2):
        output = await kubectl("apply", "--server-side", "-f", manifest(text))
        assert output == "service.serving.knative.dev/server-side serverside-applied\n"
    await reconciled(kubectl, "server-side")
    before = await versions(kubectl, "server-side")
    await kubectl("apply", "--server-side", "-f", manifest(text))
    assert await versions(kubectl, "server-side") == before
    other = manifest(text.replace("value: v1", "value: v2"))
    refused = await kubectl.run("apply", "--server-side", "--field-manager=ci", "-f", other)
    assert refused.code == 1
    assert 'conflict with "kubectl"' in refused.err
    assert ".spec.template.spec.containers" in refused.err
    assert await versions(kubectl, "server-side") == before
    await kubectl("apply", "--server-side", "--field-manager=ci", "--force-conflicts", "-f", other)
    await reconciled(kubectl, "server-side", 2)
    managers = "jsonpath={.metadata.managedFields[*].manager}"
    assert "ci" in await kubectl("get", "ksvc", "server-side", "-o", managers, "--show-managed-fields")


# Looking.


async def test_get_in_every_form(kubectl: Kubectl, manifest: Write, applied: str) -> None:
    other = f"{applied}-b"
    await kubectl("apply", "-f", manifest(SHORT.replace("NAME", other)))
    await kubectl("label", "ksvc", applied, other, "test=forms")
    chosen = ("ksvc", "-l", "test=forms")
    header, *rows = (await kubectl("get", *chosen, "-o", "wide")).splitlines()
    assert header.split()[:2] == ["NAME", "URL"]
    assert [row.split()[0] for row in rows] == [applied, other]
    assert (await kubectl("get", *chosen, "-A")).splitlines()[1].split()[:2] == ["default", applied]
    names = f"service.serving.knative.dev/{applied}\nservice.serving.knative.dev/{other}\n"
    assert await kubectl("get", *chosen, "-o", "name") == names
    assert json.loads(await kubectl("get", *chosen, "-o", "json"))["kind"] == "List"
    assert "apiVersion: v1\nitems:\n- apiVersion: serving.knative.dev/v1" in await kubectl("get", *chosen, "-o", "yaml")
    assert await kubectl("get", *chosen, "-o", "jsonpath={.items[*].metadata.name}") == f"{applied} {other}"
    template = "go-template={{range .items}}{{.metadata.name}} {{.metadata.generation}};{{end}}"
    assert await kubectl("get", *chosen, "-o", template) == f"{applied} 1;{other} 1;"
    columns = "custom-columns=NAME:.metadata.name,IMAGE:.spec.template.spec.containers[0].image"
    rows = (await kubectl("get", *chosen, "-o", columns, "--no-headers")).splitlines()
    assert rows[0].split() == [applied, "registry.example/hello:v1"]
    by_age = await kubectl("get", *chosen, "--sort-by=.metadata.creationTimestamp", "-o", "name")
    assert by_age == names
    only = await kubectl("get", *chosen, "--field-selector", f"metadata.name={other}", "-o", "name")
    assert only == f"service.serving.knative.dev/{other}\n"
    assert (await kubectl("get", *chosen, "-L", "test")).splitlines()[1].split()[-1] == "forms"
    raw = json.loads(await kubectl("get", "--raw", f"/apis/serving.knative.dev/v1/namespaces/default/services/{other}"))
    assert raw["metadata"]["name"] == other


async def test_get_all_shows_the_whole_family(kubectl: Kubectl, applied: str) -> None:
    output = await kubectl("get", "all", "-l", f"serving.knative.dev/service={applied}", "-o", "name")
    assert {
        f"configuration.serving.knative.dev/{applied}",
        f"revision.serving.knative.dev/{applied}-00001",
        f"route.serving.knative.dev/{applied}",
    } <= set(output.splitlines())


async def test_a_watch_prints_every_change(kubectl: Kubectl, applied: str) -> None:
    watch = await kubectl.start("get", "ksvc", applied, "-w", "--output-watch-events")
    try:
        assert watch.stdout is not None
        async with asyncio.timeout(60):
            assert (await watch.stdout.readline()).split()[:3] == [b"EVENT", b"NAME", b"URL"]
            assert (await watch.stdout.readline()).split()[:2] == [b"ADDED", applied.encode()]
            await kubectl("annotate", "ksvc", applied, "example.com/note=hi")
            assert (await watch.stdout.readline()).split()[0] == b"MODIFIED"
            await kubectl("delete", "ksvc", applied, "--wait=false")
            while (await watch.stdout.readline()).split()[0] != b"DELETED":
                pass
    finally:
        watch.kill()
        await watch.wait()


async def test_describe_shows_the_events_of_the_controllers(kubectl: Kubectl, applied: str) -> None:
    async def described() -> str:
        text = await kubectl("describe", "ksvc", applied)
        assert f'Created Configuration "{applied}"' in text
        assert f'Created Route "{applied}"' in text
        return text

    text = await eventually(described, within=60, condition="the events")
    assert re.search(r"^Kind: +Service$", text, re.M)
    assert re.search(r"^  Normal +Created ", text, re.M)
    assert "Created" in await kubectl("get", "events", "--field-selector", f"involvedObject.name={applied}")
    assert "Latest Created Revision Name" in text


async def test_explain_and_api_resources(kubectl: Kubectl) -> None:
    for path in ("ksvc.spec.template", "revision.spec.containers", "route.spec.traffic", "quota.spec"):
        assert "DESCRIPTION:" in await kubectl("explain", path)
    listed = await kubectl("api-resources", "--api-group=serving.knative.dev", "-o", "name")
    assert set(listed.split()) == {
        f"{plural}.serving.knative.dev"
        for plural in ("services", "configurations", "revisions", "routes", "domainmappings")
    }
    unknown = await kubectl.run("explain", "ksvc.spec.tempalte")
    assert unknown.code == 1
    assert 'field "tempalte" does not exist' in unknown.err


async def test_wait_for_a_condition_a_path_and_an_end(kubectl: Kubectl, applied: str) -> None:
    for condition in ("Ready", "ConfigurationsReady", "RoutesReady"):
        output = await kubectl("wait", f"ksvc/{applied}", f"--for=condition={condition}=Unknown", "--timeout=60s")
        assert output == f"service.serving.knative.dev/{applied} condition met\n"
    late = await kubectl.run("wait", f"ksvc/{applied}", "--for=condition=Ready", "--timeout=1s")
    assert late.code == 1
    assert f"timed out waiting for the condition on services/{applied}" in late.err
    ended = asyncio.create_task(kubectl("wait", f"ksvc/{applied}", "--for=delete", "--timeout=60s"))
    await kubectl("delete", "ksvc", applied)
    assert await ended in ("", f"service.serving.knative.dev/{applied} condition met\n")


# Changing.


async def test_patch_in_every_form(kubectl: Kubectl, applied: str) -> None:
    patched = f"service.serving.knative.dev/{applied} patched\n"
    nothing = f"service.serving.knative.dev/{applied} patched (no change)\n"
    merge = ("patch", "ksvc", applied, "--type=merge", "-p", '{"metadata":{"labels":{"team":"red"}}}')
    assert await kubectl(*merge) == patched
    assert await kubectl(*merge) == nothing
    steps = (
        '[{"op":"test","path":"/metadata/labels/team","value":"red"},'
        '{"op":"replace","path":"/spec/template/spec/containers/0/env/0/value","value":"v2"}]'
    )
    assert await kubectl("patch", "ksvc", applied, "--type=json", "-p", steps) == patched
    await reconciled(kubectl, applied, 2)
    failed = await kubectl.run("patch", "ksvc", applied, "--type=json", "-p", steps.replace("red", "blue"))
    assert failed.code == 1
    strategic = await kubectl.run("patch", "ksvc", applied, "-p", "{}")
    assert "strategic-merge-patch" in strategic.err
    bad = await kubectl.run("patch", "ksvc", applied, "--type=merge", "-p", '{"spec":{"template":{"spec":null}}}')
    assert "spec.template.spec" in bad.err
    status = '{"status":{"url":"http://elsewhere.example"}}'
    output = await kubectl("patch", "ksvc", applied, "--type=merge", "--subresource=status", "-p", status)
    assert output == patched
    assert await field(kubectl, applied, ".metadata.generation") == "2"


async def test_annotate_and_label_add_change_and_remove(kubectl: Kubectl, applied: str) -> None:
    target = f"service.serving.knative.dev/{applied}"
    assert await kubectl("label", "ksvc", applied, "a=1") == f"{target} labeled\n"
    refused = await kubectl.run("label", "ksvc", applied, "a=2")
    assert "already has a value (1), and --overwrite is false" in refused.err
    assert await kubectl("label", "ksvc", applied, "a=2", "--overwrite") == f"{target} labeled\n"
    assert await kubectl("label", "ksvc", applied, "a-") == f"{target} unlabeled\n"
    assert await kubectl("annotate", "ksvc", applied, "example.com/a=1") == f"{target} annotated\n"
    assert await kubectl("annotate", "ksvc", applied, "example.com/a-") == f"{target} annotated\n"
    assert await field(kubectl, applied, ".metadata.generation") == "1"
    bad = await kubectl.run("label", "ksvc", applied, "a=not valid")
    assert "invalid label value" in bad.err


async def edit(kubectl: Kubectl, script: str, *target: str) -> tuple[int, str]:
    """`kubectl edit` with a shell script as the editor; its exit code and all that it said."""
    command, environment = kubectl.command("edit", *target)
    pipe = asyncio.subprocess.PIPE
    started = await asyncio.create_subprocess_exec(
        *command, stdout=pipe, stderr=asyncio.subprocess.STDOUT, env={**environment, "KUBE_EDITOR": f"sh {script}"}
    )
    out, _ = await asyncio.wait_for(started.communicate(), 60)
    return started.returncode or 0, out.decode()


async def test_edit_changes_or_leaves_alone(kubectl: Kubectl, manifest: Write, applied: str) -> None:
    code, output = await edit(kubectl, manifest('sed -i "s/value: v1/value: v2/" $1'), "ksvc", applied)
    assert (code, output) == (0, f"service.serving.knative.dev/{applied} edited\n")
    await reconciled(kubectl, applied, 2)
    assert await field(kubectl, applied, ".spec.template.spec.containers[0].env[0].value") == "v2"
    code, output = await edit(kubectl, manifest("true"), "ksvc", applied)
    assert (code, output) == (0, "Edit cancelled, no changes made.\n")
    # Once, the editor writes a value that is refused; then it leaves the file as it is.
    once = manifest('grep -q "^# .*negative" $1 || sed -i "s/containerConcurrency: 0/containerConcurrency: -1/" $1')
    code, output = await edit(kubectl, once, "ksvc", applied)
    assert code == 1
    assert "containerConcurrency" in output
    assert await field(kubectl, applied, ".metadata.generation") == "2"


async def test_diff_reports_by_its_exit_code(kubectl: Kubectl, manifest: Write, applied: str) -> None:
    before = await versions(kubectl, applied)
    same = await kubectl.run("diff", "-f", manifest(SHORT.replace("NAME", applied)))
    assert (same.code, same.out) == (0, "")
    other = await kubectl.run("diff", "-f", manifest(SHORT.replace("NAME", applied).replace("value: v1", "value: v2")))
    assert other.code == 1
    assert re.search(r"^-\s+value: v1$", other.out, re.M)
    assert re.search(r"^\+\s+value: v2$", other.out, re.M)
    misspelt = manifest(SHORT.replace("NAME", applied).replace("image:", "imag:"))
    assert (await kubectl.run("diff", "-f", misspelt)).code > 1
    absent = await kubectl.run("diff", "-f", manifest(SHORT.replace("NAME", "not-there-yet")))
    assert absent.code == 1
    assert await versions(kubectl, applied) == before
    assert (await kubectl.run("get", "ksvc", "not-there-yet")).code == 1


async def test_dry_runs_keep_nothing(kubectl: Kubectl, manifest: Write, applied: str) -> None:
    before = await versions(kubectl, applied)
    changed = manifest(SHORT.replace("NAME", applied).replace("value: v1", "value: v2"))
    assert "(server dry run)" in await kubectl("apply", "--dry-run=server", "-f", changed)
    assert "(server dry run)" in await kubectl("replace", "--dry-run=server", "-f", changed)
    assert "(server dry run)" in await kubectl("label", "ksvc", applied, "a=b", "--dry-run=server")
    assert "(server dry run)" in await kubectl("delete", "ksvc", applied, "--dry-run=server")
    anew = await kubectl("create", "--dry-run=server", "-o", "yaml", "-f", manifest(SHORT.replace("NAME", "never")))
    assert "name: user-container" in anew
    assert "uid: " in anew
    refused = await kubectl.run("create", "--dry-run=server", "-f", manifest(SHORT.replace("NAME", "Not_A_Name")))
    assert "metadata.name" in refused.err
    assert await versions(kubectl, applied) == before
    assert (await kubectl.run("get", "ksvc", "never")).code == 1


async def test_replace_keeps_or_starts_over(kubectl: Kubectl, manifest: Write, applied: str) -> None:
    uid = await field(kubectl, applied, ".metadata.uid")
    changed = manifest(SHORT.replace("NAME", applied).replace("value: v1", "value: v2"))
    assert await kubectl("replace", "-f", changed) == f"service.serving.knative.dev/{applied} replaced\n"
    await reconciled(kubectl, applied, 2)
    assert await field(kubectl, applied, ".metadata.uid") == uid
    output = await kubectl("replace", "--force", "-f", changed)
    assert output.endswith(f"service.serving.knative.dev/{applied} replaced\n")
    await reconciled(kubectl, applied)
    assert await field(kubectl, applied, ".metadata.uid") != uid


async def test_create_makes_a_name(kubectl: Kubectl, manifest: Write) -> None:
    text = manifest(SHORT.replace("name: NAME", "generateName: made-"))
    names = [(await kubectl("create", "-f", text, "-o", "name")).strip() for _ in range(2)]
    assert all(re.fullmatch(r"service\.serving\.knative\.dev/made-[a-z0-9]{5}", name) for name in names)
    assert len(set(names)) == 2
    assert "cannot use generate name with apply" in (await kubectl.run("apply", "-f", text)).err


# Deleting.


async def test_a_background_delete_takes_the_children_along(kubectl: Kubectl, applied: str) -> None:
    assert await kubectl("delete", "ksvc", applied) == f'service.serving.knative.dev "{applied}" deleted\n'

    async def gone() -> bool:
        kinds = "ksvc,configurations,revisions,routes"
        return await kubectl("get", kinds, "-l", f"serving.knative.dev/service={applied}", "-o", "name") == ""

    await eventually(gone, within=60, condition="the children's end")


async def test_a_foreground_delete_ends_after_the_children(kubectl: Kubectl, applied: str) -> None:
    await kubectl("delete", "ksvc", applied, "--cascade=foreground", "--timeout=60s")
    kinds = "ksvc,configurations,revisions,routes"
    assert await kubectl("get", kinds, "-l", f"serving.knative.dev/service={applied}", "-o", "name") == ""


async def test_an_orphaning_delete_leaves_the_children(kubectl: Kubectl, applied: str) -> None:
    await kubectl("delete", "ksvc", applied, "--cascade=orphan")
    await kubectl("wait", f"ksvc/{applied}", "--for=delete", "--timeout=60s")
    for kind in ("configuration", "route"):
        owners = await kubectl("get", kind, applied, "-o", "jsonpath={.metadata.ownerReferences}")
        assert owners in ("", "[]")
    await kubectl("delete", "configuration,route", applied)


# Beside the Knative kinds.


async def test_a_volume_claim_is_bound_from_the_start(kubectl: Kubectl, manifest: Write) -> None:
    claim = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: data
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests:
      storage: 1Gi
"""
    assert await kubectl("apply", "-f", manifest(claim)) == "persistentvolumeclaim/data created\n"
    await kubectl("wait", "pvc/data", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
    header, row = (await kubectl("get", "pvc", "data")).splitlines()
    assert header.split()[:4] == ["NAME", "STATUS", "VOLUME", "CAPACITY"]
    uid = await kubectl("get", "pvc", "data", "-o", "jsonpath={.metadata.uid}")
    assert row.split()[:5] == ["data", "Bound", f"pvc-{uid}", "1Gi", "RWO"]
    assert "unchanged" in await kubectl("apply", "-f", manifest(claim))
    assert "configured" in await kubectl("apply", "-f", manifest(claim.replace("1Gi", "2Gi")))
    assert (await kubectl("get", "pvc", "data", "--no-headers")).split()[2:4] == [f"pvc-{uid}", "2Gi"]
    other = await kubectl.run("apply", "-f", manifest(claim.replace("ReadWriteOnce", "ReadWriteMany")))
    assert "spec is immutable after creation" in other.err
    assert "deleted" in await kubectl("delete", "pvc", "data")


async def test_a_quota_counts_refuses_and_is_shown(kubectl: Kubectl, manifest: Write) -> None:
    await kubectl("create", "namespace", "bounded")
    inside = ("-n", "bounded")
    hard = "--hard=count/services.serving.knative.dev=1,configmaps=2,requests.storage=1Gi,pods=3,limits.cpu=2"
    assert await kubectl("create", "quota", "team", hard, *inside) == "resourcequota/team created\n"
    for name in ("a", "b"):
        await kubectl("create", "configmap", name, *inside)
    refused = await kubectl.run("create", "configmap", "c", *inside)
    assert refused.err == (
        'error: failed to create configmap: configmaps "c" is forbidden: exceeded quota: team, '
        "requested: configmaps=1, used: configmaps=2, limited: configmaps=2\n"
    )
    first = manifest(SHORT.replace("NAME", "first"))
    await kubectl("apply", "-f", first, *inside)
    await kubectl("apply", "-f", first, *inside)
    for command in (("apply",), ("apply", "--server-side"), ("create", "--dry-run=server")):
        second = await kubectl.run(*command, "-f", manifest(SHORT.replace("NAME", "second")), *inside)
        assert second.code == 1
        assert "exceeded quota: team, requested: count/services.serving.knative.dev=1" in second.err

    async def shown() -> bool:
        described = await kubectl("describe", "quota", "team", *inside)
        rows = {row.split()[0]: row.split()[1:] for row in described.splitlines() if len(row.split()) == 3}
        assert rows["configmaps"] == ["2", "2"]
        assert rows["count/services.serving.knative.dev"] == ["1", "1"]
        assert rows["requests.storage"] == ["0", "1Gi"]
        assert rows["pods"] == ["0", "3"]
        return True

    await eventually(shown, within=60, condition="the quota's use")
    row = (await kubectl("get", "quota", "team", *inside)).splitlines()[1]
    assert "configmaps: 2/2" in row
    assert "limits.cpu: 0/2" in row
    await kubectl("delete", "configmap", "a", *inside)
    await kubectl("create", "configmap", "c", *inside)
    await kubectl("delete", "namespace", "bounded", "--wait=false")


# Configuration.


async def test_the_platforms_configuration_is_edited(kubectl: Kubectl, manifest: Write) -> None:
    config = ("cm", "config-autoscaler", "-n", "knative-serving")
    good = manifest('{"data":{"stable-window":"30s"}}')
    output = await kubectl("patch", *config, "--type=merge", "--patch-file", good)
    assert output == "configmap/config-autoscaler patched\n"
    assert await kubectl("get", *config, "-o", "jsonpath={.data.stable-window}") == "30s"
    code, output = await edit(kubectl, manifest('sed -i "s/stable-window: 30s/stable-window: 90s/" $1'), *config)
    assert (code, output) == (0, "configmap/config-autoscaler edited\n")
    assert await kubectl("get", *config, "-o", "jsonpath={.data.stable-window}") == "90s"
    for bad in ("soon", "1s"):
        patch = json.dumps({"data": {"stable-window": bad}})
        refused = await kubectl.run("patch", *config, "--type=merge", "-p", patch)
        assert refused.code == 1
        assert "stable-window" in refused.err
    once = manifest('grep -q "^# .*stable" $1 || sed -i "s/stable-window: 90s/stable-window: soon/" $1')
    code, output = await edit(kubectl, once, *config)
    assert code == 1
    assert "stable-window" in output
    assert await kubectl("get", *config, "-o", "jsonpath={.data.stable-window}") == "90s"
    await kubectl("patch", *config, "--type=json", "-p", '[{"op":"remove","path":"/data/stable-window"}]')
