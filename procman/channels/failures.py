"""What a client is told when the consumer of its message has failed, and which of a consumer's sends are at fault.

Pure but for ``answer``, which sends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from procman.channels.message import Message
from procman.layers import codec
from procman.layers.base import Send

INTERNAL_ERROR = 1011  # RFC 6455: the server met a condition that it did not expect
INVALID_DATA = 1007  # RFC 6455: a message has data that its type does not allow


def answer_for(message: Message, text: str, status: int, frames: bool = True) -> dict[str, Any] | None:
    """The message that tells *message*'s client of a failure; None where nobody waits for one.

    HTTP clients get *status* with *text* as the body; the interface cuts a response that has begun. WebSockets are
    closed with 1011, a handshake refused; without *frames* only the handshake.
    """
    channel = message.channel.name
    if channel == "http.request":
        headers = [(b"Content-Type", b"text/plain; charset=utf-8")]
        content = text.encode()
        return {"status": status, "headers": headers, "content": content, "more_content": False, "failed": True}
    if channel == "websocket.connect" or (channel == "websocket.receive" and frames):
        return {"close": INTERNAL_ERROR}
    return None


def answer(message: Message, text: str, status: int, frames: bool = True) -> None:
    """Tell *message*'s client of a failure, after what the consumer has sent already.

    Nothing that the consumer held back for an HTTP client is a complete response to it, so nothing is withdrawn.
    """
    content = answer_for(message, text, status, frames)
    if content is not None and message.reply_channel is not None:
        message.reply_channel.send(content)


def split_sends(sends: Iterable[Send]) -> tuple[list[Send], list[tuple[Send, str]]]:
    """*sends* that a layer can take, and the others with the reason."""
    good: list[Send] = []
    bad: list[tuple[Send, str]] = []
    for send in sends:
        try:
            codec.encode(send.message)
        except Exception as error:  # a value may raise anything while it is packed
            bad.append((send, str(error)))
        else:
            good.append(send)
    return good, bad
