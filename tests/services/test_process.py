"""The process of a master: words that nobody reads any more, and signals that end it in order."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import Any, cast

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.services import process
from rdvtwisted.services.master import MasterService
from rdvtwisted.services.process import complain, end_by_signals, exit_with_status_of, say, stop


class WordsTests(SynchronousTestCase):
    """Lines for the operator."""

    def pipe(self, name: str) -> int:
        """Put a pipe in place of a stream of this process, and return the end to read from."""
        there, here = os.pipe()
        stream = os.fdopen(here, "w")
        self.addCleanup(stream.close)
        self.patch(sys, name, stream)
        return there

    def test_said(self) -> None:
        """Each line arrives at once."""
        for name, tell, text in (("stdout", say, b"words\n"), ("stderr", complain, b"rdv-master: words\n")):
            there = self.pipe(name)
            tell("words")
            self.assertEqual(os.read(there, 100), text)
            os.close(there)

    def test_nobody_reads(self) -> None:
        """When the reader has gone away a session goes on, and nothing complains of it afterwards."""
        os.close(self.pipe("stdout"))
        for _ in range(3):
            say("words")
        sys.stdout.flush()


class ReplacingTests(SynchronousTestCase):
    """A process that starts itself anew."""

    def setUp(self) -> None:
        self.ends: list[Any] = []
        self.executed: list[Any] = []
        self.patch(atexit, "register", self.ends.append)
        self.patch(os, "execv", lambda *words: self.executed.append(words))
        self.patch(sys, "orig_argv", ["python3", "-m", "twisted", "onsite-dev"])
        self.reactor = _Reactor()
        self.replace = process.replacing(self.reactor)

    def end(self) -> None:
        """The process is over."""
        for end in self.ends:
            end()

    def test_wanted(self) -> None:
        """It stops in order, and at its exit becomes the program that it was, by the same words."""
        self.reactor.running = True
        self.replace()
        self.assertEqual((self.reactor.hasStopped, self.executed), (True, []))
        self.end()
        self.assertEqual(self.executed, [(sys.executable, [sys.executable, "-m", "twisted", "onsite-dev"])])

    def test_not_wanted(self) -> None:
        """One that ends otherwise ends."""
        self.end()
        self.assertEqual(self.executed, [])


class _Reactor(MemoryReactorClock):
    """Calls from a signal's thread at once, and runs what is to run when it starts."""

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        call(*arguments)


class EndTests(SynchronousTestCase):
    """How it ends."""

    def setUp(self) -> None:
        """Keep this process's own signals."""
        self.reactor = _Reactor()
        self.patch(process, "global_reactor", lambda: self.reactor)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def run_reactor(self) -> None:
        """Let the reactor run."""
        self.reactor.running = True
        for function, arguments, keywords in self.reactor.whenRunningHooks:
            function(*arguments, **keywords)

    def test_signals(self) -> None:
        """Each signal that asks a program to end stops the reactor, so that the session is closed in order."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
            self.reactor = _Reactor()
            end_by_signals(self.reactor)
            self.assertFalse(self.reactor.hasStopped)
            self.run_reactor()
            os.kill(os.getpid(), number)
            self.assertTrue(self.reactor.hasStopped)

    def test_ignored(self) -> None:
        """Who started it with nohup wants it to outlive its terminal."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        end_by_signals(self.reactor)
        self.run_reactor()
        self.assertIs(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)

    def test_impatient(self) -> None:
        """Who asks once more when everything is over does not kill what is about to exit with its status."""
        end_by_signals(self.reactor)
        self.run_reactor()
        for function, arguments, keywords in self.reactor.triggers["after"]["shutdown"]:
            function(*arguments, **keywords)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
            self.assertIs(signal.getsignal(number), signal.SIG_IGN)

    def test_stops_once(self) -> None:
        """A second signal while it stops does no harm."""
        stopping = _Reactor()
        self.patch(_Reactor, "stop", lambda reactor: (_ for _ in ()).throw(process.ReactorNotRunning()))
        stop(stopping)

    def test_exit_status(self) -> None:
        """Whoever runs the service ends with its status, at the very end; with none if it ended well."""
        ends: list[Any] = []
        statuses: list[int] = []
        self.patch(atexit, "register", ends.append)
        self.patch(os, "_exit", statuses.append)
        for status in (0, 4):

            class _Service:
                exit_status = status

            self.reactor = _Reactor()
            exit_with_status_of(cast(MasterService, _Service()))
            for function, arguments, keywords in self.reactor.triggers["after"]["shutdown"]:
                function(*arguments, **keywords)
        self.assertEqual((len(ends), statuses), (1, []))
        ends[0]()
        self.assertEqual(statuses, [4])
