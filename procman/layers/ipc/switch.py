"""Workers inside the hub: who takes, who has what in flight, what happens when one dies.

Pure. A worker whose messages are short gets several at a time (``prefetch.py``): the first of what it holds runs, the
others are in flight too but not begun, and come back without an attempt counted. Knows interfaces only as
``Entry.served``: what an offer's end means to its interface is told through ``on_ended``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from procman.layers.ipc import frames, prefetch
from procman.layers.ipc.bounds import size_of
from procman.layers.ipc.peers import UNKNOWN, Entry, Peer
from procman.layers.ipc.queues import DROPPED, LOST, Queues
from procman.layers.ipc.work import Work
from procman.layers.names import local_prefix
from procman.settings import LayerSettings

# Workers that are killed together (deploys, the OOM killer) do not end in one moment: a message given to one that is
# already dying would count as the death of two workers.
REDELIVERY_PAUSE = 0.1
# A consumer that defers again and again must not spin its worker.
_DEFER_FIRST, _DEFER_LONGEST = 0.01, 0.5


class Switch(Queues):
    """Queues, and the workers that take from them. ``on_begun(entry)`` hears of each message that is not redeliverable,
    before it is handed out, and of others when their first worker has died.
    """

    __slots__ = (
        "_ahead",
        "_on_begun",
        "_pausing",
        "_recall_is_due",
        "again",
        "dropped_count",
        "in_flight",
        "redelivered_count",
        "takers",
        "watchers",
        "work",
        "workers",
    )

    def __init__(
        self,
        on_ended: Callable[[Entry, str, float], None],
        on_begun: Callable[[Entry], None],
        on_room: Callable[[str, float], None],
        settings: LayerSettings,
    ) -> None:
        super().__init__(on_ended, on_room, settings)
        self._on_begun = on_begun
        self.in_flight: dict[str, Entry] = {}
        self.again: dict[str, Entry] = {}  # were in flight and will be: they pause (``timer``) or wait
        self.workers: dict[Peer, None] = {}
        self.watchers: dict[str, Peer] = {}  # by process
        self.takers: dict[Peer, None] = {}
        self._ahead: dict[Peer, None] = {}  # those that may hold messages which they have not begun
        self._pausing: dict[str, Entry] = {}  # of dead workers, not begun
        self.redelivered_count = self.dropped_count = 0
        self.work = Work()
        self._recall_is_due = False

    # -- workers ----------------------------------------------------------------------------------------------------

    def take(self, peer: Peer, now: float) -> None:
        """*peer* is idle: give it a message of its channels, or the next that comes."""
        if peer.holds:  # a delivery has crossed this request
            return
        if peer.finishing:
            self._take_for_room(peer, now)
            return
        entry = self.mailbox.pop_any(peer.channels, now)
        if entry is None:
            self.takers[peer] = None
            if peer.is_ack_urgent and not peer.is_dirty:
                peer.is_dirty = True
                self.dirty.append(peer)
        else:
            self._deliver(entry, peer)
            ahead = self._deliver_ahead(entry, peer, now)
            for queue in (entry.queue, *ahead):
                self.left(queue, now)

    def _take_for_room(self, peer: Peer, now: float) -> None:
        """*peer* waits for room in channels: give it a message of these, if it reads them.

        Where workers feed a channel that only they read, all of them would wait for each other until time is up.
        """
        sends = [send for batch in peer.finishing for send in batch.sends]
        queues = {local_prefix(name) for name, _, is_group in sends if not is_group} & peer.channels
        entry = self.mailbox.pop_any(queues, now)
        peer.wants_more = entry is None
        if entry is not None:
            self._deliver(entry, peer)
            self.left(entry.queue, now)

    def untake(self, peer: Peer) -> None:
        """*peer* is not idle any more; the answer stands behind a delivery that crossed this."""
        self.takers.pop(peer, None)
        peer.wants_more = False
        self.push(peer, (frames.UNTAKEN,))

    def claim(self, entry: Entry, peer: Peer) -> None:
        """*peer* has *entry* in flight, and may have begun with it."""
        self.again.pop(entry.key, None)
        if not peer.holds:  # how long it has run already nobody knows here
            peer.pace.since = self.now
        entry.holder, entry.sequence, entry.is_begun = peer, 0, True
        peer.holds[entry.key] = entry
        self.in_flight[entry.key] = entry

    def release(self, entry: Entry) -> None:
        """*entry* has been finished or given back by its worker, which goes on with the next that it has."""
        self.in_flight.pop(entry.key, None)
        peer, entry.holder = entry.holder, None
        if peer is not None:
            peer.holds.pop(entry.key, None)
            self.work.add(peer, self.now)
            peer.pace.measure(self.now)
            for following in peer.holds.values():
                following.is_begun = True
                break

    def recalled(self, peer: Peer, begun: int, last: int, now: float) -> None:
        """*peer* gives back its deliveries after *begun* up to *last*: they go before the others."""
        returned = [entry for entry in peer.holds.values() if begun < entry.sequence <= last]
        for entry in returned:
            del peer.holds[entry.key], self.in_flight[entry.key]
            entry.holder = None
        self.put_first(returned, now)

    def unqueue(self, entry: Entry) -> None:
        """Take *entry* from where it waits."""
        self.timers.cancel(entry.timer)
        entry.timer = None
        if self._pausing.pop(entry.key, None) is None:
            self.mailbox.remove(entry.queue, entry)

    def defer(self, entry: Entry, body: bytes, now: float) -> None:
        """*entry* runs again as *body*, behind the others, after a pause that grows with each deferral."""
        self.release(entry)
        entry.body = body
        self.ledger.add(entry, size_of(body, entry.session))
        self.again[entry.key] = entry
        entry.deferrals += 1
        pause = min(_DEFER_LONGEST, _DEFER_FIRST * 2 ** min(entry.deferrals - 1, 10))
        entry.timer = self.timers.add(now + pause, self._deferral_is_over, entry)

    def excuse(self, process: str) -> None:
        """*process* ends on purpose: what its workers have in flight then was not tried."""
        for worker in self.workers:
            if worker.process == process:
                worker.is_excused = True

    def worker_lost(self, entry: Entry, peer: Peer, now: float) -> None:
        """The connection of *peer* ended while it had *entry* in flight: once more, or the end."""
        self.in_flight.pop(entry.key, None)
        entry.holder = None
        if entry.is_flushed:
            self.end(entry, DROPPED, now)
        elif entry.body is not None and entry.is_redeliverable and (peer.is_excused or entry.deaths <= 0):
            entry.deaths = (entry.deaths or UNKNOWN) if peer.is_excused else 1
            if entry.served is not None:  # a hub that follows this one hears of it
                self._on_begun(entry)
            self.redelivered_count += 1
            self.log(
                logging.WARNING,
                "%s (pid %d) died while it ran a message of %s (reply channel %s); another worker gets it",
                *(peer.label, peer.pid, entry.channel, entry.reply_channel or "none"),
            )
            self.again[entry.key] = entry
            entry.timer = self.timers.add(now + REDELIVERY_PAUSE, self._redeliver, entry)
        else:
            if entry.body is None:
                reason = "it was given out by a layer that has died since, and nobody else holds it"
            elif entry.is_redeliverable:
                reason = "its second worker died too"
            else:
                reason = "it cannot be run twice"
            self.dropped_count += 1
            self.log(
                logging.ERROR,
                "%s (pid %d) died while it ran a message of %s (reply channel %s); the message is dropped: %s",
                *(peer.label, peer.pid, entry.channel, entry.reply_channel or "none", reason),
            )
            self.end(entry, LOST, now)

    def disconnected(self, peer: Peer, now: float) -> None:
        """Forget what *peer* waits for and take back what it had in flight."""
        self.takers.pop(peer, None)
        for rid in [*peer.receivers, *peer.parked]:
            self.cancel(peer, rid)
        self.workers.pop(peer, None)
        self._ahead.pop(peer, None)
        if self.watchers.get(peer.process) is peer:
            del self.watchers[peer.process]
            for worker in self.workers:  # a request to give something back may have been lost with it
                if worker.process == peer.process and len(worker.holds) > 1:
                    self._ahead[worker] = None
                    self._want_recall(now)
        held, peer.holds = list(peer.holds.values()), {}
        if held:
            self.work.add(peer, now, deliveries=0)
        fetched = [entry for entry in held if not entry.is_begun]
        if fetched:
            # First among what is due then, so that a message that had begun comes before it again.
            self.timers.add(now + REDELIVERY_PAUSE, self._pause_is_over, fetched)
        for entry in fetched:
            del self.in_flight[entry.key]
            entry.holder = None
            self._pausing[entry.key] = self.again[entry.key] = entry
        for entry in held:
            if entry.is_begun:
                self.worker_lost(entry, peer, now)

    # -- all at once --------------------------------------------------------------------------------------------------

    def flush(self, now: float) -> None:
        """Drop what waits or pauses; what is in flight will not be redelivered."""
        waiting = [entry for queue in self.mailbox.queues.values() for entry in queue]
        waiting.extend(self._pausing.values())
        for entry in self.again.values():
            if entry.timer is not None:
                self.timers.cancel(entry.timer)
                entry.timer = None
                waiting.append(entry)
        self._pausing.clear()
        self.mailbox.clear()
        for peer in self._ahead:
            self._recall(peer)
        for entry in self.in_flight.values():
            entry.is_flushed = True
        for entry in waiting:
            self.end(entry, LOST, now)
        for queue in list(self.parked):
            for parked in self.parked.pop(queue):
                del parked.peer.parked[parked.rid]
                self.ledger.remove(parked.entry)
                self.push(parked.peer, (frames.OK, parked.rid, None))

    # -- inside -------------------------------------------------------------------------------------------------------

    def hand_to_worker(self, entry: Entry) -> bool:
        # The worker that became idle last has the warmest caches.
        for peer in reversed(self.takers):
            if entry.queue in peer.channels:
                del self.takers[peer]
                self._deliver(entry, peer)
                return True
        return False

    def is_taken(self, queue: str) -> bool:
        return any(queue in peer.channels for peer in self.takers)

    def _deliver(self, entry: Entry, peer: Peer) -> None:
        if self.again:
            self.again.pop(entry.key, None)
        if not peer.holds:
            peer.pace.since = self.now
            entry.is_begun = True
        else:
            entry.is_begun = False
        peer.sequence += 1
        entry.holder, entry.sequence = peer, peer.sequence
        peer.holds[entry.key] = self.in_flight[entry.key] = entry
        if entry.served is not None and not entry.is_redeliverable:
            self._on_begun(entry)
        peer.has_delivery = True
        self.push(peer, (frames.DELIVER, entry.key, entry.channel, entry.body, entry.deaths, entry.session))

    def _deliver_ahead(self, first: Entry, peer: Peer, now: float) -> list[str]:
        """Give *peer* more with *first*, if what it runs is short; the queues that they came from."""
        waiting = self.mailbox.queues.get(first.queue)
        if waiting is None or peer.process not in self.watchers:
            return []
        left: list[str] = []
        size = len(first.body or b"")
        for _ in range(peer.pace.ahead(len(waiting), len(self.workers))):
            entry = self.mailbox.pop_any(peer.channels, now)
            if entry is None:
                break
            size += len(entry.body or b"")
            # What must not run twice is given to idle workers only: whoever has it has begun it.
            if not entry.is_redeliverable or size > prefetch.MAX_BYTES:
                self.mailbox.put_front(entry.queue, entry)
                break
            self._deliver(entry, peer)
            left.append(entry.queue)
        if left:
            self._ahead[peer] = None
            self._want_recall(now)
        return left

    def _want_recall(self, now: float) -> None:
        if not self._recall_is_due:
            self._recall_is_due = True
            self.timers.add(now + prefetch.RECALL_AFTER, self._recall_overdue)

    def _recall_overdue(self, _: None, now: float) -> None:
        """Call back what waits behind long messages, at most once per message."""
        self._recall_is_due = False
        for peer in list(self._ahead):
            if len(peer.holds) < 2 or (peer.pace.is_overdue(now) and self._recall(peer)):
                del self._ahead[peer]
        if self._ahead:
            self._want_recall(now)

    def _recall(self, peer: Peer) -> bool:
        watcher = self.watchers.get(peer.process)
        if watcher is None:
            return False
        self.push(watcher, (frames.RECALL, peer.number, peer.sequence))
        return True

    def put_first(self, entries: Sequence[Entry], now: float) -> None:
        """Hand out *entries*, which no worker has begun, or queue them before the others; no attempt is counted."""
        waiting = []
        for entry in entries:
            if entry.is_flushed:
                self.end(entry, LOST, now)
            elif not self.hand_over(entry, now):
                self.again[entry.key] = entry
                waiting.append(entry)
        for entry in reversed(waiting):
            self.mailbox.put_front(entry.queue, entry)
        if waiting:
            self.want_sweep(now)

    def _pause_is_over(self, entries: list[Entry], now: float) -> None:
        self.put_first([entry for entry in entries if self._pausing.pop(entry.key, None) is not None], now)

    def _redeliver(self, entry: Entry, now: float) -> None:
        entry.timer = None
        _renew(entry, now)
        if not self.hand_over(entry, now):
            self.mailbox.put_front(entry.queue, entry)
            self.want_sweep(now)

    def _deferral_is_over(self, entry: Entry, now: float) -> None:
        entry.timer = None
        _renew(entry, now)
        if not self.hand_over(entry, now):
            self.mailbox.put_back(entry.queue, entry)
            self.want_sweep(now)


def _renew(entry: Entry, now: float) -> None:
    """Time in flight does not count: a message that waits again has all of its time again."""
    entry.deadline, entry.since = now + (entry.deadline - entry.since), now
