"""Where messages wait: the channel layer contract and its errors.

Knows nothing of sockets, Django or processes. Backends: ``memory`` (one process), ``ipc`` (one machine). Redis, for
several machines, has its place beside them.
"""

from procman.layers.base import AsyncChannelLayer, ChannelLayer, Delivery, Send
from procman.layers.errors import ChannelFull, LayerError, LayerUnavailable, MessageTooLarge, ReplyChannelGone

__all__ = [
    "AsyncChannelLayer",
    "ChannelFull",
    "ChannelLayer",
    "Delivery",
    "LayerError",
    "LayerUnavailable",
    "MessageTooLarge",
    "ReplyChannelGone",
    "Send",
]
