"""Which process has to go when the site uses too much memory, and when that is worth a warning: samples -> what to do.

Pure. One look sees a peak that a request makes; so the limit has to be passed ``SAMPLES`` times in a row, and after a
restart it has as many looks to show its effect. Where all have been replaced and the limit is still passed, it is too
low for the site: the pauses grow, so that the site does not start workers without end.
"""

from __future__ import annotations

from collections.abc import Mapping

SAMPLES = 3
MOST_DOUBLINGS = 6  # of the looks, for a limit that cannot be kept
INTERVAL, LIMIT_INTERVAL = 10.0, 2.0  # seconds between two looks; where there is a limit
WARNING_SHARE = 0.9  # of the container's memory
CALM_SHARE = 0.8  # below it a later rise is worth another warning


class MemoryWatch:
    """Watches the memory of all processes together; *limit* in bytes, 0: none."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.interval = LIMIT_INTERVAL if limit else INTERVAL
        self._over = 0
        self._replaced = 0  # since the limit was kept
        self._has_warned = False
        self.is_in_vain = False  # whether all had been replaced already when ``largest_of`` last named one

    def largest_of(self, replaceable: Mapping[str, int], total: int) -> str | None:
        """The name of the process to replace now, of those that may be; *total* bytes are used by all."""
        if not self._limit or total <= self._limit:
            self._over = self._replaced = 0
            return None
        if not replaceable:
            self._over = 0
            return None
        self._over += 1
        rounds = self._replaced // len(replaceable)
        if self._over < SAMPLES << min(rounds, MOST_DOUBLINGS):
            return None
        self._over = 0
        self._replaced += 1
        self.is_in_vain = rounds > 0
        return max(replaceable, key=lambda name: replaceable[name])

    def is_worth_a_warning(self, used: int, limit: int) -> bool:
        """Whether the container has just come close to its *limit*."""
        if used < limit * CALM_SHARE:
            self._has_warned = False
        if self._has_warned or used < limit * WARNING_SHARE:
            return False
        self._has_warned = True
        return True
