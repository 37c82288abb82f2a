"""``Message``: what a consumer is given. Also the 1.x place of ``pending_message_store``."""

from __future__ import annotations

import copy
from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, TypeAlias

from procman.channels.channel import Channel
from procman.channels.pending import PendingMessageStore, pending_message_store

__all__ = ["Message", "PendingMessageStore", "SessionSlot", "message_of", "pending_message_store"]


if TYPE_CHECKING:
    from django.contrib.sessions.backends.base import SessionBase

# None is possible, and rarely: consumers of sockets and requests need not look for it before each use.
MaybeNone: TypeAlias = Any


class SessionSlot:
    """The channel session beside the socket that a message belongs to: bytes, and the object once it was used.

    *data* is what came with a frame of the socket; None for a message that was forwarded, whose session is to be
    fetched. Copies of a message share it, so that there is one session however the consumer passes its message on.
    ``is_ordered`` says that the messages of the socket come one at a time and in order.
    """

    __slots__ = ("data", "is_ordered", "session")

    def __init__(self, data: bytes | None) -> None:
        self.data = data
        self.session: Any = None
        self.is_ordered = data is not None


class Message:
    """A message: ``content`` (a dict, also through mapping methods), ``channel``, ``reply_channel``, ``channel_layer``.

    ``redelivered`` says that an earlier worker died with it, or may have, unseen, together with the layer. ``id`` is
    the same on redelivery (None: not delivered by a layer). Decorators add ``channel_session``, ``http_session`` and
    ``user``.
    """

    __doomed__ = False  # True on the last round of ConsumeLater
    redelivered = False
    id: str | None = None
    session_slot: SessionSlot | None = None
    # Set by decorators; declared for type checkers only.
    channel_session: SessionBase
    http_session: SessionBase | MaybeNone
    user: Any

    def __init__(self, content: dict[str, Any], channel_name: str | None, channel_layer: Any) -> None:
        self.content = content
        self.channel = Channel(channel_name, channel_layer=channel_layer)  # type: ignore[arg-type]
        self.channel_layer = channel_layer
        reply_channel = content.get("reply_channel")
        self.reply_channel: Channel | MaybeNone = (
            Channel(reply_channel, channel_layer=channel_layer) if reply_channel else None
        )

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.content[key] = value

    def __contains__(self, key: object) -> bool:
        return key in self.content

    def keys(self) -> KeysView[str]:
        """Keys of the content."""
        return self.content.keys()

    def values(self) -> ValuesView[Any]:
        """Values of the content."""
        return self.content.values()

    def items(self) -> ItemsView[str, Any]:
        """Pairs of the content."""
        return self.content.items()

    def get(self, key: str, default: Any = None) -> Any:
        """The value of *key* in the content, or *default*."""
        return self.content.get(key, default)

    def copy(self) -> Message:
        """A message with a deep copy of the content, without what decorators added."""
        copied = type(self)(copy.deepcopy(self.content), self.channel.name, self.channel_layer)
        copied.redelivered, copied.id, copied.session_slot = self.redelivered, self.id, self.session_slot
        return copied

    def overlaid(self, content: Mapping[str, Any]) -> Message:
        """This message seen with another *content*; its own is left alone.

        Routing uses it within an ``include`` whose prefixes were stripped.
        """
        seen = copy.copy(self)
        seen.content = dict(content)
        return seen

    def __repr__(self) -> str:
        return f"<Message on {self.channel.name!r}>"


def message_of(args: tuple[object, ...], decorator: str) -> Message:
    """The message among the first two arguments of a consumer: a method has it in the second place.

    Raises:
        ValueError: there is none; the text names *decorator*.
    """
    for argument in args[:2]:
        if isinstance(argument, Message):
            return argument
    raise ValueError(f"{decorator} called without Message instance")
