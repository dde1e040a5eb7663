"""Packets that say they are from somebody else, as root of a machine can send them."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address

from tests.lab.hosts import entered

ICMP, UDP = 1, 17


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def packet(source: str, target: str, protocol: int, content: bytes) -> bytes:
    """An IPv4 packet (RFC 791)."""
    ends = IPv4Address(source).packed + IPv4Address(target).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), 1, 0, 64, protocol, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + content


def datagram(source: str, port: int, target: str, to: int, content: bytes) -> bytes:
    """A UDP datagram (RFC 768), without checksum."""
    return packet(source, target, UDP, struct.pack("!HHHH", port, to, 8 + len(content), 0) + content)


def icmp(source: str, target: str, kind: int, code: int, rest: bytes, content: bytes = b"") -> bytes:
    """An ICMP message (RFC 792); C{rest} is the second half of its header."""
    text = struct.pack("!BBH", kind, code, 0) + rest + content
    return packet(source, target, ICMP, text[:2] + struct.pack("!H", checksum(text)) + text[4:])


def echo(source: str, target: str, answer: bool = False) -> bytes:
    """A ping, or the answer to it."""
    return icmp(source, target, 0 if answer else 8, 0, struct.pack("!HH", 7, 7), bytes(32))


def send(host: str, interface: str, *packets: bytes) -> None:
    """Have a host send them by an interface, whatever is its firewall's opinion of their content."""
    with entered(host), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sending:
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for each in packets:
            sending.sendto(each, (str(IPv4Address(each[16:20])), 0))
