"""Stock TLS programs at the TLS door."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.trial.unittest import TestCase

from rdvtwisted.adapters.front.authority import Authority
from rdvtwisted.adapters.front.door import Door
from tests.adapters.front.clients import Office

BANNER = b"SSH-2.0-RDV_test\r\n"


class Banner(Protocol):
    """What an SSH server says first."""

    def connectionMade(self) -> None:
        self.transport.write(BANNER)


class Reader(Protocol):
    """Reads until the banner is there."""

    def __init__(self) -> None:
        self.text = b""
        self.banner: Deferred[bytes] = Deferred()
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.text += data
        if b"\n" in self.text and not self.banner.called:
            self.banner.callback(self.text)

    def connectionLost(self, reason: object = None) -> None:
        self.closed.callback(None)


class Program(ProcessProtocol):
    """A program, what it wrote, and its end."""

    transport: IProcessTransport

    def __init__(self) -> None:
        self.text = ""
        self.ended: Deferred[None] = Deferred()
        self._awaited: tuple[re.Pattern[str], Deferred[re.Match[str]]] | None = None

    def until(self, pattern: str) -> Deferred[re.Match[str]]:
        """Fires with a match once the program has written it; fails if it ends before."""
        found: Deferred[re.Match[str]] = Deferred()
        self._awaited = (re.compile(pattern), found)
        self._look()
        return found

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.text += data.decode("ascii", "replace")
        self._look()

    def processEnded(self, reason: object) -> None:
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited[1].errback(AssertionError(f"ended without {awaited[0].pattern!r}: {self.text}"))
        self.ended.callback(None)

    def _look(self) -> None:
        if self._awaited is not None and (match := self._awaited[0].search(self.text)):
            (_, found), self._awaited = self._awaited, None
            found.callback(match)


class TLSDoorTests(TestCase):
    """The door on a free port, an SSH banner behind it, and stock programs in front of it."""

    timeout = 60

    def setUp(self) -> None:
        """Open the door, for TLS 1.2 too."""
        for program in ("openssl", "stunnel4"):
            if shutil.which(program) is None:
                self.skipTest(f"{program} is not installed")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.authority = Authority.open(self.folder / "tls", ["localhost", "127.0.0.1"], reactor)
        self.ca = self.folder / "ca.pem"
        self.ca.write_text(self.authority.pem)
        self.refusals: list[tuple[str, str, str, str]] = []
        ssh = Factory.forProtocol(Banner)
        ssh.noisy = False
        door = Door(
            reactor,
            self.authority.credentials(),
            Office(),
            ssh,
            lambda *what: self.refusals.append(what),
            tls12=True,
        )
        listening = reactor.listenTCP(0, door, interface="127.0.0.1")
        self.addCleanup(lambda: maybeDeferred(listening.stopListening))
        self.port = listening.getHost().port

    def run_program(self, *arguments: str) -> Program:
        """Start a program, which the test's end ends."""
        program = Program()
        reactor.spawnProcess(program, arguments[0], arguments, env=None)

        def end() -> Deferred[None]:
            if program.transport.pid:
                program.transport.signalProcess("KILL")
            return program.ended

        self.addCleanup(end)
        return program

    def s_client(self, *options: str) -> Program:
        """C{openssl s_client} at the door."""
        return self.run_program(
            "openssl",
            "s_client",
            "-connect",
            f"127.0.0.1:{self.port}",
            "-verify_return_error",
            "-CAfile",
            str(self.ca),
            *options,
        )

    async def test_s_client(self) -> None:
        """C{openssl s_client -alpn ssh} reaches the SSH banner over TLS 1.3, and finds the certificate good."""
        program = self.s_client("-alpn", "ssh", "-verify_hostname", "localhost")
        await program.until(r"SSH-2\.0-RDV_test")
        self.assertIn("Verify return code: 0 (ok)", program.text)
        self.assertIn("ALPN protocol: ssh", program.text)
        self.assertIn("TLSv1.3", program.text)
        self.assertIn("Compression: NONE", program.text)

    async def test_s_client_tls12(self) -> None:
        """Without ALPN and with TLS 1.2 it does too."""
        program = self.s_client("-tls1_2")
        await program.until(r"SSH-2\.0-RDV_test")
        self.assertIn("ECDHE-ECDSA-AES256-GCM-SHA384", program.text)
        self.assertIn("Verify return code: 0 (ok)", program.text)

    async def test_s_client_web(self) -> None:
        """Without a web server behind the door it is told that nobody speaks HTTP here."""
        program = self.s_client("-alpn", "h2,http/1.1")
        await program.until("no application protocol")
        await program.ended
        self.assertEqual(len(self.refusals), 1)

    async def test_verify(self) -> None:
        """C{openssl verify} finds the server's certificate good for a server, under both kinds of names."""
        program = self.s_client("-alpn", "ssh", "-showcerts")
        await program.until(r"SSH-2\.0-RDV_test")
        shown = re.findall(r"-----BEGIN CERT.*?-----END CERTIFICATE-----\n", program.text, re.DOTALL)
        self.assertEqual(shown[1], self.authority.pem)
        leaf = self.folder / "leaf.pem"
        leaf.write_text(shown[0])
        for name in (("-verify_hostname", "localhost"), ("-verify_ip", "127.0.0.1")):
            verify = self.run_program(
                "openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(self.ca), *name, str(leaf)
            )
            await verify.until(r"leaf\.pem: OK")
        verify = self.run_program("openssl", "verify", "-CAfile", str(self.ca), "-verify_hostname", "other", str(leaf))
        await verify.until("(?i)hostname mismatch")

    async def test_stunnel(self) -> None:
        """A stock stunnel client that checks the certificate brings SSH through."""
        for name, options in (("new", ""), ("old", "sslVersionMax = TLSv1.2")):
            config = self.folder / f"{name}.conf"
            config.write_text(
                f"foreground = yes\ndebug = info\npid =\n{options}\n"
                f"[rdv_remote]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{self.port}\n"
                f"verifyChain = yes\ncheckHost = localhost\nCAfile = {self.ca}\n"
            )
            program = self.run_program("stunnel4", str(config))
            bound = await program.until(r"bound to 127\.0\.0\.1:(\d+)")
            reader = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", int(bound[1])), Reader())
            self.assertEqual(await reader.banner, BANNER, program.text)
            reader.transport.loseConnection()
            await reader.closed
        self.assertEqual(self.refusals, [])
