"""What can break: the table L{FAULTS}, one line a kind."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial

from attrs import frozen

from rdvtwisted.adapters.control_server import LOOK_SECONDS
from rdvtwisted.services.footing import GRACE_SECONDS
from rdvtwisted.services.guard import REST_SECONDS as GUARD_REST_SECONDS
from rdvtwisted.services.ladder import SWITCH_SECONDS
from tests.lab.deployment import DOORS, END_SECONDS, EXTREMITY, MASTER, SESSION_SECONDS, master_id, onsite_id
from tests.lab.faults_play import BUILDING, CLOSING, IDLE, OPENING, PHASES, TRAFFIC, Play, Stuck, until
from tests.lab.faults_stage import DEVICES_SILENCE_SECONDS
from tests.lab.scene import BACK_SECONDS

SESSION = (BUILDING, TRAFFIC, CLOSING)
"""Phases in which there is a session."""

MASTERS = (OPENING, *SESSION)
"""Phases in which there is a master."""

SHORT_SECONDS = (0.3, 3.0)
"""A standstill or cut that a session lives through."""

LONG_SHARE = 0.35
"""Which part of all standstills and cuts is long enough to be noticed."""

AWAY_SECONDS = (0.0, 2.0)
"""How long a server is away that is started again."""

CLOCK_JUMPS = (-86_400.0, -90.0, -2.0, 2.0, 90.0, 3_600.0, 31_536_000.0)
"""Seconds by which a wall clock becomes wrong: by a hand, by NTP, on a device whose clock stops without power."""

MOVED_HOST = 77
"""The number in its LAN of the address that an uplink gets instead of its own."""

LOST_SHARE = (0.02, 0.3)
"""How much is lost on a bad line."""

MEDDLING = (
    "nft flush ruleset",
    "ip link set {interface} down",
    "ip address flush dev {interface}",
    "cd /sys/class/net; for each in rdv*; do tc qdisc del dev $each ingress 2>&1; done; nft flush ruleset",
    "ip rule | sed -nE 's/^(2[0-9]{{4}}):.*/\\1/p' | while read each; do ip rule del priority $each; done",
)
"""What others do to a session's configuration: firewalls are reloaded, daemons tidy up."""

LONGEST_PACKET = 1280
"""Bytes of the longest packet that a bad path lets through: as few as IPv6 allows it."""

HOLE_SECONDS = DEVICES_SILENCE_SECONDS + BACK_SECONDS
"""
How long it may take to be back behind such a path: one more connection falls silent, and the next one works. Where
nothing was up yet, both a connection and the tunnel of a session may have to.
"""

OTHER_DOOR_SECONDS = 3 * DEVICES_SILENCE_SECONDS + 2 * SWITCH_SECONDS
"""How long it may take to notice that a door is closed, to find that it stays so, and to take the other one."""


@frozen
class Fault:
    """
    A kind of fault.

    @ivar phases: when it can happen.
    @ivar act: lets it happen, and sees to what it has broken; what must be true when it returns, L{Play.settle} says.
    @ivar weight: how often it comes up, compared with others.
    @ivar backends: with what sessions it can happen.
    @ivar terminal: the master is to be in a terminal window.
    """

    name: str
    phases: tuple[str, ...]
    act: Callable[[Play], None]
    weight: int = 2
    backends: tuple[str, ...] = ("tls", "vtun", "stunnel")
    terminal: bool = False


# Processes that end


def _end_master(number: signal.Signals, play: Play) -> None:
    play.end("master", number)


def _end_onsite(number: signal.Signals, play: Play) -> None:
    play.end("onsite", number)
    if play.phase in (TRAFFIC, CLOSING):
        play.is_lost()
    play.restart("onsite")


def _end_server(number: signal.Signals, play: Play) -> None:
    play.end("server", number)
    if play.phase in (TRAFFIC, CLOSING):
        play.is_lost()
    if play.rng.random() < 0.5:
        play.pause(*AWAY_SECONDS)
    play.restart("server")


# Silence


def _silence(name: str, begin: Callable[[Play], None], end: Callable[[Play], None], away: str, play: Play) -> None:
    """Something falls silent, for a moment or until everybody has noticed, and is back."""
    long = play.rng.random() < LONG_SHARE
    begin(play)
    try:
        if long:
            play.notice(away)
        else:
            play.pause(*SHORT_SECONDS)
    finally:
        end(play)
        play.lifted()
    if not long:
        play.goes_on()


def _freeze(name: str, play: Play) -> None:
    process = play.process(name)
    _silence(
        name, lambda _: process.send(signal.SIGSTOP), lambda _: process.send(signal.SIGCONT), name, play
    )  # fmt: skip


def _cut(host: str, play: Play) -> None:
    lab = play.stage.lab
    _silence(host, lambda _: lab.cut(host), lambda _: lab.mend(host), "", play)


def _flush(router: str, play: Play) -> None:
    """A router forgets every connection; what exists is dropped from now on, without a word."""
    before = play.registration()
    play.stage.lab.flush_nat(router)
    if play.phase in SESSION:
        play.notice()
    if router == "site-router":
        play.come_anew(before)
    play.lifted()


def _move(host: str, play: Play) -> None:
    """An uplink gets another address, as by DHCP, and after a while its former one again."""
    lab = play.stage.lab
    own = next(port.address for port in lab.topology.ports(host) if port.name == "eth0")
    gateway = lab.topology.hosts[host].gateway
    assert own is not None
    other = f"{own.network[MOVED_HOST]}/{own.network.prefixlen}"

    def change(old: str, new: str) -> None:
        lines = f"address del {old} dev eth0\naddress add {new} dev eth0\nroute replace default via {gateway}\n"
        before = play.registration()
        lab.run(host, ["ip", "-batch", "-"], input=lines, check=True)
        play.struck()
        if host == "onsite":
            play.come_anew(before)

    change(str(own), other)
    try:
        play.is_lost(2 * GRACE_SECONDS)
    finally:
        change(other, str(own))
    play.lifted()


def _close_door(play: Play) -> None:
    """A firewall of the customer's lets nothing out any more but the door that the onsite has not come by."""
    lab = play.stage.lab
    [other] = [door for door in DOORS if door != play.stage.online()[onsite_id()]["door"]]
    lab.allow_only("site-router", DOORS[other])
    play.struck()
    try:
        until(
            lambda: play.stage.online().get(onsite_id(), {}).get("door") == other,
            OTHER_DOOR_SECONDS,
            f"{onsite_id()} to come by the other door",
        )
        play.noticed = time.monotonic() - play.struck_at
    finally:
        lab.allow_all("site-router")
    play.lifted()


def _lose(router: str, play: Play) -> None:
    """A line is bad for a while: part of all packets is lost."""
    lab = play.stage.lab
    lab.lose(router, play.rng.uniform(*LOST_SHARE))
    try:
        play.pause(*SHORT_SECONDS)
    finally:
        lab.lose(router, 0.0)
    play.lifted()
    play.goes_on()


def _swallow(router: str, play: Play) -> None:
    """A path begins to swallow large packets, and tells nobody: who has to do with it is back by itself."""
    lab = play.stage.lab
    lab.swallow(router, LONGEST_PACKET)
    try:
        if play.phase == IDLE:
            play.end("onsite", signal.SIGTERM)
            play.restart("onsite")
            until(lambda: onsite_id() in play.stage.online(), HOLE_SECONDS, f"{onsite_id()} to be listed")
        else:
            if play.phase == TRAFFIC:
                play.press()
                play.struck()
                if not play.stage.carries():  # it may have small segments already
                    play.notice()
            play.carries_in_time(HOLE_SECONDS if play.phase == TRAFFIC else 2 * HOLE_SECONDS)
    finally:
        lab.swallow(router, None)
    # The next time, nobody knows of this one.
    play.end("onsite", signal.SIGTERM)
    play.restart("onsite")


def _meddle(host: str, play: Play) -> None:
    """Somebody else changes what the session has configured: it is put back, and the session goes on."""
    interface = play.interface(host)
    how = play.rng.choice(MEDDLING)
    play.stage.lab.run(host, ["sh", "-c", how.format(interface=interface)], check=True)
    play.lifted()
    play.goes_on()


def _unmake(host: str, play: Play) -> None:
    """Somebody else removes the tunnel's interface: the session is over."""
    play.stage.lab.run(host, ["ip", "link", "del", play.interface(host)], check=True)
    play.struck()
    play.is_lost(GUARD_REST_SECONDS)


def _unplug_pc(play: Play) -> None:
    """The engineer's PC is unplugged from the master, which is the end of the session."""
    lab = play.stage.lab
    lab.cut("master", EXTREMITY)
    play.struck()
    try:
        play.is_over()
    finally:
        lab.mend("master", EXTREMITY)


# State and clocks


def _fill_disk(name: str, account: str, play: Play) -> None:
    """A disk is full: what runs goes on, what starts starts."""
    disk = play.stage.deployment.disks[account]
    disk.fill()
    try:
        if name != "master" and play.rng.random() < 0.4:
            (_end_server if name == "server" else _end_onsite)(signal.SIGTERM, play)
        else:
            play.pause(0.0, 0.5)
            play.lifted()
            play.goes_on()
    finally:
        disk.free()


def _jump(host: str, play: Play) -> None:
    """A wall clock is put right, or wrong: nobody's session minds."""
    play.stage.deployment.skew(host, play.rng.choice(CLOCK_JUMPS))
    play.pause(0.0, 1.0)
    play.lifted()
    play.goes_on()


# Devices and operators


def _hang_up(play: Play) -> None:
    """The operator closes the terminal window of his session."""
    commands = play.programs("master", "rdv-master")
    play.end("master", signal.SIGKILL)
    play.gone(commands)


def _be_two_masters(play: Play) -> None:
    """Another engineer wants the same onsite: while it is taken he is refused, and harms nobody."""
    second = play.stage.deployment.start_master(play.mode, play.backend, engineer=2)
    had = play.ended_or_up(second, master_id(2))
    if play.phase == TRAFFIC and (had or second.poll() != 1):
        raise Stuck(f"a second master was not refused, but ended with status {second.poll()}")
    play.lifted()
    play.goes_on()


def _be_the_same_master(play: Play) -> None:
    """The same master selects the same onsite from another machine: the newer session counts, and works."""
    second = play.stage.deployment.start_copy("master2", MASTER, *play.wish)
    until(lambda: play.master.poll() is not None, SESSION_SECONDS, "the older master to be out of its session")
    play.lifted()
    until(lambda: [each["state"] for each in play.stage.sessions()] == ["up"], BACK_SECONDS, "the newer session")
    if second.stop(signal.SIGINT, END_SECONDS) != 0:
        raise Stuck("the newer session did not end in order")


def _be_two_onsites(play: Play) -> None:
    """A copy of the onsite is here, too; when it has gone, the onsite is back."""
    twin = play.stage.deployment.start_copy("onsite2", onsite_id(), "--interface", "eth0")
    play.pause(0.3, 2.0)
    twin.stop(play.rng.choice([signal.SIGTERM, signal.SIGKILL]), END_SECONDS)
    play.lifted()


def _start_twice(play: Play) -> None:
    """The onsite's program is started once more on the same machine: it is refused, and disturbs nobody."""
    second = play.stage.deployment.start_copy("onsite", onsite_id(), "--interface", "eth0")
    play.pause(0.5, 1.5)
    second.stop(signal.SIGTERM, END_SECONDS)
    play.lifted()
    play.goes_on()


def _kill_gluer(play: Play) -> None:
    """The process ends that makes the namespaces of sessions: what there is goes on, and there is another one."""
    play.kill(play.programs("server", "network.gluer"))
    play.pause(0.0, 0.5)
    play.goes_on()


def _tidy_socket(play: Play) -> None:
    """Somebody who tidies up removes the server's control socket: what there is goes on, and it is there again."""
    path = play.stage.deployment.state("server") / "control.sock"
    path.unlink()
    until(path.is_socket, LOOK_SECONDS + 2, "the server to make its control socket anew")
    play.goes_on()


def _kill_program(name: str, word: str, play: Play) -> None:
    """A stock program ends that carries a device's tunnel: the session is over at once, for both."""
    play.kill(play.programs(name, word))
    play.is_lost()


def _freeze_program(name: str, word: str, play: Play) -> None:
    """A stock program stands still that carries a device's tunnel: its silence is noticed, and it is ended."""
    play.kill(play.programs(name, word), signal.SIGSTOP)
    play.struck()
    play.notice()
    play.lifted()


def _each(kind: str, act: Callable[..., None], names: dict[str, tuple[str, ...]], weight: int = 2) -> list[Fault]:
    return [Fault(f"{kind}-{name}", phases, partial(act, name), weight) for name, phases in names.items()]


_ALL = {"server": PHASES, "onsite": PHASES, "master": MASTERS}

FAULTS: tuple[Fault, ...] = (
    Fault("term-master", MASTERS, partial(_end_master, signal.SIGTERM)),
    Fault("kill-master", MASTERS, partial(_end_master, signal.SIGKILL), 3),
    Fault("term-onsite", PHASES, partial(_end_onsite, signal.SIGTERM)),
    Fault("kill-onsite", PHASES, partial(_end_onsite, signal.SIGKILL), 3),
    Fault("term-server", PHASES, partial(_end_server, signal.SIGTERM)),
    Fault("kill-server", PHASES, partial(_end_server, signal.SIGKILL), 3),
    *_each("freeze", _freeze, _ALL),
    *_each("cut", _cut, _ALL),
    Fault("flush-site", (IDLE, *SESSION), partial(_flush, "site-router")),
    Fault("flush-support", SESSION, partial(_flush, "support-router"), 1),
    Fault("move-onsite", (IDLE, TRAFFIC), partial(_move, "onsite")),
    Fault("move-master", (TRAFFIC,), partial(_move, "master"), 1),
    Fault("close-door", (IDLE,), _close_door, 1),
    Fault("unplug-pc", (BUILDING, TRAFFIC), _unplug_pc),
    Fault("disk-server", PHASES, partial(_fill_disk, "server", "server")),
    Fault("disk-onsite", PHASES, partial(_fill_disk, "onsite", "rpi1100")),
    Fault("disk-master", MASTERS, partial(_fill_disk, "master", "rpi1101"), 1),
    *_each("clock", _jump, _ALL),
    Fault("hangup-master", MASTERS, _hang_up, terminal=True),
    Fault("two-masters", (IDLE, *MASTERS), _be_two_masters),
    Fault("same-master", (TRAFFIC,), _be_the_same_master),
    Fault("two-onsites", PHASES, _be_two_onsites),
    Fault("onsite-twice", PHASES, _start_twice, 1),
    Fault("tidy-socket", (IDLE, TRAFFIC), _tidy_socket, 1),
    Fault("kill-gluer", PHASES, _kill_gluer),
    Fault("kill-vtund-onsite", (TRAFFIC,), partial(_kill_program, "onsite", "vtund"), backends=("vtun",)),
    Fault("kill-vtund-master", (TRAFFIC,), partial(_kill_program, "master", "vtund"), backends=("vtun",)),
    *_each("lossy", _lose, {"site-router": PHASES, "support-router": MASTERS}, 1),
    Fault("hole-site", (IDLE, BUILDING, TRAFFIC), partial(_swallow, "site-router"), 1, ("tls", "vtun")),
    Fault("hole-support", (OPENING, BUILDING, TRAFFIC), partial(_swallow, "support-router"), 1, ("tls", "vtun")),
    *_each("meddle", _meddle, {"onsite": (TRAFFIC,), "master": (TRAFFIC,)}),
    *_each("unmake", _unmake, {"onsite": (TRAFFIC,), "master": (TRAFFIC,)}, 1),
    Fault("freeze-vtund-onsite", (TRAFFIC,), partial(_freeze_program, "onsite", "vtund"), 1, ("vtun",)),
    Fault("freeze-stunnel-master", (TRAFFIC,), partial(_freeze_program, "master", "stunnel"), 1, ("stunnel",)),
    Fault("kill-stunnel-onsite", (TRAFFIC,), partial(_kill_program, "onsite", "stunnel"), backends=("stunnel",)),
    Fault("kill-stunnel-master", (TRAFFIC,), partial(_kill_program, "master", "stunnel"), backends=("stunnel",)),
)
"""Every kind of fault."""


def deck(kinds: tuple[Fault, ...]) -> list[Fault]:
    """Each kind as often as it weighs."""
    return [fault for fault in kinds for _ in range(fault.weight)]
