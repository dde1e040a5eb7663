"""What a session carries, where to, and what it keeps apart."""

from __future__ import annotations

import re
import signal
from concurrent.futures import ThreadPoolExecutor

from tests.lab.deployment import MASTER, onsite_id
from tests.lab.programs import PROGRAMS, obstacles
from tests.lab.traffic import TrafficTestCase
from tests.lab.website import PAGE, content

ONSITE = onsite_id()
PC_ADDRESS, EXTREMITY_ADDRESS = "192.168.38.226", "192.168.38.225"
CUSTOMER_LINE, SUPPORT_LINE = "198.51.100.6", "198.51.100.130"
"""The public addresses of the two sites' routers."""

FILE_BYTES = 20_000_000
SIZES = (1, 1_448, 1_500, 65_536)
"""Bytes of what is sent besides: a full segment, a full packet and a full TUN read are where seams are."""

HEADERS = 28
"""Bytes of an IPv4 and an ICMP or UDP header: what a packet is longer than what is said in it."""


class TrafficTests(TrafficTestCase):
    """What passes."""

    def limit(self, host: str, interface: str, mtu: int) -> None:
        """Give an interface another MTU, in bytes, until the test is over."""
        self.lab.run(host, ["ip", "link", "set", interface, "mtu", str(mtu)], check=True)
        self.addCleanup(self.lab.run, host, ["ip", "link", "set", interface, "mtu", "1500"], check=True)

    def forget_mtu(self) -> None:
        """Let the PC forget what it was told of the MTU on the way to others."""
        self.lab.run("pc", ["ip", "route", "flush", "cache"], check=True)

    def test_everyday_traffic(self) -> None:
        """Ping, HTTP and UDP of all sizes pass, and the PC is two hops away from the customer's web server."""
        self.assertFalse(self.reaches())
        with self.session() as record:
            self.assertEqual((record["mode"], record["backend"], record["join"]), ("L3", "tls", "relay"))
            self.assertIn("ttl=62", self.ping(self.web))
            self.assertEqual(self.page().encode(), PAGE.strip())
            for size in (1, 1_400, 1_500 - HEADERS, 1_500 - HEADERS + 1, 20_000, 60_000):
                self.assertEqual(self.lab.probe("pc", "udp", self.web, "u" * size), "u" * size)
            for size in SIZES:
                self.download(size)
                self.upload(size)
        self.assertFalse(self.reaches())

    def test_large_files(self) -> None:
        """20 MB arrive unharmed in both directions, and both devices count them."""
        with self.session():
            self.download(FILE_BYTES)
            self.upload(FILE_BYTES)
        for id in (MASTER, ONSITE):
            record = self.ended(id)
            for count in ("sent_bytes", "received_bytes"):
                self.assertGreater(int(str(record[count])), FILE_BYTES)

    def test_path(self) -> None:
        """A trace from the PC shows the master device, then the onsite device, then the web server."""
        with self.session():
            expected = [EXTREMITY_ADDRESS, self.lab.addresses["onsite"], self.web]
            hops = [re.findall(r"[Ff]rom ([\d.]+)", self.ping(self.web, "-t", str(ttl))) for ttl in (1, 2, 3)]
            self.assertEqual(hops, [[address] for address in expected])

    def test_full_packets(self) -> None:
        """The tunnel takes whole Ethernet packets: 1,500 bytes pass without being taken apart."""
        with self.session():
            for size in (1_448, 1_500):
                self.assertIn("1 received", self.ping(self.web, "-M", "do", "-s", str(size - HEADERS)))

    def test_smaller_mtu_on_the_lan(self) -> None:
        """A machine on the LAN that takes no more than 1,400 bytes a packet is served as well."""
        self.limit("web", "eth0", 1400)
        with self.session():
            self.download(1_000_000)
            self.upload(1_000_000)
            self.assertIn("1 received", self.ping(self.web, "-M", "do", "-s", str(1_400 - HEADERS)))

    def test_smaller_mtu_on_the_way(self) -> None:
        """
        Where the customer's line takes 1,400 bytes only, the tunnel passes, and what the PC sends through it and on
        over that line: the PC is told the line's MTU by its router, through the tunnel.
        """
        self.limit("site-router", "eth0", 1400)
        self.limit("inet", "site1", 1400)
        self.serve("server")
        server = self.lab.addresses["server"]
        self.addCleanup(self.forget_mtu)
        with self.session():
            self.download(1_000_000)
            self.upload(1_000_000)
            self.assertIn("mtu = 1400", self.ping(server, "-M", "do", "-s", str(1_500 - HEADERS)))
            self.forget_mtu()
            self.upload(300_000, server)
            self.download(300_000, server)


class BoundaryTests(TrafficTestCase):
    """Who is who, and what does not pass."""

    def test_who_the_lan_sees(self) -> None:
        """The customer's machines see the onsite device's own LAN address, and need to know no other."""
        with self.session():
            self.assertEqual(self.page("client"), self.lab.addresses["onsite"])

    def test_onsite_itself(self) -> None:
        """The PC reaches the onsite device itself, by its LAN address, and the customer's router."""
        self.serve("onsite")
        onsite = self.lab.addresses["onsite"]
        with self.session():
            self.assertIn("1 received", self.ping(onsite))
            self.assertEqual(self.page("host", onsite), "onsite")
            self.download(1_000_000, onsite)
            self.upload(1_000_000, onsite)
            self.assertIn("1 received", self.ping("192.168.1.1"))

    def test_lan_opens_nothing(self) -> None:
        """
        Nobody on the customer's side opens a connection to the PC or to the master device, not even a machine that
        sends its packets for them to the onsite device.
        """
        for host in ("pc", "master"):
            self.serve(host)
        self.assertEqual(self.lab.probe("master", "connect", PC_ADDRESS, "80"), "open")
        self.assertEqual(self.lab.probe("pc", "connect", EXTREMITY_ADDRESS, "80"), "open")
        onsite = self.lab.addresses["onsite"]
        with self.session() as record:
            tunnel = str(record["address"]).partition("/")[0]
            wanted = (PC_ADDRESS, EXTREMITY_ADDRESS, tunnel)
            for address in wanted:
                self.lab.run("web", ["ip", "route", "add", f"{address}/32", "via", onsite], check=True)
                self.addCleanup(self.lab.run, "web", ["ip", "route", "del", f"{address}/32"], check=True)
            self.assertIn("1 received", self.ping(self.web))
            attempts = [("web", address) for address in wanted] + [("onsite", tunnel), ("onsite", PC_ADDRESS)]
            with ThreadPoolExecutor(len(attempts)) as pool:
                came = list(pool.map(lambda each: self.lab.probe(each[0], "connect", each[1], "80"), attempts))
            self.assertEqual(dict(zip(attempts, came, strict=True)), dict.fromkeys(attempts, "silence"))

    def test_own_traffic(self) -> None:
        """
        The devices' own traffic goes where it went before: the master reaches the server by its own line and the
        customer's LAN not at all, the onsite its LAN and the server by the customer's.
        """
        self.serve("server")
        server = self.lab.addresses["server"]
        with self.session():
            seen = [self.lab.probe(host, "get", f"http://{server}/client").strip() for host in ("master", "onsite")]
            self.assertEqual(seen, [SUPPORT_LINE, CUSTOMER_LINE])
            self.assertFalse(self.lab.pings("master", self.web))
            self.assertTrue(self.lab.pings("onsite", self.web))

    def test_pc_uses_the_customers_line(self) -> None:
        """
        All that the PC sends takes the tunnel and leaves by the onsite's LAN interface, or goes nowhere: the
        Internet sees it come from the customer's router, never from the support side, and not without a session.
        """
        self.serve("server")
        server = self.lab.addresses["server"]
        self.assertFalse(self.lab.pings("pc", server))
        with self.session():
            self.assertEqual(self.page("client", server), CUSTOMER_LINE)
            self.assertTrue(self.lab.pings("pc", server))
        self.assertFalse(self.lab.pings("pc", server))

    def test_server_cannot_read(self) -> None:
        """
        Words of a page that the PC fetches are seen on the customer's LAN, where they are sent in the clear, and
        not in anything that enters or leaves the server. The devices say that they use X25519MLKEM768.
        """
        words = PAGE.strip()
        at_server, at_onsite = (self.lab.directory / name for name in ("server.pcap", "onsite.pcap"))
        captures = [self.lab.capture("server", "eth0", at_server), self.lab.capture("onsite", "eth0", at_onsite)]
        try:
            with self.session() as record:
                self.assertEqual(self.page().encode(), words)
                self.download(65_536)
        finally:
            for capture in captures:
                capture.stop(signal.SIGINT)
        self.assertIn(words, at_onsite.read_bytes())
        seen = at_server.read_bytes()
        self.assertGreater(len(seen), 65_536)
        self.assertNotIn(words, seen)
        self.assertNotIn(content(65_536)[:64], seen)
        self.assertEqual(record["kex"], "X25519MLKEM768")
        onsite = [each for each in self.deployment.records(ONSITE) if each["event"] == "up"][-1]
        self.assertEqual((onsite["kex"], onsite["session"]), ("X25519MLKEM768", record["session"]))

    test_server_cannot_read.skip = obstacles([*PROGRAMS, "tcpdump"])  # type: ignore[attr-defined]
