"""C{script/lab}: the lab by hand."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.lab.lab import Lab
from tests.lab.namespaces import environment, inodes
from tests.lab.processes import LabError, Member
from tests.lab.programs import PROGRAMS, missing_programs, obstacles

EXIT_DOWN = 3
"""Exit status of C{status} when there is no lab, as init scripts have it (LSB)."""

EXIT_BROKEN = 1

USUAL_PREFIX = "rdvlab"


def _say(text: str) -> None:
    """One line for the person at the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _which(default: str) -> argparse.ArgumentParser:
    """The option that all commands have."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--prefix", default=default, help=f"which lab: the start of all its names (default: {USUAL_PREFIX})"
    )
    return parser


def arguments() -> argparse.ArgumentParser:
    """The command line that L{main} understands."""
    parser = argparse.ArgumentParser(
        prog="script/lab", description="A small Internet in network namespaces.", parents=[_which(USUAL_PREFIX)]
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Behind a command it is as good as before it; without a default there, as that would win.
    which = [_which(argparse.SUPPRESS)]
    up = commands.add_parser("up", help="build the lab, with services on the customer's LAN", parents=which)
    up.add_argument("--sites", type=int, default=1, help="number of customers (default: %(default)s)")
    up.add_argument("--engineers", type=int, default=1, help="number of masters with a PC (default: %(default)s)")
    up.add_argument("--lan", default="192.168.1.0/24", help="the LAN that each of them has (default: %(default)s)")
    commands.add_parser("down", help="take it away, and everything that runs in it", parents=which)
    status = commands.add_parser(
        "status", help="show hosts, addresses and processes; exits with 3 if there is no lab", parents=which
    )
    status.add_argument("--json", action="store_true", help="for programs")
    execute = commands.add_parser(
        "exec", help="run a command in a host, with its exit status and this terminal", parents=which
    )
    execute.add_argument("host")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD")
    for name, does in (("cut", "pull the uplink cable of a host"), ("mend", "plug it in again")):
        cable = commands.add_parser(name, help=does, parents=which)
        cable.add_argument("host")
        cable.add_argument("interface", nargs="?", default="eth0", help="(default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    options = arguments().parse_args(argv)
    try:
        _prepare()
        if options.command == "up":
            return _up(options.prefix, options.sites, options.lan, options.engineers)
        if options.command == "down":
            return _down(options.prefix)
        if options.command == "status":
            return _status(options.prefix, options.json)
        lab = Lab.load(options.prefix)
        if lab is None:
            raise LabError(f"no lab {options.prefix!r} here; build it with: script/lab up")
        if options.command == "exec":
            _execute(lab, options.host, options.argv or ["bash"])
        elif options.command == "cut":
            lab.cut(options.host, options.interface)
        else:
            lab.mend(options.host, options.interface)
    except (LabError, LookupError, ValueError) as error:
        sys.stderr.write(f"lab: {error.args[0]}\n")
        return 1
    return 0


def _prepare() -> None:
    """Install what the lab is built with if it is missing and this is Debian; raise L{LabError} if it stays away."""
    if os.geteuid() != 0:
        raise LabError("needs root, for network namespaces; try: sudo script/lab ...")
    packages = sorted({PROGRAMS[name] for name in missing_programs()})
    if packages and shutil.which("apt-get"):
        _say(f"installing {' '.join(packages)}")
        for step in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(
                ["apt-get", "-qq", *step],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=False,  # what counts is what is there afterwards
            )
    obstacle = obstacles()
    if obstacle is not None:
        raise LabError(f"{obstacle}; on Debian: apt-get update && apt-get install {' '.join(packages)}")


def _up(prefix: str, sites: int, lan: str, engineers: int) -> int:
    """Build the lab, unless the very same is there."""
    wanted = Lab(prefix, sites, lan, engineers)
    present = Lab.load(prefix)
    if present is not None and present.topology == wanted.topology:
        _say(f"the lab {prefix!r} is up already")
        return _status(prefix, as_json=False)
    began = time.monotonic()
    wanted.up()
    wanted.services()
    _say(f"up in {time.monotonic() - began:.2f} s\n")
    return _status(prefix, as_json=False)


def _down(prefix: str) -> int:
    """Take away whatever there is."""
    lab = Lab(prefix)
    found = lab.leftovers()
    lab.down()
    left = lab.leftovers()
    if left:
        raise LabError("still here: " + "; ".join(left))
    _say("the lab is down" if found else "there was no lab")
    return 0


def _status(prefix: str, as_json: bool) -> int:
    """Show what is there."""
    lab = Lab.load(prefix)
    if lab is None:
        left = Lab(prefix).leftovers()
        if as_json:
            _say(json.dumps({"prefix": prefix, "up": False, "leftovers": left}))
        elif left:
            _say(f"a part of the lab {prefix!r} is here; script/lab up builds it anew, script/lab down takes it away:")
            _say("\n".join(f"  {line}" for line in left))
        else:
            _say(f"no lab {prefix!r}")
        return EXIT_BROKEN if left else EXIT_DOWN
    running = _running(lab)
    if as_json:
        hosts = {
            name: {
                "namespace": lab.topology.namespace(name),
                "part": host.part,
                "addresses": dict(_addresses(lab, name)),
                "processes": [{"pid": member.pid, "command": member.command} for member in running[name]],
            }
            for name, host in lab.topology.hosts.items()
        }
        _say(json.dumps({"prefix": prefix, "up": True, "hosts": hosts}))
        return 0
    for line in _drawing(lab, "inet"):
        _say(line)
    _say("")
    for name, members in running.items():
        for member in members:
            _say(f"{name:16} {member.pid:>7}  {member.command[:100]}")
    which = "" if prefix == USUAL_PREFIX else f"--prefix {prefix} "
    _say(f"\nscript/lab {which}exec HOST CMD...   or   ip netns exec {prefix}-HOST CMD...")
    return 0


def _running(lab: Lab) -> dict[str, list[Member]]:
    """The lab's processes by host; those in namespaces that a host made itself are left out."""
    hosts = inodes(lab.prefix)
    running: dict[str, list[Member]] = {name: [] for name in lab.topology.hosts}
    for member in lab.members():
        if member.namespace in hosts:
            running[hosts[member.namespace]].append(member)
    return running


def _addresses(lab: Lab, name: str) -> Iterator[tuple[str, str]]:
    """The interfaces of a host that have an address, and it."""
    for port in lab.topology.ports(name):
        if port.address is not None:
            yield port.name, str(port.address)
    bridge = lab.topology.hosts[name].bridge
    if bridge is not None:
        yield bridge[0], str(bridge[1])


def _drawing(lab: Lab, name: str) -> Iterator[str]:
    """A host and, further in, all that reach the Internet through it."""
    host = lab.topology.hosts[name]
    places = "  ".join(f"{interface} {address}" for interface, address in _addresses(lab, name))
    yield f"{name}  ({host.part})" + ("" if name == "inet" else f"  {places}")
    behind = [cable for cable in lab.topology.cables if cable.far.host == name]
    for cable in behind:
        last = cable is behind[-1]
        [first, *rest] = _drawing(lab, cable.near.host)
        yield f"{'└─' if last else '├─'} {first}"
        for line in rest:
            yield f"{'  ' if last else '│ '} {line}"


def _execute(lab: Lab, host: str, argv: list[str]) -> None:
    """Become the command, so that its exit status and terminal are its own."""
    if argv[0] == "--":
        argv = argv[1:]
    line = lab.command_line(host, argv)
    sys.stdout.flush()
    os.execvpe(line[0], line, environment(lab.prefix))


if __name__ == "__main__":
    sys.exit(main())
