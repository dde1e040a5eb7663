"""
A program that has session namespaces, or gives up its privileges, in a process of its own.

C{python -m tests.lab.owner VERB ...}; what it finds it prints as a line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.selectreactor import SelectReactor

from rdvtwisted.adapters.network import privileges
from rdvtwisted.adapters.network.gluer_client import Glue, start
from rdvtwisted.adapters.network.namespaces import CLONE_NEWNET, CLONE_NEWUSER, unshare
from rdvtwisted.adapters.network.tuntap import PacketDevice
from rdvtwisted.errors import RDVError
from rdvtwisted.glue import GlueSpec
from rdvtwisted.testing.glue import ROUTED
from rdvtwisted.values import Mode

#: The number of a user that owns nothing.
NOBODY = 65534


def say(**facts: object) -> None:
    """Print."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def namespaces_of(pid: int) -> list[str]:
    """The network namespaces that a process is in or has open, as the kernel writes them."""
    links = [Path(f"/proc/{pid}/ns/net"), *Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in (os.readlink(path) for path in links) if link.startswith("net:")]


def own(count: int) -> None:
    """Open so many sessions, say by which process, and go on until killed."""
    reactor = SelectReactor()
    gluer = start()
    glue = Glue(gluer, reactor)

    async def work() -> None:
        pairs = [await glue.open(evolve(ROUTED, session=f"s{number}")) for number in range(count)]
        say(pid=gluer.process.pid, namespaces=namespaces_of(gluer.process.pid))
        await glue.ended
        say(ended=True, readable=[pair[0].read_into(bytearray(65_600)) for pair in pairs])
        for device in (device for pair in pairs for device in pair):
            device.close()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(work()))
    reactor.run()


def outlive(inheritor: str) -> None:
    """Like L{own}, but another process has the socket too, so that its end is no end of it."""
    gluer = start()
    heir = subprocess.Popen([inheritor, "1000"], stdout=subprocess.DEVNULL, pass_fds=[gluer.connection.fileno()])
    say(pid=gluer.process.pid, heir=heir.pid)
    os.read(0, 1)


def refused() -> None:
    """Say in which words there can be no sessions."""
    try:
        start()
    except RDVError as error:
        say(kind=type(error).__name__, error=str(error))


def without_user_namespaces(*arguments: str) -> None:
    """Do the rest where no user namespace can be made: in one that allows no other, with its privileges."""
    user, group = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    unshare(CLONE_NEWNET)
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    perform(*arguments)


def without_privileges(*arguments: str) -> None:
    """Give up every capability, then do the rest."""
    privileges.drop()
    perform(*arguments)


def opened(user: str = "") -> None:
    """
    Open and close a session of each mode; say who did it, as what.

    @param user: who is to do it.
    """
    reactor = SelectReactor()
    gluer = start(identity=privileges.account(user) if user else None)
    glue = Glue(gluer, reactor)

    async def work() -> None:
        for spec in (ROUTED, GlueSpec("s2", Mode.L2)):
            for device in await glue.open(spec):
                device.close()
        pid = gluer.process.pid
        held = privileges.held(str(pid))
        say(
            permitted=sorted(held.permitted),
            bounding=sorted(held.bounding),
            ambient=sorted(held.ambient),
            no_new_privileges=held.no_new_privileges,
            user=os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino,
            uids=Path(f"/proc/{pid}/status").read_text().partition("Uid:")[2].split()[:4],
            network=os.stat(f"/proc/{pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino,
        )
        await glue.stop()
        say(status=gluer.process.returncode)
        reactor.stop()

    def failed(failure: object) -> None:
        say(failed=str(failure))
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(work()).addErrback(failed))
    reactor.run()


def attempts() -> dict[str, Callable[[], object]]:
    """What only the privileged can do."""

    def bind() -> None:
        with socket.socket() as door:
            door.bind(("127.0.0.1", 80))

    def enter() -> None:
        with open("/proc/self/ns/net", "rb") as namespace:
            if ctypes.CDLL(None).setns(namespace.fileno(), CLONE_NEWNET):
                raise PermissionError

    return {
        "tun": lambda: PacketDevice("rdv-owner", Mode.L3).close(),
        "bind": bind,
        "setns": enter,
        "unshare": lambda: unshare(CLONE_NEWNET),
        "setuid": lambda: os.setuid(1),
    }


def dropped(*identity: str) -> None:
    """
    Give up all privileges; say what is possible before and after, and what a program started has then.

    @param identity: number of the user and the group to become.
    """

    def possible() -> list[str]:
        found = []
        for name, attempt in attempts().items():
            if name in ("unshare", "setuid"):  # there would be no way back
                continue
            try:
                attempt()
            except (OSError, RDVError):
                continue
            found.append(name)
        return found

    before = possible()
    privileges.drop((int(identity[0]), int(identity[1])) if identity else None)
    after = possible()
    for name in ("unshare", "setuid"):
        try:
            attempts()[name]()
        except OSError:
            continue
        after.append(name)
    child = subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    held = privileges.held()
    say(
        before=before,
        after=after,
        child=int(child.split()[1], 16),
        held=str(held),
        empty=not (held.effective | held.permitted | held.inheritable | held.bounding | held.ambient),
        no_new_privileges=held.no_new_privileges,
        user=[os.getuid(), os.geteuid(), os.getgid(), os.getegid(), *os.getgroups()],
    )


def kept(*capabilities: str) -> None:
    """Become nobody, keep some capabilities and lend the first; say what is held, also by a program started."""
    keep = frozenset(map(int, capabilities))
    privileges.become(NOBODY, NOBODY)
    privileges.restrict(keep, {int(capabilities[0])})
    child = subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    held = privileges.held()
    say(
        effective=sorted(held.effective),
        bounding=sorted(held.bounding),
        child=int(child.split()[1], 16),
        user=os.getuid(),
    )


def perform(verb: str, *arguments: str) -> None:
    """Do what the words say."""
    verbs: dict[str, Callable[..., None]] = {
        "own": lambda count: own(int(count)),
        "outlive": outlive,
        "refused": refused,
        "opened": opened,
        "dropped": dropped,
        "kept": kept,
        "without-user-namespaces": without_user_namespaces,
        "without-privileges": without_privileges,
    }
    verbs[verb](*arguments)


if __name__ == "__main__":
    perform(*sys.argv[1:])
