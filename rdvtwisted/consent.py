"""
Consent: whether somebody at the site agrees to a session, for how long, and who takes it back.

Three can say so: a command (for the session that waits, or for all of a
window of time), a file that is there or not, a program that is asked. The
first that says something counts; nobody's word means no.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rdvtwisted.errors import ConsentDenied, InvalidValue, RequestRefused
from rdvtwisted.values import EndReason, Mode

#: Seconds for which the site is asked, and for which its consent holds, if nobody says otherwise.
ASK_SECONDS = 120.0
WINDOW_SECONDS = 8 * 3600.0
#: Seconds that a window may have at most.
MOST_WINDOW_SECONDS = 30 * 86_400.0
#: Seconds between two looks whether the file is there, as long as that matters.
LOOK_SECONDS = 1.0


class Basis(Enum):
    """By what a session has its consent."""

    NOT_REQUIRED = "not required"
    COMMAND = "command"
    WINDOW = "window"
    FILE = "file"
    PROGRAM = "program"


@frozen
class Visit:
    """
    A session that is wanted, or is.

    @ivar session: its id; like the others it is what the server says, and empty if that does not.
    """

    session: str = ""
    master: str = ""
    mode: Mode = Mode.L3

    def __str__(self) -> str:
        return f"{self.master or 'a master'} ({self.mode})"

    @property
    def named(self) -> str:
        """The same, with the session's id if it has one."""
        return f"{self}, session {self.session}" if self.session else str(self)


class Refusal(ConsentDenied):
    """Nobody agrees to a session; C{reason} is what the server is told."""

    def __init__(self, reason: EndReason, text: str) -> None:
        self.reason = reason
        super().__init__(text)


@define(eq=False)
class Stay:
    """
    A session that was agreed to.

    @ivar ended: fires with an L{EndReason} when the site wants it to be over, or its time is.
    """

    visit: Visit
    basis: Basis
    _clock: IReactorTime
    _leave: Callable[[Stay], None]
    ends_at: float | None = None
    ended: Deferred[EndReason] = field(factory=Deferred)

    def require(self, visit: Visit) -> None:
        """
        Make sure that this is what was agreed to.

        @raise Refusal: it is another session.
        """
        if self.basis is not Basis.NOT_REQUIRED and visit != self.visit:
            raise Refusal(
                EndReason.CONSENT_REFUSED,
                f"this site has agreed to a session with {self.visit.named}, and the server has one with {visit.named}",
            )

    def left(self) -> float | None:
        """Seconds until it must be over by the consent that it has; C{None} if it need not be."""
        return None if self.ends_at is None else max(0.0, self.ends_at - self._clock.seconds())

    def close(self) -> None:
        """It is over. Idempotent."""
        self._leave(self)


@define(eq=False)
class _Asking:
    visit: Visit
    deadline: float
    answer: Deferred[Stay]
    program: Deferred[bool] | None = None


@define(eq=False)
class Consent:
    """
    The consent of one site.

    @ivar required: without consent there is no session; otherwise there is no need to ask.
    @ivar seconds: for which the site is asked.
    @ivar window: seconds for which a consent holds that does not say it.
    @ivar presence: seconds for which the file's consent holds; C{None} if it is not there.
    @ivar program: asks a program; fires with whether it agrees. Cancelled when its answer is not wanted any more.
    """

    _log = Logger()

    clock: IReactorTime
    required: bool = False
    seconds: float = ASK_SECONDS
    window: float = WINDOW_SECONDS
    presence: Callable[[], float | None] | None = None
    program: Callable[[Visit], Deferred[bool]] | None = None
    _until: float | None = field(default=None, init=False)
    _asking: _Asking | None = field(default=None, init=False)
    _stay: Stay | None = field(default=None, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)

    # The device

    def ask(self, visit: Visit) -> Deferred[Stay]:
        """
        Wait until somebody agrees to a session, at most L{seconds}. One at a time.

        @return: a Deferred of a L{Stay}, to be closed; fails with L{Refusal}. May be cancelled.
        """
        if self._asking is not None:
            return fail(Refusal(EndReason.CONSENT_REFUSED, "the site is being asked for another session already"))
        if not self.required:
            return succeed(self._begin(visit, Basis.NOT_REQUIRED, None))
        if self._window_left() is not None:
            return succeed(self._begin(visit, Basis.WINDOW, self._until))
        left = self._look_for_file()
        if left:
            return succeed(self._begin(visit, Basis.FILE, self.clock.seconds() + left))
        asking = _Asking(visit, self.clock.seconds() + self.seconds, Deferred(lambda _: self._give_up()))
        self._asking = asking
        self._log.info("Waiting {seconds:g} s for consent to a session with {visit}", seconds=self.seconds, visit=visit)
        self._schedule()
        if self.program is not None:
            asking.program = self.program(visit)
            asking.program.addCallbacks(self._answered, self._unanswered, callbackArgs=(asking,), errbackArgs=(asking,))
        return asking.answer

    # The site

    def grant(self, seconds: float | None = None, session: str | None = None) -> str:
        """
        Agree: to the session that waits, or to all of the next C{seconds}; one that runs then ends with these.

        @param session: the id of the one that is meant, if it is not to be another that has come meanwhile: it waits,
            or runs if C{seconds} are given.
        @return: what that comes to, one line.
        @raise RequestRefused: nothing waits, or another session, or no consent is needed.
        """
        if not self.required:
            raise RequestRefused("no consent is needed here: start onsite-dev with --consent ask")
        if session is not None:
            self._require(session, waiting=seconds is None)
        now = self.clock.seconds()
        if seconds is None:
            if self._asking is None:
                raise RequestRefused("no session waits for consent; to agree to what may come, say for how long")
            return f"Granted to {self._settle(Basis.COMMAND, now + self.window).visit}"
        if not 0 < seconds <= MOST_WINDOW_SECONDS:
            raise InvalidValue("time", f"{seconds:.0f} s", f"use up to {MOST_WINDOW_SECONDS:.0f} seconds")
        self._until = now + seconds
        if self._asking is not None:
            self._settle(Basis.WINDOW, self._until)
        elif self._stay is not None:
            self._stay.basis, self._stay.ends_at = Basis.WINDOW, self._until
        self._schedule()
        return f"Granted for {seconds:.0f} s"

    def refuse(self) -> str:
        """
        Do not agree, neither to what waits nor to what may come. A session that runs is left alone.

        @raise RequestRefused: nothing waits or was granted.
        """
        had_window, self._until = self._window_left() is not None, None
        asking = self._asking
        if asking is not None:
            self._deny(EndReason.CONSENT_REFUSED, "the site has refused its consent")
            return f"Refused to {asking.visit}"
        if had_window:
            self._schedule()
            return "The window is closed; a session that runs is ended by: rdv-onsite end"
        raise RequestRefused("no session waits for consent, and none was granted beforehand")

    def end(self) -> str:
        """
        End the session that runs, refuse the one that waits, and agree to none that may come.

        @raise RequestRefused: there is nothing to end.
        """
        had_window, self._until = self._window_left() is not None, None
        if self._stay is not None:
            visit = self._stay.visit
            self._over(EndReason.CONSENT_WITHDRAWN)
            return f"The session with {visit} is ended"
        if self._asking is not None or had_window:
            return self.refuse() if self._asking is not None else "The window is closed"
        raise RequestRefused("there is no session")

    def status(self) -> dict[str, object]:
        """What is: C{state} is C{idle}, C{waiting} or C{session}; the rest is C{None} where there is none."""
        now, asking, stay = self.clock.seconds(), self._asking, self._stay
        visit = asking.visit if asking is not None else None if stay is None else stay.visit
        file = self._look_for_file()
        left = None if stay is None else stay.left()
        return {
            "required": self.required,
            "state": "waiting" if asking is not None else "idle" if stay is None else "session",
            "master": None if visit is None else visit.master or None,
            "mode": None if visit is None else visit.mode.value,
            "session": None if visit is None else visit.session or None,
            "basis": None if stay is None else stay.basis.value,
            "answer_within_s": None if asking is None else round(max(0.0, asking.deadline - now), 1),
            "consent_left_s": None if left is None else round(left, 1),
            "window_left_s": None if (window := self._window_left()) is None else round(window, 1),
            "file_left_s": None if not file else round(file, 1),
        }

    # Inside

    def _require(self, session: str, waiting: bool) -> None:
        asking, stay = self._asking, None if waiting else self._stay
        visit = asking.visit if asking is not None else None if stay is None else stay.visit
        if visit is None or visit.session != session:
            other = "" if visit is None else f"; there is one with {visit.named}"
            raise RequestRefused(f"session {session!r} does not wait for consent{other}")

    def _window_left(self) -> float | None:
        if self._until is not None and self._until <= self.clock.seconds():
            self._until = None
        return None if self._until is None else self._until - self.clock.seconds()

    def _look_for_file(self) -> float | None:
        return None if self.presence is None else self.presence()

    def _begin(self, visit: Visit, basis: Basis, ends_at: float | None) -> Stay:
        stay = Stay(visit, basis, self.clock, self._forget, ends_at)
        self._stay = stay
        if basis is not Basis.NOT_REQUIRED:
            self._log.info("A session with {visit} may begin; consent: {basis}", visit=visit, basis=basis.value)
        self._schedule()
        return stay

    def _forget(self, stay: Stay) -> None:
        if self._stay is stay:
            self._stay = None
            self._schedule()

    def _take(self) -> _Asking:
        """Nobody is asked any more."""
        asking, self._asking = self._asking, None
        assert asking is not None
        if asking.program is not None:
            asking.program.cancel()
        return asking

    def _settle(self, basis: Basis, ends_at: float) -> Stay:
        asking = self._take()
        stay = self._begin(asking.visit, basis, ends_at)
        asking.answer.callback(stay)
        return stay

    def _deny(self, reason: EndReason, text: str) -> None:
        asking = self._take()
        self._schedule()
        asking.answer.errback(Refusal(reason, text))

    def _give_up(self) -> None:
        self._take()
        self._schedule()

    def _answered(self, agrees: bool, asking: _Asking) -> None:
        if self._asking is not asking:
            return
        # What has answered needs not be cancelled.
        asking.program = None
        if agrees:
            self._settle(Basis.PROGRAM, self.clock.seconds() + self.window)
        else:
            self._deny(EndReason.CONSENT_REFUSED, "the program that was asked for the site's consent has refused it")

    def _unanswered(self, failure: Failure, asking: _Asking) -> None:
        if not failure.check(CancelledError):
            self._log.error("The program that is asked for consent: {error}", error=failure.getErrorMessage())
            self._answered(False, asking)

    def _over(self, reason: EndReason) -> None:
        stay, self._stay = self._stay, None
        assert stay is not None
        self._schedule()
        stay.ended.callback(reason)

    def _look(self) -> None:
        self._call = None
        now = self.clock.seconds()
        asking, stay = self._asking, self._stay
        if asking is not None:
            left = self._look_for_file()
            if left:
                self._settle(Basis.FILE, now + left)
            elif asking.deadline <= now:
                self._deny(EndReason.CONSENT_TIMEOUT, f"nobody at the site has agreed within {self.seconds:g} s")
        elif stay is not None:
            if stay.basis is Basis.FILE:
                left = self._look_for_file()
                if left is None:
                    self._over(EndReason.CONSENT_WITHDRAWN)
                    return
                stay.ends_at = now + left
            if stay.ends_at is not None and stay.ends_at <= now:
                self._over(EndReason.TIME_LIMIT)
                return
        self._schedule()

    def _schedule(self) -> None:
        """Look again when something ends, and at the file as often as it matters."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        now = self.clock.seconds()
        waits = []
        if self._asking is not None:
            waits.append(self._asking.deadline - now)
        if self._stay is not None and self._stay.ends_at is not None:
            waits.append(self._stay.ends_at - now)
        if self.presence is not None and (
            self._asking is not None or (self._stay is not None and self._stay.basis is Basis.FILE)
        ):
            waits.append(LOOK_SECONDS)
        if waits:
            self._call = self.clock.callLater(max(0.0, min(waits)), self._look)
