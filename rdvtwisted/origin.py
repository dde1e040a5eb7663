"""Where somebody comes from: how an address is written, and what counts as one address when strangers are counted."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

#: Leading bits of an IPv6 address that stand for one site (RFC 6177): its hosts take addresses as they like.
IPV6_SITE_BITS = 64


def address_text(address: object) -> str:
    """C{host:port} of an C{IAddress}, an IPv6 host in brackets; what it says of itself without a port."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None or port is None:
        return "" if address is None else str(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def origin(host: str) -> str:
    """What counts as one address: an IPv4 address, also when it is mapped into IPv6, or an IPv6 network of a site."""
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((address, IPV6_SITE_BITS), strict=False))
