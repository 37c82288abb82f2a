"""The delay server: stores what comes on ``asgi.delay``, sends what is due. Started by ``manage.py rundelay``.

One message at a time is taken from the layer, and finished once it is stored. At most 100 due messages are sent before
the layer is looked at again. Survives outages of layer and database.
"""

from __future__ import annotations

import json
import logging
import math
import select
import signal
from collections.abc import Mapping
from typing import Any

from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, close_old_connections
from django.utils import timezone

from procman.channels.delay.claims import next_due
from procman.channels.delay.models import DelayedMessage
from procman.clock import SystemClock
from procman.layers import names
from procman.layers.base import Delivery
from procman.layers.errors import LayerUnavailable, MessageTooLarge, ProtocolMismatch
from procman.log import escape

logger = logging.getLogger("django.channels")

CHANNEL = "asgi.delay"
BATCH = 100
# A signal between the look at `termed` and the wait is noticed after this long at the latest (seconds).
_LONGEST_WAIT = 2.0
_REQUEUE_DELAY = 1000.0  # milliseconds
_FIRST_BACKOFF, _LAST_BACKOFF = 0.05, 1.0  # seconds
# Seconds between looks at what cannot be waited for: a layer of 1.x, messages in the hands of another server.
_POLL = 0.05


def read_request(content: Mapping[str, Any]) -> DelayedMessage:
    """The message, not stored yet, that *content* asks for, due ``delay`` milliseconds from now.

    Raises:
        ValueError: *content* is no such request; the text says why.
    """
    missing = [key for key in ("channel", "delay", "content") if key not in content]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing")
    channel, delay = content["channel"], content["delay"]
    try:
        names.check_channel(channel)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not math.isfinite(delay) or delay < 0:
        raise ValueError(f"delay is {delay!r}, which is no number of milliseconds")
    if not isinstance(content["content"], dict):
        raise ValueError(f"content is {type(content['content']).__name__}, not a dict")
    try:
        return DelayedMessage(channel_name=channel, delay=delay, content=json.dumps(content["content"]))
    except OverflowError:
        raise ValueError(f"delay is {delay!r}, which is beyond the calendar") from None
    except TypeError as error:
        raise ValueError(f"content cannot be stored: {error}") from None


class Worker:
    """Serves *channel_layer* (the wrapper) until ``termed``.

    The database is looked at when a message is due that this server knows of, and every *database_sleep_duration*
    seconds for others.
    """

    termed: Any
    in_job: Any

    def __init__(self, channel_layer: Any, signal_handlers: bool = True, database_sleep_duration: float = 1) -> None:
        self.channel_layer = channel_layer
        self.signal_handlers = signal_handlers
        self.database_sleep_duration = database_sleep_duration
        self.termed = False
        self.in_job = False
        self._delivers = hasattr(channel_layer, "take")
        self._next_look = 0.0
        self._backoff = 0.0  # what is not there is tried again after this; 0: all is well

    def install_signal_handler(self) -> None:
        """Stop gracefully on SIGTERM and SIGINT."""
        signal.signal(signal.SIGTERM, self.sigterm_handler)
        signal.signal(signal.SIGINT, self.sigterm_handler)

    def sigterm_handler(self, signo: int, stack_frame: Any) -> None:
        """Have ``run`` return once the message in hand is stored or sent."""
        self.stop()

    def stop(self) -> None:
        """Have ``run`` return: now if it waits, else once the message in hand is stored or sent."""
        self.termed = True
        wake = getattr(self.channel_layer, "wake", None)
        if wake is not None:
            wake()

    def run(self) -> None:
        """Store and send until ``termed``."""
        handlers = None
        if self.signal_handlers:
            handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
            self.install_signal_handler()
        logger.info("Listening on %s", CHANNEL)
        self._next_look = 0.0
        try:
            while not self.termed:
                self.step()
        finally:
            self.in_job = False
            stop_taking = getattr(self.channel_layer, "stop_taking", None)
            if stop_taking is not None:
                stop_taking()
            for number, handler in handlers or ():
                signal.signal(number, handler)

    def step(self) -> None:
        """Send what is due if it is time to look, then store one message or wait for it."""
        self.in_job = True
        try:
            now = SystemClock.monotonic()
            if now >= self._next_look:
                close_old_connections()
                self._next_look = now + self._send_due()
            self.in_job = False
            wait = self._next_look - SystemClock.monotonic()
            delivery = self._take(min(max(0.0, wait), _LONGEST_WAIT))
            if delivery is not None:
                self.in_job = True
                self._store(delivery)
        except (OperationalError, InterfaceError) as error:
            self._failed("the database", error)
        except Exception as error:
            self._failed("the channel layer" if _is_of_layer(error) else "the delay server", error)
        else:
            self._recovered()

    # -- sending -----------------------------------------------------------------------------------------------------

    def _send_due(self) -> float:
        """Send at most a batch; returns the seconds until the database is to be looked at again."""
        is_more = True
        for _ in range(BATCH):
            with next_due() as message:
                if message is None:
                    is_more = False
                    break
                self._send(message)
        first = DelayedMessage.objects.order_by("due_date").values_list("due_date", flat=True).first()
        if first is None:
            return self.database_sleep_duration
        wait: float = (first - timezone.now()).total_seconds()
        if wait <= 0 and not is_more:  # another server is sending these
            wait = _POLL
        return min(max(0.0, wait), self.database_sleep_duration)

    def _send(self, message: DelayedMessage) -> None:
        try:
            message.send(self.channel_layer, _REQUEUE_DELAY)
        except (TypeError, ValueError, MessageTooLarge) as error:
            logger.error(
                "a delayed message to %s can never be sent and is dropped: %s",
                escape(message.channel_name), escape(str(error)),
            )  # fmt: skip
            message.delete()
        except DatabaseError:
            raise
        except Exception:
            message.put_off(_REQUEUE_DELAY)
            raise

    # -- storing -----------------------------------------------------------------------------------------------------

    def _take(self, timeout: float) -> Delivery | None:
        if self._delivers:
            delivery: Delivery | None = self.channel_layer.take([CHANNEL], timeout)
            return delivery
        channel, content = self.channel_layer.receive_many([CHANNEL])
        if channel is None:
            select.select((), (), (), min(timeout, _POLL))
            return None
        return Delivery(channel, content, "")

    def _store(self, delivery: Delivery) -> None:
        try:
            message = read_request(delivery.message)
        except ValueError as error:
            logger.error("a message on %s is dropped: %s", CHANNEL, escape(str(error)[:500]))
        else:
            if not self._save(message):
                if self._delivers:
                    self.channel_layer.defer(delivery, delivery.message)
                else:
                    logger.error("a message on %s is lost: the database could not be reached", CHANNEL)
                return
            self._next_look = min(self._next_look, SystemClock.monotonic() + max(0.0, message.delay / 1000))
        if self._delivers:
            self.channel_layer.finish(delivery)

    def _save(self, message: DelayedMessage) -> bool:
        """Store *message*, however long the database is away; False if the server is to stop before that."""
        while True:
            try:
                close_old_connections()
                message.save(force_insert=True)
                return True
            except (OperationalError, InterfaceError) as error:
                self._failed("the database", error)
                if self.termed:
                    return False

    # -- outages -----------------------------------------------------------------------------------------------------

    def _failed(self, what: str, error: Exception) -> None:
        """Wait a moment after *error*, longer each time; logged once per outage."""
        if not self._backoff:
            is_expected = isinstance(error, OperationalError | LayerUnavailable | ProtocolMismatch)
            logger.error("%s does not answer; trying again: %s", what, error, exc_info=not is_expected)
        self._backoff = min(max(_FIRST_BACKOFF, self._backoff * 2), _LAST_BACKOFF)
        select.select((), (), (), self._backoff)

    def _recovered(self) -> None:
        if self._backoff:
            logger.info("the delay server goes on")
            self._backoff = 0.0


def _is_of_layer(error: Exception) -> bool:
    return isinstance(error, LayerUnavailable | ProtocolMismatch)
