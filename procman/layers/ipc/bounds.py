"""What the hub holds, counted in bytes, and the numbers past which it takes no more.

Pure. ``Ledger.bytes`` is the sum over everything that came from clients and stays: messages that wait, are in flight,
pause before they run again or wait for room; finishes that wait; sessions that are kept beside sockets; what waits for
an interface after a restart. Each counts with its bytes and ``OVERHEAD_BYTES`` for its record. What has been written
and not been read by a client is not in it: that has a bound per connection.

Past ``layer_max_bytes`` sends are refused as by a full channel, so are requests; group sends are dropped, counted and
logged; a session is not mirrored. Frames of open sockets are counted and never refused: the interface, which offers
one at a time per socket, bounds their number. Finishes may wait in a quarter more: a sender can try again, a consumer
that has ended cannot.
"""

from __future__ import annotations

from typing import Any, Protocol

from procman.layers.names import MAX_RECEIVED

# Measured: a queued message of 10 bytes takes 455 bytes (CPython 3.11), its name and its key included.
OVERHEAD_BYTES = 512
# Requests of one connection that wait: receivers, and sends for which there is no room. An interface parks one chunk
# per request that has a body.
MAX_PARKED = 4096
# Names in one TAKE or RECEIVE, and in all receives of a connection.
MAX_NAMES = MAX_RECEIVED
# Finishes that wait for room or for their interface; a worker thread has one at most.
MAX_FINISHES = 10_000
# Offers and sockets of one interface: far above its own bounds (``--max-sockets``, ``--max-requests``).
MAX_OFFERS = 1_000_000
MAX_SOCKETS = 1_000_000
# Memberships that clients have added, of sockets and other channels. What an interface reports to a hub that has
# restarted was within this bound at its predecessor.
MAX_MEMBERSHIPS = 1_000_000


class Holding(Protocol):
    """Something that is held; ``size`` is what it counts with, 0 while it does not count."""

    size: int


class Ledger:
    """The bytes that are held. Every ``add`` has its ``remove``; a test compares the sum with what is there."""

    __slots__ = ("bytes", "max_bytes", "refused_count")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.refused_count = 0  # messages refused or dropped for their bytes

    def fits(self, size: int) -> bool:
        """Whether *size* more bytes may be held."""
        return self.bytes + size <= self.max_bytes

    def fits_finish(self, size: int) -> bool:
        """Whether a finish of *size* bytes may wait."""
        return self.bytes + size <= self.max_bytes * 5 // 4

    def add(self, holding: Holding, size: int) -> None:
        """Count *holding* with *size* bytes, instead of what it counted with before."""
        self.bytes += size - holding.size
        holding.size = size

    def remove(self, holding: Holding) -> None:
        """*holding* is held no longer; twice is fine."""
        self.bytes -= holding.size
        holding.size = 0


class Throttle:
    """At most one line per second about each thing; the next line tells what the silent ones would have told."""

    __slots__ = ("_seen",)
    _MAX_KEYS = 1000

    def __init__(self) -> None:
        self._seen: dict[Any, tuple[int, int]] = {}

    def count(self, key: Any, now: float, number: int = 1) -> int:
        """Count *number* more; how many to tell of now, 0 if a line about *key* was due in this second already."""
        second, silent = self._seen.get(key, (-1, 0))
        number += silent
        if second == int(now):
            self._seen[key] = (second, number)
            return 0
        if len(self._seen) >= self._MAX_KEYS:
            self._seen.clear()
        self._seen[key] = (int(now), 0)
        return number


def size_of(body: bytes | None, session: bytes | None = None) -> int:
    """What a message counts with in the ledger."""
    size = OVERHEAD_BYTES
    if body is not None:
        size += len(body)
    if session is not None:
        size += len(session)
    return size
