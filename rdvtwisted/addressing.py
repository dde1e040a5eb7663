"""
Which addresses a tunnel may have.

A server chooses them, and a device must be able to stand a server that chooses
with bad intent. So whatever has its place elsewhere is none of a tunnel's: what
the Internet has, what this machine keeps for itself, what is meant for many.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from rdvtwisted.errors import ProtocolError

#: Prefix length of the largest network that a tunnel's two ends may have.
SHORTEST_PREFIX = 24

#: What nobody has on the Internet: private networks (RFC 1918), those of carriers (RFC 6598), of benchmarks (RFC 2544).
NETWORKS = tuple(map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15")))


def private(network: IPv4Network) -> bool:
    """Whether tunnels may have addresses of this network."""
    return any(network.subnet_of(each) for each in NETWORKS)


def check_ends(own: IPv4Interface, far: IPv4Address) -> None:
    """
    Look at the addresses that a server has chosen for a tunnel.

    @param own: this device's, with the network of both.
    @param far: the other end's.
    @raise ProtocolError: they cannot be the two ends of one tunnel; what is wrong, and what the server should do.
    """
    network = own.network
    if network.prefixlen < SHORTEST_PREFIX:
        raise _unusable(own, far, f"their network is larger than a /{SHORTEST_PREFIX}")
    if far not in network or far == own.ip:
        raise _unusable(own, far, "they are not two of one network")
    if not private(network):
        raise _unusable(own, far, "their network is not a private one")


def _unusable(own: IPv4Interface, far: IPv4Address, reason: str) -> ProtocolError:
    return ProtocolError(
        f"the server's answer has addresses that cannot be the two ends of one tunnel: {own} and {far}, and {reason};"
        f" the server should take them out of a private network, such as 192.168.128.0/17, in blocks of /30"
    )
