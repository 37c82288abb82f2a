"""The channel layer contract, for synchronous and for asyncio callers.

Three kinds of callers use a layer:

- *everybody* (views, consumers, a shell, cron): ``send``, ``receive_many``, groups, statistics. A message
  that ``receive_many`` returned is finished;
- *workers*: ``take`` a delivery, run its consumer, ``finish`` it together with what the consumer sent.
  Between the two the message is in flight, and if the worker dies it goes to another one, once;
- the *interface server* (asyncio only): owns the reply channels below its name, offers one frame per socket at
  a time and hears what became of it.

Nothing here does I/O. ``memory``, ``ipc`` and ``redis`` implement the contract; ``tests/layers/conformance.py``
checks them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from procman.layers.errors import ChannelFull, MessageTooLarge

Message = Mapping[str, Any]


class Send(NamedTuple):
    """One send held back until its consumer ended."""

    name: str
    message: Message
    is_group: bool = False


@dataclass(slots=True)
class Delivery:
    """A message in the hands of a worker, in flight until ``finish`` or ``defer``.

    ``id`` is unique per message and the same on redelivery, so that consumers can deduplicate. ``session`` is the
    serialised channel session that the interface keeps beside the socket (None: the message belongs to no socket).
    ``token`` is the layer's own.
    """

    channel: str
    message: dict[str, Any]
    id: str
    redelivered: bool = False
    session: bytes | None = None
    token: Any = None


class ChannelLayer:
    """The synchronous contract. Safe to share between threads and to carry over a fork.

    ``expiry`` and ``group_expiry`` are seconds, ``capacity`` counts waiting messages per channel and
    ``channel_capacity`` maps name globs (or compiled patterns) to other capacities; the first match wins.
    """

    extensions: ClassVar[Sequence[str]] = ("groups", "flush", "statistics")
    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge

    def send(self, channel: str, message: Message) -> None:
        """Queue *message*, serialised at once; never blocks on a full channel.

        Raises:
            ChannelFull, MessageTooLarge, LayerUnavailable; TypeError for a bad name or an unserialisable value.
        """
        raise NotImplementedError

    def send_and_wait(self, channel: str, message: Message, timeout: float | None = None) -> None:
        """Send a part of a streamed response and return once the interface has written it to the client.

        This is the back-pressure of streams: the caller stands still while the client reads slowly. On a layer or
        channel without an interface behind it this is ``send``.

        Raises:
            ReplyChannelGone: the client left. LayerUnavailable: nothing was heard for *timeout* seconds.
        """
        self.send(channel, message)

    def receive_many(
        self, channels: Sequence[str], block: bool = False, timeout: float | None = None
    ) -> tuple[str | None, dict[str, Any] | None]:
        """Next message of any of *channels* as ``(channel, message)``, or ``(None, None)``.

        With *block* the call sleeps in the kernel until there is one, at most *timeout* seconds (None: for ever).
        A name that ends in ``!`` receives for all channels below it. The choice among channels is random.
        """
        raise NotImplementedError

    def receive(
        self, channels: Sequence[str], block: bool = False, timeout: float | None = None
    ) -> tuple[str | None, dict[str, Any] | None]:
        """The 1.x name of ``receive_many``."""
        return self.receive_many(channels, block=block, timeout=timeout)

    def new_channel(self, pattern: str) -> str:
        """A name never used before, made from *pattern*, which ends in ``?`` or ``!``."""
        raise NotImplementedError

    def group_add(self, group: str, channel: str) -> None:
        """Add *channel* to *group*; every send after the return, by any process, reaches it."""
        raise NotImplementedError

    def group_discard(self, group: str, channel: str) -> None:
        """Remove *channel* from *group*; not a member is fine."""
        raise NotImplementedError

    def send_group(self, group: str, message: Message) -> None:
        """Send *message* to every member. Full members are counted, logged and skipped; never ChannelFull."""
        raise NotImplementedError

    def group_channels(self, group: str) -> list[str]:
        """Names of the members of *group*, in no order."""
        raise NotImplementedError

    def group_count(self, group: str) -> int:
        """How many members *group* has; costs no more for many than for few, as long as they are sockets."""
        return len(self.group_channels(group))

    def flush(self) -> None:
        """Drop all messages, memberships and in-flight records."""
        raise NotImplementedError

    def statistics(self) -> dict[str, Any]:
        """``messages_count``, ``messages_count_per_second``, ``messages_pending``, ``messages_max_age`` (seconds),
        ``channel_full_count``, ``channel_full_count_per_second``, and the layer's own counters. ``channels_pending``
        is the number of messages per channel, of the 100 channels with most.
        """
        raise NotImplementedError

    def channel_statistics(self, channel: str) -> dict[str, Any]:
        """The same for one channel."""
        raise NotImplementedError

    def close(self) -> None:
        """Give up connections; the next call opens them again."""

    # -- workers ---------------------------------------------------------------------------------------------------

    def take(self, channels: Sequence[str], timeout: float | None = None) -> Delivery | None:
        """Next delivery of any of *channels* for this worker thread, None after *timeout* seconds.

        One delivery per thread at a time: finish or defer it before the next ``take``. ``wake`` ends it early.
        """
        raise NotImplementedError

    def finish(self, delivery: Delivery, sends: Sequence[Send] = (), session: bytes | None = None) -> None:
        """End *delivery*, apply *sends* in order and store *session* (None: unchanged) beside its socket, all or none.

        A full channel among *sends* is retried for 2 s; then the rest is applied, with an ERROR for each that was not.
        """
        raise NotImplementedError

    def defer(self, delivery: Delivery, message: Message) -> None:
        """Give *delivery* back to run again later as *message* (``ConsumeLater``); it goes behind the others."""
        raise NotImplementedError

    def excuse(self) -> None:
        """This process is about to end on purpose: what it has in flight then is redelivered, and not counted as tried.

        What it had finished before the call has its end. Raises LayerUnavailable.
        """

    def stop_taking(self) -> None:
        """This thread takes no more: what the layer has fetched for it ahead of time goes to other workers."""

    def wake(self) -> None:
        """End the ``take`` calls of all threads; callable from a signal handler."""


@dataclass(slots=True)
class Offer:
    """One frame or request that an interface offers to the workers and holds until it hears of its end.

    ``id`` counts up per interface. ``reply_channel`` is below the interface's name. ``redeliverable`` is False for
    unsafe HTTP methods and requests with a ``body_channel``. ``bounded`` says that capacity and expiry apply (HTTP).
    ``session`` goes to the worker with the frame. ``body`` is the encoded message.
    """

    id: int
    channel: str
    body: bytes
    reply_channel: str
    redeliverable: bool = True
    bounded: bool = False
    session: bytes | None = None
    begun: bool = False


@dataclass(slots=True)
class OpenSocket:
    """What the layer mirrors of an accepted socket, so that its disconnect runs even if the interface dies."""

    reply_channel: str
    path: str
    order: int
    session: bytes | None = None


@dataclass(slots=True)
class Snapshot:
    """Everything an interface holds: reported to a layer that has restarted."""

    sockets: list[OpenSocket] = field(default_factory=list)
    memberships: list[tuple[str, str]] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)


class InterfaceHandler(Protocol):
    """What an interface server hears from its layer. Called on the event loop, never concurrently; must not block."""

    def on_reply(self, channel: str, message: dict[str, Any], token: int | None) -> None:
        """A message for the client behind *channel*. With a *token* the sender waits for ``written(token, ...)``."""

    def is_unfinished(self, offer_id: int) -> bool:
        """Whether an offer still waits for its end. Asked before the replies of a finish are handed over.

        False drops a second finish together with its replies, so that a redelivered frame is answered once.
        """

    def on_finished(self, offer_id: int, session: bytes | None) -> None:
        """The consumer of an offer has ended; *session* None: unchanged.

        The consumer's replies and group sends came before this, through ``on_reply`` and ``on_group_send`` in order.
        """

    def on_failed(self, offer_id: int, reason: str) -> None:
        """An offer will not be worked on: ``"full"``, ``"expired"``, ``"lost"`` (its workers died), ``"withdrawn"``."""

    def on_begun(self, offer_id: int) -> None:
        """Report this offer as begun from now on.

        A worker is about to get it, and it is not redeliverable; or the first worker that had it has died.
        """

    def on_group_add(self, group: str, channel: str) -> None:
        """*channel* is a member of *group* from here on. For an unknown channel call ``group_gone``."""

    def on_group_discard(self, group: str, channel: str) -> None:
        """*channel* is no member of *group* any more."""

    def on_group_send(self, group: str, message: dict[str, Any]) -> None:
        """Deliver *message* to every local member of *group*."""

    def on_flush(self) -> None:
        """Forget all memberships."""

    def on_declared_dead(self) -> None:
        """The layer has already run the disconnects of all sockets of this interface: close them with 1012."""

    def on_layer_lost(self) -> None:
        """The layer went away. The client reconnects by itself; what is offered meanwhile is kept and sent later."""

    def on_layer_found(self) -> Snapshot:
        """The layer is there (first time, or again): report everything that is held."""


class AsyncChannelLayer:
    """The asyncio contract: the same operations as coroutines, and the interface's side.

    Bound to the event loop that runs ``connect``.
    """

    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge

    async def connect(self, timeout: float | None = None) -> None:
        """Open the layer. Raises LayerUnavailable after *timeout* seconds."""
        raise NotImplementedError

    async def close(self) -> None:
        """Say goodbye and close: the layer treats what was served as ended by its interface."""
        raise NotImplementedError

    async def send(self, channel: str, message: Message) -> None:
        """As ``ChannelLayer.send``."""
        raise NotImplementedError

    async def send_when_room(self, channel: str, message: Message) -> None:
        """Send, waiting for room while *channel* is full (request body chunks).

        Raises:
            LayerUnavailable: the connection was lost before it was taken; it may or may not have been queued.
        """
        raise NotImplementedError

    async def receive_many(
        self, channels: Sequence[str], block: bool = False, timeout: float | None = None
    ) -> tuple[str | None, dict[str, Any] | None]:
        """As ``ChannelLayer.receive_many``."""
        raise NotImplementedError

    async def new_channel(self, pattern: str) -> str:
        """As ``ChannelLayer.new_channel``."""
        raise NotImplementedError

    async def group_add(self, group: str, channel: str) -> None:
        """As ``ChannelLayer.group_add``."""
        raise NotImplementedError

    async def group_discard(self, group: str, channel: str) -> None:
        """As ``ChannelLayer.group_discard``."""
        raise NotImplementedError

    async def send_group(self, group: str, message: Message) -> None:
        """As ``ChannelLayer.send_group``."""
        raise NotImplementedError

    async def group_channels(self, group: str) -> list[str]:
        """As ``ChannelLayer.group_channels``."""
        raise NotImplementedError

    async def group_count(self, group: str) -> int:
        """As ``ChannelLayer.group_count``."""
        raise NotImplementedError

    async def flush(self) -> None:
        """As ``ChannelLayer.flush``."""
        raise NotImplementedError

    async def statistics(self) -> dict[str, Any]:
        """As ``ChannelLayer.statistics``."""
        raise NotImplementedError

    # -- the interface's side; none of these waits ------------------------------------------------------------------

    def serve(self, handler: InterfaceHandler) -> str:
        """Become an interface: returns its name; reply channels are ``name!anything``. Call before ``connect``."""
        raise NotImplementedError

    def encode(self, message: Message) -> bytes:
        """The body of an ``Offer``. Raises MessageTooLarge, TypeError."""
        raise NotImplementedError

    def offer(self, offer: Offer) -> None:
        """Offer a frame; ``on_finished`` or ``on_failed`` tells its end, whatever the layer goes through meanwhile."""
        raise NotImplementedError

    def withdraw(self, offer_id: int) -> None:
        """The client of an offer has left: drop it if no worker has it. ``on_failed`` says ``"withdrawn"`` then."""
        raise NotImplementedError

    def settle(self, offer_id: int) -> None:
        """The response to an offer has begun: no further worker gets it. If its worker dies, ``on_failed`` tells."""
        raise NotImplementedError

    def socket_opened(self, socket: OpenSocket) -> None:
        """A socket was accepted: its disconnect is owed from here on."""
        raise NotImplementedError

    def socket_closed(self, reply_channel: str, disconnect: Offer | None) -> None:
        """A socket has ended: forget its record and memberships and queue *disconnect* (None: it was never accepted).

        One step in the layer: if the disconnect is already queued or done (the interface had been declared dead),
        nothing happens.
        """
        raise NotImplementedError

    def group_gone(self, group: str, channel: str) -> None:
        """An ``on_group_add`` named a channel that is not held here."""
        raise NotImplementedError

    def written(self, token: int, delivered: bool) -> None:
        """Answer a reply that came with *token*: written to the client (True), or the client is gone (False)."""
        raise NotImplementedError
