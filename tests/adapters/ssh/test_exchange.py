"""Keys are exchanged, anew, and only when it is the time for it."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.conch.ssh import connection
from twisted.conch.ssh import transport as conch
from twisted.internet.defer import succeed
from twisted.internet.protocol import Factory

from rdvtwisted.adapters.ssh import ciphers
from rdvtwisted.adapters.ssh.algorithms import CTR, GCM
from rdvtwisted.adapters.ssh.client import ClientTransport
from rdvtwisted.adapters.ssh.packets import (
    KEPT_BYTES,
    LARGEST_BACKLOG,
    STRANGER_BYTES,
    STRANGER_PACKETS,
)
from rdvtwisted.adapters.ssh.settings import ClientSettings, ServerSettings
from rdvtwisted.adapters.ssh.wire import boolean, string, uint32
from rdvtwisted.errors import ConnectionLost
from tests.adapters.ssh.test_authentication import Mute
from tests.adapters.ssh.world import Listener, Recorder, World


class RekeyTests(World):
    """New keys on a connection that is in use."""

    def exchanges(self) -> list[Any]:
        """One entry for each key that the server has begun to use for what it receives."""
        seen: list[Any] = []
        end = self.server_end
        before = end.secured

        def secured() -> None:
            seen.append(end._opener)
            before()

        end.secured = secured  # type: ignore[method-assign]
        return seen

    def talk(self, link: Any, size: int = 1 << 20) -> None:
        """Send so much through a forward, both ways, and see that it arrives."""
        far = Recorder()
        self.reception.forwards["127.0.0.1", 5000] = lambda: succeed(far)
        near = self.result(link.endpoint("127.0.0.1", 5000).connect(Factory.forProtocol(Recorder)))
        data = bytes(range(256)) * (size // 256)
        near.transport.write(data)
        far.transport.write(data)  # type: ignore[union-attr]
        self.pump()
        self.assertTrue(near.data == far.data == data)

    def test_by_bytes(self) -> None:
        """After so many bytes the server wants new keys, in the middle of everything; nothing is lost."""
        self.server.settings = ServerSettings(rekey_bytes=100_000)
        link = self.log_in()
        seen = self.exchanges()
        self.talk(link, 8 << 20)
        self.assertGreater(len(seen), 2)

    def test_by_client_bytes(self) -> None:
        """So does the device."""
        self.client_settings = ClientSettings(rekey_bytes=100_000)
        link = self.log_in()
        seen = self.exchanges()
        self.talk(link, 8 << 20)
        self.assertGreater(len(seen), 2)

    def test_by_time(self) -> None:
        """After some hours, keys are exchanged once, though nothing happens but that the two are alive."""
        self.log_in()
        seen = self.exchanges()
        self.until(lambda: bool(seen), 40, 8 * 3600 + 100)
        self.assertEqual(len(seen), 1)
        self.assertGreaterEqual(self.clock.seconds(), 8 * 3600)

    def test_by_both_at_once(self) -> None:
        """Both ends may want new keys at the same moment."""
        link = self.log_in()
        seen = self.exchanges()
        self.server_end.rekey()
        self.client_end.rekey()
        self.pump()
        self.assertEqual(len(seen), 1)
        self.talk(link, 10_240)

    def test_each_cipher(self) -> None:
        """With every cipher, packets before and after are read; in whatever pieces they come."""
        for cipher in GCM + CTR:
            link = self.log_in()
            self.client_end.supportedCiphers = [cipher]
            for _ in range(3):
                self.client_end.rekey()
                self.pump()
                self.talk(link, 10_240)
            self.assertEqual(link.cipher, cipher.decode())
            for text in (b"get_role\n", b"echo x\n"):
                listener = Listener()
                shell = self.result(link.open_shell(listener))
                shell.write(text)
                for byte in self.pumps[-1].clientIO.getOutBuffer() or b"":
                    self.server_end.dataReceived(bytes((byte,)))
                self.pump()
                self.assertTrue(listener.out.endswith(b"\nrpi1100$ "))

    def test_not_without_login(self) -> None:
        """A stranger does not get us to exchange keys again and again."""
        client = self.puppet()
        client.logged_in = True
        client.rekey()
        self.pump()
        self.assertIn("before it is logged in", self.reception.refusals[0][3])

    def test_stuck(self) -> None:
        """A peer that does not answer the wish for new keys is dropped; what it would be sent meanwhile waits."""
        link = self.log_in()
        listener = Listener()
        shell = self.result(link.open_shell(listener))
        shell.write(b"get_role\n")
        self.client_end.sendKexInit = lambda: None  # type: ignore[method-assign]
        self.client_end.ssh_KEXINIT = lambda packet: None  # type: ignore[method-assign]
        self.server_end.rekey()
        self.assertFalse(self.server_end.writable)
        self.pump()
        self.assertEqual(listener.out, b"rpi1100$ ")
        self.clock.advance(30)
        self.pump()
        self.assertEqual(self.desk.left, ["the key exchange took longer than 30 s"])

    def test_answers_kept(self) -> None:
        """Nor does it ask for answers meanwhile until they fill the memory, however short they are."""
        self.log_in()
        self.client_end.sendKexInit = lambda: None  # type: ignore[method-assign]
        self.client_end.ssh_KEXINIT = lambda packet: None  # type: ignore[method-assign]
        self.server_end.rekey()
        self.pump()
        most = LARGEST_BACKLOG // KEPT_BYTES
        asked = 0
        while not self.server_end.closing and asked <= most + 500:
            for _ in range(500):
                self.client_end.send(connection.MSG_GLOBAL_REQUEST, string(b""), boolean(True))
            asked += 500
            self.pump()
        self.assertTrue(self.server_end.closing)
        self.assertEqual(self.desk.left, ["it does not read what it is sent"])

    def test_another_host_key(self) -> None:
        """The server's key cannot change while the connection lives."""
        self.log_in()
        self.client_end.supportedPublicKeys = [b"ecdsa-sha2-nistp256"]
        self.client_end.rekey()
        self.pump()
        self.assertEqual(self.client_end.end_reason, "it shows another host key than before")

    def test_sequence_numbers_wrap(self) -> None:
        """After 2**32 packets their numbers begin again at 0 (RFC 4253, section 6.4); nobody stumbles."""
        for cipher in (b"aes128-ctr", b"aes128-gcm@openssh.com"):
            link = self.log_in()
            self.client_end.supportedCiphers = [cipher]
            self.client_end.rekey()
            self.pump()
            for sender, receiver in ((self.client_end, self.server_end), (self.server_end, self.client_end)):
                sender.outgoingPacketSequence = receiver.incomingPacketSequence = 0xFFFFFFFD
            self.talk(link, 10_240 * 256)
            self.assertLess(self.server_end.incomingPacketSequence, 0xFFFFFFFD)


class StrictTests(World):
    """Strict key exchange: nobody slips anything in before encryption begins."""

    def test_numbers_begin_anew(self) -> None:
        """Both of our ends use it: packets are counted from the keys on."""
        client = self.puppet()
        self.assertTrue(client._strict and self.server_end._strict)
        self.assertEqual(client.outgoingPacketSequence, self.server_end.incomingPacketSequence)
        # SERVICE_REQUEST is all that the client has sent since its NEWKEYS.
        self.assertEqual(client.outgoingPacketSequence, 1)

    def test_idle_talk(self) -> None:
        """A message that means nothing, in the first key exchange, ends the connection."""
        for number, body in ((conch.MSG_IGNORE, string(b"")), (conch.MSG_UNIMPLEMENTED, uint32(0))):
            for early in (True, False):
                client = self.stopped(early)
                client.send(number, body)
                self.pumps[-1].flush()
                self.assertTrue(self.server_end.closing)

    def test_idle_talk_later(self) -> None:
        """Afterwards such messages are harmless, also in a key exchange."""
        self.log_in()
        self.client_end.send(conch.MSG_IGNORE, string(b"x"))
        self.client_end.send(conch.MSG_DEBUG, boolean(True) + string(b"x") + string(b""))
        self.client_end.rekey()
        self.client_end.send(conch.MSG_IGNORE, string(b"x"))
        self.client_end.send(conch.MSG_UNIMPLEMENTED, uint32(0))
        self.pump()
        self.assertFalse(self.server_end.closing)

    def stopped(self, early: bool) -> Any:
        """A client that has said its KEXINIT, or not even that, and nothing more."""
        server = self.server.factory("ssh").buildProtocol(self.peer)
        client = ClientTransport(self.target(), self.client_settings, self.clock)
        client.ready.addErrback(lambda failure: None)
        begin = client.sendKexInit
        if early:
            client.sendKexInit = lambda: None  # type: ignore[method-assign]
        pump = self.join(server, client)
        if early:
            client.sendPacket(conch.MSG_IGNORE, string(b""))
            begin()
        pump.serverIO.bufferReceived(pump.clientIO.getOutBuffer())
        return client


class HostileExchangeTests(World):
    """Key exchanges that no client makes."""

    def stranger(self) -> Any:
        """A server that has been told who calls."""
        server = self.server.factory("ssh").buildProtocol(self.peer)
        assert server is not None
        self.pump_ = self.join(server, Mute())
        server.dataReceived(b"SSH-2.0-x\r\n")
        return server

    def say(self, server: Any, number: int, body: bytes = b"") -> None:
        """Say something in the clear."""
        server.dataReceived(b"".join(ciphers.PlainSealer().seal(0, bytes((number,)), body)))

    def kexinit(self, **changed: bytes) -> bytes:
        """A KEXINIT as a client would make it."""
        names = {
            "kex": b"curve25519-sha256",
            "key": b"ssh-ed25519",
            "out": b"aes128-ctr",
            "in": b"aes128-ctr",
            "mac_out": b"hmac-sha2-256",
            "mac_in": b"hmac-sha2-256",
            "pack_out": b"none",
            "pack_in": b"none",
            "lang_out": b"",
            "lang_in": b"",
        } | changed
        return bytes(16) + b"".join(map(string, names.values())) + bytes(5)

    def test_order(self) -> None:
        """Messages out of turn end the connection."""
        for numbers in ([21], [30], [5], [50], [80], [20, 20], [20, 21], [20, 50], [20, 34], [31], [20, 5], [20, 30]):
            server = self.stranger()
            for number in numbers:
                self.say(server, number, self.kexinit() if number == 20 else string(b""))
            self.assertTrue(server.closing, numbers)
            self.pump_.flush()

    def test_idle_talk_without_end(self) -> None:
        """A stranger who talks and talks, in many packets or in large ones, is sent away soon."""
        for size, most, reason in (
            (0, STRANGER_PACKETS, f"it sent more than {STRANGER_PACKETS} SSH packets before it was logged in"),
            (30_000, STRANGER_BYTES // 30_000, "it sent more than 256 KiB before it was logged in"),
        ):
            self.reception.refusals.clear()
            server = self.stranger()
            talk = b"".join(ciphers.PlainSealer().seal(0, bytes((conch.MSG_IGNORE,)), string(bytes(size))))
            server.dataReceived(talk * most)
            self.assertFalse(server.closing)
            server.dataReceived(talk * 4000)
            self.assertTrue(server.closing)
            self.assertEqual(server.incomingPacketSequence, most)
            self.pump_.flush()
            self.assertEqual([refusal[3] for refusal in self.reception.refusals], [reason])

    def test_much_to_say(self) -> None:
        """A client that talks a good deal before it logs in, as some do, logs in; then there is no such limit."""

        def talk(client: ClientTransport, packets: int) -> None:
            for _ in range(packets):
                client.send(conch.MSG_IGNORE, string(bytes(1000)))

        secured = ClientTransport.secured

        def talkative(client: ClientTransport) -> None:
            talk(client, STRANGER_PACKETS * 3 // 4)
            secured(client)

        self.patch(ClientTransport, "secured", talkative)
        link = self.log_in()
        talk(self.client_end, STRANGER_PACKETS * 2)
        self.pump()
        self.assertFalse(self.server_end.closing)
        self.result(link.disconnect())

    def test_no_common_algorithm(self) -> None:
        """Who knows none of our algorithms is told so."""
        for changed in (
            {"kex": b"diffie-hellman-group14-sha1"},
            {"kex": b"kex-strict-s-v00@openssh.com"},
            {"kex": b"ext-info-s"},
            {"key": b"ssh-rsa"},
            {"out": b"none"},
            {"in": b"3des-cbc"},
            {"mac_in": b"hmac-md5"},
            {"pack_in": b"zlib"},
        ):
            server = self.stranger()
            self.say(server, 20, self.kexinit(**changed))
            self.assertTrue(server.closing, changed)
            self.pump_.flush()
            self.assertEqual(len(self.reception.refusals), 1)
            self.reception.refusals.clear()

    def test_worthless_values(self) -> None:
        """Public values that are none, or that make a secret that everybody knows, are refused."""
        for kex, value in [
            (b"curve25519-sha256", bytes(32)),
            (b"curve25519-sha256", b"short"),
            (b"ecdh-sha2-nistp256", b"\x04" + bytes(64)),
            (b"mlkem768x25519-sha256", bytes(1216)),
            (b"mlkem768x25519-sha256", b""),
        ]:
            server = self.stranger()
            self.say(server, 20, self.kexinit(kex=kex))
            self.say(server, 30, string(value))
            self.assertTrue(server.closing, kex)
            self.pump_.flush()

    def test_large_packets(self) -> None:
        """A stranger's packets are small."""
        server = self.stranger()
        server.dataReceived(uint32(50_000))
        self.assertTrue(server.closing)

    def test_wrong_guess(self) -> None:
        """A client that guesses the key exchange wrongly may try again, as RFC 4253, section 7, says."""
        server = self.stranger()
        guessing = self.kexinit(kex=b"ecdh-sha2-nistp521,curve25519-sha256")[:-5] + b"\1" + bytes(4)
        self.say(server, 20, guessing)
        self.say(server, 30, string(b"for another exchange"))
        self.assertFalse(server.closing)

    @settings(derandomize=True, deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=5), st.booleans())
    def test_garbage(self, messages: list[tuple[int, bytes]], begin: bool) -> None:
        """Whatever a stranger says, nothing is raised, and he is not in."""
        server = self.stranger()
        if begin:
            self.say(server, 20, self.kexinit())
        for number, body in messages:
            self.say(server, number, body)
        self.assertFalse(server.logged_in)
        self.pump_.clientIO.loseConnection()
        self.pump_.flush()

    @settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=300))
    def test_noise(self, data: bytes) -> None:
        """Nor does noise raise anything."""
        server = self.stranger()
        server.dataReceived(data)
        self.assertFalse(server.logged_in)
        self.pump_.clientIO.loseConnection()
        self.pump_.flush()


class DamageTests(World):
    """A connection on which bytes change."""

    def test_damaged(self) -> None:
        """A changed byte ends the connection, with one line."""
        for cipher in (b"aes128-ctr", b"aes256-gcm@openssh.com"):
            self.log_in()
            self.client_end.supportedCiphers = [cipher]
            self.client_end.rekey()
            self.pump()
            self.client_end.send(conch.MSG_IGNORE, string(b"x" * 100))
            data = bytearray(self.pumps[-1].clientIO.getOutBuffer())
            data[60] ^= 1
            self.server_end.dataReceived(bytes(data))
            self.pump()
            self.assertEqual(self.desk.left, ["an SSH packet was damaged on its way"])

    def test_client_sees_it(self) -> None:
        """So it does at a device."""
        link = self.log_in()
        self.client_end.dataReceived(b"\0\0\1\0" + bytes(400))
        self.pump()
        self.failureResultOf(link.open_shell(Listener()), ConnectionLost)
