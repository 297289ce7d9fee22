"""HTTP client of Knoll's API for the command line."""

import builtins
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from knoll.values import kinds
from knoll.values.errors import (
    BadRequestError,
    ConflictError,
    ForbiddenError,
    KnollError,
    NotFoundError,
    StoreUnavailableError,
    UnauthorizedError,
)

DEFAULT_SERVER = "http://127.0.0.1:8001"
CHUNK = 256 * 1024


class ApiClient:
    """A client of one API server. Raises KnollError with the server's message when a request is refused."""

    def __init__(self, server: str = DEFAULT_SERVER, token: str = "", verify: ssl.SSLContext | bool = True) -> None:
        """
        Args:
            server: `http://…`, `https://…`, or `unix:PATH` for a Unix socket.
            token: sent as a bearer token unless it is empty.
            verify: certificate authorities to trust over https.
        """
        self.server = server.rstrip("/")
        address, transport = self.server, None
        if self.server.startswith("unix:"):
            path = self.server.removeprefix("unix:").removeprefix("//")
            address, transport = "http://localhost", httpx.HTTPTransport(uds=path, verify=False)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = httpx.Timeout(30, read=None)
        if verify is True and address.startswith("http://"):
            # Plain http needs no certificates, and loading the system's takes longer than most commands.
            verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.Client(
            base_url=address, timeout=timeout, headers=headers, verify=verify, transport=transport
        )

    def close(self) -> None:
        self._http.close()

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> dict[str, Any]:
        """Raises: NotFoundError."""
        return self._json("GET", f"{_path(kind, namespace)}/{name}")

    def create(self, kind: kinds.Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._json("POST", _path(kind, namespace), json=body)

    def find(self, kind: kinds.Kind, namespace: str, name: str) -> dict[str, Any] | None:
        """Like `get`, but None when the object does not exist."""
        try:
            return self.get(kind, namespace, name)
        except NotFoundError:
            return None

    def list(self, kind: kinds.Kind, namespace: str, selector: str = "") -> builtins.list[dict[str, Any]]:
        """List the objects of a namespace that match a label selector."""
        listing = self._json("GET", _path(kind, namespace), params={"labelSelector": selector} if selector else {})
        return builtins.list(listing["items"])

    def list_all(self, kind: kinds.Kind, fields: str = "") -> builtins.list[dict[str, Any]]:
        """List the objects of all namespaces that match a field selector."""
        base = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
        listing = self._json("GET", f"{base}/{kind.plural}", params={"fieldSelector": fields} if fields else {})
        return builtins.list(listing["items"])

    def watch(self, kind: kinds.Kind, namespace: str, selector: str = "") -> Iterator[dict[str, Any]]:
        """Yield the existing objects and then changes, each `{type, object}`, until the server ends the watch.

        Raises: KnollError when the watch fails.
        """
        query = {"watch": "true", "labelSelector": selector} if selector else {"watch": "true"}
        for line in self._lines(_path(kind, namespace), query):
            event: dict[str, Any] = msgspec.json.decode(line)
            if event["type"] == "ERROR":
                error = _KINDS.get(event["object"].get("code"), KnollError)
                raise error(str(event["object"].get("message", "the watch ended")))
            yield event

    def replace(self, kind: kinds.Kind, body: dict[str, Any]) -> dict[str, Any]:
        """Replace an object; its resourceVersion must be the stored one. Raises: ConflictError."""
        meta = body["metadata"]
        return self._json("PUT", f"{_path(kind, meta.get('namespace', ''))}/{meta['name']}", json=body)

    def delete(self, kind: kinds.Kind, namespace: str, name: str) -> dict[str, Any]:
        return self._json("DELETE", f"{_path(kind, namespace)}/{name}")

    def token(self, namespace: str, name: str, seconds: int) -> str:
        """Request a token of a ServiceAccount that is valid for `seconds`."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        answer = self._json("POST", f"{_path(kinds.SERVICE_ACCOUNT, namespace)}/{name}/token", json=body)
        return str(answer["status"]["token"])

    def has_upload(self, namespace: str, upload_id: str) -> bool:
        try:
            self._send("HEAD", f"/namespaces/{namespace}/uploads/{upload_id}")
        except NotFoundError:
            return False
        return True

    def upload(self, namespace: str, chunks: Iterator[bytes], size: int) -> str:
        """Upload a source archive for builds of a namespace; return its id."""
        answer = self._json(
            "POST",
            f"/namespaces/{namespace}/uploads",
            content=chunks,
            headers={"Content-Type": "application/x-tar", "Content-Length": str(size)},
        )
        return str(answer["id"])

    def build_log(self, namespace: str, name: str) -> Iterator[str]:
        """Yield the lines of a build's output as they are written, until the build ends."""
        return self._lines(f"{_path(kinds.BUILD_KIND, namespace)}/{name}/log", {"follow": "true"})

    def pod_log(self, namespace: str, name: str, container: str, *, follow: bool, tail: int) -> Iterator[str]:
        """Yield the last `tail` log lines of a container and, with `follow`, later ones until it ends."""
        query = {"container": container, "follow": str(follow).lower(), "tailLines": str(tail)}
        return self._lines(f"{_path(kinds.POD, namespace)}/{name}/log", query)

    def _lines(self, url: str, query: dict[str, str]) -> Iterator[str]:
        try:
            with self._http.stream("GET", url, params=query) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refused(answer)
                yield from answer.iter_lines()
        except httpx.TransportError as error:
            raise self._unavailable(error) from error

    def _json(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        body: dict[str, Any] = self._send(method, url, **more).json()
        return body

    def _send(self, method: str, url: str, **more: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, url, **more)
        except httpx.TransportError as error:
            raise self._unavailable(error) from error
        if answer.is_error:
            raise _refused(answer)
        return answer

    def _unavailable(self, error: Exception) -> KnollError:
        return StoreUnavailableError(
            f"no response from Knoll's API at {self.server} ({error}); start it with `knoll up` or `docker compose "
            "up`, or pass its address with --server or KNOLL_SERVER"
        )


def _path(kind: kinds.Kind, namespace: str) -> str:
    base = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    return f"{base}/namespaces/{namespace}/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"


def _refused(answer: httpx.Response) -> KnollError:
    try:
        message = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:500]}".strip()
    if answer.status_code in (401, 403) and "authorization" not in answer.request.headers:
        message += (
            "\nThe request had no token: pass a kubeconfig with --kubeconfig or KUBECONFIG "
            "(with Compose: `docker compose exec api knoll kubeconfig > knoll.yaml`)"
        )
    return _KINDS.get(answer.status_code, BadRequestError)(message)


_KINDS: dict[int, type[KnollError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
}


def chunks(archive: Path) -> Iterator[bytes]:
    """Yield the content of a file in chunks."""
    with archive.open("rb") as source:
        while piece := source.read(CHUNK):
            yield piece
