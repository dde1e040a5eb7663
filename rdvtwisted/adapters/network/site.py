"""What this machine is attached to, read from the kernel and from files."""

from __future__ import annotations

import socket
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from attrs import evolve

from rdvtwisted.adapters.network.kernel import Kernel
from rdvtwisted.plan import Attachment, Site

#: ARPHRD_PPP (linux/if_arp.h), as C{/sys/class/net/*/type} has it.
_PPP = "512"
#: Where systemd-resolved says which servers are behind its stub.
_STUB, _BEHIND_STUB = IPv4Address("127.0.0.53"), "run/systemd/resolve/resolv.conf"
#: Longest resolv.conf that is looked at, in bytes.
_RESOLV_CONF_SIZE = 65_536


def _text(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_RESOLV_CONF_SIZE)
    except OSError:
        return ""


def nameservers(text: str) -> list[IPv4Address]:
    """The IPv4 servers that a resolv.conf names, in its order, each once."""
    found: dict[IPv4Address, None] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found[IPv4Address(words[1])] = None
            except AddressValueError:
                continue  # an IPv6 one, or nonsense
    return list(found)


def dns_servers(root: Path = Path("/")) -> tuple[IPv4Address, ...]:
    """
    The DNS servers of this machine that others can reach too: those behind
    systemd-resolved's stub instead of the stub, and no other on loopback.
    """
    servers = nameservers(_text(root / "etc/resolv.conf"))
    if _STUB in servers:
        servers = nameservers(_text(root / _BEHIND_STUB))
    return tuple(server for server in servers if not server.is_loopback)


def kind_of(interface: str, root: Path = Path("/")) -> str:
    """C{wlan}, C{3g} (a modem: PPP or WWAN) or C{lan}, as the kernel's C{/sys} has it."""
    place = root / "sys/class/net" / interface
    if (place / "wireless").exists() or (place / "phy80211").exists():
        return "wlan"
    if _text(place / "type").strip() == _PPP or "DEVTYPE=wwan" in _text(place / "uevent").split():
        return "3g"
    return "3g" if interface.startswith(("ppp", "wwan")) else "lan"


def site(kernel: Kernel, root: Path = Path("/")) -> Site:
    """
    What this machine is attached to at this moment.

    @raise OSError: the kernel does not say.
    """
    attachments: dict[str, Attachment] = {}
    for interface, address in kernel.routing.addresses():
        if not address.is_loopback and interface not in attachments:
            forwards = kernel.sysctls.read(f"net/ipv4/conf/{interface}/forwarding") == "1"
            attachments[interface] = Attachment(interface, address, kind_of(interface, root), forwards)
    default = kernel.routing.default_interface()
    uplink = None if default is None else attachments.get(default)
    return Site(
        interface=default,
        lan=None if uplink is None else uplink.address,
        dns=dns_servers(root),
        hostname=socket.gethostname(),
        uplink=None if default is None else kind_of(default, root),
        attachments=tuple(attachments.values()),
        ports=tuple(
            evolve(port, kind=kind_of(port.interface, root)) for port in kernel.wiring.ports() if port.interface != "lo"
        ),
        routes=tuple(kernel.routing.destinations()),
    )
