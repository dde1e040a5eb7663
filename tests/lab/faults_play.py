"""One cycle of the fault suite: a session is brought to a phase, something breaks, and all must be as before."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random

from attrs import define, field

from tests.lab.deployment import END_SECONDS, EXTREMITY, MASTER, SESSION_SECONDS, onsite_id
from tests.lab.faults_judge import Judge, descendants, table
from tests.lab.faults_stage import DEVICES_SILENCE_SECONDS, GUEST, Stage
from tests.lab.processes import LabError, LabProcess
from tests.lab.scene import BACK_SECONDS

SILENCE_SECONDS = 15.0
"""In a session, how long a half-open connection may go unnoticed (design promise)."""

UNLISTED_SECONDS = DEVICES_SILENCE_SECONDS + 2.0
"""Outside of a session, how long a device may be listed, and take itself for listed, by their settings here."""

IDLE, OPENING, BUILDING, TRAFFIC, CLOSING = PHASES = ("idle", "opening", "building", "traffic", "closing")
"""What goes on when something breaks: nothing, a master's start, both devices' building, use, the end."""

DEVICES = ("server", "onsite", "master")
"""The hosts whose network a session changes."""

GOOD_ENDS = (0, 3, 4)
"""With what a master may exit whose session something has ended: done, lost, tunnel broken."""

_OPENING_SECONDS, _BUILDING_SECONDS, _CLOSING_SECONDS, _TRAFFIC_SECONDS = 0.45, 0.12, 0.17, 0.3
"""How long each phase lasts here, about: within it, the moment is left to chance."""

_LOOK_SECONDS = 0.03
"""Between two looks at everything."""


class Stuck(Exception):
    """Something is not as it should be within its limit; the text says what, a line each."""


def until(condition: Callable[[], object], seconds: float, what: str, pause: float = _LOOK_SECONDS) -> float:
    """
    Wait until C{condition()} is true.

    @return: the seconds that it took.
    @raise Stuck: it takes longer.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise Stuck(f"{what}: not within {seconds:.1f} s")
        time.sleep(pause)
    return time.monotonic() - began


def require_none(look: Callable[[], list[str]], seconds: float, what: str) -> float:
    """As L{until}, for nothing to be found any more; what is found last is told."""
    found: list[str] = []

    def none() -> bool:
        found[:] = look()
        return not found

    try:
        return until(none, seconds, what)
    except Stuck as error:
        raise Stuck("\n".join((str(error), *found))) from None


@define
class Play:
    """
    What faults are made of.

    @ivar stage: where it happens.
    @ivar rng: decides what is left to chance.
    @ivar phase: one of L{PHASES}.
    @ivar mode: the session's.
    @ivar backend: the master's choice.
    @ivar terminal: the operator has the plain command in a terminal window.
    @ivar noticed: seconds that it took until a silent fault was noticed; C{None} if there was none.
    @ivar struck_at: when it happened.
    @ivar recovered: seconds from when the cause had gone until all was as it should be.
    """

    stage: Stage
    judge: Judge
    rng: Random
    phase: str
    mode: str = "L3"
    backend: str = "tls"
    terminal: bool = False
    noticed: float | None = None
    recovered: float = 0.0
    struck_at: float = 0.0
    _mark: float = 0.0
    _ping: LabProcess | None = field(default=None, init=False)
    _master: LabProcess | None = field(default=None, init=False)
    _seen: bool = field(default=False, init=False)

    # Before

    def begin(self) -> None:
        """Bring a session to the phase, and to some moment in it."""
        deployment = self.stage.deployment
        chance = self.rng.random()
        if self.phase != IDLE:
            self.join_lan(self.mode == "L2")
            self._master = self.start_master()
        if self.phase == OPENING:
            time.sleep(chance * _OPENING_SECONDS)
        elif self.phase == BUILDING:
            until(self.stage.sessions, SESSION_SECONDS, "a session opened", 0.005)
            time.sleep(chance * _BUILDING_SECONDS)
        elif self.phase in (TRAFFIC, CLOSING):
            deployment.wait_session()
            self._ping = self.stage.lab.start("pc", ["ping", "-i", "0.02", "-s", "1000", self.stage.web])
            self._ping.wait_output("bytes from")
            if self.phase == CLOSING:
                self.master.send(signal.SIGINT)
            time.sleep(chance * (_CLOSING_SECONDS if self.phase == CLOSING else _TRAFFIC_SECONDS))
        self.struck_at = self._mark = time.monotonic()

    def start_master(self) -> LabProcess:
        """Have the master open a session."""
        deployment = self.stage.deployment
        if not self.terminal:
            return deployment.start_master(self.mode, self.backend, resume=True)
        return deployment.start_in_terminal(*self.wish)

    @property
    def wish(self) -> tuple[str, ...]:
        """The options of a master that say what this session is to be."""
        words = ("--onsite", onsite_id(), "--extremity", EXTREMITY)
        return (*words, "--tunnel-mode", self.mode, "--backend", self.backend)

    def join_lan(self, here: bool) -> None:
        """The PC takes an address in the customer's LAN, for mode L2, or gives it back."""
        verb = "replace" if here else "del"
        self.stage.lab.run("pc", ["ip", "address", verb, GUEST, "dev", "eth0"])

    # Who

    def programs(self, name: str, word: str) -> list[int]:
        """What a service has started whose command line has a word in it."""
        return [each.pid for each in descendants(table(), self.process(name).pid) if word in each.command]

    def kill(self, pids: Sequence[int], number: signal.Signals = signal.SIGKILL) -> None:
        """Send processes a signal that a service has started; those that have ended are left alone."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def interface(self, host: str) -> str:
        """The name of the session's interface on a host."""
        lines = self.stage.lab.run(host, ["ip", "-o", "link"], check=True).stdout.splitlines()
        names = [line.split(": ")[1].partition("@")[0] for line in lines]
        return next(name for name in names if name.startswith("rdv-"))

    @property
    def server(self) -> LabProcess:
        """The server's process."""
        assert self.stage.deployment.server is not None
        return self.stage.deployment.server

    @property
    def onsite(self) -> LabProcess:
        """The onsite device's process."""
        return self.stage.deployment.onsites[1]

    @property
    def master(self) -> LabProcess:
        """The master's process; there is one, but when nothing goes on."""
        assert self._master is not None
        return self._master

    def process(self, name: str) -> LabProcess:
        """That of the server, the onsite or the master."""
        return {"server": lambda: self.server, "onsite": lambda: self.onsite, "master": lambda: self.master}[name]()

    # What happens

    def end(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a service, and see it end."""
        process = self.process(name)
        process.send(number)
        try:
            process.wait(END_SECONDS)
        except LabError as error:
            raise Stuck(str(error)) from None

    def restart(self, name: str) -> None:
        """Start a service that has ended; recovery counts from now."""
        self.lifted()
        if name == "server":
            self.stage.deployment.start_server()
        else:
            self.stage.deployment.begin_onsite()

    def pause(self, least: float, most: float) -> None:
        """Let some time pass."""
        time.sleep(self.rng.uniform(least, most))

    def lifted(self) -> None:
        """The cause is gone: recovery counts from now."""
        self._mark = time.monotonic()

    def press(self) -> None:
        """The PC sends packets as large as they come, and gets as large answers."""
        self._stop_ping()
        self._ping = self.stage.lab.start("pc", ["ping", "-i", "0.02", "-s", "1472", self.stage.web])

    def notice(self, *away: str) -> None:
        """
        Whoever can notice that somebody has fallen silent, does in time: in a session, it is over and has left
        nothing; else the server does not list the onsite any more, nor does that take itself for listed.

        @param away: hosts that notice nothing: they stand still.
        """

        endings = self._events().count("ended")

        def in_session() -> list[str]:
            if self._events().count("ended") > endings and "master" not in away:
                return []  # it may have its session again already
            sessions = [] if "server" in away else self.stage.sessions()
            hosts = [host for host in DEVICES if host not in away]
            found = [f"session {each['id']} is {each['state']}" for each in sessions]
            return found + self.judge.network(*hosts, cut=True)

        def idle() -> list[str]:
            found = []
            if "server" not in away and onsite_id() in self.stage.online():
                found.append(f"the server lists {onsite_id()}")
            if "onsite" not in away and self.stage.deployment.records(onsite_id())[-1]["event"] == "online":
                found.append(f"{onsite_id()} takes itself for listed")
            return found

        if self.phase == OPENING:
            return
        limit = UNLISTED_SECONDS if self.phase == IDLE else SILENCE_SECONDS + END_SECONDS
        require_none(idle if self.phase == IDLE else in_session, limit, "the silence to be noticed")
        self.noticed = time.monotonic() - self.struck_at

    def registration(self) -> object:
        """When the onsite was registered that is listed now; C{None} if it is not."""
        return self.stage.online().get(onsite_id(), {}).get("since")

    def struck(self) -> None:
        """It is now that it happens."""
        self.struck_at = self._mark = time.monotonic()

    def come_anew(self, before: object) -> None:
        """
        An onsite whose connection has silently died notices that in time, and is here by another one.

        @param before: its L{registration} then.
        """
        until(lambda: self.registration() not in (None, before), UNLISTED_SECONDS, f"{onsite_id()} to come anew")
        self.noticed = time.monotonic() - self.struck_at

    def gone(self, pids: Sequence[int]) -> None:
        """These processes end by themselves."""

        def alive() -> list[str]:
            present = table()
            return [str(present[pid]) for pid in pids if pid in present and not present[pid].dead]

        require_none(alive, END_SECONDS, "processes to end by themselves")

    def ended_or_up(self, master: LabProcess, id: str) -> bool:
        """Another master ends, or has its session and is made to end it; whether it had one."""

        def up() -> bool:
            return any(record["event"] == "up" for record in self.stage.deployment.records(id))

        until(lambda: master.poll() is not None or up(), SESSION_SECONDS, f"{id} to end, or to have its session")
        if master.poll() is not None:
            return False
        if master.stop(signal.SIGINT, END_SECONDS) != 0:
            raise Stuck(f"{id} did not end its session in order")
        return True

    # After

    def goes_on(self) -> None:
        """The session has lived through it, if it was up: the same master's PC reaches the customer."""
        if self.phase == TRAFFIC:
            self._require_through(BACK_SECONDS)
            self._recover()
            self._end_master()

    def carries_in_time(self, seconds: float) -> None:
        """In this time large packets come through the session, which ends then; the master may if it was never up."""
        until(
            lambda: self.stage.carries() or (self.master.poll() is not None and "up" not in self._events()),
            seconds,
            "large packets to come through the session",
        )
        if self.master.poll() is None:
            self._end_master()

    def is_lost(self, after: float = 0.0) -> None:
        """
        The master has noticed that its session is over, and left nothing; it ends, or seeks the session again.

        @param after: seconds that it takes to notice.
        """

        def noticed() -> bool:
            return self.master.poll() is not None or "ended" in self._events()

        if self._master is not None:
            until(noticed, after + END_SECONDS, "the master to notice that its session is over")

    def _events(self) -> list[object]:
        return [record["event"] for record in self.stage.deployment.records(MASTER)]

    def is_over(self, *statuses: int) -> None:
        """The master ends by itself."""
        if self._master is not None:
            until(lambda: self.master.poll() is not None, END_SECONDS, "the master to end by itself")
            self._require_status(*(statuses or GOOD_ENDS))

    def settle(self) -> None:
        """The session is over by itself, or works and ends when it is told to; then all is as before, in time."""
        if self._master is not None and self._master.poll() is None:
            limit = BACK_SECONDS if "ended" in self._events() else SESSION_SECONDS
            until(
                lambda: self.master.poll() is not None or self._through(),
                max(END_SECONDS, self._mark + limit - time.monotonic()),
                "the master to end, or its session to work",
            )
            if self._master.poll() is None:
                self._recover()
                self._end_master()
        if self._master is not None:
            self._require_status(*GOOD_ENDS, 1, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)
        self.stop()
        ended = time.monotonic()
        deadline = max(self._mark + BACK_SECONDS, ended + END_SECONDS)
        require_none(self.judge.left, END_SECONDS, "everything of the session to be gone")
        require_none(self.judge.wrong, deadline - time.monotonic(), "everything to be as before")
        until(self.stage.free, END_SECONDS, f"{onsite_id()} to know that it is free")
        self._recover()

    def stop(self) -> None:
        """Stop what this cycle alone has started, but the services."""
        self._stop_ping()
        self.join_lan(False)

    def _through(self) -> bool:
        """Whether the session is up and used."""
        # The last time that it was up, it has not ended since.
        states = [event for event in self._events() if event in ("up", "ended")]
        return states[-1:] == ["up"] and self.stage.reaches()

    def _require_through(self, seconds: float) -> None:
        def through() -> bool:
            if self.master.poll() is not None:
                raise Stuck(f"the master has ended with status {self.master.poll()}")
            return self._through()

        until(through, seconds, "the PC to reach the customer")

    def _end_master(self) -> None:
        status = self.master.stop(signal.SIGINT, END_SECONDS)
        if status != 0:
            raise Stuck(f"the master was interrupted, and has ended with status {status}")

    def _require_status(self, *statuses: int) -> None:
        status = self.master.poll()
        if status not in statuses:
            raise Stuck(f"the master has ended with status {status}, not one of {', '.join(map(str, statuses))}")

    def _stop_ping(self) -> None:
        ping, self._ping = self._ping, None
        if ping is not None:
            ping.stop(signal.SIGKILL)

    def _recover(self) -> None:
        """This is the moment, if none was before."""
        if not self._seen:
            self._seen = True
            self.recovered = time.monotonic() - self._mark
