"""One message in the hands of a worker: run its consumer, tell its client of a failure, finish it.

Whatever a consumer raises ends here. What it sent leaves together with the finish, so that a worker that dies in
between leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from procman.channels import failures
from procman.channels.channel import Channel
from procman.channels.exceptions import ChannelSocketException, ConsumeLater, DenyConnection, InvalidFrame
from procman.channels.leftovers import Cleaner
from procman.channels.log import Unfailing, begin_request, end_request
from procman.channels.message import Message, SessionSlot
from procman.channels.pending import pending_message_store
from procman.channels.sessions import delete_engine_session
from procman.channels.signals import consumer_finished, consumer_started
from procman.channels.timeouts import watchdog
from procman.channels.utils import name_that_thing, refuse_coroutine
from procman.layers import names
from procman.layers.base import Delivery, Send
from procman.layers.errors import ChannelFull, LayerUnavailable
from procman.log import escape

logger = Unfailing("django.channels")

TIMED_OUT = 70  # exit status of a worker whose consumer was over its limit; 70 is EX_SOFTWARE
_ERROR_TEXT = "The server met an error and could not answer this request."


@dataclass(slots=True)
class _Outcome:
    """What a message came to, beside what was sent."""

    reply_channel: Channel | None
    consumer: Any = None
    is_deferred: bool = False
    interrupted: BaseException | None = None


class ConsumerRunner:
    """The part of a worker that deals with one message of *channel_layer*, the wrapper."""

    def __init__(
        self, channel_layer: Any, callback: Callable[[str, Message], None] | None = None, message_retries: int = 10
    ) -> None:
        self.channel_layer = channel_layer
        self.callback = callback
        self.message_retries = message_retries
        self._cleaner = Cleaner()
        layer = getattr(channel_layer, "channel_layer", channel_layer)
        # A layer of 1.x knows only receive_many: its messages are finished the moment they are returned.
        self._delivers = hasattr(layer, "take")
        local_only = getattr(channel_layer, "local_only", None)
        self._is_local = bool(local_only and local_only())

    def _renew_cleaner(self) -> None:
        """Another thread runs the consumers from now on."""
        self._cleaner = Cleaner()

    def handle(self, delivery: Delivery) -> None:
        """Run the consumer of *delivery* and finish it. Nothing that the consumer raises comes out of here."""
        token = begin_request(delivery.message)
        try:
            self._handle(delivery)
        finally:
            end_request(token)

    def _handle(self, delivery: Delivery) -> None:
        content = delivery.message
        message = Message(content, delivery.channel, self.channel_layer)
        message.redelivered, message.id = delivery.redelivered, delivery.id
        if delivery.session is not None:
            message.session_slot = SessionSlot(delivery.session)
        elif message.reply_channel is not None and names.is_socket(message.reply_channel.name):
            message.session_slot = SessionSlot(None)
        if content.get("__retries__", 0) >= self.message_retries:
            message.__doomed__ = True
        outcome = _Outcome(message.reply_channel)
        pending_message_store.prepare()
        try:
            self._run(delivery, message, outcome)
        except BaseException as error:  # to tell of a failure has failed: a consumer can change its message
            message = self._as_delivered(delivery, outcome.reply_channel)
            logger.error("an error in a consumer on %s has led to another", _describe(message), exc_info=error)
            outcome.is_deferred = False
            with contextlib.suppress(Exception):
                failures.answer(message, _ERROR_TEXT, status=500)
        try:
            if outcome.is_deferred:
                self._defer(delivery, message)
            else:
                self._finish(delivery, message, outcome.consumer)
                if delivery.channel == "websocket.disconnect":
                    self._forget_session(message)
        except BaseException as error:
            if _is_ctrl_c(error):
                outcome.interrupted = error
            logger.error("the end of a message on %s has failed", delivery.channel, exc_info=error)
        self._clean_up()
        if outcome.interrupted is not None:
            raise outcome.interrupted

    def _as_delivered(self, delivery: Delivery, reply_channel: Channel | None) -> Message:
        """What tells the message of *delivery* and its client, whatever a consumer has made of that message."""
        path = {"path": delivery.message["path"]} if "path" in delivery.message else {}
        message = Message(path, delivery.channel, self.channel_layer)
        message.reply_channel = reply_channel
        return message

    def _run(self, delivery: Delivery, message: Message, outcome: _Outcome) -> None:
        """Run the consumer, and log and answer what it raises."""
        consumer: Any = None
        try:
            match = self.channel_layer.router.match(message)
            if match is None:
                logger.error("no consumer matches a message on %s: check the routing", _describe(message))
                failures.answer(message, "There is nothing here for this request.", status=404)
            else:
                consumer, kwargs = match
                outcome.consumer = consumer
                if self.callback is not None:
                    self.callback(delivery.channel, message)
                consumer_started.send(sender=type(self), environ={})
                watchdog.begin(delivery.channel, (delivery, outcome.reply_channel, consumer), self._give_up)
                try:
                    self._call(consumer, message, kwargs)
                finally:
                    watchdog.end()
        except DenyConnection:
            self._deny(message, consumer)
        except ChannelSocketException as error:
            self._run_socket_exception(error, message, consumer)
        except ConsumeLater:
            outcome.is_deferred = not message.__doomed__
            if message.__doomed__:
                logger.warning(
                    "message on %s dropped: %s raised ConsumeLater %d times",
                    _describe(message), name_that_thing(consumer), self.message_retries + 1,
                )  # fmt: skip
                failures.answer(message, "This request could not be handled in time.", status=503, frames=False)
        except InvalidFrame as error:
            self._refuse_frame(error, message, consumer)
        except BaseException as error:  # SystemExit too: no consumer ends the worker
            if _is_ctrl_c(error):
                outcome.interrupted = error
            self._consumer_failed(message, consumer)

    def _call(self, consumer: Any, message: Message, kwargs: dict[str, Any]) -> None:
        cleaner = self._cleaner  # another thread may take the place of this one meanwhile, with its own
        cleaner.begin()
        try:
            result = consumer(message, **kwargs)
        except BaseException as error:
            cleaner.put_right(consumer, error)
            raise
        cleaner.put_right(consumer)
        if result is not None:
            refuse_coroutine(result, consumer)

    def _deny(self, message: Message, consumer: Any) -> None:
        if message.channel.name == "websocket.connect" and message.reply_channel is not None:
            message.reply_channel.send({"close": True})
        else:
            self._consumer_failed(message, consumer)

    def _refuse_frame(self, error: InvalidFrame, message: Message, consumer: Any) -> None:
        if message.channel.name != "websocket.receive" or message.reply_channel is None:
            self._consumer_failed(message, consumer)
            return
        logger.warning("a frame on %s is refused and its socket closed: %s", _describe(message), escape(str(error)))
        message.reply_channel.send({"close": failures.INVALID_DATA})

    def _run_socket_exception(self, error: ChannelSocketException, message: Message, consumer: Any) -> None:
        try:
            error.run(message)
        except BaseException:
            self._consumer_failed(message, consumer)

    def _consumer_failed(self, message: Message, consumer: Any) -> None:
        """Log the exception being handled and tell the client."""
        logger.exception(
            "error in consumer %s on %s", name_that_thing(consumer) if consumer else "(none yet)", _describe(message)
        )
        failures.answer(message, _ERROR_TEXT, status=500)

    def _give_up(self, running: tuple[Delivery, Channel | None, Any], limit: float, stack: str) -> None:
        """The consumer of *running* is over its limit: end its message and, where that is possible, this process.

        Called by the watchdog's thread. The message is finished, so nobody runs it again.
        """
        ends_process = watchdog.ends_process
        try:
            self._end_overdue(running, limit, stack, ends_process)
        except BaseException as error:
            logger.error("a message on %s could not be given up", running[0].channel, exc_info=error)
        finally:
            if ends_process:
                with contextlib.suppress(BaseException):  # a handler of the project's may fail
                    logging.shutdown()
                os._exit(TIMED_OUT)

    def _end_overdue(
        self, running: tuple[Delivery, Channel | None, Any], limit: float, stack: str, ends_process: bool
    ) -> None:
        delivery, reply_channel, consumer = running
        message = self._as_delivered(delivery, reply_channel)
        what = "this worker ends" if ends_process else "its thread is left to itself, as it cannot be ended"
        logger.error(
            "%s ran for more than %g s on %s: %s. It was here:\n%s",
            *(name_that_thing(consumer), limit, _describe(message), what, stack.rstrip()),
        )
        answer = failures.answer_for(message, "The server took too long to answer this request.", status=504)
        try:
            if self._delivers:
                sends = [Send(message.reply_channel.name, answer)] if answer and message.reply_channel else []
                self.channel_layer.finish(delivery, sends)
                if ends_process:
                    self.channel_layer.excuse()
            elif answer and message.reply_channel:
                self.channel_layer.send(message.reply_channel.name, answer)
        except Exception as error:
            logger.error("the client of a message on %s could not be told: %s", _describe(message), error)

    def _defer(self, delivery: Delivery, message: Message) -> None:
        pending = pending_message_store.collect()
        content = message.content
        content["__retries__"] = content.get("__retries__", 0) + 1
        try:
            # What was held leaves although the consumer will run again, as in 1.x.
            pending_message_store.send_all(pending)
        except Exception:
            logger.exception("a message that a consumer on %s sent was lost", _describe(message))
        try:
            if self._delivers and not self._is_local:
                self.channel_layer.defer(delivery, content)
                return
            try:
                self.channel_layer.send(delivery.channel, content)
            except getattr(self.channel_layer, "ChannelFull", ChannelFull):
                if not self._delivers:
                    raise
                self.channel_layer.defer(delivery, content)
                return
            if self._delivers:
                self.channel_layer.finish(delivery)
        except Exception:
            logger.exception("a message on %s could not be given back and is lost", _describe(message))

    def _finish(self, delivery: Delivery, message: Message, consumer: Any) -> None:
        session: bytes | None = None
        sends: list[Send] = []
        slot = message.session_slot
        if slot is not None and slot.session is not None:
            try:
                session, merge = slot.session.changed_data(), slot.session.take_merge()
                if merge is not None and message.reply_channel is not None:
                    # Before what the consumer sent: who gets that sees the session as the consumer left it.
                    sends.append(Send(message.reply_channel.name, merge))
            except Exception:
                self._consumer_failed(message, consumer)
        layer = self.channel_layer
        others = []
        for sender, content in pending_message_store.collect():
            if self._delivers and sender.channel_layer is layer:
                sends.append(Send(sender.name, content, sender.is_group))
            else:
                others.append((sender, content))
        try:
            if self._delivers:
                self._finish_on_layer(delivery, message, sends, session)
            if others:
                pending_message_store.send_all(others)
        except Exception as error:
            if isinstance(error, LayerUnavailable):
                logger.error("the end of a message on %s could not be told: %s", _describe(message), error)
            else:
                logger.exception("what a consumer on %s sent was not sent completely", _describe(message))

    def _finish_on_layer(self, delivery: Delivery, message: Message, sends: list[Send], session: bytes | None) -> None:
        try:
            self.channel_layer.finish(delivery, sends, session)
            return
        except LayerUnavailable:
            raise  # it is sent again
        except Exception as error:
            # One bad send must not keep back the others, nor the finish: without it the worker gets nothing more.
            good, bad = failures.split_sends(sends)
            if not bad:
                logger.error("nothing of what a consumer on %s sent is sent: %s", _describe(message), error)
                good, session = [], None
            for send, reason in bad:
                logger.error(
                    "a consumer on %s sent what cannot be sent to %s: %s", _describe(message), send.name, reason
                )
        answers = []
        answer = failures.answer_for(message, "The server's answer could not be sent.", status=500)
        if answer is not None and message.reply_channel is not None:
            answers.append(Send(message.reply_channel.name, answer))
        try:
            self.channel_layer.finish(delivery, good + answers, session)
        except LayerUnavailable:
            raise
        except Exception as error:
            logger.error("nothing of what a consumer on %s sent is sent: %s", _describe(message), error)
            self.channel_layer.finish(delivery, answers)

    def _forget_session(self, message: Message) -> None:
        """The socket has closed: delete its session where an engine keeps it."""
        try:
            delete_engine_session(message)
        except Exception:
            logger.exception("the channel session of %s could not be deleted", _describe(message))

    def _clean_up(self) -> None:
        try:
            consumer_finished.send(sender=type(self))
        except BaseException:
            logger.exception("a receiver of consumer_finished failed")


def _describe(message: Message) -> str:
    """Channel, path and reply channel for a log line."""
    text = message.channel.name
    if isinstance(message.get("path"), str):
        text += f" path {escape(message['path'][:200])}"
    if message.reply_channel is not None:
        text += f" reply channel {message.reply_channel.name}"
    return text


def _is_ctrl_c(error: BaseException) -> bool:
    """Whether this is Ctrl-C in a process that left Python's own handler in place, rather than a consumer's."""
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
