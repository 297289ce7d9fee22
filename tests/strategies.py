"""Hypothesis strategies for the objects of Knative: what clients may send, valid and otherwise."""

from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from knoll.values.json import Json

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def dns_labels(longest: int = 20) -> st.SearchStrategy[str]:
    """DNS-1035 labels."""
    return st.from_regex(rf"[a-z]([-a-z0-9]{{0,{longest - 2}}}[a-z0-9])?", fullmatch=True).filter(
        lambda text: len(text) <= longest
    )


def images() -> st.SearchStrategy[str]:
    """References to images, by name, by tag and by digest."""
    registry = st.sampled_from(["", "localhost/", "localhost:5000/", "registry.example.com/", "10.0.0.1:80/team/"])
    name = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,5})?", fullmatch=True)
    tag = st.one_of(
        st.just(""),
        st.from_regex(r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}", fullmatch=True),
        st.text("0123456789abcdef", min_size=64, max_size=64).map(lambda text: f"@sha256:{text}"),
    )
    return st.builds(lambda *parts: "".join(parts), registry, name, tag)


def quantities() -> st.SearchStrategy[str]:
    """Quantities as people write them."""
    number = st.one_of(
        st.integers(0, 10**6).map(str), st.integers(0, 10**6).map(lambda value: f"{value // 100}.{value % 100:02}")
    )
    suffix = st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E-2"])
    return st.builds(lambda value, unit: value + unit, number, suffix)


def percents(count: int) -> st.SearchStrategy[list[int]]:
    """`count` percents that sum to 100."""

    def split(cuts: list[int]) -> list[int]:
        edges = [0, *sorted(cuts), 100]
        return [after - before for before, after in pairwise(edges)]

    return st.lists(st.integers(0, 100), min_size=count - 1, max_size=count - 1).map(split)


@st.composite
def traffic(draw: st.DrawFn, name: str) -> list[Json]:
    """A valid traffic block of the Service `name`."""
    count = draw(st.integers(1, 4))
    tags = draw(st.lists(dns_labels(10), min_size=count, max_size=count, unique=True))
    targets = []
    for tag, percent in zip(tags, draw(percents(count)), strict=True):
        target: Json = {"percent": percent} if percent or draw(st.booleans()) else {}
        if draw(st.booleans()):
            target["tag"] = tag
        if draw(st.booleans()):
            target["revisionName"] = f"{name}-{draw(st.integers(1, 9)):05}"
        if draw(st.booleans()):
            target["latestRevision"] = "revisionName" not in target
        targets.append(target)
    return targets


def _maybe(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    nothing: st.SearchStrategy[Any] = st.none()
    return st.one_of(nothing, value)


def _without_none(fields: Json) -> Json:
    return {key: value for key, value in fields.items() if value is not None}


def env() -> st.SearchStrategy[list[Json]]:
    """Environment variables that may be set."""
    name = st.from_regex(r"[A-Z][A-Z0-9_]{0,10}", fullmatch=True).filter(
        lambda text: text not in ("PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION")
    )
    key = st.fixed_dictionaries({"name": dns_labels(), "key": dns_labels()})
    source = st.sampled_from(["configMapKeyRef", "secretKeyRef"])
    plain = st.fixed_dictionaries({"name": name}, optional={"value": st.text(LETTERS + " $(){}=é", max_size=10)})
    taken = st.builds(lambda name, kind, ref: {"name": name, "valueFrom": {kind: ref}}, name, source, key)
    return st.lists(st.one_of(plain, taken), max_size=4)


def probes() -> st.SearchStrategy[Json]:
    """Readiness probes that may be set."""
    action = st.sampled_from(
        [
            {"httpGet": {"path": "/healthz?full=1"}},
            {"httpGet": {"path": "/", "port": 0, "scheme": "http", "httpHeaders": [{"name": "A", "value": "b"}]}},
            {"tcpSocket": {}},
            {"tcpSocket": {"port": 8080, "host": "127.0.0.1"}},
            {"exec": {"command": ["cat", "/tmp/ready"]}},
            {"grpc": {}},
            {"grpc": {"port": 0, "service": "health"}},
            {},
        ]
    )
    times = st.one_of(
        st.fixed_dictionaries({}, optional={"initialDelaySeconds": st.integers(0, 60), "successThreshold": st.just(1)}),
        st.fixed_dictionaries(
            {"periodSeconds": st.integers(1, 60)},
            optional={"timeoutSeconds": st.integers(1, 9), "failureThreshold": st.integers(1, 9)},
        ),
    )
    return st.builds(lambda left, right: {**left, **right}, action, times)


@st.composite
def containers(draw: st.DrawFn, *, serving: bool = True, named: str = "") -> Json:
    """A container that may be run."""
    container = {
        "image": draw(images()),
        "name": named or draw(_maybe(dns_labels().filter(lambda name: name != "queue-proxy"))),
        "command": draw(_maybe(st.lists(st.text(LETTERS, max_size=5), max_size=2))),
        "args": draw(_maybe(st.lists(st.text(LETTERS, max_size=5), max_size=2))),
        "env": draw(_maybe(env())),
        "envFrom": draw(_maybe(st.just([{"configMapRef": {"name": "settings"}, "prefix": "A_"}]))),
        "workingDir": draw(_maybe(st.just("/srv"))),
        "resources": draw(
            _maybe(
                st.fixed_dictionaries(
                    {}, optional={"limits": st.dictionaries(st.sampled_from(["cpu", "memory"]), quantities())}
                )
            )
        ),
        "imagePullPolicy": draw(_maybe(st.sampled_from(["Always", "IfNotPresent", "Never"]))),
        "securityContext": draw(_maybe(st.fixed_dictionaries({}, optional={"runAsUser": st.integers(0, 2**31 - 1)}))),
    }
    if serving:
        port = st.integers(1024, 7999)
        container["ports"] = draw(
            _maybe(
                st.builds(
                    lambda number, name: [{"containerPort": number, **({"name": name} if name else {})}],
                    port,
                    st.sampled_from(["", "h2c", "http1"]),
                )
            )
        )
        container["readinessProbe"] = draw(_maybe(probes()))
        container["livenessProbe"] = draw(_maybe(st.just({"httpGet": {"path": "/live"}, "periodSeconds": 5})))
    return _without_none(container)


@st.composite
def pod_specs(draw: st.DrawFn) -> Json:
    """A template's spec that may be run."""
    first = draw(containers())
    spec: Json = {"containers": [first]}
    if draw(st.booleans()):
        first.setdefault("ports", [{"containerPort": 8081}])
        spec["containers"].append(draw(containers(serving=False, named="sidecar")))
        if first.get("name") == "sidecar":
            del first["name"]
    if draw(st.booleans()):
        spec["volumes"] = [
            {"name": "settings", "configMap": {"name": "settings", "items": [{"key": "a", "path": "b/c"}]}},
            {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "100M"}},
        ]
        first["volumeMounts"] = [
            {"name": "settings", "mountPath": "/etc/settings"},
            {"name": "scratch", "mountPath": "/data", "subPath": "x"},
        ]
    spec |= _without_none(
        {
            "containerConcurrency": draw(_maybe(st.integers(0, 1000))),
            "timeoutSeconds": draw(_maybe(st.integers(0, 600))),
            "serviceAccountName": draw(_maybe(dns_labels())),
            "enableServiceLinks": draw(_maybe(st.booleans())),
        }
    )
    return spec


def autoscaling_annotations() -> st.SearchStrategy[dict[str, str]]:
    """Autoscaling annotations that may be set together."""
    return st.fixed_dictionaries(
        {},
        optional={
            "autoscaling.knative.dev/min-scale": st.integers(0, 3).map(str),
            "autoscaling.knative.dev/maxScale": st.integers(3, 9).map(str),
            "autoscaling.knative.dev/target": st.sampled_from(["0.01", "1", "100.5", "1e3"]),
            "autoscaling.knative.dev/targetBurstCapacity": st.sampled_from(["-1", "0", "70"]),
            "autoscaling.knative.dev/window": st.integers(6, 3600).map(lambda value: f"{value}s"),
            "autoscaling.knative.dev/metric": st.sampled_from(["concurrency", "rps"]),
            "autoscaling.knative.dev/target-utilization-percentage": st.integers(1, 100).map(str),
            "autoscaling.knative.dev/initial-scale": st.integers(1, 3).map(str),
            "autoscaling.knative.dev/scale-down-delay": st.sampled_from(["0s", "15m", "1h"]),
        },
    )


@st.composite
def services(draw: st.DrawFn) -> Json:
    """A Service that may be applied, with all, some or none of the optional parts."""
    name = draw(dns_labels())
    template: Json = {"spec": draw(pod_specs())}
    metadata: Json = {}
    if draw(st.booleans()):
        metadata["annotations"] = draw(autoscaling_annotations())
    if draw(st.booleans()):
        metadata["name"] = f"{name}-{draw(dns_labels(8))}"
    if draw(st.booleans()) or metadata:
        template["metadata"] = metadata
    spec: Json = {"template": template}
    if draw(st.booleans()):
        spec["traffic"] = draw(traffic(name))
    version = draw(st.sampled_from(["v1", "v1beta1", "v1alpha1"]))
    return {
        "apiVersion": f"serving.knative.dev/{version}",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": draw(st.just({}) | st.just({"team": "a"}))},
        "spec": spec,
    }


def json_values() -> st.SearchStrategy[Any]:
    """Anything that JSON can say."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    )
