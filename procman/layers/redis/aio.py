"""The asyncio client over Redis: the interface's side, and the common operations as coroutines.

A process has two connections: one for commands, one on which the interface reads its inbox, a stream of notices that
reading does not remove. After a broken connection both are opened again by themselves and what has no answer is sent
again; scripts know a number that they have seen. A server that does not know this interface (it is another one, or has
lost its data) gets a report of everything that is held; ``GRACE`` seconds later what is unfinished is offered again,
unless a worker has said meanwhile that it runs it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from procman.clock import SystemClock
from procman.errors import ConfigurationError
from procman.layers import codec, names
from procman.layers.base import AsyncChannelLayer, InterfaceHandler, Message, Offer, OpenSocket
from procman.layers.errors import ChannelFull, LayerUnavailable
from procman.layers.limits import CAPACITY, EXPIRY, GROUP_EXPIRY, MAX_MESSAGE_SIZE, Limits
from procman.layers.redis import entries
from procman.layers.redis.aiolink import AsyncLink, open_link
from procman.layers.redis.connect import close_async_client, make_async_client
from procman.layers.redis.hosts import choose_hosts, one_host
from procman.layers.redis.inbox import Inbox
from procman.layers.redis.keeper import log_told
from procman.layers.redis.keys import PREFIX, check_prefix
from procman.layers.redis.link import LinkBroken, OutOfMemory, pack
from procman.layers.redis.outbox import Outbox, opened, report
from procman.layers.redis.sync import CLAIM_AFTER, build_statistics, log_refused
from procman.layers.redis.trouble import explain
from procman.settings import ENV_NAME, ENV_RUN

logger = logging.getLogger("procman.layers")
CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 10.0
LEASE = 10.0  # an interface that is silent for longer, in time in which Redis answered, is dead
GRACE = 1.0  # longer than workers take to notice that Redis has lost its data
_KEEP_INTERVAL = 1.0
_FULL_PAUSE = 0.5
_REFRESH_INTERVAL = 6 * 3600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_ALIVE, _UNKNOWN, _DEAD = 0, 1, 2
_random = random.Random()


class _Command:
    __slots__ = ("answered", "arguments", "future", "script")

    def __init__(
        self, script: str, arguments: tuple[Any, ...], answered: Callable[[Any], None] | None, future: Any = None
    ) -> None:
        self.script, self.arguments = script, arguments
        self.answered, self.future = answered, future


class AsyncRedisLayer(names.NameRules, AsyncChannelLayer):
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
        connect_timeout: float = CONNECT_TIMEOUT,
        lease: float = LEASE,
    ) -> None:
        del claim_after  # of workers
        self.limits = Limits(expiry, group_expiry, capacity, channel_capacity, max_message_size)
        self.expiry, self.group_expiry, self.capacity = expiry, group_expiry, capacity
        self._host = one_host(choose_hosts(address, hosts, connection_kwargs, os.environ))
        self.address, self.connect_timeout, self.lease = self._host.hidden, connect_timeout, lease
        self._prefix = check_prefix(prefix)
        self._id = secrets.token_hex(8)
        self.name: str | None = None
        self._handler: InterfaceHandler | None = None
        self._inbox: Inbox | None = None
        self._outbox = Outbox()
        self._client: Any = None
        self._link: AsyncLink | None = None
        self._task: asyncio.Task[None] | None = None
        self._found: asyncio.Event | None = None
        self._broken: asyncio.Future[Any] | None = None
        self._pending: deque[_Command] = deque()
        self._seq = self._count = 0
        self._run_id = self._reason = ""
        self._next_refresh = SystemClock.monotonic() + _REFRESH_INTERVAL
        self._failure: Exception | None = None
        self._disconnects: dict[int, Offer] = {}  # of sockets that have closed, until they are finished
        name, run = os.environ.get(ENV_NAME), os.environ.get(ENV_RUN)
        self._slot = f"{run}.{name}" if name and run else ""
        self._sockets: set[str] = set()
        self._channels: dict[int, str] = {}  # of each unfinished offer
        self._is_flush_due = self._is_full = self._is_closing = False
        self._bell_lock: asyncio.Lock | None = None
        self._bell_link: AsyncLink | None = None

    def get_capacity(self, channel: str) -> int:
        """How many messages may wait on *channel*."""
        return self.limits.capacity_of(channel)

    # -- the connection -----------------------------------------------------------------------------------------------

    async def connect(self, timeout: float | None = None) -> None:
        if self._task is None:
            self._is_closing, self._failure = False, None
            name = f"procman-{os.environ.get(ENV_NAME) or 'interface'}"
            self._client = make_async_client(self._host, name=name)
            self._found, self._bell_lock = asyncio.Event(), asyncio.Lock()
            self._task = asyncio.get_running_loop().create_task(self._keep_connected())
        await self._wait_connected(timeout)

    async def close(self) -> None:
        if self._handler is not None and self._link is not None:
            self._outbox.add((b"B",))
            try:
                async with asyncio.timeout(2.0):
                    while not self._outbox.is_idle() and self._link is not None:
                        self._flush()
                        await asyncio.sleep(0.005)
            except TimeoutError:
                logger.warning("the channel layer did not hear that this interface ends; it will notice by itself")
        self._is_closing = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        bell, self._bell_link = self._bell_link, None
        if bell is not None:
            await bell.close()
        if self._client is not None:
            await close_async_client(self._client)
        self._fail_pending()

    async def _keep_connected(self) -> None:
        pause = _FIRST_PAUSE
        self._reason = ""
        while not self._is_closing:
            links: list[AsyncLink] = []
            try:
                async with asyncio.timeout(self.connect_timeout):
                    links.append(await open_link(self._client))
                    if self._handler is not None:
                        links.append(await open_link(self._client, has_scripts=False))
                    state = await self._greet(links[0])
                pause = _FIRST_PAUSE
                self._begin(links[0], state)
                await self._run_links(*links)
            except (LinkBroken, OSError, TimeoutError) as error:
                self._reason = explain(error)
                logger.debug("no connection to Redis: %s", self._reason)
            except (LayerUnavailable, ConfigurationError) as error:
                self._failure = error
            finally:
                self._lost()
                for link in links:
                    await link.close()
            await asyncio.sleep(pause * (0.5 + _random.random() / 2))
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _greet(self, link: AsyncLink) -> int:
        """Be the interface of this name; what the server knew of it."""
        if self._inbox is None:
            return _ALIVE
        arguments = (self.name, int(self.lease * 1000), self._inbox.cursor, self._slot)
        link.write(self._pack(link, "serve", arguments))
        state = await link.read()
        if isinstance(state, Exception):
            raise state
        if state == _ALIVE and link.run_id != self._run_id:
            # Another server, or it was started again: it may lack what its predecessor had acknowledged last.
            state = -1
        return int(state)

    def _begin(self, link: AsyncLink, state: int) -> None:
        """The server is there: report what it does not know, send again what has no answer, let requests pass."""
        self._failure = None
        is_first, self._run_id = not self._run_id, link.run_id
        if state in (_UNKNOWN, _DEAD):
            self._pending = deque(each for each in self._pending if each.script != "batch")
            self._outbox.clear()
        self._link = link
        for command in self._pending:
            link.write(self._pack(link, command.script, command.arguments))
        if self._handler is not None and self._inbox is not None and (state != _ALIVE or is_first):
            if state == _DEAD:
                self._handler.on_declared_dead()
            self._report(self._handler, self._inbox)
        assert self._found is not None
        self._found.set()
        self._want_flush()
        if is_first and self._handler is not None:
            logger.info("layer %s, 2 connections per process", self.address)

    def _report(self, handler: InterfaceHandler, inbox: Inbox) -> None:
        snapshot = handler.on_layer_found()
        inbox.set_memberships(snapshot.memberships)
        self._sockets = {socket.reply_channel for socket in snapshot.sockets}
        for operation in report(snapshot, entries.MAX_SESSION_BYTES):
            self._outbox.add(operation)
        offers = list(({offer.id: offer for offer in snapshot.offers} | self._disconnects).values())
        if offers:
            asyncio.get_running_loop().call_later(GRACE, self._offer_again, offers, self._link)

    def _offer_again(self, offers: list[Offer], link: AsyncLink | None) -> None:
        if link is not self._link or self._handler is None:
            return  # the next report tells
        for offer in offers:
            if offer.id in self._disconnects or self._handler.is_unfinished(offer.id):
                self._tell_offer(offer, entries.AGAIN | (entries.BEGUN if offer.begun else 0))

    async def _run_links(self, commands: AsyncLink, notices: AsyncLink | None = None) -> None:
        """Serve both connections until one breaks. Raises LinkBroken."""
        self._broken = asyncio.get_running_loop().create_future()
        tasks = [asyncio.ensure_future(self._read_answers(commands))]
        if notices is not None and self._inbox is not None:
            tasks.append(asyncio.ensure_future(self._inbox.run(notices, self._notices_read)))
            tasks.append(asyncio.ensure_future(self._keep(commands)))
        try:
            done, _ = await asyncio.wait([*tasks, self._broken], return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._broken.cancel()

    async def _read_answers(self, link: AsyncLink) -> None:
        while True:
            answer = await link.read()
            command = self._pending.popleft()
            if command.future is not None:
                if not command.future.done():
                    if isinstance(answer, Exception):
                        command.future.set_exception(answer)
                    else:
                        command.future.set_result(answer)
            elif command.answered is not None:
                command.answered(answer)

    async def _keep(self, link: AsyncLink) -> None:
        pause = min(_KEEP_INTERVAL, self.lease / 4)
        while True:
            await asyncio.sleep(pause)
            arguments = ("i", self.name, int(self.lease * 1000), self._slot)
            future = self._write("keep", arguments, is_plain=True)
            async with asyncio.timeout(ANSWER_TIMEOUT):
                is_there, due_ms, told = await future
            if told:
                log_told(told)
            if not is_there:
                raise LinkBroken("this interface is not known any more")
            self._refresh_groups()
            pause = min(_KEEP_INTERVAL, self.lease / 4, max(0.02, due_ms / 1000))
            self._want_flush()

    def _refresh_groups(self) -> None:
        """Keys of groups end by themselves; those of sockets that stay open for days must not."""
        now = SystemClock.monotonic()
        if self._inbox is not None and now >= self._next_refresh:
            self._next_refresh = now + _REFRESH_INTERVAL
            for group in self._inbox.groups():
                self._outbox.add((b"K", group))

    def _lost(self) -> None:
        was_there, self._link = self._link is not None, None
        self._pending = deque(each for each in self._pending if each.script not in ("keep", "receive"))
        if self._found is not None:
            self._found.clear()
        if was_there and self._handler is not None and not self._is_closing:
            self._handler.on_layer_lost()

    def _fail_pending(self) -> None:
        pending, self._pending = self._pending, deque()
        for command in pending:
            if command.future is not None and not command.future.done():
                command.future.set_exception(LayerUnavailable("the channel layer was closed"))

    async def _wait_connected(self, timeout: float | None) -> None:
        if self._found is None or self._task is None:
            raise LayerUnavailable("the layer is not connected: call connect() first")
        try:
            async with asyncio.timeout(timeout):
                await self._found.wait()
        except TimeoutError:
            if self._failure is not None:
                raise self._failure from None
            raise LayerUnavailable(f"no Redis answers at {self.address}: {self._reason or 'is it running?'}") from None

    # -- requests -----------------------------------------------------------------------------------------------------

    def _pack(self, link: AsyncLink, script: str, arguments: Sequence[Any]) -> bytes:
        return pack("EVALSHA", link.scripts[script].digest, 1, self._prefix, *arguments)

    def _write(self, script: str, arguments: tuple[Any, ...], is_plain: bool = False) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not is_plain:
            self._seq += 1
            arguments = (self._id, self._seq, *arguments)
        self._pending.append(_Command(script, arguments, None, future))
        if self._link is not None:
            self._link.write(self._pack(self._link, script, arguments))
        return future

    async def _run(self, script: str, *arguments: Any, is_plain: bool = False) -> Any:
        if self._link is None:
            await self._wait_connected(self.connect_timeout)
        future = self._write(script, arguments, is_plain)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await future
        except TimeoutError:
            raise LayerUnavailable(f"the channel layer at {self.address} did not answer in time") from None

    def _new_id(self) -> str:
        self._count += 1
        return f"{self._id}.{self._count}"

    def _send_fields(self, channel: str, message: Message, flags: int = 0) -> tuple[Any, ...]:
        reply = message.get("reply_channel")
        known = reply if isinstance(reply, str) else ""
        return entries.send_fields(channel, self.encode(message), known, self._new_id(), self.limits, flags)

    async def send(self, channel: str, message: Message) -> None:
        names.check_channel(channel)
        if await self._run("send", *self._send_fields(channel, message)):
            raise ChannelFull(channel, self.limits.capacity_of(channel))

    async def send_when_room(self, channel: str, message: Message) -> None:
        names.check_channel(channel)
        pause, flags = 0.005, 0
        while await self._run("send", *self._send_fields(channel, message, flags)):
            flags = entries.AGAIN
            await asyncio.sleep(pause)
            pause = min(0.05, pause * 2)

    async def receive_many(
        self, channels: Sequence[str], block: bool = False, timeout: float | None = None
    ) -> tuple[str | None, dict[str, Any] | None]:
        wanted = names.check_receive(channels)
        deadline = None if timeout is None else SystemClock.monotonic() + timeout
        while True:
            self._count += 1
            turn = self._count % len(wanted)
            found = await self._run("receive", names.body_owner(wanted[0]), *wanted[turn:], *wanted[:turn])
            if isinstance(found, list):
                return found[0].decode(), codec.decode(entries.split_tail(found[1])[1])
            if found == -2:
                return wanted[0], {"closed": True}
            left = found / 1000 if deadline is None else min(found / 1000, deadline - SystemClock.monotonic())
            if not block or left <= 0:
                return None, None
            await self._wait_for_bell(wanted, left)

    async def _wait_for_bell(self, channels: Sequence[str], seconds: float) -> None:
        """Return when one of *channels* may have a message, at most *seconds* later."""
        assert self._bell_lock is not None
        try:
            async with asyncio.timeout(seconds + 0.05), self._bell_lock:
                link = self._bell_link
                if link is None:
                    link = self._bell_link = await open_link(self._client, has_scripts=False)
                keys = [f"{self._prefix}b:{names.local_prefix(name)}" for name in channels]
                try:
                    await link.call("BLPOP", *keys, max(0.01, seconds))
                except BaseException:
                    self._bell_link = None  # its answer must not meet the next question
                    await link.close()
                    raise
        except (TimeoutError, LinkBroken):
            return

    async def new_channel(self, pattern: str) -> str:
        return names.build_channel(pattern)

    async def group_add(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        lifetime, capacity = int(self.limits.group_expiry * 1000), self.limits.capacity_of(channel)
        await self._run("group_add", group, channel, entries.interface_of(channel), lifetime, capacity)

    async def group_discard(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        await self._run("group_discard", group, channel, entries.interface_of(channel))

    async def send_group(self, group: str, message: Message) -> None:
        names.check_group(group)
        tail = entries.build_tail(self.encode(message))
        refused, last = await self._run("group_send", group, self._new_id(), int(self.limits.expiry * 1000), tail)
        if refused:
            log_refused(group, refused, last)

    async def group_channels(self, group: str) -> list[str]:
        names.check_group(group)
        return [name.decode() for name in await self._run("group_channels", group, is_plain=True)]

    async def flush(self) -> None:
        await self._run("flush")

    async def statistics(self) -> dict[str, Any]:
        return build_statistics(await self._run("statistics", is_plain=True), True)

    async def channel_statistics(self, channel: str) -> dict[str, Any]:
        """As ``ChannelLayer.channel_statistics``."""
        names.check_channel(channel)
        return build_statistics(await self._run("statistics", names.local_prefix(channel), is_plain=True), False)

    # -- the interface's side -----------------------------------------------------------------------------------------

    def serve(self, handler: InterfaceHandler) -> str:
        if self._task is not None:
            raise ConfigurationError("serve() must be called before connect()")
        self._handler = handler
        # A restarted interface is another interface: the sockets of its predecessor are gone.
        self.name = f"{os.environ.get(ENV_NAME) or 'interface'}.{secrets.token_hex(4)}"
        self._inbox = Inbox(self.name, self._prefix, handler, self._disconnects, self._tell)
        return self.name

    def encode(self, message: Message) -> bytes:
        return codec.encode(message, self.limits.max_message_size)

    def offer(self, offer: Offer) -> None:
        self._tell_offer(offer, entries.SOCKET if offer.reply_channel in self._sockets else 0)

    def withdraw(self, offer_id: int) -> None:
        channel = self._channels.pop(offer_id, None)
        if channel is not None and not self._outbox.withdraw(offer_id):
            self._tell((b"W", offer_id, channel))

    def socket_opened(self, socket: OpenSocket) -> None:
        self._sockets.add(socket.reply_channel)
        self._tell(opened(socket, entries.MAX_SESSION_BYTES))

    def socket_closed(self, reply_channel: str, disconnect: Offer | None) -> None:
        self._sockets.discard(reply_channel)
        self._tell((b"C", reply_channel))
        if self._inbox is not None:
            for group in self._inbox.forget(reply_channel):
                self._tell((b"D", group, reply_channel))
        if disconnect is not None:
            self._disconnects[disconnect.id] = disconnect
            self._tell_offer(disconnect, entries.CLOSED)

    def group_gone(self, group: str, channel: str) -> None:
        if self._inbox is not None:
            self._inbox.discard(group, channel)
        self._tell((b"D", group, channel))

    def written(self, token: int, delivered: bool) -> None:
        if self._inbox is not None:
            self._inbox.written(token, delivered)

    def _tell_offer(self, offer: Offer, flags: int) -> None:
        self._channels[offer.id] = offer.channel
        self._tell(entries.offer_fields(offer, self.limits, flags))

    def _tell(self, operation: tuple[Any, ...]) -> None:
        self._outbox.add(operation)
        self._want_flush()

    def _want_flush(self) -> None:
        if not self._is_flush_due and self._link is not None:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._link is None or self._is_full:
            return
        arguments = self._outbox.next_arguments()
        if arguments is None:
            return
        self._seq += 1
        command = _Command("batch", (self.name, self._id, self._seq, *arguments), self._batch_answered)
        self._pending.append(command)
        self._link.write(self._pack(self._link, command.script, command.arguments))

    def _batch_answered(self, answer: Any) -> None:
        if isinstance(answer, OutOfMemory):
            self._refused_for_memory()
            return
        if answer == -1 or isinstance(answer, Exception):
            self._outbox.done()
            if self._broken is not None and not self._broken.done():
                reason = "this interface is not known any more" if answer == -1 else str(answer)
                self._broken.set_exception(LinkBroken(reason))
            return
        self._outbox.done()
        if self._outbox.has_more():
            self._flush()

    def _refused_for_memory(self) -> None:
        """Requests are refused, like by a full channel; what belongs to sockets is kept and tried again."""
        refused = [each[1] for each in self._outbox.under_way() if each[0] == b"O" and each[6] & entries.BOUNDED]
        self._outbox.again(without=refused)
        self._is_full = True
        logger.error("Redis is out of memory (maxmemory): requests are refused, frames of sockets wait")
        asyncio.get_running_loop().call_later(_FULL_PAUSE, self._try_again)
        for number in refused:
            if self._handler is not None:
                self._handler.on_failed(number, "full")

    def _try_again(self) -> None:
        self._is_full = False
        self._want_flush()

    def _notices_read(self, cursor: bytes, numbers: Sequence[int]) -> None:
        self._outbox.read(cursor, numbers)
        for number in numbers:
            self._channels.pop(number, None)
        if numbers and not self._is_flush_due and self._outbox.has_more():
            self._want_flush()
