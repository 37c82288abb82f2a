"""The end of a delivery in the hub: a consumer's sends, applied all together or not yet.

Pure. Also the part of a restart that concerns finishes: one that is sent again may have been applied by the hub that
died, and only the interface that made the offer can tell.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from typing import Any

from procman.layers.ipc import frames
from procman.layers.ipc.bounds import MAX_FINISHES, OVERHEAD_BYTES, size_of
from procman.layers.ipc.peers import Batch, EarlyPart, EarlySend, Entry, Peer, Served
from procman.layers.ipc.registry import Registry
from procman.layers.names import local_prefix
from procman.settings import LayerSettings

GRACE = 1.0
# An interface that was stopped meanwhile (SIGSTOP, a busy machine) comes later than the others. Until it has told which
# of its offers are unfinished, a finish of one cannot be applied: it would be run and answered again.
LATE = 10.0
FULL_RETRY = 2.0
_REMEMBERED = 4096
_EARLY_GROUP_SENDS = 1000
_EARLY_PARTS = 64  # of up to 1 MiB each; their senders try again


class Finishes(Registry):
    """A registry that applies finishes."""

    def __init__(self, hub_id: str, now: float, settings: LayerSettings) -> None:
        super().__init__(hub_id, settings)
        self.grace_end, self.late_end = now + GRACE, now + LATE
        self.waiting: dict[str, Batch] = {}  # for room
        self.unsure: dict[str, Batch] = {}  # sent again, and their interface has not reported yet
        self._resolved: OrderedDict[str, None] = OrderedDict()  # finishes that were sent again, and decided
        self._early_group_sends: list[EarlySend] = []
        self._early_parts: list[EarlyPart] = []  # their interface has not come yet
        self.switch.timers.add(self.grace_end, self._grace_is_over)
        self.switch.timers.add(self.late_end, self._nobody_comes)

    def finish(
        self, peer: Peer, key: str, sends: list[Any], session: bytes | None, is_resent: bool, now: float
    ) -> None:
        """*peer* has finished the message *key*; the first finish of a message counts."""
        entry = self.switch.in_flight.get(key)
        pending = self.waiting.get(key) or self.unsure.get(key)
        if pending is not None:
            if entry is not None:  # its holder ends a second time what had its end
                self.switch.release(entry)
                self.after_end(entry, now)
            if peer not in pending.peers:
                pending.peers.append(peer)
            return
        if entry is not None:
            self.switch.release(entry)
        else:
            entry = self._waiting_offer(key)
        batch = Batch(key, entry, sends, session, peer.limits, peer.label, [peer])
        if entry is not None and entry.body is None and self._may_be_offered(key, now):
            self.after_end(entry, now)
            batch.entry = None
            self._keep_unsure(batch, now)
            return
        if entry is None and not self._is_unknown_work(batch, is_resent, now):
            return
        self.complete(batch, now)

    def is_ended(self, key: str) -> bool:
        """Whether a finish of *key* has come."""
        return key in self.waiting or key in self.unsure or key in self._resolved

    def complete(self, batch: Batch, now: float) -> None:
        """Apply *batch* when there is room for all its sends; meanwhile its worker gets nothing else."""
        if not batch.sends or self._has_room(batch, now):
            self.apply(batch, now)
            return
        size = _size_of_batch(batch)
        if not self._may_wait(self.waiting, size - batch.size):
            self.apply(batch, now)
        else:
            self.ledger.add(batch, size)
            self.waiting[batch.key] = batch
            for peer in batch.peers:
                peer.finishing[batch] = None
            batch.timer = self.switch.timers.add(now + FULL_RETRY, self._room_did_not_come, batch)

    def on_room(self, queue: str, now: float) -> None:
        if self.waiting:
            for batch in list(self.waiting.values()):
                if batch.key in self.waiting and self._has_room(batch, now):
                    self.apply(batch, now)

    def apply(self, batch: Batch, now: float) -> None:
        """Carry out the sends in order, then end the message."""
        if self.waiting.pop(batch.key, None) is not None:
            self.switch.timers.cancel(batch.timer)
            self.ledger.remove(batch)
        entry = batch.entry
        own = entry.served if entry is not None else None
        if own is not None and not own.is_alive:
            own = None
        inside: list[Any] = []  # what the offer's own interface gets, in one frame with the end
        refused: dict[str, int] = {}
        for send in batch.sends:
            name, body, is_group = send
            if is_group:
                if own is not None and self.members.has(name, own.name):
                    inside.append(send)
                self.group_send(name, body, batch.peers[0], now, own)
            elif own is not None and self.owner(name) is own:
                inside.append(send)
            elif not self._put(name, body, batch, now):
                refused[name] = refused.get(name, 0) + 1
        for name, count in refused.items():
            self.switch.log(
                logging.ERROR,
                "channel %s stayed full: %d message(s) that a consumer of %s in %s sent to it are dropped",
                *(name, count, entry.channel if entry else "a message", batch.label),
            )
        if entry is not None:
            if batch.session is not None:
                self.store_session(entry, batch.session)
            if entry.served is not None:
                entry.served.offers.pop(entry.offer_id, None)
            if own is not None:
                self.switch.push(own.peer, (frames.FINISHED, entry.offer_id, batch.session, inside))
            self.after_end(entry, now)
        if len(inside) < len(batch.sends) or any(is_group for _, _, is_group in inside):
            # Should the hub die, its successor would apply them again: the worker has to know before anybody gets them.
            self.switch.has_sent = True
            for peer in batch.peers:
                self.switch.hurry(peer)
        self._acknowledge(batch, now)

    def flush_finishes(self, now: float) -> None:
        """End the finishes that wait for room: of their sends, those to live interfaces are not messages that wait."""
        for batch in list(self.waiting.values()):
            batch.sends = [send for send in batch.sends if not send[2] and self.owner(send[0]) is not None]
            self.apply(batch, now)
        self._grace_is_over(None, now)

    def group_send(self, group: str, body: bytes, peer: Peer, now: float, own: Served | None = None) -> None:
        """One frame per interface with members (not to *own*, which gets it with a finish); others an ordinary send."""
        frame = (frames.HELD_SEND, group, body)
        is_early = now < self.grace_end
        for name in self.members.interfaces(group):
            served = self.interfaces[name]
            if served is not own and (served.has_reported or not is_early):
                self.switch.push(served.peer, frame)
        if is_early and len(self._early_group_sends) < _EARLY_GROUP_SENDS and self.ledger.fits(size_of(body)):
            # Interfaces that have not reported yet may hold members.
            early = EarlySend(group, body)
            self.ledger.add(early, size_of(body))
            self._early_group_sends.append(early)
        if len(self.ordinary):
            self.send_to_ordinary(group, body, peer, now)

    def reported(self, served: Served, now: float) -> None:
        """*served* has told everything it holds: give it what has waited for that."""
        prefix = served.name + "!"
        if now < self.grace_end:
            for early in self._early_group_sends:
                if self.members.has(early.group, served.name):
                    self.switch.push(served.peer, (frames.HELD_SEND, early.group, early.body))
        # Those that were added meanwhile got these sends into the queue that follows.
        for group, channel in self.ordinary.take_prefix(prefix):
            self.group_add(group, channel, 0.0)
        # What a consumer has sent before its end goes before its finish.
        for entry in self.switch.mailbox.take_all(prefix):
            self.switch.push(served.peer, (frames.REPLY, entry.channel, entry.body))
            self.after_end(entry, now)
        parts, self._early_parts = self._early_parts, []
        for part in parts:
            if not part.channel.startswith(prefix):
                self._early_parts.append(part)
                continue
            self.ledger.remove(part)
            if part.peer.role:
                self.reply_and_wait(part.peer, part.rid, served, part.channel, part.body, part.key)
        served.has_reported = True
        for batch in [batch for batch in self.unsure.values() if _interface_of(batch.key) == served.name]:
            del self.unsure[batch.key]
            self.ledger.remove(batch)
            if batch.entry is not None:
                self.complete(batch, now)
            else:  # it had its finish already, hence the predecessor applied all of the batch
                self._acknowledge(batch, now)

    def receiver(self, channel: str) -> Served | None:
        """The live interface that owns *channel*, None before its report: what comes earlier waits for it, in order."""
        served = self.owner(channel)
        return served if served is not None and served.has_reported else None

    def keep_part(self, peer: Peer, rid: int, channel: str, body: bytes, key: str) -> None:
        """Have *peer* wait with a part until the interface of *channel* is there, or will not come."""
        if len(self._early_parts) < _EARLY_PARTS and self.ledger.fits(size_of(body)):
            part = EarlyPart(peer, rid, channel, body, key)
            self.ledger.add(part, size_of(body))
            self._early_parts.append(part)
        else:
            self.switch.push(peer, (frames.ERROR, rid, frames.FULL, (channel, _EARLY_PARTS)))

    # -- inside -------------------------------------------------------------------------------------------------------

    def _put(self, name: str, body: bytes, batch: Batch, now: float) -> bool:
        """One send to something else than the offer's own interface; False if its channel is full."""
        served = self.receiver(name)
        if served is not None:
            self.switch.push(served.peer, (frames.REPLY, name, body))
            return True
        if self.is_dead(name):
            self.dead_drop_count += 1
            return True
        queue = local_prefix(name)
        capacity, size = batch.limits.capacity_of(name), size_of(body)
        if self.switch.has_room(queue, capacity, now, size=size):
            deadline = now + batch.limits.expiry
            self.switch.enqueue(Entry(self.new_key(), name, queue, body, deadline=deadline, since=now), now)
            return True
        self.switch.dropped_count += 1
        self.refuse(name, size, capacity, now)
        return False

    def _has_room(self, batch: Batch, now: float) -> bool:
        ordinary = [
            (name, body)
            for name, body, is_group in batch.sends
            if not is_group and self.owner(name) is None and not self.is_dead(name)
        ]
        if not ordinary:  # replies, as a rule
            return True
        needed: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        capacities: dict[str, int] = {}
        for name, body in ordinary:
            queue = local_prefix(name)
            needed[queue] += 1
            sizes[queue] += size_of(body)
            capacities[queue] = batch.limits.capacity_of(name)
        if not self.ledger.fits(sizes.total() - batch.size):  # what it counts with now goes over into its messages
            return False
        # More sends to one channel than its capacity can never fit at once: they are applied when it is empty.
        return all(
            self.switch.has_place(queue, capacities[queue], now, min(count, capacities[queue]), sizes[queue])
            for queue, count in needed.items()
        )

    def _may_wait(self, waiting: dict[str, Batch], size: int) -> bool:
        """Whether one more finish of *size* bytes may wait among *waiting*."""
        return len(waiting) < MAX_FINISHES and self.ledger.fits_finish(size)

    def _keep_unsure(self, batch: Batch, now: float) -> None:
        """Keep *batch* until its interface has reported, or will not come."""
        size = _size_of_batch(batch)
        if self._may_wait(self.unsure, size):
            self.ledger.add(batch, size)
            self.unsure[batch.key] = batch
            return
        self.ledger.refused_count += 1
        self.switch.log(
            logging.ERROR,
            "the channel layer is full: %d send(s) of a consumer in %s that ended during a restart are dropped",
            *(len(batch.sends), batch.label),
        )
        self._acknowledge(batch, now)

    def _room_did_not_come(self, batch: Batch, now: float) -> None:
        if batch.key in self.waiting:
            self.apply(batch, now)

    def _acknowledge(self, batch: Batch, now: float) -> None:
        for peer in batch.peers:
            if not peer.role:
                continue
            # One write less per message. Should the hub die first, the finish is sent again: interfaces drop what they
            # have had; for a message that is no interface's nobody does, so an idle worker hears of it at once.
            self.switch.push_along(peer, (frames.ACK, batch.key), now)
            if batch.key.startswith("~"):
                peer.is_ack_urgent = True
            peer.finishing.pop(batch, None)
            if peer.wants_more and not peer.finishing:
                peer.wants_more = False
                self.switch.take(peer, now)

    def _waiting_offer(self, key: str) -> Entry | None:
        """The offer *key*, taken from where it waits to be handed out (again)."""
        entry = self.offered.get(key)
        if entry is not None:
            self.switch.unqueue(entry)
        return entry

    def _is_unknown_work(self, batch: Batch, is_resent: bool, now: float) -> bool:
        """Whether a finish of an unknown message is to be applied now; if not, it is acknowledged or kept."""
        key, interface = batch.key, _interface_of(batch.key)
        served = self.interfaces.get(interface)
        is_foreign = key.startswith("~") and interface != "~" + self.hub_id
        if key in self._resolved or not (is_foreign or is_resent or not key.startswith("~")):
            self._acknowledge(batch, now)
            return False
        if not is_foreign:
            if interface in self.dead or (served is not None and served.has_reported) or key.startswith("~"):
                self._acknowledge(batch, now)
                return False
            if now < self.late_end:
                self._keep_unsure(batch, now)
                return False
        self._remember(key)
        return True

    def _may_be_offered(self, key: str, now: float) -> bool:
        """Whether the interface that offered *key* to the predecessor may still report it as unfinished."""
        interface = _interface_of(key)
        served = self.interfaces.get(interface)
        is_awaited = served is None or not served.has_reported
        return is_awaited and now < self.late_end and interface not in self.dead and not key.startswith("~")

    def _remember(self, key: str) -> None:
        self._resolved[key] = None
        if len(self._resolved) > _REMEMBERED:
            self._resolved.popitem(last=False)

    def _grace_is_over(self, _: None, now: float) -> None:
        for early in self._early_group_sends:
            self.ledger.remove(early)
        self._early_group_sends.clear()

    def _nobody_comes(self, _: None, now: float) -> None:
        parts, self._early_parts = self._early_parts, []
        for part in parts:
            self.ledger.remove(part)
            if part.peer.role:
                self.switch.push(part.peer, (frames.ERROR, part.rid, frames.GONE, (part.channel,)))
        for batch in list(self.unsure.values()):
            del self.unsure[batch.key]
            self.ledger.remove(batch)
            self._remember(batch.key)
            # Its clients may have had their answers from the predecessor: should it come after all, not once more.
            own = _interface_of(batch.key) + "!"
            batch.sends = [send for send in batch.sends if send[2] or not send[0].startswith(own)]
            self.complete(batch, now)


def _interface_of(key: str) -> str:
    return key.rpartition(":")[0]


def _size_of_batch(batch: Batch) -> int:
    """What a finish counts with while it waits: at least what its messages will count with."""
    sends = sum(OVERHEAD_BYTES + len(name) + len(body) for name, body, _ in batch.sends)
    return size_of(None, batch.session) + sends
