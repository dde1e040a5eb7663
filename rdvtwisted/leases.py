"""Address blocks for tunnels, handed out from a pool."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from attrs import define, field

from rdvtwisted.errors import PoolExhausted
from rdvtwisted.values import Lease


@define
class LeasePool:
    """
    Hands out the lowest free block of a pool, one holder a block.

    @ivar pool: the network that is cut into blocks.
    @ivar prefix: prefix length of a block; 30 gives each two usable addresses.
    """

    pool: IPv4Network
    prefix: int = 30
    _held: set[int] = field(factory=set, init=False)

    def allocate(self, avoid: Iterable[IPv4Network] = ()) -> Lease:
        """
        Lease the lowest free block that overlaps none of C{avoid}: the networks
        that the devices are attached to, which a tunnel address would hide.

        @raise PoolExhausted: there is none.
        """
        size = 1 << (32 - self.prefix)
        base = int(self.pool.network_address)
        forbidden = [
            (int(network.network_address), int(network.broadcast_address))
            for network in avoid
            if network.overlaps(self.pool)
        ]
        index = 0
        while index < self.pool.num_addresses // size:
            start = base + index * size
            clash = max((last for first, last in forbidden if first < start + size and start <= last), default=None)
            if clash is not None:
                # Next block behind the clash: a whole LAN is stepped over at once.
                index = (clash - base) // size + 1
                continue
            if index not in self._held:
                self._held.add(index)
                return Lease(IPv4Network((start, self.prefix)))
            index += 1
        raise PoolExhausted(str(self.pool))

    def release(self, lease: Lease) -> None:
        """Give a block back. A block that is not held is no error."""
        size = 1 << (32 - self.prefix)
        self._held.discard((int(lease.network.network_address) - int(self.pool.network_address)) // size)

    @property
    def held(self) -> int:
        """How many blocks are leased now."""
        return len(self._held)
