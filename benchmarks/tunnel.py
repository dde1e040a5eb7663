"""
The C{tls} tunnel against stock vtund without encryption: throughput, CPU and round trip.

Three hosts in network namespaces of their own, joined by cables: a master, a
server and an onsite. Either two C{tls} devices meet in our own door and relay on the
server, end-to-end encrypted, or two vtund clients hold a tunnel each to a vtund
on the server, whose kernel routes between them. The two take turns, and what
counts is the ratio of their medians: the absolute figures are those of this
machine and of whoever else uses it. Needs root, iperf3, ping and vtund.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from attrs import asdict, astuple, frozen

from benchmarks.hosts import PATIENCE, SERVER, BenchmarkError, Hosts
from benchmarks.tunnel_parts import PARTS, make_keys

#: Pings in one measurement, and seconds between two of them.
PINGS = 300
PING_INTERVAL = 0.005

#: The onsite's address inside the tunnels of each carrier.
FAR = {"tls": "10.202.0.1", "vtund": "10.202.2.2"}


@frozen
class Figures:
    """What one carrier did: medians over the rounds."""

    #: Gigabits a second, from the master to the onsite, in one TCP connection.
    throughput: float
    #: CPU seconds of all tunnel processes for a gigabyte.
    cpu: float
    #: Milliseconds for a ping and its answer.
    round_trip: float


def tls(hosts: Hosts, folder: Path) -> None:
    """Our own tunnel, through our own door and relay."""
    own = [sys.executable, "-m", "benchmarks.tunnel", "--part"]
    make_keys(folder)
    server = hosts.start("server", [*own, "server", str(folder)])
    hosts.said(server, "open")
    devices = [hosts.start(role, [*own, role, str(folder), SERVER[role]]) for role in ("onsite", "master")]
    for device in devices:
        hosts.said(device, "TunnelReport")


def vtund(hosts: Hosts, folder: Path) -> None:
    """Two tunnels of vtund as it is without encryption, and its server's kernel between them."""
    # The interfaces are made first, since vtund gives up one that is not up when it starts to read it.
    for host, name, number, end in (
        ("server", "tun1", 1, 1),
        ("server", "tun2", 2, 1),
        ("master", "tun0", 1, 2),
        ("onsite", "tun0", 2, 2),
    ):
        hosts.ip(host, f"tuntap add {name} mode tun")
        hosts.ip(host, f"address add 10.202.{number}.{end}/30 dev {name}")
        hosts.ip(host, f"link set {name} up")
    hosts.ip("master", "route add 10.202.2.0/30 via 10.202.1.1")
    hosts.ip("onsite", "route add 10.202.1.0/30 via 10.202.2.1")
    session = f"rdvbench{os.getpid()}"
    options = "options { port 5000; timeout 60; }\n"
    ends = "".join(
        f"{session}{number} {{ passwd x; type tun; proto tcp; encrypt no; compress no; device tun{number}; }}\n"
        for number in (1, 2)
    )
    configuration = folder / "server.conf"
    configuration.write_text(options + ends)
    # It writes /run/vtund.server.pid whatever one asks for: into a /run of its own.
    alone = ["sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh"]
    hosts.start("server", [*alone, "vtund", "-n", "-s", "-f", str(configuration)])
    for number, role in ((1, "master"), (2, "onsite")):
        configuration = folder / f"{role}.conf"
        configuration.write_text(options + f"{session}{number} {{ passwd x; type tun; persist yes; device tun0; }}\n")
        hosts.start(role, ["vtund", "-n", "-f", str(configuration), f"{session}{number}", SERVER[role]])


CARRIERS: dict[str, Callable[[Hosts, Path], None]] = {"tls": tls, "vtund": vtund}


def measure_once(name: str, seconds: int) -> Figures:
    """One carrier, in hosts of its own."""
    far = FAR[name]
    with tempfile.TemporaryDirectory(prefix="rdvbench-") as folder, Hosts() as hosts:
        CARRIERS[name](hosts, Path(folder))
        hosts.until_answered("master", far)
        pings = hosts.run("master", ["ping", "-i", str(PING_INTERVAL), "-c", str(PINGS), far])
        listening = hosts.start("onsite", ["iperf3", "--server", "--one-off", "--forceflush"])
        hosts.said(listening, "listening")
        before = hosts.cpu(apart=listening)
        sending = ["iperf3", "--client", far, "--time", str(seconds), "--json"]
        found = json.loads(hosts.run("master", sending, seconds + PATIENCE))
        cpu = hosts.cpu(apart=listening) - before
    received = found["end"]["sum_received"]
    return Figures(
        throughput=received["bits_per_second"] / 1e9,
        cpu=cpu / received["bytes"] * 1e9,
        round_trip=statistics.median(float(each) for each in re.findall(r"time=([\d.]+)", pings)),
    )


def measure(seconds: int, rounds: int) -> dict[str, Figures]:
    """Let the carriers take turns, and give the median of each."""
    found: dict[str, list[Figures]] = {name: [] for name in CARRIERS}
    for _ in range(rounds):
        for name, figures in found.items():
            figures.append(measure_once(name, seconds))
    return {
        name: Figures(*map(statistics.median, zip(*map(astuple, figures), strict=True)))
        for name, figures in found.items()
    }


def report(found: dict[str, Figures]) -> str:
    """The figures as a table, and the ratios."""
    lines = [f"{'':<8}{'Gbit/s':>10}{'CPU s/GB':>10}{'ping ms':>10}"]
    for name, each in found.items():
        lines.append(f"{name:<8}{each.throughput:>10.2f}{each.cpu:>10.2f}{each.round_trip:>10.3f}")
    ours, theirs = found["tls"], found["vtund"]
    lines.append(
        f"{'ratio':<8}{ours.throughput / theirs.throughput:>10.2f}{ours.cpu / theirs.cpu:>10.2f}"
        f"{ours.round_trip / theirs.round_trip:>10.2f}"
    )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tunnel", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--seconds", type=int, default=5, help="seconds of one bulk transfer [default: 5]")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each carrier [default: 3]")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part, *rest = options.part
        PARTS[part](*rest)
        return
    missing = [program for program in ("ip", "setpriv", "iperf3", "ping", "vtund") if shutil.which(program) is None]
    if os.geteuid() or missing:
        parser.error(f"install {', '.join(missing)}" if missing else "must be run as root: it makes network namespaces")
    try:
        found = measure(options.seconds, options.rounds)
    except BenchmarkError as error:
        sys.exit(f"benchmarks.tunnel: {error}")
    print(json.dumps({name: asdict(each) for name, each in found.items()}) if options.json else report(found))


if __name__ == "__main__":
    main()
