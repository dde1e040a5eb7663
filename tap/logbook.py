"""The log of C{twistd}'s commands: to where twistd's own options say, from the level on that ours say."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogLevel,
    LogLevelFilterPredicate,
    textFileLogObserver,
)
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile

from rdvtwisted.errors import ConfigError

#: twistd's own name for the file of a daemon that was given none.
_DAEMONS_FILE = "twistd.log"


class Logged(MultiService):
    """
    A service, and the log that its application is to keep.

    twistd has no option for the least level that is logged, but it takes the
    observer that an application brings along.
    """

    def __init__(self, service: IService, observer: ILogObserver) -> None:
        super().__init__()
        service.setServiceParent(self)
        self._observer = observer

    def setServiceParent(self, parent: Any) -> None:
        """Join an application, which brings our observer along from then on."""
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)


def observer(level: str, twistd: Mapping[str, Any]) -> ILogObserver:
    """
    The observer that twistd would have made of its options, but for what is below C{level}.

    @param level: name of a L{LogLevel}.
    @param twistd: its options.
    @raise ConfigError: the log cannot be written.
    """
    predicate = LogLevelFilterPredicate(LogLevel.levelWithName(level))
    return FilteringLogObserver(_destination(twistd), [predicate])


def _destination(twistd: Mapping[str, Any]) -> ILogObserver:
    if twistd.get("syslog"):
        from twisted.python.syslog import SyslogObserver

        emit: Any = SyslogObserver(twistd["prefix"]).emit
        return LegacyLogObserverWrapper(emit)
    name = twistd.get("logfile")
    foreground = twistd.get("nodaemon") or twistd.get("debug")
    if name == "-" and not foreground:
        raise ConfigError("--logfile", "a daemon has no terminal to log to: name a file")
    if name == "-" or (foreground and not name):
        return textFileLogObserver(sys.stdout)
    name = name or _DAEMONS_FILE
    try:
        file = LogFile.fromFullPath(name)
    except OSError as error:
        raise ConfigError("--logfile", f"cannot write {name}: {error.strerror}") from None
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda number, frame: _rotate(file, number, frame))
    return textFileLogObserver(file)


def _rotate(file: LogFile, number: int, frame: FrameType | None) -> None:
    """Begin a new file, as twistd does on SIGUSR1."""
    from twisted.internet import reactor

    reactor.callFromThread(file.rotate)  # type: ignore[attr-defined]
