"""What waits inside the hub: messages for somebody who takes them, blocked receivers, sends that wait for room.

Pure. Workers are ``switch.py``'s. Bounds: queues by the sender's capacity (offers of sockets by the interface, one per
socket), parked sends one per connection and channel; see ``bounds.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from procman.layers.ipc import frames
from procman.layers.ipc.bounds import Ledger, size_of
from procman.layers.ipc.peers import Entry, Frame, Log, Parked, Peer, Receiver
from procman.layers.ipc.timers import Timers
from procman.layers.mailbox import Mailbox
from procman.log import escape
from procman.settings import LayerSettings

SWEEP_INTERVAL = 1.0
ALONG = 0.05
DONE, LOST, EXPIRED, DROPPED = "done", "lost", "expired", "dropped"


class Queues:
    """Queues and receivers, and what is to be written and logged.

    ``on_ended(entry, how, now)`` hears of the end of every message; ``on_room(queue, now)`` of every message that left
    a queue.
    """

    __slots__ = (
        "_along",
        "_on_ended",
        "_on_room",
        "_receivers",
        "_sweep_is_due",
        "dirty",
        "expired_count",
        "has_sent",
        "ledger",
        "logs",
        "mailbox",
        "now",
        "parked",
        "timers",
    )

    def __init__(
        self,
        on_ended: Callable[[Entry, str, float], None],
        on_room: Callable[[str, float], None],
        settings: LayerSettings,
    ) -> None:
        self._on_ended, self._on_room = on_ended, on_room
        self.timers = Timers()
        self.ledger = Ledger(settings.layer_max_bytes)
        self.mailbox: Mailbox[Entry] = Mailbox(self._expired, settings.layer_max_channel_bytes)
        self.parked: dict[str, deque[Parked]] = {}
        self.dirty: list[Peer] = []
        self.has_sent = False  # a finish that is among what is to be written has put messages into queues
        self.logs: list[Log] = []
        self.expired_count = 0
        self.now = 0.0
        self._along: list[Peer] = []
        self._receivers: dict[str, dict[Receiver, None]] = {}
        self._sweep_is_due = False

    def hand_to_worker(self, entry: Entry) -> bool:
        """Give *entry* to an idle worker, if there is one for it."""
        raise NotImplementedError

    def is_taken(self, queue: str) -> bool:
        """Whether an idle worker takes from *queue*."""
        raise NotImplementedError

    # -- output -----------------------------------------------------------------------------------------------------

    def push(self, peer: Peer, frame: Frame) -> None:
        """Have *frame* written to *peer*."""
        if not peer.is_dirty:
            peer.is_dirty = True
            self.dirty.append(peer)
        peer.out.append(frame)

    def push_along(self, peer: Peer, frame: Frame, now: float) -> None:
        """Have *frame* written with the next one to *peer*, or soon: a write of its own costs a system call."""
        peer.out.append(frame)
        if not peer.is_dirty:
            self._along.append(peer)
            if len(self._along) == 1:
                self.timers.add(now + ALONG, self._push_rest)

    def hurry(self, peer: Peer) -> None:
        """Have what is to be written to *peer* leave now."""
        if not peer.is_dirty:
            peer.is_dirty = True
            self.dirty.append(peer)

    def _push_rest(self, _: None, now: float) -> None:
        for peer in self._along:
            if peer.out:
                self.hurry(peer)
        self._along.clear()

    def log(self, level: int, text: str, *arguments: Any) -> None:
        """Have a record emitted; names in it are escaped."""
        self.logs.append(Log(level, text, tuple(escape(a) if isinstance(a, str) else a for a in arguments)))

    # -- waiting ----------------------------------------------------------------------------------------------------

    def enqueue(self, entry: Entry, now: float) -> None:
        """Hand *entry* to whoever waits for it, else queue it; capacity is the caller's question."""
        self.mailbox.count(entry.queue, now)
        if not entry.size:
            size = entry.size = size_of(entry.body, entry.session)
            self.ledger.bytes += size
        if not self.hand_over(entry, now):
            entry.since = now
            self.mailbox.put_back(entry.queue, entry)
            self.want_sweep(now)

    def has_room(self, queue: str, capacity: int, now: float, more: int = 1, size: int = 0) -> bool:
        """Whether *more* messages of *size* bytes together fit, in their queue and in the layer."""
        if self.ledger.bytes + size > self.ledger.max_bytes:
            return False
        if queue not in self.mailbox.queues and more <= capacity:
            return True
        return self.has_place(queue, capacity, now, more, size)

    def has_place(self, queue: str, capacity: int, now: float, more: int, size: int) -> bool:
        """Whether *queue* takes them; somebody who waits for one makes room for it."""
        return self.mailbox.has_room(queue, capacity, now, more, size) or (more == 1 and self._is_awaited(queue))

    def receive(self, peer: Peer, rid: int, channels: Sequence[str], timeout: float | None, now: float) -> None:
        """Answer *rid* with a message of *channels*: at once, or within *timeout* (0: not at all) seconds."""
        entry = self.mailbox.pop_any(channels, now)
        if entry is not None:
            self._answer_receiver(peer, rid, entry, now)
            self.left(entry.queue, now)
        elif timeout is not None and timeout <= 0:
            self.push(peer, (frames.OK, rid, None))
        else:
            receiver = Receiver(peer, rid, list(channels))
            if timeout is not None:
                receiver.timer = self.timers.add(now + timeout, self._receiver_timed_out, receiver)
            peer.receivers[rid] = receiver
            for name in channels:
                self._receivers.setdefault(name, {})[receiver] = None

    def answer_receivers(self, is_meant: Callable[[str], bool], body: bytes) -> None:
        """Answer those who wait for a channel that *is_meant* with *body*."""
        for name in [name for name in self._receivers if is_meant(name)]:
            for receiver in list(self._receivers.get(name, ())):
                self._forget_receiver(receiver)
                self.push(receiver.peer, (frames.OK, receiver.rid, (name, body)))

    def cancel(self, peer: Peer, rid: int) -> None:
        """Forget the parked request *rid*, unanswered."""
        receiver = peer.receivers.get(rid)
        if receiver is not None:
            self._forget_receiver(receiver)
        parked = peer.parked.pop(rid, None)
        if parked is not None:
            self.ledger.remove(parked.entry)
            waiting = self.parked[parked.entry.queue]
            waiting.remove(parked)
            if not waiting:
                del self.parked[parked.entry.queue]

    def park(self, parked: Parked) -> None:
        """Keep a send until its channel has room."""
        self.ledger.add(parked.entry, size_of(parked.entry.body))
        parked.peer.parked[parked.rid] = parked
        self.parked.setdefault(parked.entry.queue, deque()).append(parked)

    def sweep(self, now: float) -> None:
        """Drop what has expired."""
        self.now = now
        self.mailbox.sweep(now)
        for queue in list(self.parked):
            self.left(queue, now)

    # -- for the subclass --

    def hand_over(self, entry: Entry, now: float) -> bool:
        """Give *entry* to whoever waits for it, if anybody does."""
        receivers = self._receivers.get(entry.queue)
        if receivers:
            receiver = next(iter(receivers))
            self._forget_receiver(receiver)
            self._answer_receiver(receiver.peer, receiver.rid, entry, now)
            return True
        return self.hand_to_worker(entry)

    # -- inside --

    def _is_awaited(self, queue: str) -> bool:
        return queue in self._receivers or self.is_taken(queue)

    def _answer_receiver(self, peer: Peer, rid: int, entry: Entry, now: float) -> None:
        self.push(peer, (frames.OK, rid, (entry.channel, entry.body)))
        self.end(entry, DONE, now)

    def _forget_receiver(self, receiver: Receiver) -> None:
        self.timers.cancel(receiver.timer)
        receiver.peer.receivers.pop(receiver.rid, None)
        for name in receiver.channels:
            waiting = self._receivers.get(name)
            if waiting is not None:
                waiting.pop(receiver, None)
                if not waiting:
                    del self._receivers[name]

    def _receiver_timed_out(self, receiver: Receiver, now: float) -> None:
        self._forget_receiver(receiver)
        self.push(receiver.peer, (frames.OK, receiver.rid, None))

    def left(self, queue: str, now: float) -> None:
        """A message has left *queue*: what waits for room there may go on."""
        self._on_room(queue, now)
        waiting = self.parked.get(queue)
        while waiting:
            parked = waiting[0]
            # Its bytes count already: what it has to wait for is its channel.
            capacity = parked.peer.limits.capacity_of(parked.entry.channel)
            if not self.has_place(queue, capacity, now, 1, parked.entry.size):
                return
            waiting.popleft()
            if not waiting:
                del self.parked[queue]
            del parked.peer.parked[parked.rid]
            parked.entry.deadline = now + parked.peer.limits.expiry
            self.push(parked.peer, (frames.OK, parked.rid, None))
            self.enqueue(parked.entry, now)
            waiting = self.parked.get(queue)

    def end(self, entry: Entry, how: str, now: float) -> None:
        self._on_ended(entry, how, now)

    def _expired(self, entry: Entry) -> None:
        self.expired_count += 1
        self.end(entry, EXPIRED, self.now)

    def want_sweep(self, now: float) -> None:
        if not self._sweep_is_due:
            self._sweep_is_due = True
            self.timers.add(now + SWEEP_INTERVAL, self._periodic_sweep)

    def _periodic_sweep(self, _: None, now: float) -> None:
        self._sweep_is_due = False
        self.sweep(now)
        if self.mailbox.queues:
            self.want_sweep(now)
