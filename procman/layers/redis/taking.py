"""The worker's side of the blocking client: take a message from any server, finish it, give it back.

A finish is atomic on the server of its delivery. With several servers, what its consumer sent to channels and groups
of others goes out before it, each under a key made of the delivery's id and its place, so that a consumer that is run
again does not send it twice (for as long as such a message lives, at least a minute).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import threading
import weakref
from collections.abc import Sequence
from typing import Any

from procman.clock import SystemClock
from procman.layers import codec, names
from procman.layers.base import Delivery, Message, Send
from procman.layers.errors import LayerUnavailable, MessageTooLarge
from procman.layers.redis import entries
from procman.layers.redis.bells import CLOSE_ENOUGH, LONGEST_WAIT, Bells, Key
from procman.layers.redis.common import Common, log_refused
from procman.layers.redis.crypto import UnreadableMessage
from procman.layers.redis.entries import Entry
from procman.layers.redis.keeper import Keeper
from procman.layers.redis.session import Held, Sent, Session
from procman.layers.wake import WakePipe, Woken
from procman.log import escape
from procman.settings import ENV_NAME, ENV_RUN

logger = logging.getLogger("procman.layers")
FULL_RETRY = 2.0
_FULL_PAUSE = 0.02
_DEFER_FIRST, _DEFER_LONGEST = 0.01, 0.5


class Taking(Common):
    """``take``, ``finish``, ``defer``, ``wake`` of ``RedisChannelLayer``."""

    claim_after: float
    _sessions: list[Session]
    _bells: Bells
    _ids: itertools.count[int]

    def _reset_taking(self) -> None:
        self._state = threading.Lock()
        self._keeper: Keeper | None = None
        self._local = threading.local()
        self._wakes: weakref.WeakSet[WakePipe] = weakref.WeakSet()
        self._wake_count = self._turn = 0

    def take(self, channels: Sequence[str], timeout: float | None = None) -> Delivery | None:
        """As ``ChannelLayer.take``. While Redis is away this waits for it."""
        wanted = tuple(channels)
        local = self._local
        if getattr(local, "channels", None) != wanted:
            names.check_receive(wanted)
            local.channels = wanted
            local.bells = [(n, self._bell(name)) for n in range(len(self._sessions)) for name in wanted]
        wake = getattr(local, "wake", None)
        if wake is None:
            wake = self._start_thread()
        deadline = None if timeout is None else SystemClock.monotonic() + timeout
        rung: int | None = None
        while True:
            if local.wake_count != self._wake_count:
                local.wake_count = self._wake_count
                wake.clear()
                return None
            left = LONGEST_WAIT if deadline is None else deadline - SystemClock.monotonic()
            try:
                found = self._take_anywhere(wanted, rung, max(0.0, left), wake)
            except Woken:
                continue
            except LayerUnavailable:
                if deadline is not None and SystemClock.monotonic() >= deadline - _FULL_PAUSE:
                    return None
                wake.wait(_FULL_PAUSE)
                continue
            if isinstance(found, Entry):
                delivery = self._open(found)
                if delivery is not None:
                    local.held.entry = found
                    return delivery
                continue
            if left <= 0:
                return None
            key = self._bells.wait(local.bells, min(found, left), wake)
            rung = key[0] if isinstance(key, tuple) else None
            if key is None and deadline is not None and deadline - SystemClock.monotonic() <= CLOSE_ENOUGH:
                return None

    def excuse(self) -> None:
        """As ``ChannelLayer.excuse``."""
        for session in self._sessions:
            if session.is_worker:
                session.run("excuse", session.id, plain=True)

    def _take_anywhere(
        self, wanted: tuple[str, ...], rung: int | None, patience: float, wake: WakePipe
    ) -> Entry | float:
        """A message of any server, or in how many seconds to look again. Raises LayerUnavailable: none answers."""
        count = len(self._sessions)
        if count == 1:
            return self._sessions[0].take(wanted, rung == 0, patience, wake)
        self._turn += 1
        first = self._turn % count if rung is None else rung
        pause, failure = LONGEST_WAIT, None
        for number in (*range(first, count), *range(first)):
            session = self._sessions[number]
            if session.is_resting():
                pause = min(pause, 0.2)
                continue
            try:
                found = session.take(wanted, rung == number, 0.0, wake)
            except LayerUnavailable as error:
                failure = error
                continue
            if isinstance(found, Entry):
                return found
            pause = min(pause, found)
        if failure is not None and all(session.is_resting() for session in self._sessions):
            raise failure
        return pause

    def _open(self, entry: Entry) -> Delivery | None:
        """The delivery of *entry*; None if it cannot be read: then it is ended."""
        try:
            message = self._seal.open_message(entry.body, entry.id, entry.channel)
            session = self._seal.open_session(entry.session)
        except (UnreadableMessage, ValueError) as error:
            logger.error("a message of %s is dropped: %s", escape(entry.channel), error)
            notice = codec.pack((int(entry.number), None, ())) if entry.interface else b""
            fields = (entry.id, 1, entry.interface, entry.number, notice, entry.reply_channel, b"")
            self._sessions[entry.server].finish("finish", entry, fields)
            return None
        return Delivery(entry.channel, message, entry.id, entry.deaths > 0, session, entry)

    def finish(self, delivery: Delivery, sends: Sequence[Send] = (), session: bytes | None = None) -> None:
        """As ``ChannelLayer.finish``. Does not wait for Redis unless a channel may be full."""
        entry: Entry = delivery.token
        inside: list[tuple[str, bytes, bool]] = []
        outside: list[Any] = []
        far: list[tuple[int, str, tuple[Any, ...]]] = []
        size = 0
        for place, (name, message, is_group) in enumerate(sends):
            body = self._encode(message)
            size += len(body)
            is_own = bool(entry.interface) and entries.interface_of(name) == entry.interface
            if is_own or (is_group and entry.interface):
                inside.append((name, body, is_group))
            if is_group:
                tail, lifetime = entries.build_tail(body), int(self.limits.expiry * 1000)
                fields = ("g", "", name, 0, self._new_id(), "", "", 0, lifetime, tail)
                outside += fields
                others = (number for number in range(len(self._sessions)) if number != entry.server)
                far += ((number, f"{entry.id}.{place}", fields) for number in others)
            elif not is_own:
                fields = ("s", *self._fields(name, message, body))
                if self.server_of(name) == entry.server:
                    outside += fields
                else:
                    far.append((self.server_of(name), f"{entry.id}.{place}", fields))
        if size > 4 * self.limits.max_message_size:
            raise MessageTooLarge(size, 4 * self.limits.max_message_size)
        for number, key, fields in far:
            self._send_far(number, key, fields, entry)
        closed = self._seal.close_session(session)
        notice = codec.pack((int(entry.number), closed, inside)) if entry.interface else b""
        kept = b"" if closed is None or len(closed) > entries.MAX_SESSION_BYTES else b"s" + closed
        ending = (entry.interface, entry.number, notice, entry.reply_channel, kept, *outside)
        if any(kind == "s" for kind in outside[::10]):
            self._finish_with_room(entry, ending)
        else:
            self._sessions[entry.server].finish("finish", entry, (entry.id, 1, *ending))

    def _finish_with_room(self, entry: Entry, fields: tuple[Any, ...]) -> None:
        """End *entry* when there is room for all its sends, after ``FULL_RETRY`` seconds with those that fit."""
        session = self._sessions[entry.server]
        deadline = SystemClock.monotonic() + FULL_RETRY
        pause = threading.Event()
        while True:
            is_last = SystemClock.monotonic() >= deadline
            sent = session.finish("finish", entry, (entry.id, int(is_last), *fields))
            try:
                session.settle()
            except LayerUnavailable:
                return  # sent again as soon as Redis answers
            if sent.answer != 0:
                return
            pause.wait(_FULL_PAUSE)

    def _send_far(self, number: int, key: str, fields: tuple[Any, ...], entry: Entry) -> None:
        """A send of the finish of *entry* to another server."""
        deadline = SystemClock.monotonic() + FULL_RETRY
        pause = threading.Event()
        while True:
            try:
                answer = self._sessions[number].run("once", key, *fields)
            except LayerUnavailable as error:
                logger.error("a consumer of %s could not send to %s: %s", escape(entry.channel), fields[2], error)
                return
            if isinstance(answer, list):
                log_refused(fields[2], answer[1], answer[0])
            if answer != 0:
                return
            if SystemClock.monotonic() >= deadline:
                self._log_full(fields[5], entry.channel)
                return
            pause.wait(_FULL_PAUSE)

    def defer(self, delivery: Delivery, message: Message) -> None:
        """As ``ChannelLayer.defer``; the pause grows with each time."""
        entry: Entry = delivery.token
        pause = min(_DEFER_LONGEST, _DEFER_FIRST * 2 ** min(entry.deferrals, 10))
        tail = entries.build_tail(self._encode(message), entry.session)
        self._sessions[entry.server].finish("defer", entry, (entry.id, int(pause * 1000), tail))

    def stop_taking(self) -> None:
        """What this process has finished is known to Redis when this returns, if Redis answers."""
        for session in self._sessions:
            with contextlib.suppress(LayerUnavailable):
                session.settle(1.0)

    def wake(self) -> None:
        """As ``ChannelLayer.wake``."""
        self._wake_count += 1
        for wake in list(self._wakes):
            wake.set()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _encode(self, message: Message) -> bytes:
        return self._seal.close(codec.encode(message, self.limits.max_message_size))

    def _fields(self, channel: str, message: Message, body: bytes | None = None) -> tuple[Any, ...]:
        if body is None:
            body = self._encode(message)
        reply = message.get("reply_channel")
        known = reply if isinstance(reply, str) else ""
        return entries.send_fields(channel, body, known, self._new_id(), self.limits)

    def _new_id(self) -> str:
        return f"{self._sessions[0].id}.{next(self._ids)}"

    def _bell(self, channel: str) -> bytes:
        return f"{self._prefix}b:{names.local_prefix(channel)}".encode()

    def _bells_of(self, channels: Sequence[str]) -> list[Key]:
        return [(self.server_of(name), self._bell(name)) for name in channels]

    def _start_thread(self) -> WakePipe:
        """This thread takes from now on."""
        with self._state:
            if self._keeper is None:
                self._start_worker()
        self._bells.prepare(range(len(self._sessions)))
        wake = self._local.wake = WakePipe()
        self._local.held = Held(self._sessions)
        self._local.wake_count = self._wake_count
        self._wakes.add(wake)
        return wake

    def _start_worker(self) -> None:
        name, run = os.environ.get(ENV_NAME), os.environ.get(ENV_RUN)
        for session in self._sessions:
            session.label = f"{name or 'a worker'} on {socket.gethostname()} (pid {os.getpid()})"
            session.slot = f"{run}.{name}" if name and run else ""
            session.close()
            session.is_worker = True  # says hello when it connects
        self._keeper = Keeper(self._sessions, self.claim_after)

    def _ended(self, sent: Sent, answer: Any) -> None:
        """The answer to a finish or defer."""
        channel = sent.entry.channel
        if answer == -1:
            logger.error("a message of %s was given to another worker: what this one sent is dropped", escape(channel))
        elif answer == -2:
            logger.warning("Redis has lost a message of %s that was run here: what it sent is dropped", escape(channel))
        elif isinstance(answer, list):
            for name, number in zip(answer[::2], answer[1::2], strict=True):
                if number < 0:
                    log_refused("of a finish", -number, name)
                else:
                    self._log_full(name.decode(), channel)

    def _log_full(self, channel: str, consumed: str) -> None:
        logger.error(
            "channel %s was full for %.0f s: a message that a consumer of %s sent to it is dropped",
            *(escape(channel), FULL_RETRY, escape(consumed)),
        )
