"""Sends held back until the consumer ends, one list per thread.

While a consumer runs, ``Channel.send`` and ``Group.send`` append here; then either the worker collects what belongs
to its delivery's layer, to leave with the finish, or ``send_and_flush`` sends it all. Outside a consumer nothing is
held. Knows no sender's class: a sender has ``name``, ``channel_layer`` and ``send(content, immediately)``.
"""

from __future__ import annotations

import copy
import threading
from typing import Any

from procman.channels.signals import consumer_finished, consumer_started
from procman.layers.errors import ChannelFull

_CONTAINERS = (dict, list, bytearray, tuple, set)


def copy_content(message: dict[str, Any]) -> dict[str, Any]:
    """*message* as it is now; what its containers hold is copied too. Raises TypeError if too deep."""
    try:
        return {key: copy.deepcopy(each) if isinstance(each, _CONTAINERS) else each for key, each in message.items()}
    except RecursionError:
        raise TypeError("the message is nested too deeply, or contains itself") from None


class PendingMessageStore:
    """The held sends of each thread. A full channel is tried again every 0.2 s for 2 s."""

    retry_time = 2.0  # seconds
    retry_interval = 0.2  # seconds

    def __init__(self) -> None:
        self._local = threading.local()

    @property
    def active(self) -> bool:
        """Whether this thread runs a consumer, so that sends are held."""
        return getattr(self._local, "held", None) is not None

    def prepare(self, **kwargs: Any) -> None:
        """Hold sends from here on."""
        self._local.held = []

    def append(self, sender: Any, message: dict[str, Any], is_owned: bool = False) -> None:
        """Hold *message* for *sender*. Later changes to the dict have no effect, as with a send.

        With *is_owned* nobody else has the dict, and it is not copied.
        """
        self._local.held.append((sender, message if is_owned else copy_content(message)))

    def collect(self) -> list[tuple[Any, dict[str, Any]]]:
        """What is held, in order; from here on nothing is held any more."""
        held = getattr(self._local, "held", None)
        self._local.held = None
        return held or []

    def flush(self) -> None:
        """Send now what is held, and go on holding: for what must not be overtaken by an immediate send."""
        held = getattr(self._local, "held", None)
        if held:
            self._local.held = []
            self.send_all(held)

    def send_and_flush(self, **kwargs: Any) -> None:
        """Send what is held, in order, and stop holding.

        Raises:
            RuntimeError: a channel stayed full for ``retry_time``; all other messages were sent.
        """
        self.send_all(self.collect())

    def send_all(self, held: list[tuple[Any, dict[str, Any]]]) -> None:
        """Send each of *held*; one that fails does not keep back the others. Raises the first failure at the end."""
        failure: Exception | None = None
        for sender, message in held:
            try:
                self._send(sender, message)
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _send(self, sender: Any, message: dict[str, Any]) -> None:
        wait = threading.Event().wait
        for attempt in range(int(self.retry_time / self.retry_interval) + 1):
            try:
                sender.send(message, immediately=True)
                return
            except _full_errors(sender):
                if attempt * self.retry_interval < self.retry_time:
                    wait(self.retry_interval)
        raise RuntimeError(f"channel {sender.name!r} stayed full for {self.retry_time} s: a message was not sent")


def _full_errors(sender: Any) -> tuple[type[BaseException], ...]:
    # A layer of 1.x brings an exception class of its own.
    own = getattr(sender.channel_layer, "ChannelFull", ChannelFull)
    return (ChannelFull, own) if isinstance(own, type) else (ChannelFull,)


pending_message_store = PendingMessageStore()
consumer_started.connect(pending_message_store.prepare, dispatch_uid="procman.pending_prepare")
consumer_finished.connect(pending_message_store.send_and_flush, dispatch_uid="procman.pending_flush")
