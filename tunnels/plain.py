"""A stream socket in the clear, used as a TLS connection on a socket is used."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TypeVar, Union

from OpenSSL import SSL

T = TypeVar("T")
Buffer = Union[bytes, bytearray, memoryview]


class PlainConnection:
    """
    Reads and writes as an C{SSL.Connection} on a non-blocking socket does, with
    its exceptions, so that L{tunnels.link.Link} and
    L{tunnels.conversation.Conversation} work on it: for a local socket, behind
    which another program does the TLS.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        #: Bytes of what is being sent that have left.
        self._sent = 0
        #: Whether the other end has closed it.
        self.ended = False

    def send(self, data: Buffer) -> int:
        """
        Send all of it. After a C{SSL.WantWriteError} call again with the same.

        @return: how many bytes it has.
        """
        with memoryview(data) as view:
            while self._sent < len(view):
                self._sent += self._do(self._socket.send, SSL.WantWriteError, view[self._sent :])
        size, self._sent = self._sent, 0
        return size

    def recv(self, size: int) -> bytes:
        """What has come in, up to the end of its first line: bytes behind a line belong to who reads next."""
        seen = self._some(self._do(self._socket.recv, SSL.WantReadError, size, socket.MSG_PEEK))
        return self._socket.recv(seen.find(b"\n") + 1 or len(seen))

    def recv_into(self, buffer: memoryview, size: int) -> int:
        """What has come in, into a buffer; how many bytes."""
        return self._some(self._do(self._socket.recv_into, SSL.WantReadError, buffer, size))

    def shutdown(self) -> bool:
        """Say that nothing more will be sent."""
        self._do(self._socket.shutdown, SSL.WantWriteError, socket.SHUT_WR)
        return True

    def _do(self, call: Callable[..., T], later: type[SSL.Error], *arguments: object) -> T:
        try:
            return call(*arguments)
        except BlockingIOError:
            raise later from None
        except OSError as error:
            self.ended = True
            raise SSL.SysCallError(error.errno, os.strerror(error.errno or 0)) from None

    def _some(self, got: T) -> T:
        if not got:
            self.ended = True
            raise SSL.ZeroReturnError
        return got
