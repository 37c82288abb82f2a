"""What a channel layer may refuse, as exceptions with the facts as attributes."""

from procman.errors import ProcmanError


class LayerError(ProcmanError):
    """Root of the channel layer's errors."""


class ChannelFull(LayerError):
    """The channel is at capacity and refused a message: retry later, or answer 503."""

    def __init__(self, channel: str = "", capacity: int = 0, limit_bytes: int = 0) -> None:
        if limit_bytes:  # a bound on bytes refused it: of the channel, of its reader, or of the whole layer
            super().__init__(f"channel {channel!r} has no room: {limit_bytes} bytes, the most there may be, are held")
        else:
            super().__init__(f"channel {channel!r} already holds {capacity} waiting messages")
        self.channel, self.capacity, self.limit_bytes = channel, capacity, limit_bytes


class MessageTooLarge(LayerError):
    """The message is larger than the layer takes: split it, or send a reference to the data."""

    def __init__(self, size_bytes: int = 0, limit_bytes: int = 0) -> None:
        super().__init__(f"message of {size_bytes} bytes is over the layer's limit of {limit_bytes} bytes")
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes


class LimitReached(LayerError):
    """A bound of the layer, other than that of a channel, was reached; the text says which."""


class LayerUnavailable(LayerError):
    """The layer could not be reached: is `channels-run` (or `channels-run layer`) running for this project?"""


class ReplyChannelGone(LayerError):
    """The client behind a reply channel has left: stop producing for it."""

    def __init__(self, channel: str = "") -> None:
        super().__init__(f"the client of {channel!r} is gone")
        self.channel = channel


class ProtocolMismatch(LayerError):
    """The two ends of an IPC connection speak different versions: restart the older one."""
