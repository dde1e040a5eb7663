"""Which addresses devices let a server give a tunnel."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.addressing import SHORTEST_PREFIX, check_ends, private
from rdvtwisted.errors import ProtocolError


class EndsTests(SynchronousTestCase):
    """The two addresses of one tunnel."""

    def complaint(self, own: str, far: str) -> str:
        """With which words they are refused."""
        error = self.assertRaises(ProtocolError, check_ends, IPv4Interface(own), IPv4Address(far))
        self.assertNotIn("\n", str(error))
        self.assertIn("the server should take them out of a private network", str(error))
        return str(error)

    def test_usual(self) -> None:
        """Blocks of private networks, of carriers' and of benchmarks' are taken, in all sizes that servers lease."""
        for start in ("192.168.128.", "192.168.101.", "10.0.0.", "172.31.255.", "100.64.0.", "198.19.3."):
            for prefix in range(SHORTEST_PREFIX, 31):
                check_ends(IPv4Interface(f"{start}2/{prefix}"), IPv4Address(f"{start}1"))

    def test_elsewhere(self) -> None:
        """Addresses that are somebody else's are refused: on the Internet, the machine's own, for many, for nobody."""
        starts = "8.8.8. 127.0.0. 169.254.169. 224.0.0. 239.1.1. 0.0.0. 255.255.255. 240.0.0."
        for start in starts.split():
            for prefix in (24, 30):
                self.assertIn("their network is not a private one", self.complaint(f"{start}2/{prefix}", f"{start}1"))

    def test_large(self) -> None:
        """A network of more than 256 addresses is none for two ends, wherever it lies."""
        for own, far in (("10.0.0.2/23", "10.0.0.1"), ("64.0.0.2/2", "64.0.0.1"), ("10.0.0.2/0", "10.0.0.1")):
            self.assertIn("their network is larger than a /24", self.complaint(own, far))

    def test_not_two(self) -> None:
        """Two addresses of different networks, or one address twice, are refused."""
        for far in ("192.168.128.5", "192.168.128.2"):
            self.assertIn("they are not two of one network", self.complaint("192.168.128.2/30", far))

    @settings(derandomize=True, max_examples=300, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 32))
    def test_any(self, own: int, far: int, prefix: int) -> None:
        """Whatever is said, a network that is taken is a small one that nobody has on the Internet."""
        address = IPv4Interface((own, prefix))
        try:
            check_ends(address, IPv4Address(far))
        except ProtocolError:
            return
        self.assertFalse(address.network.is_global)
        self.assertGreaterEqual(prefix, SHORTEST_PREFIX)

    def test_private(self) -> None:
        """A network that reaches beyond the private ones is not private."""
        texts = ("10.0.0.0/8", "192.168.128.0/17", "10.0.0.0/7", "0.0.0.0/0", "192.0.2.0/24")
        self.assertEqual([private(IPv4Network(text)) for text in texts], [True, True, False, False, False])
