"""Stock OpenSSH against ours, over TCP on 127.0.0.1: its client at our door, our client at its server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pexpect
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface import implementer

from rdvtwisted.adapters.ssh.client import Target, connect
from rdvtwisted.adapters.ssh.knownhosts import KnownHosts
from rdvtwisted.adapters.ssh.link import SSHLink
from rdvtwisted.adapters.ssh.server import SSHServer
from rdvtwisted.adapters.ssh.settings import ClientSettings, ServerSettings
from rdvtwisted.adapters.ssh.signatures import PrivateKey, public_key
from rdvtwisted.errors import ConnectionLost, KeyRejected, LanAddressMissing, ServerKeyChanged
from tests.adapters.ssh.world import (
    ECDSA,
    ED25519,
    HOST_KEYS,
    RSA,
    STRANGER,
    Listener,
    MemoryReception,
    open_shell,
)
from tests.interop.openssh import SSH, SSHD, Child, Options, Result, environment, free_port, write_key

reactor: Any = global_reactor


@implementer(IHalfCloseableProtocol)
class Upper(Protocol):
    """Answers in capitals, once the other end has said all."""

    def __init__(self) -> None:
        self.heard = b""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def readConnectionLost(self) -> None:
        self.transport.write(self.heard.upper())
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass


@implementer(IHalfCloseableProtocol)
class Until(Protocol):
    """Hears everything to the end."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()
        self.done.callback(bytes(self.heard))

    def writeConnectionLost(self) -> None:
        pass


class WaitingListener(Listener):
    """Can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.done: Deferred[None] = Deferred()

    def ended(self, status: int | None, reason: str) -> None:
        super().ended(status, reason)
        self.done.callback(None)


def wait(seconds: float) -> Deferred[None]:
    """Let real programs go on for a moment."""
    return deferLater(reactor, seconds)


class OpenSSHTestCase(TestCase):
    """Runs programs, and ends them."""

    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir(mode=0o700)
        self.known_hosts = self.folder / "known_hosts"

    def key(self, key: PrivateKey) -> Path:
        """A file with this key."""
        return write_key(self.folder / "key", key)

    def spawn(self, command: list[str], given: bytes | None = b"") -> Child:
        """Run a program, which does not outlive the test."""
        child = Child(given)
        process = reactor.spawnProcess(child, command[0], command, environment(), str(self.folder))

        def end(_: object) -> Deferred[Result]:
            if process.pid is not None:
                process.signalProcess("KILL")
            return child.done

        self.addCleanup(lambda: end(None) if not child.done.called else None)
        return child


class ClientTests(OpenSSHTestCase):
    """The stock client at our door."""

    skip = None if SSH else "needs the OpenSSH client"

    def serve(self, settings: ServerSettings | None = None, reception: MemoryReception | None = None) -> None:
        """Open a door."""
        self.reception = reception or MemoryReception()
        self.server = SSHServer(HOST_KEYS, self.reception, open_shell, reactor, settings or ServerSettings())
        self.port = reactor.listenTCP(0, self.server.factory("ssh"), interface="127.0.0.1")
        server, port = self.server, self.port
        self.addCleanup(lambda: Deferred.fromCoroutine(self.close(server, port)))

    async def close(self, server: SSHServer, port: Any) -> None:
        """Shut a door, with everybody out."""
        await port.stopListening()
        await server.close("the test is over")

    def command(self, *words: str, key: PrivateKey = ED25519, more: tuple[str, ...] = ()) -> list[str]:
        """The command line of a client."""
        return Options(self.port.getHost().port, self.key(key), self.known_hosts, more).command(*words)

    def ssh(
        self, *words: str, given: bytes = b"", key: PrivateKey = ED25519, more: tuple[str, ...] = ()
    ) -> Deferred[Result]:
        """Run a client to its end."""
        return self.spawn(self.command(*words, key=key, more=more), given).done

    async def test_piped(self) -> None:
        """A script pipes commands into a shell; answers, errors and the exit status come back separately."""
        self.serve()
        result = await self.ssh("-T", "rpi1100@127.0.0.1", given=b"get_role\nnonsense\nexit\n")
        self.assertEqual(result.out, b"rpi1100$ onsite\nrpi1100$ *** Unknown syntax: nonsense\nrpi1100$ ")
        self.assertEqual(result.status, 0)
        self.assertEqual(self.reception.desks[0].left, ["logout"])

    async def test_end_of_input(self) -> None:
        """The end of what is piped in ends the shell."""
        self.serve()
        result = await self.ssh("-T", "rpi1100@127.0.0.1", given=b"get_role")
        self.assertEqual((result.status, result.out), (0, b"rpi1100$ onsite\nrpi1100$ "))

    async def test_exit_status(self) -> None:
        """A shell that a fatal error ends gives the client its exit status."""
        self.serve()
        done = self.ssh("-T", "rpi1100@127.0.0.1", given=b"get_vtun_parameters\n")
        while not (self.reception.desks and self.reception.desks[0].requests):
            await wait(0.02)
        _, answer = self.reception.desks[0].requests[0]
        answer.errback(LanAddressMissing())
        result = await done
        self.assertEqual(result.status, 1)
        self.assertIn(b"LanIpShouldBeProvidedBeforeRegistrationToManager", result.err)

    async def test_keys(self) -> None:
        """All three kinds of user key are accepted."""
        self.serve()
        for key in (ED25519, ECDSA, RSA):
            result = await self.ssh("-T", "rpi1100@127.0.0.1", key=key, given=b"exit\n")
            self.assertEqual(result.status, 0, result.err)
        self.assertEqual(len(self.reception.desks), 3)

    async def test_algorithms(self) -> None:
        """Whatever of what we offer a client insists on, works."""
        self.serve(ServerSettings(legacy_algorithms=True))
        wanted = [
            *(f"Ciphers={name}" for name in ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")),
            *(f"Ciphers={name}" for name in ("aes128-ctr", "aes192-ctr", "aes256-ctr")),
            *(f"MACs={name}" for name in ("hmac-sha2-256", "hmac-sha2-512", "hmac-sha1")),
            *(f"KexAlgorithms={name}" for name in ("curve25519-sha256", "curve25519-sha256@libssh.org")),
            *(f"KexAlgorithms=ecdh-sha2-nistp{bits}" for bits in (256, 384, 521)),
            "KexAlgorithms=diffie-hellman-group14-sha1",
            *(f"HostKeyAlgorithms={name}" for name in ("ssh-ed25519", "ecdsa-sha2-nistp256")),
            *(f"HostKeyAlgorithms={name}" for name in ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")),
        ]
        for option in wanted:
            more = (option, "Ciphers=aes128-ctr") if option.startswith("MACs") else (option,)
            self.known_hosts.unlink(missing_ok=True)
            result = await self.ssh("-T", "rpi1100@127.0.0.1", given=b"echo hello\n", more=more)
            self.assertEqual((result.status, result.out), (0, b"rpi1100$ hello\nrpi1100$ "), (option, result.err))

    async def test_no_weak_algorithms(self) -> None:
        """What is weak is not offered unless the setting says so."""
        self.serve()
        for option in ("KexAlgorithms=diffie-hellman-group14-sha1", "MACs=hmac-sha1", "HostKeyAlgorithms=ssh-rsa"):
            result = await self.ssh("-T", "rpi1100@127.0.0.1", more=(option,))
            self.assertEqual(result.status, 255)
            self.assertIn(b"Unable to negotiate", result.err)

    async def test_strict_key_exchange(self) -> None:
        """A client that knows strict key exchange uses it."""
        self.serve()
        result = await self.ssh("-T", "-vvv", "rpi1100@127.0.0.1", given=b"exit\n")
        if b"kex-strict-c-v00@openssh.com" not in result.err:
            raise SkipTest("this OpenSSH client does not know strict key exchange")
        self.assertIn(b"will use strict KEX ordering", result.err)
        self.assertEqual(result.status, 0)

    async def test_wrong_key(self) -> None:
        """A client with a key that the account does not have, or of no account, sees the same refusal."""
        self.serve()
        wrong_key = await self.ssh("-T", "rpi1100@127.0.0.1", key=STRANGER)
        no_account = await self.ssh("-T", "nobody@127.0.0.1", key=ED25519)
        self.assertEqual(wrong_key.status, 255)
        self.assertIn(b"rpi1100@127.0.0.1: Permission denied (publickey).", wrong_key.err)
        self.assertIn(b"nobody@127.0.0.1: Permission denied (publickey).", no_account.err)
        self.assertEqual([refusal[2] for refusal in self.reception.refusals], ["rpi1100", "nobody"])

    async def test_sha1_signatures(self) -> None:
        """A signature by SHA-1 is accepted of a device marked legacy, of no other."""
        self.serve(ServerSettings(legacy_algorithms=True))
        more = ("PubkeyAcceptedAlgorithms=ssh-rsa", "HostKeyAlgorithms=+ssh-rsa")
        old = await self.ssh("-T", "rpi0900@127.0.0.1", key=RSA, more=more, given=b"exit\n")
        new = await self.ssh("-T", "rpi1100@127.0.0.1", key=RSA, more=more, given=b"exit\n")
        self.assertEqual(old.status, 0, old.err)
        self.assertEqual(new.status, 255)
        self.assertIn(b"Permission denied (publickey)", new.err)

    async def test_no_commands(self) -> None:
        """Neither commands nor subsystems are run."""
        self.serve()
        command = await self.ssh("rpi1100@127.0.0.1", "get_role")
        self.assertEqual(command.status, 255)
        self.assertIn(b"exec request failed", command.err)
        subsystem = await self.ssh("-s", "rpi1100@127.0.0.1", "sftp")
        self.assertEqual(subsystem.status, 255)
        self.assertIn(b"subsystem request failed", subsystem.err)

    async def test_no_remote_forwards(self) -> None:
        """The server listens nowhere for a client."""
        self.serve()
        more = ("ExitOnForwardFailure=yes",)
        result = await self.ssh("-N", "-R", "0:127.0.0.1:9", "rpi1100@127.0.0.1", more=more)
        self.assertEqual(result.status, 255)
        self.assertIn(b"remote port forwarding failed", result.err)

    async def test_forward(self) -> None:
        """A forward that the desk allows carries data both ways, also when one direction has ended."""
        self.serve()
        self.reception.forwards["127.0.0.1", 5000] = lambda: succeed(Upper())
        result = await self.ssh("-W", "127.0.0.1:5000", "rpi1100@127.0.0.1", given=b"hello " * 50_000)
        self.assertEqual((result.status, result.out == b"HELLO " * 50_000), (0, True), result.err)

    async def test_forward_refused(self) -> None:
        """A forward that the desk does not allow is refused at once, not opened and closed."""
        self.serve()
        result = await self.ssh("-W", "127.0.0.1:22", "rpi1100@127.0.0.1")
        self.assertEqual(result.status, 255)
        self.assertIn(b"administratively prohibited", result.err)

    async def test_local_forward(self) -> None:
        """As old devices do it: a local port leads through the connection, and C{exit} ends the client all the same."""
        self.serve()
        self.reception.forwards["127.0.0.1", 5000] = lambda: succeed(Upper())
        local = free_port()
        more = (f"LocalForward=127.0.0.1:{local} 127.0.0.1:5000",)
        child = self.spawn(self.command("-T", "rpi1100@127.0.0.1", more=more), None)
        await child.saying(b"rpi1100$ ")
        protocol = await TCP4ClientEndpoint(reactor, "127.0.0.1", local).connect(Factory.forProtocol(Until))
        protocol.transport.write(b"through the tunnel")
        protocol.transport.loseWriteConnection()
        answer = await protocol.done
        self.assertEqual(answer, b"THROUGH THE TUNNEL")
        child.transport.writeToChild(0, b"exit\n")
        result = await child.done
        self.assertEqual(result.status, 0, result.err)

    async def test_rekey(self) -> None:
        """Keys are exchanged anew, by wish of either end, in the middle of data, with each cipher."""
        size = 6 << 20
        for cipher in ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr"):
            for by_client in (True, False):
                self.serve(ServerSettings() if by_client else ServerSettings(rekey_bytes=1 << 20))
                self.reception.forwards["127.0.0.1", 5000] = lambda: succeed(Upper())
                more = (f"Ciphers={cipher}", *(("RekeyLimit=1M",) if by_client else ()))
                result = await self.ssh("-v", "-W", "127.0.0.1:5000", "rpi1100@127.0.0.1", given=b"x" * size, more=more)
                self.assertEqual((result.status, result.out == b"X" * size), (0, True), result.err)
                self.assertGreater(result.err.count(b"SSH2_MSG_NEWKEYS received"), 4)

    async def test_keepalive(self) -> None:
        """A silent client is asked whether it is there, and its refusal to answer that counts as an answer."""
        self.serve(ServerSettings(keepalive_idle=0.05))
        child = self.spawn(self.command("-T", "rpi1100@127.0.0.1"), None)
        while not (self.reception.desks and self.reception.desks[0].round_trips):
            await wait(0.02)
        child.transport.closeStdin()
        result = await child.done
        self.assertEqual(result.status, 0)

    async def test_terminal(self) -> None:
        """By hand on a terminal: echo, correction, Ctrl-C and the prompt are as one knows them."""
        self.serve()
        command = self.command("-tt", "rpi1100@127.0.0.1")
        said = await deferToThread(type_by_hand, command, str(self.folder))
        self.assertEqual(said, b"rpi1100$ get_rolx\x08 \x08e\r\nonsite\r\nrpi1100$ ^C\r\nrpi1100$ exit\r\n")

    async def test_goodbye(self) -> None:
        """A device that the server sends away is told why."""
        self.serve()
        child = self.spawn(self.command("-T", "rpi1100@127.0.0.1"), None)
        await child.saying(b"rpi1100$ ")
        self.reception.desks[0].line.disconnect("another connection of this device has come")
        result = await child.done
        self.assertEqual(result.status, 255)
        self.assertIn(b"another connection of this device has come", result.err)
        self.assertEqual(self.reception.desks[0].left, ["another connection of this device has come"])


def type_by_hand(command: list[str], folder: str) -> bytes:
    """Type on a terminal, as a person would; gives what was on the screen."""
    screen = pexpect.spawn(command[0], command[1:], env=environment(), cwd=folder, echo=False, timeout=30)
    try:
        seen = b""
        for keys, awaited in [(None, b"[$] "), (b"get_rolx\x7fe\r", b"onsite\r\nrpi1100[$] "), (b"\x03", b"[$] ")]:
            if keys is not None:
                screen.send(keys)
            screen.expect(awaited)
            seen += screen.before + screen.after
        screen.send(b"exit\r")
        screen.expect(pexpect.EOF)
        seen += screen.before
    finally:
        screen.close(force=True)
    # The client's own words, before and after the shell's, are not the shell's.
    begin = seen.index(b"rpi1100$ ")
    end = seen.find(b"Connection to", begin)
    return bytes(seen[begin : end if end >= 0 else None])


class ServerCase(OpenSSHTestCase):
    """Has the stock server run."""

    skip = None if SSHD and os.geteuid() == 0 else "needs the OpenSSH server, and root to run it"

    async def serve(self, key: PrivateKey, *more: str) -> None:
        """Run a server that lets us in with C{key}."""
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        host_keys = [write_key(self.folder / f"host{number}", each) for number, each in enumerate(HOST_KEYS.keys)]
        (self.folder / "authorized_keys").write_text(public_key(key).line + "\n")
        self.port = free_port()
        config = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            *(f"HostKey {path}" for path in host_keys),
            f"AuthorizedKeysFile {self.folder}/authorized_keys",
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "LogLevel INFO",
            *more,
        ]
        (self.folder / "sshd_config").write_text("\n".join(config) + "\n")
        self.sshd = self.spawn([str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")], None)
        await self.sshd.saying(b"Server listening")


class ServerTests(ServerCase):
    """Our client at the stock server."""

    def target(self, key: PrivateKey) -> Target:
        return Target("127.0.0.1", self.port, "root", key, KnownHosts(self.known_hosts))

    def connect(self, key: PrivateKey, settings: ClientSettings | None = None) -> Deferred[SSHLink]:
        """Connect, and have it closed at the end of the test."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        link = connect(endpoint, self.target(key), reactor, settings)

        def tidy(link: SSHLink) -> SSHLink:
            link.closed.addErrback(lambda failure: None)
            self.addCleanup(link.disconnect)
            return link

        return link.addCallback(tidy)

    async def test_keys(self) -> None:
        """A device logs in with each kind of key, RSA by SHA-2, and has a shell with its exit status."""
        for key in (ED25519, ECDSA, RSA):
            await self.serve(key)
            link = await self.connect(key)
            listener = WaitingListener()
            shell = await link.open_shell(listener)
            shell.write(b"echo out; echo err >&2; exit 3\n")
            await listener.done
            self.assertEqual((listener.out, listener.err, listener.end), (b"out\n", b"err\n", (3, "")))
            await link.disconnect()
            self.sshd.transport.signalProcess("TERM")
            await self.sshd.done

    async def test_wrong_key(self) -> None:
        """A key that the server does not know is named in the error."""
        await self.serve(ED25519)
        error = await self.assertFailure(self.connect(STRANGER), KeyRejected)
        self.assertIn(public_key(STRANGER).fingerprint, str(error))

    async def test_changed_host_key(self) -> None:
        """A server with another key than the known one is refused; both keys and the line to remove are named."""
        await self.serve(ED25519)
        self.known_hosts.write_text(f"# mine\n[127.0.0.1]:{self.port} {public_key(STRANGER).line}\n")
        error = await self.assertFailure(self.connect(ED25519), ServerKeyChanged)
        for words in (public_key(STRANGER).fingerprint, public_key(HOST_KEYS.keys[0]).fingerprint, "line 2 of"):
            self.assertIn(words, str(error))

    async def test_known_hosts(self) -> None:
        """What we note of a server at first use, OpenSSH's own client accepts, also hashed by C{ssh-keygen -H}."""
        await self.serve(ED25519)
        await self.connect(ED25519)
        more = ("StrictHostKeyChecking=yes",)
        options = Options(self.port, self.key(ED25519), self.known_hosts, more)
        result = await self.spawn(options.command("root@127.0.0.1", "true")).done
        self.assertEqual(result.status, 0, result.err)
        await self.spawn(["ssh-keygen", "-q", "-H", "-f", str(self.known_hosts)]).done
        before = self.known_hosts.read_bytes()
        self.assertIn(b"|1|", before)
        await self.connect(ED25519)
        self.assertEqual(self.known_hosts.read_bytes(), before)

    async def test_forward(self) -> None:
        """Connections through the server carry data both ways, while it wants new keys all the time."""
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Upper))
        self.addCleanup(listening.stopListening)
        await self.serve(ED25519, "RekeyLimit 1M")
        link = await self.connect(ED25519, ClientSettings(rekey_bytes=3 << 20))
        protocol = await link.endpoint("127.0.0.1", listening.getHost().port).connect(Factory.forProtocol(Until))
        protocol.transport.write(b"x" * (8 << 20))
        protocol.transport.loseWriteConnection()
        answer = await protocol.done
        self.assertTrue(answer == b"X" * (8 << 20))
        await self.assertFailure(
            link.endpoint("127.0.0.1", free_port()).connect(Factory.forProtocol(Until)), ConnectionLost
        )

    async def test_keepalive(self) -> None:
        """A silent server is asked whether it is there."""
        await self.serve(ED25519)
        link = await self.connect(ED25519, ClientSettings(keepalive_idle=0.05))
        while link.round_trip is None:
            await wait(0.02)
        self.assertGreater(link.round_trip, 0)
