"""Address blocks for tunnels, handed out from a pool."""

from __future__ import annotations

from bisect import insort
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
    _free: list[int] = field(factory=list, init=False)
    _untouched: int = field(default=0, init=False)

    def allocate(self, avoid: Iterable[IPv4Network] = ()) -> Lease:
        """
        Lease the lowest free block that overlaps none of C{avoid}: the networks
        that the devices are attached to, which a tunnel address would hide.

        @raise PoolExhausted: there is none.
        """
        hidden = [network for network in avoid if network.overlaps(self.pool)]
        for index in self._free:
            if (lease := self._usable(index, hidden)) is not None:
                self._free.remove(index)
                return lease
        while self._untouched < self.pool.num_addresses >> (32 - self.prefix):
            index = self._untouched
            self._untouched += 1
            if (lease := self._usable(index, hidden)) is not None:
                return lease
            # Larger than all others in the list: it stays sorted.
            self._free.append(index)
        raise PoolExhausted(str(self.pool))

    def allocate_several(self, count: int, avoid: Iterable[IPv4Network] = ()) -> tuple[Lease, ...]:
        """
        Lease so many blocks, all of them or none; see L{allocate}.

        @raise PoolExhausted: there are not as many.
        """
        hidden = list(avoid)
        leases: list[Lease] = []
        try:
            leases.extend(self.allocate(hidden) for _ in range(count))
        except PoolExhausted:
            for lease in leases:
                self.release(lease)
            raise
        return tuple(leases)

    def release(self, lease: Lease) -> None:
        """Give a block back. A block that is not held is no error."""
        index = self.number(lease)
        if index < self._untouched and index not in self._free:
            insort(self._free, index)

    def number(self, lease: Lease) -> int:
        """Which block of the pool it is, counted from 0."""
        return (int(lease.network.network_address) - int(self.pool.network_address)) >> (32 - self.prefix)

    @property
    def held(self) -> int:
        """How many blocks are leased now."""
        return self._untouched - len(self._free)

    def _usable(self, index: int, hidden: list[IPv4Network]) -> Lease | None:
        start = int(self.pool.network_address) + (index << (32 - self.prefix))
        network = IPv4Network((start, self.prefix))
        return None if any(network.overlaps(other) for other in hidden) else Lease(network)
