"""``Channel`` and ``Group``: where application code sends to.

Within a consumer a send is held until the consumer has ended (``pending.py``) unless it is immediate; adding to and
discarding from a group act at once. Anywhere else (WSGI view, shell, cron) sends leave at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from procman.channels.pending import pending_message_store
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

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Channel(_Named):
    """A channel to send to.

    *name* may be ASCII bytes; *channel_layer* goes before *alias*.
    """

    def send(self, content: dict[str, Any], immediately: bool = False) -> None:
        """Send the dict *content*: when the running consumer has ended, or at once.

        Raises:
            TypeError: *content* is no dict, or the name is not valid.
            ChannelFull, MessageTooLarge, LayerUnavailable: sent at once, and refused.
        """
        if not isinstance(content, dict):
            raise TypeError(f"you can only send dicts as content on channels, not {type(content).__name__}")
        if not immediately and pending_message_store.active:
            names.check_channel(self.name)  # here the traceback still names the line that sent
            pending_message_store.append(self, content)
        else:
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

    def send(self, content: dict[str, Any], immediately: bool = False) -> None:
        """Send the dict *content* to every member: when the running consumer has ended, or at once.

        Raises:
            ValueError: *content* is no dict. TypeError: the name is not valid.
            MessageTooLarge, LayerUnavailable: sent at once, and refused.
        """
        if not isinstance(content, dict):
            raise ValueError(f"you can only send dicts as content on channels, not {type(content).__name__}")
        if not immediately and pending_message_store.active:
            names.check_group(self.name)
            pending_message_store.append(self, content)
        else:
            self.channel_layer.send_group(self.name, content)
