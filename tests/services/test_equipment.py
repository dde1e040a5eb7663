"""A device's part in one session: from the first question to the last undone route, or to one clear refusal."""

from __future__ import annotations

from ipaddress import IPv4Interface
from typing import Any

from attrs import evolve
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel
from zope.interface.verify import verifyObject

from rdvtwisted.access import SessionGrant
from rdvtwisted.adapters.pins import KnownPeers
from rdvtwisted.adapters.segments import SmallSegments
from rdvtwisted.errors import (
    AccessDenied,
    ConfigError,
    ConnectionLost,
    InvalidValue,
    NetworkError,
    NoSession,
    PeerKeyChanged,
    RDVError,
    RequestRefused,
    ServerKeyChanged,
    StateDirectoryError,
    TunnelFailed,
    TunnelSilent,
)
from rdvtwisted.interfaces import IDeviceTunnel, ITunnelBackend, ITunnelSite
from rdvtwisted.plan import FirewallTable, Pair, Route, interface_name
from rdvtwisted.requests import (
    EndSession,
    GetCertificateAuthority,
    GetSession,
    GetSessionGrant,
    GetTunnelParameters,
    WaitForSessionChange,
)
from rdvtwisted.scope import Scope
from rdvtwisted.services.boundary import LocalAccess
from rdvtwisted.services.leg import VERDICT_SECONDS, Ending, Leg
from rdvtwisted.testing.tunnels import identity
from rdvtwisted.values import EndReason, Mode, Role, SessionState, SessionView, TunnelParameters, TunnelReport
from tests.services.neighbours import AUTHORITY, PEER, REPORT, SITE, Backend, DeviceCase
from tests.services.twin import opened

OTHER = identity("other").public


class EquipmentCase(DeviceCase):
    """A device that has been selected for a session."""

    def setUp(self) -> None:
        """A link to the server."""
        super().setUp()
        _, self.link = opened(self.role, self.clock, self.server())
        self.ups: list[tuple[TunnelParameters, Leg, TunnelReport]] = []

    def attend(self, seconds: float | None = None, **wishes: Any) -> Deferred[Ending]:
        """Take part, as far as it goes by itself."""

        def up(*facts: object) -> None:
            self.ups.append(facts)

        ending = Deferred.fromCoroutine(self.equipment.attend(self.link, "eth0", seconds, up, **wishes))
        self.addCleanup(self.finish, ending)
        self.pump()
        return ending

    def finish(self, ending: Deferred[Ending]) -> None:
        """Let nothing outlive the test."""
        ending.addErrback(lambda failure: None)
        ending.cancel()
        self.pump()

    def assert_ended(
        self, ending: Deferred[Ending], reason: EndReason, error: type[RDVError] | None = None, text: str | None = None
    ) -> None:
        """It is over with this; the server knows the reason, and nothing is left."""
        self.pump()
        result = self.successResultOf(ending)
        self.assertEqual((result.reason, type(result.error)), (reason, error or type(None)))
        if text is not None:
            self.assertEqual(str(result.error), text)
        self.assertEqual([each.reason for each in self.asked(EndSession)], [reason])
        self.assertEqual(self.network.applied, {})
        self.assertTrue(all(tunnel.closings for tunnel in self.backend.tunnels))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OfferTests(EquipmentCase):
    """Which tunnels a device can have, by the way on which it came."""

    def offered(self, shown: bytes | None, *wanted: str, tls: bool = True) -> Deferred[tuple[str, ...]]:
        """What is offered when the server tells this authority, and the device has pinned L{AUTHORITY}."""
        self.equipment.settings = evolve(self.equipment.settings, tls=tls)
        self.equipment.backends = {"tls": Backend("tls"), "vtun": Backend("vtun", relay=False)}
        self.equipment.authority.accept(AUTHORITY)
        self.servers[-1].answers[GetCertificateAuthority] = RequestRefused("no such") if shown is None else shown
        offered = Deferred.fromCoroutine(self.equipment.offered(self.link, wanted))
        self.pump()
        return offered

    def test_door(self) -> None:
        """Through the server's own door, all of them."""
        self.assertEqual(self.successResultOf(self.offered(AUTHORITY)), ("tls", "vtun"))

    def test_ssh(self) -> None:
        """Who comes by SSH has nothing to ask."""
        self.assertEqual(self.successResultOf(self.offered(b"other", tls=False)), ("tls", "vtun"))
        self.assertEqual(self.asked(GetCertificateAuthority), [])

    def test_old_server(self) -> None:
        """An old server has no authority; that it is old will show."""
        self.assertEqual(self.successResultOf(self.offered(None)), ("tls", "vtun"))

    def test_front(self) -> None:
        """Behind somebody else's TLS there is no way to the door: tunnels go inside SSH, or not at all."""
        self.assertEqual(self.successResultOf(self.offered(b"other")), ("vtun",))
        error = self.failureResultOf(self.offered(b"other", "tls"), TunnelFailed).value
        self.assertIn("no way for a tunnel by tls: use vtun", str(error))


class SessionTests(EquipmentCase):
    """A session that works."""

    def test_providers(self) -> None:
        """The neighbours are what they stand for, and the tunnel gets a real site."""
        self.attend()
        verifyObject(ITunnelBackend, self.backend)
        verifyObject(IDeviceTunnel, self.tunnel)
        verifyObject(ITunnelSite, self.tunnel.site)

    def test_session(self) -> None:
        """Parameters, authority, interface, network and tunnel; up once packets flow; undone at the end."""
        ending = self.attend()
        self.assertEqual(self.requests[:3], [GetTunnelParameters(), GetCertificateAuthority(), GetSessionGrant()])
        self.assertEqual(self.tunnel.parameters, self.parameters())
        self.assertEqual(list(self.network.applied), ["onsite-rpi1100"])
        self.assertEqual(self.ups, [])
        self.tunnel.carrying.callback(REPORT)
        self.pump()
        ((parameters, leg, report),) = self.ups
        self.assertEqual((parameters, leg.tunnel, report), (self.parameters(), self.tunnel, REPORT))
        self.assertEqual(self.requests[-1], WaitForSessionChange(SessionState.BUILDING, 8.0, 1))
        self.servers[-1].answer(SessionView(reason=EndReason.MASTER_LEFT))
        self.assert_ended(ending, EndReason.MASTER_LEFT)

    def test_site(self) -> None:
        """The tunnel learns what it needs of its device."""
        self.attend()
        site = self.tunnel.site
        self.assertEqual(
            (site.device, site.role, site.reactor, site.network, site.identity, site.authority),
            ("rpi1100", Role.ONSITE, self.clock, self.network, self.equipment.identity, AUTHORITY),
        )
        self.assertEqual(site.interface, interface_name("rdv", "onsite-rpi1100"))

    def test_door(self) -> None:
        """The tunnel goes where SSH inside TLS goes; else to the port that the server has named."""
        self.attend()
        self.assertEqual(repr(self.tunnel.site.door), "<HostnameEndpoint rdv.example.org:443>")
        self.change(tls=True, port=8443)
        _, self.link = opened(self.role, self.clock, self.server())
        self.attend()
        self.assertEqual(repr(self.tunnel.site.door), "<HostnameEndpoint rdv.example.org:8443>")

    def small(self) -> bool:
        """Whether a tunnel that is built now has small segments."""
        self.attend()
        return isinstance(self.tunnel.site.door._reactor, SmallSegments)  # type: ignore[attr-defined]

    def test_segments(self) -> None:
        """The tunnel has small segments if its device has reason to, or has come by such a connection itself."""
        self.assertFalse(self.small())
        _, self.link = opened(self.role, self.clock, self.server())
        self.link.small = True
        self.assertTrue(self.small())
        _, self.link = opened(self.role, self.clock, self.server())
        self.equipment.suspicion.heed(TunnelSilent("the tunnel to rpi2200 fell silent"))
        self.assertTrue(self.small())

    def test_silence(self) -> None:
        """A tunnel that falls silent ends its session, and is a reason for small segments in the next one."""
        ending = self.attend()
        self.tunnel.closed.errback(TunnelSilent("the tunnel to rpi2200 fell silent"))
        self.clock.advance(VERDICT_SECONDS)
        self.assert_ended(ending, EndReason.TUNNEL_LOST, TunnelSilent, "the tunnel to rpi2200 fell silent")
        self.assertTrue(self.equipment.suspicion.holds)

    def test_lost_elsewhere(self) -> None:
        """So is one of which the other device says that it is lost."""
        ending = self.attend()
        self.servers[-1].answer(SessionView(reason=EndReason.TUNNEL_LOST))
        self.assert_ended(ending, EndReason.TUNNEL_LOST)
        self.assertTrue(self.equipment.suspicion.holds)

    def test_plan(self) -> None:
        """Each role has its own plan."""
        self.attend()
        first = self.network.applied.popitem()[1]
        self.role = Role.MASTER
        self.change(role=self.role)
        _, self.link = opened(self.role, self.clock, self.server())
        self.attend()
        owner, second = self.network.applied.popitem()
        self.assertEqual(owner, "master-rpi1100")
        self.assertNotEqual(first.steps, second.steps)

    def test_plan_of_each_mode(self) -> None:
        """Bridged, an onsite is at the LAN through a pair of interfaces; routed, it has routes."""
        kinds = []
        for mode in Mode:
            _, self.link = opened(self.role, self.clock, self.server())
            self.servers[-1].answers[GetTunnelParameters] = evolve(self.parameters(), mode=mode)
            self.attend()
            plan = self.network.applied.popitem()[1]
            kinds.append({type(step) for step in plan.steps} & {Pair, Route})
        self.assertEqual(dict(zip(Mode, kinds, strict=True)), {Mode.L3: {Route}, Mode.L2: {Pair}})

    def test_scope(self) -> None:
        """An onsite lets pass what both the server and its own rules allow; a master's plan knows no scope."""
        self.servers[-1].answers[GetSessionGrant] = SessionGrant(1, None, Scope.parse("192.168.7.0/24:tcp/80-90"))
        self.equipment.access = LocalAccess(scope=Scope.parse("192.168.7.5:tcp/85-99"))
        self.attend()
        [plan] = self.network.applied.values()
        [table] = [step for step in plan.steps if isinstance(step, FirewallTable)]
        self.assertIn("proto-dst 85-90 ct original ip daddr { 192.168.7.5 } return", table.rules)

    def test_pins(self) -> None:
        """The peer's key is pinned once packets flow with it, and not before; the authority when it is told."""
        ending = self.attend()
        peers = self.folder / "known_peers"
        self.assertTrue((self.folder / "server-ca.pem").exists())
        self.assertFalse(peers.exists())
        self.tunnel.carrying.callback(REPORT)
        self.assertEqual(peers.read_text(), f"rpi2200 {PEER.line}\n")
        ending.cancel()
        self.assert_ended(ending, EndReason.OPERATOR)

    def test_cannot_pin(self) -> None:
        """A disk that is full costs no session: the key has been checked, and the log tells of it."""
        ending = self.attend()
        self.equipment.peers = KnownPeers(self.folder / "gone" / "known_peers")
        self.tunnel.carrying.callback(REPORT)
        self.assertEqual(len(self.ups), 1)
        self.assertNoResult(ending)
        self.assertEqual(
            self.logged(LogLevel.error),
            [f"The key of rpi2200 is not pinned: cannot write {self.equipment.peers.path}: No such file or directory"],
        )

    def test_time_limit(self) -> None:
        """A hard end counts from when packets flow."""
        ending = self.attend(60.0)
        self.tunnel.carrying.callback(REPORT)
        for _ in range(60):
            self.assertNoResult(ending)
            self.pump()
            self.servers[-1].answer(SessionView(state=SessionState.UP))
            self.pass_time(1.0)
        self.assert_ended(ending, EndReason.TIME_LIMIT)


class RefusalTests(EquipmentCase):
    """Sessions that cannot be."""

    def offer(self, **changes: object) -> None:
        """The server has other parameters."""
        self.servers[-1].answers[GetTunnelParameters] = evolve(self.parameters(), **changes)

    def test_unknown_backend(self) -> None:
        """A backend that is not here is named."""
        self.offer(backend="carrier-pigeon")
        text = "the server wants a tunnel by carrier-pigeon, which is not to be had here"
        self.assert_ended(self.attend(), EndReason.TUNNEL_FAILED, TunnelFailed, text)

    def test_wireless(self) -> None:
        """A session in mode L2 through Wi-Fi is refused before a tunnel is tried."""
        self.offer(mode=Mode.L2)
        self.network._site = evolve(SITE, ports=(evolve(SITE.ports[0], kind="wlan"),))
        text = "invalid extremity 'eth0': Wi-Fi carries its own frames only: use L3, or a cable"
        self.assert_ended(self.attend(), EndReason.TUNNEL_FAILED, InvalidValue, text)
        self.assertEqual(self.backend.tunnels, [])

    def test_peer_changed(self) -> None:
        """A peer with another key than the pinned one is refused before a tunnel is tried; the server learns why."""
        self.equipment.peers.pin("rpi2200", OTHER)
        text = (
            f"the key of rpi2200 has changed: pinned {OTHER.fingerprint}, shown {PEER.fingerprint}. If it was changed"
            f" on purpose, remove the line of rpi2200 from {self.folder / 'known_peers'}"
        )
        self.assert_ended(self.attend(), EndReason.PEER_KEY_REFUSED, PeerKeyChanged, text)
        self.assertEqual(self.backend.tunnels, [])

    def test_strict(self) -> None:
        """Whoever is strict accepts no unknown peer either."""
        self.equipment.peers.strict = True
        text = (
            f"the key of rpi2200 has changed: pinned nothing, shown {PEER.fingerprint}. Add the line"
            f" 'rpi2200 {PEER.line}' to {self.folder / 'known_peers'} if that is its key"
        )
        self.assert_ended(self.attend(), EndReason.PEER_KEY_REFUSED, PeerKeyChanged, text)

    def test_glued(self) -> None:
        """Of a session that the server joins, the other device's key is neither known nor pinned; the server's is."""
        self.equipment.peers.pin("rpi2200", OTHER)
        self.offer(join="glue", peer_key=PEER)
        ending = self.attend()
        self.assertEqual(self.tunnel.parameters.peer_key, PEER)
        self.tunnel.carrying.callback(REPORT)
        self.pump()
        self.assertEqual(self.ups, [])  # the other device's tunnel is not there yet
        self.servers[-1].answer(SessionView(state=SessionState.UP))
        self.pump()
        self.assertEqual(len(self.ups), 1)
        self.servers[-1].answer(SessionView(reason=EndReason.MASTER_LEFT))
        self.assert_ended(ending, EndReason.MASTER_LEFT)
        self.assertEqual((self.folder / "known_peers").read_text().count("rpi2200"), 1)

    def test_says_relay(self) -> None:
        """A tunnel that can only end at the server is none from end to end, even if the server calls it one."""
        self.backend.relay = False
        self.equipment.peers.strict = True
        self.equipment.peers.path.write_text(f"rpi2200 {PEER.line}\n")
        text = "the server would have a tunnel by twin taken for one from end to end, which none is"
        self.assert_ended(self.attend(), EndReason.TUNNEL_FAILED, TunnelFailed, text)
        self.assertEqual(self.backend.tunnels, [])

    def test_unproved(self) -> None:
        """A tunnel in which nobody, or somebody else, has proved a key is no session; nothing is pinned or told."""
        for proved in (None, OTHER):
            _, self.link = opened(self.role, self.clock, self.server())
            ending = self.attend()
            self.tunnel.carrying.callback(evolve(REPORT, proved=proved))
            text = "the tunnel by twin has not proved the other device's key"
            self.assert_ended(ending, EndReason.TUNNEL_FAILED, TunnelFailed, text)
            self.assertEqual(self.ups, [])
            self.assertFalse((self.folder / "known_peers").exists())

    def test_another_peer(self) -> None:
        """Who has asked for a device gets that one, or nothing, whatever else the server would give."""
        self.offer(peer="rpi2201")
        text = "the server has joined this device to rpi2201, and not to rpi2200"
        self.assert_ended(self.attend(peer="rpi2200"), EndReason.TUNNEL_FAILED, TunnelFailed, text)
        self.assertEqual((self.backend.tunnels, self.asked(EndSession)[0].session), ([], "s1"))

    def test_own_role(self) -> None:
        """No onsite is joined to an onsite, and no master to a master."""
        self.offer(peer_role=Role.ONSITE)
        text = "the server has joined this device to one of its own role, onsite"
        self.assert_ended(self.attend(), EndReason.TUNNEL_FAILED, TunnelFailed, text)
        self.assertEqual(self.backend.tunnels, [])

    def test_another_mode(self) -> None:
        """Who has asked for one mode is not given the other."""
        self.offer(mode=Mode.L2)
        text = "the server would have this session in mode L2, and not in L3"
        self.assert_ended(self.attend(mode=Mode.L3), EndReason.TUNNEL_FAILED, TunnelFailed, text)
        self.assertEqual(self.backend.tunnels, [])

    def test_end_to_end(self) -> None:
        """Who wants to be read by nobody refuses a session that the server joins, before a tunnel is tried."""
        self.change(end_to_end=True)
        self.offer(join="glue")
        text = "the server would join this session, and could read it: --end-to-end refuses that"
        self.assert_ended(self.attend(), EndReason.TUNNEL_FAILED, TunnelFailed, text)
        self.assertEqual(self.backend.tunnels, [])

    def test_authority_changed(self) -> None:
        """A server with another authority than the pinned one gets no tunnel."""
        self.equipment.authority.accept(identity("former").certificate.public_bytes(Encoding.DER))
        self.assert_ended(self.attend(), EndReason.TUNNEL_FAILED, ServerKeyChanged)
        self.assertEqual(self.backend.tunnels, [])

    def test_no_session(self) -> None:
        """The session may be gone before its parameters are asked for; the server knows why, or it is a failure."""
        for view, reason, error in (
            (SessionView(SessionState.BUILDING, "s1"), EndReason.TUNNEL_FAILED, RequestRefused),
            (SessionView(id="s1", reason=EndReason.ADMINISTRATOR), EndReason.ADMINISTRATOR, None),
        ):
            _, self.link = opened(self.role, self.clock, self.server())
            self.servers[-1].answers |= {GetTunnelParameters: NoSession(), GetSession: view}
            self.assert_ended(self.attend(), reason, error)
            self.assertEqual(self.asked(EndSession), [EndSession(reason, "s1")])

    def test_no_session_at_all(self) -> None:
        """Where there is none, none is ended: when that is heard, another master may have selected the device."""
        self.servers[-1].answers |= {GetTunnelParameters: NoSession(), GetSession: SessionView()}
        self.assertIs(self.successResultOf(self.attend()).reason, EndReason.TUNNEL_FAILED)
        self.assertEqual(self.asked(EndSession), [])

    def test_addresses_collide(self) -> None:
        """A tunnel whose addresses are those of the own network cannot be."""
        self.offer(address=IPv4Interface("192.168.7.1/30"), peer_address=IPv4Interface("192.168.7.2/30").ip)
        self.assert_ended(self.attend(), EndReason.TUNNEL_FAILED, InvalidValue)

    def test_network(self) -> None:
        """A machine that cannot tell its addresses, or refuses the plan, is no end of the link."""
        self.network.refusal = NetworkError("the kernel is busy")
        self.assert_ended(self.attend(), EndReason.TUNNEL_FAILED, NetworkError, "the kernel is busy")

    def test_denied_here(self) -> None:
        """What this device's own rules forbid is refused with their words, and the server learns why."""
        self.equipment.access = LocalAccess(scope=Scope())
        self.assert_ended(
            self.attend(),
            EndReason.ACCESS_DENIED,
            AccessDenied,
            "this device's own rules leave nothing of what the server allows",
        )

    def test_rules_unusable(self) -> None:
        """With rules that cannot be used nothing is allowed."""
        self.equipment.access = LocalAccess(self.folder / "none", required=True)
        self.assert_ended(self.attend(), EndReason.ACCESS_DENIED, ConfigError)

    def test_lost(self) -> None:
        """The connection may break while the session is prepared."""
        del self.servers[-1].answers[GetTunnelParameters]
        ending = self.attend()
        self.servers[-1].lose(ConnectionLost("cut"))
        result = self.successResultOf(ending)
        self.assertEqual((result.reason, str(result.error)), (EndReason.TUNNEL_FAILED, "cut"))

    def test_fault(self) -> None:
        """A fault of a backend is the caller's to see."""
        self.patch(Backend, "device_end", lambda self, parameters, site: 1 / 0)
        self.failureResultOf(self.attend(), ZeroDivisionError)


class OperatorTests(EquipmentCase):
    """The operator's end, at every stage."""

    def test_each_question(self) -> None:
        """Whichever question is under way, the server learns that the operator has ended it."""
        for question in (GetTunnelParameters, GetCertificateAuthority, GetSessionGrant):
            _, self.link = opened(self.role, self.clock, self.server())
            value = self.servers[-1].answers.pop(question)
            ending = self.attend()
            ending.cancel()
            self.assertNoResult(ending)
            self.servers[-1].answer(value)
            self.assert_ended(ending, EndReason.OPERATOR)

    def test_building(self) -> None:
        """While the tunnel is built."""
        ending = self.attend()
        ending.cancel()
        self.assert_ended(ending, EndReason.OPERATOR)

    def test_up(self) -> None:
        """While packets flow."""
        ending = self.attend()
        self.tunnel.carrying.callback(REPORT)
        ending.cancel()
        self.assert_ended(ending, EndReason.OPERATOR)

    def test_server_gone(self) -> None:
        """A server that does not answer any more delays the end by two seconds."""
        ending = self.attend()
        del self.servers[-1].answers[EndSession]
        self.tunnel.carrying.callback(REPORT)
        ending.cancel()
        self.pump()
        self.assertNoResult(ending)
        self.pass_time(2.0)
        self.assertIs(self.successResultOf(ending).reason, EndReason.OPERATOR)
        self.assertEqual((self.network.applied, self.tunnel.closings), ({}, 1))


class UnwritableTests(EquipmentCase):
    """Files that cannot be written."""

    def test_authority(self) -> None:
        """An authority that cannot be kept is not used: the next server could be any."""
        self.equipment.authority.path = self.folder / "gone" / "server-ca.pem"
        self.assert_ended(self.attend(), EndReason.TUNNEL_FAILED, StateDirectoryError)
