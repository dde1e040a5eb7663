"""
Many strangers as a program of their own: they connect, each from another address of 127.0.0.0/8, and waste time.

C{python crowd.py PORT COUNT HOW}, where C{HOW} is C{silent}; C{again}: who is thrown out comes back; or bytes in hex,
of which everybody says one now and then, and comes back. Prints C{all here} when all have come, and ends with its
standard input.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import sys
import time
from itertools import count

#: Connections being made at one time.
MOST_CONNECTING = 200
#: Milliseconds between two bytes of one stranger, and strangers that come back in that time: the crowd is not to
#: be a measure of how many connections the machine can make.
DRIP_MILLISECONDS = 20
COMING_BACK = 6

_PENDING = {errno.EINPROGRESS, errno.EAGAIN}


class Crowd:
    """Strangers at one port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._numbers = count(1)
        self._poll = select.epoll()
        self._poll.register(0, select.EPOLLIN)
        self._connecting: dict[int, socket.socket] = {}
        self.here: dict[int, socket.socket] = {}
        self.said: dict[int, int] = {}
        self.came = 0
        self.over = False

    def bring(self) -> None:
        """One more comes, from the next address."""
        number = next(self._numbers)
        stranger = socket.socket()
        stranger.setblocking(False)
        stranger.bind((f"127.{1 + number // 62500 % 250}.{1 + number // 250 % 250}.{1 + number % 250}", 0))
        code = stranger.connect_ex(("127.0.0.1", self._port))
        if code and code not in _PENDING:
            raise OSError(code, "cannot connect")
        self._connecting[stranger.fileno()] = stranger
        self._poll.register(stranger, select.EPOLLOUT | select.EPOLLIN)

    def look(self, timeout: float) -> int:
        """
        See what has happened.

        @return: how many were thrown out.
        """
        gone = 0
        for descriptor, _ in self._poll.poll(timeout):
            if descriptor == 0:
                self.over = True
            elif descriptor in self._connecting:
                stranger = self._connecting.pop(descriptor)
                if stranger.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    stranger.close()
                    continue
                self.came += 1
                self.here[descriptor] = stranger
                self._poll.modify(descriptor, select.EPOLLIN)
            elif self._is_gone(self.here[descriptor]):
                self.here.pop(descriptor).close()
                self.said.pop(descriptor, None)
                gone += 1
        return gone

    @staticmethod
    def _is_gone(stranger: socket.socket) -> bool:
        try:
            return not stranger.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def drip(self, what: bytes) -> None:
        """Everybody says one byte more."""
        for descriptor, stranger in self.here.items():
            at = self.said.get(descriptor, 0)
            self.said[descriptor] = at + 1
            try:
                stranger.send(what[at % len(what)].to_bytes(1, "big"))
            except OSError:
                continue

    @property
    def connecting(self) -> int:
        """How many are on their way."""
        return len(self._connecting)


def main(port: int, most: int, how: str) -> None:
    """See the module."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(port)
    what = b"" if how in ("silent", "again") else bytes.fromhex(how)
    asked, thrown_out, drips = 0, 0, time.monotonic()
    told = False
    while not crowd.over:
        while asked < most and crowd.connecting < MOST_CONNECTING:
            crowd.bring()
            asked += 1
        thrown_out += crowd.look(DRIP_MILLISECONDS / 1000)
        if crowd.came >= most and not told:
            told = True
            os.write(1, b"all here\n")
        if how == "silent" or time.monotonic() - drips < DRIP_MILLISECONDS / 1000:
            continue
        drips = time.monotonic()
        back = min(thrown_out, COMING_BACK)
        thrown_out -= back
        for _ in range(back):
            crowd.bring()
        if what:
            crowd.drip(what)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
