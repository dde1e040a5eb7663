"""The control socket: what it answers, what it refuses, and who gets it."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import threading
from functools import partial
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.control import MAX_REQUEST, SECONDS, VERBS, IAdministration, ServerRefused, perform
from rdvtwisted.adapters.control_client import ControlClient, ServerNotRunning
from rdvtwisted.adapters.control_server import (
    LOOK_SECONDS,
    MAX_CONNECTIONS,
    ControlFactory,
    ControlProtocol,
    ControlService,
)
from rdvtwisted.errors import AddressInUse, ConfigError, ConnectionLost, ProtocolError, RDVError, StateDirectoryError
from rdvtwisted.values import EndReason
from tests.adapters.administration import MASTER, ONSITE, PENDING, SESSION, MemoryAdministration

#: Who asks.
ANN = "admin:ann (uid 1000)"


def plain(verb: str, **arguments: object) -> bytes:
    """A request's line."""
    return json.dumps({"verb": verb, **arguments}).encode("ascii")


class VerbTests(SynchronousTestCase):
    """Each verb does one thing."""

    def setUp(self) -> None:
        self.server = MemoryAdministration([ONSITE, MASTER], [SESSION, PENDING], dropped=2)

    def perform(self, verb: str, **arguments: object) -> Any:
        return json.loads(json.dumps(perform(self.server, plain(verb, **arguments), ANN)))

    def test_interface(self) -> None:
        """The server that these tests use is one."""
        self.assertTrue(verifyObject(IAdministration, self.server))

    def test_status(self) -> None:
        """The server's words on itself are passed on."""
        self.assertEqual(
            self.perform("status"),
            {"version": "0.1.0", "online": 2, "doors": {"ssh": "port 22", "tls": "port 443"}},
        )

    def test_online(self) -> None:
        """Each device that is here, with all that is known of it."""
        onsite, master = self.perform("online")
        self.assertEqual(
            onsite,
            {
                "id": "rpi1100",
                "role": "onsite",
                "address": "192.0.2.1:4711",
                "door": "tls",
                "since": 1000.0,
                "last_heard": 1090.0,
                "round_trip": 0.0125,
                "fingerprint": ONSITE.key.fingerprint,
                "session": "s1",
                "mode": "L3",
                "lan": "10.1.2.3/24",
                "dns": ["10.1.2.1"],
                "hostname": "plc\x1b[31m",
                "uplink": "lan",
                "backends": ["tls", "vtun"],
            },
        )
        self.assertEqual((master["lan"], master["round_trip"], master["backends"]), (None, None, []))

    def test_sessions(self) -> None:
        """Each session; what it has not reached yet is null."""
        up, pending = self.perform("sessions")
        self.assertEqual(
            up,
            {
                "id": "s1",
                "state": "up",
                "waiting": None,
                "onsite": "rpi1100",
                "master": "rpi1101",
                "mode": "L3",
                "backend": "tls",
                "join": "relay",
                "selected_at": 1060.0,
                "up_at": 1062.0,
                "to_onsite": 1500,
                "to_master": 2500000,
                "reason": None,
            },
        )
        self.assertEqual((pending["up_at"], pending["backend"], pending["join"]), (None, None, None))

    def test_waiting(self) -> None:
        """A session for which people are waited for says for what."""
        self.server.sessions = [evolve(PENDING, waiting="consent")]
        (waiting,) = self.perform("sessions")
        self.assertEqual((waiting["state"], waiting["waiting"]), ("pending", "consent"))

    def test_end(self) -> None:
        """A session is ended by its id or a device's, in the administrator's name."""
        self.assertIs(self.perform("end", id="rpi1100"), True)
        self.assertIs(self.perform("end", id="nobody"), False)
        self.assertEqual(
            self.server.done,
            [
                ("end", "rpi1100", EndReason.ADMINISTRATOR),
                ("session-end-ordered", ANN, "rpi1100"),
                ("end", "nobody", EndReason.ADMINISTRATOR),
            ],
        )

    def test_refresh(self) -> None:
        """The server reads the inventory anew and says whom that cost its connection."""
        self.assertEqual(self.perform("refresh"), 2)
        self.assertEqual(self.server.done, [("refresh",)])

    def test_renew_certificate(self) -> None:
        """The server renews its certificate and describes it; who had it do so is recorded."""
        self.assertEqual(self.perform("renew-certificate"), "valid until 2036-01-01")
        self.assertEqual(self.server.done, [("renew-certificate",), ("certificate-renewed", ANN, "")])

    def test_refusals(self) -> None:
        """What is no request is refused in one line, and nothing is done."""
        verbs = ", ".join(VERBS)
        for line, error in (
            (b"", "the request is not JSON"),
            (b"\xff", "the request is not JSON"),
            (b"[" * 4000, "the request is not JSON"),
            (b"[]", "the request is not a JSON object"),
            (b"{}", f"there is no verb None: use {verbs}"),
            (plain("dance"), f"there is no verb 'dance': use {verbs}"),
            (b'{"verb": []}', f"there is no verb []: use {verbs}"),
            (plain("end"), "end needs an id, a text of 1 to 64 characters"),
            (plain("end", id=7), "end needs an id, a text of 1 to 64 characters"),
            (plain("end", id="x" * 65), "end needs an id, a text of 1 to 64 characters"),
        ):
            self.assertEqual(str(self.assertRaises(ServerRefused, perform, self.server, line, ANN)), error)
        self.assertEqual(self.server.done, [])

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(st.binary(max_size=200) | st.text(max_size=50).map(lambda text: text.encode("utf-8", "replace")))
    def test_any_bytes(self, line: bytes) -> None:
        """Whatever bytes come in, they are refused in one short line."""
        error = self.assertRaises(ServerRefused, perform, self.server, line, ANN)
        self.assertTrue(str(error).isprintable() and len(str(error)) < 250, str(error))


class ConnectionTests(SynchronousTestCase):
    """A connection brings one request, and takes one reply with it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = MemoryAdministration()
        self.factory = ControlFactory(partial(perform, self.server), self.clock)

    def connect(self) -> tuple[ControlProtocol, StringTransport]:
        protocol = self.factory.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def reply(self, transport: StringTransport) -> Any:
        data = transport.value()
        self.assertTrue(data.endswith(b"\n") and data.count(b"\n") == 1, data)
        return json.loads(data)

    def test_reply(self) -> None:
        """The answer is one line, after which the server closes."""
        protocol, transport = self.connect()
        protocol.dataReceived(plain("refresh")[:5])
        self.assertEqual(transport.value(), b"")
        protocol.dataReceived(plain("refresh")[5:] + b"\n")
        self.assertEqual(self.reply(transport), {"ok": True, "result": 0})
        self.assertTrue(transport.disconnecting)

    def test_one_request(self) -> None:
        """A second request on the same connection is not done."""
        protocol, transport = self.connect()
        protocol.dataReceived(plain("refresh") + b"\n" + plain("refresh") + b"\n")
        self.assertEqual(self.reply(transport), {"ok": True, "result": 0})
        self.assertEqual(self.server.done, [("refresh",)])

    def test_refusal(self) -> None:
        """A refusal is told."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"hello\n")
        self.assertEqual(self.reply(transport), {"ok": False, "error": "the request is not JSON"})
        self.assertTrue(transport.disconnecting)

    def test_error_of_the_server(self) -> None:
        """What the server cannot do is told in its own words."""
        self.server.certificate = ""
        protocol, transport = self.connect()
        protocol.dataReceived(plain("renew-certificate") + b"\n")
        self.assertEqual(self.reply(transport), {"ok": False, "error": "the disk is full"})

    def test_fault_of_the_server(self) -> None:
        """A fault is logged at the server, and its inside is not told."""
        self.patch(self.server, "dropped", 1)
        self.patch(MemoryAdministration, "refresh", lambda server: 1 // 0)
        protocol, transport = self.connect()
        protocol.dataReceived(plain("refresh") + b"\n")
        self.assertEqual(self.reply(transport), {"ok": False, "error": "the server failed at it; its log says why"})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_long_line(self) -> None:
        """A line without end is cut off before it fills the memory."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"x" * (MAX_REQUEST + 1))
        self.assertEqual(self.reply(transport), {"ok": False, "error": "the request is longer than 4096 bytes"})
        self.assertTrue(transport.disconnecting)

    def test_silence(self) -> None:
        """Who connects and says nothing, or does not read, is cut off in time."""
        _, transport = self.connect()
        self.clock.advance(SECONDS - 1)
        self.assertFalse(transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(transport.disconnected)

    def test_leaving(self) -> None:
        """Nothing is left of a connection that is over."""
        protocol, _ = self.connect()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.factory.abort()

    def test_too_many(self) -> None:
        """The number of connections is bounded; when one has left, there is room for another."""
        protocols = [self.connect()[0] for _ in range(MAX_CONNECTIONS)]
        protocol, transport = self.connect()
        error = "16 commands are being served already; try again"
        self.assertEqual(self.reply(transport), {"ok": False, "error": error})
        protocol.dataReceived(plain("refresh") + b"\n")
        self.assertEqual(self.server.done, [])
        for each in (protocol, protocols[0]):
            each.connectionLost(connectionDone)
        protocol, transport = self.connect()
        protocol.dataReceived(plain("refresh") + b"\n")
        self.assertEqual(self.reply(transport), {"ok": True, "result": 0})


class SocketTests(TestCase):
    """The socket itself, and the command's end of it."""

    def setUp(self) -> None:
        self.server = MemoryAdministration([ONSITE], [SESSION])
        self.path = self.mktemp()

    def service(self) -> ControlService:
        from twisted.internet import reactor

        service = ControlService(reactor, reactor, self.path, partial(perform, self.server))  # type: ignore[arg-type]
        self.addCleanup(lambda: service.running and service.stopService())
        return service

    def service_by_clock(self) -> tuple[ControlService, Clock]:
        """One for which no time passes but what a test lets pass."""
        service, clock = self.service(), Clock()
        service._looking.clock = clock
        return service, clock

    def turn(self) -> Deferred[None]:
        """The reactor goes round once."""
        from twisted.internet import reactor

        return deferLater(reactor, 0)  # type: ignore[arg-type]

    def ask(self, verb: str, **arguments: object) -> Deferred[Any]:
        return deferToThread(ControlClient(self.path).ask, verb, **arguments)

    @inlineCallbacks
    def test_ask(self) -> Any:
        """A command is answered through the socket, also when the answer is long."""
        self.server.online = [ONSITE] * 2000
        self.service().startService()
        answer = yield self.ask("online")
        self.assertEqual([each["id"] for each in answer], ["rpi1100"] * 2000)
        answer = yield self.ask("end", id="s1")
        self.assertIs(answer, True)

    @inlineCallbacks
    def test_refused(self) -> Any:
        """The server's refusal reaches the command."""
        self.service().startService()
        error = yield self.assertFailure(self.ask("dance"), ServerRefused)
        self.assertIn("there is no verb 'dance'", str(error))

    def test_mode(self) -> None:
        """Nobody but the server's user may use it, whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.service().startService()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(os.umask(0), 0)

    @inlineCallbacks
    def test_stop(self) -> Any:
        """When the server has stopped, nothing is left, and the command says so."""
        service = self.service()
        service.startService()
        yield service.stopService()
        self.assertFalse(os.path.lexists(self.path))
        error = yield self.assertFailure(self.ask("status"), ServerNotRunning)
        self.assertEqual(str(error), f"the server is not running (nobody answers at {self.path})")

    @inlineCallbacks
    def test_removed(self) -> Any:
        """Who has tidied up too much has not taken the server's commands away for good: the socket is made anew."""
        service, clock = self.service_by_clock()
        service.startService()
        for _ in range(2):
            os.unlink(self.path)
            with capturedLogs() as events:
                clock.advance(LOOK_SECONDS)
                while not os.path.lexists(self.path) or stat.S_ISREG(os.stat(self.path).st_mode):
                    yield self.turn()
                answer = yield self.ask("refresh")
            self.assertEqual(answer, 0)
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
            told = [formatEvent(event) for event in events if event["log_level"] >= LogLevel.warn]
            self.assertEqual(told, [f"Somebody has removed the control socket {self.path}: it is made anew"])
        clock.advance(LOOK_SECONDS)
        yield service.stopService()
        self.assertFalse(os.path.lexists(self.path))
        self.assertEqual(clock.getDelayedCalls(), [])

    @inlineCallbacks
    def test_removed_and_stopped(self) -> Any:
        """A server whose socket is gone stops in order all the same, and nobody listens any more."""
        service, _ = self.service_by_clock()
        service.startService()
        moved = self.path + ".moved"
        os.rename(self.path, moved)
        yield service.stopService()
        self.assertFalse(os.path.lexists(self.path))
        with socket.socket(socket.AF_UNIX) as late:
            self.assertRaises(ConnectionRefusedError, late.connect, moved)

    @inlineCallbacks
    def test_cannot_be_made_again(self) -> Any:
        """As long as it cannot be made anew, that is told once; then it is."""
        service, clock = self.service_by_clock()
        service.startService()
        listen, self.full = service._listener.listenUNIX, True

        def listen_unix(*arguments: Any, **more: Any) -> Any:
            if self.full:
                raise CannotListenError(None, self.path, OSError(errno.ENOSPC, "No space left on device"))
            return listen(*arguments, **more)

        self.patch(service._listener, "listenUNIX", listen_unix)
        os.unlink(self.path)
        with capturedLogs() as events:
            for _ in range(3):
                clock.advance(LOOK_SECONDS)
                while service._port is not None or os.path.lexists(self.path):
                    yield self.turn()
        told = [formatEvent(event) for event in events if event["log_level"] >= LogLevel.warn]
        self.assertEqual(told[1:], [f"cannot make the control socket {self.path}: no space left on device"])
        self.full = False
        clock.advance(LOOK_SECONDS)
        answer = yield self.ask("refresh")
        self.assertEqual(answer, 0)

    def test_second_server(self) -> None:
        """A second server does not take the socket from the first."""
        self.service().startService()
        error = self.assertRaises(AddressInUse, self.service().startService)
        self.assertEqual(str(error), f"another process answers at {self.path} already: stop that one first")

    @inlineCallbacks
    def test_left_behind(self) -> Any:
        """The socket of a server that was killed is replaced."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path)
        self.service().startService()
        answer = yield self.ask("refresh")
        self.assertEqual(answer, 0)

    def test_full_queue(self) -> None:
        """A server that is too busy to answer is running all the same."""
        with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
            busy.bind(self.path)
            busy.listen(0)
            waiting.connect(self.path)
            self.assertRaises(AddressInUse, self.service().startService)

    def test_something_else(self) -> None:
        """What is no socket is not removed."""
        with open(self.path, "w"):
            pass
        error = self.assertRaises(StateDirectoryError, self.service().startService)
        self.assertEqual(
            str(error), f"cannot make the control socket {self.path}: something else is there; move it away"
        )
        self.assertTrue(os.path.exists(self.path))

    def test_no_directory(self) -> None:
        """A directory that is missing is named."""
        self.path += "/control.sock"
        error = self.assertRaises(StateDirectoryError, self.service().startService)
        self.assertEqual(str(error), f"cannot make the control socket {self.path}: no such file or directory")

    def test_long_path(self) -> None:
        """A path that no socket can have is refused by the setting's name."""
        self.path = "/" + "x" * 107
        error = self.assertRaises(ConfigError, self.service().startService)
        self.assertEqual(
            str(error), f"setting control.socket: {self.path} is longer than 107 bytes; name a shorter path"
        )


class StrangeServerTests(SynchronousTestCase):
    """The command is not confused by what else may be at the socket's path."""

    def setUp(self) -> None:
        self.path = self.mktemp()

    def listening(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(self.path)
        listening.listen(1)
        return listening

    def assertFails(self, kind: type[RDVError], line: str, seconds: float = 10.0) -> None:
        error = self.assertRaises(kind, ControlClient(self.path, seconds).ask, "status")
        self.assertEqual(str(error), line)

    def test_no_answer(self) -> None:
        """A server that hangs is given up."""
        self.listening()
        self.assertFails(ConnectionLost, "the server did not answer within 0.01 s", 0.01)

    def test_not_running(self) -> None:
        """A socket left behind is nobody's."""
        self.listening().close()
        self.assertFails(ServerNotRunning, f"the server is not running (nobody answers at {self.path})")

    def test_not_a_socket(self) -> None:
        """A directory in the path that is a file."""
        with open(self.path, "w"):
            pass
        self.path += "/control.sock"
        self.assertFails(StateDirectoryError, f"cannot use the control socket {self.path}: not a directory")

    def test_not_allowed(self) -> None:
        """Who may not use the socket is told who may."""

        def connect(_: socket.socket, address: object) -> None:
            raise PermissionError(13, "Permission denied")

        self.patch(socket.socket, "connect", connect)
        self.assertFails(
            StateDirectoryError,
            f"cannot use the control socket {self.path}: permission denied: run as its owner or as root",
        )

    def test_no_reply(self) -> None:
        """What is no reply is not taken for one."""

        listening = self.listening()

        def serve(said: bytes) -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(MAX_REQUEST)
                connection.sendall(said)

        for said in (b"", b"hello\n", b"[]\n", b"{}\n", b'{"ok": true}\n', b"[" * 100_000 + b"\n"):
            server = threading.Thread(target=serve, args=(said,))
            server.start()
            self.assertFails(ProtocolError, f"what answers at {self.path} is no rdv-server, or has just stopped")
            server.join()
