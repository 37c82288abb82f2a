"""What a slow WebSocket client has not taken yet: how much may wait, how long, and what gives way.

Pure: (state, event, now) -> what to write. A socket has a ``Backlog`` only while its client is behind; everybody else
is written to at once and waits for nobody. Messages that must arrive end the socket when they are too many bytes or too
old; group messages whose group says so give way instead. Bounded by the limit of unsent bytes.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple


class Policy(enum.Enum):
    """What happens to a message for a client that is too far behind; the value is its name in the settings."""

    DISCONNECT = "disconnect"  # it must arrive, or the socket ends
    DROP_OLDEST = "drop-oldest"  # the oldest that wait give way
    LATEST_ONLY = "latest-only"  # of its group only the last one waits


class Waiting(NamedTuple):
    """A frame that is not with the transport yet; *since* is when it came, in seconds."""

    frame: bytes
    group: str
    policy: Policy
    since: float


class Backlog:
    """One client's, from the moment it falls behind until it has caught up. Sizes are bytes, times seconds.

    *unsent* is what the transport holds. Bytes that went to the transport are counted from the first of these on, so
    that the age of what must arrive is known without a mark in the transport's buffer.
    """

    __slots__ = ("_last", "_mark", "_since", "_waiting", "_waiting_bytes", "_written", "dropped")

    def __init__(self, unsent: int) -> None:
        self._written = unsent
        self._mark = 0  # the count at which what must arrive, since ``_since``, is out; 0: nothing must
        self._since = 0.0
        self._last = 0  # the count at which all that must arrive is out
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        self.dropped = 0

    @property
    def is_empty(self) -> bool:
        """Whether everything went to the transport."""
        return not self._waiting

    def unsent(self, buffered: int) -> int:
        """Bytes that wait, *buffered* of them with the transport."""
        return buffered + self._waiting_bytes

    def written(self, size: int, is_required: bool, now: float) -> None:
        """The transport got *size* bytes more."""
        self._written += size
        if is_required:
            self._last = self._written
            if not self._mark:
                self._mark, self._since = self._written, now

    def required(self, now: float) -> None:
        """What the transport holds must arrive."""
        self.written(0, True, now)

    def add(self, frame: bytes, group: str, policy: Policy, limit: int, now: float) -> None:
        """Keep a frame until there is room; what gives way for it is dropped, at most *limit* bytes of that wait."""
        if policy is Policy.LATEST_ONLY:
            for each in [each for each in self._waiting if each.group == group and each.policy is policy]:
                self._drop(each)
        self._waiting.append(Waiting(frame, group, policy, now))
        self._waiting_bytes += len(frame)
        while self._waiting_bytes > limit:
            oldest = next((each for each in self._waiting if each.policy is not Policy.DISCONNECT), None)
            if oldest is None:
                return
            self._drop(oldest)

    def take_over(self, earlier: Backlog) -> None:
        """What waits in *earlier*, and its count of the dropped, are this one's: the client fell behind again."""
        self._waiting, self._waiting_bytes = earlier._waiting, earlier._waiting_bytes
        self.dropped += earlier.dropped

    def take(self) -> Waiting | None:
        """The next frame to write."""
        if not self._waiting:
            return None
        taken = self._waiting.popleft()
        self._waiting_bytes -= len(taken.frame)
        return taken

    def age(self, buffered: int, now: float) -> float | None:
        """Seconds that the oldest of what must arrive has waited, None if nothing must."""
        sent = self._written - buffered
        if self._mark and sent >= self._mark:
            # What came after the mark is not older than this moment's look at it.
            self._mark, self._since = (self._last, now) if self._last > sent else (0, 0.0)
        since = [self._since] if self._mark else []
        since += [each.since for each in self._waiting if each.policy is Policy.DISCONNECT][:1]
        return now - min(since) if since else None

    def _drop(self, waiting: Waiting) -> None:
        self._waiting.remove(waiting)
        self._waiting_bytes -= len(waiting.frame)
        self.dropped += 1


class Policies:
    """Which policy a group has: the first glob of *globs* that matches its name, else ``DISCONNECT``."""

    def __init__(self, globs: Mapping[str, str]) -> None:
        self._globs = [(glob, Policy(policy)) for glob, policy in globs.items()]

    def of(self, group: str) -> Policy:
        """The policy of *group*."""
        return next((policy for glob, policy in self._globs if fnmatchcase(group, glob)), Policy.DISCONNECT)
