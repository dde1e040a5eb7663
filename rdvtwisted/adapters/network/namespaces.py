"""
The network namespaces of sessions, held by this process and by nothing else. Blocks.

They have no name: a descriptor keeps each, and those of its TUN or TAP
devices. So when this process ends, by whatever, the kernel removes them as
soon as the devices are closed, which it does when their owner ends. Nothing
can be left to be swept, and there are no names for two servers to quarrel
about. To look into one: C{nsenter --net=/proc/PID/fd/NUMBER}, as root.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from attrs import evolve
from pyroute2 import IPRoute, NetlinkError

from rdvtwisted.adapters.network.kernel import Kernel
from rdvtwisted.adapters.network.linux import linux
from rdvtwisted.adapters.network.steps import observe, take
from rdvtwisted.adapters.network.transaction import refusal
from rdvtwisted.adapters.network.tuntap import PacketDevice
from rdvtwisted.errors import NetworkError
from rdvtwisted.glue import BRIDGE, MASTER, ONSITE, GlueSpec
from rdvtwisted.plan import Step
from rdvtwisted.scope import Scope
from rdvtwisted.values import Mode

# linux/sched.h
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

#: The network namespace of the calling process, which has one thread.
_OWN = "/proc/self/ns/net"

#: The group of interfaces (IFLA_GROUP) that is removed as one; any number but 0, in which all are at first.
_GROUP = 1

_libc = ctypes.CDLL(None, use_errno=True)

Pair = tuple[PacketDevice, PacketDevice]


def unshare(flags: int) -> None:
    """
    Leave what is shared with other processes for new ones of one's own (unshare(2)).

    @raise OSError: the kernel refuses it.
    """
    if _libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _own() -> int:
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


class Namespaces:
    """
    The namespaces of up to C{limit} sessions.

    For a process with one thread, which goes into a namespace to work there,
    and back. It should have left that of the machine, so that whatever goes
    wrong, goes wrong elsewhere.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._home = _own()
        self._held: dict[str, tuple[int, GlueSpec]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def open(self, spec: GlueSpec) -> Pair:
        """
        Make a session's namespace.

        @return: the packet devices of the onsite's and the master's tunnel, up; the caller's to close.
        @raise rdvtwisted.errors.NetworkError: the session has one, there are too many, or the kernel
            refuses something, which is named. Nothing is left then.
        @raise rdvtwisted.errors.MissingPrivilege: this process may not.
        @raise rdvtwisted.errors.MissingProgram: the kernel has no TUN, or there is no C{nft}.
        """
        if spec.session in self._held:
            raise NetworkError(f"the session {spec.session} is open already")
        if len(self._held) >= self._limit:
            raise NetworkError(f"there are {self._limit} sessions already that end at this server, which is its limit")
        made: list[PacketDevice] = []
        with self._away():
            try:
                unshare(CLONE_NEWNET)
                namespace = _own()
            except OSError as error:
                raise refusal("a network namespace", error) from None
            try:
                made.extend(PacketDevice(name, spec.mode, headers=spec.headers) for name in (ONSITE, MASTER))
                _furnish(spec)
            except BaseException:
                for device in made:
                    device.close()
                os.close(namespace)
                raise
        self._held[spec.session] = namespace, spec
        onsite, master = made
        return onsite, master

    def confine(self, session: str, scope: Scope) -> None:
        """
        Let the packets of a session go where C{scope} says, from one moment to the next.

        @raise rdvtwisted.errors.InvalidValue: the session is a bridged one.
        @raise rdvtwisted.errors.NetworkError: there is no such session, or the kernel refuses it.
        """
        if session not in self._held:
            raise NetworkError(f"there is no session {session} to be confined")
        namespace, spec = self._held[session]
        spec = evolve(spec, scope=scope)
        if spec.firewall is not None:
            with self._away():
                _enter(namespace)
                with linux() as kernel:
                    _take(kernel, spec.firewall)
        self._held[session] = namespace, spec

    def close(self, session: str) -> None:
        """
        Remove a session's namespace, if there is one.

        Its devices go first: as long as somebody has one open there would be a namespace around it.
        """
        held = self._held.pop(session, None)
        if held is None:
            return
        namespace, _ = held
        try:
            with self._away():
                _enter(namespace)
                _strip()
        finally:
            os.close(namespace)

    def clear(self) -> None:
        """Remove all."""
        for session in tuple(self._held):
            self.close(session)

    @contextmanager
    def _away(self) -> Iterator[None]:
        try:
            yield
        finally:
            _enter(self._home)


def _furnish(spec: GlueSpec) -> None:
    """Do what is to be done in the namespace in which the devices are."""
    if spec.mode is Mode.L2:
        try:
            _bridge()
        except NetlinkError as error:
            raise refusal("a bridge", OSError(error.code, error.args[1])) from None
    with linux() as kernel:
        for step in spec.steps:
            _take(kernel, step)


def _take(kernel: Kernel, step: Step) -> None:
    try:
        take(kernel, step, observe(kernel, step))
    except OSError as error:
        raise refusal(step, error) from None


def _bridge() -> None:
    """One that behaves like a plain switch, at once."""
    with IPRoute() as netlink:
        netlink.link("add", ifname=BRIDGE, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
        (bridge,) = netlink.link("get", ifname=BRIDGE)
        for name in (ONSITE, MASTER):
            (port,) = netlink.link("get", ifname=name)
            netlink.link("set", index=port["index"], master=bridge["index"])


def _strip() -> None:
    """
    Remove the interfaces, if their owner has not closed them yet: all at once,
    for the kernel waits as long for one (some 16 ms, RCU) as for many.
    """
    with IPRoute() as netlink:
        for link in netlink.get_links():
            if link.get_attr("IFLA_IFNAME") in (ONSITE, MASTER, BRIDGE):
                with suppress(NetlinkError):
                    netlink.link("set", index=link["index"], group=_GROUP)
        with suppress(NetlinkError):
            netlink.link("del", group=_GROUP)
