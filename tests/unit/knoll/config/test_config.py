"""Knative's ConfigMaps as values: defaults, units, and invalid values."""

import contextlib
import inspect
import re
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from api.resource import core_rules
from knoll.config import autoscaler, defaults, deployment, domain, features, gc, network, observability, security
from knoll.config.platform import NAMES, PlatformConfig, check_config_map, default_config_maps
from knoll.config.request_log import Placeholder
from knoll.values import kinds
from knoll.values.destinations import Destinations
from knoll.values.errors import InvalidConfigError

MODULES: list[ModuleType] = [autoscaler, defaults, deployment, domain, features, gc, network, observability, security]
NEVER = "cannot be enabled"
NOT_INSIDE = "TLS is not supported for cluster-local hosts and between processes of the platform"
NO_CERTIFICATES = "certificates are not issued automatically; set spec.tls.secretName in the DomainMapping"
LOCAL = "networking.knative.dev/visibility"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.NAME)
def test_an_empty_config_map_gives_the_defaults(module: ModuleType) -> None:
    part: dict[str, dict[str, str]] = {module.NAME: {}}
    config, problems = PlatformConfig.from_config_maps(part)
    assert config == PlatformConfig()
    assert problems == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.NAME)
def test_the_explained_values_are_the_defaults(module: ModuleType) -> None:
    explained = yaml.safe_load(module.EXPLAINED)
    assert module.parse(explained) == module.parse({})


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.NAME)
def test_every_key_that_is_read_is_explained(module: ModuleType) -> None:
    source = inspect.getsource(module)
    read = set(re.findall(r"read\.\w+\(\s*\"([a-z][a-z0-9./-]+)\"", source)) | set(getattr(module, "KEYS", {}).values())
    explained = set(re.findall(r"^(?:# )?([a-z][a-z0-9./-]+):", module.EXPLAINED, re.MULTILINE))
    assert read <= explained


SOURCES = Path(__file__).parents[4]
EVERYTHING_ELSE = "\n".join(
    path.read_text()
    for folder in ("platform/knoll", "api", "activator", "autoscaler", "builder")
    for path in (SOURCES / folder).rglob("*.py")
    if path.parent.name != "config" or path.name == "platform.py"
)


VALUES = [
    f"{part.name}.{field.name}"
    for part in fields(PlatformConfig())
    for field in fields(getattr(PlatformConfig(), part.name))
]


@pytest.mark.parametrize("name", VALUES)
def test_every_value_is_used(name: str) -> None:
    """Every key that is parsed and explained has an effect."""
    assert re.search(rf"\b{name.partition('.')[2]}\b", EVERYTHING_ELSE)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.NAME)
def test_every_explained_key_has_a_comment_above_it(module: ModuleType) -> None:
    lines = module.EXPLAINED.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if not line.startswith(("#", " ")):
            assert before.startswith("# "), line


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.NAME)
def test_every_explained_key_can_be_written_through_the_api(module: ModuleType) -> None:
    """Keys of ConfigMaps have no slash, as on Kubernetes: `knoll.dev/` is for annotations and labels."""
    body = {"metadata": {"name": module.NAME, "namespace": "knative-serving"}, "data": yaml.safe_load(module.EXPLAINED)}
    core_rules.admit(body, None, kinds.CONFIG_MAP)


def test_there_is_one_object_for_each_config_map() -> None:
    maps = default_config_maps()
    assert {body["metadata"]["name"] for body in maps} == NAMES
    assert {body["metadata"]["namespace"] for body in maps} == {"knative-serving"}
    config, problems = PlatformConfig.from_config_maps({body["metadata"]["name"]: body["data"] for body in maps})
    assert config == PlatformConfig()
    assert problems == []


GOOD: list[tuple[str, dict[str, str], str, Any]] = [
    ("config-security", {"max-token-expiration": "24h"}, "security.max_token_seconds", 86400),
    (
        "config-autoscaler",
        {"container-concurrency-target-percentage": "50"},
        "autoscaler.container_concurrency_target_fraction",
        0.5,
    ),
    (
        "config-autoscaler",
        {"container-concurrency-target-percentage": "0.5"},
        "autoscaler.container_concurrency_target_fraction",
        0.5,
    ),
    (
        "config-autoscaler",
        {"container-concurrency-target-percentage": "1"},
        "autoscaler.container_concurrency_target_fraction",
        1.0,
    ),
    ("config-autoscaler", {"stable-window": "5m"}, "autoscaler.stable_window_seconds", 300),
    ("config-autoscaler", {"panic-window-percentage": "20"}, "autoscaler.panic_window_fraction", 0.2),
    ("config-autoscaler", {"panic-threshold-percentage": "150"}, "autoscaler.panic_threshold_fraction", 1.5),
    ("config-autoscaler", {"enable-scale-to-zero": "false"}, "autoscaler.enable_scale_to_zero", False),
    ("config-autoscaler", {"scale-to-zero-grace-period": "6s"}, "autoscaler.scale_to_zero_grace_seconds", 6),
    (
        "config-autoscaler",
        {"scale-to-zero-pod-retention-period": "1m30s"},
        "autoscaler.scale_to_zero_retention_seconds",
        90,
    ),
    ("config-autoscaler", {"target-burst-capacity": "-1"}, "autoscaler.target_burst_capacity", -1),
    ("config-autoscaler", {"initial-scale": "0", "allow-zero-initial-scale": "true"}, "autoscaler.initial_scale", 0),
    ("config-autoscaler", {"max-scale-limit": "10", "max-scale": "5"}, "autoscaler.max_scale_limit", 10),
    ("config-autoscaler", {"unknown-key": "x"}, "autoscaler.min_scale", 0),
    ("config-defaults", {"revision-timeout-seconds": "20"}, "defaults.revision_timeout_seconds", 20),
    ("config-defaults", {"revision-cpu-limit": "1000m"}, "defaults.limits", {"cpu": "1"}),
    ("config-defaults", {"revision-memory-request": "1024Mi"}, "defaults.requests", {"memory": "1Gi"}),
    ("config-defaults", {"enable-service-links": "default"}, "defaults.enable_service_links", None),
    ("config-defaults", {"enable-service-links": "true"}, "defaults.enable_service_links", True),
    ("config-defaults", {"container-name-template": "{{.Name}}-app"}, "defaults.user_container_name", "{{.Name}}-app"),
    ("config-deployment", {"progress-deadline": "2m"}, "deployment.progress_deadline_seconds", 120),
    (
        "config-deployment",
        {"registries-skipping-tag-resolving": "a, b:5000,"},
        "deployment.registries_skipping_tag_resolving",
        frozenset({"a", "b:5000"}),
    ),
    ("config-features", {"multi-container": "disabled"}, "features.multi_container", "Disabled"),
    ("config-features", {"kubernetes.podspec-affinity": "ENABLED"}, "features.pod_spec_affinity", "Enabled"),
    (
        "config-features",
        {"secure-pod-defaults": "allowrootbounded"},
        "features.secure_pod_defaults",
        "AllowRootBounded",
    ),
    ("config-gc", {"retain-since-create-time": "disabled"}, "gc.retain_since_create_seconds", None),
    ("config-gc", {"max-non-active-revisions": "Disabled"}, "gc.max_non_active_revisions", None),
    ("config-gc", {"retain-since-last-active-time": "1h"}, "gc.retain_since_last_active_seconds", 3600),
    ("config-gc", {"max-non-active-revisions": "5"}, "gc.min_non_active_revisions", 5),
    (
        "config-network",
        {"domain-template": "{{.Name}}-{{.Namespace}}.{{.Domain}}"},
        "network.domain_template",
        "{{.Name}}-{{.Namespace}}.{{.Domain}}",
    ),
    ("config-network", {"tag-template": "{{.Name}}-{{.Tag}}"}, "network.tag_template", "{{.Name}}-{{.Tag}}"),
    ("config-network", {"auto-tls": "Disabled", "ingress-class": "any"}, "network.rollout_duration_seconds", 0),
    ("config-network", {"default-external-scheme": "HTTPS"}, "network.default_external_scheme", "https"),
    ("config-network", {"http-protocol": "redirected"}, "network.http_redirected", True),
    ("config-network", {"rollout-duration": "120"}, "network.rollout_duration_seconds", 120),
    (
        "config-network",
        {"trusted-proxies": "10.0.0.0/8, fd00::/8,192.0.2.7"},
        "network.trusted_proxies",
        (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.0.2.7/32")),
    ),
    (
        "config-network",
        {"headers-with-underscores": "Allow"},
        "network.headers_with_underscores",
        "allow",
    ),
    (
        "config-network",
        {"max-connections-per-address": "0"},
        "network.max_connections_per_address",
        0,
    ),
    (
        "config-security",
        {"build-destinations": "10.1.0.0/16, git.corp"},
        "security.build_destinations",
        Destinations.parse("10.1.0.0/16,git.corp"),
    ),
    ("config-observability", {"logging.enable-request-log": "true"}, "observability.enable_request_log", True),
    (
        "config-observability",
        {"logging.enable-probe-request-log": "true"},
        "observability.enable_probe_request_log",
        True,
    ),
    (
        "config-observability",
        {"logging.request-log-template": "{{.Response.Code}} to {{js .Request.UserAgent}}"},
        "observability.request_log_template",
        (Placeholder("Response.Code"), " to ", Placeholder("Request.UserAgent", escaped=True)),
    ),
]


@pytest.mark.parametrize(("name", "data", "path", "value"), GOOD, ids=[f"{row[0]} {row[1]}" for row in GOOD])
def test_values_are_read_in_plain_units(name: str, data: dict[str, str], path: str, value: Any) -> None:
    part, _, field = path.partition(".")
    config, problems = PlatformConfig.from_config_maps({name: data})
    assert problems == []
    parsed = getattr(getattr(config, part), field)
    assert parsed == (pytest.approx(value) if isinstance(value, float) else value)


BAD: list[tuple[str, dict[str, str], list[str] | None]] = [
    (
        "config-security",
        {"build-destinations": "10.0.0.0/33"},
        ["build-destinations: '10.0.0.0/33' is neither an address, a range, nor a host name"],
    ),
    ("config-autoscaler", {"stable-window": "5s"}, ["stable-window: must be between 6s and 1h0m0s, not 5s"]),
    ("config-autoscaler", {"stable-window": "6500ms"}, ["stable-window: must be in whole seconds, not 6500ms"]),
    (
        "config-autoscaler",
        {"stable-window": "soon"},
        ["stable-window: must be a duration such as 30s or 1h30m, not 'soon'"],
    ),
    (
        "config-autoscaler",
        {"container-concurrency-target-percentage": "0"},
        ["container-concurrency-target-percentage: must be above 0 and at most 100, not 0"],
    ),
    (
        "config-autoscaler",
        {"container-concurrency-target-percentage": "101"},
        ["container-concurrency-target-percentage: must be above 0 and at most 100, not 101"],
    ),
    (
        "config-autoscaler",
        {"container-concurrency-target-default": "0.01"},
        [
            "container-concurrency-target-default: multiplied by "
            "container-concurrency-target-percentage, it must be at least 0.01"
        ],
    ),
    (
        "config-autoscaler",
        {"requests-per-second-target-default": "0"},
        [
            "requests-per-second-target-default: multiplied by "
            "container-concurrency-target-percentage, it must be at least 0.01"
        ],
    ),
    (
        "config-autoscaler",
        {"target-burst-capacity": "-2"},
        ["target-burst-capacity: must be at least 0, or -1, not -2"],
    ),
    ("config-autoscaler", {"max-scale-up-rate": "1"}, ["max-scale-up-rate: must be above 1, not 1"]),
    ("config-autoscaler", {"max-scale-down-rate": "0.5"}, ["max-scale-down-rate: must be above 1, not 0.5"]),
    ("config-autoscaler", {"activator-capacity": "0.9"}, ["activator-capacity: must be at least 1, not 0.9"]),
    (
        "config-autoscaler",
        {"panic-window-percentage": "1"},
        ["panic-window-percentage: results in a panic window of 0.6 s; it must be at least 1 s"],
    ),
    (
        "config-autoscaler",
        {"panic-window-percentage": "101"},
        ["panic-window-percentage: must be above 0 and at most 100"],
    ),
    ("config-autoscaler", {"panic-threshold-percentage": "109"}, ["panic-threshold-percentage: must be at least 110"]),
    ("config-autoscaler", {"initial-scale": "0"}, ["initial-scale: may be 0 only with allow-zero-initial-scale: true"]),
    ("config-autoscaler", {"initial-scale": "-1"}, ["initial-scale: must be between 0 and 2147483647, not -1"]),
    ("config-autoscaler", {"min-scale": "3", "max-scale": "2"}, ["min-scale: must not be above max-scale, which is 2"]),
    ("config-autoscaler", {"max-scale-limit": "5"}, ["max-scale: must be between 1 and max-scale-limit, which is 5"]),
    (
        "config-autoscaler",
        {"scale-to-zero-grace-period": "5s"},
        ["scale-to-zero-grace-period: must be at least 6s, not 5s"],
    ),
    (
        "config-autoscaler",
        {"scale-to-zero-pod-retention-period": "-1s"},
        ["scale-to-zero-pod-retention-period: must be at least 0s, not -1s"],
    ),
    (
        "config-autoscaler",
        {"enable-scale-to-zero": "perhaps"},
        ["enable-scale-to-zero: must be true or false, not 'perhaps'"],
    ),
    (
        "config-autoscaler",
        {"max-scale-up-rate": "fast", "min-scale": "1.5"},
        ["max-scale-up-rate: must be a number, not 'fast'", "min-scale: must be a whole number, not '1.5'"],
    ),
    ("config-autoscaler", {"target-burst-capacity": "nan"}, ["target-burst-capacity: must be a number, not 'nan'"]),
    (
        "config-defaults",
        {"revision-timeout-seconds": "700"},
        ["revision-timeout-seconds: must not be above max-revision-timeout-seconds, which is 600"],
    ),
    (
        "config-defaults",
        {"max-revision-timeout-seconds": "100"},
        ["revision-timeout-seconds: must not be above max-revision-timeout-seconds, which is 100"],
    ),
    (
        "config-defaults",
        {"revision-cpu-request": "lots"},
        ["revision-cpu-request: must be a quantity such as 100m, 0.5, 2 or 350Mi, not 'lots'"],
    ),
    (
        "config-defaults",
        {"container-concurrency": "1001"},
        ["container-concurrency: must not be above container-concurrency-max-limit, which is 1000"],
    ),
    (
        "config-defaults",
        {"container-concurrency-max-limit": "0"},
        ["container-concurrency-max-limit: must be between 1 and 2147483647, not 0"],
    ),
    (
        "config-defaults",
        {"container-concurrency": "0", "allow-container-concurrency-zero": "false"},
        ["container-concurrency: may be 0 only with allow-container-concurrency-zero: true"],
    ),
    (
        "config-defaults",
        {"enable-service-links": "maybe"},
        ["enable-service-links: must be one of true, false, default, not 'maybe'"],
    ),
    ("config-deployment", {"progress-deadline": "0s"}, ["progress-deadline: must be at least 1s, not 0s"]),
    ("config-deployment", {"progress-deadline": "1500ms"}, ["progress-deadline: must be in whole seconds, not 1500ms"]),
    ("config-deployment", {"digest-resolution-timeout": "0"}, ["digest-resolution-timeout: must be above 0s"]),
    ("config-domain", {"Not A Domain": ""}, None),
    (
        "config-domain",
        {"a.b": "", "c.d": ""},
        ["a.b, c.d: only one domain may be without a selector: it is the default"],
    ),
    ("config-domain", {"a.b": "selector: [x]"}, ["a.b: must be empty or YAML such as `selector: {app: web}`"]),
    ("config-domain", {"a.b": "selector: {app: 5}"}, ["a.b: labels and their values must be strings"]),
    ("config-domain", {"a.b": "{"}, None),
    (
        "config-features",
        {"multi-container": "on"},
        ["multi-container: must be one of Enabled, Allowed, Disabled, not 'on'"],
    ),
    (
        "config-gc",
        {"min-non-active-revisions": "6", "max-non-active-revisions": "5"},
        ["min-non-active-revisions: must not be above max-non-active-revisions, which is 5"],
    ),
    ("config-gc", {"retain-since-create-time": "-1h"}, ["retain-since-create-time: must be at least 0s, not -1h"]),
    (
        "config-network",
        {"domain-template": "{{.Nope}}"},
        [
            "domain-template: '{{.Nope}}' is not supported; "
            "use .Name, .Namespace, .Domain, .Tag, .Labels or .Annotations"
        ],
    ),
    (
        "config-network",
        {"domain-template": "{{.Name}}_x"},
        ["domain-template: renders to 'name_x', which is not a valid host name"],
    ),
    (
        "config-network",
        {"domain-template": "fixed.example.com"},
        ["domain-template: renders to 'fixed.example.com', which is not a valid host name"],
    ),
    (
        "config-network",
        {"tag-template": "{{.Name}}"},
        ["tag-template: must use both .Tag and .Name, otherwise several tags would get the same host"],
    ),
    (
        "config-network",
        {"trusted-proxies": "10.0.0.1/8"},
        [
            "trusted-proxies: must be addresses or CIDRs separated by commas, such as 10.0.0.0/8: "
            "10.0.0.1/8 has host bits set"
        ],
    ),
    (
        "config-network",
        {"headers-with-underscores": "keep"},
        ["headers-with-underscores: must be one of drop, allow, reject, not 'keep'"],
    ),
    ("config-network", {"rollout-duration": "-1"}, ["rollout-duration: must be between 0 and 2147483647, not -1"]),
    (
        "config-network",
        {"default-external-scheme": "ftp"},
        ["default-external-scheme: must be one of http, https, not 'ftp'"],
    ),
    (
        "config-observability",
        {"logging.enable-request-log": "yes"},
        ["logging.enable-request-log: must be true or false, not 'yes'"],
    ),
    (
        "config-network",
        {"external-domain-tls": "enabled"},
        [f"external-domain-tls: {NO_CERTIFICATES}"],
    ),
    ("config-network", {"cluster-local-domain-tls": "Enabled"}, [f"cluster-local-domain-tls: {NOT_INSIDE}"]),
    ("config-network", {"system-internal-tls": "enabled"}, [f"system-internal-tls: {NOT_INSIDE}"]),
    ("config-network", {"internal-encryption": "true"}, [f"internal-encryption: {NOT_INSIDE}"]),
    ("config-network", {"dataplane-trust": "mutual"}, [f"dataplane-trust: {NOT_INSIDE}"]),
    ("config-network", {"controlplane-trust": "minimal"}, [f"controlplane-trust: {NOT_INSIDE}"]),
    (
        "config-features",
        {"autodetect-http2": "enabled"},
        [f"autodetect-http2: {NEVER}: the protocol of a container is not detected; name its port h2c for HTTP/2"],
    ),
    (
        "config-features",
        {"kubernetes.podspec-hostnetwork": "allowed"},
        [f"kubernetes.podspec-hostnetwork: {NEVER}: instances do not share the host's network namespace"],
    ),
    (
        "config-network",
        {"http-protocol": "disabled"},
        ["http-protocol: must be one of Enabled, Redirected, not 'disabled'"],
    ),
    ("config-observability", {"logging.request-log-template": "{{.Request.Method}"}, None),
    ("config-observability", {"logging.request-log-template": "{{.Unknown}}"}, None),
]


@pytest.mark.parametrize(("name", "data", "problems"), BAD, ids=[f"{row[0]} {row[1]}" for row in BAD])
def test_invalid_values_are_refused_with_key_and_reason(
    name: str, data: dict[str, str], problems: list[str] | None
) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        check_config_map(name, data)
    if problems is not None:
        assert list(caught.value.problems) == problems
    assert caught.value.code == 400
    assert str(caught.value).startswith(
        'admission webhook "config.webhook.serving.knative.dev" denied the request: validation failed: '
        f"failed to parse {name}: {caught.value.problems[0]}"
    )


@pytest.mark.parametrize("text", ["{{" + " " * 300_000, "{{ " * 100_000, "{{js " * 60_000 + "}}", "{{-" * 100_000])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("config-network", "domain-template"),
        ("config-network", "tag-template"),
        ("config-observability", "logging.request-log-template"),
        ("config-defaults", "container-name-template"),
    ],
)
def test_a_template_of_any_length_is_read_in_one_go(name: str, key: str, text: str) -> None:
    """Read again and again from each of its places, it would take hours."""
    with pytest.raises(InvalidConfigError):
        check_config_map(name, {key: text})


def test_other_config_maps_are_not_checked() -> None:
    check_config_map("game.properties", {"stable-window": "x"})


def test_a_bad_config_map_keeps_its_last_good_values_and_leaves_the_others_alone() -> None:
    good, _ = PlatformConfig.from_config_maps({"config-autoscaler": {"min-scale": "3"}})
    maps = {"config-autoscaler": {"min-scale": "x"}, "config-gc": {"min-non-active-revisions": "7"}}
    config, problems = PlatformConfig.from_config_maps(maps, good)
    assert config.autoscaler.min_scale == 3
    assert config.gc.min_non_active_revisions == 7
    assert [problem.name for problem in problems] == ["config-autoscaler"]
    assert PlatformConfig.from_config_maps(maps)[0].autoscaler.min_scale == 0


def test_one_config_map_can_be_exchanged() -> None:
    config = PlatformConfig().with_config_map("config-autoscaler", {"min-scale": "3"})
    assert config.autoscaler.min_scale == 3
    assert config.gc == PlatformConfig().gc
    with pytest.raises(InvalidConfigError):
        config.with_config_map("config-autoscaler", {"min-scale": "x"})


DOMAINS = {
    "example.com": "",
    "example.org": "selector:\n  app: web\n",
    "deep.example.org": "selector:\n  app: web\n  tier: front\n",
    "same.example.org": "selector: {app: web}",
    "svc.cluster.local": "selector: {app: secret}",
}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, "example.com"),
        ({"app": "other"}, "example.com"),
        ({"app": "web"}, "example.org"),
        ({"app": "web", "tier": "back"}, "example.org"),
        ({"app": "web", "tier": "front"}, "deep.example.org"),
        ({"app": "secret"}, "svc.cluster.local"),
        ({"app": "web", LOCAL: "cluster-local"}, "svc.cluster.local"),
    ],
)
def test_the_domain_follows_the_labels(labels: dict[str, str], expected: str) -> None:
    assert domain.parse(DOMAINS).lookup(labels) == expected


def test_without_a_default_domain_there_is_localhost() -> None:
    config = domain.parse({"a.b": "selector: {app: web}", "_example": "junk: ["})
    assert config.lookup({}) == "localhost"
    assert config.lookup({"app": "web"}) == "a.b"


def test_every_feature_has_a_key() -> None:
    assert set(features.KEYS) == {item.name for item in fields(features.FeaturesConfig)}


@given(st.sampled_from(MODULES), st.data())
def test_any_text_under_any_key_gives_values_or_a_reason(module: ModuleType, data: st.DataObject) -> None:
    keys = re.findall(r"^(?:# )?([a-z][a-z0-9./-]+):", module.EXPLAINED, re.MULTILINE)
    odd = st.one_of(
        st.text(max_size=12),
        st.integers().map(str),
        st.floats().map(str),
        st.sampled_from(["", "1e99", "{{", "9" * 30, "null", "[]"]),
    )
    drawn = data.draw(st.dictionaries(st.sampled_from(keys), odd, max_size=4))
    with contextlib.suppress(InvalidConfigError):
        module.parse(drawn)
