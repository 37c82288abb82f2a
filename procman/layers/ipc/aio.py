"""The asyncio client: the interface's side, and the common operations as coroutines.

Frames of one loop turn leave in one write; callbacks of the handler are called while a read is processed, in the order
of the wire. When the hub goes away the client connects again by itself; what the interface holds is reported then, so
nothing that is offered meanwhile is lost. Requests (``send`` and the like) wait for the hub at most
``connect_timeout`` seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from procman.errors import ConfigurationError
from procman.layers import codec, names
from procman.layers.base import AsyncChannelLayer, InterfaceHandler, Message, Offer, OpenSocket
from procman.layers.errors import LayerUnavailable, ProtocolMismatch
from procman.layers.ipc import address as addresses
from procman.layers.ipc import frames
from procman.layers.ipc.aio_connection import HubConnection
from procman.layers.limits import CAPACITY, EXPIRY, GROUP_EXPIRY, MAX_MESSAGE_SIZE, Limits, check_positive
from procman.layers.parts import Parts
from procman.settings import ENV_NAME

CONNECT_TIMEOUT = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.3
_MISMATCH_PAUSE = 1.0
logger = logging.getLogger("procman.layers")
_random = random.Random()
_WELCOME_TIMEOUT = 10.0
_MEMBERS_PER_FRAME = 1000


class Wire(Protocol):
    """A connection to a hub, as far as the client below uses it."""

    def write(self, frame: tuple[Any, ...]) -> None:
        """Have the hub get *frame*, in order."""

    def flush(self) -> None:
        """Do not keep what is written for later."""

    def close(self) -> None:
        """End the connection."""


class AsyncIPCLayer(names.NameRules, AsyncChannelLayer):
    """A connection to the hub on one event loop. Arguments as for ``IPCChannelLayer``."""

    def __init__(
        self,
        address: str | None = None,
        expiry: float = EXPIRY,
        group_expiry: float = GROUP_EXPIRY,
        capacity: int = CAPACITY,
        channel_capacity: Mapping[Any, int] | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
        prefix: str = "",
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        del prefix
        self.limits = Limits(expiry, group_expiry, capacity, channel_capacity, max_message_size)
        self.expiry, self.group_expiry, self.capacity = expiry, group_expiry, capacity
        self.connect_timeout = check_positive("connect_timeout", connect_timeout)
        self.address = address if address is not None else addresses.default_address()
        self.name: str | None = None
        self._handler: InterfaceHandler | None = None
        self._protocol: Wire | None = None  # welcomed, and reported to
        self._task: asyncio.Task[None] | None = None
        self._found: asyncio.Event | None = None
        self._failure: Exception | None = None
        self._requests: dict[int, asyncio.Future[Any]] = {}
        self._disconnects: dict[int, Offer] = {}  # of sockets that have closed, until they are finished
        self._parts = Parts()
        self._rid = 0
        self._hub_id: str | None = None
        self._is_closing = False

    def get_capacity(self, channel: str) -> int:
        """How many messages may wait on *channel*."""
        return self.limits.capacity_of(channel)

    # -- the connection -----------------------------------------------------------------------------------------------

    async def connect(self, timeout: float | None = None) -> None:
        if self._task is None:
            self._is_closing = False
            self._failure = None
            self._found = asyncio.Event()
            self._task = asyncio.get_running_loop().create_task(self._keep_connected())
        await self._wait_connected(timeout)

    async def close(self) -> None:
        self._is_closing = True
        protocol, task = self._protocol, self._task
        if protocol is not None:
            if self._handler is not None:
                protocol.write((frames.GOODBYE,))
            protocol.flush()
            protocol.close()
        if task is not None:
            if protocol is None:
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._task = self._protocol = None
        self._fail_requests()

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        is_mismatch = False
        limit = frames.limit_bytes(4 * self.limits.max_message_size)
        while not self._is_closing:
            protocol = HubConnection(self.address, limit, self._welcomed, self._arrived)
            try:
                path = addresses.parse(self.address).path
                await loop.create_unix_connection(lambda made=protocol: made, path)  # type: ignore[misc]
                role = frames.CLIENT if self._handler is None else frames.INTERFACE
                protocol.write(frames.build_hello(role, self.limits, self.name, self._hub_id))
                async with asyncio.timeout(_WELCOME_TIMEOUT):
                    await asyncio.shield(protocol.welcomed)
                pause, is_mismatch = _FIRST_PAUSE, False
                await protocol.lost
            except (OSError, TimeoutError):
                protocol.close()
            except (ProtocolMismatch, ConfigurationError) as error:
                protocol.close()
                if self._hub_id is None:  # at the first attempt: ``connect`` raises it
                    self._failure = error
                    assert self._found is not None
                    self._found.set()
                    return
                # A hub of another version has taken the place of the one that was served: what is open stays open
                # until somebody restarts one of them.
                if not is_mismatch:
                    logger.error("%s", error)
                is_mismatch, pause = True, _MISMATCH_PAUSE
            except asyncio.CancelledError:
                protocol.close()
                raise
            finally:
                self._lost(protocol)
            if not self._is_closing:
                await asyncio.sleep(pause * (0.5 + _random.random() / 2))
                pause = max(pause, min(_LONGEST_PAUSE, pause * 2))

    def _welcomed(self, protocol: Wire, hub_id: str, was_dead: bool) -> None:
        """The hub is there: report what is held, then let requests pass."""
        self._hub_id = hub_id
        self._protocol = protocol
        if self._handler is not None:
            if was_dead:
                self._handler.on_declared_dead()
            self._report(protocol, self._handler)
        assert self._found is not None
        self._found.set()

    def _report(self, protocol: Wire, handler: InterfaceHandler) -> None:
        snapshot = handler.on_layer_found()
        for socket in snapshot.sockets:
            protocol.write((frames.OPENED, socket.reply_channel, socket.path, socket.order, socket.session))
        groups: dict[str, list[str]] = {}
        for group, channel in snapshot.memberships:
            groups.setdefault(group, []).append(channel)
        for group, channels in groups.items():
            for start in range(0, len(channels), _MEMBERS_PER_FRAME):
                protocol.write((frames.MEMBERS, group, channels[start : start + _MEMBERS_PER_FRAME]))
        offers = {offer.id: offer for offer in snapshot.offers}
        for offer in {**self._disconnects, **offers}.values():
            protocol.write((frames.OFFER, *frames.offer_fields(offer, is_again=True)))
        protocol.write((frames.REPORTED,))

    def _lost(self, protocol: Wire) -> None:
        if self._protocol is protocol:
            self._protocol = None
            if self._found is not None:
                self._found.clear()
            self._fail_requests()
            self._parts.hub_lost()
            if self._handler is not None and not self._is_closing:
                self._handler.on_layer_lost()

    def _fail_requests(self) -> None:
        requests, self._requests = self._requests, {}
        for future in requests.values():
            if not future.done():
                future.set_exception(_Lost())

    async def _wait_connected(self, timeout: float | None) -> Wire:
        if self._protocol is None:
            if self._found is None or self._task is None:
                raise LayerUnavailable("the layer is not connected: call connect() first")
            try:
                async with asyncio.timeout(timeout):
                    await self._found.wait()
            except TimeoutError:
                raise LayerUnavailable(
                    f"no channel layer answers at {self.address}: is `channels-run` (or `channels-run layer`) running "
                    "for this project, with the same settings and as the same user?"
                ) from None
            if self._failure is not None:
                raise self._failure
            if self._protocol is None:
                raise LayerUnavailable(f"the channel layer at {self.address} went away")
        return self._protocol

    # -- requests -----------------------------------------------------------------------------------------------------

    async def _request(
        self, operation: int, *arguments: Any, is_repeatable: bool = True, is_endless: bool = False
    ) -> Any:
        for attempt in itertools.count(1):
            protocol = self._protocol or await self._wait_connected(self.connect_timeout)
            self._rid += 1
            rid = self._rid
            future = self._requests[rid] = asyncio.get_running_loop().create_future()
            protocol.write((operation, rid, *arguments))
            try:
                # Shielded, a receive that is cancelled still hears its answer: there may be a message in it.
                return await (asyncio.shield(future) if operation == frames.RECEIVE else future)
            except _Lost:
                if self._is_closing or not is_repeatable or (attempt >= 3 and not is_endless):
                    break
            except asyncio.CancelledError:
                if operation in (frames.RECEIVE, frames.SEND_WHEN_ROOM) and self._protocol is protocol:
                    protocol.write((frames.CANCEL, rid))
                if operation == frames.RECEIVE:
                    future.add_done_callback(self._give_back)
                raise
            finally:
                if future.done() or operation != frames.RECEIVE:
                    self._requests.pop(rid, None)
        raise LayerUnavailable(f"the channel layer at {self.address} went away before it answered")

    def _give_back(self, future: asyncio.Future[Any]) -> None:
        """Nobody waited any more for this answer to a receive; if there is a message in it, somebody else gets it."""
        if not future.cancelled() and future.exception() is None and future.result() is not None:
            self._tell(frames.RETURN, *future.result())

    async def send(self, channel: str, message: Message) -> None:
        names.check_channel(channel)
        await self._request(frames.SEND, channel, self.encode(message), frames.reply_channel_of(message))

    async def send_when_room(self, channel: str, message: Message) -> None:
        names.check_channel(channel)
        await self._request(frames.SEND_WHEN_ROOM, channel, self.encode(message), None, is_repeatable=False)

    async def receive_many(
        self, channels: Sequence[str], block: bool = False, timeout: float | None = None
    ) -> tuple[str | None, dict[str, Any] | None]:
        wanted = names.check_receive(channels)
        found = await self._request(frames.RECEIVE, wanted, block, timeout, is_endless=block)
        return (None, None) if found is None else (found[0], codec.decode(found[1]))

    async def new_channel(self, pattern: str) -> str:
        return names.build_channel(pattern)

    async def group_add(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        await self._request(frames.GROUP_ADD, group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        await self._request(frames.GROUP_DISCARD, group, channel)

    async def send_group(self, group: str, message: Message) -> None:
        names.check_group(group)
        await self._request(frames.GROUP_SEND, group, self.encode(message))

    async def group_channels(self, group: str) -> list[str]:
        names.check_group(group)
        channels: list[str] = codec.decode(await self._request(frames.GROUP_CHANNELS, group))["channels"]
        return channels

    async def group_count(self, group: str) -> int:
        names.check_group(group)
        count: int = await self._request(frames.GROUP_COUNT, group)
        return count

    async def flush(self) -> None:
        await self._request(frames.FLUSH)

    async def statistics(self) -> dict[str, Any]:
        return codec.decode(await self._request(frames.STATISTICS, None))

    # -- the interface's side -----------------------------------------------------------------------------------------

    def serve(self, handler: InterfaceHandler) -> str:
        if self._task is not None:
            raise ConfigurationError("serve() must be called before connect()")
        self._handler = handler
        # A restarted interface is another interface: the sockets of its predecessor are gone.
        self.name = f"{os.environ.get(ENV_NAME) or 'interface'}.{secrets.token_hex(4)}"
        return self.name

    def encode(self, message: Message) -> bytes:
        return codec.encode(message, self.limits.max_message_size)

    def offer(self, offer: Offer) -> None:
        self._tell(frames.OFFER, *frames.offer_fields(offer, is_again=False))

    def withdraw(self, offer_id: int) -> None:
        self._tell(frames.WITHDRAW, offer_id)

    def settle(self, offer_id: int) -> None:
        self._tell(frames.SETTLE, offer_id)

    def socket_opened(self, socket: OpenSocket) -> None:
        self._tell(frames.OPENED, socket.reply_channel, socket.path, socket.order, socket.session)

    def socket_closed(self, reply_channel: str, disconnect: Offer | None) -> None:
        if disconnect is not None:
            self._disconnects[disconnect.id] = disconnect
        fields = None if disconnect is None else frames.offer_fields(disconnect, is_again=False)
        self._tell(frames.CLOSED, reply_channel, fields)

    def group_gone(self, group: str, channel: str) -> None:
        self._tell(frames.GROUP_GONE, group, channel)

    def written(self, token: int, delivered: bool) -> None:
        at_hub = self._parts.written(token, delivered)
        if at_hub is not None:
            self._tell(frames.WRITTEN, at_hub, delivered)

    def _tell(self, *frame: Any) -> None:
        # Without a hub nothing is lost: the next one gets a report of everything that is held.
        if self._protocol is not None:
            self._protocol.write(frame)

    # -- what arrives -------------------------------------------------------------------------------------------------

    def _arrived(self, frame: Any) -> None:
        operation = frame[0]
        if operation in (frames.OK, frames.ERROR):
            future = self._requests.pop(frame[1], None)
            if future is not None and not future.done():
                if operation == frames.OK:
                    future.set_result(frame[2])
                else:
                    future.set_exception(frames.build_error(frame[2], frame[3]))
            return
        handler = self._handler
        if handler is None:
            return
        if operation == frames.FINISHED:
            self._finished(handler, *frame[1:])
        elif operation == frames.REPLY:
            handler.on_reply(frame[1], codec.decode(frame[2]), None)
        elif operation == frames.PART:
            self._part_arrived(handler, *frame[1:])
        elif operation == frames.HELD_SEND:
            handler.on_group_send(frame[1], codec.decode(frame[2]))
        elif operation == frames.FAILED:
            self._disconnects.pop(frame[1], None)
            handler.on_failed(frame[1], frame[2])
        elif operation == frames.BEGUN:
            if frame[1] in self._disconnects:
                self._disconnects[frame[1]].begun = True
            handler.on_begun(frame[1])
        elif operation == frames.HELD_ADD:
            handler.on_group_add(frame[1], frame[2])
        elif operation == frames.HELD_DISCARD:
            handler.on_group_discard(frame[1], frame[2])
        elif operation == frames.FLUSHED:
            handler.on_flush()

    def _part_arrived(self, handler: InterfaceHandler, channel: str, body: bytes, token: int, key: str) -> None:
        number = self._parts.arrived(key, token)
        if number is not None:
            handler.on_reply(channel, codec.decode(body), number)
            return
        is_delivered = self._parts.answer(key)
        if is_delivered is not None:  # the hub died before it could tell the sender
            self._tell(frames.WRITTEN, token, is_delivered)

    def _finished(self, handler: InterfaceHandler, number: int, session: bytes | None, sends: list[Any]) -> None:
        self._disconnects.pop(number, None)
        if not handler.is_unfinished(number):
            return
        for name, body, is_group in sends:
            if is_group:
                handler.on_group_send(name, codec.decode(body))
            else:
                handler.on_reply(name, codec.decode(body), None)
        handler.on_finished(number, session)


class _Lost(Exception):
    """The connection ended before the answer came."""
