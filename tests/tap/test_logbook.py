"""The log of twistd's commands: where twistd's options say, from the level on that ours say."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.application.service import Application, IServiceCollection, Service
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogLevel
from twisted.python.syslog import SyslogObserver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.errors import ConfigError
from tap.logbook import Logged, observer


def event(level: LogLevel, text: str) -> dict[str, Any]:
    """What a logger would make of it."""
    return {
        "log_level": level, "log_format": "{text}", "text": text, "log_namespace": "n", "log_time": 0.0,
        "log_system": "n", "message": (), "isError": 0, "time": 0.0, "system": "n", "format": "%(text)s",
    }  # fmt: skip


class ObserverTests(SynchronousTestCase):
    """Where it is written."""

    def setUp(self) -> None:
        """Keep this process's own signal."""
        self.path = Path(self.mktemp())
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        self.out = io.StringIO()
        self.patch(sys, "stdout", self.out)

    def write(self, level: str, **twistd: Any) -> None:
        """Write a line of each level."""
        log = observer(level, twistd)
        verifyObject(ILogObserver, log)
        for each in LogLevel.iterconstants():
            log(event(each, each.name))

    def levels(self, text: str) -> list[str]:
        """The levels of which there are lines."""
        return [line.split()[-1] for line in text.splitlines()]

    def test_file(self) -> None:
        """A file, from the level on."""
        for level, levels in (
            ("debug", ["debug", "info", "warn", "error", "critical"]),
            ("info", ["info", "warn", "error", "critical"]),
            ("critical", ["critical"]),
        ):
            self.write(level, logfile=str(self.path))
            self.assertEqual(self.levels(self.path.read_text()), levels)
            self.path.unlink()

    def test_terminal(self) -> None:
        """Standard output for who stays in the foreground and names no file, or the dash."""
        self.write("error", nodaemon=True, logfile=None)
        self.write("error", nodaemon=True, logfile="-")
        self.assertEqual(self.levels(self.out.getvalue()), ["error", "critical"] * 2)

    def test_daemon(self) -> None:
        """A daemon's own file, when none is named; the terminal is no place for one."""
        self.patch(sys.modules["tap.logbook"], "_DAEMONS_FILE", str(self.path))
        self.write("error", nodaemon=False, logfile=None)
        self.assertEqual(self.levels(self.path.read_text()), ["error", "critical"])
        error = self.assertRaises(ConfigError, observer, "info", {"nodaemon": False, "logfile": "-"})
        self.assertEqual(str(error), "setting --logfile: a daemon has no terminal to log to: name a file")

    def test_syslog(self) -> None:
        """The system's log, with the prefix that twistd was given."""
        opened: list[Any] = []
        written: list[Any] = []
        self.patch(SyslogObserver, "openlog", lambda log, *arguments: opened.append(arguments))
        self.patch(SyslogObserver, "syslog", lambda log, priority, text: written.append(text))
        self.write("error", syslog=True, prefix="rdv")
        self.assertEqual(opened[0][0], "rdv")
        self.assertEqual([line.split()[-1] for line in written], ["error", "critical"])

    def test_unwritable(self) -> None:
        """A file that cannot be written is one clear line, before anything begins."""
        path = self.path / "gone" / "log"
        error = self.assertRaises(ConfigError, observer, "info", {"logfile": str(path)})
        self.assertEqual(str(error), f"setting --logfile: cannot write {path}: No such file or directory")


class _Service(Service):
    """Takes its time to stop."""

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self.stopped: Deferred[None] = Deferred()
        return self.stopped


class LoggedTests(SynchronousTestCase):
    """A service with its log."""

    def setUp(self) -> None:
        """An application as twistd makes it."""
        self.log: list[Any] = []
        self.service = _Service()
        self.application = Application("x")
        Logged(self.service, self.log.append).setServiceParent(self.application)

    def test_application(self) -> None:
        """The application keeps the log that its service wants."""
        self.assertEqual(self.application.getComponent(ILogObserver), self.log.append)

    def test_runs(self) -> None:
        """The service starts and stops with the application, which waits for it."""
        services = IServiceCollection(self.application)
        services.startService()
        self.assertTrue(self.service.running)
        stopping = services.stopService()
        self.assertNoResult(stopping)
        self.service.stopped.callback(None)
        self.successResultOf(stopping)

    def test_elsewhere(self) -> None:
        """In a service that is no application it is a service like any other."""
        parent = IServiceCollection(Application("y"))
        logged = Logged(_Service(), self.log.append)
        logged.setServiceParent(parent)
        self.assertIs(logged.parent, parent)
