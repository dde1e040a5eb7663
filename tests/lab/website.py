"""
Run in a LAN host of the lab: a web server (80), a UDP echo (7) and a TCP sink (9).

  - C{GET /} is L{PAGE}; C{GET /client} the address it is asked from;
    C{GET /host} the host's name; C{GET /bytes/N} are N bytes, the same every time,
    and C{GET /random/N} L{content}, of which no two parts are alike.
  - C{PUT /} answers with the SHA-256 of what it was given, in hexadecimal.
  - The sink reads until the sender is done and answers with the number of bytes.
"""

from __future__ import annotations

import hashlib
import random
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"This page is on the customer's LAN.\n"

WEB_PORT, ECHO_PORT, SINK_PORT = 80, 7, 9
"""Where they are: RFC 862 and 863 for the last two, though this sink counts."""

PORTS = (WEB_PORT, SINK_PORT)
"""The TCP ports, by which to tell that all is ready: the echo is there before them."""

_BLOCK = b"0123456789abcdef" * 65536
"""What C{/bytes/N} repeats: 1 MiB."""


def content(size: int) -> bytes:
    """So many bytes, the same every time, in which any loss, repetition or exchange shows."""
    return random.Random(size).randbytes(size)


class _Web(BaseHTTPRequestHandler):
    """The pages."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with one of the pages, or 404."""
        if self.path == "/":
            self._answer(PAGE)
        elif self.path == "/client":
            self._answer(f"{self.client_address[0]}\n".encode())
        elif self.path == "/host":
            self._answer(socket.gethostname().encode())
        elif self.path.startswith("/random/") and self.path[8:].isdigit():
            self._answer(content(int(self.path[8:])))
        elif self.path.startswith("/bytes/") and self.path[7:].isdigit():
            self._answer_bytes(int(self.path[7:]))
        else:
            self.send_error(404)

    def do_PUT(self) -> None:
        """Answer with the digest of the body."""
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left > 0 and (block := self.rfile.read(min(left, len(_BLOCK)))):
            digest.update(block)
            left -= len(block)
        self._answer(digest.hexdigest().encode())

    def _answer(self, body: bytes) -> None:
        self._start(len(body))
        self.wfile.write(body)

    def _answer_bytes(self, size: int) -> None:
        self._start(size)
        while size > 0:
            self.wfile.write(_BLOCK[:size] if size < len(_BLOCK) else _BLOCK)
            size -= len(_BLOCK)

    def _start(self, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(size))
        self.end_headers()


class _Sink(socketserver.BaseRequestHandler):
    """Counts what one sender sends."""

    def handle(self) -> None:
        """Read to the end, then answer with the count."""
        connection: socket.socket = self.request
        buffer = memoryview(bytearray(1 << 18))
        total = 0
        while size := connection.recv_into(buffer):
            total += size
        connection.sendall(f"{total}\n".encode())


class _SinkServer(socketserver.ThreadingTCPServer):
    """A thread for each sender."""

    daemon_threads = True
    allow_reuse_address = True


def _echo(bound: socket.socket) -> None:
    """Send every datagram back, for ever."""
    while True:
        data, sender = bound.recvfrom(65535)
        bound.sendto(data, sender)


def main() -> None:
    """Serve until the process is ended."""
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.bind(("", ECHO_PORT))
    sink = _SinkServer(("", SINK_PORT), _Sink)
    web = ThreadingHTTPServer(("", WEB_PORT), _Web)
    threading.Thread(target=_echo, args=(echo,), daemon=True).start()
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    web.serve_forever()


if __name__ == "__main__":
    main()
