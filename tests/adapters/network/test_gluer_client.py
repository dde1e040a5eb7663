"""How the server asks for session namespaces; the test answers in the other process's place."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from typing import Any

from attrs import define, evolve, field
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.network.gluer_client import Glue, GluerProcess, outcome, start
from rdvtwisted.errors import ConfigError, MissingPrivilege, MissingProgram, NetworkError, RDVError
from rdvtwisted.glue import Close, GlueRequest, Open, request_from_bytes
from rdvtwisted.interfaces import IGlue
from rdvtwisted.testing.glue import BRIDGED, ROUTED

DONE = b'{"done": true}'


class Reactor(Clock):
    """A clock that knows who wants to read."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        """Take note."""
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        """Forget it."""
        self.readers.remove(reader)


@define
class Process:
    """A process that ends when it is killed, or has been told so."""

    kills: int = 0
    status: int | None = None
    forbidden: bool = False

    def kill(self) -> None:
        """End, if the caller may have it so."""
        self.kills += 1
        if self.forbidden:
            raise PermissionError
        self.status = -9

    def wait(self, seconds: float) -> int:
        """The exit status."""
        if self.status is None:
            raise subprocess.TimeoutExpired("gluer", seconds)
        return self.status


@define
class Device:
    """What a descriptor was made into."""

    fd: int
    name: str
    headers: bool
    closed: bool = field(default=False, init=False)

    def close(self) -> None:
        """Close it."""
        self.closed = True
        os.close(self.fd)


class AnswerTests(SynchronousTestCase):
    """What the other process says of what it was asked."""

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(
        st.binary(max_size=80)
        | st.dictionaries(
            st.sampled_from(["done", "kind", "error"]), st.none() | st.booleans() | st.text(max_size=20), max_size=3
        )
        .filter(lambda said: said != {"done": True})
        .map(lambda said: json.dumps(said).encode())
    )
    @example(b"[" * 4096)
    def test_any_answer(self, message: bytes) -> None:
        """Whatever it says, it is that all is done, or an error."""
        self.assertRaises(RDVError, outcome, message)
        outcome(DONE)


class ClientTests(SynchronousTestCase):
    """The server's side."""

    def setUp(self) -> None:
        ours, self.other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(ours.close)
        self.addCleanup(self.other.close)
        self.other.setblocking(False)
        self.reactor = Reactor()
        self.process = Process()
        self.devices: list[Device] = []
        self.glue = Glue(GluerProcess(self.process, ours), self.reactor, self.adopt)

    def adopt(self, fd: int, name: str, *, headers: bool) -> Device:
        """A packet device of a descriptor."""
        self.assertFalse(os.get_inheritable(fd))
        self.devices.append(Device(fd, name, headers))
        return self.devices[-1]

    def asked(self) -> GlueRequest | None:
        """What the other process is asked for now."""
        try:
            return request_from_bytes(self.other.recv(5000))
        except BlockingIOError:
            return None

    def answer(self, message: bytes = DONE, descriptors: int = 0) -> None:
        """The other process answers with so many descriptors."""
        passed = [os.open("/dev/null", os.O_RDWR) for _ in range(descriptors)]
        socket.send_fds(self.other, [message], passed)
        for descriptor in passed:
            os.close(descriptor)
        self.read()

    def read(self) -> None:
        """The reactor sees that there is something to read."""
        (reader,) = self.reactor.readers
        if (why := reader.doRead()) is not None:
            self.reactor.removeReader(reader)
            reader.connectionLost(Failure(why))

    def open_descriptors(self) -> int:
        """How many descriptors this process has."""
        return len(os.listdir("/proc/self/fd"))

    def test_provides(self) -> None:
        """It is a glue."""
        self.assertTrue(verifyObject(IGlue, self.glue))

    def test_open(self) -> None:
        """The descriptors that come with the answer become the onsite's and the master's device."""
        for spec in (ROUTED, evolve(BRIDGED, headers=True)):
            opening = self.glue.open(spec)
            self.assertEqual(self.asked(), Open(spec))
            self.assertNoResult(opening)
            self.answer(DONE, 2)
            onsite, master = self.successResultOf(opening)
            self.assertEqual((onsite.name, master.name), ("onsite", "master"))
            self.assertEqual((onsite.headers, master.headers), (spec.headers, spec.headers))
            for device in (onsite, master):
                device.close()

    def test_one_at_a_time(self) -> None:
        """The next question is asked when the one before is answered."""
        answers = [self.glue.close(name) for name in ("a", "b", "c")]
        for number, name in enumerate("abc"):
            self.assertEqual((self.asked(), self.asked()), (Close(name), None))
            self.assertNoResult(answers[number])
            self.answer()
            self.assertIsNone(self.successResultOf(answers[number]))

    def test_refused(self) -> None:
        """The other process's one line comes as the error that it is, an unknown one as the kernel's refusal."""
        for kind, expected in (
            ("NetworkError", NetworkError),
            ("MissingPrivilege", MissingPrivilege),
            ("MissingProgram", MissingProgram),
            ("InvalidValue", NetworkError),
        ):
            opening = self.glue.open(ROUTED)
            self.asked()
            self.answer(json.dumps({"error": "no such luck", "kind": kind}).encode())
            self.assertEqual(str(self.failureResultOf(opening, expected).value), "no such luck")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled_before(self) -> None:
        """A session that nobody wants any more is not asked for."""
        closing, opening = self.glue.close("a"), self.glue.open(ROUTED)
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        last = self.glue.close("b")
        self.asked()
        self.answer()
        self.assertEqual(self.asked(), Close("b"))
        self.answer()
        self.successResultOf(closing)
        self.successResultOf(last)

    def test_cancelled_while_it_opens(self) -> None:
        """A session that nobody wants any more when it is open is closed at once, and its devices too."""
        before = self.open_descriptors()
        opening, waiting = self.glue.open(ROUTED), self.glue.close("other")
        self.asked()
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.answer(DONE, 2)
        self.assertEqual([device.closed for device in self.devices], [True, True])
        self.assertEqual(self.open_descriptors(), before)
        self.assertEqual(self.asked(), Close(ROUTED.session))
        self.answer()
        self.assertEqual(self.asked(), Close("other"))
        self.answer()
        self.successResultOf(waiting)

    def test_cancelled_and_refused(self) -> None:
        """A refusal that nobody waits for is forgotten."""
        opening = self.glue.open(ROUTED)
        self.asked()
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.answer(b'{"error": "no", "kind": "NetworkError"}')
        self.assertIsNone(self.asked())

    def test_device_gone(self) -> None:
        """When a device cannot be used the session is closed and nothing stays open."""
        before = self.open_descriptors()

        def adopt(fd: int, name: str, *, headers: bool) -> Device:
            if name == "master":
                os.close(fd)
                raise NetworkError("it is gone")
            return Device(fd, name, headers)

        self.glue._adopt = adopt
        opening = self.glue.open(ROUTED)
        self.asked()
        self.answer(DONE, 2)
        self.failureResultOf(opening, NetworkError)
        self.assertEqual(self.open_descriptors(), before)
        self.assertEqual(self.asked(), Close(ROUTED.session))

    def test_ended(self) -> None:
        """When the other process has ended, whoever waits is told, and whoever comes later; closing is no matter."""
        self.process.status = 1
        opening, closing = self.glue.open(ROUTED), self.glue.close("a")
        self.assertNoResult(self.glue.ended)
        self.other.close()
        self.read()
        self.assertIn("has ended", str(self.failureResultOf(opening, NetworkError).value))
        self.assertIsNone(self.successResultOf(closing))
        self.successResultOf(self.glue.ended)
        self.failureResultOf(self.glue.open(BRIDGED), NetworkError)
        self.assertIsNone(self.successResultOf(self.glue.close("a")))
        self.assertIsNone(self.successResultOf(self.glue.stop()))
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls(), self.process.kills), ([], [], 0))

    def test_ends_while_nobody_wants_it(self) -> None:
        """A session that nobody wants any more, and that cannot be closed either, is no matter."""
        self.process.status = 1
        opening, another = self.glue.open(ROUTED), self.glue.open(BRIDGED)
        self.asked()
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.answer(DONE, 2)
        stopped = self.glue.stop()
        self.assertIsNone(self.successResultOf(self.glue.close("a")))
        self.other.close()
        self.read()
        self.successResultOf(stopped)
        self.failureResultOf(another, NetworkError)

    def test_ended_meanwhile(self) -> None:
        """The other process may have ended before it is asked: that is told when its end is seen."""
        self.process.status = 1
        self.other.close()
        opening = self.glue.open(ROUTED)
        self.assertNoResult(opening)
        self.read()
        self.failureResultOf(opening, NetworkError)

    def test_silent(self) -> None:
        """A process that does not answer for 30 s is killed and given up."""
        opening = self.glue.open(ROUTED)
        self.reactor.advance(29.9)
        self.assertNoResult(opening)
        self.reactor.advance(0.2)
        self.failureResultOf(opening, NetworkError)
        self.successResultOf(self.glue.ended)
        self.assertEqual((self.process.kills, self.reactor.readers), (1, []))

    def test_unasked(self) -> None:
        """A process that speaks unasked, or says what nobody understands, ends there or is refused; nothing leaks."""
        before = self.open_descriptors()
        opening = self.glue.open(ROUTED)
        self.asked()
        for message in (b"not JSON", b"[]", b"7", b'{"done": false}', b'{"error": 1}'):
            self.answer(message, 2)
            self.failureResultOf(opening, NetworkError)
            opening = self.glue.open(ROUTED)
            self.asked()
        self.answer(DONE, 1)
        self.failureResultOf(opening, NetworkError)
        self.assertEqual(self.open_descriptors(), before)
        self.asked()
        self.answer()
        self.answer(DONE, 2)
        self.successResultOf(self.glue.ended)
        self.assertEqual(self.open_descriptors(), before - 1)

    def test_stop(self) -> None:
        """Stopping closes the way to the other process, and is over when that has ended; it may be asked twice."""
        waiting = self.glue.open(ROUTED)
        self.asked()
        stopped = [self.glue.stop(), self.glue.stop()]
        self.assertEqual(self.other.recv(10), b"")
        self.failureResultOf(self.glue.open(BRIDGED), NetworkError)
        self.assertNoResult(stopped[0])
        self.process.status = 0
        self.other.close()
        self.read()
        for each in stopped:
            self.assertIsNone(self.successResultOf(each))
        self.failureResultOf(waiting, NetworkError)
        self.successResultOf(self.glue.ended)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop_while_it_opens(self) -> None:
        """A session that has been opened meanwhile is its caller's all the same."""
        opening = self.glue.open(ROUTED)
        self.asked()
        stopped = self.glue.stop()
        self.answer(DONE, 2)
        for device in self.successResultOf(opening):
            device.close()
        self.reactor.advance(15.1)
        self.successResultOf(stopped)

    def test_stuck(self) -> None:
        """A process that does not end is killed after 15 s; one that may not be killed is left to the kernel."""
        stopped = self.glue.stop()
        self.process.forbidden = True
        self.reactor.advance(15.1)
        self.successResultOf(stopped)
        self.assertGreater(self.process.kills, 0)

    def test_limit(self) -> None:
        """A server has at least one session, and not more than the descriptors of a process allow."""
        for limit in (0, -1, 4097):
            self.assertRaises(ConfigError, start, limit)

    def test_reader(self) -> None:
        """The reactor finds what it needs."""
        self.assertGreater(self.glue.fileno(), 2)
        self.assertEqual(self.glue.logPrefix(), "glue")
        self.assertIsNone(self.glue.doRead())
        self.other.close()
        self.assertIs(self.glue.doRead(), CONNECTION_LOST)
