"""What a client is told when a consumer has failed, which of its sends are at fault, and what is said of broken code.

Pure but for ``answer``, which sends.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from procman.channels.message import Message
from procman.layers import codec
from procman.layers.base import Send

INTERNAL_ERROR = 1011  # RFC 6455: the server met a condition that it did not expect
_PACKAGE = Path(__file__).parents[1]
_IMPORTLIB = Path(importlib.__file__)
_LONGEST_TEXT = 20_000  # characters of a traceback
INVALID_DATA = 1007  # RFC 6455: a message has data that its type does not allow


def answer_for(message: Message, text: str, status: int, frames: bool = True) -> dict[str, Any] | None:
    """The message that tells *message*'s client of a failure; None where nobody waits for one.

    HTTP clients get *status* with *text* as the body; the interface cuts a response that has begun. WebSockets are
    closed with 1011, a handshake is answered 500; without *frames* only the handshake.
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


def describe_code_error(error: BaseException) -> str:
    """Why code does not run, for whoever wrote it: what was raised and where comes first, then how it came to that."""
    place = traceback.format_list(traceback.extract_tb(error.__traceback__)[-1:])
    if isinstance(error, SyntaxError):
        place = []  # it tells the place itself
    raised = "".join([*place, *traceback.format_exception_only(error)])[:_LONGEST_TEXT]
    return f"{raised}\n\n{code_traceback(error)[-_LONGEST_TEXT:]}"


def code_traceback(error: BaseException) -> str:
    """The traceback of *error* without the frames of this project and of the import system, which are not at fault."""
    shown = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in shown.stack if not _is_machinery(frame.filename)]
    shown.stack = traceback.StackSummary.from_list(frames or list(shown.stack))
    return "".join(shown.format())


def _is_machinery(filename: str) -> bool:
    path = Path(filename)
    return filename.startswith("<frozen ") or path == _IMPORTLIB or _PACKAGE in path.parents
