"""The product's device end of vtun, which drives a stock client: against stock servers, and against our own."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from rdvtwisted.values import Mode
from tests.interop.vtun_device import DEVICE, INTERFACE
from tests.interop.vtund import MTU, PORT, TUNNEL, VTUND, Program, World, obstacle
from tests.readable import Readable
from tunnels.vtun_handshake import session_name

SESSION = session_name(DEVICE)
SECRET = "k3eps-out_every+mark=of!$%&*^@~."

#: What an old server has, but for the programs that report to its manager.
SERVER = """\
options {{
    port {port};
    syslog daemon;
    ppp /usr/sbin/pppd;
    ifconfig /sbin/ifconfig;
    route /sbin/route;
    ip /sbin/ip;
}}
{session} {{
    device rdvserver;
    passwd {secret};
    type {type};
    proto tcp;
    compress lzo:9;
    encrypt no;
    keepalive yes;
    up {{
        {before}
        ifconfig "%% {server} {far} mtu {mtu}";
    }};
}}
"""
FAR = {Mode.L3: f"pointopoint {TUNNEL['device']}", Mode.L2: "netmask 255.255.255.252"}


def vtunds(ours: Callable[[Path], bool]) -> list[int]:
    """The vtund processes of this machine whose directories in C{/proc} are C{ours}."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "exe") == VTUND and ours(path):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def children(program: Program) -> list[int]:
    """The vtund processes that a program has started itself."""
    return vtunds(lambda path: f"PPid:\t{program.transport.pid}\n" in (path / "status").read_text())


class VtunDeviceCase(TestCase):
    """Has two namespaces, and a folder for configurations."""

    timeout = 90
    skip = obstacle()

    def setUp(self) -> None:
        """Build the world."""
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir(mode=0o700)
        self.world = World()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.world.remove()))
        self.world.build()

    async def stock_server(self, mode: Mode, before: str = "") -> Program:
        """
        Run a stock server.

        @param before: what it runs before it brings its interface up.
        """
        file = self.folder / "server.conf"
        kind = "tun" if mode is Mode.L3 else "ether"
        file.write_text(
            SERVER.format(
                port=PORT,
                session=SESSION,
                secret=SECRET,
                type=kind,
                server=TUNNEL["server"],
                far=FAR[mode],
                mtu=MTU,
                before=before,
            )
        )
        assert VTUND is not None
        server = self.world.start("server", VTUND, "-n", "-s", "-f", str(file))
        self.addCleanup(self.stop, server)
        await server.saying("VTUN server")
        return server

    async def stop(self, server: Program) -> None:
        """End a stock server, with the sessions that it has: those go on otherwise."""
        if server.status is None:
            for pid in children(server):
                os.kill(pid, signal.SIGKILL)
            server.signal("KILL")
            await server.ended

    def device(self, mode: Mode, secret: str = SECRET, *options: str) -> Program:
        """Run the device's end."""
        words = ["tests.interop.vtun_device", *options, str(self.folder), str(mode), secret]
        words = [sys.executable, "-B", "-m", *words]
        return self.world.start("device", *words)

    async def leave(self, device: Program) -> None:
        """Have a device close its tunnel, and end."""
        device.transport.closeChildFD(0)
        await device.saying("closed")
        await device.ended

    def said(self, program: Program, word: str) -> Any:
        """The value that a program has said last after this word."""
        lines = [line for line in program.said.splitlines() if line.startswith(f"{word} ")]
        return json.loads(lines[-1].removeprefix(f"{word} "))

    def assert_nothing_left(self) -> None:
        """No program, no file."""
        self.assertEqual(vtunds(lambda path: os.readlink(path / "cwd").startswith(str(self.folder))), [])
        self.assertEqual(list((self.folder / "programs").iterdir()), [])
        self.assertEqual([path.name for path in (self.folder / "journals").glob("*.json")], [])


class StockServerTests(VtunDeviceCase):
    """Sessions with a stock vtund as server, as old servers run it."""

    async def carries(self, mode: Mode) -> None:
        server = await self.stock_server(mode)
        device = self.device(mode)
        await device.saying("carrying")
        for host, other in (("device", "server"), ("server", "device")):
            self.assertTrue(await self.world.pings(host, TUNNEL[other]), f"{host} to {other}: {device.said}")
            full = await self.world.pings(host, TUNNEL[other], "-s", str(MTU - 28), "-M", "do")
            self.assertTrue(full, f"{host} to {other}, full size")
        device.transport.write(b"\n")
        await device.saying("report")
        report = self.said(device, "report")
        self.assertGreaterEqual(report["sent_packets"], 4)
        self.assertGreaterEqual(report["received_bytes"], 2 * (MTU + 84))
        self.assertEqual(report["round_trip"] is not None, mode is Mode.L3)
        await self.leave(device)
        self.assertEqual(await self.world.interfaces("device"), {"lo", "cable"})
        await self.stop(server)
        self.assert_nothing_left()

    async def test_routed(self) -> None:
        """In L3, packets of every size pass both ways, compressed as the server wants it; nothing is left after."""
        await self.carries(Mode.L3)

    async def test_bridged(self) -> None:
        """In L2 as well."""
        await self.carries(Mode.L2)

    async def test_one_after_the_other(self) -> None:
        """Five sessions in a row come up, though the device has packets for the server from the first moment on."""
        server = await self.stock_server(Mode.L3)
        for _ in range(5):
            device = self.device(Mode.L3, SECRET, "--eager")
            await device.saying("carrying")
            self.assertTrue(await self.world.pings("server", TUNNEL["device"]))
            await self.leave(device)
        await self.stop(server)
        self.assert_nothing_left()

    async def test_wrong_secret(self) -> None:
        """A server that knows another secret is understood, in one line."""
        server = await self.stock_server(Mode.L3)
        device = self.device(Mode.L3, "wr0ng")
        await device.ended
        reason = "the server does not let the vtun client in: it knows another secret, or no such tunnel"
        self.assertEqual(device.said.splitlines(), [f"failed {reason}", f"lost {reason}"])
        self.assertEqual(await self.world.interfaces("device"), {"lo", "cable"})
        await self.stop(server)
        self.assert_nothing_left()

    async def test_server_gone(self) -> None:
        """When the server ends, the tunnel is over at once and says so."""
        server = await self.stock_server(Mode.L3)
        device = self.device(Mode.L3)
        await device.saying("carrying")
        await self.stop(server)
        await device.ended
        self.assertEqual(device.said.splitlines()[-1], "lost the server has closed the vtun tunnel")
        await server.ended
        self.assert_nothing_left()

    async def test_nobody_there(self) -> None:
        """A port at the server that nobody listens on is one clear line."""
        device = self.device(Mode.L3)
        await device.ended
        self.assertIn("failed the server does not open the vtun tunnel: ", device.said)
        self.assert_nothing_left()


class KilledTests(VtunDeviceCase):
    """A device that is killed in a session."""

    async def test_killed(self) -> None:
        """Its vtund ends with it; the interface goes at the next start, which can have a session at once."""
        server = await self.stock_server(Mode.L3)
        device = self.device(Mode.L3)
        await device.saying("carrying")
        (ours,) = children(device)
        watch = Readable(os.pidfd_open(ours))
        device.signal("KILL")
        await watch.ready
        self.assertIn(INTERFACE, await self.world.interfaces("device"))
        again = self.device(Mode.L3)
        await again.saying("carrying")
        self.assertIn("swept interface", again.said)
        await self.leave(again)
        self.assertEqual(await self.world.interfaces("device"), {"lo", "cable"})
        await self.stop(server)
        self.assert_nothing_left()


class OwnServerTests(VtunDeviceCase):
    """Sessions with the product's own server end."""

    async def carries(self, mode: Mode) -> None:
        """One session; the server sends from the first moment on."""
        server = await self.world.serve(mode, SESSION, SECRET)
        device = self.device(mode)
        await device.saying("carrying")
        await server.saying("1 carrying")
        for host, other in (("server", "device"), ("device", "server")):
            self.assertTrue(await self.world.pings(host, TUNNEL[other], "-s", str(MTU - 28), "-M", "do"))
        await self.leave(device)
        await server.saying("1 ended")
        self.assert_nothing_left()

    async def test_routed(self) -> None:
        """In L3, with no need to wait until the server has settled."""
        await self.carries(Mode.L3)

    async def test_bridged(self) -> None:
        """In L2, where the server knows at once that the device's interface is up."""
        await self.carries(Mode.L2)
