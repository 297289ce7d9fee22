"""Text of tenants on a terminal: it is shown, and controls nothing."""

import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.cli.terminal import clean

COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
HOSTILE = "a\x1b]52;c;ZXZpbA==\x07b\x1b]0;title\x07\x1b[2J\x9b2J\x1b[31mred"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nand more", "plain\ttext\nand more"),
        ("\x1b]52;c;ZXZpbA==\x07", "\\x1b]52;c;ZXZpbA==\\x07"),
        ("\x1b]0;title\x1b\\", "\\x1b]0;title\\x1b\\"),
        ("\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H"),
        ("\x1b[6n", "\\x1b[6n"),
        ("over\rwritten\b", "over\\x0dwritten\\x08"),
        ("\x9b31m", "\\x9b31m"),
        ("\x1b[31mred", "\x1b[31mred\x1b[0m"),
        ("\x1b[1;38:5:9mx\x1b[0m\ny", "\x1b[1;38:5:9mx\x1b[0m\x1b[0m\ny"),
        ("\x1b[31", "\\x1b[31"),
        ("é 日本", "é 日本"),
    ],
)
def test_what_is_left_of_control_characters(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text(st.sampled_from("\x1b[]0;:m\x07\r\n\t\x9bPq\\ aZ\x7f\x00")))
def test_nothing_but_colours_tabs_and_line_breaks_is_left(text: str) -> None:
    rest = COLOUR.sub("", clean(text))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", rest)


class Hostile(BaseHTTPRequestHandler):
    """An API whose every text is what an attacker wrote."""

    def do_GET(self) -> None:
        if self.path.endswith("/log?container=user-container&follow=false&tailLines=100"):
            body = HOSTILE + "\n"
        elif "/pods" in self.path:
            body = '{"items": [{"metadata": {"name": "hello-1"}}]}'
        elif self.path.endswith("/services/hello"):
            body = '{"metadata": {"name": "hello"}}'
        elif self.path.endswith("/services"):
            body = (
                '{"items": [{"metadata": {"name": "hello"}, "status": {"conditions": '
                f'[{{"type": "Ready", "status": "False", "message": "{ESCAPED}"}}]}}}}]}}'
            )
        else:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b'{"message": "%s"}' % ESCAPED.encode())
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


ESCAPED = "".join(f"\\u{ord(letter):04x}" if ord(letter) < 32 or ord(letter) > 126 else letter for letter in HOSTILE)


@pytest.fixture
def server() -> Iterator[str]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    thread.join()
    made.server_close()


def on_terminal(arguments: list[str]) -> str:
    """What a command writes to a terminal, standard error included."""
    main, side = pty.openpty()
    process = subprocess.Popen(arguments, stdin=side, stdout=side, stderr=side, env={**os.environ, "TERM": "xterm"})
    os.close(side)
    output = b""
    try:
        while chunk := os.read(main, 65536):
            output += chunk
    except OSError:  # the last writer is gone
        pass
    process.wait()
    os.close(main)
    return output.decode()


@pytest.mark.parametrize(
    "arguments", [["logs", "hello"], ["status"], ["logs", "missing"]], ids=["log", "message", "error"]
)
def test_no_command_passes_control_sequences_to_a_terminal(server: str, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "knoll.cli", *arguments, "--server", server]
    shown = on_terminal(command)
    assert "\\x1b]52;c;ZXZpbA==" in shown
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", COLOUR.sub("", shown))
    piped = subprocess.run(command, capture_output=True, text=True)
    assert "\x1b]52;c;ZXZpbA==" in piped.stdout + piped.stderr
