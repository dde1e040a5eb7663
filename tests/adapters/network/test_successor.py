"""A process that makes namespaces takes the place of another; the test answers in its place."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.network import successor as module
from rdvtwisted.adapters.network.gluer_client import START_PATIENCE, GluerProcess
from rdvtwisted.adapters.network.successor import successor
from rdvtwisted.errors import MissingPrivilege, NetworkError
from tests.adapters.network.test_gluer_client import DONE, Process, Reactor


class SuccessorTests(SynchronousTestCase):
    """The server goes on while another process starts."""

    def setUp(self) -> None:
        """A process has been launched."""
        self.reactor, self.process = Reactor(), Process()
        self.limits: list[int] = []
        ours, self.its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(ours.close)
        self.addCleanup(self.its.close)

        def launch(limit: int) -> GluerProcess:
            self.limits.append(limit)
            return GluerProcess(self.process, ours)

        self.patch(module, "launch", launch)
        self.ours = ours
        self.starting: Deferred[GluerProcess] = successor(self.reactor, 7)

    def read(self) -> Any:
        """What it has said is read."""
        [reader] = self.reactor.readers
        self.assertEqual(reader.fileno(), self.ours.fileno())
        return reader.doRead()

    def assert_ended(self) -> None:
        """The process is killed and reaped, and nothing waits for it."""
        self.assertEqual((self.process.kills, self.reactor.readers), (1, []))
        self.assertEqual((self.ours.fileno(), self.reactor.getDelayedCalls()), (-1, []))

    def test_ready(self) -> None:
        """It is there once it has said that it can do what it is for, and not before."""
        self.assertEqual(self.limits, [7])
        self.read()
        self.assertNoResult(self.starting)
        self.its.send(DONE)
        self.read()
        gluer = self.successResultOf(self.starting)
        self.assertIs(gluer.process, self.process)
        self.assertEqual((self.process.kills, self.reactor.readers, self.reactor.getDelayedCalls()), (0, [], []))

    def test_refused(self) -> None:
        """It may say why it cannot, which is what the caller gets; it is ended then."""
        self.its.send(b'{"error": "it may not", "kind": "MissingPrivilege"}')
        self.read()
        self.assertEqual(str(self.failureResultOf(self.starting, MissingPrivilege).value), "it may not")
        self.assert_ended()

    def test_ends(self) -> None:
        """It may end at once."""
        self.its.close()
        self.read()
        self.failureResultOf(self.starting, NetworkError)
        self.assert_ended()

    def test_silent(self) -> None:
        """If it says nothing in time, it is ended."""
        self.reactor.advance(START_PATIENCE)
        self.assertIn("does not start", str(self.failureResultOf(self.starting, NetworkError).value))
        self.assert_ended()

    def test_cancelled(self) -> None:
        """Who does not want it any more has it ended."""
        self.starting.cancel()
        self.failureResultOf(self.starting, CancelledError)
        self.assert_ended()

    def test_server_ends(self) -> None:
        """So does a server that ends."""
        [reader] = self.reactor.readers
        reader.connectionLost(Failure(CONNECTION_LOST))
        self.failureResultOf(self.starting, NetworkError)
        self.assert_ended()
