"""What a device makes of the answers of an old server, which knows vtun only and joins every session itself."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface

from rdvtwisted.addressing import check_ends
from rdvtwisted.values import Mode, PublicKey, Role, TunnelParameters

#: MTU that both ends of such a tunnel give it, in bytes; the server does not say.
MTU = 1450
#: Seconds that an old server may take to start its end of a tunnel.
PATIENCE_SECONDS = 20.0


def tunnel_parameters(
    account: str, role: Role, peer: str, mode: Mode, pairs: Iterable[tuple[str, str]], server_key: PublicKey
) -> TunnelParameters:
    """
    How to build a device's tunnel.

    @param role: the device's own.
    @param peer: the other device's id; empty if it is not known: an onsite is not told.
    @param pairs: what the server answered to C{get_vtun_parameters}, as L{rdvtwisted.shell.parameters.parse_vtun}
        has it.
    @param server_key: the key by which the server has proved who it is.
    @raise ProtocolError: no tunnel may have such addresses.
    """
    values = dict(pairs)
    address = IPv4Interface(values["tunnelling_dev_ip_address"] + values["tunnel_ip_prefix"])
    far = IPv4Address(values["rdv_server_ip_address"])
    check_ends(address, far)
    return TunnelParameters(
        # An old server has no name for a session; this is what both ends call the tunnel.
        session=f"tundev{account}",
        backend="vtun",
        mode=mode,
        join="glue",
        peer=peer,
        peer_key=server_key,
        peer_role=Role.MASTER if role is Role.ONSITE else Role.ONSITE,
        address=address,
        peer_address=far,
        mtu=MTU,
        door_port=int(values["rdv_server_vtun_tcp_port"]),
        ticket=values["tunnel_secret"],
    )
