"""The slow parts of a TLS connection on a socket, one step at a time: handshakes, short lines, farewells."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.errors import TunnelSilent

T = TypeVar("T")


class Socket(Protocol):
    """A connected, non-blocking stream socket, or what has one."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


def explain(error: BaseException) -> str:
    """What an exception of pyOpenSSL says, in words for the end of a sentence."""
    if isinstance(error, SSL.ZeroReturnError):
        return "it ended the TLS connection"
    if isinstance(error, SSL.SysCallError):
        number = error.args[0] if error.args else -1
        return os.strerror(number) if isinstance(number, int) and number > 0 else "it closed the connection"
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        return "; ".join(str(entry[-1]) for entry in error.args[0]) or "TLS error"
    return str(error) or type(error).__name__


def within(reactor: Any, seconds: float, waiting: Deferred[T], what: str) -> Deferred[T]:
    """
    C{waiting}, cancelled after so many seconds.

    @param what: what did not happen in time, for the L{TunnelSilent} with which it then fails.
    """

    def late(result: object, timeout: float) -> Failure:
        return Failure(TunnelSilent(f"{what} within {timeout:.0f} s"))

    return waiting.addTimeout(seconds, reactor, late)


@implementer(IReadDescriptor, IWriteDescriptor)
class Conversation:
    """
    Repeats a step of a TLS connection, whenever its socket is ready, until it
    succeeds or fails. Watches the socket during a step and L{heard} only.
    """

    def __init__(self, reactor: Any, sock: Socket, connection: SSL.Connection) -> None:
        self._reactor = reactor
        self._socket = sock
        self.connection = connection
        self._step: Callable[[], Any] | None = None
        self._done: Deferred[Any] | None = None
        self._heard: Deferred[None] | None = None

    def attempt(self, step: Callable[[], T]) -> Deferred[T]:
        """
        Call C{step} until it no longer raises WantReadError or WantWriteError.

        @return: a Deferred of its result; may be cancelled.
        """
        done: Deferred[T] = Deferred(self._cancel)
        self._step, self._done = step, done
        self._go()
        return done

    def heard(self) -> Deferred[None]:
        """
        @return: a Deferred that fires when anything comes in, or the running
            attempt ends for another reason. Called during an attempt.
        """
        self._heard = Deferred()
        return self._heard

    def _go(self) -> None:
        assert self._step is not None
        try:
            result = self._step()
        except SSL.WantReadError:
            self._reactor.addReader(self)
            self._reactor.removeWriter(self)
        except SSL.WantWriteError:
            self._reactor.addWriter(self)
            self._reactor.removeReader(self)
        except SSL.Error:
            self._settle().errback()
        else:
            self._settle().callback(result)

    def _cancel(self, done: Deferred[Any]) -> None:
        self._settle()

    def _settle(self) -> Deferred[Any]:
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        done = self._done
        assert done is not None
        self._step = self._done = None
        self._notice()
        return done

    def _notice(self) -> None:
        if self._heard is not None:
            heard, self._heard = self._heard, None
            heard.callback(None)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """Something came in."""
        self._notice()
        if self._step is not None:
            self._go()

    def doWrite(self) -> None:
        """There is room for more."""
        if self._step is not None:
            self._go()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the socket broken, or stops."""
        if self._done is not None:
            self._settle().errback(SSL.SysCallError(-1, "Unexpected EOF"))

    def logPrefix(self) -> str:
        """For Twisted's log."""
        return "tunnel"
