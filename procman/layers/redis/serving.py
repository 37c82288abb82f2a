"""An interface at the server of its name: what it offers and hears, and what it reports after a loss.

Two connections: one for commands, one on which the inbox is read, a stream of notices that reading does not remove. A
server that does not know this interface (it is another one, or has lost its data) gets a report of everything that is
held; ``GRACE`` seconds later what is unfinished is offered again, unless a worker has said meanwhile that it runs it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Sequence
from typing import Any

from procman.clock import SystemClock
from procman.layers.base import InterfaceHandler, Offer, OpenSocket
from procman.layers.limits import Limits
from procman.layers.redis import entries
from procman.layers.redis.address import Host
from procman.layers.redis.aiolink import AsyncLink
from procman.layers.redis.asession import ANSWER_TIMEOUT, AsyncSession, Command
from procman.layers.redis.inbox import Inbox
from procman.layers.redis.keeper import log_told
from procman.layers.redis.link import LinkBroken, OutOfMemory
from procman.layers.redis.outbox import Outbox, opened, report
from procman.layers.redis.seal import Seal
from procman.settings import ENV_NAME, ENV_RUN

logger = logging.getLogger("procman.layers")
LEASE = 10.0  # an interface that is silent for longer, in time in which Redis answered, is dead
GRACE = 1.0  # longer than workers take to notice that Redis has lost its data
_KEEP_INTERVAL = 1.0
_FULL_PAUSE = 0.5
_REFRESH_INTERVAL = 6 * 3600.0
_ALIVE, _UNKNOWN, _DEAD, _UNSURE = 0, 1, 2, 3


class ServingSession(AsyncSession):
    """The session of the interface *name*, which *handler* is."""

    connections = 2

    def __init__(
        self,
        host: Host,
        prefix: str,
        connect_timeout: float,
        name: str,
        handler: InterfaceHandler,
        limits: Limits,
        seal: Seal,
        lease: float,
    ) -> None:
        super().__init__(host, prefix, connect_timeout)
        self.name, self.limits, self.lease = name, limits, lease
        self._handler, self._seal = handler, seal
        self._disconnects: dict[int, Offer] = {}  # of sockets that have closed, until they are finished
        self._inbox = Inbox(name, prefix, handler, self._disconnects, self._tell, seal)
        self._outbox = Outbox()
        self._run_id = ""
        self._next_refresh = SystemClock.monotonic() + _REFRESH_INTERVAL
        process, run = os.environ.get(ENV_NAME), os.environ.get(ENV_RUN)
        self._slot = f"{run}.{process}" if process and run else ""
        self._sockets: set[str] = set()
        self._channels: dict[int, str] = {}  # of each unfinished offer
        self._is_flush_due = self._is_full = False

    # -- the connection -----------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Say goodbye, then as ``AsyncSession.close``."""
        if self.link is not None:
            self._outbox.add((b"B",))
            try:
                async with asyncio.timeout(2.0):
                    while not self._outbox.is_idle() and self.link is not None:
                        self._flush()
                        await asyncio.sleep(0.005)
            except TimeoutError:
                logger.warning("the channel layer did not hear that this interface ends; it will notice by itself")
        await super().close()

    async def greet(self, link: AsyncLink) -> int:
        arguments = (self.name, int(self.lease * 1000), self._inbox.cursor, self._slot)
        link.write(self.pack(link, "serve", arguments))
        state = await link.read()
        if isinstance(state, Exception):
            raise state
        if state == _ALIVE and link.run_id != self._run_id:
            # Another server, or it was started again: it may lack what its predecessor had acknowledged last.
            return _UNSURE
        return int(state)

    def begin(self, link: AsyncLink, state: int) -> None:
        is_first, self._run_id = not self._run_id, link.run_id
        if state in (_UNKNOWN, _DEAD):
            self.pending = deque(each for each in self.pending if each.script != "batch")
            self._outbox.clear()
        super().begin(link, state)
        if state == _DEAD:
            self._handler.on_declared_dead()
        if state != _ALIVE or is_first:
            self._report()
        self._want_flush()
        if is_first:
            logger.info("layer %s, 2 connections per process", self.address)

    def _report(self) -> None:
        snapshot = self._handler.on_layer_found()
        self._inbox.set_memberships(snapshot.memberships)
        self._sockets = {socket.reply_channel for socket in snapshot.sockets}
        for operation in report(snapshot, self._opened):
            self._outbox.add(operation)
        offers = list(({offer.id: offer for offer in snapshot.offers} | self._disconnects).values())
        if offers:
            asyncio.get_running_loop().call_later(GRACE, self._offer_again, offers, self.link)

    def _offer_again(self, offers: list[Offer], link: AsyncLink | None) -> None:
        if link is not self.link:
            return  # the next report tells
        for offer in offers:
            if offer.id in self._disconnects or self._handler.is_unfinished(offer.id):
                self._tell_offer(offer, entries.AGAIN | (entries.BEGUN if offer.begun else 0))

    def tasks(self, links: Sequence[AsyncLink]) -> list[Any]:
        return [*super().tasks(links), self._inbox.run(links[1], self._notices_read), self._keep()]

    async def _keep(self) -> None:
        pause = min(_KEEP_INTERVAL, self.lease / 4)
        while True:
            await asyncio.sleep(pause)
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self.write(Command("keep", ("i", self.name, int(self.lease * 1000), self._slot), future=future))
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
        if now >= self._next_refresh:
            self._next_refresh = now + _REFRESH_INTERVAL
            for group in self._inbox.groups():
                self._outbox.add((b"K", group))

    def lost(self) -> None:
        was_there = self.link is not None
        super().lost()
        if was_there and not self.is_closing:
            self._handler.on_layer_lost()

    # -- what the interface says --------------------------------------------------------------------------------------

    def offer(self, offer: Offer) -> None:
        """As ``AsyncChannelLayer.offer``; so are the others."""
        self._tell_offer(offer, entries.SOCKET if offer.reply_channel in self._sockets else 0)

    def withdraw(self, offer_id: int) -> None:
        """The client of an offer has left."""
        channel = self._channels.get(offer_id)
        if channel is None:
            return
        if self._outbox.withdraw(offer_id):
            del self._channels[offer_id]
            asyncio.get_running_loop().call_soon(self._handler.on_failed, offer_id, "withdrawn")
        else:
            self._tell((b"W", offer_id, channel))

    def settle(self, offer_id: int) -> None:
        """The response to an offer has begun."""
        if offer_id in self._channels:
            self._tell((b"Z", offer_id))

    def socket_opened(self, socket: OpenSocket) -> None:
        """A socket was accepted."""
        self._sockets.add(socket.reply_channel)
        self._tell(self._opened(socket))

    def socket_closed(self, reply_channel: str, disconnect: Offer | None) -> None:
        """A socket has ended."""
        self._sockets.discard(reply_channel)
        self._tell((b"C", reply_channel))
        for group in self._inbox.forget(reply_channel):
            self._tell((b"D", group, reply_channel))
        if disconnect is not None:
            self._disconnects[disconnect.id] = disconnect
            self._tell_offer(disconnect, entries.CLOSED)

    def group_gone(self, group: str, channel: str) -> None:
        """A member is not held here."""
        self._inbox.discard(group, channel)
        self._tell((b"D", group, channel))

    def written(self, token: int, delivered: bool) -> None:
        """A part was written, or its client is gone."""
        self._inbox.written(token, delivered)

    def _opened(self, socket: OpenSocket) -> tuple[Any, ...]:
        return opened(socket, self._seal.close_session(socket.session), entries.MAX_SESSION_BYTES)

    def _tell_offer(self, offer: Offer, flags: int) -> None:
        self._channels[offer.id] = offer.channel
        self._tell(entries.offer_fields(offer, self._seal.close_session(offer.session), self.limits, flags))

    def _tell(self, operation: tuple[Any, ...]) -> None:
        self._outbox.add(operation)
        self._want_flush()

    def _want_flush(self) -> None:
        if not self._is_flush_due and self.link is not None:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self.link is None or self._is_full:
            return
        arguments = self._outbox.next_arguments()
        if arguments is not None:
            self.write(Command("batch", (self.name, *self.numbered(*arguments)), self._batch_answered))

    def _batch_answered(self, answer: Any) -> None:
        if isinstance(answer, OutOfMemory):
            self._refused_for_memory()
            return
        self._outbox.done()
        if answer == -1 or isinstance(answer, Exception):
            if self.broken is not None and not self.broken.done():
                reason = "this interface is not known any more" if answer == -1 else str(answer)
                self.broken.set_exception(LinkBroken(reason))
        elif self._outbox.has_more():
            self._flush()

    def _refused_for_memory(self) -> None:
        """Requests are refused, like by a full channel; what belongs to sockets is kept and tried again."""
        refused = [each[1] for each in self._outbox.under_way() if each[0] == b"O" and each[6] & entries.BOUNDED]
        self._outbox.again(without=refused)
        self._is_full = True
        logger.error("Redis is out of memory (maxmemory): requests are refused, frames of sockets wait")
        asyncio.get_running_loop().call_later(_FULL_PAUSE, self._try_again)
        for number in refused:
            self._handler.on_failed(number, "full")

    def _try_again(self) -> None:
        self._is_full = False
        self._want_flush()

    def _notices_read(self, cursor: bytes, numbers: Sequence[int]) -> None:
        self._outbox.read(cursor, numbers)
        for number in numbers:
            self._channels.pop(number, None)
