"""What of a session lies at the server: it is there when both tunnels are, and goes with all that it holds."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rdvtwisted.errors import ConnectionLost, NetworkError, ProtocolError
from rdvtwisted.interfaces import IServerTunnel
from rdvtwisted.junction import GlueJunction, RelayJunction
from rdvtwisted.session import IJunction, IJunctionListener
from rdvtwisted.testing.ends import MemoryServerTunnel
from rdvtwisted.testing.glue import ROUTED, MemoryGlue
from rdvtwisted.testing.streams import MemoryRelay, MemoryStream
from rdvtwisted.values import EndReason, Mode, PublicKey, Role, TunnelTerms

KEY = PublicKey("ssh-ed25519", b"")


@implementer(IJunctionListener)
class _Listener:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Role | EndReason] = []

    def arrived(self, role: Role) -> None:
        self.told.append(role)

    def end(self, reason: EndReason) -> None:
        self.told.append(reason)


class RelayTests(SynchronousTestCase):
    """Two streams."""

    def setUp(self) -> None:
        self.relay, self.listener = MemoryRelay(), _Listener()
        self.junction = RelayJunction(self.relay, self.listener)
        self.junction.begin()
        self.streams = {role: MemoryStream(role.value) for role in Role}

    def test_story(self) -> None:
        """Both arrive, bytes move, it is stopped, both are closed."""
        verifyObject(IJunction, self.junction)
        for role, stream in self.streams.items():
            self.junction.occupy(role, stream)
        self.assertEqual(self.listener.told, list(Role))
        self.assertEqual(self.junction.traffic(), (0, 0))
        self.junction.connect()
        self.relay.joins[0].carried = (3, 4)
        self.assertEqual(self.junction.traffic(), (3, 4))
        self.junction.stop()
        self.junction.stop()
        self.successResultOf(self.junction.ended)
        self.assertTrue(all(stream.aborted for stream in self.streams.values()))

    def test_stopped_early(self) -> None:
        """A stream that waits for the other is closed, and so is one that comes later."""
        self.junction.occupy(Role.MASTER, self.streams[Role.MASTER])
        self.junction.stop()
        self.successResultOf(self.junction.ended)
        self.junction.occupy(Role.ONSITE, self.streams[Role.ONSITE])
        self.assertTrue(all(stream.aborted for stream in self.streams.values()))

    def test_second(self) -> None:
        """A second stream of one device is closed, and the first stays."""
        first, second = self.streams[Role.MASTER], MemoryStream("again")
        self.junction.occupy(Role.MASTER, first)
        self.junction.occupy(Role.MASTER, second)
        self.assertEqual((first.aborted, second.aborted), (False, True))
        self.assertEqual(self.listener.told, [Role.MASTER])


class _SlowGlue(MemoryGlue):
    """One whose namespaces take their time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Deferred[Any], Any]] = []
        self.cancelled = 0

    def open(self, spec: Any) -> Deferred[Any]:
        asked: Deferred[Any] = Deferred(self._cancel)
        self.asked.append((asked, spec))
        return asked

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled += 1

    def answer(self) -> None:
        asked, spec = self.asked.pop()
        super().open(spec).chainDeferred(asked)


class _LeaveTaker(MemoryServerTunnel):
    """Takes leave of its device for a while before it is closed."""

    def close(self) -> Deferred[None]:
        return Deferred()


class GlueTests(SynchronousTestCase):
    """Two tunnels that end here."""

    def setUp(self) -> None:
        self.build(MemoryGlue())

    def build(self, glue: MemoryGlue, *roles: Role) -> None:
        """A junction with the tunnels of these devices; of both, if none is named."""
        self.glue, self.listener = glue, _Listener()
        self.tunnels = {
            role: MemoryServerTunnel(TunnelTerms("s1", Mode.L3, role.value, role, KEY, 1450), "secret")
            for role in roles or Role
        }
        self.junction = GlueJunction(glue, ROUTED, self.listener, self.tunnels)

    def test_provides(self) -> None:
        """A junction and a tunnel are what they say."""
        verifyObject(IJunction, self.junction)
        verifyObject(IServerTunnel, self.tunnels[Role.MASTER])

    def test_story(self) -> None:
        """The namespace opens, each tunnel gets its own device, devices come in, and at the end all is gone."""
        self.junction.begin()
        devices = self.glue.devices["s1"]
        self.assertIs(self.tunnels[Role.ONSITE].device, devices[0])
        self.assertIs(self.tunnels[Role.MASTER].device, devices[1])
        self.assertEqual(self.listener.told, [])
        for role in (Role.MASTER, Role.ONSITE):
            self.tunnels[role].let_in()
        self.assertEqual(self.listener.told, [Role.MASTER, Role.ONSITE])
        self.tunnels[Role.ONSITE].carried = (1, 2)
        self.tunnels[Role.MASTER].carried = (3, 4)
        self.assertEqual(self.junction.traffic(), (2, 4))
        self.junction.stop()
        self.junction.stop()
        self.successResultOf(self.junction.ended)
        self.assertTrue(all(device.closed for device in devices))
        self.assertEqual(self.glue.specs, {})
        self.assertEqual(len(self.listener.told), 2)

    def test_lost(self) -> None:
        """The loss of either tunnel is told once; the other one is closed with the rest."""
        self.junction.begin()
        self.tunnels[Role.ONSITE].fail(ConnectionLost("the vtun client closed the connection"))
        self.assertEqual(self.listener.told, [EndReason.TUNNEL_LOST])
        self.junction.stop()
        self.successResultOf(self.junction.ended)
        self.assertEqual((self.glue.specs, len(self.listener.told)), ({}, 1))

    def test_culprit(self) -> None:
        """
        Who sends what is no packet, and hangs up, is told of in the log as anybody is; that a tunnel breaks while it
        is closed is no news.
        """
        for error, lines in (
            (ProtocolError("a bad frame"), ["The session s1 has lost the tunnel of its master: a bad frame"]),
            (ConnectionLost("the vtun client closed the connection"), []),
        ):
            self.build(MemoryGlue())
            leaving = _LeaveTaker(TunnelTerms("s1", Mode.L3, "rpi1101", Role.MASTER, KEY, 1450), "secret")
            self.tunnels[Role.MASTER] = leaving
            self.junction.begin()
            self.junction.stop()
            with capturedLogs() as events:
                leaving.fail(error)
            self.assertEqual([formatEvent(event) for event in events], lines)
            self.assertEqual(self.listener.told, [])

    def test_left(self) -> None:
        """A goodbye tells who has left."""
        for role, reason in ((Role.MASTER, EndReason.MASTER_LEFT), (Role.ONSITE, EndReason.ONSITE_LEFT)):
            self.build(MemoryGlue())
            self.junction.begin()
            self.tunnels[role].close()
            self.assertEqual(self.listener.told, [reason])

    def test_no_namespace(self) -> None:
        """When there can be no namespace the session has failed, and nothing is held."""
        self.glue.refusal = NetworkError("there are 256 sessions already")
        self.junction.begin()
        self.assertEqual(self.listener.told, [EndReason.TUNNEL_FAILED])
        self.junction.stop()
        self.successResultOf(self.junction.ended)

    def test_stopped_while_opening(self) -> None:
        """Stopping does not wait for a namespace that is being made, nor takes it."""
        glue = _SlowGlue()
        self.build(glue)
        self.junction.begin()
        self.junction.stop()
        self.successResultOf(self.junction.ended)
        self.assertEqual((glue.cancelled, self.listener.told), (1, []))

    def test_device_first(self) -> None:
        """A device may come before the namespace is there."""
        glue = _SlowGlue()
        self.build(glue)
        self.junction.begin()
        self.assertIsNone(self.tunnels[Role.MASTER].device)
        glue.answer()
        self.assertIsNotNone(self.tunnels[Role.MASTER].device)

    def test_alone(self) -> None:
        """At the other side of a tunnel that is alone there is nothing."""
        self.build(MemoryGlue(), Role.MASTER)
        self.junction.begin()
        onsite, master = self.glue.devices["s1"]
        self.assertEqual((onsite.closed, master.closed), (True, False))

    def test_streams(self) -> None:
        """A stream goes to the tunnel of its device."""
        self.tunnels[Role.MASTER].secret = ""
        self.junction.begin()
        stream = MemoryStream()
        self.junction.occupy(Role.MASTER, stream)
        self.assertIs(self.tunnels[Role.MASTER].stream, stream)
        self.assertEqual(self.listener.told, [Role.MASTER])
