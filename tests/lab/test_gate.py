"""The firewall of an onsite that lets a part of its LAN be reached: what passes, what is refused, and how fast."""

from __future__ import annotations

import errno
import json
import select
import socket
import struct
import subprocess
import sys
import time

from rdvtwisted.plan import mark_number
from rdvtwisted.routed import CONNECTIONS
from tests.lab.forgery import datagram, echo, icmp, send
from tests.lab.hosts import PATIENCE, PREFIX, ROOT, NamespaceTestCase, inside, run
from tests.lab.rehearsal import OWNER, TUNNEL

PC, ONSITE, LAN_HOST, OTHER = "192.168.38.226", "192.168.7.50", "192.168.7.77", "192.168.7.78"
BEYOND = "203.0.113.9"

#: How long what is refused may take to say so, in seconds; it takes a millisecond. Nobody waits for a timeout.
AT_ONCE = 2.0
#: How long a packet that must not arrive is waited for, in seconds.
IN_VAIN = 0.7


class GateTests(NamespaceTestCase):
    """A PC, a cable that plays the tunnel, an onsite, a LAN with a machine of two addresses."""

    def setUp(self) -> None:
        """Build the path; nothing is applied yet."""
        super().setUp()
        for name in ("pc", "onsite", "lan"):
            self.host(name)
        self.setting("onsite", "net/ipv4/conf/all/rp_filter", "1")
        self.cable("pc", TUNNEL, "onsite", TUNNEL)
        self.cable("onsite", "eth0", "lan", "eth0")
        self.address("pc", TUNNEL, "192.168.128.2/30")
        run("ip", "-n", f"{PREFIX}-pc", "addr", "add", f"{PC}/32", "dev", "lo")
        run("ip", "-n", f"{PREFIX}-pc", "route", "add", "192.168.7.0/24", "dev", TUNNEL, "src", PC)
        for address in (LAN_HOST, OTHER, "192.168.7.1"):
            self.address("lan", "eth0", f"{address}/24")
        self.address("onsite", "eth0", f"{ONSITE}/24", "192.168.7.1")
        for host in ("pc", "onsite"):
            # Without ARP a frame goes to the sender's own hardware address, which is the receiver's too: a tunnel.
            run("ip", "-n", f"{PREFIX}-{host}", "link", "set", TUNNEL, "address", "02:00:00:00:00:01", "arp", "off")
            self.setting(host, f"net/ipv6/conf/{TUNNEL}/disable_ipv6", "0")

    def keep(self, scope: str) -> None:
        """Have the onsite let this scope pass."""
        program = [sys.executable, "-m", "tests.lab.gatekeeper", str(self.directory), "eth0", "192.168.128.1/30", scope]
        self.keeper = subprocess.Popen(
            inside("onsite", *program), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(self.keeper.communicate)
        self.addCleanup(self.keeper.kill)
        self.assertFalse(self._said())

    def amend(self, scope: str) -> None:
        """Have the onsite let this scope pass instead."""
        self._tell(scope)
        self.assertFalse(self._said())

    def _tell(self, line: str) -> None:
        assert self.keeper.stdin is not None
        self.keeper.stdin.write(f"{line}\n")
        self.keeper.stdin.flush()

    def _said(self) -> bool:
        """Whether the onsite's network is as before everything, as it says next."""
        assert self.keeper.stdout is not None
        found: bool = json.loads(self.keeper.stdout.readline())["as before"]
        return found

    # What the PC sees

    def connect(self, address: str, port: int) -> str:
        """How an attempt to connect by TCP ends, at once: C{open}, C{refused}, C{prohibited} or C{silent}."""
        opening = self.socket("pc", socket.SOCK_STREAM)
        opening.settimeout(AT_ONCE)
        try:
            opening.connect((address, port))
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silent"
        except OSError as error:
            return _word(error)
        return "open"

    def ask(self, address: str, port: int) -> str:
        """How a datagram ends, at once: C{echo}, C{prohibited}, C{refused} or C{silent}."""
        asking = self.socket("pc", socket.SOCK_DGRAM)
        asking.settimeout(AT_ONCE)
        asking.connect((address, port))
        asking.send(b"?")
        try:
            asking.recv(10)
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silent"
        except OSError as error:
            return _word(error)
        return "echo"

    def ping(self, address: str) -> str:
        """How a ping ends, at once: C{echo}, C{prohibited} or C{silent}."""
        command = inside("pc", "ping", "-c1", f"-W{AT_ONCE:.0f}", address)
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        if ended.returncode == 0:
            return "echo"
        return "prohibited" if "filtered" in ended.stdout.lower() else "silent"

    def serve(self, *ports: int, host: str = "lan", echo: tuple[int, ...] = ()) -> None:
        """Have a host listen on TCP ports, and answer datagrams on UDP ports."""
        for port in ports:
            self.socket(host, socket.SOCK_STREAM, "0.0.0.0", port)
        for port in echo:
            script = (
                f"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', {port}))\n"
                "print(flush=True)\n"
                "while True: data, who = s.recvfrom(99); s.sendto(data, who)"
            )
            process = subprocess.Popen(inside(host, sys.executable, "-c", script), stdout=subprocess.PIPE)
            self.addCleanup(process.communicate)
            self.addCleanup(process.kill)
            assert process.stdout is not None
            process.stdout.readline()

    # The story

    def test_ports(self) -> None:
        """A port that is allowed works; the next one, another machine, another protocol are refused at once."""
        self.serve(80, 81, 82, echo=(53, 54))
        self.keep(f"{LAN_HOST}:tcp/80-81 {LAN_HOST}:udp/53")
        began = time.monotonic()
        self.assertEqual(
            [self.connect(LAN_HOST, port) for port in (80, 81, 82)] + [self.connect(OTHER, 80)],
            ["open", "open", "refused", "refused"],
        )
        self.assertEqual([self.ask(LAN_HOST, 53), self.ask(LAN_HOST, 54)], ["echo", "prohibited"])
        self.assertEqual(self.ask(OTHER, 53), "prohibited")
        self.assertEqual(self.ping(LAN_HOST), "prohibited")
        self.assertLess(time.monotonic() - began, 2 * AT_ONCE)

    def test_refused_by_the_gate(self) -> None:
        """What was refused was refused by the firewall, not by the machine behind it."""
        self.serve(81)
        self.keep(f"{LAN_HOST}:tcp/80")
        self.assertEqual(self.connect(LAN_HOST, 81), "refused")
        self.amend("*")
        self.assertEqual(self.connect(LAN_HOST, 81), "open")

    def test_ping_only(self) -> None:
        """ICMP alone can be let through."""
        self.serve(80)
        self.keep(f"{LAN_HOST}:icmp")
        self.assertEqual((self.ping(LAN_HOST), self.ping(OTHER)), ("echo", "prohibited"))
        self.assertEqual(self.connect(LAN_HOST, 80), "refused")

    def test_onsite_itself(self) -> None:
        """The onsite is a place as any other: its own ports have to be within the scope, too, by any address."""
        self.serve(22, 80, host="onsite", echo=(53,))
        self.serve(80)
        self.keep(f"{LAN_HOST} {ONSITE}:tcp/80")
        self.assertEqual([self.connect(ONSITE, port) for port in (80, 22)], ["open", "refused"])
        self.assertEqual(self.connect("192.168.128.1", 80), "refused")
        self.assertEqual((self.ask(ONSITE, 53), self.ping(ONSITE)), ("prohibited", "prohibited"))
        self.assertEqual(self.connect(LAN_HOST, 80), "open")

    def test_nothing(self) -> None:
        """A scope of one machine that is not there lets nothing else be reached."""
        self.serve(80)
        self.serve(80, host="onsite")
        self.keep("192.168.7.99")
        self.assertEqual([self.connect(address, 80) for address in (LAN_HOST, ONSITE)], ["refused", "refused"])

    def test_onsite_may_ask(self) -> None:
        """What the onsite itself asks by the tunnel is answered, and there by nobody else; its own LAN is as ever."""
        self.serve(80)
        self.serve(80, host="onsite")
        self.keep(f"{LAN_HOST}:tcp/80")
        for scope in (f"{LAN_HOST}:tcp/80", "*"):
            self.amend(scope)
            self.assertTrue(self.pings("onsite", "192.168.128.2", PATIENCE, "-I", TUNNEL))
        # Without that wish the tunnel's addresses are as foreign as any.
        before = self.carried()
        self.assertFalse(self.pings("onsite", "192.168.128.2", IN_VAIN))
        self.assertEqual(self.carried(), before)
        self.assertTrue(self.pings("onsite", OTHER))
        self.assertTrue(self.pings("lan", ONSITE))
        reaching = self.socket("lan", socket.SOCK_STREAM)
        reaching.connect((ONSITE, 80))

    def test_disguise(self) -> None:
        """A packet in the name of a connection that the onsite has with somebody else does not get in by the tunnel."""
        self.serve(80)
        serving = self.socket("onsite", socket.SOCK_DGRAM, ONSITE, 4000)
        self.keep(f"{LAN_HOST}:tcp/80")
        # The onsite asks a machine of its LAN, and one beyond; the PC answers in their name.
        for asked in (OTHER, BEYOND):
            serving.sendto(b"?", (asked, 4001))
        for scope in (f"{LAN_HOST}:tcp/80", "*"):
            self.amend(scope)
            for asked in (OTHER, BEYOND):
                send("pc", TUNNEL, datagram(asked, 4001, ONSITE, 4000, b"!"))
                self.assertEqual(select.select([serving], [], [], IN_VAIN)[0], [])
        self.tear_firewall("onsite")
        for asked in (OTHER, BEYOND):
            send("pc", TUNNEL, datagram(asked, 4001, ONSITE, 4000, b"!"))
            self.assertEqual(serving.recvfrom(1), (b"!", (asked, 4001)))

    def test_unasked_disguise(self) -> None:
        """Nor does one that the onsite has not asked for, from a neighbour's address, or to many; others do."""
        serving = self.socket("onsite", socket.SOCK_DGRAM, "0.0.0.0", 4000)
        forged = [
            datagram(OTHER, 4001, ONSITE, 4000, b"!"),
            datagram(PC, 4001, "224.0.0.1", 4000, b"!"),
            datagram(PC, 4001, "255.255.255.255", 4000, b"!"),
        ]
        run("ip", "-n", f"{PREFIX}-pc", "route", "add", "224.0.0.0/4", "dev", TUNNEL)
        self.keep("*")
        for each in forged:
            send("pc", TUNNEL, each)
        self.assertEqual(select.select([serving], [], [], IN_VAIN)[0], [])
        send("pc", TUNNEL, datagram(PC, 4001, ONSITE, 4000, b"?"))
        self.assertEqual(serving.recvfrom(1), (b"?", (PC, 4001)))
        self.tear_firewall("onsite")
        for each in forged:
            send("pc", TUNNEL, each)
            self.assertEqual(serving.recv(1), b"!")

    def test_redirect(self) -> None:
        """The PC cannot tell the onsite, in its router's name, of another way to somewhere."""
        redirect = icmp(
            *("192.168.7.1", ONSITE, 5, 1),
            socket.inet_aton(OTHER),
            echo(ONSITE, BEYOND, answer=True),
        )
        before = self.way()
        self.assertIn("via 192.168.7.1 ", before)
        # The kernel believes in routers only that it has seen.
        self.assertTrue(self.pings("onsite", OTHER))
        for number, scope in enumerate(("*", f"{ONSITE}:icmp")):
            (self.amend if number else self.keep)(scope)
            send("pc", TUNNEL, echo(BEYOND, ONSITE), redirect)
            self.assertEqual(self.way(), before)
        # Either of the two bars would do.
        self.tear_firewall("onsite")
        send("pc", TUNNEL, redirect)
        self.assertEqual(self.way(), before)
        self.setting("onsite", f"net/ipv4/conf/{TUNNEL}/accept_redirects", "1")
        send("pc", TUNNEL, redirect)
        self.assertIn(f"via {OTHER} ", self.way())

    def test_too_large(self) -> None:
        """Nor, after it has spoken to it in somebody's name, that this one takes small packets only."""
        large = icmp(
            *(PC, ONSITE, 3, 4),
            struct.pack("!HH", 0, 600),
            echo(ONSITE, BEYOND, answer=True),
        )
        before = self.way()
        for number, scope in enumerate(("*", f"{ONSITE}:icmp")):
            (self.amend if number else self.keep)(scope)
            send("pc", TUNNEL, echo(BEYOND, ONSITE), large)
            self.assertEqual(self.way(), before)
        self.tear_firewall("onsite")
        send("pc", TUNNEL, large)
        self.assertIn("mtu 600", self.way())

    # How much

    def test_most_connections(self) -> None:
        """The PC opens as many connections as there is room for it, each counted once, and what is open goes on."""
        self.serve(80)
        self.keep("*")
        kept, peer = self.opened(81)
        asking = self.socket("pc", socket.SOCK_DGRAM)
        for _ in range(CONNECTIONS):
            asking.sendto(b"?", (LAN_HOST, 9))
        self.assertEqual(self.connect(LAN_HOST, 80), "open")
        for port in range(1_000, 1_000 + CONNECTIONS + 500):
            asking.sendto(b"?", (OTHER, port))
        tracked = self.tracked()
        self.assertLessEqual(tracked, CONNECTIONS)
        self.assertGreater(tracked, CONNECTIONS * 9 // 10)
        self.assertEqual(self.connect(LAN_HOST, 80), "silent")
        kept.sendall(b"still")
        self.assertEqual(peer.recv(5), b"still")
        self.assertTrue(self.pings("onsite", OTHER))

    def tracked(self) -> int:
        """How many connections out of the tunnel the onsite keeps in mind."""
        table = run(*inside("onsite", "cat", "/proc/net/nf_conntrack"))
        return sum(f"mark={mark_number(OWNER)} " in line for line in table.splitlines())

    def way(self) -> str:
        """How the onsite's own packets to somewhere on the Internet go."""
        return run("ip", "-n", f"{PREFIX}-onsite", "route", "get", BEYOND)

    def carried(self) -> int:
        """How many packets the onsite has sent into the tunnel."""
        link = json.loads(run("ip", "-n", f"{PREFIX}-onsite", "-s", "-j", "link", "show", TUNNEL))[0]
        packets: int = link["stats64"]["tx"]["packets"]
        return packets

    # Changes

    def opened(self, port: int, host: str = "lan", address: str = LAN_HOST) -> tuple[socket.socket, socket.socket]:
        """A connection from the PC, with its two ends."""
        listening = self.socket(host, socket.SOCK_STREAM, "0.0.0.0", port)
        opening = self.socket("pc", socket.SOCK_STREAM)
        opening.connect((address, port))
        accepted, _ = listening.accept()
        accepted.settimeout(PATIENCE)
        self.addCleanup(accepted.close)
        return opening, accepted

    def test_change(self) -> None:
        """A change ends what is not permitted any more with its next packet, and leaves the rest alone."""
        self.keep("*")
        kept, peer = self.opened(80)
        cut, _ = self.opened(81)
        for number in range(3):
            self.amend(f"{LAN_HOST}:tcp/80 10.0.0.{number}")
            kept.sendall(b"still")
            self.assertEqual(peer.recv(5), b"still")
            peer.sendall(b"here")
            self.assertEqual(kept.recv(4), b"here")
        cut.sendall(b"!")
        self.assertRaises(ConnectionResetError, cut.recv, 1)
        self.amend(f"{LAN_HOST}:tcp/80-81")
        self.assertEqual(self.connect(LAN_HOST, 81), "open")

    def test_change_from_behind(self) -> None:
        """What the LAN or the onsite sends in a connection that is not permitted any more does not reach the PC."""
        for host, address in (("lan", LAN_HOST), ("onsite", ONSITE)):
            if host == "lan":
                self.keep("*")
            else:
                self.amend("*")
            cut, peer = self.opened(81, host, address)
            self.amend("192.168.7.99")
            peer.sendall(b"secret")
            # The reset is for the one who sends.
            self.assertRaises((ConnectionResetError, BrokenPipeError), peer.recv, 1)
            self.assertEqual(select.select([cut], [], [], IN_VAIN)[0], [])

    def test_stream_of_datagrams(self) -> None:
        """A stream of datagrams towards the PC ends, though the PC sends nothing."""
        serving = self.socket("lan", socket.SOCK_DGRAM, LAN_HOST, 5000)
        self.keep("*")
        asking = self.socket("pc", socket.SOCK_DGRAM)
        asking.sendto(b"start", (LAN_HOST, 5000))
        _, who = serving.recvfrom(10)
        serving.sendto(b"1", who)
        self.assertEqual(asking.recv(10), b"1")
        self.amend(f"{LAN_HOST}:tcp")
        serving.sendto(b"2", who)
        self.assertEqual(select.select([asking], [], [], IN_VAIN)[0], [])

    def test_errors_pass(self) -> None:
        """Who may be reached may tell of trouble: a closed port, a packet that is too large."""
        self.keep(f"{LAN_HOST}:udp/53-60 {LAN_HOST}:tcp/80")
        self.assertEqual((self.ask(LAN_HOST, 55), self.connect(LAN_HOST, 80)), ("refused", "refused"))

    def test_no_trace(self) -> None:
        """After a session with changes everything is as before."""
        self.keep(f"{LAN_HOST}:tcp/80")
        for scope in ("*", f"{LAN_HOST}:tcp/81", "*"):
            self.amend(scope)
        self.opened(80)
        self._tell("")
        self.assertTrue(self._said())

    def test_many(self) -> None:
        """A thousand machines with a port each, and one with a hundred ports, are no trouble."""
        self.serve(80, 401)
        places = [f"10.0.{high}.{low}:tcp/{1000 + low}" for high in range(4) for low in range(0, 250, 2)]
        ports = ",".join(map(str, range(301, 425, 2)))
        self.keep(" ".join([*places, f"{LAN_HOST}:tcp/{ports}"]))
        self.assertEqual([self.connect(LAN_HOST, port) for port in (401, 80)], ["open", "refused"])


def _word(error: OSError) -> str:
    # ICMP "administratively prohibited" is one of these two to Linux, by protocol and moment.
    if error.errno in (errno.EHOSTUNREACH, errno.EACCES):
        return "prohibited"
    return str(error)
