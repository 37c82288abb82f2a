"""The switchboard between the channel layer and the clients of this process.

Knows each client by its reply channel, each unfinished offer by its id, and who is in which group. Everything that the
layer says arrives here and is passed to one client (or to the members of a group). Decides nothing about a client.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from typing import Any, Protocol

from procman.clock import Clock, SystemClock
from procman.interface.counters import Counters
from procman.interface.errors import InvalidReply
from procman.interface.groups import Groups
from procman.interface.messages import SocketReply, parse_socket_reply
from procman.layers.base import AsyncChannelLayer, Offer, OpenSocket, Snapshot
from procman.layers.errors import LayerError
from procman.log import escape

logger = logging.getLogger("procman.interface")


class Client(Protocol):
    """An HTTP exchange or a WebSocket, as the switchboard sees it."""

    reply_channel: str
    path: str

    def on_reply(self, message: dict[str, Any], token: int | None) -> None:
        """A message for this client."""

    def on_group(self, group: str, message: dict[str, Any], reply: SocketReply | None) -> None:
        """A message for a group that this client is in; *reply* is its prebuilt form for sockets, if it has one."""

    def on_finished(self, session: bytes | None) -> None:
        """The consumer of this client's offer has ended."""

    def on_failed(self, reason: str) -> None:
        """This client's offer will not be worked on."""

    def on_begun(self) -> None:
        """A worker is about to get this client's offer."""

    def on_declared_dead(self) -> None:
        """The layer has given this client up."""

    def on_stop(self) -> None:
        """The time to finish is over."""

    def tick(self, now: float) -> None:
        """Look at the deadlines."""

    def open_socket(self) -> OpenSocket | None:
        """What the layer mirrors of this client; None if it owes it no disconnect."""


class Replies:
    """Implements ``InterfaceHandler`` for all clients of this process, and counts what passes."""

    def __init__(self, layer: AsyncChannelLayer, clock: Clock | None = None) -> None:
        self.layer = layer
        self.counters = Counters()
        self._now = (clock or SystemClock()).monotonic
        self.clients: dict[str, Client] = {}
        self.offers: dict[int, tuple[Offer, Client, float]] = {}  # with the time of the offer
        self.groups: Groups[Client] = Groups()
        self.socket_count = 0
        self.is_layer_lost = False
        self.next_loss = asyncio.Event()  # of the layer; each has its own
        self.farewells: set[asyncio.Task[None]] = set()  # last words to workers; no request waits for them
        self.is_stopping = False
        self._offer_ids = itertools.count(1)
        self._client_ids = itertools.count(1)
        # A name may be used again by this interface's successor; replies meant for its clients must not reach ours.
        self._name, self._run = layer.serve(self), secrets.token_hex(3)

    # -- for the clients ---------------------------------------------------------------------------------------------

    def new_name(self, mark: str = "") -> str:
        """A reply channel that was never used before; *mark* tells what kind of client it is."""
        return f"{self._name}!{mark}{self._run}{next(self._client_ids):x}"

    def offer(
        self,
        client: Client,
        channel: str,
        message: dict[str, Any],
        *,
        redeliverable: bool = True,
        bounded: bool = False,
        session: bytes | None = None,
    ) -> int:
        """Offer *message* to the workers on behalf of *client*; its id.

        Raises:
            MessageTooLarge, TypeError: the message cannot travel. Nothing was offered.
        """
        made = self._make(client, channel, message, redeliverable, bounded, session)
        self.layer.offer(made)
        return made.id

    def withdraw(self, offer_id: int) -> None:
        """Nobody waits for this offer any more."""
        if self.offers.pop(offer_id, None) is not None:
            self.layer.withdraw(offer_id)

    def retract(self, offer_id: int) -> None:
        """The client of this offer has left: its end is still told, ``"withdrawn"`` if no worker has begun with it."""
        if offer_id in self.offers:
            self.layer.withdraw(offer_id)

    def settle(self, offer_id: int) -> None:
        """The response to this offer has begun: no second worker may give one."""
        found = self.offers.get(offer_id)
        if found is not None:
            found[0].begun, found[0].redeliverable = True, False
            self.layer.settle(offer_id)

    def end(self, client: Client, disconnect: dict[str, Any] | None, session: bytes | None = None) -> None:
        """*client* was a socket and is over: nothing reaches it from here on, *disconnect* is its last frame."""
        self.forget(client)
        made = None
        if disconnect is not None:
            made = self._make(client, "websocket.disconnect", disconnect, True, False, session)
        self.layer.socket_closed(client.reply_channel, made)

    def forget(self, client: Client) -> None:
        """Nothing reaches *client* any more."""
        self.clients.pop(client.reply_channel, None)
        self.groups.forget(client.reply_channel)

    def answer(self, channel: str, message: dict[str, Any]) -> None:
        """Send *message* to a worker that waits for it; it asks again, or gives up, if it does not come."""
        task = asyncio.get_running_loop().create_task(self._answer(channel, message))
        self.farewells.add(task)
        task.add_done_callback(self.farewells.discard)

    async def _answer(self, channel: str, message: dict[str, Any]) -> None:
        try:
            await self.layer.send(channel, message)
        except (LayerError, TypeError) as error:
            logger.error("an answer to %s was not sent: %s", escape(channel), error)

    def tick(self, now: float) -> None:
        """Let every client look at its deadlines."""
        for client in list(self.clients.values()):
            client.tick(now)

    def _make(
        self,
        client: Client,
        channel: str,
        message: dict[str, Any],
        redeliverable: bool,
        bounded: bool,
        session: bytes | None,
    ) -> Offer:
        body = self.layer.encode(message)
        made = Offer(next(self._offer_ids), channel, body, client.reply_channel, redeliverable, bounded, session)
        self.offers[made.id] = (made, client, self._now())
        return made

    # -- InterfaceHandler --------------------------------------------------------------------------------------------

    def on_reply(self, channel: str, message: dict[str, Any], token: int | None) -> None:
        """Pass a message on; for a client that has left, a waiting sender is told so."""
        client = self.clients.get(channel)
        if client is not None:
            client.on_reply(message, token)
            return
        logger.debug("reply to %s dropped: its client has left", escape(channel))
        if token is not None:
            self.layer.written(token, False)

    def is_unfinished(self, offer_id: int) -> bool:
        """Whether the offer is still waited for."""
        return offer_id in self.offers

    def on_finished(self, offer_id: int, session: bytes | None) -> None:
        """The consumer of an offer has ended."""
        found = self.offers.pop(offer_id, None)
        if found is not None:
            offer, client, since = found
            self.counters.finished(offer.channel, self._now() - since)
            client.on_finished(session)

    def on_failed(self, offer_id: int, reason: str) -> None:
        """An offer will not be worked on."""
        found = self.offers.pop(offer_id, None)
        if found is not None:
            if reason != "withdrawn":
                self.counters.failed(reason)
            found[1].on_failed(reason)

    def on_begun(self, offer_id: int) -> None:
        """A worker is about to get an offer that cannot be given twice, or has died with one that can."""
        found = self.offers.get(offer_id)
        if found is not None:
            found[0].begun = True
            found[1].on_begun()

    def on_group_add(self, group: str, channel: str) -> None:
        """A client joins a group; one that is not here is reported back."""
        client = self.clients.get(channel)
        if client is None:
            self.layer.group_gone(group, channel)
        else:
            self.groups.add(group, channel, client)

    def on_group_discard(self, group: str, channel: str) -> None:
        """A client leaves a group."""
        self.groups.discard(group, channel)

    def on_group_send(self, group: str, message: dict[str, Any]) -> None:
        """Fan out: the frame is built once, then written to each member."""
        members = self.groups.members(group)
        self.counters.group_sends += 1
        if not members:
            return
        self.counters.group_deliveries += len(members)
        try:
            reply: SocketReply | None = parse_socket_reply(message)
        except InvalidReply as error:
            reply = None
            if "status" not in message:  # a response, for the HTTP clients among them
                logger.error("message to the %d clients of group %s dropped: %s", len(members), escape(group), error)
        for member in members:
            member.on_group(group, message, reply)

    def on_flush(self) -> None:
        """Forget all memberships."""
        self.groups.clear()

    def on_declared_dead(self) -> None:
        """The layer took this process for dead and ran its disconnects: its clients end."""
        clients = list(self.clients.values())
        logger.warning("the channel layer had taken this interface for dead; closing its %d clients", len(clients))
        self.offers.clear()
        self.groups.clear()
        for client in clients:
            client.on_declared_dead()

    def on_layer_lost(self) -> None:
        """Sockets stay open; what they send waits here."""
        self.is_layer_lost = True
        self.next_loss.set()
        self.next_loss = asyncio.Event()
        logger.warning("channel layer lost; %d clients stay connected and wait for it", len(self.clients))

    def on_layer_found(self) -> Snapshot:
        """Report everything that is held."""
        if self.is_layer_lost:
            self.is_layer_lost = False
            logger.info("channel layer found; reporting %d clients, %d offers", len(self.clients), len(self.offers))
        sockets = [socket for client in self.clients.values() if (socket := client.open_socket()) is not None]
        return Snapshot(sockets, list(self.groups.memberships()), [offer for offer, *_ in self.offers.values()])
