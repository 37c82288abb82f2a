"""``Client``: sends messages and has their consumers run here and now, as a worker would.

As in a worker, what a consumer sends leaves when it has ended, the channel session stays with the client from message
to message and needs no database, and a message may come redelivered. Unlike there, what a consumer raises comes out,
so that the test sees it.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from typing import Any

from django.utils.crypto import get_random_string

from procman.channels import DEFAULT_CHANNEL_LAYER
from procman.channels.asgi import ChannelLayerWrapper, channel_layers
from procman.channels.channel import Group
from procman.channels.exceptions import ChannelSocketException
from procman.channels.message import Message, SessionSlot
from procman.channels.sessions import NEXT_ORDER, session_key_for_reply_channel
from procman.channels.signals import consumer_finished, consumer_started, databases_left_alone
from procman.channels.socketsession import SocketSession
from procman.layers.base import Delivery


class ClientSession(SocketSession):
    """The channel session of *client*. ``save`` stores at once."""

    def __init__(self, client: Client) -> None:
        super().__init__(session_key_for_reply_channel(client.reply_channel), b"")
        self._client = client

    def load(self) -> dict[str, Any]:
        """What is stored."""
        self._data = self._client.session_data
        return super().load()

    def save(self, must_create: bool = False) -> None:
        """Store what the session holds."""
        self.modified = True
        self._client.session_data = self.changed_data() or b""

    def delete(self, session_key: str | None = None) -> None:
        """Empty what is stored."""
        if session_key is None or session_key == self.session_key:
            self._client.session_data = b""


class Client:
    """Somebody who waits for answers on a reply channel of its own, on the layer *alias*.

    *reply_channel* is what the reply channel's name begins with (by default the alias).
    """

    # Who has the session of a reply channel: one client may consume what another one sent.
    _clients: weakref.WeakValueDictionary[str, Client] = weakref.WeakValueDictionary()

    def __init__(self, alias: str = DEFAULT_CHANNEL_LAYER, reply_channel: str | None = None) -> None:
        self.alias = alias
        self.reply_channel = (alias if reply_channel is None else reply_channel) + get_random_string(8)
        self.session_data = b""  # the channel session, as it lies beside a socket
        self._orders: set[int] = set()  # of the messages that were sent and not consumed yet
        self._is_reordered = False
        self._clients[self.reply_channel] = self

    @property
    def channel_layer(self) -> ChannelLayerWrapper:
        """The layer, as it is now."""
        return channel_layers[self.alias]

    # -- sending and receiving -----------------------------------------------------------------------------------------

    def send(self, to: str, content: Mapping[str, Any] | None = None) -> None:
        """Send *content* to the channel *to*, with this client's reply channel unless it has one."""
        message = copy.deepcopy(dict(content or {}))
        message.setdefault("reply_channel", self.reply_channel)
        self._send(to, message)

    def _send(self, to: str, message: dict[str, Any]) -> None:
        self.channel_layer.send(to, message)
        if isinstance(message.get("order"), int):
            self._orders.add(message["order"])

    def receive(self) -> Any:
        """The content of the next message on this client's reply channel; None without one."""
        name = self.reply_channel
        if "!" not in name:
            return self.channel_layer.receive_many([name])[1]
        # Names that share what stands before the mark are read together: give the others' messages back.
        prefix, found, others = name[: name.index("!") + 1], None, []
        while True:
            channel, content = self.channel_layer.receive_many([prefix])
            if channel is None:
                break
            if channel == name and found is None:
                found = content
            else:
                others.append((channel, content))
        for channel, content in others:
            self.channel_layer.send(channel, content)
        return found

    def get_next_message(self, channel: str) -> Message | None:
        """The next message on *channel*, taken away from its consumer; None without one."""
        name, content = self.channel_layer.receive_many([channel])
        return None if name is None or content is None else Message(content, name, self.channel_layer)

    def join_group(self, group_name: str) -> None:
        """Have this client receive what is sent to the group."""
        Group(group_name, alias=self.alias).add(self.reply_channel)

    # -- consuming -----------------------------------------------------------------------------------------------------

    def get_consumer_by_channel(self, channel: str) -> Any:
        """The consumer of a message on *channel* without anything to go by but an empty text; None without one."""
        match = self.channel_layer.router.match(Message({"text": ""}, channel, self.channel_layer))
        return match[0] if match else None

    def send_and_consume(
        self, channel: str, content: Mapping[str, Any] | None = None, fail_on_none: bool = True
    ) -> Any:
        """``send``, then ``consume``."""
        self.send(channel, content)
        return self.consume(channel, fail_on_none=fail_on_none)

    def consume(self, channel: str, fail_on_none: bool = True, redelivered: bool = False) -> Any:
        """Run the consumer of the next message on *channel*; returns what it returned (an instance for a class).

        A ``ChannelSocketException`` is acted upon as in a worker; anything else that is raised comes out, after what
        the consumer sent has left. With *redelivered* the message comes as one whose worker has died.

        Raises:
            AssertionError: no message, or no consumer for it, unless *fail_on_none* is False: then the result is None.
        """
        layer = self.channel_layer
        delivery = _take(layer, channel)
        if delivery is None:
            if fail_on_none:
                raise AssertionError(f"No message for channel {channel} on layer {layer}")
            return None
        message = Message(delivery.message, delivery.channel, layer)
        message.redelivered, message.id = redelivered or delivery.redelivered, delivery.id or None
        try:
            match = layer.router.match(message)
            if match is not None:
                return self._run(message, *match)
            if fail_on_none:
                raise AssertionError(f"Can't find consumer for message {message!r} with {message.content!r}")
            return None
        finally:
            if hasattr(layer, "take"):
                layer.finish(delivery)

    def _run(self, message: Message, consumer: Any, kwargs: dict[str, Any]) -> Any:
        owner = self._clients.get(message.reply_channel.name) if message.reply_channel else None
        if owner is not None:
            owner._lend_session(message)
        with databases_left_alone():
            consumer_started.send(sender=type(self), environ={})
            try:
                return consumer(message, **kwargs)
            except ChannelSocketException as error:
                error.run(message)
            finally:
                try:
                    if owner is not None:
                        owner._keep_session(message)
                finally:
                    consumer_finished.send(sender=type(self))
        return None

    def _lend_session(self, message: Message) -> None:
        slot = message.session_slot = SessionSlot(self.session_data)
        slot.session = ClientSession(self)
        order = message.content.get("order")
        if not isinstance(order, int):
            return
        # Interfaces hand out messages in order. Once a test does not, it is about messages from elsewhere, which
        # enforce_ordering puts in order by the session, beginning with the first one that was left out.
        if not self._is_reordered and min(self._orders, default=order) < order:
            self._is_reordered = True
            slot.session[NEXT_ORDER] = min(self._orders)
            slot.session.save()
        self._orders.discard(order)
        slot.is_ordered = not self._is_reordered

    def _keep_session(self, message: Message) -> None:
        slot = message.session_slot
        if slot is not None and slot.session is not None:
            data = slot.session.changed_data()
            if data is not None:
                self.session_data = data


def _take(layer: Any, channel: str) -> Delivery | None:
    if hasattr(layer, "take"):
        delivery: Delivery | None = layer.take([channel], 0)
        return delivery
    name, content = layer.receive_many([channel])  # a layer of 1.x
    return None if name is None else Delivery(name, content, "")
