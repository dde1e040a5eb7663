"""Run in a router: empties its table of connections, as C{conntrack -F} does."""

from __future__ import annotations

import socket
import struct

_NETLINK_NETFILTER = 12  # linux/netlink.h
_NLM_F_REQUEST_ACK = 0x05
_NLMSG_ERROR = 2
_CT_DELETE = (1 << 8) | 2  # linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h: subsystem ctnetlink, message delete


def main() -> None:
    """Ask the kernel to forget every connection of this network namespace; raise L{OSError} if it does not."""
    request = struct.pack("=IHHII", 20, _CT_DELETE, _NLM_F_REQUEST_ACK, 1, 0) + struct.pack("=BBH", 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.sendto(request, (0, 0))
        answer = netlink.recv(4096)
    _, kind, _, _, _, error = struct.unpack_from("=IHHIIi", answer)
    if kind != _NLMSG_ERROR or error:
        raise OSError(-error, "the kernel keeps its connections")


if __name__ == "__main__":
    main()
