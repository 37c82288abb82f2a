"""What is due when, for a core that has no clock: ``(due, action)`` in a heap, run by ``tick``.

Pure. Times are monotonic seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

_COMPACT_FROM = 512


class Timer:
    """One entry; ``cancel`` it through ``Timers`` when its reason is gone."""

    __slots__ = ("action", "argument", "due", "is_cancelled", "number")

    def __init__(self, due: float, number: int, action: Callable[[Any, float], None], argument: Any) -> None:
        self.due, self.number, self.action, self.argument = due, number, action, argument
        self.is_cancelled = False

    def __lt__(self, other: Timer) -> bool:
        return (self.due, self.number) < (other.due, other.number)


class Timers:
    """The heap."""

    __slots__ = ("_cancelled_count", "_heap", "_number")

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._number = self._cancelled_count = 0

    def add(self, due: float, action: Callable[[Any, float], None], argument: Any = None) -> Timer:
        """Have *action* called as ``action(argument, now)`` at *due*."""
        self._number += 1
        timer = Timer(due, self._number, action, argument)
        heapq.heappush(self._heap, timer)
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Forget *timer*; None and one that has run are fine."""
        if timer is None or timer.is_cancelled:
            return
        timer.is_cancelled = True
        timer.argument = None
        self._cancelled_count += 1
        # Long timeouts that end early would pile up until they were due.
        if self._cancelled_count > _COMPACT_FROM and self._cancelled_count * 2 > len(self._heap):
            self._heap = [kept for kept in self._heap if not kept.is_cancelled]
            heapq.heapify(self._heap)
            self._cancelled_count = 0

    def next_due(self) -> float | None:
        """When the next one is due; a cancelled one may make this too early, never too late."""
        return self._heap[0].due if self._heap else None

    def run(self, now: float) -> None:
        """Call everything that is due at *now*."""
        while self._heap and self._heap[0].due <= now:
            timer = heapq.heappop(self._heap)
            if timer.is_cancelled:
                self._cancelled_count = max(0, self._cancelled_count - 1)
            else:
                timer.is_cancelled = True
                timer.action(timer.argument, now)
