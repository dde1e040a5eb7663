"""The C{stunnel} backend, with a stunnel in memory; C{tests/interop/test_stunnel.py} has a real one."""

from __future__ import annotations

import re
import stat
import tempfile
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rdvtwisted.errors import InvalidValue, MissingProgram, ProtocolError, RDVError, TicketRefused, TunnelFailed
from rdvtwisted.interfaces import ITunnelBackend
from rdvtwisted.testing.packets import MemoryPacketDevice
from rdvtwisted.testing.programs import MemoryPrograms
from rdvtwisted.testing.server_tunnels import (
    MemoryServerSite,
    ServerEnd,
    ServerTunnelContract,
    WatchedReactor,
    terms,
)
from rdvtwisted.testing.standins import Stand
from rdvtwisted.testing.streams import MemoryStream
from rdvtwisted.testing.tunnels import TunnelBackendContract, TunnelEnds, identity
from rdvtwisted.values import Missing, Mode
from tests.source import CHECKOUT
from tests.tunnels.session import ClockedReactor, descriptors
from tests.tunnels.stunnel import DEVICE, ClearDoor, StunnelDevice, clear_site, device_end, reactor
from tunnels.door import TICKET_LIMIT
from tunnels.passage import HELLO_LIMIT
from tunnels.stunnel import StunnelBackend
from tunnels.stunnel_client import CONFIGURATION_FILE, files


class ContractTests(TunnelBackendContract, TestCase):
    """The C{stunnel} backend keeps the contract of tunnel backends."""

    def build_backend(self) -> ITunnelBackend:
        return cast(ITunnelBackend, StunnelBackend())

    def build_ends(self, mode: Mode) -> TunnelEnds:
        door = ClearDoor()
        tunnel = self.build_backend().server_end(terms(mode, DEVICE), MemoryServerSite(reactor))
        door.sitters["t1"] = tunnel.occupy
        near, far = clear_site(door), clear_site(door)
        return TunnelEnds(device_end(near, mode, "t1"), Stand(tunnel, far, mode, "stunnel"), near, far, door.cut)


class ServerContractTests(ServerTunnelContract, TestCase):
    """The server's end of a C{stunnel} tunnel keeps the contract of such ends."""

    def build_end(self, mode: Mode) -> ServerEnd:
        door, watched = ClearDoor(), WatchedReactor(reactor)
        tunnel = cast(ITunnelBackend, StunnelBackend()).server_end(terms(mode, DEVICE), MemoryServerSite(watched))
        end = ServerEnd(
            tunnel,
            watched,
            device=lambda: StunnelDevice(clear_site(door), mode, "t1", door.cut),
            stranger=lambda: StunnelDevice(clear_site(door), mode, "t2", door.cut),
        )
        door.sitters["t1"] = end.occupy
        return end

    async def test_bare_stream(self) -> None:
        """A stream that has left the door's TLS is closed; the next one may come."""
        end = self.end()
        end.start()
        socket = MemoryPacketDevice()
        self.addCleanup(socket.close)
        bare = MemoryStream(socket=socket._kernel)
        end.tunnel.occupy(bare)
        self.assertTrue(bare.aborted)
        device = end.device()
        await device.connect()
        await self.assert_carries(end, device)

    async def test_silent(self) -> None:
        """A device that says nothing is given up."""
        clocked = ClockedReactor()
        tunnel = cast(ITunnelBackend, StunnelBackend(1000, 3000)).server_end(
            terms(Mode.L3, DEVICE), MemoryServerSite(clocked)
        )
        packets, stream = MemoryPacketDevice(), MemoryStream()
        tunnel.start(packets)
        tunnel.occupy(stream)
        clocked.clock.advance(HELLO_LIMIT)
        error = await self.assertFailure(tunnel.closed, TunnelFailed)
        self.assertEqual(str(error), f"{DEVICE} did not say hello within 15 s")
        self.assertTrue(packets.closed)
        self.assertEqual(clocked.getDelayedCalls(), [])


class WayInTests(TestCase):
    """A device on its way through stunnel."""

    async def refused(self, device: StunnelDevice, kind: type[RDVError], words: str) -> None:
        """It ends with one clear line, and holds nothing."""
        error = await self.assertFailure(cast("Deferred[RDVError]", device.connect()), kind)
        self.assertIn(words, str(error))
        self.assertNotIn("\n", str(error))
        await device.gone()
        self.assertTrue(device.site.packets.closed)
        self.assertFalse(any(program.running for program in cast(MemoryPrograms, device.site.programs).started))

    async def test_ticket_refused(self) -> None:
        """A refused ticket is told as such."""
        door = ClearDoor()
        await self.refused(StunnelDevice(clear_site(door), Mode.L3, "bad", door.cut), TicketRefused, "is unknown")
        self.assertEqual(door.connections[0].line, b"RDV-TUNNEL/1 bad\n")

    async def test_strange_answers(self) -> None:
        """What answers in any other way is not the server."""
        for answer in (b"SSH-2.0-OpenSSH_9.2p1\r\n", b"OK" * 200 + b"\n", b"\n", b"x" * 300):
            door = ClearDoor(answer=answer)
            await self.refused(StunnelDevice(clear_site(door), Mode.L3, "t1", door.cut), ProtocolError, "the server")

    async def test_silent(self) -> None:
        """A server that does not answer is given up."""
        clocked = ClockedReactor()
        door = ClearDoor(answer=b"")
        device = StunnelDevice(clear_site(door, clock=clocked), Mode.L3, "t1", door.cut)
        connected = cast("Deferred[RDVError]", device.connect())
        clocked.clock.advance(TICKET_LIMIT)
        error = await self.assertFailure(connected, TunnelFailed)
        self.assertIn("did not answer the ticket within 10 s", str(error))
        await device.gone()

    async def test_last_words(self) -> None:
        """When stunnel breaks off, its own words tell why; if it has none, how it ended does."""
        said = "2026.11.21 07:06:28 LOG3[0]: s_connect: connect 192.0.2.1:443: Connection refused (111)"
        for line, manner, told in (
            (said, "ended with status 1", "as stunnel4 says: s_connect: connect 192.0.2.1:443: Connection refused"),
            ("", "was ended by SIGSEGV", "stunnel4 was ended by SIGSEGV"),
            ("", "ended with status 0", "stunnel4 broke off"),
        ):
            door = ClearDoor(answer=b"")
            device = StunnelDevice(clear_site(door), Mode.L3, "t1", door.cut)
            connected = cast("Deferred[RDVError]", device.connect())
            (program,) = door.programs.started
            if line:
                program.say(line)
            program.exit(manner)
            error = await self.assertFailure(connected, TunnelFailed)
            self.assertIn(told, str(error))
            await device.gone()

    async def test_nothing_left(self) -> None:
        """A tunnel that could not be built leaves no descriptor."""
        await deferLater(reactor, 0)
        before = descriptors()
        for door in (ClearDoor(), ClearDoor(answer=b"no\n"), ClearDoor(programs=MemoryPrograms())):
            device = StunnelDevice(clear_site(door), Mode.L3, "bad", door.cut)
            await self.assertFailure(device.connect(), RDVError)
            await device.gone()
        for _ in range(100):
            if descriptors() == before:
                break
            await deferLater(reactor, 0)
        self.assertEqual(descriptors(), before)

    async def test_not_installed(self) -> None:
        """Without stunnel the user is told what to install."""
        door = ClearDoor(programs=MemoryPrograms("sh"))
        device = StunnelDevice(clear_site(door), Mode.L3, "t1", door.cut)
        error = await self.assertFailure(cast("Deferred[RDVError]", device.connect()), MissingProgram)
        self.assertEqual(str(error), "stunnel4 is not installed: apt-get install stunnel4")

    async def test_other_name(self) -> None:
        """Where the program is called stunnel, that is used."""
        door = ClearDoor(programs=MemoryPrograms("sh", "stunnel"))
        device = StunnelDevice(clear_site(door), Mode.L3, "bad", door.cut)
        await self.assertFailure(device.connect(), TicketRefused)
        self.assertEqual(door.programs.started[0].arguments[-2:], ["/usr/sbin/stunnel", CONFIGURATION_FILE])


class ConfigurationTests(SynchronousTestCase):
    """What stunnel is given to read."""

    def settings(self, host: str = "rdv.example.com", port: int = 443) -> dict[str, str]:
        """The settings for a server with this address."""
        site = clear_site(ClearDoor())
        site.door_address = (host, port)
        lines = files(site)[CONFIGURATION_FILE].splitlines()
        return dict(line.split(" = ", 1) for line in lines)  # type: ignore[misc]

    def test_settings(self) -> None:
        """It checks the server's certificate, speaks TLS 1.3 only, and asks for a tunnel."""
        settings = self.settings()
        self.assertEqual(settings["connect"], "rdv.example.com:443")
        self.assertEqual(settings["sni"], "rdv-tunnel")
        self.assertEqual(settings["verifyChain"], "yes")
        self.assertEqual(settings["sslVersionMin"], "TLSv1.3")
        self.assertEqual(settings["client"], "yes")

    def test_documented(self) -> None:
        """C{docs/stunnel.md} shows what matters of it."""
        page = (CHECKOUT / "docs" / "stunnel.md").read_text()
        shown = re.findall(r"```ini\n(.*?)```", page, re.DOTALL)[3].splitlines()
        said = self.settings()
        self.assertEqual(
            {line: said.get(line.split(" = ")[0]) for line in shown}, {line: line.split(" = ")[1] for line in shown}
        )

    def test_addresses(self) -> None:
        """Addresses of both kinds are written as stunnel reads them."""
        self.assertEqual(self.settings("2001:db8::1", 8443)["connect"], "2001:db8::1:8443")
        self.assertEqual(self.settings("192.0.2.1")["connect"], "192.0.2.1:443")

    def test_bad_addresses(self) -> None:
        """A name with a line end, a space or a control character gets into no configuration."""
        for host in ("a\nexec = /bin/sh", "a b", "a\rb", "a\x1bb", "a\u2028b", ""):
            self.assertRaises(InvalidValue, self.settings, host)

    def test_keys(self) -> None:
        """The device's key and certificate are there, and the authority's certificate."""
        own = identity(DEVICE, ec.generate_private_key(ec.SECP256R1()))
        site = clear_site(ClearDoor(), own)
        read = files(site)
        key = load_pem_private_key(read["identity.pem"].encode(), None)
        self.assertEqual(key.public_key(), own.key.public_key())
        self.assertEqual(x509.load_pem_x509_certificate(read["identity.pem"].encode()), own.certificate)
        self.assertIn("BEGIN CERTIFICATE", read["authority.pem"])
        self.assertNotIn("PRIVATE", read["authority.pem"] + read[CONFIGURATION_FILE])

    def test_no_authority(self) -> None:
        """An authority that is no certificate is refused."""
        site = clear_site(ClearDoor())
        site.authority = b"not DER"
        self.assertRaises(InvalidValue, files, site)


class MissingTests(SynchronousTestCase):
    """What a machine lacks."""

    def lacks(self, *installed: str) -> list[Missing]:
        """What is missing on a machine with these programs only, of programs."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        for name in installed:
            path = Path(folder.name, name)
            path.touch()
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return [lack for lack in StunnelBackend(places=folder.name).missing() if lack.what == "stunnel4"]

    def test_missing(self) -> None:
        """Without stunnel it says what to install; by whichever name it goes, it is found."""
        self.assertEqual(self.lacks(), [Missing("stunnel4", "install it: apt-get install stunnel4")])
        for name in ("stunnel4", "stunnel"):
            self.assertEqual(self.lacks(name), [])
