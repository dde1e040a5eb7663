"""
The server's own end of vtun against a stock vtund server, for the same stock client, without encryption.

Two hosts in network namespaces of their own, joined by a cable: a device with a
stock vtund as client, and a server with either our own end or a stock vtund. The
two take turns, and what counts is the ratio of their medians: the absolute
figures are those of this machine and of whoever else uses it. In life an SSH
connection lies around it, which costs more than both. Needs root, iperf3, ping and vtund.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import asdict, astuple, frozen
from twisted.internet.protocol import Factory

from benchmarks.hosts import PATIENCE, SERVER, BenchmarkError, Hosts
from rdvtwisted.adapters.network.tuntap import PacketDevice
from rdvtwisted.testing.server_tunnels import MemoryServerSite, terms
from rdvtwisted.values import Mode
from tunnels.vtun_end import VtunServerTunnel
from tunnels.vtun_handshake import session_name

#: Pings in one measurement, and seconds between two of them.
PINGS = 300
PING_INTERVAL = 0.005
#: Bytes of a small packet's payload: about what one of speech has.
SMALL = 64

PORT = 5000
SECRET = "benchmark"
DEVICE = "rpi1100"
#: Addresses inside the tunnel, its MTU in bytes, and its interface.
NEAR, FAR = "10.203.0.2", "10.203.0.1"
MTU = 1450
TUNNEL = "tunnel"


@frozen
class Figures:
    """What one server's end did: medians over the rounds."""

    #: Gigabits a second in one TCP connection: from the device, and to it.
    from_device: float
    to_device: float
    #: Thousands of small packets a second: from the device, and to it.
    small_from_device: float
    small_to_device: float
    #: CPU seconds of both vtun processes for a gigabyte from the device.
    cpu: float
    #: Milliseconds for a ping and its answer.
    round_trip: float


def ours(hosts: Hosts, folder: Path) -> None:
    """Our own end, on TCP."""
    server = hosts.start("server", [sys.executable, "-m", "benchmarks.vtun", "--part", "server"])
    hosts.said(server, "listening")


def stock(hosts: Hosts, folder: Path) -> None:
    """The stock server."""
    # The interface is made first, since vtund gives up one that is not up when it starts to read it.
    _interface(hosts, "server", FAR, NEAR)
    file = folder / "server.conf"
    file.write_text(
        f"options {{ port {PORT}; timeout 60; }}\n"
        f"{session_name(DEVICE)} {{\n"
        f"passwd {SECRET}; type tun; proto tcp; encrypt no; compress no; device {TUNNEL};\n"
        "}\n"
    )
    # It writes /run/vtund.server.pid whatever one asks for: into a /run of its own.
    alone = ["sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh"]
    hosts.start("server", [*alone, "vtund", "-n", "-s", "-f", str(file)])


SERVERS: dict[str, Callable[[Hosts, Path], None]] = {"ours": ours, "vtund": stock}


def _interface(hosts: Hosts, host: str, near: str, far: str) -> None:
    hosts.ip(host, f"tuntap add {TUNNEL} mode tun")
    hosts.ip(host, f"address add {near} peer {far} dev {TUNNEL}")
    hosts.ip(host, f"link set {TUNNEL} mtu {MTU} up")


def serve() -> None:
    """Be our own end, in a host."""
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    tunnel = VtunServerTunnel(terms(Mode.L3, DEVICE, mtu=MTU), MemoryServerSite(reactor))
    tunnel.secret = SECRET
    device = PacketDevice(TUNNEL, Mode.L3)
    for command in (f"address add {FAR} peer {NEAR} dev {TUNNEL}", f"link set {TUNNEL} mtu {MTU} up"):
        subprocess.run(["ip", *command.split()], check=True)
    tunnel.start(device)
    tunnel.closed.addErrback(lambda failure: None)
    reactor.listenTCP(PORT, Factory.forProtocol(tunnel.accept))
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    reactor.run()


def measure_once(name: str, seconds: int) -> Figures:
    """One server's end, in hosts of its own."""
    with tempfile.TemporaryDirectory(prefix="rdvbench-") as folder, Hosts() as hosts:
        SERVERS[name](hosts, Path(folder))
        _interface(hosts, "master", NEAR, FAR)
        file = Path(folder, "client.conf")
        file.write_text(
            f"options {{ port {PORT}; timeout 60; }}\n"
            f"{session_name(DEVICE)} {{ passwd {SECRET}; type tun; persist yes; device {TUNNEL}; }}\n"
        )
        hosts.start("master", ["vtund", "-n", "-f", str(file), session_name(DEVICE), SERVER["master"]])
        hosts.until_answered("master", FAR)
        pings = hosts.run("master", ["ping", "-i", str(PING_INTERVAL), "-c", str(PINGS), FAR])
        small = ["--udp", "--bitrate", "0", "--length", str(SMALL)]
        up, cpu = _transfer(hosts, seconds)
        down, _ = _transfer(hosts, seconds, "--reverse")
        small_up, _ = _transfer(hosts, seconds, *small)
        small_down, _ = _transfer(hosts, seconds, *small, "--reverse")
    return Figures(
        from_device=up["bits_per_second"] / 1e9,
        to_device=down["bits_per_second"] / 1e9,
        small_from_device=_arrived(small_up),
        small_to_device=_arrived(small_down),
        cpu=cpu / up["bytes"] * 1e9,
        round_trip=statistics.median(float(each) for each in re.findall(r"time=([\d.]+)", pings)),
    )


def _transfer(hosts: Hosts, seconds: int, *options: str) -> tuple[dict[str, Any], float]:
    """What arrived in one transfer, and the seconds of CPU that it cost apart from its own."""
    listening = hosts.start("server", ["iperf3", "--server", "--one-off", "--forceflush"])
    hosts.said(listening, "listening")
    before = hosts.cpu(apart=listening)
    sending = ["iperf3", "--client", FAR, "--time", str(seconds), "--json", *options]
    end = json.loads(hosts.run("master", sending, seconds + PATIENCE))["end"]
    return end.get("sum_received") or end["sum"], hosts.cpu(apart=listening) - before


def _arrived(transfer: dict[str, Any]) -> float:
    return float((transfer["packets"] - transfer["lost_packets"]) / transfer["seconds"] / 1e3)


def measure(seconds: int, rounds: int) -> dict[str, Figures]:
    """Let the two take turns, and give the median of each."""
    found: dict[str, list[Figures]] = {name: [] for name in SERVERS}
    for _ in range(rounds):
        for name, figures in found.items():
            figures.append(measure_once(name, seconds))
    return {
        name: Figures(*map(statistics.median, zip(*map(astuple, figures), strict=True)))
        for name, figures in found.items()
    }


def report(found: dict[str, Figures]) -> str:
    """The figures as a table, and the ratios."""
    titles = ("Gbit/s in", "out", "1000/s in", "out", "CPU s/GB", "ping ms")
    lines = [f"{'':<8}" + "".join(f"{title:>11}" for title in titles)]
    for name, each in found.items():
        lines.append(f"{name:<8}" + "".join(f"{value:>11.3f}" for value in astuple(each)))
    ratios = [own / other for own, other in zip(astuple(found["ours"]), astuple(found["vtund"]), strict=True)]
    lines.append(f"{'ratio':<8}" + "".join(f"{ratio:>11.2f}" for ratio in ratios))
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vtun", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--seconds", type=int, default=3, help="seconds of each transfer [default: 3]")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each server's end [default: 3]")
    parser.add_argument("--part", choices=["server"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        serve()
        return
    missing = [program for program in ("ip", "setpriv", "iperf3", "ping", "vtund") if shutil.which(program) is None]
    if os.geteuid() or missing:
        parser.error(f"install {', '.join(missing)}" if missing else "must be run as root: it makes network namespaces")
    try:
        found = measure(options.seconds, options.rounds)
    except BenchmarkError as error:
        sys.exit(f"benchmarks.vtun: {error}")
    print(json.dumps({name: asdict(each) for name, each in found.items()}) if options.json else report(found))


if __name__ == "__main__":
    main()
