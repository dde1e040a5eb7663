"""Namespaces of a test's own: hosts and cables, gone when the test is over."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).parents[2]
PREFIX = f"rdvnet-{os.getpid()}"

#: How long something that must happen may take on a busy machine, in seconds.
PATIENCE = 20.0

_libc = ctypes.CDLL(None, use_errno=True)


def run(*words: str, text: str | None = None) -> str:
    """What a command prints; an exception if it fails."""
    return subprocess.run(words, input=text, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout


def inside(host: str, *words: str) -> list[str]:
    """The command line that runs a command in a host."""
    return ["ip", "netns", "exec", f"{PREFIX}-{host}", *words]


def entered(host: str) -> AbstractContextManager[None]:
    """This thread is in a host for a while; a socket that is made there stays there."""
    return entered_namespace(f"{PREFIX}-{host}")


@contextmanager
def entered_namespace(name: str) -> Iterator[None]:
    """This thread is in a network namespace of this name for a while."""

    def enter(path: str) -> None:
        with open(path, "rb") as namespace:
            if _libc.setns(namespace.fileno(), 0x40000000):  # CLONE_NEWNET, linux/sched.h
                raise OSError(ctypes.get_errno(), f"cannot enter {path}")

    own = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
    with open(own, "rb") as back:
        enter(f"/run/netns/{name}")
        try:
            yield
        finally:
            _libc.setns(back.fileno(), 0x40000000)


class Held:
    """A device with its plan applied, until it is let go."""

    def __init__(self, host: str, directory: Path, role: str, extremity: str, address: str) -> None:
        """
        @param role: of L{tests.lab.rehearsal.plan_for}.
        """
        program = [sys.executable, "-m", "tests.lab.rehearsal", "hold", str(directory), role, extremity, address]
        self._process = subprocess.Popen(
            inside(host, *program), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> dict[str, Any]:
        """What it says next."""
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def let_go(self) -> dict[str, Any]:
        """Have it undo its plan; what it says then."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.line()

    def end(self) -> None:
        """Have it end, whatever it does."""
        self._process.kill()
        self._process.communicate()


class NamespaceTestCase(SynchronousTestCase):
    """Has namespaces of its own, gone when a test is over."""

    def setUp(self) -> None:
        """Skip where namespaces cannot be made."""
        if os.geteuid() != 0:
            raise SkipTest("needs root, for network namespaces")
        lacking = [program for program in ("ip", "nft", "ping") if shutil.which(program) is None]
        if lacking:
            raise SkipTest(f"needs the programs {', '.join(lacking)}")
        self.directory = Path(mkdtemp(prefix="rdvnet-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def host(self, name: str) -> None:
        """A new namespace, with loopback."""
        run("ip", "netns", "add", f"{PREFIX}-{name}")
        self.addCleanup(run, "ip", "netns", "del", f"{PREFIX}-{name}")
        run(*inside(name, "ip", "link", "set", "lo", "up"))

    def cable(self, one: str, its: str, other: str, others: str) -> None:
        """A cable between two hosts, with the names of its ends; IPv4 only."""
        ends = [(one, its), (other, others)]
        run(
            *("ip", "-n", f"{PREFIX}-{one}", "link", "add", its, "type", "veth"),
            *("peer", "name", others, "netns", f"{PREFIX}-{other}"),
        )
        for host, name in ends:
            self.setting(host, f"net/ipv6/conf/{name}/disable_ipv6", "1")

    def setting(self, host: str, path: str, value: str) -> None:
        """Change a kernel setting of a host."""
        run(*inside(host, "tee", f"/proc/sys/{path}"), text=value)

    def address(self, host: str, interface: str, address: str, gateway: str | None = None) -> None:
        """Give an address, and perhaps a default route, and switch the interface on."""
        ip = ["ip", "-n", f"{PREFIX}-{host}"]
        run(*ip, "addr", "add", address, "dev", interface)
        run(*ip, "link", "set", interface, "up")
        if gateway is not None:
            run(*ip, "route", "add", "default", "via", gateway)

    def rehearse(self, host: str, *words: str) -> str:
        """What a rehearsal prints when it runs in a host."""
        program = [sys.executable, "-m", "tests.lab.rehearsal", *words]
        ended = subprocess.run(
            inside(host, *program), cwd=ROOT, capture_output=True, text=True, timeout=6 * PATIENCE, check=False
        )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        return ended.stdout

    def held(self, host: str, extremity: str, address: str = "", role: str = "") -> Held:
        """A device with its plan applied; its role is its name unless another is given."""
        device = Held(host, self.directory / host, role or host, extremity, address)
        self.addCleanup(device.end)
        return device

    def tear_firewall(self, host: str) -> None:
        """Take a device's firewall away, to see that it was this that stopped a packet."""
        run(*inside(host, "nft", "flush", "ruleset"))

    def pings(self, host: str, address: str, wait: float = PATIENCE, *options: str) -> bool:
        """Whether one ping is answered."""
        ping = inside(host, "ping", "-c1", f"-W{wait}", *options, address)
        return subprocess.run(ping, capture_output=True, check=False).returncode == 0

    def socket(self, host: str, kind: socket.SocketKind, *bound: object) -> socket.socket:
        """A socket of a host, bound (and listening, if TCP) to an address if one is given."""
        with entered(host):
            made = socket.socket(socket.AF_INET, kind)
        self.addCleanup(made.close)
        made.settimeout(PATIENCE)
        if bound:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(bound)
            if kind is socket.SOCK_STREAM:
                made.listen()
        return made
