"""The stock vtund client and the product's end of vtun, over TCP, with real TUN and TAP devices."""

from __future__ import annotations

import sys
from pathlib import Path
from signal import SIGABRT

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from rdvtwisted.values import Mode
from tests.interop.vtund import CABLE, MTU, PORT, TUNNEL, TUNNEL6, VTUND, Program, World, obstacle
from tunnels.vtun_client import KEYWORDS, VALUES, Command, VtunClient, new_secret
from tunnels.vtun_handshake import session_name

SESSION = session_name("rpi1100")
#: Each mark that a secret may have.
SECRET = "k3eps-out_every+mark=of!$%&*^@~."

#: Brings a client's interface up, IPv6 included.
UP = {
    Mode.L3: Command("ifconfig", f"%% {TUNNEL['device']} pointopoint {TUNNEL['server']} mtu {MTU}"),
    Mode.L2: Command("ifconfig", f"%% {TUNNEL['device']} netmask 255.255.255.252 mtu {MTU}"),
}
UP6 = Command("ip", f"-6 address add {TUNNEL6['device']}/64 dev %% nodad")
#: Sends some 40 MB into the tunnel.
FLOOD = f"""
import socket
flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(30000):
    flood.sendto(bytes(1400), ("{TUNNEL["device"]}", 9))
"""
INTERFACE = {Mode.L3: "tun0", Mode.L2: "tap0"}


class VtundTestCase(TestCase):
    """Has two namespaces, and a folder for configurations."""

    timeout = 60
    skip = obstacle()

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir(mode=0o700)
        self.world = World()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.world.remove()))
        self.world.build()

    def client(self, client: VtunClient | None = None, mode: Mode = Mode.L3) -> Program:
        """Run a stock client; by default the one that the server expects."""
        client = client or VtunClient(SESSION, SECRET, port=PORT, up=(UP[mode], UP6))
        return self.vtund(client.text, client.session)

    def vtund(self, text: str, session: str) -> Program:
        """Run a stock client with this configuration."""
        file = self.folder / "vtund.conf"
        file.write_text(text)
        assert VTUND is not None
        return self.world.start("device", VTUND, "-n", "-f", str(file), session, CABLE["server"])


class SessionTests(VtundTestCase):
    """Sessions of a client that may come in."""

    async def carries(self, mode: Mode) -> None:
        server = await self.world.serve(mode, SESSION, SECRET)
        client = self.client(mode=mode)
        await server.saying("1 carrying")
        largest = str(MTU - 28)
        for host, other in (("device", "server"), ("server", "device")):
            self.assertTrue(await self.world.pings(host, TUNNEL[other]), f"{host} to {other}")
            self.assertTrue(
                await self.world.pings(host, TUNNEL[other], "-s", largest, "-M", "do"), f"{host}, full size"
            )
            self.assertTrue(await self.world.pings(host, TUNNEL6[other]), f"{host} to {other}, IPv6")
        self.assertIn(INTERFACE[mode], await self.world.interfaces("device"))
        client.signal("TERM")
        self.assertEqual(await client.ended, 0)
        await server.saying("1 ended: ConnectionLost")
        self.assertEqual(await self.world.interfaces("device"), {"lo", "cable"})
        self.assertNotIn("turned", server.said)

    async def test_routed(self) -> None:
        """In L3, both ends reach each other by IPv4 and IPv6, up to the largest packet; afterwards nothing is left."""
        await self.carries(Mode.L3)

    async def test_bridged(self) -> None:
        """In L2 as well."""
        await self.carries(Mode.L2)

    async def test_one_after_the_other(self) -> None:
        """Two hundred sessions in a row come up, with IPv6 on, whoever's kernel speaks first, and end in order."""
        server = await self.world.serve(Mode.L3, SESSION, SECRET)
        for number in range(1, 201):
            client = self.client()
            await server.saying(f"{number} carrying")
            if number % 10 == 0:
                self.assertTrue(await self.world.pings("server", TUNNEL["device"]))
            client.signal("TERM")
            self.assertEqual(await client.ended, 0, client.said)
            self.assertNotIn("Input/output error", client.said)
            await server.saying(f"{number} ended: ConnectionLost")
        self.assertNotIn("turned", server.said)

    test_one_after_the_other.timeout = 240  # type: ignore[attr-defined]

    async def slow(self, *options: str) -> tuple[Program, Program]:
        """A client that brings its interface up when it may, while the server has packets for it."""
        self.gate = self.folder / "gate"
        self.addCleanup(self.gate.touch)
        wait = Command("/bin/sh", f"-c 'until test -e {self.gate}; do sleep 0.05; done'", wait=True)
        server = await self.world.serve(Mode.L3, SESSION, SECRET, *options)
        client = self.client(VtunClient(SESSION, SECRET, port=PORT, up=(wait, UP[Mode.L3])))
        await client.saying("opened")
        await self.world.run("server", "ping", "-n", "-c", "3", "-i", "0.2", "-W", "0.2", TUNNEL["device"])
        return server, client

    async def test_slow_client(self) -> None:
        """Packets for a client whose interface is not up yet do not end its session."""
        server, client = await self.slow()
        self.assertNotIn("carrying", server.said)
        self.gate.touch()
        await server.saying("1 carrying")
        self.assertTrue(await self.world.pings("server", TUNNEL["device"]))
        self.assertIsNone(client.status, client.said)

    async def test_slow_client_of_a_hasty_server(self) -> None:
        """Which they do if they are sent."""
        server, client = await self.slow("--hasty")
        await server.saying("1 ended: NoneType")  # the client says goodbye over it
        self.gate.touch()  # for the shell that waits there, and has the client's output open
        self.assertEqual(await client.ended, 0)
        self.assertIn("Input/output error", client.said)

    async def test_server_leaves(self) -> None:
        """A client that is told goodbye ends, with its interface."""
        server = await self.world.serve(Mode.L3, SESSION, SECRET)
        client = self.client()
        await server.saying("1 carrying")
        server.transport.write(b"bye\n")
        self.assertEqual(await client.ended, 0)
        self.assertIn("Connection closed by other side", client.said)
        self.assertEqual(await self.world.interfaces("device"), {"lo", "cable"})

    async def test_client_dies(self) -> None:
        """A client that is killed is lost; the next one comes in."""
        server = await self.world.serve(Mode.L3, SESSION, SECRET)
        client = self.client()
        await server.saying("1 carrying")
        client.signal("KILL")
        await server.saying("1 ended: ConnectionLost: the vtun client closed the connection without a goodbye")
        self.client()
        await server.saying("2 carrying")

    async def test_client_stops(self) -> None:
        """A client that is stopped in full flow costs the server nothing but what the kernel keeps, and can go on."""
        server = await self.world.serve(Mode.L3, SESSION, SECRET)
        client = self.client()
        await server.saying("1 carrying")
        before = self.memory(server)
        client.signal("STOP")
        await self.world.run("server", sys.executable, "-c", FLOOD)
        self.assertLess(self.memory(server) - before, 4096)
        client.signal("CONT")
        self.assertTrue(await self.world.pings("server", TUNNEL["device"], "-w", "20"))

    def memory(self, program: Program) -> int:
        """Kilobytes of memory that a program has."""
        status = Path(f"/proc/{program.transport.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


class RefusalTests(VtundTestCase):
    """Clients that may not come in."""

    async def refused(self, client: VtunClient, reason: str) -> None:
        server = await self.world.serve(Mode.L3, SESSION, SECRET)
        program = self.client(client)
        await program.ended
        self.assertIn(f"Connection denied by {CABLE['server']}", program.said)
        await server.saying(f"The vtun tunnel of rpi1100 turned a client away: {reason}")
        self.client()
        await server.saying("1 carrying")

    async def test_wrong_secret(self) -> None:
        """A client with another secret is refused."""
        await self.refused(VtunClient(SESSION, new_secret(), port=PORT), "the vtun client does not know the secret")

    async def test_wrong_session(self) -> None:
        """A client of another session is refused, also with the right secret."""
        client = VtunClient("tundevrpi1101", SECRET, port=PORT)
        await self.refused(client, "the vtun client asked for the session 'tundevrpi1101'")

    async def test_second_client(self) -> None:
        """A second client is refused while the first is there, which does not notice."""
        server = await self.world.serve(Mode.L3, SESSION, SECRET)
        first = self.client()
        await server.saying("1 carrying")
        second = self.client()
        await second.ended
        self.assertIn("Connection denied", second.said)
        await server.saying("turned a client away: another one is in already")
        self.assertTrue(await self.world.pings("server", TUNNEL["device"]))
        self.assertIsNone(first.status)


class ConfigurationTests(VtundTestCase):
    """Whether vtund reads what we write, and what we do not."""

    async def reads(self, text: str, session: str = SESSION) -> bool:
        """Whether vtund finds a session in a configuration; nobody listens where it then connects."""
        client = self.vtund(text, session)
        # Over a session named like the block "default" it aborts.
        crashed = await client.ended == -SIGABRT
        self.assertTrue(crashed or any(word in client.said for word in ("Connecting to", "No hosts", "not found")))
        return "Connecting to" in client.said

    async def test_arguments(self) -> None:
        """A program gets its arguments as they are meant: names filled in, quotes and escapes taken away."""
        told = self.folder / "told"
        script = Command("/bin/sh", rf"-c 'echo $0, %% of %h, 100\%, $1 > {told}' 'two words' it\'s", wait=True)
        server = await self.world.serve(Mode.L3, SESSION, SECRET)
        client = VtunClient(SESSION, SECRET, port=PORT, interface="rdv-test.0", up=(script, UP[Mode.L3]))
        self.client(client)
        await server.saying("1 carrying")
        self.assertEqual(told.read_text(), "two words, rdv-test.0 of tundevrpi1100, 100%, it's\n")

    async def test_limits(self) -> None:
        """The longest string, name and secret are read; a longer string is not, nor an inner block without its end."""
        long = "n" * 41
        client = VtunClient(
            long, "s" * 200, up=(Command("ip", "x" * 252),), down=(Command("/bin/true", "", wait=True),)
        )
        self.assertTrue(await self.reads(client.text, long))
        self.assertFalse(await self.reads(client.text.replace("xx", "xxx", 1), long))
        self.assertFalse(await self.reads(client.text.replace("};", "}"), long))

    async def test_words(self) -> None:
        """No word of vtund's own, no number and no other mark can be a secret, nor a keyword a session's name."""
        text = VtunClient(SESSION, SECRET).text
        self.assertTrue(await self.reads(text))
        for secret in ("yes", "wait", "killold", "oldblowfish128ecb", "aes256ofb", "123", "1:2", "a/b", "a b", "a'b"):
            self.assertFalse(await self.reads(text.replace(SECRET, secret)), secret)
        for word in ("default", "up", "delay_udp", "password"):
            self.assertIn(word, KEYWORDS)
            self.assertFalse(await self.reads(text.replace(SESSION, word), word), word)
        self.assertLess({"yes", "wait", "killold", "oldblowfish128ecb", "aes256ofb"}, VALUES)
