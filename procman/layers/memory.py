"""A channel layer inside one process: for tests, for trying things out, and for ``manage.py runserver``.

Nothing survives the process and no other process sees it; ``checks.py`` warns where several processes would need one
layer. The rules are the hub's (``local.py``), so that a message whose thread ends before it has finished with it goes
to another thread, as the message of a process that dies does over IPC. ``memory_aio.py`` is the interface's side.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from procman.clock import Clock, SystemClock
from procman.layers import codec, names
from procman.layers.base import ChannelLayer, Delivery, Message, Send
from procman.layers.errors import LayerUnavailable
from procman.layers.ipc import frames
from procman.layers.ipc.peers import Frame
from procman.layers.limits import CAPACITY, EXPIRY, GROUP_EXPIRY, MAX_MESSAGE_SIZE, Limits
from procman.layers.local import Desk, LocalHub

_RID = 1


class InMemoryChannelLayer(names.NameRules, ChannelLayer):
    """The contract without processes. Arguments as for every layer; *clock* is for tests that move the time."""

    def __init__(
        self,
        expiry: float = EXPIRY,
        group_expiry: float = GROUP_EXPIRY,
        capacity: int = CAPACITY,
        channel_capacity: Mapping[Any, int] | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
        prefix: str = "",
        clock: Clock | None = None,
    ) -> None:
        del prefix
        self.limits = Limits(expiry, group_expiry, capacity, channel_capacity, max_message_size)
        self.expiry, self.group_expiry, self.capacity = expiry, group_expiry, capacity
        self.channel_capacity = dict(channel_capacity or {})
        self.local = LocalHub(clock)  # before all desks, so that they end after it: see Desk.__del__
        # Requests that are answered at once are all threads' one client; what waits has a client per thread.
        self._requests = Desk(self.local, frames.CLIENT, self.limits, "a thread of this process")
        self._threads = threading.local()
        self._takers: weakref.WeakSet[Desk] = weakref.WeakSet()
        self._rids, self._parts = itertools.count(_RID + 1), itertools.count(1)

    def get_capacity(self, channel: str) -> int:
        """How many messages may wait on *channel*."""
        return self.limits.capacity_of(channel)

    # -- everybody ----------------------------------------------------------------------------------------------------

    def send(self, channel: str, message: Message) -> None:
        names.check_channel(channel)
        self._request(frames.SEND, channel, self._encode(message), frames.reply_channel_of(message))

    def send_and_wait(self, channel: str, message: Message, timeout: float | None = None) -> None:
        names.check_channel(channel)
        self._waiting_request(timeout, frames.SEND_AND_WAIT, channel, self._encode(message), str(next(self._parts)))

    def receive_many(
        self, channels: Sequence[str], block: bool = False, timeout: float | None = None
    ) -> tuple[str | None, dict[str, Any] | None]:
        wanted = names.check_receive(channels)
        found = self._request(frames.RECEIVE, wanted, False, None)
        if found is None and block and timeout != 0:
            try:
                found = self._waiting_request(timeout, frames.RECEIVE, wanted, True, None)
            except LayerUnavailable:
                found = None
        return (None, None) if found is None else (found[0], codec.decode(found[1]))

    def new_channel(self, pattern: str) -> str:
        return names.build_channel(pattern)

    def group_add(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        self._request(frames.GROUP_ADD, group, channel)

    def group_discard(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        self._request(frames.GROUP_DISCARD, group, channel)

    def send_group(self, group: str, message: Message) -> None:
        names.check_group(group)
        self._request(frames.GROUP_SEND, group, self._encode(message))

    def group_channels(self, group: str) -> list[str]:
        names.check_group(group)
        channels: list[str] = codec.decode(self._request(frames.GROUP_CHANNELS, group))["channels"]
        return channels

    def group_count(self, group: str) -> int:
        names.check_group(group)
        count: int = self._request(frames.GROUP_COUNT, group)
        return count

    def flush(self) -> None:
        self._request(frames.FLUSH)

    def statistics(self) -> dict[str, Any]:
        return codec.decode(self._request(frames.STATISTICS, None))

    def channel_statistics(self, channel: str) -> dict[str, Any]:
        names.check_channel(channel)
        return codec.decode(self._request(frames.STATISTICS, channel))

    # -- workers ------------------------------------------------------------------------------------------------------

    def take(self, channels: Sequence[str], timeout: float | None = None) -> Delivery | None:
        wanted = tuple(channels)
        desk = self._desk(frames.WORKER)
        if self._threads.channels != wanted:
            asked: Frame = (frames.TAKE, names.check_receive(wanted))
            self._threads.channels = wanted
        else:
            asked = _TAKE_AGAIN
        until = None if timeout is None else SystemClock.monotonic() + timeout
        arrived = _delivery(self.local.call(desk.peer, asked))
        while arrived is None:
            frame = self.local.wait(desk, until, lambda: desk.is_woken)
            if frame is not None:
                arrived = _delivery([frame])
                continue
            # A delivery may have come before the hub heard that this thread does not wait any more.
            answers = self.local.call(desk.peer, _UNTAKE)
            arrived = _delivery([*desk.take_all(), *answers])
            if arrived is None:
                desk.is_woken = False
                return None
        _, key, channel, body, deaths, session = arrived
        return Delivery(channel, codec.decode(body), key, deaths > 0, session, key)

    def finish(self, delivery: Delivery, sends: Sequence[Send] = (), session: bytes | None = None) -> None:
        batch = [(names.plain(name), self._encode(message), is_group) for name, message, is_group in sends]
        desk = self._desk(frames.WORKER)
        self.local.call(desk.peer, (frames.FINISH, delivery.token, batch, session, False))
        self.local.wait_finished(desk)

    def defer(self, delivery: Delivery, message: Message) -> None:
        self.local.call(self._desk(frames.WORKER).peer, (frames.DEFER, delivery.token, self._encode(message)))

    def wake(self) -> None:
        for desk in list(self._takers):
            desk.is_woken = True
            desk.nudge()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _encode(self, message: Message) -> bytes:
        return codec.encode(message, self.limits.max_message_size)

    def _desk(self, role: str) -> Desk:
        """This thread's own place at the hub in *role*."""
        desk: Desk | None = self._threads.__dict__.get(role)
        if desk is None:
            desk = Desk(self.local, role, self.limits, threading.current_thread().name)
            self._threads.__dict__[role] = desk
            if role == frames.WORKER:
                self._threads.channels = None
                self._takers.add(desk)
        return desk

    def _request(self, operation: int, *arguments: Any) -> Any:
        """The answer to a request that is answered at once."""
        return _value(self.local.call(self._requests.peer, (operation, _RID, *arguments))[-1])

    def _waiting_request(self, timeout: float | None, operation: int, *arguments: Any) -> Any:
        """The answer to a request that may take long. Raises LayerUnavailable after *timeout* seconds."""
        desk = self._desk(frames.CLIENT)
        desk.take_all()  # answers to what was given up
        rid = next(self._rids)
        until = None if timeout is None else SystemClock.monotonic() + timeout
        answers = self.local.call(desk.peer, (operation, rid, *arguments))
        is_waiting = True
        try:
            while not answers:
                frame = self.local.wait(desk, until)
                if frame is None:
                    break
                answers = [frame]
            is_waiting = not answers
        finally:
            if is_waiting:
                # The answer may have come before the hub heard that nobody waits for it any more.
                answers = [*self.local.call(desk.peer, (frames.CANCEL, rid)), *desk.take_all()]
        if not answers:
            raise LayerUnavailable(f"nothing was heard for {timeout} s")
        return _value(answers[-1])


def _delivery(arrived: Sequence[Frame]) -> Frame | None:
    for frame in arrived:
        if frame[0] == frames.DELIVER:
            return frame
    return None


def _value(frame: Frame) -> Any:
    if frame[0] == frames.ERROR:
        raise frames.build_error(frame[2], frame[3])
    return frame[2]


_TAKE_AGAIN = (frames.TAKE, None)
_UNTAKE = (frames.UNTAKE,)
