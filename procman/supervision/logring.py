"""The last of what each process has printed, for whoever asks later, and news of it for whoever follows.

Pure but for the followers that it calls. Bounded: ``PROCESS_BYTES`` per process and ``MERGED_BYTES`` for all lines in
their order; more is there for a moment only, as blocks are dropped whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

PROCESS_BYTES = 256 * 1024
MERGED_BYTES = 1024 * 1024

Follower = Callable[[str, bytes], None]


class _Ring:
    """Blocks of bytes with a name; the oldest are dropped while *limit* bytes stay."""

    __slots__ = ("_blocks", "_dropped", "_limit", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._blocks: deque[tuple[str, bytes]] = deque()
        self._size = 0
        self._dropped = 0

    def add(self, name: str, data: bytes) -> None:
        self._blocks.append((name, data))
        self._size += len(data)
        while self._size - len(self._blocks[0][1]) >= self._limit:
            gone = len(self._blocks.popleft()[1])
            self._size -= gone
            self._dropped += gone

    def clear(self) -> None:
        self._dropped += self._size
        self._blocks.clear()
        self._size = 0

    @property
    def end(self) -> int:
        return self._dropped + self._size

    def content(self, only: Collection[str] | None = None) -> bytes:
        return b"".join(data for name, data in self._blocks if only is None or name in only)


class LogRing:
    """What was printed last, whole lines with their prefixes."""

    def __init__(self) -> None:
        self._rings: dict[str, _Ring] = {}
        self._merged = _Ring(MERGED_BYTES)
        self._followers: dict[Follower, None] = {}

    def add(self, name: str, data: bytes) -> None:
        """*name* has printed *data*."""
        if not data:
            return
        ring = self._rings.get(name)
        if ring is None:
            ring = self._rings[name] = _Ring(PROCESS_BYTES)
        ring.add(name, data)
        self._merged.add(name, data)
        for follower in list(self._followers):
            follower(name, data)

    def content(self, name: str | None = None, only: Collection[str] | None = None) -> bytes:
        """Whole lines of *name*, or of all in their order, *only* of these if they are given."""
        ring = self._merged if name is None else self._rings.get(name)
        return ring.content(only) if ring is not None else b""

    def end(self, name: str | None = None) -> int:
        """How many bytes there have been of *name*, or of all."""
        ring = self._merged if name is None else self._rings.get(name)
        return ring.end if ring is not None else 0

    def clear(self, name: str | None = None) -> None:
        """Forget what *name*, or everybody, has printed."""
        if name is None:
            self._merged.clear()
        elif name in self._rings:
            self._rings[name].clear()

    def forget(self, name: str) -> None:
        """*name* is no part of the formation any more; its lines stay among all."""
        self._rings.pop(name, None)

    def follow(self, follower: Follower) -> Callable[[], None]:
        """Call *follower* with each name and block from now on; the result ends that."""
        self._followers[follower] = None
        return lambda: self._followers.pop(follower, None)
