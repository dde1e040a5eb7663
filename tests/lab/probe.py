"""
Run in a host of the lab: asks another one for something and says what came.

  - C{get URL}: the body, on standard output.
  - C{digest URL}: the SHA-256 of the body, in hexadecimal.
  - C{put URL BYTES}: the answer to so many bytes of L{tests.lab.website.content}.
  - C{udp ADDRESS [TEXT]}: what the UDP echo sends back.
  - C{send ADDRESS BYTES}: how many of them the TCP sink has counted, and Mbit/s.
  - C{connect ADDRESS PORT}: C{open}, C{refused} or C{silence}.

Exits with 1 and one line on standard error if there is no answer.
"""

from __future__ import annotations

import hashlib
import socket
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
from tests.lab.website import ECHO_PORT, SINK_PORT, content

TIMEOUT = 2.0
"""Seconds to wait for each answer."""


def get(url: str) -> str:
    """What a web page says."""
    with urlopen(url, timeout=TIMEOUT) as answer:
        body: bytes = answer.read()
    return body.decode()


def digest(url: str) -> str:
    """The SHA-256 of a web page."""
    with urlopen(url, timeout=TIMEOUT) as answer:
        return hashlib.sha256(answer.read()).hexdigest()


def put(url: str, size: str) -> str:
    """What a web page answers to content."""
    with urlopen(Request(url, data=content(int(size)), method="PUT"), timeout=TIMEOUT) as answer:
        body: bytes = answer.read()
    return body.decode()


def udp(address: str, text: str = "Is anybody there?") -> str:
    """What the UDP echo answers to a text."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(TIMEOUT)
        asking.connect((address, ECHO_PORT))
        asking.send(text.encode())
        return asking.recv(65535).decode()


def send(address: str, size: str) -> str:
    """How many of C{size} bytes the sink counts, and how fast they went in Mbit/s."""
    block, left, began = bytes(1 << 20), int(size), time.monotonic()
    with socket.create_connection((address, SINK_PORT), TIMEOUT) as sending:
        sending.settimeout(None)
        while left > 0:
            left -= sending.send(block[:left] if left < len(block) else block)
        sending.shutdown(socket.SHUT_WR)
        counted = int(sending.recv(64))
    return f"{counted} {counted * 8e-6 / (time.monotonic() - began):.1f}"


def connect(address: str, port: str) -> str:
    """What comes of a TCP connection attempt."""
    try:
        socket.create_connection((address, int(port)), TIMEOUT).close()
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "silence"
    return "open"


PROBES = {probe.__name__: probe for probe in (get, digest, put, udp, send, connect)}


def main(argv: list[str]) -> int:
    """Do one probe; the exit status."""
    try:
        sys.stdout.write(PROBES[argv[0]](*argv[1:]))
    except OSError as error:
        sys.stderr.write(f"{' '.join(argv)}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
