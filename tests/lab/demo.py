"""
C{script/demo}: one session from end to end, in a lab, with the real services.

Succeeds only if the engineer's PC has reached the customer's LAN by ping, HTTP
and UDP, and nothing is left of the session after its end. Either device may be
an old one, whose scripts cannot be changed any more; what it leaves on its own
machine is its own affair.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TextIO

from tests.lab.casting import Casting, read
from tests.lab.deployment import DOORS, END_SECONDS, MASTER, Deployment, onsite_id
from tests.lab.lab import Lab
from tests.lab.oldworld import END_SECONDS as SCRIPT_SECONDS
from tests.lab.oldworld import OldDevice, start_stunnel
from tests.lab.processes import LabError, Member, eventually, tail
from tests.lab.programs import OLD_PROGRAMS, PROGRAMS, obstacles
from tests.lab.snapshot import Snapshot
from tests.lab.topology import CUSTOMER_LAN
from tests.lab.website import PAGE

GUEST = f"{CUSTOMER_LAN[200]}/{CUSTOMER_LAN.prefixlen}"
"""The address that the PC takes in the customer's LAN when it is bridged there."""

SECOND_ADDRESS = IPv4Interface(f"{CUSTOMER_LAN[11]}/{CUSTOMER_LAN.prefixlen}")
"""The address of an old onsite's second port."""

PINGS = 20
"""How many pings the round trip is the median of."""

LOG_LINES = 25
"""How much of each log is shown after a failure."""

LOOKED_AT = ("server", "onsite", "master")
"""Whose network settings must be as before when the session is over, unless it is an old device."""

SCRIPT_UP_SECONDS = 30.0
"""How long an old script may take until its tunnel works: it types slowly."""

SECOND_PORT = "eth1"
"""
Where an old onsite is plugged into the LAN once more for mode L2: its bridge
leaves the port without an address, so it cannot be its way to the server.
"""

_FOUND = "up in {session_s} s, {backend} by {join}, {security}, round trip {rtt_ms} ms\n"

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

    def __init__(self, lab: Lab, casting: Casting, out: TextIO) -> None:
        self.lab = lab
        self.deployment: Deployment | None = None
        self._casting, self._mode = casting, casting.mode
        self.findings: dict[str, object] = {
            "ok": False, "backend": casting.master, "mode": casting.mode, "door": casting.door, "pair": casting.pair,
        }  # fmt: skip
        self._old: dict[str, OldDevice] = {}
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
        yield f"start the {self._kind('onsite')} {onsite_id()}, behind NAT", self._start_onsite
        yield "check that the engineer's PC does not reach the customer's LAN yet", self._check_apart
        yield f"open a session in mode {self._mode} from the {self._kind('master')} {MASTER}", self._open
        yield f"ping {web} from the PC", self._ping
        yield f"fetch http://{web}/ from the PC", self._fetch
        yield f"send UDP to {web} from the PC", self._send_udp
        yield "check whom the customer's LAN sees", self._check_source
        yield "ping the onsite device from the PC", self._ping_onsite
        yield "end the session, as Ctrl-C on the master does", self._end
        yield "check that nothing is left of it on server, onsite and master", self._check_nothing_left
        if "onsite" in self._casting.old:
            yield "check that the old onsite's script has ended, as it always did", self._check_ended
        else:
            yield "check that the onsite device waits for the next session", self._check_waiting

    def _kind(self, role: str) -> str:
        return f"old {role} device" if role in self._casting.old else f"{role} device"

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
        logs = list(self.deployment.logs()) if self.deployment is not None else []
        logs += [(device.host, device.process.log) for device in self._old.values() if device.process is not None]
        for host, log in logs:
            self._out.write(f"\n{host}, the end of its log:\n{tail(log, LOG_LINES)}\n")

    # The steps

    def _build(self) -> None:
        self.lab.up()
        self.lab.services()
        self.deployment = Deployment(self.lab, self._casting.door)
        for role, id in (("onsite", onsite_id()), ("master", MASTER)):
            if role in self._casting.old:
                self._old[role] = OldDevice(self.lab, id, role, role)
                if self._casting.door == "tls":
                    start_stunnel(self.lab, role)
        if "onsite" in self._old and self._mode == "L2":
            self.lab.plug("onsite", SECOND_PORT, SECOND_ADDRESS, "site-router", "br-lan")

    def _start_server(self) -> None:
        self._deployed.start_server()

    def _register(self) -> None:
        keys = self._deployed.make_keys()
        self._deployed.register({**keys, **{device.id: device.key for device in self._old.values()}})

    def _start_onsite(self) -> None:
        if "onsite" in self._old:
            old = self._old["onsite"]
            interface = ["-i", SECOND_PORT] if self._mode == "L2" else []
            old.start(*interface, stunnel=self._through_stunnel)
            old.wait_record("online")
            eventually(lambda: self._deployed.ask("online"), END_SECONDS, f"{old.id} to be listed")
        else:
            self._deployed.start_onsite(backends=self._casting.onsite)
        self._before = {host: self.lab.snapshot(host) for host in LOOKED_AT if host not in self._old}
        self._members = self.lab.members()

    def _check_apart(self) -> None:
        require(self.lab.pings("pc", "192.168.38.225"), "the PC does not even reach the master device")
        require(not self.lab.pings("pc", self.lab.addresses["web"]), "it does: this demo would prove nothing")

    def _open(self) -> None:
        if "master" in self._old:
            self._open_old()
        else:
            self._deployed.start_master(self._mode, self._casting.master)
            record = self._deployed.wait_session()
            self.findings |= {name: record.get(name) for name in ("session_s", "kex", "cipher")}
        [view] = self._deployed.ask("sessions")
        self.findings |= {name: view[name] for name in ("backend", "mode", "join")}
        require(view["mode"] == self._mode, f"the session is in mode {view['mode']}")
        onsite, master = self._casting.backends()
        carriers = view["backend"].split("-") if "-" in view["backend"] else [view["backend"]] * 2
        require(onsite in (None, carriers[0]) and master in (None, carriers[1]), f"it uses {view['backend']}")
        if self._mode == "L2":
            self.lab.run("pc", ["ip", "address", "add", GUEST, "dev", "eth0"], check=True)

    def _open_old(self) -> None:
        """The old master knows less of its session; how long it took the server tells."""
        master = self._old["master"]
        master.connect(onsite_id(), "-m", self._mode, stunnel=self._through_stunnel)
        master.wait_record("up", SCRIPT_UP_SECONDS)
        # Two old scripts each know of their own tunnel only.
        eventually(lambda: self._deployed.ask("sessions")[0]["up_at"], SCRIPT_UP_SECONDS, "both tunnels to be there")
        [view] = self._deployed.ask("sessions")
        self.findings |= {"session_s": round(view["up_at"] - view["selected_at"], 3), "kex": "", "cipher": ""}

    def _ping(self) -> None:
        # An old device has its end of the tunnel a little after the server.
        eventually(lambda: self.lab.pings("pc", self.lab.addresses["web"]), END_SECONDS, "the first answer")
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
        status = self._old["master"].interrupt() if "master" in self._old else self._deployed.end_session()
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

    def _check_ended(self) -> None:
        process = self._old["onsite"].process
        assert process is not None
        status = process.wait(SCRIPT_SECONDS)
        require(status == 0, f"its exit status is {status}")

    @property
    def _through_stunnel(self) -> bool:
        return self._casting.door == "tls"

    @property
    def _deployed(self) -> Deployment:
        assert self.deployment is not None
        return self.deployment


def main(argv: list[str] | None = None) -> int:
    """Play the story; 0 if all went well, 1 if not."""
    options, wanted = read(argv)
    out = sys.stderr if options.json else sys.stdout
    obstacle = obstacles([*PROGRAMS, *(OLD_PROGRAMS if wanted.old else ())])
    if obstacle is not None:
        sys.stderr.write(f"demo: {obstacle}\n")
        return 1
    lab = Lab(options.prefix)
    demo = Demo(lab, wanted, out)
    ok = False
    try:
        ok = demo.play()
    except KeyboardInterrupt:
        demo.findings["error"] = "interrupted"
    finally:
        if options.keep:
            _explain(lab, wanted, out)
        else:
            lab.down()
            left = lab.leftovers()
            if left:
                ok = False
                demo.findings.setdefault("error", "the lab has left something behind")
                out.write("left behind: " + "; ".join(left) + "\n")
    demo.findings["ok"] = ok
    if ok:
        kex, cipher = demo.findings["kex"], demo.findings["cipher"]
        security = f"key exchange {kex}, cipher {cipher}" if kex else "secured by what carries it"
        out.write(_FOUND.format(security=security, **demo.findings))
    out.write("all of it worked\n" if ok else f"failed: {demo.findings.get('error')}\n")
    if options.json:
        sys.stdout.write(json.dumps(demo.findings) + "\n")
    return 0 if ok else 1


def _explain(lab: Lab, wanted: Casting, out: TextIO) -> None:
    """How to go on by hand in a lab that was kept."""
    state = lab.directory / "deployment" / MASTER
    program = Path(sys.executable).parent / "rdv-master"
    server = lab.addresses["server"]
    script = os.path.relpath(Path(__file__).parent.parent.parent / "script" / "lab")
    out.write(f"\nThe lab is still up. Look around:   {script} --prefix {lab.prefix} status\n")
    if not wanted.old:
        out.write(
            f"Open a session yourself:            {script} --prefix {lab.prefix} exec master"
            f" {program} -u {MASTER} -R {server} -o {onsite_id()} -e eth1 --state-dir {state}\n"
        )
    out.write(f"Take it down:                       {script} --prefix {lab.prefix} down\n")


if __name__ == "__main__":
    sys.exit(main())
