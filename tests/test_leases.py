"""Address blocks are leased once, lowest first, and never over a device's own network."""

from __future__ import annotations

from ipaddress import IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import PoolExhausted
from rdvtwisted.leases import LeasePool
from rdvtwisted.values import Lease

POOL = IPv4Network("192.168.128.0/17")


class LeaseTests(SynchronousTestCase):
    """What a pool hands out."""

    def test_first_and_last_block(self) -> None:
        """The pool of the old server gives the same 8192 blocks in the same order."""
        pool = LeasePool(POOL)
        leases = [pool.allocate() for _ in range(8192)]
        self.assertEqual(str(leases[0].network), "192.168.128.0/30")
        self.assertEqual((str(leases[0].first), str(leases[0].second)), ("192.168.128.1/30", "192.168.128.2/30"))
        self.assertEqual(str(leases[-1].network), "192.168.255.252/30")

    def test_exhausted(self) -> None:
        """When all blocks are leased the next one is refused with the pool's name, and a returned one is free again."""
        pool = LeasePool(IPv4Network("10.0.0.0/29"))
        first, _ = pool.allocate(), pool.allocate()
        error = self.assertRaises(PoolExhausted, pool.allocate)
        self.assertIn("10.0.0.0/29", str(error))
        pool.release(first)
        self.assertEqual(pool.allocate(), first)

    def test_avoids_the_devices_networks(self) -> None:
        """A block never overlaps a network that a device is attached to, however large."""
        pool = LeasePool(POOL)
        lease = pool.allocate([IPv4Network("192.168.128.0/24"), IPv4Network("10.0.0.0/8")])
        self.assertEqual(str(lease.network), "192.168.129.0/30")

    def test_all_hidden(self) -> None:
        """A device whose network covers the whole pool gets a refusal, not an endless search."""
        self.assertRaises(PoolExhausted, LeasePool(POOL).allocate, [IPv4Network("192.168.0.0/16")])

    @given(
        st.lists(st.integers(0, 15), max_size=40),
        st.lists(st.tuples(st.integers(0, 63), st.integers(26, 32)), max_size=3),
    )
    @settings(derandomize=True, max_examples=60, deadline=None)
    def test_never_twice(self, releases: list[int], hidden: list[tuple[int, int]]) -> None:
        """Whatever is leased and returned, no two holders share an address and nothing hidden is given."""
        pool = LeasePool(IPv4Network("10.0.0.0/26"))
        avoid = [IPv4Network((int(IPv4Network("10.0.0.0/26")[0]) + at, bits), strict=False) for at, bits in hidden]
        held: list[Lease] = []
        for release in releases:
            if held and release % 2:
                pool.release(held.pop(release % len(held)))
                continue
            try:
                held.append(pool.allocate(avoid))
            except PoolExhausted:
                continue
        networks = [lease.network for lease in held]
        self.assertEqual(len(set(networks)), len(networks))
        self.assertFalse([1 for network in networks for other in avoid if network.overlaps(other)])
        self.assertEqual(pool.held, len(held))
