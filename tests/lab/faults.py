"""
C{script/faults}: breaks things in a lab at random moments, and checks after each that all is as it should be.

Each cycle is decided by the seed and its number alone. A cycle that is stuck
says what is wrong and shows the logs' ends, and the next has a new lab.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import product
from random import Random
from selectors import EVENT_READ, DefaultSelector
from types import FrameType
from typing import Any, NoReturn

from tests.lab.deployment import onsite_id
from tests.lab.faults_judge import Judge
from tests.lab.faults_kinds import FAULTS, Fault, deck
from tests.lab.faults_play import TRAFFIC, Play, Stuck, require_none
from tests.lab.faults_stage import ACCOUNTS, PREFIX, Stage, clear
from tests.lab.processes import LabError, tail
from tests.lab.programs import PROGRAMS, obstacles

LANES = 2
"""Labs at a time: most of a cycle is waiting."""

CYCLES = 40
"""By default."""

BACKENDS = ("tls", "tls", "vtun", "stunnel")
"""What carries the sessions, as often as they stand here."""

L2_SHARE = 0.25
"""Which part of the sessions is bridged."""

MOST_LANES = 8
"""More would measure this machine, and not what it is to measure."""

SILENT_SECONDS = 240.0
"""After which a lane that has not ended its cycle counts as stuck itself; a new lab takes some of that."""

LOG_LINES = 30
"""How much of each log is shown for a stuck cycle."""


def planned(seed: int, number: int, kinds: Sequence[Fault]) -> tuple[Fault, Random]:
    """What breaks in a cycle, and what decides the rest of it; each kind comes up as often as it weighs."""
    cards = deck(tuple(kinds))
    turn, place = divmod(number, len(cards))
    Random(f"{seed}/deck/{turn}").shuffle(cards)
    return cards[place], Random(f"{seed}/{number}")


class Lane:
    """Plays cycles one after the other in a lab of its own."""

    def __init__(self, seed: int, kinds: Sequence[Fault]) -> None:
        self._seed = seed
        self._kinds = kinds
        self._stage: Stage | None = None
        self._judge: Judge | None = None

    def play(self, number: int) -> dict[str, Any]:
        """Play one cycle; how it went."""
        fault, rng = planned(self._seed, number, self._kinds)
        phase = rng.choice(fault.phases)
        mode = "L2" if rng.random() < L2_SHARE else "L3"
        backend = rng.choice([name for name in BACKENDS if name in fault.backends])
        told: dict[str, Any] = {"cycle": number, "kind": fault.name, "phase": phase, "stuck": False}
        told["session"] = f"{backend} {mode}"
        began = time.monotonic()
        try:
            stage, judge = self._ready()
            began = time.monotonic()
            play = Play(stage, judge, rng, phase, mode, backend, fault.terminal)
            play.begin()
            fault.act(play)
            play.settle()
            told |= {"recovery_s": play.recovered, "noticed_s": play.noticed}
        except (Stuck, LabError, OSError) as error:
            told |= {"stuck": True, "error": str(error)}
            self._show(told)
            self.close()
        told["seconds"] = round(time.monotonic() - began, 3)
        return told

    def close(self) -> None:
        """Take the lab down."""
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.down()

    def _ready(self) -> tuple[Stage, Judge]:
        if self._stage is None or self._judge is None:
            self._stage = Stage()
            states = [self._stage.deployment.state(account) for account in ACCOUNTS]
            self._judge = Judge(self._stage.lab, self._stage.deployment, [onsite_id()], states)
            self._judge.learn()
            for mode, backend in product(("L3", "L2"), dict.fromkeys(BACKENDS)):
                warming = Play(self._stage, self._judge, Random(0), TRAFFIC, mode, backend)
                warming.begin()
                warming.goes_on()
                warming.stop()
                require_none(self._judge.network, 5.0, "a session to leave nothing")
            require_none(self._judge.registry, 5.0, "everybody to be free")
            self._judge.learn()
        return self._stage, self._judge

    def _show(self, told: dict[str, Any]) -> None:
        write = sys.stderr.write
        write(
            f"\ncycle {told['cycle']}: {told['kind']} in {told['phase']}, {told['session']}: STUCK\n{told['error']}\n"
        )
        for name, log in self._stage.deployment.logs() if self._stage is not None else ():
            write(f"\n{name}, the end of its log:\n{tail(log, LOG_LINES)}\n")
        sys.stderr.flush()


def run_lane(seed: int, numbers: Sequence[int], kinds: Sequence[Fault]) -> None:
    """Play these cycles; how each went is printed as a line of JSON."""
    lane = Lane(seed, kinds)
    try:
        for number in numbers:
            sys.stdout.write(json.dumps(lane.play(number)) + "\n")
            sys.stdout.flush()
    finally:
        lane.close()


class Lanes:
    """Several lanes, each in a process of its own, which is replaced if it ends early or falls silent."""

    def __init__(self, arguments: Sequence[str], numbers: Sequence[int], lanes: int) -> None:
        """
        @param numbers: those of the cycles to play.
        """
        self._arguments = arguments
        self._left = {lane: list(numbers[lane::lanes]) for lane in range(min(lanes, len(numbers)))}
        self._running: dict[int, subprocess.Popen[str]] = {}
        self._since: dict[int, float] = {}
        self._selector = DefaultSelector()

    def results(self) -> Iterator[dict[str, Any]]:
        """What each cycle has come to, in the order in which they end."""
        try:
            for lane in self._left:
                self._start(lane)
            while self._running:
                yield from self._next()
        finally:
            for lane in list(self._running):
                self._end(lane)

    def _start(self, lane: int) -> None:
        if not self._left[lane]:
            return
        numbers = ",".join(map(str, self._left[lane]))
        words = [sys.executable, "-m", "tests.lab.faults", "--lane", numbers, *self._arguments]
        self._running[lane] = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self._since[lane] = time.monotonic()
        self._selector.register(self._running[lane].stdout, EVENT_READ, lane)  # type: ignore[arg-type]

    def _next(self) -> Iterator[dict[str, Any]]:
        for key, _ in self._selector.select(1.0):
            lane = key.data
            line = self._running[lane].stdout.readline()  # type: ignore[union-attr]
            if line:
                self._since[lane] = time.monotonic()
                self._left[lane].pop(0)
                yield json.loads(line)
            else:
                yield from self._replace(lane, "the lane has ended")
        for lane, since in list(self._since.items()):
            if lane in self._running and time.monotonic() - since > SILENT_SECONDS:
                yield from self._replace(lane, f"the lane has been silent for {SILENT_SECONDS:g} s")

    def _replace(self, lane: int, why: str) -> Iterator[dict[str, Any]]:
        self._end(lane)
        if self._left[lane]:
            number = self._left[lane].pop(0)
            yield {
                "cycle": number,
                "kind": "lane",
                "phase": "",
                "session": "",
                "stuck": True,
                "error": why,
                "seconds": 0.0,
            }
            self._start(lane)

    def _end(self, lane: int) -> None:
        process = self._running.pop(lane)
        self._selector.unregister(process.stdout)  # type: ignore[arg-type]
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()  # type: ignore[union-attr]
        clear(f"{PREFIX}{process.pid}")


def percentile(values: Sequence[float], part: float) -> float:
    """The value that C{part} of all are not above; 0 of none."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 3) if ordered else 0.0


def summary(seed: int, results: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What C{--json} ends with."""

    def figures(some: Sequence[dict[str, Any]]) -> dict[str, float]:
        times = [each["recovery_s"] for each in some if not each["stuck"]]
        return {"p50": percentile(times, 0.5), "p95": percentile(times, 0.95), "max": percentile(times, 1.0)}

    kinds = {}
    for name, count in sorted(Counter(each["kind"] for each in results).items()):
        some = [each for each in results if each["kind"] == name]
        times = figures(some)
        noticed = [each["noticed_s"] for each in some if each.get("noticed_s") is not None]
        kinds[name] = {"count": count, "stuck": sum(each["stuck"] for each in some), **times}
        if noticed:
            kinds[name]["noticed_max"] = percentile(noticed, 1.0)
    return {
        "cycles": len(results),
        "stuck": sum(each["stuck"] for each in results),
        "seed": seed,
        "recovery_s": figures(results),
        "faults": kinds,
        "seconds": round(seconds, 1),
    }


def _number(text: str, least: int = 1, most: int = 1_000_000) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
    return int(text)


def _lanes(text: str) -> int:
    return _number(text, most=MOST_LANES)


def _numbers(text: str) -> list[int]:
    return [_number(word, least=0) for word in text.split(",")]


def _kinds(text: str) -> list[Fault]:
    """The faults that names and patterns mean, none of them in vain."""
    patterns = text.split(",")
    for pattern in patterns:
        if not any(fnmatch(fault.name, pattern) for fault in FAULTS):
            raise argparse.ArgumentTypeError(f"no kind is called {pattern!r}; see --list")
    return [fault for fault in FAULTS if any(fnmatch(fault.name, pattern) for pattern in patterns)]


def arguments() -> argparse.ArgumentParser:
    """The command line that L{main} understands."""
    parser = argparse.ArgumentParser(prog="script/faults", description="Break things at random moments in a lab.")
    parser.add_argument("--cycles", type=_number, default=CYCLES, help="how many faults (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="decides everything that is left to chance (default: any)")
    parser.add_argument(
        "--kinds", type=_kinds, default="*", help="which kinds, by name or pattern, with commas: kill-*,cut-onsite"
    )
    parser.add_argument("--lanes", type=_lanes, default=LANES, help="labs at a time (default: %(default)s)")
    parser.add_argument(
        "--json", action="store_true", help="end with one line of JSON; all else goes to standard error"
    )
    parser.add_argument("--list", action="store_true", help="list the kinds and exit")
    parser.add_argument("--only", type=_numbers, metavar="N,N…", help="play just the cycles with these numbers")
    parser.add_argument("--lane", type=_numbers, help=argparse.SUPPRESS)  # what each lane's process is started with
    return parser


def main(argv: list[str] | None = None) -> int:
    """Play all cycles; 0 if none was stuck, 1 if one was, 2 if nothing can be played."""
    parser = arguments()
    options = parser.parse_args(argv)
    if options.list:
        for fault in FAULTS:
            sys.stdout.write(f"{fault.name:16} {' '.join(fault.phases)}\n")
        return 0
    obstacle = obstacles([*PROGRAMS, "ping"])
    if obstacle is not None:
        parser.error(obstacle)
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "big")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupted)
    if options.lane:
        run_lane(seed, options.lane, options.kinds)
        return 0
    return _play(options, seed)


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Labs are taken down before this process ends; it is not to be asked twice."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _play(options: argparse.Namespace, seed: int) -> int:
    began = time.monotonic()
    results: list[dict[str, Any]] = []
    numbers = options.only or range(options.cycles)
    kinds = ",".join(fault.name for fault in options.kinds)
    status = 0
    sys.stderr.write(f"seed {seed}\n")
    try:
        for told in Lanes(["--seed", str(seed), "--kinds", kinds], numbers, options.lanes).results():
            results.append(told)
            _tell(told, len(results), len(numbers))
    except SystemExit as end:
        sys.stderr.write(f"interrupted after {len(results)} of {len(numbers)} cycles\n")
        status = int(str(end.code))
    document = summary(seed, results, time.monotonic() - began)
    if options.json:
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        times = document["recovery_s"]
        sys.stdout.write(
            f"{document['cycles']} faults, {document['stuck']} stuck; recovered in {times['p50']} s (median),"
            f" {times['max']} s (longest); seed {seed}, {document['seconds']} s\n"
        )
    return status or (1 if document["stuck"] else 0)


def _tell(told: dict[str, Any], done: int, of: int) -> None:
    """One line on a cycle that is over."""
    outcome = "STUCK" if told["stuck"] else f"recovered in {told['recovery_s']:.2f} s"
    if told.get("noticed_s") is not None:
        outcome = f"noticed in {told['noticed_s']:.1f} s, {outcome}"
    where = f"{told['kind']} in {told['phase']}, {told['session']}"
    sys.stderr.write(f"{done}/{of}  cycle {told['cycle']}: {where}: {outcome}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
