"""The process that makes session namespaces, over namespaces in memory: what it answers to what."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.network.gluer import Gluer
from rdvtwisted.errors import NetworkError, RDVError
from rdvtwisted.glue import LONGEST_MESSAGE, Close, GlueSpec, Open, request_to_bytes
from rdvtwisted.testing.glue import BRIDGED, ROUTED
from rdvtwisted.testing.packets import MemoryPacketDevice


@define
class MemoryNamespaces:
    """Take note of what is opened and closed."""

    calls: list[GlueSpec | str] = field(factory=list)
    devices: list[MemoryPacketDevice] = field(factory=list)
    refusal: RDVError | None = None

    def open(self, spec: GlueSpec) -> tuple[MemoryPacketDevice, MemoryPacketDevice]:
        """Two devices, or what was said to be the refusal."""
        self.calls.append(spec)
        if self.refusal is not None:
            raise self.refusal
        onsite, master = MemoryPacketDevice("onsite"), MemoryPacketDevice("master")
        self.devices += [onsite, master]
        return onsite, master

    def close(self, session: str) -> None:
        """Close it."""
        self.calls.append(session)


class GluerTests(SynchronousTestCase):
    """One message, one answer."""

    def serve(self, *messages: bytes, passed: int = 0) -> list[tuple[dict[str, Any], list[int]]]:
        """
        What it answers to messages that have come when it starts to serve, with the descriptors of each answer.

        @param passed: so many descriptors come with each message.
        """
        its, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its, ours:
            for message in messages:
                socket.send_fds(ours, [message], [0] * passed)
            ours.shutdown(socket.SHUT_WR)
            Gluer(its).serve(self.namespaces)
            its.close()
            answers = []
            while (received := socket.recv_fds(ours, LONGEST_MESSAGE, 10))[0]:
                for descriptor in received[1]:
                    self.addCleanup(os.close, descriptor)
                answers.append((json.loads(received[0]), received[1]))
        return answers

    def setUp(self) -> None:
        self.namespaces = MemoryNamespaces()

    def test_requests(self) -> None:
        """A session's descriptors come with the answer, the onsite's first, and are kept by nobody else."""
        answers = self.serve(*map(request_to_bytes, (Open(ROUTED), Close("s1"), Open(BRIDGED))))
        self.assertEqual([answer for answer, _ in answers], [{"done": True}] * 3)
        self.assertEqual([len(descriptors) for _, descriptors in answers], [2, 0, 2])
        self.assertEqual(self.namespaces.calls, [ROUTED, "s1", BRIDGED])
        self.assertTrue(all(device.closed for device in self.namespaces.devices))

    def test_refusal(self) -> None:
        """What the kernel refuses is answered with one short line, and the next request is served."""
        self.namespaces.refusal = NetworkError("no\nluck " + "x" * 5000)
        (answer, descriptors), (last, _) = self.serve(request_to_bytes(Open(ROUTED)), request_to_bytes(Close("s1")))
        self.assertEqual((answer["kind"], answer["error"][:8], descriptors), ("NetworkError", "no luck ", []))
        self.assertLess(len(answer["error"]), 1000)
        self.assertEqual(last, {"done": True})

    def test_nonsense(self) -> None:
        """What is no request is refused, and has no effect."""
        messages = (b"x", b"\0" * LONGEST_MESSAGE, b" " * (LONGEST_MESSAGE + 1000), b'{"do": "close", "session": "/"}')
        answers = self.serve(*messages, request_to_bytes(Close("s1")))
        self.assertEqual([answer.get("kind") for answer, _ in answers], ["InvalidValue"] * 4 + [None])
        self.assertEqual(self.namespaces.calls, ["s1"])

    def test_unwanted_descriptors(self) -> None:
        """Descriptors that come with a request are not taken."""
        before = len(os.listdir("/proc/self/fd"))
        self.serve(*[request_to_bytes(Close("s1"))] * 3, passed=5)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_nobody_listens(self) -> None:
        """When the server has gone before it is answered, the devices are closed, and that is the end."""
        its, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            ours.send(request_to_bytes(Open(ROUTED)))
            ours.close()
            Gluer(its).serve(self.namespaces)
        self.assertEqual([device.closed for device in self.namespaces.devices], [True, True])

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.lists(st.binary(min_size=1, max_size=100), max_size=5))
    def test_any_bytes(self, messages: list[bytes]) -> None:
        """Whatever comes, there is one answer to each message."""
        self.setUp()
        self.assertEqual(len(self.serve(*messages)), len(messages))
