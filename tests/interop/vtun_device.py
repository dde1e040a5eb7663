"""
The product's device end of a vtun tunnel, as a small program of its own for one network namespace: it drives a stock
vtund towards the address of a vtun server.

C{python -m tests.interop.vtun_device [--eager] DIRECTORY MODE SECRET} says C{carrying}
with a report in JSON, or C{failed} with the reason; each line on its standard
input has it say C{report}; at its end it closes the tunnel and says C{closed}. When the
tunnel ends by itself it says C{lost} with the reason.
"""

from __future__ import annotations

import json
import subprocess
from argparse import ArgumentParser
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

from attrs import asdict
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO

from rdvtwisted.adapters.network.linux import LinuxNetwork
from rdvtwisted.adapters.programs import Programs
from rdvtwisted.errors import RDVError
from rdvtwisted.interfaces import IDeviceTunnel
from rdvtwisted.testing.tunnels import MemoryTunnelSite, identity
from rdvtwisted.values import Mode, Role, TunnelParameters
from tests.interop.vtund import CABLE, MTU, PORT, TUNNEL, say
from tunnels.vtun import VtunBackend

reactor: Any = global_reactor

DEVICE, INTERFACE, OWNER = "rpi1100", "rdvdevice", "device"


def tunnel(directory: Path, mode: Mode, secret: str) -> tuple[IDeviceTunnel, LinuxNetwork]:
    """The tunnel, with a real network and real programs."""
    network = LinuxNetwork(reactor, directory / "journals")
    own = identity(DEVICE)
    door = TCP4ClientEndpoint(reactor, CABLE["server"], PORT)
    programs = Programs(reactor, directory / "programs")
    programs.sweep()
    site = MemoryTunnelSite(
        DEVICE,
        Role.ONSITE,
        reactor,
        own,
        door,
        b"",
        network=network,  # type: ignore[arg-type]
        interface=INTERFACE,
        programs=programs,
        owner=f"{OWNER}.tunnel",
        forwards={PORT: door},
    )
    parameters = TunnelParameters(
        session="s1",
        backend="vtun",
        mode=mode,
        join="glue",
        peer="rpi1101",
        peer_key=own.public,
        peer_role=Role.MASTER,
        address=IPv4Interface(f"{TUNNEL['device']}/30"),
        peer_address=IPv4Address(TUNNEL["server"]),
        mtu=MTU,
        door_port=PORT,
        ticket=secret,
    )
    return VtunBackend().device_end(parameters, site), network


async def serve(directory: Path, mode: Mode, secret: str, asked: Asked) -> None:
    """One session, from its interface to its last trace."""
    end, network = tunnel(directory, mode, secret)
    for line in await network.sweep(OWNER):
        say(f"swept {line}")
    asked.tunnel = end
    try:
        name = await end.attach()
        for words in (
            ["sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1"],
            ["ip", "address", "add", f"{TUNNEL['device']}/30", "dev", name],
            ["ip", "link", "set", name, "mtu", str(MTU), "up"],
        ):
            subprocess.run(words, check=True)
        if asked.eager:
            ping = ["ping", "-n", "-q", "-i", "0.05", "-c", "60", TUNNEL["server"]]
            subprocess.Popen(ping, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        report = await end.carry()
        say(f"carrying {json.dumps(asdict(report))}")
    except RDVError as error:
        say(f"failed {error}")
    try:
        await end.closed
        say("closed")
    except RDVError as error:
        say(f"lost {error}")
    network.close()


class Asked(Protocol):
    """What comes in by standard input."""

    tunnel: IDeviceTunnel

    def __init__(self, eager: bool) -> None:
        self.eager = eager

    def dataReceived(self, data: bytes) -> None:
        say(f"report {json.dumps(asdict(self.tunnel.report()))}")

    def connectionLost(self, reason: object = None) -> None:
        self.tunnel.close()


def main() -> None:
    """Serve until the tunnel is over."""
    parser = ArgumentParser()
    parser.add_argument("--eager", action="store_true", help="have packets for the server before it is connected")
    parser.add_argument("directory", type=Path)
    parser.add_argument("mode", type=Mode)
    parser.add_argument("secret")
    wanted = parser.parse_args()
    asked = Asked(wanted.eager)

    def begin() -> None:
        StandardIO(asked)
        serving = Deferred.fromCoroutine(serve(wanted.directory, wanted.mode, wanted.secret, asked))
        serving.addErrback(lambda failure: say(failure.getTraceback())).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()


if __name__ == "__main__":
    main()
