"""The blocking client over Redis: views, consumers, shells, cron. The worker's side is in ``taking.py``.

Opens nothing before it is first used, and again after a fork. A process has two connections per server: one for the
commands of all threads, one on which they wait. What a worker has in flight is under a lease that a thread of its
process renews; when the lease runs out, or the worker's successor below the same supervisor starts, the message goes to
another worker, once. Only time in which Redis answered counts.
"""

from __future__ import annotations

import itertools
import logging
import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from procman.clock import SystemClock
from procman.layers import names
from procman.layers.base import ChannelLayer, Message
from procman.layers.errors import ChannelFull, LayerUnavailable, ReplyChannelGone
from procman.layers.limits import CAPACITY, EXPIRY, GROUP_EXPIRY, MAX_MESSAGE_SIZE, Limits, check_positive
from procman.layers.redis import entries
from procman.layers.redis.bells import CLOSE_ENOUGH, LONGEST_WAIT, Bells
from procman.layers.redis.common import build_statistics, log_refused
from procman.layers.redis.connect import make_client
from procman.layers.redis.crypto import UnreadableMessage
from procman.layers.redis.keeper import log_told
from procman.layers.redis.keys import PREFIX
from procman.layers.redis.session import Session
from procman.layers.redis.taking import Taking
from procman.log import escape
from procman.settings import ENV_NAME

logger = logging.getLogger("procman.layers")
CLAIM_AFTER = 30.0
_layers: weakref.WeakSet[RedisChannelLayer] = weakref.WeakSet()


class RedisChannelLayer(Taking, ChannelLayer):
    """The channel layer over the Redis server at *address*, or those of ``hosts`` (see ``address.py``, ``hosts.py``).

    *connection_kwargs* are options for the connections, as redis-py names them; with *symmetric_encryption_keys* Redis
    sees bodies and sessions encrypted. Limits are the sender's; in groups, of who added the member. *claim_after* is
    how many seconds a silent worker without a supervisor keeps what it had in flight.

    A finish is applied once, with all of its sends (with several servers, those to others go out before it, see
    ``taking.py``). Other sends are sent again after a broken connection, and known when they come twice. A Redis that
    loses its data (restart without persistence, failover, ``FLUSHALL``) loses what waits on channels of your own;
    interfaces offer again what they hold, and a send made in that moment may arrive twice.
    """

    def __init__(
        self,
        address: str | None = None,
        expiry: float = EXPIRY,
        group_expiry: float = GROUP_EXPIRY,
        capacity: int = CAPACITY,
        channel_capacity: Mapping[Any, int] | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
        prefix: str = PREFIX,
        claim_after: float = CLAIM_AFTER,
        hosts: Sequence[Any] | str | None = None,
        connection_kwargs: Mapping[str, Any] | None = None,
        symmetric_encryption_keys: Sequence[str | bytes] | None = None,
    ) -> None:
        limits = Limits(expiry, group_expiry, capacity, channel_capacity, max_message_size)
        super().__init__(address, hosts, connection_kwargs, prefix, symmetric_encryption_keys, limits)
        self.channel_capacity = dict(channel_capacity or {})
        self.claim_after = check_positive("claim_after", claim_after)
        self._reset()
        _layers.add(self)

    def _reset(self) -> None:
        """Begin anew: at the start, after ``close``, and in a forked child (the parent goes on using what it has)."""
        name = f"procman-{os.environ.get(ENV_NAME) or 'client'}"
        clients = [make_client(host, name=name) for host in self.hosts]
        self._sessions = [
            Session(client, host.hidden, self._prefix, self._ended, log_told, number, self.claim_after)
            for number, (client, host) in enumerate(zip(clients, self.hosts, strict=True))
        ]
        self._bells = Bells(clients, self._sessions)
        self._ids = itertools.count(1)
        self._reset_taking()

    def close(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()
        self._bells.close()
        for session in self._sessions:
            try:
                session.settle(1.0)
            except LayerUnavailable as error:
                logger.warning("the end of a message may not have arrived, and it may be run once more: %s", error)
            session.close()
        self._reset()

    def _session_of(self, channel: str) -> Session:
        return self._sessions[self.server_of(channel)]

    # -- messages -----------------------------------------------------------------------------------------------------

    def send(self, channel: str, message: Message) -> None:
        names.check_channel(channel)
        if self._session_of(channel).run("send", *self._fields(channel, message)):
            raise ChannelFull(channel, self.limits.capacity_of(channel))

    def send_and_wait(self, channel: str, message: Message, timeout: float | None = None) -> None:
        names.check_channel(channel)
        interface = entries.interface_of(channel)
        if not interface:
            return self.send(channel, message)
        number = self.server_of(channel)
        session, key = self._sessions[number], self._new_id()
        tail = entries.build_tail(self._encode(message))
        answer = session.run("part", interface, channel, key, tail)
        if answer == -1:
            raise ReplyChannelGone(channel)
        if answer == -2:
            raise ChannelFull(channel, 0)
        if answer == 0:
            return self.send(channel, message)
        deadline = None if timeout is None else SystemClock.monotonic() + timeout
        while True:
            left = LONGEST_WAIT if deadline is None else deadline - SystemClock.monotonic()
            if left <= CLOSE_ENOUGH:
                raise LayerUnavailable(f"the interface of {escape(channel)} did not answer for {timeout} s")
            found = self._bells.wait([(number, f"{self._prefix}a:{key}".encode())], left, None)
            if isinstance(found, tuple):
                if found[1] == b"0":
                    raise ReplyChannelGone(channel)
                return None
            # The server may have lost it, or the interface may be dead: the key tells whether it has come before.
            session.run("keep", "", session.id, 0, "", plain=True)
            if session.run("part", interface, channel, key, tail) == -1:
                raise ReplyChannelGone(channel)

    def receive_many(
        self, channels: Sequence[str], block: bool = False, timeout: float | None = None
    ) -> tuple[str | None, dict[str, Any] | None]:
        wanted = names.check_receive(channels)
        if block:
            self._bells.prepare({self.server_of(name) for name in wanted})
        deadline = None if timeout is None else SystemClock.monotonic() + timeout
        while True:
            turn = next(self._ids) % len(wanted)
            found = self._receive([*wanted[turn:], *wanted[:turn]])
            if isinstance(found, tuple):
                return found
            left = found if deadline is None else min(found, deadline - SystemClock.monotonic())
            if not block or left <= 0:
                return None, None
            has_rung = self._bells.wait(self._bells_of(wanted), left, None)
            if deadline is not None and deadline - SystemClock.monotonic() <= CLOSE_ENOUGH:
                if not has_rung:
                    return None, None
                block = False  # one last look

    def _receive(self, channels: list[str]) -> tuple[str, dict[str, Any]] | float:
        """A message of *channels*, or in how many seconds to look again."""
        servers: dict[int, list[str]] = {}
        for name in channels:
            servers.setdefault(self.server_of(name), []).append(name)
        pause = LONGEST_WAIT
        for number, wanted in servers.items():
            found = self._sessions[number].run("receive", names.body_owner(wanted[0]), *wanted)
            if found == -2:
                return wanted[0], {"closed": True}
            if not isinstance(found, list):
                pause = min(pause, found / 1000)
                continue
            channel = found[0].decode()
            try:
                body = entries.split_tail(found[1])[1]
                return channel, self._seal.open_message(body, found[2].decode(), channel)
            except (UnreadableMessage, ValueError) as error:
                logger.error("a message of %s is dropped: %s", escape(channel), error)
                pause = 0.001
        return pause

    def new_channel(self, pattern: str) -> str:
        return names.build_channel(pattern)

    # -- groups -------------------------------------------------------------------------------------------------------

    def group_add(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        lifetime, capacity = int(self.limits.group_expiry * 1000), self.limits.capacity_of(channel)
        interface = entries.interface_of(channel)
        self._session_of(channel).run("group_add", group, channel, interface, lifetime, capacity)

    def group_discard(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        self._session_of(channel).run("group_discard", group, channel, entries.interface_of(channel))

    def send_group(self, group: str, message: Message) -> None:
        names.check_group(group)
        tail = entries.build_tail(self._encode(message))
        for session in self._sessions:
            refused, last = session.run("group_send", group, self._new_id(), int(self.limits.expiry * 1000), tail)
            if refused:
                log_refused(group, refused, last)

    def group_channels(self, group: str) -> list[str]:
        names.check_group(group)
        return [name.decode() for each in self._sessions for name in each.run("group_channels", group, plain=True)]

    def group_count(self, group: str) -> int:
        names.check_group(group)
        return sum(each.run("group_count", group, plain=True) for each in self._sessions)

    # -- all ----------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        for session in self._sessions:
            session.run("flush")

    def statistics(self) -> dict[str, Any]:
        return build_statistics([session.run("statistics", plain=True) for session in self._sessions], True)

    def channel_statistics(self, channel: str) -> dict[str, Any]:
        names.check_channel(channel)
        queue = names.local_prefix(channel)
        return build_statistics([each.run("statistics", queue, plain=True) for each in self._sessions], False)


def _after_fork() -> None:
    for layer in list(_layers):
        layer._reset()


os.register_at_fork(after_in_child=_after_fork)
