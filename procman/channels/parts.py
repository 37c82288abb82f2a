"""A response of several messages on its way to its client: each part leaves as the client has taken the one before.

Meanwhile another thread takes the worker's messages (``streams.py``). A part is one message; nothing is buffered here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from procman.channels import failures
from procman.channels.pending import pending_message_store
from procman.channels.streams import streams
from procman.channels.timeouts import watchdog
from procman.layers.errors import ChannelFull, ReplyChannelGone

if TYPE_CHECKING:
    from procman.channels.message import Message

logger = logging.getLogger("django.channels")


class Parts:
    """Sends the response to *message*. Its client may take *timeout* seconds for a part.

    *retry_interval* is the number of seconds between tries on a full channel.
    """

    def __init__(self, message: Message, timeout: float, retry_interval: float) -> None:
        assert message.reply_channel is not None
        self._message, self._reply_channel = message, message.reply_channel
        self._timeout, self._retry_interval = timeout, retry_interval

    def send_all(self, first: dict[str, Any], rest: Iterator[dict[str, Any]]) -> None:
        """Send *first* and *rest*; a response that a stop of the worker cuts is incomplete to its client.

        Raises:
            ReplyChannelGone: the client has left, or takes nothing.
            TooManyStreams: nothing was sent.
        """
        with streams.streaming() as must_end:
            # What the view has sent before must not be overtaken by parts that leave at once.
            pending_message_store.flush()
            self._send(first)
            for response in rest:
                if must_end() and response.get("more_content"):
                    logger.info("the response on %s is cut, as its worker stops", self._reply_channel.name)
                    failures.answer(self._message, "The server stops.", status=503)
                    return
                self._send(response)

    def _send(self, response: dict[str, Any]) -> None:
        layer = self._reply_channel.channel_layer
        send_and_wait = getattr(layer, "send_and_wait", None)
        full = getattr(layer, "ChannelFull", ChannelFull)
        for _ in range(int(self._timeout / self._retry_interval)):
            try:
                if send_and_wait is None:
                    self._reply_channel.send(response, immediately=True)
                    return
                with watchdog.paused():
                    send_and_wait(self._reply_channel.name, response, self._timeout)
                return
            except full:
                threading.Event().wait(self._retry_interval)
        raise ReplyChannelGone(self._reply_channel.name)
