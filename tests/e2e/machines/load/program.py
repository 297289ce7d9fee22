"""A program for tests of several machines; it runs in an instance and has the standard library only.

GET responds with its host name, after `?sleep=SECONDS`; POST responds with the length of the body. A request with
`Upgrade: websocket` gets its messages back. At SIGTERM it ends at once: a request that is left then fails.
"""

import base64
import hashlib
import os
import signal
import socket
import struct
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 120

    def do_GET(self) -> None:
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self._echo_messages()
            return
        time.sleep(float(parse_qs(urlsplit(self.path).query).get("sleep", ["0"])[0]))
        self._respond(socket.gethostname().encode())

    def do_POST(self) -> None:
        self._respond(str(len(self.rfile.read(int(self.headers["Content-Length"])))).encode())

    def _respond(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _echo_messages(self) -> None:
        """Return masked text frames of at most 125 bytes as they are, until a close frame."""
        key = base64.b64encode(hashlib.sha1((self.headers["Sec-WebSocket-Key"] + GUID).encode()).digest()).decode()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", key)):
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        while len(head := self.rfile.read(2)) == 2:
            code, size = struct.unpack("!BB", head)
            mask = self.rfile.read(4)
            payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(size & 0x7F)))
            self.wfile.write(struct.pack("!BB", code, len(payload)) + payload)
            if code & 0x0F == 8:
                return

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 256


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    Server(("", int(os.environ["PORT"])), Handler).serve_forever()
