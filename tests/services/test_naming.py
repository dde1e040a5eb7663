"""Names that are looked up: no DNS server that says nothing keeps a program from ending."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from rdvtwisted.services.naming import unhurried

#: Seconds after which a program that should have ended has not.
LONGEST = 60.0

_PROGRAM = """
import threading
from twisted.internet import reactor
from rdvtwisted.services.naming import unhurried

def look_up(*_):
    reactor.callFromThread(reactor.stop)
    threading.Event().wait()

unhurried(reactor, look_up)
reactor.callWhenRunning(reactor.nameResolver.resolveHostName, Receiver(), "rdv.example.org")
reactor.run()
print("ended")
"""

_RECEIVER = """
from zope.interface import implementer
from twisted.internet.interfaces import IResolutionReceiver

@implementer(IResolutionReceiver)
class Receiver:
    def resolutionBegan(self, resolution): pass
    def addressResolved(self, address): pass
    def resolutionComplete(self): pass
"""


class EndTests(SynchronousTestCase):
    """The end of a program."""

    def test_silent_resolver(self) -> None:
        """A program that is to end does so at once, though a name is being looked up that nobody answers for."""
        done = subprocess.run(
            [sys.executable, "-c", _RECEIVER + _PROGRAM], capture_output=True, text=True, timeout=LONGEST, check=False
        )
        self.assertEqual((done.stdout, done.stderr, done.returncode), ("ended\n", "", 0))


@implementer(IResolutionReceiver)
class _Receiver:
    """Who has asked for a name."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.complete: Deferred[None] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """It is being looked up."""

    def addressResolved(self, address: IAddress) -> None:
        """It has this address."""
        self.found.append(address)

    def resolutionComplete(self) -> None:
        """It has no more."""
        self.complete.callback(None)


class LookupTests(TestCase):
    """What is looked up."""

    async def test_found(self) -> None:
        """A name has the addresses that the system finds; the reactor's own threads are not used for it."""

        def look_up(host: Any, port: Any, *more: Any) -> Any:
            self.assertEqual(host, "rdv.example.org")
            return socket.getaddrinfo("127.0.0.1", port, *more)

        memory, receiver = MemoryReactorClock(), _Receiver()
        memory.callFromThread = reactor.callFromThread  # type: ignore[attr-defined]
        self.assertIs(unhurried(memory, look_up), memory)
        memory.nameResolver.resolveHostName(receiver, "rdv.example.org", portNumber=22)
        await receiver.complete
        self.assertEqual(receiver.found, [IPv4Address("TCP", "127.0.0.1", 22)])
