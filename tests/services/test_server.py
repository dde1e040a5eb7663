"""The server: put together or refused as a whole, opened and closed in order, kept up to date."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.control import IAdministration
from rdvtwisted.adapters.store.auditfiles import AuditFiles
from rdvtwisted.adapters.store.inventory import open_inventory
from rdvtwisted.audit import Deed, Entry
from rdvtwisted.config import ServerSettings
from rdvtwisted.errors import AddressInUse, ConfigError, StateDirectoryError
from rdvtwisted.goodbye import stopping
from rdvtwisted.services import sockets
from rdvtwisted.services.server import LOCK_NAME, ServerService, make_server
from rdvtwisted.services.upkeep import CERTIFICATE_SECONDS, INVENTORY_SECONDS
from tests.adapters.store.keys import onsite

#: 2024-01-01
NOW = 1_704_067_200
DAY = 86_400.0


class _Port:
    """A port of a reactor in memory, which can be paused."""

    def __init__(self, events: list[str], name: str) -> None:
        self.events = events
        self.name = name

    def stopReading(self) -> None:
        self.events.append(f"{self.name} pauses")

    def startReading(self) -> None:
        self.events.append(f"{self.name} goes on")

    def stopListening(self) -> Deferred[None]:
        self.events.append(f"{self.name} closes")
        return succeed(None)


class _PortAtPath(_Port):
    """One that is at a path for as long as it is open, as a UNIX socket is."""

    def __init__(self, events: list[str], name: str, path: str) -> None:
        super().__init__(events, name)
        self.path = Path(path)
        self.path.touch()

    def stopListening(self) -> Deferred[None]:
        self.path.unlink()
        return super().stopListening()


class _Reactor(MemoryReactorClock):
    """Notes which ports are opened and closed."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = NOW
        self.events: list[str] = []

    def adoptStreamPort(self, fileno: int, family: int, factory: Any) -> _Port:
        name = type(factory).__name__
        self.events.append(f"{name} opens")
        return _Port(self.events, name)

    def callInThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        callable(*args, **kwargs)

    def listenUNIX(self, address: str, *args: Any, **keywords: Any) -> _Port:
        self.events.append("control opens")
        return _PortAtPath(self.events, "control", address)


class ServerCase(SynchronousTestCase):
    """A state directory, and a reactor in memory."""

    #: Host keys of the first server that was made: making them anew takes longer than the tests.
    keys: dict[str, bytes] = {}

    def setUp(self) -> None:
        """Make them; the directory has a short name, as the control socket needs."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.state = Path(folder.name, "state")
        self.reactor = _Reactor()
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def make(self, **settings: str) -> ServerService:
        """A server on 127.0.0.1, not started; a double underscore stands for the dot in a setting's name."""
        if not self.state.exists():
            self.state.mkdir(0o700)
            for name, key in self.keys.items():
                (self.state / name).write_bytes(key)
                (self.state / name).chmod(0o600)
        overrides = {
            "state_directory": str(self.state),
            "ssh.address": "127.0.0.1",
            "ssh.port": "0",
            "tls.address": "127.0.0.1",
            "tls.port": "0",
            "tls.names": "rdv.example.org",
        } | {name.replace("__", "."): value for name, value in settings.items()}
        server = make_server(os.devnull, {}, overrides, self.reactor)
        for path in self.state.glob("ssh_host_*"):
            self.keys[path.name] = path.read_bytes()
        return server

    def discard(self, server: ServerService) -> None:
        """Give back what an unstarted server holds."""
        for bound in server.bound.values():
            bound.close()
        server.inventory.close()
        os.close(server.lock)

    def start(self, **settings: str) -> ServerService:
        """A server that is stopped when the test is over."""
        server = self.make(**settings)
        server.startService()
        self.addCleanup(self.stop, server)
        return server

    def stop(self, server: ServerService) -> None:
        """Stop it, once; nothing is left of it."""
        if server.running:
            self.assertIsNone(self.successResultOf(server.stopService()))
            self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.discard_lock()

    def discard_lock(self) -> None:
        """The state directory is free for the next one."""
        self.discard(self.make())

    def logged(self, level: LogLevel) -> list[str]:
        """What the server has logged."""
        ours = [event for event in self.events if event["log_namespace"].startswith("rdvtwisted.services")]
        return [formatEvent(event) for event in ours if event["log_level"] is level]


class MakingTests(ServerCase):
    """Before it goes into the background."""

    def test_first_start(self) -> None:
        """Everything that it needs is made, for its owner alone."""
        self.discard(self.make(state_directory=str(self.state / "new")))
        self.state = self.state / "new"
        self.assertEqual(self.state.stat().st_mode & 0o777, 0o700)
        self.assertEqual(
            sorted(path.name for path in self.state.iterdir()),
            [
                "authority.pem",
                "inventory.db",
                "server.lock",
                "server.pem",
                "ssh_host_ecdsa_key",
                "ssh_host_ed25519_key",
                "ssh_host_rsa_key",
            ],
        )
        self.assertEqual({path.stat().st_mode & 0o777 for path in self.state.iterdir()}, {0o600})

    def test_same_keys(self) -> None:
        """The second start finds what the first one has made."""
        first = self.make()
        self.discard(first)
        second = self.make()
        self.discard(second)
        self.assertEqual(list(first.greeting)[1:], list(second.greeting)[1:])

    def test_bound(self) -> None:
        """Its ports are taken already, and it tells which."""
        server = self.make()
        self.addCleanup(self.discard, server)
        self.assertEqual(list(server.bound), ["ssh", "tls"])
        self.assertIn(
            f"SSH on port {server.bound['ssh'].port}, TLS on port {server.bound['tls'].port}", server.greeting[0]
        )
        with self.assertRaises(AddressInUse):
            sockets.bind("127.0.0.1", server.bound["ssh"].port, "ssh")

    def test_no_tls(self) -> None:
        """The TLS door is a setting; without it there are no tunnels that would come by it."""
        server = self.make()
        carriers = server.registry.ends.carriers
        self.assertTrue(carriers["tls"].relay)
        self.assertIsNotNone(carriers["stunnel"].server_end)
        self.discard(server)
        server = self.make(tls__enabled="false")
        self.addCleanup(self.discard, server)
        self.assertEqual(list(server.bound), ["ssh"])
        carriers = server.registry.ends.carriers
        for name in ("tls", "stunnel"):
            self.assertEqual((carriers[name].relay, carriers[name].server_end), (False, None))
        self.assertIsNotNone(carriers["vtun"].server_end)

    def test_log_level(self) -> None:
        """The level of the log is a setting."""
        for settings, level in (({}, "info"), ({"log__level": "warn"}, "warn")):
            server = self.make(**settings)
            self.discard(server)
            self.assertEqual(server.log_level, level)

    def test_one_per_directory(self) -> None:
        """A state directory is one server's."""
        server = self.make()
        error = self.assertRaises(AddressInUse, self.make)
        self.assertEqual(
            str(error), f"another server is running with the state directory {self.state}: stop that one first"
        )
        self.discard(server)
        self.discard_lock()

    def test_refused_without_trace(self) -> None:
        """Whatever it is refused for, ports and locks are given back."""
        taken = sockets.bind("127.0.0.1", 0, "ssh")
        with closing(taken):
            for error, settings, text in (
                (AddressInUse, {"ssh__port": str(taken.port)}, "set ssh.port"),
                (AddressInUse, {"tls__port": str(taken.port)}, "set tls.port"),
                (ConfigError, {"tls__address": "192.0.2.1"}, "setting tls.address: cannot listen on port 0"),
                (ConfigError, {"no__such": "1"}, "setting no.such: there is no such setting"),
                (ConfigError, {"control__socket": f"/{'x' * 200}"}, "setting control.socket: "),
                (StateDirectoryError, {"control__socket": f"{self.state}/gone/s"}, "there is no such directory"),
            ):
                self.assertIn(text, str(self.assertRaises(error, self.make, **settings)))
                self.discard_lock()

    def test_unusable_directory(self) -> None:
        """A state directory that is none, or whose files cannot be used, is one clear line."""
        self.state.mkdir(0o700)
        (self.state / LOCK_NAME).mkdir()
        error = self.assertRaises(StateDirectoryError, self.make)
        self.assertEqual(
            str(error), f"cannot open {self.state / LOCK_NAME}: Is a directory: run as its owner or as root"
        )
        file = self.state / "file"
        file.write_text("")
        error = self.assertRaises(StateDirectoryError, self.make, state_directory=str(file))
        self.assertEqual(str(error), f"{file} is not a directory: name another state directory")

    def test_inventory_elsewhere(self) -> None:
        """An inventory in a database of its own needs a state directory all the same."""
        database = Path(self.mktemp()).absolute()
        self.discard(self.make(inventory__url=f"sqlite:///{database}"))
        self.assertFalse((self.state / "inventory.db").exists())
        self.assertTrue(database.exists())

    def test_background(self) -> None:
        """A server that has not been started holds no connection to its inventory, which no fork may take along."""
        server = self.make()
        self.addCleanup(self.discard, server)
        names = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_link(fd)]
        self.assertEqual([name for name in names if "inventory.db" in name], [])


def _is_link(fd: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{fd}")


class RunningTests(ServerCase):
    """From start to stop."""

    def test_order(self) -> None:
        """Doors open, then the control socket; the doors close before anything else."""
        server = self.start()
        self.assertEqual(self.reactor.events, ["DoorFactory opens", "Door opens", "control opens"])
        self.reactor.events.clear()

        def close(ssh: Any, reason: str) -> Deferred[None]:
            self.reactor.events.append(reason)
            return succeed(None)

        self.patch(type(server.ssh), "close", close)
        self.stop(server)
        self.assertEqual(
            self.reactor.events,
            ["DoorFactory closes", "Door closes", stopping(0), "control closes"],
        )

    def test_greeting(self) -> None:
        """It says where its doors are, and by which keys devices know it."""
        server = self.start()
        self.assertEqual(self.logged(LogLevel.info), list(server.greeting))
        words = [line.split()[0] for line in server.greeting]
        self.assertEqual(words, ["RDV", "Host", "Host", "Host", "Certificate", "No"])
        self.assertEqual(
            server.greeting[-1],
            "No access rule allows anything, so no master may use any onsite; see rdvctl access allow --help",
        )

    def test_inventory(self) -> None:
        """What was changed between its making and its start is known."""
        server = self.make()
        with closing(open_inventory(ServerSettings(state_directory=str(self.state)))) as command:
            command.add(onsite("rpi1", 1))
        server.startService()
        self.addCleanup(self.stop, server)
        self.assertEqual(server.inventory.devices(), [onsite("rpi1", 1)])


class AdministrationTests(ServerCase):
    """What rdvctl may ask."""

    def setUp(self) -> None:
        """A running server."""
        super().setUp()
        self.server = self.start()
        self.administration = self.server.control._factory._answer.args[0]

    def test_provides(self) -> None:
        """It is what the control socket serves."""
        verifyObject(IAdministration, self.administration)

    def test_status(self) -> None:
        """Who it is, where its doors are, and how many there are."""
        status = dict(self.administration.status())
        self.assertEqual(status.pop("pid"), os.getpid())
        self.assertIsInstance(status.pop("up_seconds"), int)
        self.assertEqual(
            status,
            {
                "version": "0.1.0",
                "ssh_port": self.server.bound["ssh"].port,
                "tls_port": self.server.bound["tls"].port,
                "devices": 0,
                "online": 0,
                "sessions": 0,
                "leases": 0,
                "tickets": 0,
                "audit": "written",
                "glue": "the server has not started yet",
            },
        )
        self.assertEqual(list(self.administration.presences()), [])
        self.assertEqual(list(self.administration.views()), [])
        self.assertFalse(self.administration.end_session("rpi1", None))

    def test_recorded(self) -> None:
        """The audit trail says that the server has started, and what an administrator has had it do."""
        with closing(open_inventory(ServerSettings(state_directory=str(self.state)))) as command:
            command.add(onsite("rpi1", 1))
        self.administration.refresh()
        self.administration.record("session-end-ordered", "admin:ann (uid 1000)", "rpi1")
        self.administration.record("session-end-ordered", "admin:ann (uid 1000)", "s1")
        self.stop(self.server)
        entries = [Entry.from_line(line).facts for line in AuditFiles.within(str(self.state)).lines()]
        self.assertEqual(
            [(each["action"], each["actor"], each.get("device"), each.get("session")) for each in entries],
            [
                ("begun", "server", None, None),
                ("server-started", "server", None, None),
                ("session-end-ordered", "admin:ann (uid 1000)", "rpi1", None),
                ("session-end-ordered", "admin:ann (uid 1000)", None, "s1"),
                ("server-stopped", "server", None, None),
            ],
        )

    def test_trail_in_trouble(self) -> None:
        """The server goes on when its audit trail cannot be written, and its status tells."""
        self.state.chmod(0o755)
        self.server.recording.trail.stop()
        self.server.recording.trail.record(Deed("refused", "stranger:", 0))
        self.state.chmod(0o700)
        status = self.administration.status()["audit"]
        self.assertIn("not written: the state directory", str(status))

    def test_trail_taken_away(self) -> None:
        """Its status tells also that the trail was taken away under it, as soon as it is asked."""
        for path in self.state.glob("audit/*"):
            path.unlink()
        for _ in range(2):
            status = str(self.administration.status()["audit"])
            self.assertTrue(status.startswith("written; cut off: entries up to 1 were written, and were not"), status)

    def test_trail_of_commands(self) -> None:
        """What C{rdvctl} has recorded, and has told the server of, cannot be cut off unnoticed either."""
        with closing(AuditFiles.within(str(self.state))) as command:
            command.append(Deed("device-added", "admin:ann", 0))
        self.administration.refresh()
        [path] = self.state.glob("audit/*")
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        self.assertIn("cut off: entries up to 2", str(self.administration.status()["audit"]))

    def test_renew_certificate(self) -> None:
        """The door shows the new certificate from then on."""
        shown: list[Any] = []
        self.patch(type(self.server.door), "show", lambda door, credentials: shown.append(credentials))
        self.assertEqual(
            self.administration.renew_certificate(), "the TLS door shows a certificate that is valid until 2025-02-01"
        )
        self.assertEqual(len(shown), 1)

    def test_refresh(self) -> None:
        """A change of the inventory counts at once."""
        with closing(open_inventory(ServerSettings(state_directory=str(self.state)))) as command:
            command.add(onsite("rpi1", 1))
        self.assertEqual(self.administration.refresh(), 0)
        self.assertEqual(self.server.inventory.devices(), [onsite("rpi1", 1)])


class UpkeepTests(ServerCase):
    """What it does by itself."""

    def setUp(self) -> None:
        """A running server, and what its door shows."""
        super().setUp()
        self.server = self.start()
        self.shown: list[Any] = []
        self.patch(type(self.server.door), "show", lambda door, credentials: self.shown.append(credentials.certificate))

    def pass_days(self, days: int) -> None:
        """Let time pass."""
        for _ in range(days):
            self.reactor.advance(CERTIFICATE_SECONDS)

    def test_certificate(self) -> None:
        """The certificate is looked at once a day, renewed when it is due, and shown, for as long as it runs."""
        self.pass_days(262)
        self.assertEqual((len(self.shown), len(set(self.shown))), (262, 1))
        self.pass_days(10)
        self.assertEqual(len(set(self.shown)), 2)
        self.pass_days(400)
        self.assertEqual(len(set(self.shown)), 3)

    def test_certificate_cannot_be_renewed(self) -> None:
        """A file that is damaged is told once, and looked at again the next day."""
        path = self.state / "server.pem"
        good = path.read_bytes()
        path.write_bytes(b"damaged")
        self.pass_days(3)
        self.assertEqual((len(self.logged(LogLevel.error)), self.shown), (1, []))
        self.assertIn("server.pem is damaged", self.logged(LogLevel.error)[0])
        path.write_bytes(good)
        self.pass_days(1)
        self.assertEqual(len(self.shown), 1)

    def test_inventory(self) -> None:
        """A change that nobody told of is found within a minute, and who may not be here any more is dropped."""
        looks: list[Any] = []

        def drop(registry: Any) -> int:
            looks.append(registry)
            return 1

        self.patch(type(self.server.registry), "drop_disentitled", drop)
        self.reactor.advance(INVENTORY_SECONDS)
        self.assertEqual(looks, [])
        with closing(open_inventory(ServerSettings(state_directory=str(self.state)))) as command:
            command.add(onsite("rpi1", 1))
        self.assertEqual(self.server.inventory.devices(), [])
        self.reactor.advance(INVENTORY_SECONDS)
        self.assertEqual(self.server.inventory.devices(), [onsite("rpi1", 1)])
        self.assertEqual(
            self.logged(LogLevel.info)[-1],
            "The inventory has changed; devices that are dropped for it: 1; sessions ended: 0",
        )
        with closing(open_inventory(ServerSettings(state_directory=str(self.state)))) as command:
            command.update("rpi1", lambda device: evolve(device, enabled=False))
        self.reactor.advance(INVENTORY_SECONDS)
        self.assertEqual(len(looks), 2)

    def test_inventory_trouble(self) -> None:
        """A database that cannot be read now is told once; the devices stay as they were, and it is read again."""

        def trouble(inventory: Any) -> bool:
            raise StateDirectoryError("the inventory is locked")

        with closing(open_inventory(ServerSettings(state_directory=str(self.state)))) as command:
            command.add(onsite("rpi1", 1))
        real = type(self.server.inventory).refresh
        self.patch(type(self.server.inventory), "refresh", trouble)
        for _ in range(3):
            self.reactor.advance(INVENTORY_SECONDS)
        self.assertEqual(self.logged(LogLevel.error), ["the inventory is locked"])
        self.patch(type(self.server.inventory), "refresh", real)
        self.reactor.advance(INVENTORY_SECONDS)
        self.assertEqual(self.server.inventory.devices(), [onsite("rpi1", 1)])

    def test_fault(self) -> None:
        """A fault of the program ends no upkeep."""
        self.patch(type(self.server.inventory), "refresh", lambda inventory: 1 / 0)
        for _ in range(2):
            self.reactor.advance(INVENTORY_SECONDS)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
