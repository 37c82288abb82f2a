"""Ordinary channels inside the hub: who waits for a message, who has it in flight, what happens when a worker dies.

Pure. Knows interfaces only as ``Entry.served``: what an offer's end means to its interface is told through
``on_ended``. Bounds: queues by the sender's capacity (offers of sockets by the interface, one per socket), parked sends
one per connection and channel, receivers one per request of a connection.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from procman.layers.ipc import frames
from procman.layers.ipc.peers import Entry, Frame, Log, Parked, Peer, Receiver
from procman.layers.ipc.timers import Timers
from procman.layers.mailbox import Mailbox
from procman.log import escape

SWEEP_INTERVAL = 1.0
ALONG = 0.05
# Workers that are killed together (deploys, the OOM killer) do not end in one moment: a message given to one that is
# already dying would count as the death of two workers.
REDELIVERY_PAUSE = 0.1
# A consumer that defers again and again must not spin its worker.
_DEFER_FIRST, _DEFER_LONGEST = 0.01, 0.5
DONE, LOST, EXPIRED, DROPPED = "done", "lost", "expired", "dropped"


class Switch:
    """Queues, receivers, takers and the messages in flight.

    ``on_ended(entry, how, now)`` hears of the end of every message; ``on_begun(entry)`` of each that is not
    redeliverable, before it is handed out; ``on_room(queue, now)`` of every message that left a queue.
    """

    __slots__ = (
        "_along",
        "_on_begun",
        "_on_ended",
        "_on_room",
        "_receivers",
        "_sweep_is_due",
        "dirty",
        "dropped_count",
        "in_flight",
        "logs",
        "mailbox",
        "now",
        "parked",
        "redelivered_count",
        "takers",
        "timers",
    )

    def __init__(
        self,
        on_ended: Callable[[Entry, str, float], None],
        on_begun: Callable[[Entry], None],
        on_room: Callable[[str, float], None],
    ) -> None:
        self._on_ended, self._on_begun, self._on_room = on_ended, on_begun, on_room
        self.timers = Timers()
        self.mailbox: Mailbox[Entry] = Mailbox(self._expired)
        self.in_flight: dict[str, Entry] = {}
        self.takers: dict[Peer, None] = {}
        self.parked: dict[str, deque[Parked]] = {}
        self.dirty: list[Peer] = []
        self.logs: list[Log] = []
        self._along: list[Peer] = []
        self.redelivered_count = self.dropped_count = 0
        self.now = 0.0
        self._receivers: dict[str, dict[Receiver, None]] = {}
        self._sweep_is_due = False

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

    def _push_rest(self, _: None, now: float) -> None:
        for peer in self._along:
            if peer.out and not peer.is_dirty:
                peer.is_dirty = True
                self.dirty.append(peer)
        self._along.clear()

    def log(self, level: int, text: str, *arguments: Any) -> None:
        """Have a record emitted; names in it are escaped."""
        self.logs.append(Log(level, text, tuple(escape(a) if isinstance(a, str) else a for a in arguments)))

    # -- waiting ----------------------------------------------------------------------------------------------------

    def enqueue(self, entry: Entry, now: float) -> None:
        """Hand *entry* to whoever waits for it, else queue it; capacity is the caller's question."""
        self.mailbox.count(entry.queue, now)
        if not self._hand_over(entry, now):
            entry.since = now
            self.mailbox.put_back(entry.queue, entry)
            self._want_sweep(now)

    def has_room(self, queue: str, capacity: int, now: float, more: int = 1) -> bool:
        """Whether *more* messages fit; somebody who waits for one makes room for it."""
        return self.mailbox.has_room(queue, capacity, now, more) or (more == 1 and self._is_awaited(queue))

    def receive(self, peer: Peer, rid: int, channels: Sequence[str], timeout: float | None, now: float) -> None:
        """Answer *rid* with a message of *channels*: at once, or within *timeout* (0: not at all) seconds."""
        entry = self.mailbox.pop_any(channels, now)
        if entry is not None:
            self._answer_receiver(peer, rid, entry, now)
            self._left(entry.queue, now)
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
            waiting = self.parked[parked.entry.queue]
            waiting.remove(parked)
            if not waiting:
                del self.parked[parked.entry.queue]

    def park(self, parked: Parked) -> None:
        """Keep a send until its channel has room."""
        parked.peer.parked[parked.rid] = parked
        self.parked.setdefault(parked.entry.queue, deque()).append(parked)

    # -- workers ----------------------------------------------------------------------------------------------------

    def take(self, peer: Peer, now: float) -> None:
        """*peer* is idle: give it a message of its channels, or the next that comes."""
        if peer.holds:  # a delivery has crossed this request
            return
        if peer.finishing is not None:
            peer.wants_more = True
            return
        entry = self.mailbox.pop_any(peer.channels, now)
        if entry is None:
            self.takers[peer] = None
            if peer.out and not peer.is_dirty:
                peer.is_dirty = True
                self.dirty.append(peer)
        else:
            self._deliver(entry, peer)
            self._left(entry.queue, now)

    def untake(self, peer: Peer) -> None:
        """*peer* is not idle any more; the answer stands behind a delivery that crossed this."""
        self.takers.pop(peer, None)
        peer.wants_more = False
        self.push(peer, (frames.UNTAKEN,))

    def claim(self, entry: Entry, peer: Peer) -> None:
        """*peer* has *entry* in flight."""
        entry.holder = peer
        peer.holds[entry.key] = entry
        self.in_flight[entry.key] = entry

    def release(self, entry: Entry) -> None:
        """*entry* has been finished or given back by its worker."""
        self.in_flight.pop(entry.key, None)
        if entry.holder is not None:
            entry.holder.holds.pop(entry.key, None)
            entry.holder = None

    def unqueue(self, entry: Entry) -> None:
        """Take *entry* from where it waits."""
        self.timers.cancel(entry.timer)
        entry.timer = None
        self.mailbox.remove(entry.queue, entry)

    def defer(self, entry: Entry, body: bytes, now: float) -> None:
        """*entry* runs again as *body*, behind the others, after a pause that grows with each deferral."""
        self.release(entry)
        entry.body = body
        entry.deferrals += 1
        pause = min(_DEFER_LONGEST, _DEFER_FIRST * 2 ** min(entry.deferrals - 1, 10))
        entry.timer = self.timers.add(now + pause, self._deferral_is_over, entry)

    def worker_lost(self, entry: Entry, peer: Peer, now: float) -> None:
        """The connection of *peer* ended while it had *entry* in flight: once more, or the end."""
        self.in_flight.pop(entry.key, None)
        entry.holder = None
        if entry.is_flushed:
            self._end(entry, DROPPED, now)
        elif entry.body is not None and entry.is_redeliverable and entry.deaths == 0:
            entry.deaths = 1
            self.redelivered_count += 1
            self.log(
                logging.WARNING,
                "%s (pid %d) died while it ran a message of %s (reply channel %s); another worker gets it",
                *(peer.label, peer.pid, entry.channel, entry.reply_channel or "none"),
            )
            entry.timer = self.timers.add(now + REDELIVERY_PAUSE, self._redeliver, entry)
        else:
            self.dropped_count += 1
            self.log(
                logging.ERROR,
                "%s (pid %d) died while it ran a message of %s (reply channel %s); the message is dropped: %s",
                *(peer.label, peer.pid, entry.channel, entry.reply_channel or "none"),
                "it cannot be run twice" if not entry.is_redeliverable else "its second worker died too",
            )
            self._end(entry, LOST, now)

    def disconnected(self, peer: Peer, now: float) -> None:
        """Forget what *peer* waits for and take back what it had in flight."""
        self.takers.pop(peer, None)
        for rid in [*peer.receivers, *peer.parked]:
            self.cancel(peer, rid)
        held, peer.holds = list(peer.holds.values()), {}
        for entry in held:
            self.worker_lost(entry, peer, now)

    # -- all at once --------------------------------------------------------------------------------------------------

    def flush(self, now: float) -> None:
        """Drop what waits; what is in flight will not be redelivered."""
        waiting = [entry for queue in self.mailbox.queues.values() for entry in queue]
        self.mailbox.clear()
        for entry in self.in_flight.values():
            entry.is_flushed = True
        for entry in waiting:
            self._end(entry, LOST, now)
        for queue in list(self.parked):
            for parked in self.parked.pop(queue):
                del parked.peer.parked[parked.rid]
                self.push(parked.peer, (frames.OK, parked.rid, None))

    def sweep(self, now: float) -> None:
        """Drop what has expired."""
        self.now = now
        self.mailbox.sweep(now)
        for queue in list(self.parked):
            self._left(queue, now)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _is_awaited(self, queue: str) -> bool:
        if queue in self._receivers:
            return True
        return any(queue in peer.channels for peer in self.takers)

    def _hand_over(self, entry: Entry, now: float) -> bool:
        receivers = self._receivers.get(entry.queue)
        if receivers:
            receiver = next(iter(receivers))
            self._forget_receiver(receiver)
            self._answer_receiver(receiver.peer, receiver.rid, entry, now)
            return True
        # The worker that became idle last has the warmest caches.
        for peer in reversed(self.takers):
            if entry.queue in peer.channels:
                del self.takers[peer]
                self._deliver(entry, peer)
                return True
        return False

    def _deliver(self, entry: Entry, peer: Peer) -> None:
        self.claim(entry, peer)
        if entry.served is not None and not entry.is_redeliverable:
            self._on_begun(entry)
        self.push(peer, (frames.DELIVER, entry.key, entry.channel, entry.body, entry.deaths, entry.session))

    def _answer_receiver(self, peer: Peer, rid: int, entry: Entry, now: float) -> None:
        self.push(peer, (frames.OK, rid, (entry.channel, entry.body)))
        self._end(entry, DONE, now)

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

    def _redeliver(self, entry: Entry, now: float) -> None:
        entry.timer = None
        _renew(entry, now)
        if not self._hand_over(entry, now):
            self.mailbox.put_front(entry.queue, entry)
            self._want_sweep(now)

    def _deferral_is_over(self, entry: Entry, now: float) -> None:
        entry.timer = None
        _renew(entry, now)
        if not self._hand_over(entry, now):
            self.mailbox.put_back(entry.queue, entry)
            self._want_sweep(now)

    def _left(self, queue: str, now: float) -> None:
        """A message has left *queue*: what waits for room there may go on."""
        self._on_room(queue, now)
        waiting = self.parked.get(queue)
        while waiting:
            parked = waiting[0]
            if not self.has_room(queue, parked.peer.limits.capacity_of(parked.entry.channel), now):
                return
            waiting.popleft()
            if not waiting:
                del self.parked[queue]
            del parked.peer.parked[parked.rid]
            parked.entry.deadline = now + parked.peer.limits.expiry
            self.push(parked.peer, (frames.OK, parked.rid, None))
            self.enqueue(parked.entry, now)
            waiting = self.parked.get(queue)

    def _end(self, entry: Entry, how: str, now: float) -> None:
        self._on_ended(entry, how, now)

    def _expired(self, entry: Entry) -> None:
        self._end(entry, EXPIRED, self.now)

    def _want_sweep(self, now: float) -> None:
        if not self._sweep_is_due:
            self._sweep_is_due = True
            self.timers.add(now + SWEEP_INTERVAL, self._periodic_sweep)

    def _periodic_sweep(self, _: None, now: float) -> None:
        self._sweep_is_due = False
        self.sweep(now)
        if self.mailbox.queues:
            self._want_sweep(now)


def _renew(entry: Entry, now: float) -> None:
    """Time in flight does not count: a message that waits again has all of its time again."""
    entry.deadline, entry.since = now + (entry.deadline - entry.since), now
