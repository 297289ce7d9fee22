"""The filter in front of the engine's socket, with an engine that records what reaches it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from autoscaler.placement.swarm import reservation_image
from autoscaler.runtime.docker import payloads
from autoscaler.runtime.docker.engine import Engine, EngineError
from knoll.engine_proxy import reservations
from knoll.engine_proxy.policy import AUTOSCALER, BUILDER, ProxyPolicy
from knoll.engine_proxy.proxy import Gate, serve

OURS, FOREIGN, FRESH, RESERVATION = "a" * 64, "b" * 64, "c" * 64, "d" * 64
OWN_SERVICE, OTHER_SERVICE, NEW_SERVICE = "a" * 25, "b" * 25, "c" * 25
LABELS = {"knoll.dev/platform": "knoll"}


class RecordingEngine:
    """Answers as an engine with two containers, and keeps every request that it was sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        """First line and body."""
        self.log = b""
        """What a container wrote."""

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, str(path))
        try:
            yield
        finally:
            server.close()

    def seen(self, text: str) -> list[bytes]:
        """Bodies of the requests whose first line has this text."""
        return [body for line, body in self.requests if text in line]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *fields = head.split("\r\n")
                named = dict(field.lower().split(": ", 1) for field in fields if field)
                body = await self._body(reader, named)
                self.requests.append((line, body))
                writer.write(self._answer(line, named))
                if named.get("upgrade"):
                    while data := await reader.read(1000):
                        writer.write(data.upper())
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _body(self, reader: asyncio.StreamReader, named: dict[str, str]) -> bytes:
        if named.get("transfer-encoding") != "chunked":
            return await reader.readexactly(int(named.get("content-length", 0)))
        body = b""
        while size := int((await reader.readline()).strip(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return body

    def _answer(self, line: str, named: dict[str, str]) -> bytes:
        method, target, _ = line.split(" ")
        path = target.partition("?")[0].removeprefix("/v1.47")
        if named.get("upgrade"):
            return b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        if path == "/version":
            return _reply("200 OK", {"ApiVersion": "1.47", "Arch": "amd64"})
        if path == "/containers/create":
            return _reply("201 Created", {"Id": FRESH, "Warnings": []})
        if path.endswith("/logs"):
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(self.log), self.log)
        if path == "/services/create":
            return _reply("201 Created", {"ID": NEW_SERVICE})
        if method == "GET" and path in (f"/services/{OWN_SERVICE}", f"/services/{OTHER_SERVICE}"):
            return _reply("200 OK", {"Spec": {"Labels": LABELS if OWN_SERVICE in path else {}}})
        reserving = {**LABELS, "knoll.dev/role": "reservation"}
        containers: tuple[tuple[str, dict[str, str]], ...] = (
            (OURS, LABELS),
            (FOREIGN, {}),
            ("ours", LABELS),
            ("foreign", {}),
            (RESERVATION, reserving),
        )
        for name, labels in containers:
            if path == f"/containers/{name}/json":
                return _reply("200 OK", {"Config": {"Labels": labels}})
        if path.startswith("/exec/"):
            return _reply("200 OK", {"ContainerID": OURS if "ours" in path else FOREIGN, "ExitCode": 0})
        return (
            _reply("404 Not Found", {"message": "no such container"})
            if method == "GET"
            else _reply("204 No Content", None)
        )


def _reply(status: str, body: Any) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[RecordingEngine]:
    made = RecordingEngine()
    async with made.listening(tmp_path / "engine.sock"):
        servers = [
            await serve(
                Gate(ProxyPolicy(role, "knoll", "knoll-instances", swarm=True), tmp_path / "engine.sock"),
                tmp_path / role,
            )
            for role in (AUTOSCALER, BUILDER)
        ]
        yield made
        for server in servers:
            server.close()


@pytest.fixture
async def client(engine: RecordingEngine, tmp_path: Path) -> AsyncIterator[Engine]:
    made = Engine(tmp_path / AUTOSCALER)
    await made.open()
    engine.requests.clear()
    yield made
    await made.close()


async def raw(path: Path, data: bytes, *, more: bytes = b"") -> bytes:
    """What comes back for these bytes until the proxy is done with them."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    received = b""
    try:
        async with asyncio.timeout(2):
            received += await reader.read(65536)
            if more:
                writer.write(more)
                received += await reader.read(65536)
    except TimeoutError:
        pass
    writer.close()
    return received


SANDBOX = payloads.sandbox("knoll", "knoll-instances", "knoll/pause:3", "h", "g")


async def test_a_created_container_may_be_used_from_then_on(engine: RecordingEngine, client: Engine) -> None:
    made = await client.create(SANDBOX, "x")
    assert made == FRESH
    await client.post(f"/containers/{made}/start")
    assert [line.split()[1] for line, _ in engine.requests] == [
        "/v1.47/containers/create?name=x", f"/v1.47/containers/{FRESH}/start",
    ], "no question is asked about it"  # fmt: skip
    assert json.loads(engine.requests[0][1]) == SANDBOX


async def test_only_what_was_checked_reaches_the_engine(engine: RecordingEngine, tmp_path: Path) -> None:
    body = ('{"HostConfig": {"Privileged": true}, ' + json.dumps(SANDBOX)[1:]).encode()
    head = f"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    assert b"201 Created" in await raw(tmp_path / AUTOSCALER, head + body)
    (sent,) = engine.seen("/containers/create")
    assert json.loads(sent) == SANDBOX
    assert b"Privileged" not in sent


async def test_a_forbidden_call_is_refused_with_its_field_and_does_not_reach_the_engine(
    engine: RecordingEngine, client: Engine
) -> None:
    body = {**SANDBOX, "HostConfig": {**SANDBOX["HostConfig"], "Binds": ["/:/host"]}}
    with pytest.raises(EngineError, match=r"engine proxy: container\.HostConfig\.Binds") as refused:
        await client.create(body)
    assert refused.value.status == 403
    assert engine.requests == []


@pytest.mark.parametrize("name", [FOREIGN, "foreign", FOREIGN[:12]])
@pytest.mark.parametrize("call", ["start", "stop", "kill", "exec", "rename", "wait", "pause"])
async def test_nothing_is_done_to_a_container_of_others(
    engine: RecordingEngine, client: Engine, name: str, call: str
) -> None:
    with pytest.raises(EngineError):
        await client.post(f"/containers/{name}/{call}", {"Cmd": ["x"]} if call == "exec" else None)
    assert all(line.startswith("GET ") for line, _ in engine.requests), "it was looked at, and left alone"


async def test_nothing_is_read_of_containers_and_commands_of_others(client: Engine) -> None:
    for path in (f"/containers/{FOREIGN}/json", f"/containers/{FOREIGN}/logs", f"/containers/{FOREIGN}/archive",
                 "/exec/foreign/json", "/containers/json", "/volumes/knoll_redis"):  # fmt: skip
        with pytest.raises(EngineError, match="engine proxy"):
            await client.get(path)
    await client.get(f"/containers/{OURS}/json")
    await client.get("/exec/ours/json")


async def test_a_new_container_joins_none_of_others(engine: RecordingEngine, client: Engine) -> None:
    host = {**SANDBOX["HostConfig"], "NetworkMode": f"container:{FOREIGN}"}
    with pytest.raises(EngineError, match="is not a container of this platform"):
        await client.create({**SANDBOX, "HostConfig": host})
    assert not engine.seen("/containers/create")
    assert await client.create({**SANDBOX, "HostConfig": {**host, "NetworkMode": f"container:{OURS}"}}) == FRESH


@pytest.mark.parametrize("call", ["start", "exec", "kill"])
async def test_the_container_of_a_reservation_is_left_to_the_swarm(
    engine: RecordingEngine, client: Engine, call: str
) -> None:
    """It uses the machine's network: a container that joins it, or a command in it, would use that too."""
    host = {**SANDBOX["HostConfig"], "NetworkMode": f"container:{RESERVATION}"}
    with pytest.raises(EngineError, match="is not a container of this platform"):
        await client.create({**SANDBOX, "HostConfig": host})
    with pytest.raises(EngineError, match="is not a container of this platform"):
        await client.post(f"/containers/{RESERVATION}/{call}", {"Cmd": ["x"]} if call == "exec" else None)
    assert all(line.startswith("GET ") for line, _ in engine.requests)


async def test_reservations_are_created_and_removed_and_other_services_are_not(
    engine: RecordingEngine, client: Engine, tmp_path: Path
) -> None:
    body = reservations.service("knoll", f"knoll-{'0' * 16}", min(reservations.IMAGES), 0, 0, [])
    assert await client.post("/services/create", body) == {"ID": NEW_SERVICE}
    await client.delete(f"/services/{NEW_SERVICE}")
    await client.delete(f"/services/{OWN_SERVICE}")
    with pytest.raises(EngineError, match="is not a reservation of this platform"):
        await client.delete(f"/services/{OTHER_SERVICE}")
    template = {**body["TaskTemplate"], "ContainerSpec": {"Image": "evil"}}
    with pytest.raises(EngineError, match="engine proxy: service"):
        await client.post("/services/create", {**body, "TaskTemplate": template})
    assert [json.loads(sent) for sent in engine.seen("/services/create")] == [body]
    assert len(engine.seen("DELETE")) == 2
    for_builder = Engine(tmp_path / BUILDER)
    await for_builder.open()
    with pytest.raises(EngineError, match="the builder may make"):
        await for_builder.post("/services/create", body)
    await for_builder.close()


async def test_the_image_of_reservations_is_loaded_and_no_other(engine: RecordingEngine, client: Engine) -> None:
    archive = reservation_image.archive("amd64")
    await client.post("/images/load", archive, {"quiet": 1})
    with pytest.raises(EngineError, match="only the image of reservations"):
        await client.post("/images/load", archive + b"x", {"quiet": 1})
    assert engine.seen("/images/load") == [archive]


async def test_output_of_a_container_is_not_mistaken_for_a_response_of_the_engine(
    engine: RecordingEngine, tmp_path: Path
) -> None:
    """Its log looks like the answer to a creation; the two requests come in one piece."""
    engine.log = _reply("201 Created", {"Id": FOREIGN, "Warnings": []}) * 50
    create = json.dumps(SANDBOX).encode()
    requests = (
        f"GET /containers/{OURS}/logs?stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n"
        f"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: {len(create)}\r\n\r\n"
    ).encode() + create
    await raw(tmp_path / AUTOSCALER, requests)
    refused = await raw(tmp_path / AUTOSCALER, f"POST /containers/{FOREIGN}/start HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert refused.startswith(b"HTTP/1.1 403 ")
    assert not engine.seen(f"/containers/{FOREIGN}/start")


HIDDEN = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
PULL = b"POST /images/create?fromImage=x HTTP/1.1\r\n"
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
SMUGGLED = {
    "two lengths": b"GET /version HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "both forms": PULL + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another coding": PULL + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"GET /version HTTP/1.1\r\nContent-Length : 5\r\n\r\nxxxxx",
    "a folded line": b"GET /version HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
    "a bare line feed": b"GET /version HTTP/1.1\nX: a\r\n\r\n",
    "HTTP/1.0": b"GET /version HTTP/1.0\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an absolute address": b"GET http://engine/version HTTP/1.1\r\n\r\n",
    "a body where none belongs": b"POST /containers/%b/start HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}" % OURS.encode(),
    "a form for a query": PULL + FORM + b"Content-Length: 9\r\n\r\nfromSrc=x",
    "a long head": b"GET /version HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", SMUGGLED)
async def test_a_request_that_could_be_read_in_two_ways_is_refused(
    engine: RecordingEngine, tmp_path: Path, name: str
) -> None:
    answer = await raw(tmp_path / AUTOSCALER, SMUGGLED[name])
    assert answer.startswith(b"HTTP/1.1 403 "), answer
    assert engine.requests == []


@pytest.mark.parametrize("role", [AUTOSCALER, BUILDER])
async def test_no_connection_is_upgraded(engine: RecordingEngine, tmp_path: Path, role: str) -> None:
    """The engine's own BuildKit, which is reached that way, has this machine's network."""
    for path in (b"/session", b"/grpc"):
        head = b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" % path
        assert (await raw(tmp_path / role, head)).startswith(b"HTTP/1.1 403 ")
    smuggled = f"POST /containers/{OURS}/start HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n".encode()
    with contextlib.suppress(ConnectionError):  # it may be closed by then
        await raw(tmp_path / role, smuggled, more=HIDDEN)
    assert not engine.seen("/containers/create"), "the field did not reach the engine"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_body_is_streamed(engine: RecordingEngine, tmp_path: Path, chunked: bool) -> None:
    content = b"x" * 3_000_000
    head = b"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\n"
    if chunked:
        body = b"".join(
            b"%x\r\n%b\r\n" % (100_000, content[at : at + 100_000]) for at in range(0, len(content), 100_000)
        )
        data = head + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
    else:
        data = head + b"Content-Length: %d\r\n\r\n" % len(content) + content
    assert b"204 No Content" in await raw(tmp_path / BUILDER, data)
    assert engine.seen("/images/load") == [content]


async def test_one_connection_carries_many_calls(engine: RecordingEngine, client: Engine) -> None:
    for _ in range(20):
        await client.get("/version")
        await client.create(SANDBOX)
    assert len(engine.requests) == 40
