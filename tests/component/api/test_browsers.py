"""A web page that a browser on this machine shows gets nothing from the plain port, where no token is needed.

Requests are as browsers send them (Fetch Standard): a page cannot set Host, Origin or Sec-Fetch-*, and can send a
simple request to any address.
"""

from collections.abc import AsyncIterator

import pytest

from knoll.process.settings import ApiSettings
from knoll.values.kinds import CONFIG_MAP
from tests.component.api.conftest import Running, serving
from tests.component.api.raw import connected
from tests.doubles.memory_store import MemoryStore

MAPS = "/api/v1/namespaces/default/configmaps"
BODY = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"planted"}}'


@pytest.fixture
async def api(settings: ApiSettings) -> AsyncIterator[Running]:
    async with serving(MemoryStore(), settings) as running:
        yield running


async def post(api: Running, *fields: str, content_type: str = "text/plain;charset=UTF-8") -> int:
    """The code of the answer to a page's POST; `{here}` in a field is the API's own host and port."""
    here = api.url.removeprefix("http://")
    lines = [field.replace("{here}", here) for field in fields]
    if not any(line.lower().startswith("host:") for line in lines):
        lines.append(f"Host: {here}")
    lines += [f"Content-Type: {content_type}", f"Content-Length: {len(BODY)}"]
    async with connected(api.url) as raw:
        await raw.send(f"POST {MAPS} HTTP/1.1\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n" + BODY)
        return (await raw.answer()).code


async def planted(api: Running) -> bool:
    return any(body["metadata"]["name"] == "planted" for body in (await api.store.list(CONFIG_MAP.id, "default")).items)


async def test_the_same_request_of_a_command_is_answered(api: Running) -> None:
    assert await post(api) == 201
    assert await planted(api)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(["Origin: https://evil.example", "Sec-Fetch-Site: cross-site"], id="a page"),
        pytest.param(["Origin: https://evil.example"], id="a page in a browser without Fetch Metadata"),
        pytest.param(["Origin: null"], id="a sandboxed frame or a file"),
        pytest.param(["Origin: null", "Sec-Fetch-Site: cross-site"], id="a redirected form"),
        pytest.param(["Sec-Fetch-Site: cross-site"], id="without an origin"),
        pytest.param(["Origin: http://127.0.0.1:1", "Sec-Fetch-Site: same-site"], id="another port of this machine"),
        pytest.param(["Origin: http://app.default.localhost:8080"], id="a page of an instance"),
        pytest.param(["Origin: http://{here}.evil.example"], id="a host that begins alike"),
        pytest.param(["Origin: http://{here}@evil.example"], id="a user that is the host"),
        pytest.param(["Origin: http://evil.example#{here}"], id="a fragment"),
        pytest.param(["Origin: http://evil.example/{here}"], id="a path"),
        pytest.param(["Origin: chrome-extension://abcdefgh"], id="an extension"),
        pytest.param(["Origin: http://["], id="no URL"),
        pytest.param(["Origin: http://{here} http://evil.example"], id="two origins in one"),
        pytest.param(["Origin: http://{here}", "Origin: http://evil.example"], id="two origins, the last one evil"),
        pytest.param(["Origin: http://evil.example", "Origin: http://{here}"], id="two origins, the first one evil"),
    ],
)
async def test_a_page_of_another_origin_changes_nothing(api: Running, fields: list[str], content_type: str) -> None:
    assert await post(api, *fields, content_type=content_type) == 403
    assert not await planted(api)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8001",
        "evil.example.:8001",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "rebind.network",
        "kubernetes.default.svc.cluster.local",
        "xn--lcalhost-54a.example",
        "evil",
        "evil:8001",
        "wpad",
    ],
)
async def test_a_page_whose_host_name_resolves_to_the_api_gets_nothing(api: Running, host: str) -> None:
    """DNS rebinding: for the browser the request is of the page's own origin."""
    fields = [f"Host: {host}", f"Origin: http://{host}", "Sec-Fetch-Site: same-origin"]
    assert await post(api, *fields) == 403
    assert not await planted(api)
    async with connected(api.url) as raw:
        await raw.send(f"GET /api/v1/secrets HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: same-origin\r\n\r\n".encode())
        assert (await raw.answer()).code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_page_loads_nothing_as_an_image_or_a_script(api: Running, site: str) -> None:
    fields = f"Sec-Fetch-Site: {site}\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n"
    async with connected(api.url) as raw:
        await raw.send(f"GET /api/v1/secrets HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
        answer = await raw.answer()
        assert (answer.code, answer.all("x-content-type-options")) == (403, ["nosniff"])


async def test_no_page_gets_cors_permission(api: Running) -> None:
    fields = "Origin: https://evil.example\r\nAccess-Control-Request-Method: DELETE\r\n"
    async with connected(api.url) as raw:
        await raw.send(f"OPTIONS {MAPS} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
        answer = await raw.answer()
        assert answer.code == 403
        assert not [name for name, _ in answer.fields if name.startswith("access-control-")]


async def test_no_page_opens_a_websocket(api: Running) -> None:
    fields = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nOrigin: https://evil.example\r\n"
    )
    async with connected(api.url) as raw:
        await raw.send(f"GET {MAPS}?watch=true HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
        assert (await raw.answer()).code == 403
