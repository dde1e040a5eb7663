"""
The contract of tunnel backends, for whoever writes one, and what a test needs to run it: identities, sites, packets.

A backend's test case inherits from L{TunnelBackendContract} and trial's
C{TestCase}, and says how two ends are made. See C{tests/tunnels/test_tls.py}
of this project's source for one that does.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rdvtwisted.errors import MissingPrivilege, RDVError
from rdvtwisted.interfaces import IDeviceTunnel, IPrograms, ITunnelBackend, ITunnelSite
from rdvtwisted.testing.network import MemoryNetwork
from rdvtwisted.testing.packets import MemoryPacketDevice
from rdvtwisted.testing.programs import MemoryPrograms
from rdvtwisted.values import Missing, Mode, PublicKey, Role, TunnelParameters, TunnelReport

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

#: Seconds after which a contract test that waits has failed.
PATIENCE = 30

#: A C{struct virtio_net_hdr} that says nothing, and one of a TCP segment to be cut into pieces of
#: 1448 bytes: flags NEEDS_CSUM, GSO_TCPV4, header length 66, checksum at 34 + 16 (linux/virtio_net.h).
PLAIN = bytes(10)
SEGMENTED = struct.pack("<BBHHHH", 1, 1, 66, 1448, 34, 16)

if TYPE_CHECKING:
    _Case = TestCase
else:
    _Case = object


@frozen
class MemoryIdentity:
    """A device's key and self-signed certificate, as L{ITunnelSite.identity} has them."""

    key: PrivateKey
    certificate: x509.Certificate
    public: PublicKey


def identity(name: str, key: PrivateKey | None = None) -> MemoryIdentity:
    """
    A new identity.

    @param key: a new ed25519 key, if not given.
    """
    key = key or ed25519.Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256())
    )
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
    return MemoryIdentity(key, certificate, PublicKey.from_line(line))


@implementer(ITunnelSite)
@define(eq=False)
class MemoryTunnelSite:
    """A device for a tunnel to run on, with a network in memory."""

    device: str
    role: Role
    reactor: Any
    identity: MemoryIdentity
    door: IStreamClientEndpoint
    authority: bytes
    network: MemoryNetwork = field(factory=MemoryNetwork)
    interface: str = "rdv0"
    door_address: tuple[str, int] = ("127.0.0.1", 443)
    programs: IPrograms = field(factory=MemoryPrograms)
    owner: str = "device.tunnel"
    #: Endpoints for ports at the server, by their numbers.
    forwards: dict[int, IStreamClientEndpoint] = field(factory=dict)

    def forward(self, port: int) -> IStreamClientEndpoint:
        """The endpoint that the test has put there."""
        return self.forwards[port]

    @property
    def packets(self) -> MemoryPacketDevice:
        """The tunnel's network interface, once it is attached."""
        return self.network.devices[self.interface]


def parameters(backend: str, mode: Mode, own: Role, peer: str, peer_key: PublicKey, ticket: str) -> TunnelParameters:
    """What the server would tell the device with the role C{own}, for a session called C{s1}."""
    onsite = own is Role.ONSITE
    return TunnelParameters(
        session="s1",
        backend=backend,
        mode=mode,
        join="relay",
        peer=peer,
        peer_key=peer_key,
        peer_role=Role.MASTER if onsite else Role.ONSITE,
        address=IPv4Interface("100.64.0.1/30" if onsite else "100.64.0.2/30"),
        peer_address=IPv4Address("100.64.0.2" if onsite else "100.64.0.1"),
        mtu=1500,
        door_port=443,
        ticket=ticket,
    )


def packet(mode: Mode, payload: bytes, header: bytes = PLAIN) -> bytes:
    """What a packet device hands over: an IPv4 packet of UDP, in an Ethernet frame in mode L2, behind its header."""
    udp = struct.pack("!HHHH", 4000, 4001, 8 + len(payload) & 0xFFFF, 0) + payload
    start = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(udp) & 0xFFFF, 0, 0, 64, 17)
    addresses = bytes([192, 168, 1, 7, 192, 168, 1, 8])
    total = sum(struct.unpack("!9H", start + addresses))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ethernet = bytes.fromhex("020000000002 020000000001 0800") if mode is Mode.L2 else b""
    return header + ethernet + start + struct.pack("!H", checksum) + addresses + udp


@define(eq=False)
class TunnelEnds:
    """
    Two ends of one session's tunnel, not yet started.

    C{far} is the other device's tunnel; a backend that the server ends puts
    there an L{IDeviceTunnel} which stands for the server's end.
    """

    near: IDeviceTunnel
    far: IDeviceTunnel
    near_site: MemoryTunnelSite
    far_site: MemoryTunnelSite
    #: Breaks the connection between them, without a word to either.
    cut: Callable[[], None]

    async def attach(self) -> None:
        """Give both ends their interfaces."""
        await self.near.attach()
        await self.far.attach()

    async def carry(self) -> tuple[TunnelReport, TunnelReport]:
        """Start both ends; packets flow when this is over."""
        await self.attach()
        near, far = self.near.carry(), self.far.carry()
        return await near, await far

    async def close(self) -> None:
        """Close both ends, whatever state they are in."""
        for end in (self.near, self.far):
            end.closed.addErrback(lambda failure: failure.trap(RDVError) and None)
        near, far = self.near.close(), self.far.close()
        await near
        await far


class TunnelBackendContract(_Case):
    """What every tunnel backend does; run with the real reactor, on 127.0.0.1."""

    timeout = PATIENCE

    #: Whether an end that is closed says so to the other one.
    says_goodbye = True

    def build_backend(self) -> ITunnelBackend:
        """The backend, as its plugin has it."""
        raise NotImplementedError

    def build_ends(self, mode: Mode) -> TunnelEnds:
        """Two ends, on sites in memory; what they need besides is cleaned up when the test is over."""
        raise NotImplementedError

    def build_impostor(self, mode: Mode) -> TunnelEnds:
        """
        Two ends of which the far one has another key than the near one was told to expect, in C{peer_key}; needed of
        a backend with C{relay}.
        """
        raise NotImplementedError

    def ends(self, mode: Mode = Mode.L3, build: Callable[[Mode], TunnelEnds] | None = None) -> TunnelEnds:
        """Two ends that are closed when the test is over."""
        ends = (build or self.build_ends)(mode)
        self.addCleanup(lambda: Deferred.fromCoroutine(ends.close()))
        return ends

    async def assert_gone(self, end: IDeviceTunnel, site: MemoryTunnelSite) -> None:
        """This end is over for good, and its interface has vanished."""
        self.assertTrue(end.closed.called)
        self.assertTrue(all(device.closed for device in site.network.devices.values()))
        await end.close()

    def test_backend(self) -> None:
        """A backend says truthfully what it is and what it lacks here."""
        backend = self.build_backend()
        verifyObject(ITunnelBackend, backend)
        self.assertIsNotNone(re.fullmatch("[a-z0-9-]+", backend.name))
        self.assertRegex(backend.summary, r"^\S.*\.$")
        self.assertTrue(all(isinstance(need, str) and need for need in backend.needs))
        self.assertTrue(backend.modes and backend.modes <= set(Mode))
        for able in (backend.relay, backend.glue, backend.inside):
            self.assertIsInstance(able, bool)
        self.assertTrue(backend.relay or backend.glue, "nobody can end it, and nobody join it")
        self.assertTrue(576 <= backend.mtu <= 65535)
        for lack in backend.missing():
            self.assertIsInstance(lack, Missing)

    async def test_attach(self) -> None:
        """The interface is there before anything is carried, with the name and mode that were asked for."""
        for mode in sorted(self.build_backend().modes):
            ends = self.ends(mode)
            verifyObject(IDeviceTunnel, ends.near)
            self.assertEqual(await ends.near.attach(), ends.near_site.interface)
            self.assertEqual(ends.near_site.network.modes, {ends.near_site.interface: mode})
            self.assertFalse(ends.near.closed.called)
            self.assertEqual(ends.near.report().sent_packets, 0)

    async def test_attach_refused(self) -> None:
        """A machine that makes no interface ends the tunnel with the reason."""
        ends = self.ends()
        ends.near_site.network.refusal = refusal = MissingPrivilege("not here")
        for refused in (ends.near.attach(), ends.near.closed):
            with self.assertRaises(MissingPrivilege) as caught:
                await refused
            self.assertIs(caught.exception, refusal)

    async def test_packets(self) -> None:
        """Packets come out at the other end as they went in, in order, both ways, in each mode."""
        for mode in sorted(self.build_backend().modes):
            ends = self.ends(mode)
            await ends.carry()
            sent = [packet(mode, bytes([size % 251]) * size) for size in (1, 18, 100, 900, 1400, 1472, 3, 700)]
            near, far = ends.near_site.packets, ends.far_site.packets
            for each in sent:
                self.assertTrue(near.inject(each))
                self.assertTrue(far.inject(each))
            self.assertEqual(await far.when_written(len(sent)), sent)
            self.assertEqual(await near.when_written(len(sent)), sent)

    async def test_large_packets(self) -> None:
        """What offloads make of many packets, up to 64 KiB at once, arrives whole; without offloads there are none."""
        for mode in sorted(self.build_backend().modes):
            ends = self.ends(mode)
            await ends.carry()
            near, far = ends.near_site.packets, ends.far_site.packets
            if near.offloads is None or not near.offloads.tso4:
                continue
            sent = [packet(mode, bytes([n]) * 65_507, SEGMENTED) for n in range(8)]
            for count, each in enumerate(sent, 1):
                self.assertTrue(near.inject(each))
                await far.when_written(count)
            self.assertEqual(far.written, sent)

    async def test_report(self) -> None:
        """The report counts the packets of the interface, without the tunnel's own headers, and tells the way back."""
        ends = self.ends()
        first, _ = await ends.carry()
        self.assertEqual(first.backend, self.build_backend().name)
        self.assertIsNotNone(first.round_trip)
        sent = packet(Mode.L3, b"x" * 100)
        ends.near_site.packets.inject(sent)
        await ends.far_site.packets.when_written(1)
        ends.far_site.packets.inject(packet(Mode.L3, b"answer"))
        await ends.near_site.packets.when_written(1)
        near, far = ends.near.report(), ends.far.report()
        self.assertEqual((near.sent_packets, near.sent_bytes), (1, len(sent) - len(PLAIN)))
        self.assertEqual((far.received_packets, far.received_bytes), (1, len(sent) - len(PLAIN)))

    async def test_proof(self) -> None:
        """The report names the key that the other end has proved; a backend that relays has always proved one."""
        ends = self.ends()
        first, _ = await ends.carry()
        proof = ends.far_site.identity.public
        self.assertIn(first.proved, (proof,) if self.build_backend().relay else (proof, None))
        self.assertEqual(ends.near.report().proved, first.proved)

    async def test_impostor(self) -> None:
        """Of a backend that relays, whoever has not the expected key gets no tunnel, and nothing is reported proved."""
        if not self.build_backend().relay:
            return
        ends = self.ends(build=self.build_impostor)
        await ends.attach()
        near, far = ends.near.carry(), ends.far.carry()
        with self.assertRaises(RDVError) as caught:
            await near
        self.assertNotIn("\n", str(caught.exception))
        self.assertIsNone(ends.near.report().proved)
        far.addErrback(lambda failure: failure.trap(RDVError) and None)
        await ends.far.close()
        await far

    async def test_close(self) -> None:
        """An end that is closed is gone at once with its interface; the other one learns it, and is gone too."""
        ends = self.ends()
        await ends.carry()
        await ends.near.close()
        self.assertIsNone(await ends.near.closed)
        await self.assert_gone(ends.near, ends.near_site)
        try:
            self.assertIsNone(await ends.far.closed)
        except RDVError:
            self.assertFalse(self.says_goodbye)
        await self.assert_gone(ends.far, ends.far_site)

    async def test_close_early(self) -> None:
        """An end may be closed before it is attached, after it, and while it waits for the other."""
        unattached, attached, waiting = self.ends().near, self.ends().near, self.ends().near
        await attached.attach()
        await waiting.attach()
        carried = waiting.carry()
        for end in (unattached, attached, waiting):
            await end.close()
            self.assertIsNone(await end.closed)
            await end.close()
        with self.assertRaises(RDVError):
            await carried
        with self.assertRaises(RDVError):
            await unattached.attach()

    async def test_cut(self) -> None:
        """When the connection breaks, both ends are over, each with one clear line, and hold nothing any more."""
        ends = self.ends()
        await ends.carry()
        ends.cut()
        for end, site in ((ends.near, ends.near_site), (ends.far, ends.far_site)):
            with self.assertRaises(RDVError) as caught:
                await end.closed
            self.assertNotIn("\n", str(caught.exception))
            await self.assert_gone(end, site)
