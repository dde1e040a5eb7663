"""What the two ends of a tunnel say to each other first, and whether they agree."""

from __future__ import annotations

import json

from attrs import frozen

from rdvtwisted.errors import ProtocolError
from rdvtwisted.values import Mode, Offloads, TunnelParameters
from tunnels.packets import HELLO, frame, printable

#: Version of the protocol inside the tunnel, as hellos tell it.
PROTOCOL = 1

#: What the server calls itself where it ends a tunnel: no device id looks like it.
SERVER = "the server"

#: Letters of a peer's device id and programme version that are kept.
SHOWN_NAME = 64

_OFFLOADS = ("checksum", "tso4", "tso6", "uso")


@frozen
class Hello:
    """What each end says of itself first."""

    #: A device's id, or L{SERVER}.
    device: str
    mode: Mode
    mtu: int
    #: Which large packets it can write to its own interface.
    offloads: Offloads
    #: Of the programme, for the log.
    version: str
    protocol: int = PROTOCOL

    def encode(self) -> bytes:
        """The hello's frame."""
        said = {
            "protocol": self.protocol,
            "device": self.device,
            "mode": self.mode.value,
            "mtu": self.mtu,
            "offloads": [name for name in _OFFLOADS if getattr(self.offloads, name)],
            "version": self.version,
        }
        return frame(HELLO, json.dumps(said).encode("ascii"))

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Hello:
        """
        The hello of a frame's payload. Unknown members and offloads are left
        to later versions; of a later protocol only the number is read.

        @raise ProtocolError: it is not a hello.
        """
        try:
            said = json.loads(bytes(payload).decode("utf-8"))
        except (ValueError, RecursionError):
            raise ProtocolError("the tunnel's other end sent a hello that is not JSON") from None
        if not isinstance(said, dict) or type(said.get("protocol")) is not int:
            raise ProtocolError("the tunnel's other end sent a hello without a protocol number")
        if said["protocol"] != PROTOCOL:
            return cls("", Mode.L3, 0, Offloads(), "", said["protocol"])
        device, mode, mtu = said.get("device"), said.get("mode"), said.get("mtu")
        offloads, version = said.get("offloads"), said.get("version")
        if (
            not isinstance(device, str)
            or mode not in ("L2", "L3")
            or type(mtu) is not int
            or not isinstance(offloads, list)
            or not isinstance(version, str)
        ):
            raise ProtocolError("the tunnel's other end sent a hello with a member missing or of the wrong kind")
        able = Offloads(**{name: name in offloads for name in _OFFLOADS})
        return cls(
            printable(device.encode("utf-8", "replace"), SHOWN_NAME),
            Mode(mode),
            mtu,
            able if able.checksum else Offloads(),
            printable(version.encode("utf-8", "replace"), SHOWN_NAME),
        )


def other_end(parameters: TunnelParameters) -> str:
    """Who is to be at the other end of a device's tunnel: the other device, or the server."""
    return SERVER if parameters.join == "glue" else parameters.peer


def disagreement(own: Hello, peer: Hello, expected: str) -> tuple[str, str] | None:
    """
    Why these two ends cannot carry packets together, if so.

    @param expected: what the other end should call itself.
    @return: the word of the goodbye, and the sentence for this end's user.
    """
    if peer.protocol != own.protocol:
        return f"protocol-{own.protocol}-only", (
            f"{expected} speaks version {peer.protocol} of the tunnel's protocol, this end version {own.protocol}:"
            " bring both to the same release"
        )
    if peer.mode is not own.mode:
        return (
            f"mode-is-{own.mode}",
            f"{expected} builds an {peer.mode} tunnel, this end an {own.mode} one: choose the same mode on both",
        )
    if peer.device != expected:
        return "unexpected-device", f"the tunnel's other end says that it is {peer.device!r}, not {expected}"
    return None
