"""``Channel`` and ``Group``: where application code sends to.

Within a consumer a send is held until the consumer has ended (``pending.py``) unless it is immediate; adding to and
discarding from a group act at once. Anywhere else (WSGI view, shell, cron) sends leave at once.

With ``on_commit`` a send becomes one when the database transaction commits, and never if that is rolled back. A plain
send knows nothing of transactions: in a consumer it is held until the end and then leaves although an ``atomic`` block
around it was rolled back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from procman.channels.pending import copy_content, pending_message_store
from procman.layers import names

if TYPE_CHECKING:
    from procman.channels.asgi import ChannelLayerWrapper

_DEFAULT = "default"


class _Named:
    """A name on a channel layer; the layer is looked up by its alias on first use unless it is given."""

    is_group = False

    def __init__(self, name: str | bytes, alias: str = _DEFAULT, channel_layer: Any = None) -> None:
        self.name: str = name.decode("ascii") if isinstance(name, bytes) else name
        self._alias = alias
        self._layer = channel_layer

    @property
    def channel_layer(self) -> ChannelLayerWrapper | Any:
        """The layer that the name lives on."""
        if self._layer is None:
            from procman.channels.asgi import channel_layers

            self._layer = channel_layers[self._alias]
        return self._layer

    def _send(self, content: dict[str, Any], immediately: bool, on_commit: bool, using: str | None) -> None:
        """Send *content* now, with the end of the running consumer, or with the commit of *using*'s transaction."""
        is_held = not immediately and pending_message_store.active
        if on_commit and immediately:
            raise ValueError("immediately and on_commit exclude each other: a send leaves now, or with the commit")
        if on_commit or is_held:
            self._check_name()  # here the traceback still names the line that sent
        if on_commit:
            copied = copy_content(content)
            when_committed(lambda: self._send_own(copied), using)
        elif is_held:
            pending_message_store.append(self, content)
        else:
            self._send_now(content)

    def _send_own(self, content: dict[str, Any]) -> None:
        """Send *content*, which nobody else has: a consumer that runs still sends it at its end."""
        if pending_message_store.active:
            pending_message_store.append(self, content, is_owned=True)
        else:
            self._send_now(content)

    def _check_name(self) -> None:
        raise NotImplementedError

    def _send_now(self, content: dict[str, Any]) -> None:
        raise NotImplementedError

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Channel(_Named):
    """A channel to send to.

    *name* may be ASCII bytes; *channel_layer* goes before *alias*.
    """

    def send(
        self, content: dict[str, Any], immediately: bool = False, on_commit: bool = False, using: str | None = None
    ) -> None:
        """Send the dict *content*: when the running consumer has ended, or at once.

        With *on_commit* that is when the transaction of the database *using* (the default one) commits; without a
        transaction it is a plain send. *content* is what it was at the call.

        Raises:
            TypeError: *content* is no dict, or the name is not valid.
            ValueError: both *immediately* and *on_commit*.
            ChannelFull, MessageTooLarge, LayerUnavailable: sent at once, and refused. With *on_commit* this comes out
                of the ``atomic`` block, whose transaction is committed all the same.
        """
        if not isinstance(content, dict):
            raise TypeError(f"you can only send dicts as content on channels, not {type(content).__name__}")
        self._send(content, immediately, on_commit, using)

    def _check_name(self) -> None:
        names.check_channel(self.name)

    def _send_now(self, content: dict[str, Any]) -> None:
        self.channel_layer.send(self.name, content)


class Group(_Named):
    """A set of channels to send to together."""

    is_group = True

    def add(self, channel: Channel | str) -> None:
        """Add *channel* now; sends that are held back reach it too."""
        self.channel_layer.group_add(self.name, channel.name if isinstance(channel, Channel) else channel)

    def discard(self, channel: Channel | str) -> None:
        """Remove *channel* now; sends that are held back do not reach it any more."""
        self.channel_layer.group_discard(self.name, channel.name if isinstance(channel, Channel) else channel)

    def count(self) -> int:
        """How many members the group has now: sockets until they have closed, and other channels.

        Cheap for sockets, however many there are. Raises TypeError: the name is not valid. LayerUnavailable.
        """
        names.check_group(self.name)
        layer = self.channel_layer
        if hasattr(layer, "group_count"):
            return int(layer.group_count(self.name))
        return len(layer.group_channels(self.name))  # a layer of 1.x

    def send(
        self, content: dict[str, Any], immediately: bool = False, on_commit: bool = False, using: str | None = None
    ) -> None:
        """Send the dict *content* to every member: when the running consumer has ended, or at once.

        *on_commit* and *using* are those of ``Channel.send``. The members are those at the time when it leaves.

        Raises:
            ValueError: *content* is no dict, or both *immediately* and *on_commit*. TypeError: the name is not valid.
            MessageTooLarge, LayerUnavailable: sent at once, and refused.
        """
        if not isinstance(content, dict):
            raise ValueError(f"you can only send dicts as content on channels, not {type(content).__name__}")
        self._send(content, immediately, on_commit, using)

    def _check_name(self) -> None:
        names.check_group(self.name)

    def _send_now(self, content: dict[str, Any]) -> None:
        self.channel_layer.send_group(self.name, content)


def when_committed(send: Callable[[], None], using: str | None) -> None:
    """Call *send* when the transaction of the database *using* (None: the default one) commits; now without one."""
    from django.db import DEFAULT_DB_ALIAS, connections, transaction

    connection = connections[using or DEFAULT_DB_ALIAS]
    # Without a connection there is no transaction either, and a message is no reason to open one.
    if connection.connection is None and not connection.in_atomic_block:
        send()
    else:
        transaction.on_commit(send, using=using)
