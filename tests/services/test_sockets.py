"""The doors' sockets: taken before the server goes into the background, or refused in one line."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import AddressInUse, ConfigError, MissingPrivilege
from rdvtwisted.services import sockets
from rdvtwisted.services.sockets import bind


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class BindingTests(SynchronousTestCase):
    """Listening on an address and a port."""

    def bind(self, address: str, port: int = 0) -> sockets.Bound:
        """Sockets that are closed when the test is over."""
        bound = bind(address, port, "ssh")
        self.addCleanup(bound.close)
        return bound

    def test_one_address(self) -> None:
        """One address is one socket; port 0 takes a free one, which is known at once."""
        bound = self.bind("127.0.0.1")
        (listening,) = bound.sockets
        self.assertEqual(listening.getsockname(), ("127.0.0.1", bound.port))
        self.assertGreater(bound.port, 0)
        self.assertFalse(listening.getblocking())
        self.assertFalse(listening.get_inheritable())

    def test_listens(self) -> None:
        """The kernel takes connections from then on, although nobody serves them yet."""
        with socket.create_connection(("127.0.0.1", self.bind("127.0.0.1").port)) as connection:
            self.assertEqual(connection.getpeername()[0], "127.0.0.1")

    def test_ipv6(self) -> None:
        """An IPv6 address does as well."""
        if not sockets._has_ipv6():
            self.skipTest("this machine has no IPv6")
        self.assertEqual(self.bind("::1").sockets[0].getsockname()[0], "::1")

    def test_all_addresses(self) -> None:
        """All addresses are IPv4 and IPv6 apart, on the same port."""
        bound = self.bind("")
        families = [each.family for each in bound.sockets]
        expected = [socket.AF_INET, socket.AF_INET6] if sockets._has_ipv6() else [socket.AF_INET]
        self.assertEqual(families, expected)
        self.assertEqual({each.getsockname()[1] for each in bound.sockets}, {bound.port})

    def test_no_ipv6(self) -> None:
        """Without IPv6 the server serves IPv4."""
        self.patch(sockets, "_has_ipv6", lambda: False)
        self.assertEqual([each.family for each in self.bind("").sockets], [socket.AF_INET])

    def test_in_use(self) -> None:
        """A port that somebody else has is refused; the setting that chose it is named."""
        port = self.bind("127.0.0.1").port
        error = self.assertRaises(AddressInUse, bind, "127.0.0.1", port, "tls")
        self.assertEqual(
            str(error), f"port {port} of 127.0.0.1 is in use by another program: stop that, or set tls.port"
        )

    def test_half_in_use(self) -> None:
        """When only IPv6's port is taken, IPv4's is given back."""
        real = sockets._listen
        port = _free_port()

        def listen(family: Any, address: str, port: int) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(errno.EADDRINUSE, "taken")
            return real(family, address, port)

        self.patch(sockets, "_has_ipv6", lambda: True)
        self.patch(sockets, "_listen", listen)
        error = self.assertRaises(AddressInUse, bind, "", port, "ssh")
        self.assertEqual(str(error), f"port {port} is in use by another program: stop that, or set ssh.port")
        self.patch(sockets, "_listen", real)
        self.bind("127.0.0.1", port)

    def test_no_such_address(self) -> None:
        """An address that this machine does not have, or that is none, is a wrong setting: the address's own."""
        for address, text in (
            ("192.0.2.1", "cannot listen on port 2222 of 192.0.2.1: Cannot assign requested address"),
            ("no address", "cannot listen on port 2222 of no address: "),
        ):
            error = self.assertRaises(ConfigError, bind, address, 2222, "ssh")
            self.assertTrue(str(error).startswith(f"setting ssh.address: {text}"), str(error))

    def test_privileged(self) -> None:
        """A low port needs a right, which is named."""

        def listen(*_: object) -> socket.socket:
            raise PermissionError(errno.EACCES, "Permission denied")

        self.patch(sockets, "_listen", listen)
        error = self.assertRaises(MissingPrivilege, bind, "", 22, "ssh")
        self.assertEqual(
            str(error),
            "port 22 needs root or CAP_NET_BIND_SERVICE: grant one, or set ssh.port to 1024 or above",
        )


class ServingTests(SynchronousTestCase):
    """Sockets that are served from some moment on."""

    def test_serve(self) -> None:
        """The reactor gets each socket, and ours are closed, for it has made its own of them."""
        bound = bind("", 0, "ssh")
        self.addCleanup(bound.close)
        reactor = MemoryReactor()
        families = [each.family for each in bound.sockets]
        factory = Factory.forProtocol(Protocol)
        ports = bound.serve(reactor, factory)
        self.assertEqual(len(ports), len(families))
        self.assertEqual(
            [(family, which) for _, family, which in reactor.adoptedPorts], [(f, factory) for f in families]
        )
        self.assertEqual([each.fileno() for each in bound.sockets], [-1] * len(families))

    def test_close(self) -> None:
        """Unserved sockets can be given up, and the port is free again."""
        bound = bind("127.0.0.1", 0, "ssh")
        bound.close()
        bind("127.0.0.1", bound.port, "ssh").close()
