"""Another process that makes the network namespaces of sessions, in the place of one that has ended."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.adapters.network.gluer_client import START_PATIENCE, GluerProcess, launch, outcome
from rdvtwisted.errors import NetworkError, RDVError
from rdvtwisted.glue import LONGEST_MESSAGE

#: Seconds from a SIGKILL to its end.
_REAP_PATIENCE = 1.0


@implementer(IReadDescriptor)
class _Birth:
    """Waits until a process has shown that it can do what it is for."""

    def __init__(self, reactor: Any, gluer: GluerProcess) -> None:
        self._reactor = reactor
        self._gluer = gluer
        self.ready: Deferred[GluerProcess] = Deferred(lambda _: self._give_up(None))
        self._patience: IDelayedCall | None = reactor.callLater(
            START_PATIENCE, self._give_up, NetworkError("the process that makes network namespaces does not start")
        )
        gluer.connection.setblocking(False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """The descriptor of the socket to it."""
        return self._gluer.connection.fileno()

    def logPrefix(self) -> str:
        """A word for the log."""
        return "glue"

    def doRead(self) -> None:
        """Its first message has come, or its end."""
        try:
            message = self._gluer.connection.recv(LONGEST_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        try:
            outcome(message)
        except RDVError as error:
            self._give_up(error)
            return
        self._leave()
        self.ready.callback(self._gluer)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""
        self._give_up(NetworkError("the server ends"))

    def _leave(self) -> None:
        self._reactor.removeReader(self)
        patience, self._patience = self._patience, None
        if patience is not None and patience.active():
            patience.cancel()

    def _give_up(self, error: RDVError | None) -> None:
        """End it; C{None} is for who does not wait any more."""
        self._leave()
        self._gluer.connection.close()
        with suppress(PermissionError, subprocess.TimeoutExpired):
            self._gluer.process.kill()
            self._gluer.process.wait(_REAP_PATIENCE)
        if error is not None:
            self.ready.errback(error)


def successor(reactor: Any, limit: int) -> Deferred[GluerProcess]:
    """
    As L{rdvtwisted.adapters.network.gluer_client.start}, for a server that
    runs: nobody waits, and there may be less privileges than there were at first.

    @return: a Deferred of the process; fails with what C{start} raises. Cancelling ends the process.
    """
    return _Birth(reactor, launch(limit)).ready
