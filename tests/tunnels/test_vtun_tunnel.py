"""A device's vtun tunnel: its stages, and how each of them ends, over programs and a network in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.errors import InvalidValue, MissingPrivilege, MissingProgram, ProtocolError, RDVError, TunnelFailed
from rdvtwisted.interfaces import IDeviceTunnel, ITunnelBackend
from rdvtwisted.testing.programs import MemoryProgram, MemoryPrograms
from rdvtwisted.testing.tunnels import MemoryTunnelSite, identity, parameters
from rdvtwisted.values import Mode, Role, TunnelReport
from tunnels import vtun
from tunnels.vtun import VtunBackend
from tunnels.vtun_tunnel import BUILD_LIMIT, VtunTunnel, counters, last_words, own_version

SECRET = "s3cret"
COUNTERS = """\
Inter-|   Receive                                      |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:  100    1    0    0    0    0   0    0     100    1    0    0    0    0    0    0
  rdv0: 2000   20    0    0    0    0   0    0    1000   10    0    0    0    0    0    0
"""


class Pipe:
    """A pipe whose ends the test is."""

    def __init__(self, reactor: Any, server: Any, mode: Mode, broken: Any) -> None:
        self.facts = (server, mode)
        self.broken = broken
        self.flowing: Deferred[None] = Deferred()
        self.closing: Deferred[None] | None = None
        self.closings = 0
        self.listening = False

    def listen(self) -> int:
        """On some port."""
        self.listening = True
        return 40001

    def close(self) -> Deferred[None]:
        """At once, unless the test says otherwise."""
        self.closings += 1
        closed: Deferred[None] = self.closing or Deferred()
        if self.closing is None:
            closed.callback(None)
        return closed


class TunnelCase(SynchronousTestCase):
    """A tunnel, not started."""

    mode = Mode.L3

    def setUp(self) -> None:
        """A device with vtund."""
        self.clock = Clock()
        self.programs = MemoryPrograms("vtund")
        own = identity("rpi1100")
        self.site = MemoryTunnelSite(
            "rpi1100",
            Role.ONSITE,
            self.clock,
            own,
            None,  # type: ignore[arg-type]
            b"",
            programs=self.programs,
            forwards={443: "the server"},  # type: ignore[dict-item]
        )
        self.table = Path(self.mktemp())
        self.table.write_text(COUNTERS)
        self.asked: list[tuple[str, Deferred[float | None]]] = []
        self.pipes: list[Pipe] = []
        self.tunnel = self.make()

    def make(self, ticket: str = SECRET) -> VtunTunnel:
        """A tunnel."""
        wanted = evolve(
            parameters("vtun", self.mode, Role.ONSITE, "rpi1101", self.site.identity.public, ticket), join="glue"
        )
        return VtunTunnel("vtun", wanted, self.site, ask=self.ask, pipe=self.pipe, table=self.table)  # type: ignore[arg-type]

    def pipe(self, *facts: Any) -> Pipe:
        """The tunnel's pipe."""
        self.pipes.append(Pipe(*facts))
        return self.pipes[-1]

    def ask(self, reactor: Any, address: str, interface: str) -> Deferred[float | None]:
        """The test answers."""
        self.assertEqual(interface, "rdv0")
        self.asked.append((address, Deferred()))
        return self.asked[-1][1]

    @property
    def program(self) -> MemoryProgram:
        """What was started last."""
        return self.programs.started[-1]

    def carry(self) -> Deferred[TunnelReport]:
        """Attach, and start to carry."""
        self.assertEqual(self.successResultOf(self.tunnel.attach()), "rdv0")
        return self.tunnel.carry()

    def bring_up(self) -> TunnelReport:
        """Packets flow."""
        carried = self.carry()
        self.pipes[-1].flowing.callback(None)
        if self.mode is Mode.L3:
            self.asked[-1][1].callback(0.02)
        return self.successResultOf(carried)

    def assert_gone(self, text: str | None) -> None:
        """It is over, with this error, and nothing is left."""
        if text is None:
            self.assertIsNone(self.successResultOf(self.tunnel.closed))
        else:
            self.assertEqual(str(self.failureResultOf(self.tunnel.closed, RDVError).value), text)
        self.assertEqual(self.site.network.interfaces, {})
        self.assertFalse(any(program.running for program in self.programs.started))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual([pipe.closings for pipe in self.pipes], [1])
        self.assertIsNone(self.successResultOf(self.tunnel.close()))


class SessionTests(TunnelCase):
    """One that works."""

    def test_provides(self) -> None:
        """It is a tunnel."""
        verifyObject(IDeviceTunnel, self.tunnel)
        self.successResultOf(self.tunnel.close())

    def test_session(self) -> None:
        """An interface for vtund, vtund with its private file, packets, an answer of the server's end; then nothing."""
        carried = self.carry()
        self.assertEqual(self.site.network.interfaces, {"rdv0": Mode.L3})
        self.assertEqual(self.pipes[0].facts, ("the server", Mode.L3))
        words = ["/usr/sbin/vtund", "-n", "-f", "vtund.conf", "tundevrpi1100", "127.0.0.1"]
        self.assertEqual(self.program.arguments, words)
        text = self.program.files["vtund.conf"]
        for line in ("    port 40001;", "    passwd s3cret;", "    device rdv0;", "    persist no;"):
            self.assertIn(line, text.splitlines())
        self.assertNotIn(SECRET, "".join(self.program.arguments))
        self.assertNoResult(carried)
        self.pipes[0].flowing.callback(None)
        self.assertNoResult(carried)
        ((address, answer),) = self.asked
        self.assertEqual(address, "100.64.0.2")
        answer.callback(0.02)
        report = self.successResultOf(carried)
        self.assertEqual(report, TunnelReport("vtun", "", "", 1000, 2000, 10, 20, 0.02))
        self.assertNoResult(self.tunnel.closed)
        self.successResultOf(self.tunnel.close())
        self.assertTrue(self.program.asked)
        self.assert_gone(None)
        self.table.write_text("")
        self.assertEqual(self.tunnel.report(), report)

    def test_not_allowed_to_ask(self) -> None:
        """A device that may not ask the server's end has a tunnel all the same."""
        carried = self.carry()
        self.pipes[0].flowing.callback(None)
        self.asked[0][1].callback(None)
        self.assertIsNone(self.successResultOf(carried).round_trip)
        self.successResultOf(self.tunnel.close())


class BridgedTests(TunnelCase):
    """One in mode L2."""

    mode = Mode.L2

    def test_session(self) -> None:
        """Nobody is asked: an Ethernet has no address at its other end."""
        self.assertIsNone(self.bring_up().round_trip)
        self.assertEqual((self.site.network.interfaces, self.asked), ({"rdv0": Mode.L2}, []))
        self.successResultOf(self.tunnel.close())
        self.assert_gone(None)


class FailureTests(TunnelCase):
    """Those that fail."""

    def assert_failed(self, carried: Deferred[TunnelReport], text: str) -> None:
        """In one line, and wholly."""
        self.assertEqual(str(self.failureResultOf(carried, RDVError).value), text)
        self.assert_gone(text)

    def test_no_interface(self) -> None:
        """A machine that makes no interface says why."""
        self.site.network.refusal = MissingPrivilege("not here")
        self.failureResultOf(self.tunnel.attach(), MissingPrivilege)
        self.assert_gone("not here")

    def test_no_program(self) -> None:
        """Without vtund, its package is named."""
        self.programs.installed.clear()
        text = "vtund is not installed: install the package vtun"
        self.assert_failed(self.carry(), text)

    def test_unstartable(self) -> None:
        """A vtund that cannot be started says why."""

        def refuse(*_: object) -> None:
            raise MissingProgram("vtund cannot be started: No space left on device")

        self.patch(self.programs, "start", refuse)
        self.assert_failed(self.carry(), "vtund cannot be started: No space left on device")

    def test_bad_secret(self) -> None:
        """A secret that vtund would misread is refused without being told."""
        self.pipes.clear()
        self.tunnel = self.make(ticket="12 34")
        carried = self.carry()
        self.assertNotIn("12 34", str(self.failureResultOf(carried, InvalidValue).value))
        self.failureResultOf(self.tunnel.closed, InvalidValue)

    def test_refused(self) -> None:
        """What the server says of the client is what the operator reads, not what vtund makes of it."""
        carried = self.carry()
        self.program.say("vtund[c]: tundevrpi1100 connecting to 127.0.0.1[7]: Connection denied by 127.0.0.1")
        self.pipes[0].broken(ProtocolError("the server does not let the vtun client in"))
        self.assert_failed(carried, "the server does not let the vtun client in")

    def test_ended(self) -> None:
        """A vtund that ends by itself takes the tunnel with it; its last useful words are told."""
        self.bring_up()
        for line in (
            "vtund[9]: VTun client ver 3.X 05/14/2022 started",
            "vtund[c]: tundevrpi1100 tun rdv0[9]: Input/output error (5)",
            "vtund[c]: tundevrpi1100 closing[9]: Session tundevrpi1100[127.0.0.1] closed",
            "vtund[c]: tundevrpi1100 closing[9]: Exit",
        ):
            self.program.say(line)
        self.program.exit()
        self.assert_gone("vtund ended with status 0: Input/output error (5)")

    def test_version(self) -> None:
        """Its version is told, also if it has something else to say first."""
        lines = ["vtund[9]: Can't write PID file /run/x: Permission denied", "VTun client ver 3.X 05/14/2022 started"]
        self.assertEqual(own_version(lines), "VTun client ver 3.X 05/14/2022 started")
        self.assertEqual(own_version([]), "vtund")

    def test_silent_end(self) -> None:
        """One that ends without a word is told as such."""
        carried = self.carry()
        self.program.exit("was ended by SIGKILL")
        self.assert_failed(carried, "vtund was ended by SIGKILL")

    def test_silence(self) -> None:
        """A server that says nothing is not waited for for ever."""
        carried = self.carry()
        self.clock.advance(BUILD_LIMIT)
        self.assert_failed(carried, "the vtun tunnel was not open within 25 s")

    def test_no_answer(self) -> None:
        """A tunnel that carries nothing to the server's end is no tunnel."""
        carried = self.carry()
        self.pipes[0].flowing.callback(None)
        self.asked[0][1].errback(TunnelFailed("100.64.0.2 does not answer through the tunnel (10 s)"))
        self.assert_failed(carried, "100.64.0.2 does not answer through the tunnel (10 s)")

    def test_interface_stays(self) -> None:
        """An interface that cannot be removed is a line in the log, and keeps nobody."""
        self.bring_up()
        self.site.network.refusal = TunnelFailed("not now")
        self.successResultOf(self.tunnel.close())
        self.assertIsNone(self.successResultOf(self.tunnel.closed))
        self.assertEqual(self.site.network.interfaces, {"rdv0": Mode.L3})


class ClosingTests(TunnelCase):
    """Closing at every moment."""

    def test_before(self) -> None:
        """A tunnel that is closed before it has begun does not begin."""
        self.successResultOf(self.tunnel.close())
        for refused in (self.tunnel.attach(), self.tunnel.carry()):
            self.failureResultOf(refused, TunnelFailed)
        self.assert_gone(None)

    def test_unattached(self) -> None:
        """One without interface carries nothing."""
        self.failureResultOf(self.tunnel.carry(), TunnelFailed)
        self.assertEqual(self.programs.started, [])
        self.failureResultOf(self.tunnel.closed, TunnelFailed)

    def test_while_attaching(self) -> None:
        """An interface that comes after the end is removed."""
        made: Deferred[None] = Deferred()
        make = self.site.network.make_interface

        def slow(*facts: Any) -> Deferred[None]:
            return made.addCallback(lambda _: make(*facts))

        self.patch(self.site.network, "make_interface", slow)
        attached = self.tunnel.attach()
        attached.addErrback(lambda failure: None)
        attached.cancel()
        closing = self.tunnel.close()
        self.assertNoResult(closing)
        made.callback(None)
        self.successResultOf(closing)
        self.assert_gone(None)

    def test_while_building(self) -> None:
        """Who gives up waiting ends the whole, and waits until vtund and the connection have ended."""
        for stage in ("connecting", "asking"):
            self.setUp()
            carried = self.carry()
            if stage == "asking":
                self.pipes[0].flowing.callback(None)
                self.asked[0][1].addErrback(lambda failure: None)
            self.program.stubborn = True
            gone: Deferred[None] = Deferred()
            self.pipes[0].closing = gone
            carried.addErrback(lambda failure: None)
            carried.cancel()
            closing = self.tunnel.close()
            self.assertTrue(self.program.asked)
            self.assertEqual(self.pipes[0].closings, 0)
            self.program.exit("was ended by SIGKILL")
            self.assertNoResult(closing)
            gone.callback(None)
            self.successResultOf(closing)
            self.assert_gone(None)


class WordsTests(SynchronousTestCase):
    """What is read of others."""

    def test_last_words(self) -> None:
        """What says nothing is passed over."""
        self.assertEqual(last_words([]), "")
        self.assertEqual(last_words(["vtund[9]: VTun client ver 3.X 05/14/2022 started", "."]), "")
        self.assertEqual(last_words(["vtund[9]: No hosts defined"]), "No hosts defined")
        line = "vtund[c]: tundevx connecting to 127.0.0.1[9]: Connect to 127.0.0.1 failed. Connection refused(111)"
        self.assertEqual(last_words([line, "."]), "Connect to 127.0.0.1 failed. Connection refused(111)")

    def test_counters(self) -> None:
        """The kernel's table, in the eyes of the machine."""
        table = Path(self.mktemp())
        table.write_text(COUNTERS)
        self.assertEqual(counters("rdv0", table), (1000, 10, 2000, 20))
        self.assertIsNone(counters("rdv", table))


class BackendTests(SynchronousTestCase):
    """The table's entry."""

    def vtund(self, script: str) -> VtunBackend:
        """A backend on a machine with such a vtund."""
        folder = Path(self.mktemp())
        folder.mkdir()
        program = folder / "vtund"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return VtunBackend(places=str(folder.absolute()))

    def test_provides(self) -> None:
        """It is a backend, which the server ends."""
        backend = VtunBackend()
        verifyObject(ITunnelBackend, backend)
        self.assertEqual((backend.name, backend.relay, backend.glue, backend.mtu), ("vtun", False, True, 1450))
        self.assertEqual(backend.modes, set(Mode))

    def test_missing(self) -> None:
        """Without vtund, the package is named; the summary does without a version."""
        self.patch(vtun, "missing_for_packets", list)
        backend = VtunBackend(places=str(Path(self.mktemp()).absolute()))
        (missing,) = backend.missing()
        self.assertEqual((missing.what, missing.cure), ("the program vtund", "apt-get install vtun"))
        self.assertIn("by the stock program vtund;", backend.summary)
        self.assertEqual(self.vtund("exit 0").missing(), [])

    def test_version(self) -> None:
        """The version that is found is told; one that cannot be found out is not."""
        said = "printf 'vtund: invalid option\\nVTun ver 3.X 05/14/2022\\nUsage:\\n' >&2"
        self.assertIn("vtund (version 3.X 05/14/2022); ", self.vtund(said).summary)
        for script in ("exit 1", "printf 'VTun ver \\033[1m\\n' >&2"):
            self.assertIn("vtund;", self.vtund(script).summary)

    def test_ends(self) -> None:
        """It makes both ends."""
        site = MemoryTunnelSite(
            "rpi1100",
            Role.MASTER,
            Clock(),
            identity("rpi1100"),
            None,  # type: ignore[arg-type]
            b"",
            forwards={443: "the server"},  # type: ignore[dict-item]
        )
        wanted = parameters("vtun", Mode.L2, Role.MASTER, "rpi1101", site.identity.public, SECRET)
        verifyObject(IDeviceTunnel, VtunBackend().device_end(wanted, site))
