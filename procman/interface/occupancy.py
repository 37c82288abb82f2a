"""How many connections are open, in total and for each client's address, and whether one more may be.

Pure. Proxies that are trusted are no clients: their connections count in the total only, and the WebSockets that come
through them count for the address they come from. Bounded by the connections that are open.
"""

from __future__ import annotations

WARN_INTERVAL = 10.0  # seconds between two warnings of one kind: a flood must not fill the log


class Occupancy:
    """The connections of one interface process; 0 as a limit is none."""

    def __init__(self, limit: int, limit_per_address: int) -> None:
        self.limit, self.limit_per_address = limit, limit_per_address
        self.total = 0
        self._addresses: dict[str, int] = {}
        self._warned: dict[str, float] = {}

    def is_full(self) -> bool:
        """Whether there are more connections than may be, the last one included."""
        return self.total > self.limit

    def enter(self, address: str) -> bool:
        """Count one for *address* ("" counts for nobody); False: these are more than one address may have."""
        if not address or not self.limit_per_address:
            return True
        count = self._addresses[address] = self._addresses.get(address, 0) + 1
        return count <= self.limit_per_address

    def leave(self, address: str) -> None:
        """One that was counted by ``enter`` is over."""
        count = self._addresses.get(address, 0)
        if count > 1:
            self._addresses[address] = count - 1
        elif count:
            del self._addresses[address]

    def count(self, address: str) -> int:
        """How many *address* has."""
        return self._addresses.get(address, 0)

    def should_warn(self, limit: str, now: float) -> bool:
        """Whether this is the first time in a while that *limit* is met."""
        if now - self._warned.get(limit, -WARN_INTERVAL) < WARN_INTERVAL:
            return False
        self._warned[limit] = now
        return True
