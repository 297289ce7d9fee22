"""Pages of other hosts cannot use the API through a browser."""

import pytest

from tests.component.api.conftest import CONFIG_MAPS, SERVICES, Make, Running, reason


async def test_a_request_for_a_foreign_host_name_is_refused(api: Running) -> None:
    page = {"Host": "evil.example.com:8001", "Origin": "http://evil.example.com:8001"}
    for method, path in (("GET", "/api/v1/secrets"), ("POST", SERVICES), ("DELETE", f"{SERVICES}/hello")):
        answer = await api.client.request(method, path, headers=page)
        assert reason(answer) == (403, "Forbidden")
    assert "'evil.example.com:8001' is not one: use 127.0.0.1 or localhost" in answer.json()["message"]
    assert (await api.client.get(SERVICES, headers={"Host": "knoll.localhost"})).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[", "Content-Type": "text/plain"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 201),
        ({}, 201),
    ],
)
async def test_a_page_of_another_host_cannot_write_through_a_browser(
    api: Running, config_map: Make, headers: dict[str, str], code: int
) -> None:
    answer = await api.client.post(CONFIG_MAPS, json=config_map(), headers=headers)
    assert answer.status_code == code
    own = await api.client.get(CONFIG_MAPS, headers={"Origin": api.url})
    assert own.status_code == 200
