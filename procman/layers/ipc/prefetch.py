"""How many messages a worker gets ahead of the one that it runs, and when they have to come back.

Pure: arithmetic over times in seconds; ``switch.py`` acts on it. A message costs two wake-ups of processes, which is
more than a short consumer takes: several at a time share them. What is given ahead waits behind the message that runs,
so only as much is given as will be done in a few milliseconds, and it is called back when that was wrong.
"""

from __future__ import annotations

DEPTH = 8  # messages in the hands of one thread, the one that runs among them
MAX_BYTES = 64 * 1024  # of bodies given at once
RECALL_AFTER = 0.005
_WORTH = 0.004  # of work, given at once
_SLOWEST = 5.0


class Pace:
    """How long the messages of one thread take. ``value`` rises at once and falls slowly: one long message in the last
    few dozen is reason enough to give nothing ahead.
    """

    __slots__ = ("since", "value")

    def __init__(self) -> None:
        self.value = _WORTH  # nothing ahead until short messages have been seen
        self.since = 0.0  # when the message that runs was given, or had its turn

    def measure(self, now: float) -> None:
        """The message that ran has ended, and the next one begins."""
        took = now - self.since
        if took > self.value:
            self.value = min(took, _SLOWEST)
        else:
            self.value += (took - self.value) / 8
        self.since = now

    def ahead(self, waiting: int, workers: int) -> int:
        """How many of *waiting* messages to give with the first: a fair share among *workers* threads at most."""
        return min(DEPTH - 1, int(_WORTH / max(self.value, 1e-6)) - 1, waiting // max(workers, 1))

    def is_overdue(self, now: float) -> bool:
        """Whether the message that runs takes so long that others must not wait behind it."""
        return now - self.since >= RECALL_AFTER
