"""Runs inside one network namespace: responds on some TCP and UDP ports, and tries to reach others when asked.

Reads `tcp HOST PORT`, `udp HOST PORT` or `broadcast PORT` from stdin, one a line, and prints `yes` or `no`. With
`received` it prints how many datagrams arrived at its UDP ports.
"""

import contextlib
import socket
import sys
import threading

SECONDS = 0.7
received = 0


def serve(port: int) -> None:
    listener = socket.create_server(("", port), backlog=64)
    while True:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"hello")


def serve_datagrams(port: int) -> None:
    global received
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind(("", port))
        while True:
            data, sender = endpoint.recvfrom(100)
            received += 1
            with contextlib.suppress(OSError):
                endpoint.sendto(data, sender)


def tcp(host: str, port: int) -> bool:
    with socket.create_connection((host, port), SECONDS) as connection:
        return connection.recv(5) == b"hello"


def udp(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.settimeout(SECONDS)
        endpoint.connect((host, port))
        endpoint.send(b"hello")
        return endpoint.recv(5) == b"hello"


def broadcast(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        endpoint.sendto(b"hello", ("255.255.255.255", port))
    return True


def answer(kind: str, *arguments: str) -> str:
    if kind == "received":
        return str(received)
    try:
        if kind == "broadcast":
            good = broadcast(int(arguments[0]))
        else:
            good = {"tcp": tcp, "udp": udp}[kind](arguments[0], int(arguments[1]))
    except OSError:
        good = False
    return "yes" if good else "no"


for number in map(int, sys.argv[1:]):
    threading.Thread(target=serve, args=[number], daemon=True).start()
    threading.Thread(target=serve_datagrams, args=[number], daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    print(answer(*line.split()), flush=True)
