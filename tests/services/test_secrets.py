"""No secret is in any log, on no device and not on the server, at no level; nor in the audit trail."""

from __future__ import annotations

import os
import shutil
import tempfile
from io import StringIO
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, LogLevel, eventAsText, globalLogPublisher
from twisted.trial.unittest import TestCase

from rdvtwisted.adapters.store.auditfiles import AuditFiles
from rdvtwisted.adapters.store.settings import read_settings
from rdvtwisted.audit import Entry
from rdvtwisted.errors import RDVError
from rdvtwisted.requests import GetTunnelParameters, GetVtunParameters, Publish
from rdvtwisted.services import assembly, link
from rdvtwisted.services.administrator import Terminal
from rdvtwisted.services.assembly import load_identity, make_master, make_onsite
from rdvtwisted.services.device import DeviceSettings
from rdvtwisted.services.link import open_link
from rdvtwisted.services.master import MasterSettings
from rdvtwisted.services.rdvctl import main as rdvctl
from rdvtwisted.services.server import ServerService, make_server
from rdvtwisted.testing.glue import MemoryGlue
from rdvtwisted.testing.network import MemoryNetwork
from rdvtwisted.tickets import TicketOffice
from rdvtwisted.values import Profile, Role
from tests.services.neighbours import SITE

reactor: Any = global_reactor

#: Characters of the shortest text that is taken for a part of a key.
SHORTEST_PART = 30
#: A password that an operator gives for the database.
PASSWORD = "correct-horse-battery"


class Logbook:
    """All that is logged in this process, as text, and who waits for a word in it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.levels: set[LogLevel] = set()
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def __call__(self, event: LogEvent) -> None:
        """One more event: its text with any traceback, and all its fields, which some observer may write."""
        level = event.get("log_level")
        if level is not None:
            self.levels.add(level)
        fields = {
            name: value for name, value in event.items() if name not in ("log_logger", "log_source", "log_failure")
        }
        self.lines.append(f"{eventAsText(event)} {fields!r}")
        for each in [each for each in self._waiting if each[0] in self.lines[-1]]:
            self._waiting.remove(each)
            each[1].callback(None)

    def until(self, text: str) -> Deferred[None]:
        """Wait until somebody logs C{text}."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((text, waiting))
        return waiting

    def holds(self, secret: str) -> list[str]:
        """The lines with a secret."""
        return [line for line in self.lines if secret in line]


class SecretsTests(TestCase):
    """A server with its devices in this process, on 127.0.0.1, without any network of their own."""

    timeout = 60

    def setUp(self) -> None:
        """A folder whose name is short enough for sockets; a log that hears all."""
        self.folder = Path(tempfile.mkdtemp(prefix="rdv-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.logbook = Logbook()
        globalLogPublisher.addObserver(self.logbook)
        self.addCleanup(globalLogPublisher.removeObserver, self.logbook)
        self.tickets: list[str] = []
        issue = TicketOffice.issue

        def note(office: TicketOffice, *arguments: Any) -> str:
            ticket = issue(office, *arguments)
            self.tickets.append(ticket)
            return ticket

        self.patch(TicketOffice, "issue", note)
        # What a device would configure, it configures in memory.
        self.patch(assembly, "LinuxNetwork", lambda *_, **__: MemoryNetwork(SITE))
        self.patch(assembly, "require_net_admin", lambda: None)
        self.patch(assembly, "PROGRAMS", self.folder / "programs")
        self.over: Deferred[None] = Deferred()
        self.patch(assembly, "stop", lambda _: self.over.callback(None))

    def serve(self) -> ServerService:
        """A server that runs."""
        overrides = {
            "state_directory": str(self.folder / "server"),
            "ssh.address": "127.0.0.1",
            "ssh.port": "0",
            "tls.address": "127.0.0.1",
            "tls.port": "0",
            "tls.names": "localhost",
            "log.level": "debug",
        }
        server = make_server(os.devnull, {}, overrides, reactor)
        server.startService()
        self.addCleanup(self.stop, server)
        return server

    async def stop(self, service: Any) -> None:
        """Stop a service, if it still runs."""
        if service.running:
            await service.stopService()

    def administrate(self, *arguments: str) -> None:
        """Give the server's administrator's command."""
        out = StringIO()
        words = ["--config", os.devnull, "--state-dir", str(self.folder / "server"), *arguments]
        self.assertEqual(
            rdvctl(words, Terminal(StringIO(), out, out, {}, reactor.seconds, root=True)), 0, out.getvalue()
        )

    def settings(self, account: str, role: Role) -> DeviceSettings:
        """Those of a device that the server knows; the server's port is still to be told."""
        state = self.folder / account
        settings = DeviceSettings(
            role=role,
            account=account,
            host="127.0.0.1",
            port=0,
            tls=False,
            state=state,
            identity=state / "identity",
            known_hosts=state / "known_hosts",
            known_peers=state / "known_peers",
            authority=state / "ca.pem",
        )
        self.patch(assembly, "say", lambda line: None)
        who = load_identity(settings)
        self.administrate("device", "add", account, "--role", role.value, "--key", who.public.line)
        return settings

    def secrets(self) -> dict[str, str]:
        """All that nobody may know, and what it is."""
        found = dict.fromkeys(self.tickets, "a ticket")
        keys = [path for path in self.folder.rglob("*") if path.is_file() and b"PRIVATE KEY-----" in path.read_bytes()]
        self.assertGreaterEqual(len(keys), 6, "host keys, authority, certificate, devices")
        for path in keys:
            private = False
            lines = []
            for line in path.read_text().splitlines():
                private = line.endswith("PRIVATE KEY-----") if line.startswith("-----") else private
                if private and not line.startswith("-----"):
                    lines.append(line)
            # The first lines of an OpenSSH key hold the public half.
            for line in lines[2:] if "OPENSSH" in path.read_text() else lines:
                if len(line) >= SHORTEST_PART:
                    found[line] = f"a part of {path.name}"
        return found

    async def session(self) -> None:
        """A whole session of two devices, from registration to farewell; and one more device, which asks for vtun."""
        # Before the server runs: its reactor is this one, and the command would wait for itself.
        onsite_settings, master_settings, lone = (
            self.settings(id, role)
            for id, role in (("rpi1100", Role.ONSITE), ("rpi1101", Role.MASTER), ("rpi1102", Role.MASTER))
        )
        self.administrate("access", "allow", "*", "*")
        server = self.serve()
        server.registry.ends.glue = MemoryGlue()
        port = server.bound["ssh"].port
        onsite = make_onsite(
            evolve(onsite_settings, port=port),
            interface="eth0",
            session_seconds=None,
            report=None,
            backends=["tls"],
            reactor=reactor,
        )
        online = self.logbook.until("Online. A master will reach")
        onsite.startService()
        self.addCleanup(self.stop, onsite)
        await online
        master = make_master(
            evolve(master_settings, port=port),
            MasterSettings(onsite="rpi1100", extremity="eth1", backends=("tls",)),
            report=None,
            terminal=False,
            reactor=reactor,
        )
        up = self.logbook.until("Remote session to onsite rpi1100 is now established")
        master.startService()
        self.addCleanup(self.stop, master)
        await up
        await self.stop(master)
        await self.over
        await self.ask_for_vtun(evolve(lone, port=port))
        await self.stop(onsite)
        await self.stop(server)

    async def ask_for_vtun(self, settings: DeviceSettings) -> None:
        """Ask as an old device does; and for parameters of a session that is not there."""
        connection = await open_link(settings, load_identity(settings), assembly.Authority(settings.authority), reactor)
        try:
            await connection.ask(Publish(Profile(lan=IPv4Interface("10.9.8.7/24"), backends=("vtun",))))
            pairs = await connection.ask(GetVtunParameters())
            self.vtun = dict(pairs)["tunnel_secret"]
            await self.assertFailure(connection.ask(GetTunnelParameters()), RDVError)
        finally:
            await connection.close()

    async def test_session(self) -> None:
        """Through a whole session at level debug, nobody's key, ticket or vtun secret is in a log or in the trail."""
        await self.session()
        secrets = {**self.secrets(), self.vtun: "a vtun secret"}
        self.assertGreaterEqual(len(self.tickets), 2)
        self.assertLessEqual({LogLevel.debug, LogLevel.info}, self.logbook.levels)
        self.assertTrue(self.logbook.holds("ticket: (not logged)"))
        self.assertTrue(self.logbook.holds("tunnel_secret: (not logged)"))
        lines = [line.decode("ascii") for line in AuditFiles.within(str(self.folder / "server")).lines()]
        actions = [Entry.from_line(line.encode()).facts["action"] for line in lines]
        self.assertLessEqual(
            {"device-added", "device-arrived", "session-opened", "session-up", "session-ended"}, set(actions)
        )
        told = {what: self.logbook.holds(secret) for secret, what in secrets.items() if self.logbook.holds(secret)}
        self.assertEqual(told, {})
        self.assertEqual([what for secret, what in secrets.items() if secret in "".join(lines)], [])

    async def test_noticed(self) -> None:
        """Were a secret logged, this would be noticed."""
        self.patch(link, "_without_secrets", lambda reply: reply.output)
        await self.session()
        for secret in (*self.tickets, self.vtun):
            self.assertTrue(self.logbook.holds(secret))

    def test_database_password(self) -> None:
        """The password in the database's URL is in no message, whatever is wrong with it."""
        for url in (
            f"postgresql+nodriver://rdv:{PASSWORD}@127.0.0.1/rdv",
            f"postgresql://rdv:{PASSWORD}@127.0.0.1:1/rdv",
            f"nonsense:{PASSWORD}",
            f"sqlite://rdv:{PASSWORD}@host/rdv",
        ):
            overrides = {"state_directory": str(self.folder / "server"), "inventory.url": url}
            error = self.assertRaises(RDVError, make_server, os.devnull, {}, overrides, reactor)
            self.assertNotIn(PASSWORD, str(error))
            self.assertNotIn(PASSWORD, repr(read_settings(os.devnull, {}, overrides, root=True)))
        self.assertEqual(self.logbook.holds(PASSWORD), [])
