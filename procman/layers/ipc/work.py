"""How long each worker was busy, by its name: seconds with a delivery in hand, and how many it has ended.

Pure. A restarted worker goes on with its predecessor's numbers, so that they only rise. Names come from clients: past
``MAX_NAMES`` further ones count together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from procman.layers.ipc.peers import Peer

MAX_NAMES = 1024
OTHERS = "others"


class Work:
    """The numbers of all workers."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[str, list[Any]] = {}

    def add(self, peer: Peer, now: float, deliveries: int = 1) -> None:
        """*peer* has ended what it ran since ``peer.pace.since``."""
        found = self._of(peer.label)
        found[0] += now - peer.pace.since
        found[1] += deliveries

    def statistics(self, peers: Iterable[Peer], now: float) -> dict[str, list[Any]]:
        """``[seconds, deliveries]`` per name; what one of *peers* is running counts up to *now*."""
        found = {name: list(numbers) for name, numbers in self._found.items()}
        for peer in peers:
            is_known = peer.label in found or len(found) < MAX_NAMES
            numbers = found.setdefault(peer.label if is_known else OTHERS, [0.0, 0])
            if peer.holds:
                numbers[0] += now - peer.pace.since
        return found

    def _of(self, name: str) -> list[Any]:
        found = self._found.get(name)
        if found is None:
            name = name if len(self._found) < MAX_NAMES else OTHERS
            found = self._found.setdefault(name, [0.0, 0])
        return found
