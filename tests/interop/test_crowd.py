"""Crowds of strangers at the doors of a server that runs: devices get in all the same, and the server stays small."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from unittest import skipUnless

from tests.interop import crowd
from tests.interop.commands import CommandCase, Server, reactor
from tests.interop.openssh import SSH, Child

#: Strangers that say nothing, at each door; and of those that talk, or come back when they are thrown out.
SILENT = 10_000
RESTLESS = 500
#: Bytes that the server may grow by.
GROWTH = 24 << 20
#: Lines that it may log of one crowd.
LINES = 50

BANNER = b"SSH-2.0-Slow\r\n"
#: The beginning of a KEXINIT that never ends.
PACKET = b"\0\0\x05\xdc\x04\x14" + bytes(300)
#: The beginning of a TLS record with a ClientHello.
RECORD = b"\x16\x03\x01\x05\xdc\x01\0\x05\xd8\x03\x03" + bytes(300)
HTTP = b"GET / HTTP/1.1\r\nHost: x\r\nX-a: b\r\n" * 20


class CrowdTestCase(CommandCase):
    """Has a server that knows a device."""

    timeout = 240

    async def registered(self) -> Server:
        """A server that knows the device."""
        server = await self.server()
        await self.register(server, "rpi1", "master")
        return server

    async def list(self, server: Server, *, tls: bool) -> None:
        """A device logs in, asks who is here, and leaves."""
        result = await self.command("rdv-master", *self.device(server, "rpi1", tls=tls), "-l")
        self.assertEqual((result.err, result.status), (b"", 0))

    @staticmethod
    def memory(server: Server) -> int:
        """Bytes that the server takes."""
        status = Path(f"/proc/{server.child.transport.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    @staticmethod
    def logged(server: Server) -> int:
        """Lines that the server has logged."""
        return (server.child.out + server.child.err).count(b"\n")


class CrowdTests(CrowdTestCase):
    """While a crowd is at a door, a device logs in, asks who is here, and leaves: within its own limits of time."""

    async def meet(self, server: Server, strangers: int, how: str, *, tls: bool) -> None:
        """Let a crowd come to one door, and a device after it, twice."""
        await self.list(server, tls=tls)
        before, lines = self.memory(server), self.logged(server)
        people = self.crowd(server.tls_port if tls else server.ssh_port, strangers, how)
        await self.until_said(people, b"all here")
        for _ in range(2):
            await self.list(server, tls=tls)
        self.assertLess(self.memory(server) - before, GROWTH)
        self.assertLess(self.logged(server) - lines, LINES)
        self.assertNotIn(b"Traceback", server.child.out + server.child.err)
        people.transport.closeStdin()
        await people.done

    def crowd(self, port: int, strangers: int, how: str) -> Child:
        """A crowd at a port; it goes when the test ends."""
        people = Child(None)
        words = [sys.executable, crowd.__file__, str(port), str(strangers), how]
        reactor.spawnProcess(people, sys.executable, words, env=self.environment, path=str(self.folder))
        self.addCleanup(self._end, people)
        return people

    async def test_silent(self) -> None:
        """Ten thousand say nothing, each from an address of its own, at one door and at the other."""
        server = await self.registered()
        for tls in (False, True):
            await self.meet(server, SILENT, "silent", tls=tls)

    async def test_coming_back(self) -> None:
        """They say nothing, and come back as soon as they are thrown out."""
        server = await self.registered()
        for tls in (False, True):
            await self.meet(server, RESTLESS, "again", tls=tls)

    async def test_slow(self) -> None:
        """They begin what the door is for, or a request to a web server, a byte at a time, and come back."""
        server = await self.registered()
        for what, tls in ((BANNER + PACKET, False), (RECORD, True), (HTTP, False), (HTTP, True)):
            await self.meet(server, RESTLESS, what.hex(), tls=tls)


class DeviceFloodTests(CrowdTestCase):
    """A registered device that does what it may as fast as it can."""

    @skipUnless(SSH, "there is no OpenSSH client")
    async def test_flood(self) -> None:
        """It types commands without end, in several shells, and logs in again and again; another one notices little."""
        server = await self.registered()
        await self.register(server, "rpi9", "master")
        await self.list(server, tls=False)
        before, lines = self.memory(server), self.logged(server)
        ssh = (
            f"{SSH} -F none -T -i {self.folder}/rpi9/identity -o IdentitiesOnly=yes -o StrictHostKeyChecking=no"
            f" -o UserKnownHostsFile=/dev/null -p {server.ssh_port} rpi9@127.0.0.1 >/dev/null 2>&1"
        )
        for command in ("help", "list", "get_role", "nonsense ' unfinished"):
            self.start(["/bin/sh", "-c", f'yes "{command}" | {ssh}'])
        loop = self.start(["/bin/sh", "-c", f"for n in $(seq 1000); do echo exit | {ssh}; done"])
        # The clients, which are the shells' children, end with the server; this is done first.
        self.addCleanup(self._end, server.child)
        for _ in range(3):
            await self.list(server, tls=False)
        self.assertIsNotNone(loop.transport.pid)
        self.assertLess(self.memory(server) - before, GROWTH)
        self.assertLess(self.logged(server) - lines, LINES)
        self.assertNotIn(b"Traceback", server.child.out + server.child.err)
