"""A response of several messages on its way to its client: each part leaves as the client has taken the one before.

Meanwhile another thread takes the worker's messages (``streams.py``). After the first ``ALONE`` parts a thread of its
own sends, and the generator makes more: what it makes during one round trip leaves together, and a part that nothing
waits before leaves at once.

Buffer: ``WINDOW`` bytes and one part per stream; past it the generator is paused.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

from procman.channels import failures
from procman.channels.pending import pending_message_store
from procman.channels.streams import streams
from procman.channels.timeouts import watchdog
from procman.layers.errors import ChannelFull, ReplyChannelGone

if TYPE_CHECKING:
    from procman.channels.message import Message

logger = logging.getLogger("django.channels")

ALONE = 8  # parts; most responses have fewer, and are not worth a thread
WINDOW = 256 * 1024  # bytes
_LOOK_INTERVAL = 0.5  # seconds between looks whether the worker stops


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
            if self._send_rest(rest, must_end):
                return
            logger.info("the response on %s is cut, as its worker stops", self._reply_channel.name)
            failures.answer(self._message, "The server stops.", status=503)

    def _send_rest(self, rest: Iterator[dict[str, Any]], must_end: Callable[[], bool]) -> bool:
        """Send *rest*; False if it had to end before."""
        for response in itertools.islice(rest, ALONE):
            if must_end() and response.get("more_content"):
                return False
            self._send(response)
            if not response.get("more_content"):
                return True
        with Outbox(self._send, must_end) as outbox:
            for response in rest:
                outbox.put(response)
                if outbox.is_ending:
                    break
        return not outbox.is_ending

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


class Outbox:
    """Parts on their way: ``put`` from one thread, *send* called in another with all that waits, as one message.

    Leaving it waits until all is sent. ``is_ending`` is whether *must_end* said, while a part had to wait, that the
    worker stops; what was put may be unsent then.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None], must_end: Callable[[], bool]) -> None:
        self._send, self._must_end = send, must_end
        self._condition = threading.Condition()
        self._waiting: list[bytes] = []
        self._size = 0
        self._has_more = True
        self._is_sending = False
        self._is_left = False
        self._failure: BaseException | None = None
        self.is_ending = False
        self._thread = threading.Thread(target=self._run, name="sender of a stream", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or issubclass(kind, Exception):
            self._wait(lambda: not self._waiting and not self._is_sending)
        with self._condition:
            self._is_left = True
            self._condition.notify_all()
        if kind is None and self._failure is not None:
            raise self._failure

    def put(self, response: dict[str, Any]) -> None:
        """Send *response* as soon as what is before it is sent; waits while ``WINDOW`` bytes do.

        Raises:
            ReplyChannelGone: the client has left; or whatever else *send* has raised.
        """
        with self._condition:
            self._waiting.append(response.get("content") or b"")
            self._size += len(self._waiting[-1])
            self._has_more = bool(response.get("more_content"))
            self._condition.notify_all()
        self._wait(lambda: self._size < WINDOW)
        if self._failure is not None:
            raise self._failure
        self.is_ending = self.is_ending or (self._has_more and self._must_end())

    def _wait(self, is_enough: Callable[[], bool]) -> None:
        """Until *is_enough*, sending has failed or the worker stops."""
        with watchdog.paused(), self._condition:
            while not is_enough() and self._failure is None and not self.is_ending:
                if not self._condition.wait(_LOOK_INTERVAL):
                    self.is_ending = self._must_end()

    def _run(self) -> None:
        try:
            while True:
                with self._condition:
                    self._is_sending = False
                    self._condition.notify_all()
                    self._condition.wait_for(lambda: self._waiting or self._is_left)
                    if not self._waiting or self.is_ending:
                        return
                    response = self._join()
                    self._is_sending = True
                self._send(response)
        except BaseException as error:
            with self._condition:
                self._failure = error
                self._condition.notify_all()

    def _join(self) -> dict[str, Any]:
        """What waits first, as one message: no larger than ``WINDOW``, or than a part that is."""
        count, size = 1, len(self._waiting[0])
        while count < len(self._waiting) and size + len(self._waiting[count]) <= WINDOW:
            size += len(self._waiting[count])
            count += 1
        content = b"".join(self._waiting[:count])
        del self._waiting[:count]
        self._size -= size
        return {"content": content, "more_content": self._has_more or bool(self._waiting)}
