"""Two devices meet: each accepts the key it expects and no other."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import InvalidValue, PeerKeyChanged, TunnelFailed
from rdvtwisted.testing.tunnels import MemoryIdentity, PrivateKey, identity, packet
from rdvtwisted.values import Mode, Role
from tests.tunnels.session import SessionCase
from tunnels.carrier import connect
from tunnels.conversation import Conversation
from tunnels.credentials import PeerKey, certified_key, door_context, has_fast_aes, packet_context
from tunnels.door import enter


class KeyTests(SessionCase):
    """The keys of the two devices."""

    async def assert_mistaken(self, mistaken: Role) -> None:
        """One end expects another key than its peer has: both ends end, and each knows why."""
        stranger = identity("stranger").public
        other = Role.ONSITE if mistaken is Role.MASTER else Role.MASTER
        deceived = await self.started(self.site(mistaken), peer_key=stranger)
        innocent = await self.started(self.site(other))
        error = await self.assert_refused(deceived.carried, PeerKeyChanged, f"the key of rpi-{other} has changed")
        self.assertEqual(error.pinned, stranger.fingerprint)
        self.assertEqual(error.shown, self.identities[other].public.fingerprint)
        await self.assert_refused(deceived.tunnel.closed, PeerKeyChanged)
        await self.assert_refused(innocent.carried, TunnelFailed, f"rpi-{mistaken} br")
        await self.assert_refused(innocent.tunnel.closed, TunnelFailed)

    async def test_master_refuses(self) -> None:
        """A master does not speak to an onsite with another key than the registered one."""
        await self.assert_mistaken(Role.MASTER)

    async def test_onsite_refuses(self) -> None:
        """An onsite does not let in a master with another key than the registered one."""
        await self.assert_mistaken(Role.ONSITE)

    async def assert_works(self, key: PrivateKey, algorithm: str) -> None:
        self.identities[Role.MASTER] = identity("master", key)
        self.assertEqual(self.identities[Role.MASTER].public.algorithm, algorithm)
        ends = self.ends()
        await ends.carry()
        ends.near_site.packets.inject(sent := packet(Mode.L3, b"hello"))
        self.assertEqual(await ends.far_site.packets.when_written(1), [sent])
        await ends.close()

    async def test_ecdsa(self) -> None:
        """ECDSA keys do."""
        await self.assert_works(ec.generate_private_key(ec.SECP256R1()), "ecdsa-sha2-nistp256")

    async def test_rsa(self) -> None:
        """So do RSA keys."""
        await self.assert_works(rsa.generate_private_key(65537, 2048), "ssh-rsa")

    async def test_key_exchange(self) -> None:
        """The report names the key exchange, which resists quantum computers where OpenSSL can."""
        ends = self.ends()
        for report in await ends.carry():
            self.assertEqual(report.cipher.split("_")[0], "TLS")
            # The OpenSSL of the cryptography wheel has had ML-KEM since 3.5.
            version = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).split()[1].split(b".")
            modern = (int(version[0]), int(version[1])) >= (3, 5)
            self.assertEqual(report.key_exchange, "X25519MLKEM768" if modern else "x25519")

    async def test_other_protocol(self) -> None:
        """A device with the right key that does not speak of packets is not one to carry them."""
        lone = await self.started(self.site(Role.ONSITE))
        site = self.site(Role.MASTER)
        carrier = await connect(self.reactor, site.door, site.door_address)
        await enter(self.reactor, carrier, door_context(site.identity, site.authority), "ticket-2")
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate(site.identity.certificate)
        context.use_privatekey(site.identity.key)
        connection = SSL.Connection(context, carrier.socket)
        connection.set_connect_state()
        await Conversation(self.reactor, carrier.socket, connection).attempt(connection.do_handshake)
        await self.assert_refused(lone.carried, TunnelFailed, "rpi-master does not know packet tunnels")
        await self.assert_refused(lone.tunnel.closed, TunnelFailed)
        await carrier.release(orderly=False)

    async def test_unknown_key(self) -> None:
        """A key of a kind that SSH does not know is nobody's."""
        lone = await self.started(self.site(Role.ONSITE))
        key = ed448.Ed448PrivateKey.generate()
        name = x509.Name([])
        now = datetime.now(timezone.utc)
        certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1)).sign(
            key, None
        )
        with self.assertRaises(InvalidValue):
            certified_key(certificate)
        own = self.site(Role.MASTER)
        carrier = await connect(self.reactor, own.door, own.door_address)
        await enter(self.reactor, carrier, door_context(own.identity, own.authority), "ticket-2")
        odd = MemoryIdentity(cast(Any, key), certificate, own.identity.public)
        expected = PeerKey("rpi-onsite", self.identities[Role.ONSITE].public)
        connection = SSL.Connection(packet_context(odd, expected, False, True), carrier.socket)
        connection.set_connect_state()
        await Conversation(self.reactor, carrier.socket, connection).attempt(connection.do_handshake)
        await self.assert_refused(lone.carried, TunnelFailed, "broke off the TLS handshake")
        await self.assert_refused(lone.tunnel.closed, TunnelFailed)
        await carrier.release(orderly=False)

    async def test_old_tls(self) -> None:
        """TLS 1.2 is refused, whatever its key."""
        lone = await self.started(self.site(Role.ONSITE))
        await self.door.when("entered")
        partner = packet_context(
            self.identities[Role.MASTER], PeerKey("x", self.identities[Role.ONSITE].public), False, True
        )
        partner.set_min_proto_version(SSL.TLS1_2_VERSION)
        partner.set_max_proto_version(SSL.TLS1_2_VERSION)
        connection = SSL.Connection(partner, None)
        connection.set_connect_state()
        self.assertRaises(SSL.WantReadError, connection.do_handshake)
        (visit,) = self.door.visits
        assert visit.transport is not None
        visit.transport.write(connection.bio_read(65536))
        await self.assert_refused(lone.carried, TunnelFailed, "unsupported protocol")
        await self.assert_refused(lone.tunnel.closed, TunnelFailed)


class CipherTests(SynchronousTestCase):
    """Which cipher two machines choose."""

    def chosen(self, master_is_fast: bool, onsite_is_fast: bool) -> str | None:
        """The cipher of a handshake in memory."""
        identities = {role: identity(str(role)) for role in Role}
        ends = []
        for own, other, fast in (
            (Role.MASTER, Role.ONSITE, master_is_fast),
            (Role.ONSITE, Role.MASTER, onsite_is_fast),
        ):
            server = own is Role.ONSITE
            context = packet_context(identities[own], PeerKey("x", identities[other].public), server, fast)
            connection = SSL.Connection(context, None)
            (connection.set_accept_state if server else connection.set_connect_state)()
            ends.append(connection)
        for _ in range(4):
            for this, that in (ends, ends[::-1]):
                try:
                    this.do_handshake()
                except SSL.WantReadError:
                    pass
                try:
                    that.bio_write(this.bio_read(65536))
                except SSL.WantReadError:
                    pass
        return ends[0].get_cipher_name()

    def test_choice(self) -> None:
        """AES where both have instructions for it; ChaCha20 as soon as one has not."""
        self.assertEqual(self.chosen(True, True), "TLS_AES_256_GCM_SHA384")
        for pair in ((True, False), (False, True), (False, False)):
            self.assertEqual(self.chosen(*pair), "TLS_CHACHA20_POLY1305_SHA256", pair)

    def test_cpuinfo(self) -> None:
        """x86 and ARM name the instructions in their own lines; a Raspberry Pi 4 has none."""
        self.assertTrue(has_fast_aes("processor : 0\nflags\t\t: fpu aes avx\n"))
        self.assertTrue(has_fast_aes("Features\t: fp asimd aes pmull sha1\n"))
        self.assertFalse(has_fast_aes("Features\t: fp asimd evtstrm crc32 cpuid\n"))
        self.assertFalse(has_fast_aes("model name : aes\nflags : vaes\n"))

    def test_certified_key(self) -> None:
        """A certificate's key is the one that SSH knows the device by."""
        own = identity("rpi1")
        self.assertEqual(certified_key(own.certificate), own.public)
