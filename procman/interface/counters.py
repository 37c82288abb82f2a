"""What one interface process has counted since it began: plain numbers, added to where things happen.

Does no I/O and imports no library: adding costs an attribute, and ``metrics.py`` gives the numbers their public names.
Every label is one of a fixed set, whatever clients send, so that nothing here grows without end.
"""

from __future__ import annotations

from bisect import bisect_left

# Seconds, upper bounds: from a view that does nothing to the default request timeout.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
# Whose time from the offer to the end of the consumer is measured.
CHANNELS = ("http.request", "websocket.connect", "websocket.receive", "websocket.disconnect")
STATUS_CLASSES = ("left", "1xx", "2xx", "3xx", "4xx", "5xx")


class Histogram:
    """How many durations were up to each of ``BOUNDS``, each counted once, and what they add up to."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Counters:
    """The numbers of one interface process; names without a word for their unit count things."""

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "durations",
        "failures",
        "group_deliveries",
        "group_sends",
        "http_duration",
        "http_requests",
        "messages_received",
        "messages_sent",
        "refusals",
        "slow_readers_closed",
        "slow_readers_dropped",
        "sockets_closed",
        "sockets_opened",
        "sockets_refused",
    )

    def __init__(self) -> None:
        self.bytes_received = self.bytes_sent = 0  # all that came; responses and WebSocket messages, framed
        self.sockets_opened = 0
        self.sockets_closed: dict[str, int] = {}  # by close code
        self.sockets_refused: dict[str, int] = {}  # handshakes, by reason
        self.messages_received = self.messages_sent = 0  # complete ones of WebSockets; sent: to each socket
        self.group_sends = self.group_deliveries = 0
        self.slow_readers_closed = self.slow_readers_dropped = 0  # sockets, and messages for them
        self.http_requests = dict.fromkeys(STATUS_CLASSES, 0)
        self.http_duration = Histogram()
        self.refusals: dict[str, int] = {}  # by limit
        self.failures: dict[str, int] = {}  # of offers, by reason
        self.durations = {channel: Histogram() for channel in CHANNELS}

    @property
    def sockets_open(self) -> int:
        """WebSockets that were accepted and have not ended."""
        return self.sockets_opened - sum(self.sockets_closed.values())

    def socket_closed(self, code: int) -> None:
        """An accepted WebSocket has ended with *code*; codes that clients may choose freely count together."""
        label = str(code) if 1000 <= code <= 1015 else f"{code // 1000}xxx"
        self.sockets_closed[label] = self.sockets_closed.get(label, 0) + 1

    def socket_refused(self, reason: str) -> None:
        """A handshake was refused."""
        self.sockets_refused[reason] = self.sockets_refused.get(reason, 0) + 1

    def refused(self, limit: str) -> None:
        """*limit*, a setting's name, kept something out or ended it."""
        self.refusals[limit] = self.refusals.get(limit, 0) + 1

    def finished(self, channel: str, duration: float) -> None:
        """The consumer of an offer has ended, *duration* seconds after the offer."""
        found = self.durations.get(channel)
        if found is not None:
            found.observe(duration)

    def failed(self, reason: str) -> None:
        """Nobody will work on an offer."""
        self.failures[reason] = self.failures.get(reason, 0) + 1

    def request_over(self, status: int, duration: float) -> None:
        """A request is over; *status* 0: its client left before the response began."""
        self.http_requests[STATUS_CLASSES[min(status // 100, 5)]] += 1
        self.http_duration.observe(duration)
