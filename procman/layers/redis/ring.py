"""Which of several servers a name belongs to: consistent hashing.

Pure, and the same in every Python process. Each server has many points on a circle of 64-bit numbers, and a name
belongs to the server of the next point, so that another server at the end of the list takes its share of the names
and all others stay where they are. A server is known by its place in the list, not by its address: it may move to
another address, and the list must not be put in another order.
"""

from __future__ import annotations

from bisect import bisect
from hashlib import blake2b

# With 160 points the busiest of two to eight servers has at most about a fifth more names than the average.
_POINTS = 160
# Names of this many recent look-ups are remembered; then all are forgotten at once.
_REMEMBERED = 4096


def _position(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Ring:
    """The circle of *count* servers."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError("a ring needs at least one server")
        self.count = count
        points = sorted((_position(f"{server}:{point}"), server) for server in range(count) for point in range(_POINTS))
        self._positions = [position for position, _ in points]
        self._servers = [server for _, server in points]
        self._known: dict[str, int] = {}

    def index(self, name: str) -> int:
        """The server of *name*, as its place in the list, from 0."""
        if self.count == 1:
            return 0
        found = self._known.get(name)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            place = bisect(self._positions, _position(name)) % len(self._positions)
            found = self._known[name] = self._servers[place]
        return found
