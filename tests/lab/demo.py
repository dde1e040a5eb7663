"""
C{script/demo}: one session from end to end, in a lab, with the real services.

Succeeds only if the engineer's PC has reached the customer's LAN by ping, HTTP
and UDP, and nothing is left of the session after its end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tests.lab.deployment import DOORS, END_SECONDS, MASTER, Deployment, onsite_id
from tests.lab.lab import Lab
from tests.lab.processes import LabError, Member, eventually, tail
from tests.lab.programs import obstacles
from tests.lab.snapshot import Snapshot
from tests.lab.topology import CUSTOMER_LAN
from tests.lab.website import PAGE

GUEST = f"{CUSTOMER_LAN[200]}/{CUSTOMER_LAN.prefixlen}"
"""The address that the PC takes in the customer's LAN when it is bridged there."""

PINGS = 20
"""How many pings the round trip is the median of."""

LOG_LINES = 25
"""How much of each log is shown after a failure."""

LOOKED_AT = ("server", "onsite", "master")
"""Whose network settings must be as before when the session is over."""

_FOUND = "up in {session_s} s, {backend} by {join}, key exchange {kex}, cipher {cipher}, round trip {rtt_ms} ms\n"

_TIMES = re.compile(r"time=([0-9.]+) ms")


class Failure(Exception):
    """Something is not as it should be; the text says what."""


def require(holds: bool, otherwise: str) -> None:
    """Raise L{Failure} unless something holds."""
    if not holds:
        raise Failure(otherwise)


class Demo:
    """
    The story, and what it has found out so far.

    @ivar findings: what C{--json} prints.
    """

    def __init__(self, lab: Lab, backend: str | None, mode: str, door: str, out: TextIO) -> None:
        self.lab = lab
        self.findings: dict[str, object] = {"ok": False, "backend": backend, "mode": mode, "door": door}
        self.deployment: Deployment | None = None
        self._backend, self._mode, self._door = backend, mode, door
        self._out = out
        self._before: dict[str, Snapshot] = {}
        self._members: list[Member] = []

    def play(self) -> bool:
        """Do every step in order until one fails; whether none did."""
        began = time.monotonic()
        try:
            for words, act in self._steps():
                with self._step(words):
                    act()
        except (Failure, LabError, LookupError) as error:
            self.findings["error"] = str(error).splitlines()[0]
            self._show_logs()
            return False
        finally:
            self.findings["seconds"] = round(time.monotonic() - began, 1)
        return True

    def _steps(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """What happens, as a person would tell it."""
        web = self.lab.addresses["web"]
        yield "build the Internet, a customer's site and a support site", self._build
        yield f"start the RDV server, doors on {' and '.join(str(port) for port in DOORS.values())}", self._start_server
        yield f"register {onsite_id()} and {MASTER} with their keys", self._register
        yield f"start the onsite device {onsite_id()}, behind NAT", self._start_onsite
        yield "check that the engineer's PC does not reach the customer's LAN yet", self._check_apart
        yield f"open a session in mode {self._mode} from the master device {MASTER}", self._open
        yield f"ping {web} from the PC", self._ping
        yield f"fetch http://{web}/ from the PC", self._fetch
        yield f"send UDP to {web} from the PC", self._send_udp
        yield "check whom the customer's LAN sees", self._check_source
        yield "ping the onsite device from the PC", self._ping_onsite
        yield "end the session, as Ctrl-C on the master does", self._end
        yield "check that nothing is left of it on server, onsite and master", self._check_nothing_left
        yield "check that the onsite device waits for the next session", self._check_waiting

    @contextmanager
    def _step(self, words: str) -> Iterator[None]:
        """One line: what is done, and how it went."""
        self._out.write(f"{words} ... ")
        self._out.flush()
        began = time.monotonic()
        try:
            yield
        except BaseException as error:
            self.findings["failed"] = words
            reason = str(error) or type(error).__name__
            self._out.write("failed\n" + "\n".join(f"  {line}" for line in reason.splitlines()) + "\n")
            raise
        self._out.write(f"ok ({time.monotonic() - began:.1f} s)\n")

    def _show_logs(self) -> None:
        """The end of what each service has said."""
        for host, log in self.deployment.logs() if self.deployment is not None else ():
            self._out.write(f"\n{host}, the end of its log:\n{tail(log, LOG_LINES)}\n")

    # The steps

    def _build(self) -> None:
        self.lab.up()
        self.lab.services()
        self.deployment = Deployment(self.lab, self._door)

    def _start_server(self) -> None:
        self._deployed.start_server()

    def _register(self) -> None:
        self._deployed.register(self._deployed.make_keys())

    def _start_onsite(self) -> None:
        self._deployed.start_onsite()
        self._before = {host: self.lab.snapshot(host) for host in LOOKED_AT}
        self._members = self.lab.members()

    def _check_apart(self) -> None:
        require(self.lab.pings("pc", "192.168.38.225"), "the PC does not even reach the master device")
        require(not self.lab.pings("pc", self.lab.addresses["web"]), "it does: this demo would prove nothing")

    def _open(self) -> None:
        self._deployed.start_master(self._mode, self._backend)
        record = self._deployed.wait_session()
        for name in ("backend", "mode", "join", "session_s", "kex", "cipher"):
            self.findings[name] = record.get(name)
        require(record.get("mode") == self._mode, f"the session is in mode {record.get('mode')}")
        require(self._backend in (None, record.get("backend")), f"the session uses {record.get('backend')}")
        if self._mode == "L2":
            self.lab.run("pc", ["ip", "address", "add", GUEST, "dev", "eth0"], check=True)

    def _ping(self) -> None:
        pinging = ["ping", "-c", str(PINGS), "-i", "0.02", "-W", "1", self.lab.addresses["web"]]
        result = self.lab.run("pc", pinging, timeout=PINGS + 5)
        times = sorted(float(time) for time in _TIMES.findall(result.stdout))
        require(
            len(times) == PINGS, f"{len(times)} of {PINGS} answered\n{result.stdout.strip()}{result.stderr.strip()}"
        )
        self.findings["rtt_ms"] = round(times[PINGS // 2], 3)

    def _fetch(self) -> None:
        page = self.lab.probe("pc", "get", f"http://{self.lab.addresses['web']}/")
        require(page.encode() == PAGE, f"got {page!r}")
        size = 1_000_000
        data = self.lab.probe("pc", "get", f"http://{self.lab.addresses['web']}/bytes/{size}")
        require(len(data) == size, f"of a file of {size} bytes, {len(data)} came")

    def _send_udp(self) -> None:
        text = "Is anybody there?"
        answer = self.lab.probe("pc", "udp", self.lab.addresses["web"], text)
        require(answer == text, f"the echo is {answer!r}")

    def _check_source(self) -> None:
        seen = self.lab.probe("pc", "get", f"http://{self.lab.addresses['web']}/client").strip()
        expected = self.lab.addresses["onsite"] if self._mode == "L3" else GUEST.partition("/")[0]
        require(seen == expected, f"it sees {seen or 'nobody'}, not {expected}")
        require(not self.lab.pings("master", self.lab.addresses["web"]), "the master's own traffic goes there, too")

    def _ping_onsite(self) -> None:
        require(self.lab.pings("pc", self.lab.addresses["onsite"]), "it does not answer")

    def _end(self) -> None:
        status = self._deployed.end_session()
        require(status == 0, f"the master's exit status is {status}")
        if self._mode == "L2":
            self.lab.run("pc", ["ip", "address", "del", GUEST, "dev", "eth0"], check=True)

    def _check_nothing_left(self) -> None:
        left: list[str] = []

        def none() -> bool:
            left[:] = [
                f"{host}: {change}"
                for host, before in self._before.items()
                for change in before.changes(self.lab.snapshot(host))
            ]
            left.extend(
                f"process {each.pid}: {each.command}" for each in self.lab.members() if each not in self._members
            )
            return not left

        try:
            eventually(none, END_SECONDS, "everything to be as before")
        except LabError as error:
            raise Failure("\n".join((str(error), *left))) from None
        require(not self.lab.pings("pc", self.lab.addresses["web"]), "the PC still reaches the customer's LAN")

    def _check_waiting(self) -> None:
        onsite = self._deployed.onsites[1]
        records = self._deployed.records(onsite_id())
        ended = max(index for index, record in enumerate(records) if record["event"] == "up")
        self._deployed.wait_record(onsite, onsite_id(), "online", 2 * END_SECONDS, after=ended)

    @property
    def _deployed(self) -> Deployment:
        assert self.deployment is not None
        return self.deployment


def arguments() -> argparse.ArgumentParser:
    """The command line that L{main} understands."""
    parser = argparse.ArgumentParser(prog="script/demo", description="One session from end to end, on this machine.")
    parser.add_argument("--backend", help="tunnel backend (default: what the devices choose)")
    parser.add_argument("--mode", choices=("L3", "L2"), default="L3", help="routed or bridged (default: %(default)s)")
    parser.add_argument(
        "--door", choices=tuple(DOORS), default="ssh", help="how the devices get to the server (default: %(default)s)"
    )
    parser.add_argument(
        "--json", action="store_true", help="end with one line of JSON; all else goes to standard error"
    )
    parser.add_argument("--keep", action="store_true", help="leave lab, server and onsite device running")
    parser.add_argument("--prefix", default="rdvdemo", help="of the lab (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Play the story; 0 if all went well, 1 if not."""
    options = arguments().parse_args(argv)
    out = sys.stderr if options.json else sys.stdout
    obstacle = obstacles()
    if obstacle is not None:
        sys.stderr.write(f"demo: {obstacle}\n")
        return 1
    lab = Lab(options.prefix)
    demo = Demo(lab, options.backend, options.mode, options.door, out)
    ok = False
    try:
        ok = demo.play()
    except KeyboardInterrupt:
        demo.findings["error"] = "interrupted"
    finally:
        if options.keep:
            _explain(lab, out)
        else:
            lab.down()
            left = lab.leftovers()
            if left:
                ok = False
                demo.findings.setdefault("error", "the lab has left something behind")
                out.write("left behind: " + "; ".join(left) + "\n")
    demo.findings["ok"] = ok
    if ok:
        out.write(_FOUND.format_map(demo.findings))
    out.write("all of it worked\n" if ok else f"failed: {demo.findings.get('error')}\n")
    if options.json:
        sys.stdout.write(json.dumps(demo.findings) + "\n")
    return 0 if ok else 1


def _explain(lab: Lab, out: TextIO) -> None:
    """How to go on by hand in a lab that was kept."""
    state = lab.directory / "deployment" / MASTER
    program = Path(sys.executable).parent / "rdv-master"
    server = lab.addresses["server"]
    script = os.path.relpath(Path(__file__).parent.parent.parent / "script" / "lab")
    out.write(
        f"\nThe lab is still up. Look around:   {script} --prefix {lab.prefix} status\n"
        f"Open a session yourself:            {script} --prefix {lab.prefix} exec master"
        f" {program} -u {MASTER} -R {server} -o {onsite_id()} -e eth1 --state-dir {state}\n"
        f"Take it down:                       {script} --prefix {lab.prefix} down\n"
    )


if __name__ == "__main__":
    sys.exit(main())
