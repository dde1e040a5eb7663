"""A session channel at the server (RFC 4254, section 6): one shell, and nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rdvtwisted.adapters.ssh.allowance import Allowance
from rdvtwisted.adapters.ssh.channel import HIGH_WATER, SHELL_WINDOW, STDERR, STDOUT, Channel
from rdvtwisted.adapters.ssh.wire import Reader
from rdvtwisted.errors import RDVError
from rdvtwisted.interfaces import IDesk
from rdvtwisted.requests import Request
from rdvtwisted.shell.printout import Stream
from rdvtwisted.shell.shell import Action, Interrupt, Shell
from rdvtwisted.values import Device

#: Makes a device's shell; the flag says whether it is to serve a terminal.
ShellOpener = Callable[[Device, bool], Shell]

#: Exit status of a shell that broke.
_BROKEN = 255


class ShellChannel(Channel):
    """
    Connects a shell to its channel and to the device's desk.

    Of the requests that a session channel knows, C{pty-req} only says what
    kind of shell it is to be, C{window-change} is ignored, C{shell} opens the
    shell, once. All others are refused: C{env}, C{exec}, C{subsystem}, agent
    and X11 forwarding, signals.

    Requests to the desk that come faster than C{allowance} grants wait, and
    with them what is typed behind them.
    """

    window_size = SHELL_WINDOW
    log = Logger()

    def __init__(
        self,
        desk: IDesk,
        open_shell: ShellOpener,
        ended: Callable[[str], None],
        clock: IReactorTime,
        allowance: Allowance,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._allowance = allowance
        #: A request that is to be made later, and when.
        self._late: Request | None = None
        self._due: IDelayedCall | None = None
        self._desk = desk
        self._open_shell = open_shell
        self._ended = ended
        self._terminal = False
        self._shell: Shell | None = None
        self._started = False
        self._actions: deque[Action] = deque()
        self._performing: Deferred[Any] | None = None
        self._working = False
        self._unconsumed = 0

    @property
    def running(self) -> bool:
        """Whether the channel has a shell that is not over."""
        return self._shell is not None

    # From the channel

    def requested(self, name: bytes, reader: Reader) -> bool:
        """See the class."""
        if name == b"pty-req" and self._shell is None:
            self._terminal = True
            return True
        if name == b"shell" and self._shell is None and not self._eof_due:
            return self._open()
        return name == b"window-change"

    def _open(self) -> bool:
        try:
            self._shell = self._open_shell(self._desk.device, self._terminal)
        except Exception:  # noqa: BLE001 - as for a shell that breaks later
            self.log.failure("No shell could be opened for {device}", device=self._desk.device.id)
        return self._shell is not None

    def settled(self) -> None:
        """The client knows that it has a shell: start it."""
        if self._shell is not None and not self._started:
            self._started = True
            self._run(self._shell, self._start)

    @staticmethod
    def _start(shell: Shell) -> list[Action]:
        shell.start()
        return []

    def received(self, stream: int, data: bytes) -> None:
        """What the device types."""
        shell = self._shell
        if shell is None or stream != STDOUT:
            self.credit(len(data))
            return
        self._unconsumed += len(data)
        self._run(shell, lambda shell: shell.receive(data))

    def eof_received(self) -> None:
        """The device types no more: its shell ends after what it has typed, a channel without shell at once."""
        if self._shell is not None:
            self._run(self._shell, Shell.end_of_input)
        else:
            self.close()

    def drained(self) -> None:
        """The device has taken what was printed."""
        if self._shell is not None:
            self._run(self._shell, Shell.resume)

    def closed(self, reason: str) -> None:
        """The channel is over, and the shell with it."""
        self._end(reason or "its shell was closed")

    # The shell

    def _run(self, shell: Shell, step: Callable[[Shell], list[Action]]) -> None:
        """Let the shell take a step, then do and send what has come of it."""
        try:
            self._actions.extend(step(shell))
            if not self._working:
                self._work(shell)
        except Exception:  # noqa: BLE001 - a fault of one shell is for the log, and ends no more than that shell
            self.log.failure("The shell of {device} failed", device=self._desk.device.id)
            self._finish(_BROKEN)

    def _work(self, shell: Shell) -> None:
        self._working = True
        try:
            while True:
                while self._actions:
                    self._perform(self._actions.popleft())
                if self.waiting_bytes >= HIGH_WATER:
                    return
                output = shell.take_output()
                for stream, data in output:
                    self.send(data, STDERR if stream is Stream.STDERR else STDOUT)
                # What is sent may be taken at once, and the shell go on, and end, for that.
                if output:
                    self._actions.extend(shell.resume())
                elif shell.exit_status is not None:
                    self._finish(shell.exit_status)
                    return
                else:
                    break
            if shell.wants_input:
                unconsumed, self._unconsumed = self._unconsumed, 0
                self.credit(unconsumed)
        finally:
            self._working = False

    def _perform(self, action: Action) -> None:
        if isinstance(action, Interrupt):
            self._interrupt()
            return
        delay = self._allowance.take(self._clock.seconds())
        if delay:
            self._late = action
            self._due = self._clock.callLater(delay, self._catch_up)
        else:
            self._ask(action)

    def _catch_up(self) -> None:
        """It is time for the request that came too early."""
        late, self._late, self._due = self._late, None, None
        if late is not None:
            self._ask(late)

    def _interrupt(self) -> None:
        # A request that still waits for its time is made now, so that there is something to interrupt.
        if self._due is not None:
            self._due.cancel()
            self._catch_up()
        self._desk.interrupt()

    def _ask(self, action: Request) -> None:
        performing: Deferred[Any] = maybeDeferred(self._desk.perform, action)
        self._performing = performing
        performing.addCallbacks(self._answered, self._failed)

    def _answered(self, result: Any) -> None:
        self._performing = None
        if self._shell is not None:
            self._run(self._shell, lambda shell: shell.answer(result))

    def _failed(self, failure: Failure) -> None:
        self._performing = None
        error = failure.value
        if self._shell is None:
            return
        if not isinstance(error, RDVError):
            self.log.failure("A request of {device} failed", failure, device=self._desk.device.id)
            error = RDVError("the server could not do this, its log says why")
        self._run(self._shell, lambda shell: shell.fail(error))

    def _finish(self, status: int) -> None:
        """Close the channel; the exit status comes after the output and before the close."""
        if self._shell is None:
            return
        self.close_with_status(status)
        self._end("logout" if status == 0 else f"its shell ended with status {status}")

    def _end(self, reason: str) -> None:
        if self._shell is None:
            return
        self._shell = self._late = None
        self._actions.clear()
        due, self._due = self._due, None
        if due is not None:
            due.cancel()
        performing, self._performing = self._performing, None
        if performing is not None:
            performing.cancel()
        self._ended(reason)
