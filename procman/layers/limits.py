"""How many messages wait and how long: capacity by name pattern, expiry, group expiry, message size.

Pure. ``mailbox.py`` and ``groups.py`` apply the numbers; this file only answers what they are for a name.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

from procman.errors import ConfigurationError

EXPIRY = 60.0
GROUP_EXPIRY = 86400.0
CAPACITY = 100
MAX_MESSAGE_SIZE = 16 * 1024 * 1024
_CACHED_NAMES = 1024
_LARGEST = 2**31 - 1  # of seconds, messages and bytes
_MAX_PATTERNS = 1024


class Limits:
    """The limits of one sender.

    ``expiry`` and ``group_expiry`` are seconds; ``channel_capacity`` maps globs or compiled patterns to capacities,
    the first that matches a name wins over ``capacity``. ``max_message_size`` is in bytes of the encoded message.

    Raises:
        ConfigurationError: a value is not a positive number, or a pattern does not compile.
    """

    __slots__ = ("_cache", "capacity", "expiry", "group_expiry", "max_message_size", "patterns")

    def __init__(
        self,
        expiry: float = EXPIRY,
        group_expiry: float = GROUP_EXPIRY,
        capacity: int = CAPACITY,
        channel_capacity: Mapping[Any, int] | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
    ) -> None:
        self.expiry = check_positive("expiry", expiry)
        self.group_expiry = check_positive("group_expiry", group_expiry)
        self.capacity = int(check_positive("capacity", capacity))
        self.max_message_size = int(check_positive("max_message_size", max_message_size))
        if not isinstance(channel_capacity, Mapping | None):
            raise ConfigurationError(
                f"the layer's channel_capacity is {channel_capacity!r}; write a dict such as {{'http.request*': 500}}"
            )
        self.patterns = [_compile(pattern, count) for pattern, count in (channel_capacity or {}).items()]
        self._cache: dict[str, int] = {}

    def capacity_of(self, channel: str) -> int:
        """How many messages may wait on *channel*."""
        if not self.patterns:
            return self.capacity
        found = self._cache.get(channel)
        if found is None:
            found = next((count for pattern, count in self.patterns if pattern.match(channel)), self.capacity)
            if len(self._cache) >= _CACHED_NAMES:
                self._cache.clear()
            self._cache[channel] = found
        return found

    def to_wire(self) -> list[Any]:
        """Plain data for the hub, which applies the limits of the client that sends."""
        patterns = [[pattern.pattern, pattern.flags, count] for pattern, count in self.patterns]
        return [self.expiry, self.group_expiry, self.capacity, self.max_message_size, patterns]

    @classmethod
    def from_wire(cls, data: Sequence[Any]) -> Limits:
        """The limits that ``to_wire`` described. Raises ValueError, TypeError or ConfigurationError for other data."""
        expiry, group_expiry, capacity, max_message_size, patterns = data
        if len(patterns) > _MAX_PATTERNS:
            raise ValueError(f"channel_capacity has {len(patterns)} patterns, more than {_MAX_PATTERNS}")
        try:
            compiled = {re.compile(pattern, flags): count for pattern, flags, count in patterns}
        except (re.error, RecursionError) as error:
            raise ValueError(f"a pattern of channel_capacity does not compile: {error}") from error
        return cls(expiry, group_expiry, capacity, compiled, max_message_size)


def check_positive(name: str, value: Any) -> float:
    """*value*, the option *name* of a layer. Raises ConfigurationError: it is no number above 0, or too large to be."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST:
        raise ConfigurationError(f"the layer's {name} is {value!r}; it must be a number above 0 and at most {_LARGEST}")
    return float(value)


def _compile(pattern: Any, count: Any) -> tuple[re.Pattern[str], int]:
    checked = int(check_positive(f"channel_capacity[{pattern!r}]", count))
    if isinstance(pattern, re.Pattern):
        return pattern, checked
    if not isinstance(pattern, str):
        raise ConfigurationError(f"channel_capacity names {pattern!r}; write a glob such as 'http.request*'")
    return re.compile(fnmatch.translate(pattern)), checked
