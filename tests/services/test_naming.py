"""Names that are looked up: no DNS server that says nothing keeps a program from ending."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

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


class LookupTests(TestCase):
    """What is looked up."""

    def test_connects(self) -> None:
        """A name is found as the system finds it, and connected to."""
        from twisted.internet import reactor

        asked: list[Any] = []

        def look_up(host: Any, port: Any, *more: Any) -> Any:
            asked.append(host)
            return socket.getaddrinfo("127.0.0.1", port, *more)

        memory = MemoryReactorClock()
        before = memory.nameResolver
        self.assertIs(unhurried(memory, look_up), memory)
        self.assertIsNot(memory.nameResolver, before)
        memory.callFromThread = reactor.callFromThread  # type: ignore[attr-defined]
        connecting = HostnameEndpoint(memory, "rdv.example.org", 22).connect(Factory.forProtocol(Protocol))
        self.addCleanup(connecting.cancel)
        connecting.addErrback(lambda _: None)

        def connected(_: object) -> None:
            memory.advance(0)
            self.assertEqual(asked, ["rdv.example.org"])
            self.assertEqual(memory.tcpClients[0][:2], ("127.0.0.1", 22))

        from twisted.internet.task import deferLater

        return deferLater(reactor, 0.2).addCallback(connected)  # type: ignore[no-any-return]
