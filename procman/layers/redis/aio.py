"""The asyncio client over Redis: the common operations as coroutines, and the interface's side (``serving.py``).

A process has two connections to the server of the interface's name. To other servers it connects when something is
first sent there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from procman.clock import SystemClock
from procman.errors import ConfigurationError
from procman.layers import codec, names
from procman.layers.base import AsyncChannelLayer, InterfaceHandler, Message, Offer, OpenSocket
from procman.layers.errors import ChannelFull
from procman.layers.limits import CAPACITY, EXPIRY, GROUP_EXPIRY, MAX_MESSAGE_SIZE, Limits, check_positive
from procman.layers.redis import entries
from procman.layers.redis.asession import CONNECT_TIMEOUT, AsyncSession
from procman.layers.redis.bells import CLOSE_ENOUGH, LONGEST_WAIT
from procman.layers.redis.common import Common, build_statistics, log_refused
from procman.layers.redis.crypto import UnreadableMessage
from procman.layers.redis.keys import PREFIX
from procman.layers.redis.serving import LEASE, ServingSession
from procman.layers.redis.sync import CLAIM_AFTER
from procman.log import escape
from procman.settings import ENV_NAME

logger = logging.getLogger("procman.layers")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.05


class AsyncRedisLayer(Common, AsyncChannelLayer):
    """The channel layer over Redis on one event loop. Arguments as for ``RedisChannelLayer``."""

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
        connect_timeout: float = CONNECT_TIMEOUT,
        lease: float = LEASE,
    ) -> None:
        del claim_after  # of workers
        limits = Limits(expiry, group_expiry, capacity, channel_capacity, max_message_size)
        super().__init__(address, hosts, connection_kwargs, prefix, symmetric_encryption_keys, limits)
        self.connect_timeout, self.lease = check_positive("connect_timeout", connect_timeout), lease
        self.name: str | None = None
        self._sessions = [AsyncSession(host, self._prefix, connect_timeout) for host in self.hosts]
        self._home = 0
        self._count = 0

    # -- the connections ----------------------------------------------------------------------------------------------

    async def connect(self, timeout: float | None = None) -> None:
        await self._sessions[self._home].connect(timeout)

    async def close(self) -> None:
        for session in self._sessions:
            await session.close()

    async def _session(self, number: int) -> AsyncSession:
        session = self._sessions[number]
        if not session.is_open and self._sessions[self._home].is_open:
            await session.connect(self.connect_timeout)
        return session

    async def _run(self, channel: str, script: str, *arguments: Any) -> Any:
        return await (await self._session(self.server_of(channel))).run(script, *arguments)

    async def _run_everywhere(self, script: str, *arguments: Any, is_plain: bool = False) -> list[Any]:
        sessions = [await self._session(number) for number in range(len(self._sessions))]
        return [await session.run(script, *arguments, is_plain=is_plain) for session in sessions]

    # -- messages -----------------------------------------------------------------------------------------------------

    def _new_id(self) -> str:
        self._count += 1
        return f"{self._sessions[0].id}.{self._count}"

    def _fields(self, channel: str, message: Message, flags: int = 0) -> tuple[Any, ...]:
        body = self.encode(message)
        reply = message.get("reply_channel")
        known = reply if isinstance(reply, str) else ""
        return entries.send_fields(channel, body, known, self._new_id(), self.limits, flags)

    async def send(self, channel: str, message: Message) -> None:
        names.check_channel(channel)
        if await self._run(channel, "send", *self._fields(channel, message)):
            raise ChannelFull(channel, self.limits.capacity_of(channel))

    async def send_when_room(self, channel: str, message: Message) -> None:
        names.check_channel(channel)
        pause, flags = _FIRST_PAUSE, 0
        while await self._run(channel, "send", *self._fields(channel, message, flags)):
            flags = entries.AGAIN
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def receive_many(
        self, channels: Sequence[str], block: bool = False, timeout: float | None = None
    ) -> tuple[str | None, dict[str, Any] | None]:
        wanted = names.check_receive(channels)
        deadline = None if timeout is None else SystemClock.monotonic() + timeout
        while True:
            self._count += 1
            turn = self._count % len(wanted)
            servers: dict[int, list[str]] = {}
            for name in (*wanted[turn:], *wanted[:turn]):
                servers.setdefault(self.server_of(name), []).append(name)
            found = await self._receive(servers)
            if isinstance(found, tuple):
                return found
            left = found if deadline is None else min(found, deadline - SystemClock.monotonic())
            if not block or left <= 0:
                return None, None
            await self._wait_for_bells(servers, left)
            if deadline is not None and deadline - SystemClock.monotonic() <= CLOSE_ENOUGH:
                block = False  # one last look

    async def _receive(self, servers: Mapping[int, Sequence[str]]) -> tuple[str, dict[str, Any]] | float:
        """A message, or in how many seconds to look again."""
        pause = LONGEST_WAIT
        for number, wanted in servers.items():
            session = await self._session(number)
            found = await session.run("receive", names.body_owner(wanted[0]), *wanted)
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

    async def _wait_for_bells(self, servers: Mapping[int, Sequence[str]], seconds: float) -> None:
        waits = []
        for number, wanted in servers.items():
            keys = [f"{self._prefix}b:{names.local_prefix(name)}" for name in wanted]
            waits.append(self._sessions[number].wait_for_bell(keys, seconds))
        if len(waits) == 1:
            await waits[0]
            return
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)

    async def new_channel(self, pattern: str) -> str:
        return names.build_channel(pattern)

    # -- groups -------------------------------------------------------------------------------------------------------

    async def group_add(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        lifetime, capacity = int(self.limits.group_expiry * 1000), self.limits.capacity_of(channel)
        await self._run(channel, "group_add", group, channel, entries.interface_of(channel), lifetime, capacity)

    async def group_discard(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        await self._run(channel, "group_discard", group, channel, entries.interface_of(channel))

    async def send_group(self, group: str, message: Message) -> None:
        names.check_group(group)
        tail, lifetime = entries.build_tail(self.encode(message)), int(self.limits.expiry * 1000)
        for refused, last in await self._run_everywhere("group_send", group, self._new_id(), lifetime, tail):
            if refused:
                log_refused(group, refused, last)

    async def group_channels(self, group: str) -> list[str]:
        names.check_group(group)
        found = await self._run_everywhere("group_channels", group, is_plain=True)
        return [name.decode() for each in found for name in each]

    async def group_count(self, group: str) -> int:
        names.check_group(group)
        return sum(await self._run_everywhere("group_count", group, is_plain=True))

    # -- all ----------------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        await self._run_everywhere("flush")

    async def statistics(self) -> dict[str, Any]:
        return build_statistics(await self._run_everywhere("statistics", is_plain=True), True)

    async def channel_statistics(self, channel: str) -> dict[str, Any]:
        """As ``ChannelLayer.channel_statistics``."""
        names.check_channel(channel)
        queue = names.local_prefix(channel)
        return build_statistics(await self._run_everywhere("statistics", queue, is_plain=True), False)

    # -- the interface's side -----------------------------------------------------------------------------------------

    def serve(self, handler: InterfaceHandler) -> str:
        if any(session.is_open for session in self._sessions):
            raise ConfigurationError("serve() must be called before connect()")
        # A restarted interface is another interface: the sockets of its predecessor are gone.
        self.name = f"{os.environ.get(ENV_NAME) or 'interface'}.{secrets.token_hex(4)}"
        self._home = self.server_of(f"{self.name}!")
        self._sessions[self._home] = ServingSession(
            self.hosts[self._home], self._prefix, self.connect_timeout,
            self.name, handler, self.limits, self._seal, self.lease,
        )  # fmt: skip
        return self.name

    @property
    def _serving(self) -> ServingSession:
        session = self._sessions[self._home]
        if not isinstance(session, ServingSession):
            raise ConfigurationError("serve() must be called first")
        return session

    def encode(self, message: Message) -> bytes:
        return self._seal.close(codec.encode(message, self.limits.max_message_size))

    def offer(self, offer: Offer) -> None:
        self._serving.offer(offer)

    def withdraw(self, offer_id: int) -> None:
        self._serving.withdraw(offer_id)

    def settle(self, offer_id: int) -> None:
        self._serving.settle(offer_id)

    def socket_opened(self, socket: OpenSocket) -> None:
        self._serving.socket_opened(socket)

    def socket_closed(self, reply_channel: str, disconnect: Offer | None) -> None:
        self._serving.socket_closed(reply_channel, disconnect)

    def group_gone(self, group: str, channel: str) -> None:
        self._serving.group_gone(group, channel)

    def written(self, token: int, delivered: bool) -> None:
        self._serving.written(token, delivered)
