"""What objects of the platform change on the data path: flags, certificates, affinity, the log of requests."""

import asyncio
import base64
import datetime
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from activator.frontend.listeners import Listeners, bind
from activator.sync.config_watch import ConfigWatch
from knoll.config.request_log import FIELDS
from knoll.messages.routing import RequestPolicy, RouteEntry, Share
from knoll.values.kinds import CONFIG_MAP, DOMAIN_MAPPING, SECRET
from tests.component.activator.stage import HOST, App, Stage
from tests.doubles.memory_store import MemoryStore
from tests.waiting import eventually

DOMAIN = "shop.example.com"


def certificate(host: str) -> tuple[bytes, bytes]:
    """A certificate signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(pem), plain


def secret(pair: tuple[bytes, bytes]) -> dict[str, Any]:
    data = {name: base64.b64encode(part).decode() for name, part in zip(("tls.crt", "tls.key"), pair, strict=True)}
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert", "namespace": "default"},
        "type": "kubernetes.io/tls", "data": data,
    }  # fmt: skip


def mapping(namespace: str = "default", claimed: str = "True") -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping",
        "metadata": {"name": DOMAIN, "namespace": namespace}, "spec": {"tls": {"secretName": "cert"}},
        "status": {"conditions": [{"type": "DomainClaimed", "status": claimed}]},
    }  # fmt: skip


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "knative-serving"},
        "data": {key.replace("_", "-"): value for key, value in data.items()},
    }  # fmt: skip


@pytest.fixture
async def store(stage: Stage) -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    configured = ConfigWatch(stage.gateway, store, tls=True)
    listeners = Listeners(stage.gateway)
    listener = bind("127.0.0.1", 0)
    stage.tls_port = listener.getsockname()[1]  # type: ignore[attr-defined]
    await listeners.open([listener], tls=configured.tls)
    running = asyncio.create_task(configured.run())
    yield store
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    listeners.close()


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_a_mapped_domain_has_the_certificate_of_its_secret(stage: Stage, store: MemoryStore, http2: bool) -> None:
    app = await stage.serving()
    shares = (Share("default/app-00001", 100),)
    stage.gateway.change_route("default/mapped", RouteEntry({DOMAIN: shares}, {"default/app-00001": RequestPolicy()}))
    pair = certificate(DOMAIN)
    trust = ssl.create_default_context(cadata=pair[0].decode())
    port: int = stage.tls_port  # type: ignore[attr-defined]

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(verify=trust, http2=http2) as client:
            return await client.get(
                f"https://127.0.0.1:{port}/", headers={"Host": DOMAIN}, extensions={"sni_hostname": DOMAIN}
            )

    with pytest.raises(httpx.ConnectError):
        await get()
    foreign = secret(certificate("attacker.example.com"))
    foreign["metadata"]["namespace"] = "a"
    await store.create(SECRET.id, foreign)
    await store.create(DOMAIN_MAPPING.id, mapping("a", claimed="False"))
    await store.create(SECRET.id, secret(pair))
    await store.create(DOMAIN_MAPPING.id, mapping())

    async def works() -> httpx.Response | None:
        try:
            return await get()
        except httpx.ConnectError:
            return None

    answer = await eventually(works)
    assert answer is not None
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2" if http2 else "HTTP/1.1")
    assert app.requests[0].fields["x-forwarded-proto"] == "https"


@pytest.mark.parametrize(
    ("port", "target", "location"),
    [
        (443, "/a?b=c", f"https://{DOMAIN}/a?b=c"),
        (8443, "/", f"https://{DOMAIN}:8443/"),
        (443, "*", f"https://{DOMAIN}"),
    ],
)
async def test_plain_http_is_sent_on_to_https(stage: Stage, port: int, target: str, location: str) -> None:
    await stage.serving()
    shares = (Share("default/app-00001", 100),)
    entry = RouteEntry({DOMAIN: shares}, {"default/app-00001": RequestPolicy()}, redirect=port)
    stage.gateway.change_route("default/mapped", entry)
    connection = await stage.connect()
    for _ in range(2):
        method = "OPTIONS" if target == "*" else "GET"
        answer = await connection.get(target, host=f"{DOMAIN.upper()}:8080", method=method).answer()
        assert (answer.status, answer.fields["location"]) == (301, location)
    head = await connection.get("/", host=DOMAIN, method="HEAD").answer(head_only=True)
    assert (head.status, head.body) == (301, b"")
    assert (await connection.get("/").answer()).status == 200, "other hosts go on, on the same connection"


async def test_https_requests_are_not_redirected(stage: Stage, store: MemoryStore) -> None:
    await stage.serving()
    shares = (Share("default/app-00001", 100),)
    entry = RouteEntry({DOMAIN: shares}, {"default/app-00001": RequestPolicy()}, redirect=443)
    stage.gateway.change_route("default/mapped", entry)
    pair = certificate(DOMAIN)
    trust = ssl.create_default_context(cadata=pair[0].decode())
    await store.create(SECRET.id, secret(pair))
    await store.create(DOMAIN_MAPPING.id, mapping())
    port: int = stage.tls_port  # type: ignore[attr-defined]

    async def status() -> int:
        async with httpx.AsyncClient(verify=trust) as client:
            try:
                extensions = {"sni_hostname": DOMAIN}
                address = f"https://127.0.0.1:{port}/"
                return (await client.get(address, headers={"Host": DOMAIN}, extensions=extensions)).status_code
            except httpx.ConnectError:
                return 0

    assert await eventually(status) == 200


async def test_the_tag_header_chooses_a_tag_only_with_the_feature_on(stage: Stage, store: MemoryStore) -> None:
    stable, canary = await stage.app(name="stable"), await stage.app(name="canary")
    entry = RouteEntry(
        {HOST: (Share("d/stable", 100),), f"canary-{HOST}": (Share("d/canary", 100, "canary"),)},
        {"d/stable": RequestPolicy(), "d/canary": RequestPolicy()},
    )
    stage.gateway.change_route("default/app", entry)
    for app in (stable, canary):
        stage.endpoints(app.endpoint(), revision=f"d/{app.name}")
    header = "Knative-Serving-Tag: canary\r\n"
    assert (await stage.get(extra=header)).fields["x-app"] == "stable"
    await store.create(CONFIG_MAP.id, config_map("config-features", tag_header_based_routing="enabled"))
    await eventually(lambda: stage.gateway.tag_header)
    assert (await stage.get(extra=header)).fields["x-app"] == "canary"
    assert (await stage.get(extra="Knative-Serving-Tag: none\r\n")).fields["x-app"] == "stable"
    assert "knative-serving-tag" not in canary.requests[0].fields


async def _halves(stage: Stage, percent: int = 50) -> list[App]:
    apps = [await stage.app(name=f"app-{n}") for n in range(2)]
    for number, app in enumerate(apps):
        stage.endpoints(app.endpoint(), revision=f"d/r{number}")
    _split(stage, percent)
    return apps


def _split(stage: Stage, percent: int) -> None:
    shares = (Share("d/r0", percent), Share("d/r1", 100 - percent))
    entry = RouteEntry({HOST: shares}, {"d/r0": RequestPolicy(), "d/r1": RequestPolicy()}, sticky=True)
    stage.gateway.change_route("default/app", entry)


async def test_a_client_with_affinity_stays_where_it_was(stage: Stage) -> None:
    await _halves(stage)
    first: dict[str, str] = {}
    for _ in range(200):
        answer = await stage.get()
        first[answer.fields["x-app"]] = answer.fields["set-cookie"].split(";")[0]
    assert first.keys() == {"app-0", "app-1"}, "clients without a cookie are spread"
    for app, cookie in first.items():
        for _ in range(20):
            answer = await stage.get(extra=f"Cookie: other=1; {cookie}\r\n")
            assert answer.fields["x-app"] == app
            assert "set-cookie" not in answer.fields


async def test_a_client_moves_when_its_revision_has_no_share_any_more(stage: Stage) -> None:
    await _halves(stage)
    cookie = ""
    while not cookie:
        answer = await stage.get()
        if answer.fields["x-app"] == "app-1":
            cookie = answer.fields["set-cookie"].split(";")[0]
    _split(stage, 100)
    assert (await stage.get(extra=f"Cookie: {cookie}\r\n")).fields["x-app"] == "app-0"


async def test_requests_are_logged_when_the_config_map_enables_it(
    stage: Stage, store: MemoryStore, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    await stage.serving()
    await stage.get("/before")
    maps = config_map("config-observability")
    maps["data"] = {"logging.enable-request-log": "true"}
    await store.create(CONFIG_MAP.id, maps)
    await eventually(lambda: stage.gateway.log_request)
    await stage.get("/path?q=1")
    seen: list[bytes] = []

    def logged() -> bool:
        seen.extend(line for line in capfdbinary.readouterr().out.splitlines() if b'"request"' in line)
        return bool(seen)

    await eventually(logged)
    line = json.loads(seen[0])
    assert (line["method"], line["host"], line["path"], line["status"]) == ("GET", HOST, "/path?q=1", 200)
    assert (line["revision"], line["instance"], line["client"]) == ("default/app-00001", "app-1", "127.0.0.1")


async def test_a_line_of_the_log_is_as_the_template_says(
    stage: Stage, store: MemoryStore, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    await stage.serving()
    maps = config_map("config-observability")
    maps["data"] = {
        "logging.enable-request-log": "true",
        "logging.request-log-template": "|".join(
            ["line", *(f"{{{{.{field}}}}}" for field in FIELDS), '{{js (.Request.Header.Get "x-odd")}}']
        ),
    }
    await store.create(CONFIG_MAP.id, maps)
    await eventually(lambda: stage.gateway.log_request)
    trace = f"traceparent: 00-{'ab' * 16}-{'cd' * 8}-01"
    await stage.get("/path?q=1", extra=f'User-Agent: ua\r\nX-Odd: "a"\r\nReferer: there\r\n{trace}\r\n')
    seen: list[bytes] = []

    def logged() -> bool:
        seen.extend(line for line in capfdbinary.readouterr().out.splitlines() if line.startswith(b"line|"))
        return bool(seen)

    await eventually(logged)
    _, *values, odd = seen[0].decode().split("|")
    fields_logged = dict(zip(FIELDS, values, strict=True))
    assert float(fields_logged.pop("Response.Latency")) >= 0
    assert fields_logged == {
        "Request.Method": "GET", "Request.RequestURI": "/path?q=1", "Request.Host": HOST, "Request.Proto": "HTTP/1.1",
        "Request.ContentLength": "0", "Request.UserAgent": "ua", "Request.RemoteAddr": "127.0.0.1",
        "Request.Referer": "there", "Response.Code": "200", "Response.Size": fields_logged["Response.Size"],
        "Revision.Name": "app-00001", "Revision.Namespace": "default", "Revision.PodName": "app-1",
        "Revision.PodIP": "127.0.0.1", "TraceID": "ab" * 16,
    }  # fmt: skip
    assert int(fields_logged["Response.Size"]) == len((await stage.get("/path?q=1")).body)
    assert odd == '\\"a\\"'


@pytest.mark.parametrize(
    ("data", "paths"),
    [
        ({"logging.enable-request-log": "true"}, ["/user", "/end"]),
        ({"logging.enable-probe-request-log": "true"}, ["/probe", "/last"]),
        (
            {"logging.enable-request-log": "true", "logging.enable-probe-request-log": "true"},
            ["/probe", "/user", "/last", "/end"],
        ),
    ],
    ids=["requests", "probes", "both"],
)
async def test_probe_requests_are_logged_when_that_is_enabled(
    stage: Stage, store: MemoryStore, capfdbinary: pytest.CaptureFixture[bytes], data: dict[str, str], paths: list[str]
) -> None:
    await stage.serving()
    maps = config_map("config-observability")
    maps["data"] = data | {"logging.request-log-template": "line {{.Request.RequestURI}} {{.TraceID}}"}
    await store.create(CONFIG_MAP.id, maps)
    await eventually(lambda: stage.gateway.log_request)
    probe = "User-Agent: kube-probe/1.32\r\nX-B3-TraceId: 80f198ee56343ba8\r\n"
    await stage.get("/probe", extra=probe)
    await stage.get("/user", extra="User-Agent: not-kube-probe/1\r\nX-B3-TraceId: 80f198ee56343ba8\r\n")
    await stage.get("/last", extra=probe)
    await stage.get("/end", extra="X-B3-TraceId: 80f198ee56343ba8\r\n")
    seen: list[str] = []

    def logged() -> bool:
        seen.extend(line.decode() for line in capfdbinary.readouterr().out.splitlines() if line.startswith(b"line "))
        return len(seen) >= len(paths)

    await eventually(logged)
    assert seen == [f"line {path} 80f198ee56343ba8" for path in paths]


async def test_of_many_requests_a_part_is_logged(
    stage: Stage, store: MemoryStore, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter([0.1, 0.9, 0.2, 0.3, 0.24] * 2)
    monkeypatch.setattr("activator.sync.access_log.random.random", lambda: next(drawn))
    await stage.serving()
    maps = config_map("config-observability")
    maps["data"] = {"logging.enable-request-log": "true", "logging.request-log-sample-rate": "0.25"}
    await store.create(CONFIG_MAP.id, maps)
    await eventually(lambda: stage.gateway.log_request)
    for number in range(10):
        await stage.get(f"/{number}")
    seen: list[bytes] = []

    def logged() -> bool:
        seen.extend(line for line in capfdbinary.readouterr().out.splitlines() if b'"request"' in line)
        return len(seen) >= 6

    await eventually(logged)
    assert [json.loads(line)["path"] for line in seen] == ["/0", "/2", "/4", "/5", "/7", "/9"]


async def test_forwarding_headers_of_clients_follow_config_network(stage: Stage, store: MemoryStore) -> None:
    app = await stage.serving()
    client = await stage.connect()
    extra = "X-Forwarded-For: 10.0.0.1\r\napi_key: 1\r\n"
    await client.get(extra=extra).answer()
    maps = config_map("config-network")
    maps["data"] = {
        "trusted-proxies": "127.0.0.0/8",
        "headers-with-underscores": "allow",
        "max-connections-per-address": "0",
    }
    before = stage.gateway.connection_limit.most
    await store.create(CONFIG_MAP.id, maps)
    await eventually(lambda: stage.gateway.underscores == "allow")
    await client.get(extra=extra).answer()
    fields = [request.fields for request in app.requests]
    assert [each["x-forwarded-for"] for each in fields] == ["127.0.0.1", "10.0.0.1, 127.0.0.1"]
    assert ["api_key" in each for each in fields] == [False, True]
    assert before > 0
    assert stage.gateway.connection_limit.most == 0


@pytest.mark.parametrize("most", [0, 2])
async def test_a_tls_handshake_that_does_not_end_is_ended_and_counted_until_then(
    stage: Stage, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("activator.frontend.listeners.HANDSHAKE_SECONDS", 0.5)
    stage.gateway.connection_limit.most = most
    port: int = stage.tls_port  # type: ignore[attr-defined]
    silent = [await stage.connect(port) for _ in range(2)]
    third = await stage.connect(port)
    if most:
        assert await third.closed() == b"", "it is one too many, and told so at once"
        assert stage.gateway.connection_limit._counts == {b"127.0.0.1": 2}
    assert [await each.closed() for each in silent] == [b"", b""]
    await eventually(lambda: not stage.gateway.connection_limit._counts)
