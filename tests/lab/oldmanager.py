"""
The manager of an old server: who is registered, with which tunnel server, in which session with whom.

It does one thing at a time, as the original does; its shells
(L{tests.lab.oldshell}) ask it at a UNIX socket, a JSON line each way, and
vtund's up and down commands write to a FIFO.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from tests.lab import oldglue
from tests.lab.oldvtund import Vtund, ports_in_use

ADDRESSES = IPv4Network("192.168.128.0/17")
"""Every tunnel gets a /30 of it: the first address is the server's, the second the device's."""

PORTS = range(5000, 5255)

MODES = ("L2", "L3", "L3_multi")


class Refused(Exception):
    """The manager does not do it; the word that the shell's traceback ends in."""


@dataclass(eq=False)
class Caller:
    """A shell that is connected, or somebody who looks."""

    socket: socket.socket
    unread: bytes = b""
    waits: str | None = None

    def tell(self, **facts: object) -> None:
        """Send a line; one who has gone does not hear it."""
        with suppress(OSError):
            self.socket.sendall(json.dumps(facts).encode() + b"\n")


@dataclass
class Binding:
    """A device that is registered."""

    id: str
    role: str
    lan: str
    dns: str
    hostname: str
    owner: Caller
    vtund: Vtund

    @property
    def parameters(self) -> dict[str, str]:
        """What its client has to know."""
        vtund = self.vtund
        return {
            "tunnel_ip_network": str(vtund.network.network_address),
            "tunnel_ip_prefix": f"/{vtund.network.prefixlen}",
            "tunnel_ip_netmask": str(vtund.network.netmask),
            "tunnelling_dev_ip_address": str(vtund.network[2]),
            "rdv_server_ip_address": str(vtund.network[1]),
            "rdv_server_vtun_tcp_port": str(vtund.port),
            "tunnel_secret": vtund.secret,
        }


@dataclass
class Session:
    """A master that has selected an onsite device, and the interfaces that are up."""

    master: str
    onsite: str
    interfaces: dict[str, str] = field(default_factory=dict)

    def __contains__(self, id: str) -> bool:
        return id in (self.master, self.onsite)

    def peer(self, id: str) -> str:
        """The other one."""
        return self.onsite if id == self.master else self.master

    @property
    def state(self) -> str:
        """C{down}, C{in-progress} or C{up}."""
        return ("down", "in-progress", "up")[len(self.interfaces)]


class Manager:
    """
    Serves until its process is ended.

    @param directory: where its socket and files are.
    @param wait_seconds: how long C{wait_master_connection} waits.
    @param say: writes a line of the log.
    """

    def __init__(self, directory: Path, wait_seconds: float, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._wait_seconds = wait_seconds
        self._say = say
        self._bindings: dict[str, Binding] = {}
        self._sessions: list[Session] = []
        self._waiting: set[Caller] = set()
        self._selector = selectors.DefaultSelector()
        self._verbs: dict[str, Callable[..., object]] = {
            "register": self._register,
            "unregister": self._unregister,
            "wait": self._wait,
            "stop waiting": self._stop_waiting,
            "online": self._online,
            "connect": self._connect,
            "lan": self._lan,
            "start": self._start,
            "stop": self._stop,
            "status": self._status,
        }

    def serve(self) -> None:
        """Answer shells and hear of interfaces, for ever."""
        reports = self._directory / "reports"
        os.mkfifo(reports)
        fifo = os.open(reports, os.O_RDWR | os.O_CLOEXEC)  # also for writing: so it never ends
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.bind(str(self._directory / "manager.sock"))
            door.listen()
            self._selector.register(door, selectors.EVENT_READ, lambda: self._accept(door))
            self._selector.register(fifo, selectors.EVENT_READ, lambda: self._hear(os.read(fifo, 65536)))
            while True:
                for key, _ in self._selector.select():
                    key.data()

    def close(self) -> None:
        """End every tunnel."""
        for id in list(self._bindings):
            self._unregister(None, id)

    # Callers

    def _accept(self, door: socket.socket) -> None:
        caller = Caller(door.accept()[0])
        self._selector.register(caller.socket, selectors.EVENT_READ, lambda: self._read(caller))

    def _read(self, caller: Caller) -> None:
        try:
            data = caller.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self._lost(caller)
            return
        *lines, caller.unread = (caller.unread + data).split(b"\n")
        for line in lines:
            question = json.loads(line)
            try:
                caller.tell(value=self._verbs[question.pop("verb")](caller, **question))
            except Refused as refusal:
                self._say(f"refused: {refusal}")
                caller.tell(error=str(refusal))

    def _lost(self, caller: Caller) -> None:
        """A shell has ended, whatever of."""
        self._selector.unregister(caller.socket)
        caller.socket.close()
        self._stop_waiting(caller)
        for binding in [binding for binding in self._bindings.values() if binding.owner is caller]:
            self._say(f"The shell of {binding.id} has exited")
            self._unregister(caller, binding.id)

    # What shells ask for

    def _register(self, caller: Caller, id: str, role: str, mode: str, lan: str, dns: str, hostname: str) -> None:
        if mode not in MODES:
            raise Refused(f"InvalidTunnelMode:{mode}")
        if id in self._bindings:
            self._say(f"Duplicate username {id}. First deleting previous binding")
            self._destroy(id)
        vtund = Vtund(self._directory, id, mode, self._free_network(), self._free_port())
        self._bindings[id] = Binding(id, role, lan, dns, hostname, caller, vtund)
        self._say(
            f"New binding created for username {id} (role={role}, tunnel_mode={mode}, lan_ip={lan},"
            f' lan_dns="{dns}", hostname={hostname})'
        )

    def _free_network(self) -> IPv4Network:
        taken = {binding.vtund.network for binding in self._bindings.values()}
        for network in ADDRESSES.subnets(new_prefix=30):
            if network not in taken:
                return network
        raise Refused("BufferError")

    def _free_port(self) -> int:
        taken = {binding.vtund.port for binding in self._bindings.values()} | ports_in_use()
        for port in PORTS:
            if port not in taken:
                return port
        raise Refused("BufferError")

    def _unregister(self, _: Caller | None, id: str) -> None:
        """Let a device go, and the first of its sessions take the partner's tunnel with it."""
        self._destroy(id)
        named = [session for session in self._sessions if id in session]
        for session in named:
            # The original leaves the rules of the session behind. No device notices, and the next session needs none.
            self._unglue(session)
            self._sessions.remove(session)
        for session in named[:1]:
            self._say(f"Stopping session between {id} and {session.peer(id)}")
            if session.peer(id) in self._bindings:
                self._bindings[session.peer(id)].vtund.stop()

    def _destroy(self, id: str) -> None:
        binding = self._bindings.pop(id, None)
        if binding is not None:
            binding.vtund.stop()
            self._say(f"Deleted binding for username {id}")

    def _wait(self, caller: Caller, id: str) -> float:
        caller.waits = id
        self._waiting.add(caller)
        return self._wait_seconds

    def _stop_waiting(self, caller: Caller) -> None:
        caller.waits = None
        self._waiting.discard(caller)

    def _online(self, _: Caller) -> list[str]:
        return [id for id, binding in self._bindings.items() if binding.role == "onsite"]

    def _connect(self, _: Caller, id: str, onsite: str) -> None:
        if id not in self._bindings:
            raise Refused("MasterDeviceIsNotRegistered")
        if onsite not in self._online(_):
            raise Refused("OnsiteDeviceIsNotRegistered")
        if any(s.master == id and s.onsite == onsite and s.state == "down" for s in self._sessions):
            raise Refused("DevicesAlreadyConnected")
        self._bindings[onsite].vtund.mode = self._bindings[id].vtund.mode
        self._sessions.append(Session(id, onsite))
        self._say(f"Session starting between master {id} and onsite {onsite}")
        for caller in [caller for caller in self._waiting if caller.waits == onsite]:  # nobody else will ever know
            self._stop_waiting(caller)
            caller.tell(signal="allowed")

    def _lan(self, _: Caller, id: str) -> str:
        for session in self._sessions:
            if session.master == id and session.onsite in self._bindings:
                return self._bindings[session.onsite].lan
        return ""

    def _start(self, _: Caller, id: str) -> dict[str, str]:
        binding = self._own(id)
        if binding.vtund.runs:
            raise Refused("VtundAlreadyRunning")
        if not binding.vtund.start():
            raise Refused("VtundDoesNotStart")
        return binding.parameters

    def _stop(self, _: Caller, id: str) -> None:
        binding = self._own(id)
        if not binding.vtund.runs:
            raise Refused("VtundNotRunning")
        binding.vtund.stop()

    def _own(self, id: str) -> Binding:
        """The binding of a device, which another shell of the same account may have taken away."""
        if id not in self._bindings:
            raise Refused("NoSuchBinding")
        return self._bindings[id]

    def _status(self, _: Caller) -> dict[str, Any]:
        """For tests."""
        bindings = {
            id: {"role": each.role, "started": each.vtund.runs, **each.parameters}
            for id, each in self._bindings.items()
        }
        sessions = [{"master": s.master, "onsite": s.onsite, "state": s.state} for s in self._sessions]
        return {"bindings": bindings, "sessions": sessions}

    # What vtund reports

    def _hear(self, text: bytes) -> None:
        for line in text.decode().splitlines():
            id, interface, status = line.split()
            self._say(f"{interface} of {id} is {status}")
            for session in [session for session in self._sessions if id in session]:
                if status == "up":
                    session.interfaces[id] = interface
                    self._glue(session)
                elif session.interfaces.get(id) == interface:
                    self._down(session, id)

    def _down(self, session: Session, id: str) -> None:
        was_up = session.state == "up"
        self._unglue(session)
        del session.interfaces[id]
        if was_up and session.peer(id) in self._bindings:
            self._bindings[session.peer(id)].vtund.stop()

    def _glue(self, session: Session) -> None:
        if session.state == "up":
            oldglue.glue(*self._ends(session))

    def _unglue(self, session: Session) -> None:
        if session.state == "up":
            oldglue.unglue(*self._ends(session))

    def _ends(self, session: Session) -> tuple[oldglue.End, oldglue.End]:
        """Master and onsite, as interfaces; the addresses of one that has gone are unknown."""

        def end(id: str) -> oldglue.End:
            binding = self._bindings.get(id)
            return oldglue.End(session.interfaces[id], str(binding.vtund.network[1]) if binding else None)

        return end(session.master), end(session.onsite)
