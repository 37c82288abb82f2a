"""What the blocking and the asyncio client share: options, where names live, what is logged and counted.

Where several servers are used, an interface and all that is its own (what it offers, its inbox, records of its sockets,
bodies of its requests) is on the server of its name, so that the end of a delivery is one step; other channels are on
the server of their name; a member of a group is on the server of its channel, and a group send goes to all servers.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from procman.layers import names
from procman.layers.limits import Limits
from procman.layers.mailbox import DEPTHS
from procman.layers.redis import entries
from procman.layers.redis.hosts import choose_hosts, hidden
from procman.layers.redis.keys import check_prefix
from procman.layers.redis.ring import Ring
from procman.layers.redis.seal import Seal
from procman.log import escape

logger = logging.getLogger("procman.layers")


class Common(names.NameRules):
    """The options of a layer, understood."""

    def __init__(
        self,
        address: str | None,
        hosts: Sequence[Any] | str | None,
        connection_kwargs: Mapping[str, Any] | None,
        prefix: str,
        keys: Sequence[str | bytes] | None,
        limits: Limits,
    ) -> None:
        self.limits = limits
        self.expiry, self.group_expiry, self.capacity = limits.expiry, limits.group_expiry, limits.capacity
        self.hosts = choose_hosts(address, hosts, connection_kwargs, os.environ)
        self.address = hidden(self.hosts)
        self._prefix = check_prefix(prefix)
        self._seal = Seal(keys, prefix)
        self._ring = Ring(len(self.hosts))

    def get_capacity(self, channel: str) -> int:
        """How many messages may wait on *channel*."""
        return self.limits.capacity_of(channel)

    def server_of(self, channel: str) -> int:
        """The server of *channel*, as its place among ``hosts``."""
        if self._ring.count == 1:
            return 0
        return self._ring.index(entries.interface_of(channel) or names.body_owner(channel) or channel)


def log_refused(group: str, number: int, last: bytes) -> None:
    """Log what a group send had to drop."""
    logger.warning(
        "group %s: %d messages to full channels were dropped, the last one to %s", group, number, escape(last.decode())
    )


def build_statistics(answers: Sequence[Sequence[Any]], has_all: bool) -> dict[str, Any]:
    """The statistics from what ``lua/statistics.lua`` returned at each server."""
    found = [answer[:-1] for answer in answers] if has_all else answers
    totals = [sum(column) for column in zip(*found, strict=True)]
    messages, messages_rate, fulls, fulls_rate, dropped, _, redelivered, _, pending, _, *rest = totals
    statistics: dict[str, Any] = {
        "messages_count": messages,
        "messages_count_per_second": messages_rate,
        "messages_pending": pending,
        "messages_max_age": max(numbers[9] for numbers in found) / 1000,
        "channel_full_count": fulls,
        "channel_full_count_per_second": fulls_rate,
    }
    if has_all:
        statistics |= dict(zip(("in_flight", "interfaces", "workers", "sockets", "groups"), rest, strict=True))
        statistics["workers"] = max(numbers[12] for numbers in found)  # each is at every server
        statistics |= {"redelivered_count": redelivered, "dropped_count": dropped}
        statistics["channels_pending"] = _add_depths([answer[-1] for answer in answers])
    return statistics


def _add_depths(answers: Sequence[Sequence[Any]]) -> dict[str, int]:
    """Messages per channel, of the ``DEPTHS`` with most; families of names count together."""
    messages: Counter[str] = Counter()
    for answer in answers:
        for name, number in zip(answer[::2], answer[1::2], strict=True):
            messages[names.family(name.decode())] += number
    return dict(messages.most_common(DEPTHS))
