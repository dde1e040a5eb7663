"""A shell together with a desk that answers from a table, and values that such answers are made of."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from itertools import groupby
from operator import itemgetter

from attrs import define, field

from rdvtwisted import requests
from rdvtwisted.access import SessionGrant
from rdvtwisted.errors import RDVError
from rdvtwisted.requests import Readiness, Request
from rdvtwisted.scope import Scope
from rdvtwisted.shell.printout import Stream
from rdvtwisted.shell.shell import Action, Interrupt, Shell
from rdvtwisted.values import (
    EndReason,
    Mode,
    Presence,
    Profile,
    PublicKey,
    RemoteSite,
    Role,
    SessionState,
    SessionView,
    TunnelParameters,
)

KEY = PublicKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32)))

PARAMETERS = TunnelParameters(
    session="0123456789ab",
    backend="tls",
    mode=Mode.L3,
    join="relay",
    peer="rpi1101",
    peer_key=KEY,
    peer_role=Role.MASTER,
    address=IPv4Interface("192.168.128.1/30"),
    peer_address=IPv4Address("192.168.128.2"),
    mtu=1400,
    door_port=443,
    ticket="t-i_cket",
)

SESSION = SessionView(
    state=SessionState.UP,
    id="0123456789ab",
    master="rpi1101",
    onsite="rpi1100",
    mode=Mode.L2,
    backend="tls",
    join="relay",
    selected_at=1700000000.5,
    up_at=1700000002.25,
    to_onsite=12,
    to_master=34567890123,
)

SITE = RemoteSite(
    id="rpi1100",
    lan=IPv4Interface("192.168.1.50/24"),
    dns=(IPv4Address("192.168.1.1"), IPv4Address("8.8.8.8")),
    hostname="shopbox",
    uplink="lan",
    address="203.0.113.7:40022",
)

#: A port of a machine, and the ping of all, for another hour.
GRANT = SessionGrant(3, 3600.0, Scope.parse("192.168.1.10:tcp/80,8000-8080 *:icmp"))

VTUN = (
    ("tunnel_ip_network", "192.168.128.0"),
    ("tunnel_ip_prefix", "/30"),
    ("tunnel_ip_netmask", "255.255.255.252"),
    ("tunnelling_dev_ip_address", "192.168.128.2"),
    ("rdv_server_ip_address", "192.168.128.1"),
    ("rdv_server_vtun_tcp_port", "5000"),
    ("tunnel_secret", "_rpi1100"),
)


def presence(id: str, profile: Profile, session: str = "", address: str = "203.0.113.7:1") -> Presence:
    """A registration of an onsite."""
    return Presence(id, Role.ONSITE, address, "ssh", 0.0, 0.0, profile, KEY, session)


ONSITES = (
    presence(
        "rpi1100", Profile(lan=IPv4Interface("192.168.1.50/24"), hostname="shopbox", uplink="lan"), "0123456789ab"
    ),
    presence("rpi1102", Profile()),
)

#: An answer to each kind of request.
ANSWERS: dict[type, object] = {
    requests.Publish: None,
    requests.GetMode: Mode.L3,
    requests.ListOnsite: ONSITES,
    requests.WaitForMaster: Readiness.READY,
    requests.Connect: None,
    requests.GetRemoteSite: SITE,
    requests.GetVtunParameters: VTUN,
    requests.GetTunnelParameters: PARAMETERS,
    requests.DropTunnel: None,
    requests.GetSession: SESSION,
    requests.WaitForSessionChange: SessionView(reason=EndReason.ONSITE_LEFT),
    requests.GetSessionGrant: GRANT,
    requests.LimitSession: None,
    requests.EndSession: None,
    requests.GetCertificateAuthority: b"\x30\x03\x02\x01\x05",
    requests.GetReturnTime: 5,
}


@define(eq=False)
class Conversation:
    """
    A started shell whose requests are performed at once.

    @ivar answers: what to answer, by the request's class; an error refuses, a
        function is given the request.
    @ivar asked: all requests so far.
    """

    role: Role = Role.ONSITE
    terminal: bool = True
    answers: dict[type, object] = field(factory=ANSWERS.copy)
    device: str = "rpi1100"
    asked: list[Request] = field(factory=list, init=False)
    interrupts: int = field(default=0, init=False)
    shell: Shell = field(init=False)
    greeting: list[tuple[Stream, bytes]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.shell = Shell(self.device, self.role, terminal=self.terminal)
        self.shell.start()
        self.greeting = self.shell.take_output()

    def send(self, data: bytes) -> bytes:
        """What the shell prints to standard output in reply."""
        return b"".join(text for stream, text in self.exchange(data) if stream is Stream.STDOUT)

    def exchange(self, data: bytes) -> list[tuple[Stream, bytes]]:
        """What the shell prints in reply."""
        return self.carry_on(self.shell.receive(data))

    def end(self) -> list[tuple[Stream, bytes]]:
        """What the shell prints when no more is sent."""
        return self.carry_on(self.shell.end_of_input())

    def carry_on(self, actions: list[Action]) -> list[tuple[Stream, bytes]]:
        """Perform actions, and those that follow from them; what was printed."""
        printed: list[tuple[Stream, bytes]] = []
        while True:
            while actions:
                action, *actions = actions
                if isinstance(action, Interrupt):
                    self.interrupts += 1
                else:
                    actions = actions + self._perform(action)
            chunks = self.shell.take_output()
            if not chunks:
                return joined(printed)
            printed += chunks
            actions = self.shell.resume()

    def _perform(self, request: Request) -> list[Action]:
        self.asked.append(request)
        answer = self.answers[type(request)]
        if callable(answer):
            answer = answer(request)
        return self.shell.fail(answer) if isinstance(answer, RDVError) else self.shell.answer(answer)


def joined(chunks: list[tuple[Stream, bytes]]) -> list[tuple[Stream, bytes]]:
    """The same output with as few changes of stream as it has."""
    return [(stream, b"".join(text for _, text in together)) for stream, together in groupby(chunks, key=itemgetter(0))]
