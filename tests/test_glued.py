"""Sessions whose tunnels end at the server, and tunnels of old devices that have no session."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import IProtocol

from rdvtwisted import requests
from rdvtwisted.carriers import Carrier
from rdvtwisted.device import Desk
from rdvtwisted.errors import (
    ConnectionLost,
    GlueNotAvailable,
    NetworkError,
    OnsiteNotRegistered,
    PoolExhausted,
    RDVError,
    RequestRefused,
    VtunNotChosen,
    VtunNotStarted,
)
from rdvtwisted.leases import LeasePool
from rdvtwisted.requests import Readiness
from rdvtwisted.testing.ends import MemoryServerTunnel
from rdvtwisted.testing.glue import MemoryGlue
from rdvtwisted.testing.streams import MemoryStream
from rdvtwisted.values import EndReason, Mode, Role, SessionState, TunnelTerms
from tests.registry import POOL, SERVER_KEY, RegistryCase

#: The first two of the pool.
BLOCKS = ("192.168.128.0/30", "192.168.128.4/30")

LINES = """\
tunnel_ip_network: 192.168.128.0
tunnel_ip_prefix: /30
tunnel_ip_netmask: 255.255.255.252
tunnelling_dev_ip_address: 192.168.128.2
rdv_server_ip_address: 192.168.128.1
rdv_server_vtun_tcp_port: 5000
tunnel_secret: secret1"""


class GluedTests(RegistryCase):
    """A server that can end tunnels."""

    def build(self) -> None:
        """A fresh registry."""
        self.tunnels: list[MemoryServerTunnel] = []
        super().build()
        self.glue = self.registry.ends.glue = MemoryGlue()

    def carriers(self) -> dict[str, Carrier]:
        """As every server has them."""
        both = frozenset(Mode)
        return {
            "tls": Carrier("tls", both, 1500, True, self.maker(False)),
            "vtun": Carrier("vtun", both, 1450, False, self.maker(True)),
            "stunnel": Carrier("stunnel", both, 1500, False, self.maker(False), inside=True),
        }

    def maker(self, secret: bool) -> Callable[[TunnelTerms], MemoryServerTunnel]:
        """What makes the server's ends of one kind."""
        numbers = itertools.count(1)

        def make(terms: TunnelTerms) -> MemoryServerTunnel:
            tunnel = MemoryServerTunnel(terms, f"secret{next(numbers)}" if secret else "")
            self.tunnels.append(tunnel)
            return tunnel

        return make

    def old_pair(self, mode: Mode = Mode.L3, onsite: str = "on1", master: str = "ma1") -> tuple[Desk, Desk]:
        """An old master that has selected an old onsite."""
        at_onsite = self.arrive(onsite, lan="192.168.1.50/24", backends=())
        at_master = self.arrive(master, backends=(), mode=mode)
        self.wait(at_onsite)
        self.ask(at_master, requests.Connect(onsite))
        return at_onsite, at_master

    def lines(self, desk: Desk) -> str:
        """The answer to get_vtun_parameters."""
        return "\n".join(": ".join(pair) for pair in self.ask(desk, requests.GetVtunParameters()))

    def port(self, desk: Desk) -> int:
        """The port that a device is told."""
        return int(dict(self.ask(desk, requests.GetVtunParameters()))["rdv_server_vtun_tcp_port"])

    def let_in(self, *desks: Desk) -> None:
        """Their clients come in."""
        for desk in desks:
            self.lines(desk)
            (tunnel,) = [
                each for each in self.tunnels if each.terms.device == desk.device.id and not each.closed.called
            ]
            tunnel.let_in()

    def test_old_devices(self) -> None:
        """Two old devices: each has a tunnel and a block of its own, and the session is up when both are in."""
        onsite, master = self.old_pair()
        self.assertEqual(self.lines(onsite), LINES)
        self.assertEqual(self.lines(onsite), LINES)
        second = dict(self.ask(master, requests.GetVtunParameters()))
        self.assertEqual(second["tunnelling_dev_ip_address"], "192.168.128.6")
        self.assertEqual((second["rdv_server_vtun_tcp_port"], second["tunnel_secret"]), ("5001", "secret2"))
        self.assertIs(self.registry.views()[0].state, SessionState.BUILDING)
        (spec,) = self.glue.specs.values()
        self.assertEqual((spec.mode, spec.mtu, spec.headers), (Mode.L3, 1450, True))
        self.assertEqual(
            [str(each.network) for each in (spec.onsite, spec.master)], ["192.168.128.0/30", "192.168.128.4/30"]
        )
        self.let_in(onsite, master)
        (view,) = self.registry.views()
        self.assertEqual((view.state, view.backend, view.join), (SessionState.UP, "vtun", "glue"))
        self.assertEqual(self.lines(onsite), LINES, "also once the session is up")
        master.leave("logout")
        self.assert_nothing_held()
        self.assertIs(self.ask(onsite, requests.GetSession()).reason, EndReason.MASTER_LEFT)

    def assert_nothing_held(self) -> None:
        """Nor a namespace or a tunnel."""
        super().assert_nothing_held()
        self.assertEqual(self.glue.specs, {})
        self.assertTrue(all(tunnel.closed.called for tunnel in self.tunnels))

    def test_spent(self) -> None:
        """An old onsite whose tunnel is down is about to leave: no master finds it until it waits again."""
        onsite, master = self.old_pair()
        self.let_in(onsite, master)
        self.ask(master, requests.EndSession(EndReason.OPERATOR))
        self.assertEqual(self.ask(master, requests.ListOnsite()), ())
        self.refused(master, requests.Connect("on1"), OnsiteNotRegistered)
        self.assertEqual([presence.id for presence in self.registry.online(Role.ONSITE)], ["on1"])
        self.wait(onsite)
        self.ask(master, requests.Connect("on1"))
        self.assertIs(self.ask(onsite, requests.WaitForMaster()), Readiness.READY)

    def test_bridged(self) -> None:
        """A bridged session has addresses for those who want to be told some, and none at the server."""
        onsite, master = self.old_pair(Mode.L2)
        self.assertEqual(self.lines(onsite), LINES)
        (spec,) = self.glue.specs.values()
        self.assertEqual((spec.mode, spec.onsite, spec.mtu), (Mode.L2, None, 1500))
        self.assertEqual({tunnel.terms.mode for tunnel in self.tunnels}, {Mode.L2})
        self.let_in(onsite, master)
        self.assertIs(self.registry.views()[0].state, SessionState.UP)

    def test_mixed(self) -> None:
        """An old onsite and a new master: the master is told the server's key, and comes with a ticket."""
        onsite = self.arrive("on1", backends=())
        self.wait(onsite)
        master = self.arrive("ma1", backends=("tls",))
        self.ask(master, requests.Connect("on1"))
        parameters = self.ask(master, requests.GetTunnelParameters())
        self.assertEqual((parameters.join, parameters.backend, parameters.mtu), ("glue", "tls", 1450))
        self.assertEqual((parameters.peer, parameters.peer_key), ("on1", SERVER_KEY))
        self.assertEqual((str(parameters.address), str(parameters.peer_address)), ("192.168.128.6/30", "192.168.128.5"))
        self.assertEqual(parameters.door_port, 4430)
        seat = self.tickets.redeem(parameters.ticket, master.key)
        self.assertFalse(seat.inside)
        stream = MemoryStream()
        seat.occupy(stream)
        self.assertIs(self.registry.views()[0].state, SessionState.BUILDING)
        self.let_in(onsite)
        (view,) = self.registry.views()
        self.assertEqual((view.state, view.backend), (SessionState.UP, "vtun-tls"))
        self.ask(master, requests.EndSession(EndReason.OPERATOR))
        self.assertTrue(stream.aborted)
        self.assert_nothing_held()

    def test_new_device_with_vtun(self) -> None:
        """A new device is told of a vtun tunnel in the new words."""
        onsite, master = self.arrive("on1", backends=("tls", "vtun")), self.arrive("ma1", backends=("vtun",))
        self.wait(onsite)
        self.ask(master, requests.Connect("on1"))
        parameters = self.ask(onsite, requests.GetTunnelParameters())
        self.assertEqual((parameters.backend, parameters.ticket, parameters.door_port), ("vtun", "secret1", 5000))
        self.assertTrue(IProtocol.providedBy(self.successResultOf(onsite.forward("127.0.0.1", 5000))))

    def test_inside(self) -> None:
        """A stream of stunnel stays inside the door's TLS."""
        onsite, master = self.arrive("on1", backends=("stunnel",)), self.arrive("ma1", backends=("stunnel",))
        self.wait(onsite)
        self.ask(master, requests.Connect("on1"))
        parameters = self.ask(master, requests.GetTunnelParameters())
        self.assertTrue(self.tickets.redeem(parameters.ticket, master.key).inside)

    def test_forward(self) -> None:
        """A device reaches its own tunnel's port once it has asked for it, and no other port, host or device."""
        onsite, master = self.old_pair()
        self.assertRaises(RequestRefused, onsite.forward, "127.0.0.1", 5000)
        own, others = self.port(onsite), self.port(master)
        self.assertTrue(IProtocol.providedBy(self.successResultOf(onsite.forward("127.0.0.1", own))))
        for host, port in (("127.0.0.1", others), ("127.0.0.2", own), ("localhost", own), ("127.0.0.1", 22)):
            self.assertRaises(RequestRefused, onsite.forward, host, port)
        self.ask(master, requests.EndSession(EndReason.OPERATOR))
        self.assertRaises(RequestRefused, onsite.forward, "127.0.0.1", own)

    def test_tunnel_lost(self) -> None:
        """When one tunnel breaks the session is over for both."""
        onsite, master = self.old_pair()
        self.let_in(onsite, master)
        self.tunnels[0].fail(ConnectionLost("the vtun client was silent for 150 s"))
        self.assert_nothing_held()
        self.assertIs(self.ask(master, requests.GetSession()).reason, EndReason.TUNNEL_LOST)

    def test_no_namespace(self) -> None:
        """A session for which the machine has no room ends at once, and says so."""
        self.glue.refusal = NetworkError("there are 256 sessions already")
        onsite, _ = self.old_pair()
        self.assertIs(self.ask(onsite, requests.GetSession()).reason, EndReason.TUNNEL_FAILED)
        self.assert_nothing_held_but_waits(onsite)

    def assert_nothing_held_but_waits(self, *desks: Desk) -> None:
        """Nothing is held once these desks wait no more."""
        for desk in desks:
            desk.interrupt()
        self.assert_nothing_held()

    def test_glue_gone(self) -> None:
        """A server that can end tunnels no more says so, and relays on."""
        self.registry.ends.glue = None
        self.wait(self.arrive("on1", backends=()))
        self.refused(self.arrive("ma1", backends=("tls",)), requests.Connect("on1"), GlueNotAvailable)
        self.wait(self.arrive("on2"))
        self.ask(self.arrive("ma2"), requests.Connect("on2"))

    def test_relayed_has_no_vtun(self) -> None:
        """A device whose session is relayed cannot have a vtun tunnel beside it."""
        onsite, _ = self.pair()
        self.refused(onsite, requests.GetVtunParameters(), VtunNotChosen)

    def test_pool(self) -> None:
        """Without two blocks there is no session, and the one that was left stays free."""
        self.registry.leases = self.leases = LeasePool(next(POOL.subnets(new_prefix=30)))
        self.wait(self.arrive("on1", backends=()))
        self.refused(self.arrive("ma1", backends=()), requests.Connect("on1"), PoolExhausted)
        self.assertEqual(self.leases.held, 0)

    # Without a session

    def test_alone(self) -> None:
        """An old device may have a tunnel to the server before it has a session; it ends with the device."""
        onsite = self.arrive("on1", backends=())
        self.assertEqual(self.lines(onsite), LINES)
        self.assertEqual(self.lines(onsite), LINES)
        self.successResultOf(onsite.forward("127.0.0.1", 5000))
        (spec,) = self.glue.specs.values()
        self.assertEqual(str(spec.onsite.network) if spec.onsite else None, "192.168.128.0/30")
        onsite.leave("logout")
        self.assert_nothing_held()

    def test_alone_dropped(self) -> None:
        """It can be taken down; a second time it is not there any more."""
        master = self.arrive("ma1", backends=())
        self.lines(master)
        self.ask(master, requests.DropTunnel())
        self.assert_nothing_held()
        self.refused(master, requests.DropTunnel(), VtunNotStarted)
        self.assertRaises(RequestRefused, master.forward, "127.0.0.1", 5000)

    def test_alone_then_session(self) -> None:
        """A session takes the place of such a tunnel: there is another to be asked for."""
        onsite, master = self.arrive("on1", backends=()), self.arrive("ma1", backends=())
        self.wait(onsite)
        self.lines(onsite)
        self.ask(master, requests.Connect("on1"))
        self.assertEqual(list(self.glue.specs), [self.registry.views()[0].id])
        self.assertRaises(RequestRefused, onsite.forward, "127.0.0.1", 5000)
        self.let_in(onsite, master)
        self.assertIs(self.registry.views()[0].state, SessionState.UP)

    def test_ten_at_once(self) -> None:
        """Sessions have namespaces, blocks and ports of their own."""
        one, two = self.old_pair(), self.old_pair(onsite="on2", master="ma2")
        self.let_in(*one, *two)
        self.assertEqual(len(self.glue.specs), 2)
        self.assertEqual(len({self.port(desk) for desk in (*one, *two)}), 4)
        self.registry.close()
        self.assert_nothing_held()

    def test_two_hundred(self) -> None:
        """Two hundred sessions in a row leave nothing behind."""
        onsite, master = self.arrive("on1", backends=()), self.arrive("ma1", backends=())
        for _ in range(200):
            self.wait(onsite)
            self.ask(master, requests.Connect("on1"))
            self.let_in(onsite, master)
            self.ask(master, requests.EndSession(EndReason.OPERATOR))
        self.assert_nothing_held()

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=30))
    @settings(derandomize=True, max_examples=150, deadline=None)
    def test_whatever_devices_do(self, steps: list[tuple[int, int]]) -> None:
        """Whatever old and new devices do in whatever order, nothing is left at the end."""
        self.build()
        backends = {"on1": (), "on2": ("tls",), "ma1": (), "ma2": ("tls", "stunnel")}
        desks = {id: self.arrive(id, backends=names) for id, names in backends.items()}

        def perform(desk: Desk, request: requests.Request) -> None:
            desk.perform(request).addErrback(lambda failure: failure.trap(RDVError))

        for which, action in steps:
            id = list(backends)[which]
            desk = desks[id]
            if action == 0:
                desks[id] = self.arrive(id, backends=backends[id])
            elif action == 1:
                desk.leave("left")
            elif action == 2:
                self.clock.advance(25)
            elif action in (3, 4):
                for tunnel in [tunnel for tunnel in self.tunnels if tunnel.terms.device == id][-1:]:
                    tunnel.fail(ConnectionLost("gone")) if action == 4 or tunnel.opened.called else tunnel.let_in()
            else:
                perform(
                    desk,
                    (
                        requests.GetVtunParameters(),
                        requests.GetTunnelParameters(),
                        requests.Connect("on1"),
                        requests.Connect("on2"),
                        requests.DropTunnel(),
                    )[action - 5],
                )
        for desk in desks.values():
            desk.leave("the end")
        self.registry.close()
        self.assert_nothing_held()
        self.assertEqual({each.terms.role for each in self.tunnels} - set(Role), set())
