"""Where connections are that are logged in: how many there may be, and of whom."""

from __future__ import annotations

from attrs import define, field

from rdvtwisted.interfaces import ILine


@define(eq=False)
class Lodgers:
    """
    The connections that are logged in, by account.

    @ivar places: of them all; who comes when all are taken is turned away.
    @ivar places_per_account: the newest of an account has one always, and its oldest has to go for that, as a
        device that comes back may not know what has become of its former connections.
    """

    places: int
    places_per_account: int
    _accounts: dict[str, dict[ILine, None]] = field(factory=dict, init=False)
    _count: int = field(default=0, init=False)

    def __len__(self) -> int:
        return self._count

    def enter(self, account: str, line: ILine) -> bool:
        """A connection is logged in. False if there is no room."""
        lines = self._accounts.get(account, {})
        if len(lines) >= self.places_per_account:
            oldest = next(iter(lines))
            self._remove(account, oldest)
            oldest.disconnect("this device has too many connections, and this is the oldest")
        if self._count >= self.places:
            return False
        self._accounts.setdefault(account, {})[line] = None
        self._count += 1
        return True

    def leave(self, account: str, line: ILine) -> None:
        """A connection is gone, whether it was logged in or not."""
        if line in self._accounts.get(account, ()):
            self._remove(account, line)

    def _remove(self, account: str, line: ILine) -> None:
        lines = self._accounts[account]
        del lines[line]
        self._count -= 1
        if not lines:
            del self._accounts[account]
