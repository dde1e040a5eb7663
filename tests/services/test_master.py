"""A master device: one session for an operator who watches, clear words, and a true exit status."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from ipaddress import IPv4Interface
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed

from rdvtwisted.access import SessionGrant
from rdvtwisted.errors import (
    ConnectionLost,
    KeyRejected,
    NetworkError,
    OnsiteBusy,
    OnsiteNotRegistered,
    ServerKeyChanged,
    TunnelFailed,
)
from rdvtwisted.plan import Plan, Site
from rdvtwisted.requests import (
    Connect,
    EndSession,
    GetCertificateAuthority,
    GetRemoteSite,
    GetSession,
    GetSessionGrant,
    GetTunnelParameters,
    ListOnsite,
    Publish,
    WaitForSessionChange,
)
from rdvtwisted.scope import Scope
from rdvtwisted.services.console import Console
from rdvtwisted.services.footing import GRACE_SECONDS
from rdvtwisted.services.link import Link
from rdvtwisted.services.master import FLOW_SECONDS, POLL_SECONDS, MasterService, MasterSettings
from rdvtwisted.shell.dialogue import Dialogue
from rdvtwisted.testing.tunnels import identity
from rdvtwisted.values import EndReason, Mode, Presence, Profile, PublicKey, RemoteSite, Role, SessionState, SessionView
from tests.services.neighbours import PEER, REPORT, SITE, DeviceCase
from tests.services.twin import DEVICE, SSHTwin

ONSITE = "rpi2200"
REMOTE = RemoteSite(ONSITE, IPv4Interface("192.168.50.1/24"), SITE.dns, "cellar", "3g", "203.0.113.7:4711")


def presence(id: str) -> Presence:
    """An onsite that is online."""
    return Presence(id, Role.ONSITE, "203.0.113.7:4711", "ssh", 0.0, 0.0, Profile(), PublicKey("ssh-ed25519", b"k"))


class MasterCase(DeviceCase):
    """A master that connects to a server where an onsite is online."""

    role = Role.MASTER

    def setUp(self) -> None:
        """Not started yet."""
        super().setUp()
        self.said: list[str] = []
        self.complaints: list[str] = []
        self.report = self.folder / "report"
        self.outcome: Deferred[SSHTwin] | None = None
        self.finished = 0
        self.here = self.server()
        self.here.answers |= {
            ListOnsite: (presence(ONSITE),),
            Connect: None,
            GetRemoteSite: REMOTE,
            GetSession: SessionView(),
        }
        self.make(onsite=ONSITE)

    def make(self, terminal: str | None = None, **settings: Any) -> None:
        """What the operator wants, and where they sit."""
        self.service = MasterService(
            equipment=self.equipment,
            console=Console(self.said.append, self.complaints.append, self.report, self.clock.seconds),
            settings=MasterSettings(**settings),
            connect=self.connect,
            finished=self.finish,
            terminal=terminal,
        )

    async def _connect(self) -> Link:
        ssh = await (self.outcome or succeed(self.here))
        link = Link(Dialogue(DEVICE, Role.MASTER), self.clock, ssh)
        try:
            await link.open()
        except BaseException:
            await link.close()
            raise
        return link

    def connect(self) -> Coroutine[Any, Any, Link]:
        """As the real one does, the service gets a link that is open."""
        return self._connect()

    def finish(self) -> None:
        """The service has nothing more to do."""
        self.finished += 1

    def bridge(self, **settings: Any) -> Plan:
        """The plan of a session in mode L2, by an interface that has no address."""
        self.here.answers[GetTunnelParameters] = evolve(self.parameters(), mode=Mode.L2)
        self.start(onsite=ONSITE, mode=Mode.L2, extremity="eth2", **settings)
        self.assertEqual(self.asked(Publish)[-1], Publish(Profile(mode=Mode.L2, backends=("twin",))))
        (plan,) = self.network.applied.values()
        return plan

    def start(self, **settings: Any) -> None:
        """Start, and go as far as it goes."""
        if settings:
            self.make(**settings)
        self.service.startService()
        self.pump()

    def bring_up(self) -> None:
        """Packets flow."""
        self.tunnel.carrying.callback(REPORT)
        self.pump()

    def interrupt(self) -> None:
        """Ctrl-C."""
        stopping = self.service.stopService()
        self.pump()
        self.pass_time(2.0)
        self.pass_time(2.0)
        self.assertIsNone(self.successResultOf(stopping))

    def end_session(self, reason: EndReason) -> None:
        """The server says that the session is over."""
        self.assertIsInstance(self.requests[-1], WaitForSessionChange)
        self.here.answer(SessionView(reason=reason))

    def records(self, *keys: str) -> list[Any]:
        """What stands in the file of records: the events, or tuples with these facts of them."""
        found = [json.loads(line) for line in self.report.read_text().splitlines()] if self.report.exists() else []
        return [tuple(record.get(key) for key in ("event", *keys)) if keys else record["event"] for record in found]

    def assert_finished(self, status: int, complaint: str | None = None) -> None:
        """The command is over with this status, one line at most of complaint, and nothing left."""
        self.assertEqual(self.service.exit_status, status)
        self.assertEqual(self.complaints, [] if complaint is None else [complaint])
        self.assertEqual(self.said[-1], "...done")
        self.assertEqual(self.finished, 1)
        self.assertEqual(self.network.applied, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(all(tunnel.closings for tunnel in self.backend.tunnels))
        if complaint is not None:
            self.assertEqual(self.records("error", "exit_status")[-1], ("failed", complaint, status))


class ListTests(MasterCase):
    """Who is online."""

    def test_list(self) -> None:
        """The ids, one a line, and their number; then the command is over, and leaves the server in order."""
        self.here.answers[ListOnsite] = (presence("rpi1"), presence("rpi2"))
        self.start(list_onsite=True)
        self.assertEqual(self.said, ["Currently available onsite devices:", "rpi1", "rpi2", "Total: 2", "...done"])
        self.assertEqual(self.here.partings, ["goodbye"])
        self.assertEqual(self.requests, [ListOnsite()])
        self.assertEqual(self.records("onsite"), [("list", ["rpi1", "rpi2"])])
        self.assert_finished(0)

    def test_nobody(self) -> None:
        """Nobody is a line of its own."""
        self.here.answers[ListOnsite] = ()
        self.start(list_onsite=True)
        self.assertEqual(self.said, ["No onsite device currently available", "...done"])
        self.assert_finished(0)

    def test_list_and_session(self) -> None:
        """Both may be wanted: first the list, then the session."""
        self.start(list_onsite=True, onsite=ONSITE)
        self.assertEqual(
            self.said[:4], ["Currently available onsite devices:", ONSITE, "Total: 1", f"Connecting to onsite {ONSITE}"]
        )
        self.bring_up()
        self.interrupt()
        self.assertEqual(self.records(), ["list", "up", "ended"])
        self.assert_finished(0)

    def test_needs_no_network(self) -> None:
        """For a list nothing of this machine's network is touched."""
        self.network.refusal = NetworkError("not to be asked")
        self.start(list_onsite=True)
        self.assert_finished(0)


class SessionTests(MasterCase):
    """A session."""

    def test_words(self) -> None:
        """From the first line to the last one, in the words that wrappers know."""
        self.start()
        self.assertEqual(
            self.said,
            [
                "Connecting to onsite rpi2200",
                "Selecting onsite dev rpi2200 for this session",
                "Building the tunnel; what enters by eth0 will reach the LAN of rpi2200",
            ],
        )
        self.said.clear()
        self.pass_time(1.5)
        self.bring_up()
        self.assertEqual(
            self.said,
            [
                "Remote session to onsite rpi2200 is now established",
                "Remote onsite has it LAN interface configured with IP address 192.168.50.1/24",
                "Remote hostname cellar, DNS servers 192.168.7.1, uplink 3g",
                "End to end by twin, key exchange X25519MLKEM768, cipher TLS_AES_256_GCM_SHA384",
                "Ctrl-C ends the session",
            ],
        )
        self.said.clear()
        self.clock.advance(3.0)
        self.interrupt()
        self.assertEqual(
            self.said,
            ["Session ended (operator) after 3 s: sent 1.0 kB, received 2.0 kB; round trip 1.0 ms", "...done"],
        )
        self.assertEqual(
            self.records("session_s", "peer", "reason", "sent_packets"),
            [("up", 1.5, ONSITE, None, None), ("ended", None, None, "operator", 10)],
        )
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.OPERATOR, "s1")])
        self.assert_finished(0)

    def test_questions(self) -> None:
        """It publishes its network and backends, selects, and learns of the other side."""
        self.start()
        profile = Profile(mode=Mode.L3, lan=IPv4Interface("192.168.7.9/24"), backends=("twin",))
        self.assertEqual(self.asked(Publish)[-1], Publish(profile))
        kinds = [type(request) for request in self.requests if not isinstance(request, Publish)]
        self.assertEqual(
            kinds,
            [
                ListOnsite,
                Connect,
                GetRemoteSite,
                GetTunnelParameters,
                GetCertificateAuthority,
                GetSessionGrant,
                WaitForSessionChange,
            ],
        )
        self.assertEqual(self.asked(Connect), [Connect(ONSITE)])
        self.interrupt()

    def test_limits(self) -> None:
        """The operator learns what the access rules leave of the session."""
        self.here.answers[GetSessionGrant] = SessionGrant(1, 7800.0, Scope.parse("192.168.1.10:tcp/80"))
        self.start()
        self.bring_up()
        self.assertIn("The access rules let you reach: 192.168.1.10:tcp/80", self.said)
        (line,) = [each for each in self.said if "ends at" in each]
        self.assertTrue(line.endswith(", in 2 h 10 min"), line)
        self.interrupt()

    def test_no_limits(self) -> None:
        """Nothing is said of access rules that limit nothing."""
        self.start()
        self.bring_up()
        self.assertNotIn("access rules", "".join(self.said))
        self.interrupt()

    def test_wishes(self) -> None:
        """The operator may choose interface and backend."""
        self.start(onsite=ONSITE, extremity="eth1", backends=("vtun",))
        profile = Profile(lan=IPv4Interface("10.1.2.3/16"), backends=("vtun",))
        self.assertEqual(self.asked(Publish)[-1], Publish(profile))
        self.assertIn("what enters by eth1 will reach", self.said[-1])
        self.interrupt()

    def test_bridged(self) -> None:
        """In mode L2 no address is needed; the operator learns what the PC is to do, and can keep DHCP apart."""
        plan = self.bridge()
        self.bring_up()
        self.assertIn("The PC is on that LAN now: let it ask there for an address anew, or give it one", self.said)
        self.interrupt()
        self.assert_finished(0)
        self.here = self.server()
        self.here.answers |= {ListOnsite: (presence(ONSITE),), Connect: None, GetRemoteSite: REMOTE}
        self.assertNotEqual(self.bridge(dhcp=False), plan)
        self.interrupt()

    def test_unknown_site(self) -> None:
        """What is not known of the other side is left out, or called that."""
        for remote, lines in (
            (None, []),
            (RemoteSite(ONSITE, None, (), None, None, "x"), ["Remote hostname unknown, DNS servers none, uplink -"]),
        ):
            self.here = self.server()
            self.here.answers |= {ListOnsite: (presence(ONSITE),), Connect: None, GetRemoteSite: remote}
            self.start(onsite=ONSITE)
            self.said.clear()
            self.bring_up()
            self.assertEqual(self.said[1:-2], lines)
            self.interrupt()

    def test_flow(self) -> None:
        """While the session lasts, a line every half minute says what has flowed; afterwards none."""
        self.start()
        self.bring_up()
        self.said.clear()
        for _ in range(3):
            for _ in range(6):
                self.pass_time(FLOW_SECONDS / 6)
                self.here.answer(SessionView(state=SessionState.UP))
        self.assertEqual(self.said, ["sent 1.0 kB, received 2.0 kB; round trip 1.0 ms"] * 3)
        self.interrupt()
        self.said.clear()
        self.pass_time(1000.0)
        self.assertEqual(self.said, [])

    def test_sweeps(self) -> None:
        """What a killed process has left behind is removed first, and told."""
        self.network.sweep = lambda owner: succeed([f"the table of {owner}"])
        self.start()
        self.assertEqual(self.said[0], "Removed what an earlier run left behind: the table of master-rpi1100")
        self.interrupt()


class WaitingTests(MasterCase):
    """An onsite that is not there."""

    def setUp(self) -> None:
        """Nobody is online."""
        super().setUp()
        self.here.answers[ListOnsite] = ()

    def test_waits(self) -> None:
        """It is waited for, with one warning, and selected once it is there."""
        self.start()
        for _ in range(100):
            self.pass_time(POLL_SECONDS)
        self.assertEqual(
            self.said,
            ["Connecting to onsite rpi2200", "Could not connect to rpi2200. It is not connected (yet). Waiting"],
        )
        self.assertEqual(len(self.asked(ListOnsite)), 101)
        self.here.answers[ListOnsite] = (presence(ONSITE),)
        self.pass_time(POLL_SECONDS)
        self.assertEqual(self.said[2], "Selecting onsite dev rpi2200 for this session")
        self.interrupt()

    def test_no_wait(self) -> None:
        """With --wait 0 an onsite that is not there is a refusal at once."""
        self.start(onsite=ONSITE, wait_seconds=0.0)
        self.assertEqual(self.said, ["Connecting to onsite rpi2200", "...done"])
        self.assert_finished(1, str(OnsiteNotRegistered(ONSITE)))

    def test_wait_ends(self) -> None:
        """With --wait 10 it is waited for ten seconds."""
        self.start(onsite=ONSITE, wait_seconds=10.0)
        for _ in range(4):
            self.pass_time(POLL_SECONDS)
        self.assertEqual(self.finished, 0)
        self.pass_time(POLL_SECONDS)
        self.assert_finished(1, str(OnsiteNotRegistered(ONSITE)))

    def test_interrupted(self) -> None:
        """The operator may give up."""
        self.start()
        self.interrupt()
        self.assertEqual(self.said[-2:], ["Stopped by the operator", "...done"])
        self.assert_finished(0)

    def test_server_lost(self) -> None:
        """The server may be lost meanwhile."""
        self.start()
        self.here.lose(ConnectionLost("cut"))
        self.pass_time(POLL_SECONDS)
        self.assert_finished(3, "cut")


class RefusalTests(MasterCase):
    """Sessions that cannot be: one line, and the exit status of its kind."""

    def test_connecting(self) -> None:
        """A server that is not there, does not know the key, or is another one."""
        for error in (
            ConnectionLost("rdv.example.org could not be reached"),
            KeyRejected("it does not accept the key"),
            ServerKeyChanged("the host key", "a", "b", "cure"),
        ):
            self.outcome = Deferred()
            self.complaints.clear()
            self.finished = 0
            self.start(onsite=ONSITE)
            self.outcome.errback(error)
            self.assert_finished(3, str(error))

    def test_wrong_role(self) -> None:
        """An onsite's account is refused, in the words that wrappers know."""
        self.here = SSHTwin(Role.ONSITE)
        self.servers.append(self.here)
        self.start()
        self.assert_finished(1, "Tundev shell returns a role that does not match this script (master)")

    def test_select(self) -> None:
        """The server's own words, for an onsite that is busy or has just left."""
        for error in (OnsiteBusy(ONSITE), OnsiteNotRegistered(ONSITE)):
            self.here = self.server()
            self.here.answers |= {ListOnsite: (presence(ONSITE),), Connect: error}
            self.complaints.clear()
            self.finished = 0
            self.start(onsite=ONSITE)
            self.assert_finished(1, str(error))

    def test_extremity(self) -> None:
        """An interface that is not there, or none to find."""
        self.start(onsite=ONSITE, extremity="eth9")
        self.assert_finished(
            1, "invalid extremity 'eth9': there is no such interface with an IPv4 address, the PC's gateway"
        )
        self.network._site = Site()
        self.here = self.server()
        self.complaints.clear()
        self.finished = 0
        self.start(onsite=ONSITE)
        self.assert_finished(1, "invalid extremity: there is no default route to find it by; name it with --extremity")

    def test_bridged_extremity(self) -> None:
        """Bridged, it must be a cable, and neither the master's way to the server nor the operator's to the master."""
        for extremity, reason in (
            ("eth0", "this device's own way to the server leads through it: use L3"),
            ("eth1", "Wi-Fi carries its own frames only: use L3, or a cable"),
            ("eth9", "there is no such interface"),
        ):
            self.here = self.server()
            self.complaints.clear()
            self.finished = 0
            self.start(onsite=ONSITE, mode=Mode.L2, extremity=extremity)
            self.assertEqual(self.asked(Connect), [])
            self.assert_finished(1, f"invalid extremity '{extremity}': {reason}")

    def test_own_terminal(self) -> None:
        """A terminal that comes through the extremity is not cut off: the master refuses to begin."""
        self.network._site = evolve(
            SITE, ports=(evolve(SITE.ports[2], addresses=(IPv4Interface("192.168.38.225/29"),)),)
        )
        self.start(terminal="192.168.38.226 50000 192.168.38.225 22", onsite=ONSITE, mode=Mode.L2, extremity="eth2")
        self.assertEqual(self.asked(Connect), [])
        self.assert_finished(
            1,
            "invalid extremity 'eth2': your own terminal comes through it (SSH from 192.168.38.226) and would be cut"
            " off: come by another way",
        )

    def test_swapped(self) -> None:
        """The server joins the operator to another onsite, or in another mode: nothing is built, and a line says so."""
        for change, line in (
            ({"peer": "rpi2201"}, "the server has joined this device to rpi2201, and not to rpi2200"),
            ({"mode": Mode.L2}, "the server would have this session in mode L2, and not in L3"),
            ({"peer_role": Role.MASTER}, "the server has joined this device to one of its own role, master"),
        ):
            self.here.answers[GetTunnelParameters] = evolve(self.parameters(), **change)
            self.start()
            self.assertEqual(self.asked(EndSession), [EndSession(EndReason.TUNNEL_FAILED, "s1")])
            self.assertEqual(self.backend.tunnels, [])
            self.assert_finished(4, line)
            self.here = self.server()
            self.here.answers |= {ListOnsite: (presence(ONSITE),), Connect: None, GetRemoteSite: REMOTE}
            self.make(onsite=ONSITE)
            self.complaints.clear()
            self.finished = 0

    def test_peer_key_changed(self) -> None:
        """An onsite with another key than before: status 4, and the server learns why."""
        self.equipment.peers.pin(ONSITE, identity("former").public)
        self.start()
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.PEER_KEY_REFUSED, "s1")])
        (complaint,) = self.complaints
        self.assertIn(f"shown {PEER.fingerprint}", complaint)
        self.assert_finished(4, complaint)

    def test_tunnel_fails(self) -> None:
        """A tunnel that cannot be built: status 4."""
        self.start()
        self.tunnel.carrying.errback(TunnelFailed("the other device did not come"))
        self.pump()
        self.assertEqual(self.records("reason")[0], ("ended", "tunnel-failed"))
        self.assert_finished(4, "the other device did not come")

    def test_built_in_vain(self) -> None:
        """A session that the server ends while it is built: status 4, and its reason."""
        self.start()
        self.end_session(EndReason.BUILD_TIMEOUT)
        self.assert_finished(4, "the session to rpi2200 could not be built: build-timeout")

    def test_network_refuses(self) -> None:
        """A machine that cannot be configured: status 1."""
        self.network.apply = lambda plan: fail(NetworkError("the kernel is busy"))
        self.start()
        self.assert_finished(1, "the kernel is busy")

    def test_sweep_refused(self) -> None:
        """Leftovers that cannot be removed are a reason not to begin."""
        self.network.refusal = NetworkError("the journal is damaged")
        self.start()
        self.assertEqual(self.requests, [])
        self.assert_finished(1, "the journal is damaged")

    def test_fault(self) -> None:
        """A fault of the program: status 1, one line, and the traceback in the log."""
        self.outcome = Deferred()
        self.start()
        self.outcome.errback(ZeroDivisionError("fault"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_finished(1, "an unexpected failure, ZeroDivisionError('fault'): the log says more")


class EndTests(MasterCase):
    """Ends of a session that was up."""

    def test_good_ends(self) -> None:
        """Ends that somebody wanted: status 0."""
        self.start()
        self.bring_up()
        self.end_session(EndReason.ADMINISTRATOR)
        self.assertTrue(self.said[-2].startswith("Session ended (administrator) after 0 s: "))
        self.assert_finished(0)

    def test_time_limit(self) -> None:
        """The time limit ends it, in order: status 0; 0 is a limit too, that of old wrappers for a try."""
        for seconds in (42.0, 0.0):
            self.here = self.server()
            self.here.answers |= {ListOnsite: (presence(ONSITE),), Connect: None, GetRemoteSite: REMOTE}
            self.finished = 0
            self.start(onsite=ONSITE, session_seconds=seconds)
            self.bring_up()
            self.here.answer(SessionView(state=SessionState.UP))
            for _ in range(int(seconds)):
                self.assertEqual(self.finished, 0)
                if not self.here.asked[-1][1].called:
                    self.here.answer(SessionView(state=SessionState.UP))
                self.pass_time(1.0)
            self.pass_time(0.0)
            self.assertTrue(self.said[-2].startswith("Session ended (time-limit) after "), self.said[-2])
            self.assertEqual(self.asked(EndSession), [EndSession(EndReason.TIME_LIMIT, "s1")])
            self.assert_finished(0)

    def test_unplugged(self) -> None:
        """When the cable to the PC is pulled and stays out, the session ends, with a sentence; status 0."""
        self.start(onsite=ONSITE, extremity="eth1")
        self.bring_up()
        ports = tuple(evolve(port, carrier=port.interface != "eth1") for port in SITE.ports)
        self.network.move(evolve(SITE, ports=ports))
        self.network.move(SITE)
        self.pass_time(GRACE_SECONDS)
        self.assertEqual(self.finished, 0)
        self.network.move(evolve(SITE, ports=ports))
        self.pass_time(GRACE_SECONDS)
        self.pump()
        self.assertEqual(self.said[-2], "The session is over: the interface eth1 has no link")
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.EXTREMITY_LOST, "s1")])
        self.assertEqual(self.network.watchers, [])
        self.assert_finished(0)

    def test_bad_ends(self) -> None:
        """Ends that nobody here wanted: status 3, or 1 if it was a rule, or 4 if it was a tunnel, with the reason."""
        for reason, status, text in (
            (EndReason.ONSITE_LEFT, 3, "the session to rpi2200 was lost: onsite-left"),
            (EndReason.REPLACED, 3, "the session to rpi2200 was lost: replaced"),
            (EndReason.SERVER_STOPPED, 3, "the session to rpi2200 was lost: server-stopped"),
            (
                EndReason.ACCESS_REVOKED,
                1,
                "the session to rpi2200 was ended: the server's access rules do not allow it any more",
            ),
            (EndReason.ACCESS_DENIED, 1, "the session to rpi2200 was ended: the onsite's own rules forbid it"),
            (EndReason.TUNNEL_LOST, 4, "the tunnel to rpi2200 broke: tunnel-lost"),
            (EndReason.TUNNEL_FAILED, 4, "the tunnel to rpi2200 broke: tunnel-failed"),
        ):
            self.here = self.server()
            self.here.answers |= {ListOnsite: (presence(ONSITE),), Connect: None, GetRemoteSite: REMOTE}
            self.complaints.clear()
            self.finished = 0
            self.start(onsite=ONSITE)
            self.bring_up()
            self.end_session(reason)
            self.assert_finished(status, text)

    def test_server_lost(self) -> None:
        """The server's loss: status 3, and its cause."""
        self.start()
        self.bring_up()
        self.here.lose(ConnectionLost("the connection to rdv.example.org was lost: cut"))
        self.pump()
        self.assert_finished(3, "the connection to rdv.example.org was lost: cut")

    def test_dropped(self) -> None:
        """A server that drops this master ends the session first; the operator reads why it was dropped."""
        self.start()
        self.bring_up()
        del self.here.answers[EndSession]
        self.end_session(EndReason.MASTER_LEFT)
        self.here.lose(ConnectionLost("the connection was lost: this device is not entitled any more"))
        self.pump()
        self.assert_finished(3, "the connection was lost: this device is not entitled any more")

    def test_tunnel_breaks(self) -> None:
        """The tunnel's loss, of which the server knows nothing: status 4, and its cause."""
        self.start()
        self.bring_up()
        self.tunnel.closed.errback(TunnelFailed("nothing was heard for 15 s"))
        self.pass_time(1.5)
        self.assert_finished(4, "nothing was heard for 15 s")


class InterruptTests(MasterCase):
    """Ctrl-C, at every stage: status 0, nothing left."""

    def test_connecting(self) -> None:
        """While it connects."""
        self.outcome = Deferred()
        self.start()
        self.interrupt()
        self.assertEqual(self.said, ["Stopped by the operator", "...done"])
        self.assert_finished(0)

    def test_opening(self) -> None:
        """While the server opens a shell, or has not shown its prompt."""
        self.here.opening = Deferred()
        self.start()
        self.interrupt()
        self.assert_finished(0)

    def test_each_question(self) -> None:
        """While the server is to answer, whatever the question is."""
        questions = (ListOnsite, Publish, Connect, GetRemoteSite, GetTunnelParameters, GetCertificateAuthority)
        for question in questions:
            self.here = self.server()
            self.here.answers |= {ListOnsite: (presence(ONSITE),), Connect: None, GetRemoteSite: REMOTE}
            del self.here.answers[question]
            self.finished = 0
            self.start(onsite=ONSITE)
            self.assertIsInstance(self.requests[-1], question)
            self.interrupt()
            self.assert_finished(0)

    def test_building(self) -> None:
        """While the tunnel is built."""
        self.start()
        self.interrupt()
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.OPERATOR, "s1")])
        self.assertEqual(self.said[-2:], ["Stopped by the operator", "...done"])
        self.assert_finished(0)

    def test_twice(self) -> None:
        """Impatience does not keep anything from being cleaned up."""
        self.start()
        self.bring_up()
        self.here.obliging = False
        first = self.service.stopService()
        self.assertIsNone(self.service.stopService())
        self.pass_time(2.0)
        self.pass_time(2.0)
        self.assertIsNone(self.successResultOf(first))
        self.assert_finished(0)

    def test_afterwards(self) -> None:
        """The reactor stops the service once more when it is finished; that changes nothing."""
        self.start(list_onsite=True)
        self.assertIsNone(self.successResultOf(self.service.stopService()))
        self.assert_finished(0)

    def test_old_site_is_forgotten(self) -> None:
        """The site is looked at for each session."""
        self.network._site = evolve(SITE, interface="eth1")
        self.start()
        self.assertIn("what enters by eth1 will reach", self.said[-1])
        self.interrupt()
