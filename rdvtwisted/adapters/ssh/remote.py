"""The device's end of a session channel: a shell at the server, without a terminal."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from rdvtwisted.adapters.ssh.channel import SHELL_WINDOW, STDOUT, Channel
from rdvtwisted.adapters.ssh.wire import Reader
from rdvtwisted.errors import ConnectionLost


class ShellListener(Protocol):
    """Takes what a remote shell says."""

    def output(self, data: bytes) -> None:
        """Some of its standard output."""

    def error_output(self, data: bytes) -> None:
        """Some of its standard error."""

    def ended(self, status: int | None, reason: str) -> None:
        """
        The shell is over; nothing follows.

        @param status: its exit status, if it told one.
        @param reason: what became of the connection; empty if only the shell ended.
        """


@implementer(IPushProducer)
class RemoteShell(Channel):
    """
    A shell at the server.

    @ivar ready: fires with the shell once it is there; fails with L{ConnectionLost}.
    """

    window_size = SHELL_WINDOW

    def __init__(self, listener: ShellListener) -> None:
        super().__init__()
        self._listener = listener
        self.ready: Deferred[RemoteShell] = Deferred()
        self._held: deque[tuple[int, bytes]] = deque()
        self._running = False
        self._paused = False
        self._status: int | None = None
        self._end: str | None = None

    # From the channel

    def opened(self) -> None:
        """The channel is there: ask for a shell on it, unless nobody waits for it any more."""
        if self.ready.called:
            self.abort()
        else:
            self.request(b"shell", b"", want_reply=True)

    def refused(self, code: int, reason: str) -> None:
        """The server opens no channel."""
        self._not_ready(reason)

    def answered(self, granted: bool) -> None:
        """The server gives a shell, or not."""
        if self.ready.called:
            self.abort()
        elif granted:
            self._running = True
            self.ready.callback(self)
        else:
            self._not_ready("it gives no shell")
            self.close()

    def _not_ready(self, reason: str) -> None:
        if not self.ready.called:
            self.ready.errback(ConnectionLost(f"the server opened no shell: {reason}"))

    def received(self, stream: int, data: bytes) -> None:
        """The shell says something."""
        self._held.append((stream, data))
        self._deliver()

    def _deliver(self) -> None:
        while self._held and not self._paused:
            stream, data = self._held.popleft()
            if stream == STDOUT:
                self._listener.output(data)
            else:
                self._listener.error_output(data)
            self.credit(len(data))
        if self._end is not None and not self._held:
            reason, self._end = self._end, None
            self._listener.ended(self._status, reason)

    def requested(self, name: bytes, reader: Reader) -> bool:
        """The server tells how the shell ended."""
        if name == b"exit-status":
            self._status = reader.uint32()
            return True
        return False

    def closed(self, reason: str) -> None:
        """The channel is over."""
        self._not_ready(reason or "it closed the channel")
        if self._running:
            self._end = reason
            self._deliver()

    # For the device

    def write(self, data: bytes) -> None:
        """Type C{data}."""
        self.send(data)

    def end_input(self) -> None:
        """Type no more: the shell ends after what was typed."""
        self.end_output()

    def pauseProducing(self) -> None:
        """Deliver nothing for now; the server stops when the window is used up."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Deliver again."""
        self._paused = False
        self._deliver()

    def stopProducing(self) -> None:
        """Close the shell."""
        self.abort()
