"""Whole Ethernet frames, as hosts of a test hear and say them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time

from tests.lab.hosts import PATIENCE, PREFIX, NamespaceTestCase, entered_namespace, run

#: How long a frame that must not arrive is waited for, in seconds; one that may takes a millisecond.
IN_VAIN = 0.5
#: linux/if_ether.h.
ETH_P_ALL, ETH_P_8021Q = 0x0003, 0x8100
#: linux/if_packet.h: for each frame, among others, the VLAN tag that the kernel has taken off.
SOL_PACKET, PACKET_AUXDATA = 263, 8
#: asm-generic/socket.h.
SO_RCVBUFFORCE = 33
#: A protocol number for experiments (IEEE 802).
EXPERIMENT = bytes.fromhex("88b5")


def hardware(text: str) -> bytes:
    """A hardware address as it stands in a frame."""
    return bytes.fromhex(text.replace(":", ""))


BROADCAST = hardware("ff:ff:ff:ff:ff:ff")


class Echo(threading.Thread):
    """Sends back whatever comes, over one connection."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(daemon=True)
        self._listening = listening

    def run(self) -> None:
        """Until the other end closes."""
        with contextlib.suppress(OSError):
            connection, _ = self._listening.accept()
            with connection:
                while data := connection.recv(65_536):
                    connection.sendall(data)


def packets(namespace: str, interface: str) -> socket.socket:
    """A socket for whole frames at an interface of a network namespace, with what the kernel takes off them."""
    with entered_namespace(namespace):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        made.bind((interface, 0))
    made.settimeout(PATIENCE)
    made.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    return made


def hears(ear: socket.socket, mark: bytes, wait: float = PATIENCE) -> bytes | None:
    """The next frame with a mark in it that comes in (and does not go out), with its VLAN tag put back."""
    deadline = time.monotonic() + wait
    while select.select([ear], [], [], max(0.0, deadline - time.monotonic()))[0]:
        frame, ancillary, _, (_, _, kind, *_) = ear.recvmsg(65_536, 256)
        if kind == socket.PACKET_OUTGOING or mark not in frame:
            continue
        for level, what, data in ancillary:
            if (level, what) == (SOL_PACKET, PACKET_AUXDATA) and data[0] & 0x10:  # TP_STATUS_VLAN_VALID
                tag = int.from_bytes(data[16:18], "little").to_bytes(2, "big")
                frame = frame[:12] + ETH_P_8021Q.to_bytes(2, "big") + tag + frame[12:]
        return frame
    return None


class FramesCase(NamespaceTestCase):
    """Looks at whole frames."""

    def packets(self, host: str, interface: str) -> socket.socket:
        """A socket for whole frames at an interface."""
        made = packets(f"{PREFIX}-{host}", interface)
        self.addCleanup(made.close)
        return made

    def hardware(self, host: str, interface: str) -> bytes:
        """The hardware address of an interface."""
        (link,) = json.loads(run("ip", "-n", f"{PREFIX}-{host}", "-j", "link", "show", interface))
        return hardware(link["address"])

    def hears(self, ear: socket.socket, mark: bytes, wait: float = PATIENCE) -> bytes | None:
        """As L{hears}."""
        return hears(ear, mark, wait)

    def hears_until(self, ear: socket.socket, mark: bytes) -> list[bytes]:
        """All frames that come in, up to one with a mark in it: what was sent before is there, or never will be."""
        frames: list[bytes] = []
        while not frames or mark not in frames[-1]:
            frame = self.hears(ear, b"")
            assert frame is not None
            frames.append(frame)
        return frames

    def speech(self, host: str, interface: str, to: str = "ff:ff:ff:ff:ff:ff") -> tuple[socket.socket, bytes, bytes]:
        """A mouth at an interface, a frame of that interface's, and what to recognise the frame by."""
        load = EXPERIMENT + os.urandom(16)
        frame = hardware(to) + self.hardware(host, interface) + load.ljust(62, b"\0")
        return self.packets(host, interface), frame, load
