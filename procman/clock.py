"""The only door to the clocks.

Rules take ``now`` as an argument; drivers take a ``Clock`` so that tests can inject one that they move.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What a driver asks for the time. All values are float seconds."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back."""

    def wall(self) -> float:
        """Seconds since the Unix epoch; may jump."""


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
