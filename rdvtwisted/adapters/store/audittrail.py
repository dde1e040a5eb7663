"""The audit trail of a running server: never in the way of its work, and never silent about what it could not write."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from rdvtwisted.adapters.store.auditfiles import AuditFiles, TrailBusy
from rdvtwisted.audit import Deed, Mark, timestamp
from rdvtwisted.errors import RDVError
from rdvtwisted.interfaces import IAuditTrail

#: Deeds that wait for a disk which takes nothing: bounds the memory they hold.
MAX_WAITING = 1000
#: Seconds until it is tried again: to write while another process is writing, and to write to a disk that is full.
BUSY_SECONDS = 0.05
TROUBLE_SECONDS = 5.0
#: Seconds after which trouble that lasts is told again.
REMIND_SECONDS = 600.0
#: Seconds after which what was written is put on the disk: what a power failure may cost.
SYNC_SECONDS = 1.0
#: Seconds between two looks whether what was written is still there; nothing but a few bytes is read for that.
LOOK_SECONDS = 60.0
#: Seconds between two lines of the log that name the last entry, for those who send their logs elsewhere.
HEAD_SECONDS = 86_400.0


class InThread(Protocol):
    """Runs something that may take its time, such as a sync of the disk, elsewhere than in the reactor."""

    def __call__(self, work: Callable[[], None]) -> object:
        """Run C{work} in a thread."""


@implementer(IAuditTrail)
@define(eq=False)
class AuditTrail:
    """
    Writes deeds to the files as they happen.

    What is written has reached the kernel at once, so that it survives a SIGKILL; and the disk within
    L{SYNC_SECONDS}. When the files take nothing, L{MAX_WAITING} deeds are kept, the rest counted.

    @ivar clock: for what is to be done later; it goes on whatever becomes of the wall clock.
    @ivar in_thread: where to sync.
    @ivar wall: the wall clock, in seconds since the epoch, for the times of entries.
    """

    _log = Logger()

    _files: AuditFiles
    _clock: IReactorTime
    _in_thread: InThread
    _wall: Callable[[], float]
    trouble: str = field(default="", init=False)
    loss: str = field(default="", init=False)
    _waiting: deque[Deed] = field(factory=deque, init=False)
    _lost: int = field(default=0, init=False)
    _since: float = field(default=0.0, init=False)
    _told_at: float = field(default=0.0, init=False)
    _retry: IDelayedCall | None = field(default=None, init=False)
    _sync: IDelayedCall | None = field(default=None, init=False)
    _daily: IDelayedCall | None = field(default=None, init=False)
    _looking: IDelayedCall | None = field(default=None, init=False)
    _lost_mark: Mark | None = field(default=None, init=False)

    def start(self, detail: str = "") -> None:
        """The server has started: an entry, and the last one before it in the log."""
        self._tell_head()
        self.record(Deed("server-started", "server", self._wall(), detail=detail))
        self._looking = self._clock.callLater(LOOK_SECONDS, self._look_again)

    def stop(self) -> None:
        """The server stops: the last entry; write what can be written, and let go of the files."""
        self.record(Deed("server-stopped", "server", self._wall()))
        for call in (self._retry, self._sync, self._daily, self._looking):
            if call is not None and call.active():
                call.cancel()
        self._retry = self._sync = self._daily = self._looking = None
        if self._waiting or self._lost:
            self._log.error(
                "The audit trail ends without {count} entries: {trouble}",
                count=len(self._waiting) + self._lost,
                trouble=self.trouble or "another process was writing",
            )
            self._waiting.clear()
        try:
            self._files.sync()
            mark = self._files.head()
        except OSError as error:
            self._log.error("The audit trail cannot be synced: {error}", error=_reason(error))
        else:
            self._log.info("The audit trail ends for now at {mark}", mark=str(mark))
        self._files.close()

    def record(self, deed: Deed) -> None:
        """Add an entry, or keep it for later; see L{IAuditTrail}."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(deed)
        else:
            self._lost += 1
        if self._retry is None:
            self._write()

    def look(self) -> None:
        """See whether all is still there; see L{IAuditTrail}."""
        try:
            self._files.look(self._wall())
        except TrailBusy:
            pass  # who writes just now sees it, too; and there is a next look
        except (OSError, RDVError) as error:
            if self._retry is None:
                self._troubled(_reason(error))
                self._retry = self._clock.callLater(TROUBLE_SECONDS, self._write)
        self._tell_loss()

    def head(self) -> Mark | None:
        """The last entry; see L{IAuditTrail}."""
        try:
            return self._files.head()
        except OSError:
            return None

    def lines(self) -> Iterator[bytes]:
        """All lines; see L{IAuditTrail}."""
        return self._files.lines()

    # Inside

    def _write(self) -> None:
        self._retry = None
        try:
            while self._waiting:
                self._files.append(self._waiting[0])
                self._waiting.popleft()
            if self.trouble:
                self._files.append(self._gap())
                self._recovered()
        except TrailBusy:
            self._retry = self._clock.callLater(BUSY_SECONDS, self._write)
        except (OSError, RDVError) as error:
            self._troubled(_reason(error))
            self._retry = self._clock.callLater(TROUBLE_SECONDS, self._write)
        except ValueError:
            self._log.failure("A deed cannot be recorded")
            self._waiting.popleft()
            self._retry = self._clock.callLater(0, self._write)
        self._tell_loss()
        self._sync_soon()

    def _sync_soon(self) -> None:
        if self._sync is None and self._daily is not None:
            self._sync = self._clock.callLater(SYNC_SECONDS, self._put_on_disk)

    def _look_again(self) -> None:
        self._looking = self._clock.callLater(LOOK_SECONDS, self._look_again)
        self.look()

    def _tell_loss(self) -> None:
        mark = self._files.loss
        if mark is None or mark == self._lost_mark:
            return
        self._lost_mark = mark
        self._sync_soon()
        self.loss = (
            f"entries up to {mark.number} were written, and were not there any more at {timestamp(self._wall())}"
        )
        self._log.error(
            "The audit trail was cut off, or taken away, under this server: entries up to {mark} were written,"
            " and are not there any more",
            mark=str(mark),
        )

    def _gap(self) -> Deed:
        return Deed(
            "gap",
            "server",
            self._wall(),
            duration=max(0.0, self._clock.seconds() - self._since),
            count=self._lost,
            reason=self.trouble,
            detail=f"nothing could be written for a time; entries that are lost for it: {self._lost}",
        )

    def _troubled(self, trouble: str) -> None:
        now = self._clock.seconds()
        if not self.trouble:
            self._since = now
        if trouble != self.trouble or not 0 <= now - self._told_at < REMIND_SECONDS:
            self._told_at = now
            self._log.error(
                "The audit trail cannot be written: {trouble}. {waiting} entries wait, {lost} are lost",
                trouble=trouble,
                waiting=len(self._waiting),
                lost=self._lost,
            )
        self.trouble = trouble

    def _recovered(self) -> None:
        self._log.info("The audit trail is written again; {lost} entries are lost", lost=self._lost)
        self.trouble = ""
        self._lost = 0

    def _put_on_disk(self) -> None:
        self._sync = None
        try:
            descriptor = self._files.descriptor()
        except OSError as error:
            self._log.error("The audit trail cannot be synced: {error}", error=_reason(error))
            return
        if descriptor >= 0:
            try:
                self._in_thread(lambda: self._sync_and_close(descriptor))
            except RuntimeError as error:  # this machine has no room for a thread now
                os.close(descriptor)
                self._log.error("The audit trail cannot be synced: {error}", error=str(error))

    def _sync_and_close(self, descriptor: int) -> None:
        # In a thread, where nothing of this object may be touched but the log.
        try:
            os.fsync(descriptor)
        except OSError as error:
            self._log.error("The audit trail cannot be synced: {error}", error=_reason(error))
        finally:
            os.close(descriptor)

    def _tell_head(self) -> None:
        self._daily = self._clock.callLater(HEAD_SECONDS, self._tell_head)
        self._log.info("The audit trail is at {mark}", mark=str(self.head() or "its beginning"))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error)
