"""SSH through stock stunnel programs: a client in front of devices at our door, a server in front of SSH servers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint

from rdvtwisted.adapters.ssh.client import Target, connect
from rdvtwisted.adapters.ssh.knownhosts import KnownHosts
from rdvtwisted.adapters.ssh.link import SSHLink
from rdvtwisted.adapters.uplink import Authority, tls_endpoint
from rdvtwisted.errors import RDVError, ServerKeyChanged
from tests.adapters.ssh.world import ED25519
from tests.interop.commands import CommandCase, Server, reactor
from tests.interop.openssh import Child, Options
from tests.interop.test_openssh import ServerCase, WaitingListener
from tests.source import CHECKOUT
from tunnels.stunnel import PROGRAMS

STUNNEL = next((path for path in map(shutil.which, PROGRAMS) if path), None)

_ADDRESS = re.compile(rb"bound to 127\.0\.0\.1:(\d+)")
_COMMON = "foreground = yes\npid =\nsyslog = no\ndebug = info\n"


def configuration(folder: Path, name: str, service: str) -> str:
    """A file by which stunnel runs this one service; its path."""
    path = folder / f"{name}.conf"
    path.write_text(f"{_COMMON}[{name}]\naccept = 127.0.0.1:0\n{service}\n")
    return str(path)


def samples() -> list[str]:
    """The configurations that the documentation shows."""
    return re.findall(r"```ini\n(.*?)```", (CHECKOUT / "docs" / "stunnel.md").read_text(), re.DOTALL)


def bound(child: Child) -> int | None:
    """The port at which a stunnel listens, once it does."""
    match = _ADDRESS.search(child.err)
    return None if match is None else int(match[1])


class DeviceTests(CommandCase):
    """A stock stunnel client beside a device, as old ones have it, in front of our server's TLS door."""

    skip = None if STUNNEL and shutil.which("ssh") else "needs stunnel4 and the OpenSSH client"

    async def stunnel(self, name: str, service: str) -> int:
        """The port of a stunnel that runs."""
        return await self.run_stunnel(Path(configuration(self.folder, name, service)))

    async def run_stunnel(self, path: Path) -> int:
        """The port of a stunnel that runs with this configuration."""
        assert STUNNEL is not None
        child = self.start([STUNNEL, str(path)])
        while (port := bound(child)) is None:
            if child.transport.pid is None:
                self.fail(f"stunnel ended: {child.err!r}")
            await self.pause()
        return port

    async def client(self, server: Server, name: str, *more: str) -> int:
        """A client of the server, with the lines that old devices have, and more."""
        lines = ["client = yes", f"connect = 127.0.0.1:{server.tls_port}", *more]
        return await self.stunnel(name, "\n".join(lines))

    async def serve(self, *options: str) -> Server:
        """A server that knows a device."""
        server = await self.server(*options)
        await self.register(server, "rpi1100", "onsite")
        shown = await self.command("rdvctl", "--state-dir", str(server.state), "certificate", "authority")
        (self.folder / "ca.pem").write_bytes(shown.out)
        return server

    async def talk(self, port: int, *said: str) -> tuple[int, str]:
        """What OpenSSH's client, that says these lines, gets to hear; with its exit status."""
        key, known = self.folder / "rpi1100" / "identity", self.folder / f"known{port}"
        child = Child("".join(f"{line}\n" for line in said).encode())
        command = Options(port, key, known).command("-T", "rpi1100@127.0.0.1")
        reactor.spawnProcess(child, shutil.which("ssh"), command, env=self.environment, path=str(self.folder))
        self.addCleanup(self._end, child)
        result = await child.done
        return result.status, (result.out + result.err).decode()

    async def assert_session(self, port: int) -> None:
        """A whole session with commands, to its orderly end."""
        status, heard = await self.talk(port, "get_role", "set_tunnelling_dev_dns 192.0.2.53", "help", "exit")
        self.assertEqual(status, 0, heard)
        self.assertIn("onsite", heard)
        self.assertIn("get_role", heard.split("onsite", 1)[1], "the help names the commands")

    async def test_old_configuration(self) -> None:
        """The configuration of old devices, which verifies nothing, lets them work as ever."""
        server = await self.serve()
        await self.assert_session(await self.client(server, "rdv_remote"))
        self.assertNotIn(b"efused", server.child.out)

    async def test_verified(self) -> None:
        """One that verifies the certificate, by the authority and the name, works; by another authority it does not."""
        server = await self.serve("--set", "tls.names=rdv.example.com")
        verify = ("verifyChain = yes", f"CAfile = {self.folder}/ca.pem")
        await self.assert_session(await self.client(server, "chain", *verify))
        await self.assert_session(await self.client(server, "named", *verify, "checkHost = rdv.example.com"))
        status, heard = await self.talk(await self.client(server, "other", *verify, "checkHost = other.example.com"))
        self.assertEqual(status, 255, heard)

    async def test_documented(self) -> None:
        """What C{docs/stunnel.md} says is to be copied works, but for its addresses and places."""
        server = await self.serve()
        for sample in samples()[:2]:
            self.assertIn("client = yes", sample)
            port = await self.documented(
                sample,
                ("rdv.example.com:443", f"127.0.0.1:{server.tls_port}"),
                ("/etc/stunnel/rdv-authority.pem", f"{self.folder}/ca.pem"),
            )
            await self.assert_session(port)
        await certify(self, self.folder, "front")
        pem = (self.folder / "front.key").read_text() + (self.folder / "front.crt").read_text()
        (self.folder / "stunnel.pem").write_text(pem)
        port = await self.documented(
            samples()[2],
            ("0.0.0.0:443", "127.0.0.1:0"),
            ("127.0.0.1:22", f"127.0.0.1:{server.ssh_port}"),
            ("/etc/stunnel/stunnel.pem", f"{self.folder}/stunnel.pem"),
        )
        words = ["-u", "rpi1100", "-R", f"127.0.0.1:{port}", "-s", str(self.folder / "rpi1100"), "-T", "-l"]
        result = await self.command("rdv-master", *words)
        # It has come in: the server says that it is an onsite.
        self.assertIn(b"role that does not match", result.err)

    async def documented(self, sample: str, *places: tuple[str, str]) -> int:
        """The port of a stunnel with a sample, whose addresses and places are others."""
        for written, here in (("127.0.0.1:222", "127.0.0.1:0"), *places):
            sample = sample.replace(written, here)
        self.assertNotIn("/etc", sample.split("\n", 1)[1])
        path = self.folder / "sample.conf"
        path.write_text(_COMMON + sample)
        return await self.run_stunnel(path)

    async def test_tls12(self) -> None:
        """One that knows no newer TLS than 1.2 works where that is allowed."""
        server = await self.serve("--set", "tls.minimum_version=1.2")
        await self.assert_session(await self.client(server, "old", "sslVersionMax = TLSv1.2"))

    async def test_tls12_refused(self) -> None:
        """Elsewhere it is refused, and the server's log says what would allow it."""
        server = await self.serve()
        status, heard = await self.talk(await self.client(server, "old", "sslVersionMax = TLSv1.2"))
        self.assertEqual(status, 255, heard)
        await self.until_said(server.child, b"older than what tls.minimum_version allows")
        lines = [line for line in server.child.out.decode().splitlines() if "efused" in line]
        self.assertEqual(len(lines), 1, lines)
        await self.assert_session(await self.client(server, "new"))

    async def test_large(self) -> None:
        """A long conversation loses nothing on its way."""
        server = await self.serve()
        port = await self.client(server, "rdv_remote")
        status, heard = await self.talk(port, *["get_role"] * 2000, "exit")
        self.assertEqual((status, heard.count("onsite\n")), (0, 2000))

    async def test_in_front_of_our_ssh(self) -> None:
        """By a stock stunnel server in front of our SSH door our own device comes in with C{-T}, and pins it."""
        server = await self.serve()
        await self.register(server, "rpi66", "master")
        stunnel = await self.front(server, "front")
        words = ["-u", "rpi66", "-R", f"127.0.0.1:{stunnel}", "-s", str(self.folder / "rpi66"), "-T", "-l"]
        for _ in range(2):
            result = await self.command("rdv-master", *words)
            self.assertEqual((result.status, result.err), (0, b""))
            self.assertIn(b"No onsite device currently available", result.out)
        pinned = (self.folder / "rpi66" / "server-ca.pem").read_text()
        self.assertEqual(pinned, (self.folder / "front.crt").read_text())
        again = await self.front(server, "again")
        words[3] = f"127.0.0.1:{again}"
        result = await self.command("rdv-master", *words)
        self.assertEqual(result.status, 3)
        changed = b"the server's certificate authority has changed: pinned SHA256:"
        self.assertIn(changed, result.err)
        self.assertEqual(result.err.count(b"SHA256:"), 2)
        self.assertEqual((self.folder / "rpi66" / "server-ca.pem").read_text(), pinned)

    async def front(self, server: Server, name: str) -> int:
        """A stunnel server with a new self-signed certificate, in front of the SSH door; its port."""
        lines = [*await certify(self, self.folder, name), f"connect = 127.0.0.1:{server.ssh_port}"]
        return await self.stunnel(name, "\n".join(lines))


async def certify(case: Any, folder: Path, name: str, *more: str) -> Sequence[str]:
    """A self-signed certificate as stunnel's manual has it made; the lines of a configuration that show it."""
    key, certificate = str(folder / f"{name}.key"), str(folder / f"{name}.crt")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", *more]
    start = case.start if isinstance(case, CommandCase) else case.spawn
    result = await start([*command, "-keyout", key, "-out", certificate]).done
    case.assertEqual(result.status, 0, result.err)
    return [f"cert = {certificate}", f"key = {key}"]


class ServerTests(ServerCase):
    """A stock stunnel server in front of OpenSSH's server, as old servers have it, and the device's own TLS."""

    skip = ServerCase.skip or (None if STUNNEL else "needs stunnel4")

    async def front(self, name: str, *lines: str) -> int:
        """A stunnel in front of the sshd that runs; its port."""
        assert STUNNEL is not None
        service = "\n".join([f"connect = 127.0.0.1:{self.port}", *lines])
        child = self.spawn([STUNNEL, configuration(self.folder, name, service)], None)
        await child.saying(b"bound to 127.0.0.1")
        port = bound(child)
        assert port is not None
        return port

    async def come(self, authority: Authority, port: int) -> SSHLink:
        """A device's connection by its own TLS, which ends with the test."""
        way = tls_endpoint(authority, TCP4ClientEndpoint(reactor, "127.0.0.1", port))
        target = Target("127.0.0.1", self.port, "root", ED25519, KnownHosts(self.known_hosts))
        link: SSHLink = await connect(way, target, reactor)
        authority.proved()
        link.closed.addErrback(lambda failure: None)
        self.addCleanup(link.disconnect)
        return link

    async def assert_shell(self, link: SSHLink) -> None:
        """Commands work, and their output is whole."""
        listener = WaitingListener()
        shell = await link.open_shell(listener)
        shell.write(b"echo out; head -c 300000 /dev/zero | tr '\\0' x; exit 3\n")
        await listener.done
        self.assertEqual((listener.out, listener.end), (b"out\n" + b"x" * 300_000, (3, "")))

    async def assert_refused(self, authority: Authority, port: int) -> RDVError:
        """Nothing is said to that server."""
        waiting = cast("Deferred[RDVError]", Deferred.fromCoroutine(self.come(authority, port)))
        await self.assertFailure(waiting, RDVError)
        assert authority.refusal is not None
        return authority.refusal

    async def test_self_signed(self) -> None:
        """Its self-signed certificate is pinned at first use, and known again; another one is refused by name."""
        await self.serve(ED25519)
        authority = Authority(self.folder / "server-ca.pem")
        first = await self.front("first", *await certify(self, self.folder, "first"))
        for _ in range(2):
            authority.read()
            await self.assert_shell(await self.come(authority, first))
        self.assertEqual((self.folder / "server-ca.pem").read_text(), (self.folder / "first.crt").read_text())
        other = await self.front("other", *await certify(self, self.folder, "other"))
        error = await self.assert_refused(authority, other)
        assert isinstance(error, ServerKeyChanged)
        self.assertNotEqual(error.pinned, error.shown)
        self.assertIn(f"pinned {error.pinned}, shown {error.shown}", str(error))
        await self.assert_shell(await self.come(authority, first))

    async def test_given(self) -> None:
        """Given beforehand, it is checked at the first connection already."""
        await self.serve(ED25519)
        port = await self.front("first", *await certify(self, self.folder, "first"))
        authority = Authority(self.folder / "first.crt")
        authority.read()
        await self.assert_shell(await self.come(authority, port))
        await certify(self, self.folder, "other")
        authority = Authority(self.folder / "other.crt")
        authority.read()
        self.assertIsInstance(await self.assert_refused(authority, port), ServerKeyChanged)

    async def test_over(self) -> None:
        """A pinned certificate that is long over is good: what counts is that it is the same one."""
        await self.serve(ED25519)
        lines = await certify(self, self.folder, "old")
        key = load_pem_private_key((self.folder / "old.key").read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
        then = datetime(2015, 1, 1, tzinfo=timezone.utc)
        over = x509.CertificateBuilder(name, name, key.public_key(), 1, then, then + timedelta(days=365))
        (self.folder / "old.crt").write_bytes(over.sign(key, SHA256()).public_bytes(Encoding.PEM))
        port = await self.front("old", *lines)
        authority = Authority(self.folder / "server-ca.pem")
        for _ in range(2):
            authority.read()
            await self.assert_shell(await self.come(authority, port))

    async def test_own_authority(self) -> None:
        """Of a server certificate that an own authority has signed, the authority is pinned if stunnel shows it."""
        await self.serve(ED25519)
        await certify(self, self.folder, "ca")
        signed = ("-CA", f"{self.folder}/ca.crt", "-CAkey", f"{self.folder}/ca.key")
        lines = await certify(self, self.folder, "leaf", *signed, "-addext", "basicConstraints=critical,CA:FALSE")
        alone = await self.front("alone", *lines)
        authority = Authority(self.folder / "server-ca.pem")
        authority.read()
        self.assertIn("give that with --ca", str(await self.assert_refused(authority, alone)))
        chain = (self.folder / "leaf.crt").read_text() + (self.folder / "ca.crt").read_text()
        (self.folder / "leaf.crt").write_text(chain)
        shown = await self.front("shown", *lines)
        await self.assert_shell(await self.come(authority, shown))
        self.assertEqual((self.folder / "server-ca.pem").read_text(), (self.folder / "ca.crt").read_text())
        authority.read()
        await self.assert_shell(await self.come(authority, alone))
