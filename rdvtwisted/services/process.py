"""This process: what it says, how it is ended, and its exit status."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, TextIO

from twisted.application.service import Service
from twisted.internet.error import ReactorNotRunning
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from rdvtwisted.services.master import MasterService
from rdvtwisted.services.naming import unhurried
from rdvtwisted.services.timekeeping import steady


def say(line: str) -> None:
    """Print a line for the operator."""
    _print(line, sys.stdout)


def complain(line: str) -> None:
    """Print a line about what is wrong."""
    _print(f"rdv-master: {line}", sys.stderr)


def _print(line: str, stream: TextIO) -> None:
    try:
        print(line, file=stream, flush=True)
    except OSError:
        # Nobody reads any more. A session goes on without words; and Python is not to complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def global_reactor() -> Any:
    """
    The reactor of this process, made when it is first asked for; it goes by a clock that nobody can set, and ends
    without waiting for the names of servers.
    """
    from twisted.internet import reactor

    return unhurried(steady(reactor))


def stop(reactor: Any) -> None:
    """Stop C{reactor}, unless it is stopping already."""
    with suppress(ReactorNotRunning):
        reactor.stop()


def replacing(reactor: Any) -> Callable[[], None]:
    """
    @return: what to call to have this process stop in order and then start itself anew, as it was started, under the
        same number. To be made before anybody else wants to do something at the process's exit.
    """
    wanted: list[bool] = []

    def end() -> None:
        if wanted:
            sys.stdout.flush()
            sys.stderr.flush()
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - no shell is wanted

    def replace() -> None:
        wanted.append(True)
        stop(reactor)

    atexit.register(end)
    return replace


def exit_with_status_of(service: MasterService) -> None:
    """
    Let the process end with the status of C{service}, also when a signal ends it: for programs such as C{twistd},
    whose own exit status is not ours to choose.
    """

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(service.exit_status)

    def register() -> None:
        if service.exit_status:
            atexit.register(end)

    reactor = global_reactor()
    reactor.addSystemEventTrigger("after", "shutdown", register)
    end_by_signals(reactor)


def end_by_signals(reactor: Any) -> None:
    """
    Once C{reactor} runs, let each signal that asks a program to end stop it in order.

    The reactor's own way is not enough: twistd kills itself anew by the
    signal, and a terminal that is closed (SIGHUP) would leave the machine's
    network configured. Once it has stopped they are ignored: one that Python
    finds while it takes itself down would kill it, in place of its exit status.
    """

    def caught(number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(stop, reactor)

    def install(answer: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, answer)

    reactor.callWhenRunning(install, caught)
    reactor.addSystemEventTrigger("after", "shutdown", install, signal.SIG_IGN)


def run_in_foreground(service: Service, debug: bool) -> int:
    """
    Run C{service} on the terminal until it stops the reactor or is interrupted.

    @return: its exit status.
    """
    reactor = global_reactor()
    level = LogLevel.debug if debug else LogLevel.warn
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(level)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    end_by_signals(reactor)
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return int(getattr(service, "exit_status", 0))
