"""A device whose session is over before it could ask for its tunnel."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.pins import KnownPeers
from rdvtwisted.adapters.uplink import Authority
from rdvtwisted.errors import NoSession, RequestRefused
from rdvtwisted.requests import EndSession, GetSession, GetTunnelParameters
from rdvtwisted.services.device import DeviceSettings
from rdvtwisted.services.equipment import Equipment
from rdvtwisted.services.leg import Ending
from rdvtwisted.testing.network import MemoryNetwork
from rdvtwisted.testing.programs import MemoryPrograms
from rdvtwisted.values import EndReason, Role, SessionState, SessionView
from tests.services.twin import DEVICE, opened


class OvertakenTests(SynchronousTestCase):
    """The other device can be quicker with its refusal than this one with its question."""

    def setUp(self) -> None:
        clock, state = Clock(), Path(self.mktemp())
        settings = DeviceSettings(
            Role.MASTER, DEVICE, "rdv.example.net", 22, False, state, *[state / name for name in ("i", "h", "p", "a")]
        )
        equipment = Equipment(
            settings=settings,
            reactor=clock,
            network=MemoryNetwork(),
            identity=None,
            peers=KnownPeers(settings.known_peers),
            authority=Authority(settings.authority),
            backends={},
            programs=MemoryPrograms(),
        )
        self.ssh, link = opened(Role.MASTER, clock)
        self.ending = Deferred.fromCoroutine(equipment.attend(link, "eth1", None, lambda *_: None))
        self.ssh.pump()

    def asked(self) -> object:
        """What the server was asked for last."""
        return self.ssh.asked[-1][0]

    def end(self, reason: EndReason) -> Ending:
        """How it ends once the server has taken note of C{reason}."""
        self.assertEqual(self.asked(), EndSession(reason))
        self.ssh.answer(None)
        return self.successResultOf(self.ending)

    def test_reason(self) -> None:
        """It learns why the session is over, and not just that there is none."""
        self.assertEqual(self.asked(), GetTunnelParameters())
        self.ssh.refuse(NoSession())
        self.assertEqual(self.asked(), GetSession())
        self.ssh.answer(SessionView(SessionState.NONE, reason=EndReason.PEER_KEY_REFUSED))
        self.assertEqual(self.end(EndReason.PEER_KEY_REFUSED), Ending(EndReason.PEER_KEY_REFUSED))

    def test_no_reason(self) -> None:
        """Where the session is not over, the server's refusal is what the operator reads."""
        self.ssh.refuse(RequestRefused("PeerLeft: the other device of the session has left"))
        self.ssh.answer(SessionView(SessionState.BUILDING))
        ending = self.end(EndReason.TUNNEL_FAILED)
        self.assertIn("PeerLeft", str(ending.error))

    def test_no_answer(self) -> None:
        """A server that does not say why does not keep the refusal from the operator."""
        self.ssh.refuse(NoSession())
        self.ssh.refuse(RequestRefused("no"))
        ending = self.end(EndReason.TUNNEL_FAILED)
        self.assertIn("NoSession", str(ending.error))
