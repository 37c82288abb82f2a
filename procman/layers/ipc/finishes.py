"""The end of a delivery in the hub: a consumer's sends, applied all together or not yet.

Pure. Also the part of a restart that concerns finishes: one that is sent again may have been applied by the hub that
died, and only the interface that made the offer can tell.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from typing import Any

from procman.layers.ipc import frames
from procman.layers.ipc.peers import Batch, Entry, Peer, Served
from procman.layers.ipc.registry import Registry
from procman.layers.names import local_prefix

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

    def __init__(self, hub_id: str, now: float) -> None:
        super().__init__(hub_id)
        self.grace_end, self.late_end = now + GRACE, now + LATE
        self.waiting: dict[str, Batch] = {}  # for room
        self.unsure: dict[str, Batch] = {}  # sent again, and their interface has not reported yet
        self._resolved: OrderedDict[str, None] = OrderedDict()  # finishes that were sent again, and decided
        self._early_group_sends: list[tuple[str, bytes]] = []
        self._early_parts: list[tuple[Peer, int, str, bytes, str]] = []  # their interface has not come yet
        self.switch.timers.add(self.grace_end, self._grace_is_over)
        self.switch.timers.add(self.late_end, self._nobody_comes)

    def finish(
        self, peer: Peer, key: str, sends: list[Any], session: bytes | None, is_resent: bool, now: float
    ) -> None:
        """*peer* has finished the message *key*; the first finish of a message counts."""
        entry = self.switch.in_flight.get(key)
        pending = self.waiting.get(key) or self.unsure.get(key)
        if pending is not None:
            if peer not in pending.peers:
                pending.peers.append(peer)
            return
        if entry is not None:
            self.switch.release(entry)
        else:
            entry = self._waiting_offer(key)
        batch = Batch(key, entry, sends, session, peer.limits, peer.label, [peer])
        if entry is not None and entry.body is None and self._may_be_offered(key, now):
            batch.entry = None
            self.unsure[key] = batch
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
        else:
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
        entry = batch.entry
        own = entry.served if entry is not None else None
        if own is not None and not own.is_alive:
            own = None
        inside: list[Any] = []  # what the offer's own interface gets, in one frame with the end
        refused: Counter[str] = Counter()
        for send in batch.sends:
            name, body, is_group = send
            if is_group:
                if own is not None and self.members.has(name, own.name):
                    inside.append(send)
                self.group_send(name, body, batch.peers[0], now, own)
            elif own is not None and self.owner(name) is own:
                inside.append(send)
            elif not self._put(name, body, batch, now):
                refused[name] += 1
        for name, count in refused.items():
            self.switch.log(
                logging.ERROR,
                "channel %s was full for %.0f s: %d message(s) that a consumer of %s in %s sent to it are dropped",
                *(name, FULL_RETRY, count, entry.channel if entry else "a message", batch.label),
            )
        if entry is not None:
            if batch.session is not None:
                self.store_session(entry, batch.session)
            if entry.served is not None:
                entry.served.offers.pop(entry.offer_id, None)
            if own is not None:
                self.switch.push(own.peer, (frames.FINISHED, entry.offer_id, batch.session, inside))
            self.after_end(entry, now)
        self._acknowledge(batch, now)

    def group_send(self, group: str, body: bytes, peer: Peer, now: float, own: Served | None = None) -> None:
        """One frame per interface with members (not to *own*, which gets it with a finish); others an ordinary send."""
        frame = (frames.HELD_SEND, group, body)
        is_early = now < self.grace_end
        for name in self.members.interfaces(group):
            served = self.interfaces[name]
            if served is not own and (served.has_reported or not is_early):
                self.switch.push(served.peer, frame)
        if is_early and len(self._early_group_sends) < _EARLY_GROUP_SENDS:
            # Interfaces that have not reported yet may hold members.
            self._early_group_sends.append((group, body))
        if len(self.ordinary):
            self.send_to_ordinary(group, body, peer, now)

    def reported(self, served: Served, now: float) -> None:
        """*served* has told everything it holds: give it what has waited for that."""
        prefix = served.name + "!"
        if now < self.grace_end:
            for group, body in self._early_group_sends:
                if self.members.has(group, served.name):
                    self.switch.push(served.peer, (frames.HELD_SEND, group, body))
        # Those that were added meanwhile got these sends into the queue that follows.
        for group, channel in self.ordinary.take_prefix(prefix):
            self.group_add(group, channel, 0.0)
        # What a consumer has sent before its end goes before its finish.
        waiting = self.switch.mailbox.queues.pop(prefix, ())
        for entry in waiting:
            self.switch.push(served.peer, (frames.REPLY, entry.channel, entry.body))
        parts, self._early_parts = self._early_parts, []
        for part in parts:
            if not part[2].startswith(prefix):
                self._early_parts.append(part)
            elif part[0].role:
                peer, rid, channel, body, key = part
                self.reply_and_wait(peer, rid, served, channel, body, key)
        served.has_reported = True
        for batch in [batch for batch in self.unsure.values() if _interface_of(batch.key) == served.name]:
            del self.unsure[batch.key]
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
        if len(self._early_parts) < _EARLY_PARTS:
            self._early_parts.append((peer, rid, channel, body, key))
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
        if self.switch.has_room(queue, batch.limits.capacity_of(name), now):
            deadline = now + batch.limits.expiry
            self.switch.enqueue(Entry(self.new_key(), name, queue, body, deadline=deadline, since=now), now)
            return True
        self.switch.dropped_count += 1
        self.switch.mailbox.refused(queue, now)
        return False

    def _has_room(self, batch: Batch, now: float) -> bool:
        needed: Counter[str] = Counter()
        capacities: dict[str, int] = {}
        for name, _, is_group in batch.sends:
            if not is_group and self.owner(name) is None and not self.is_dead(name):
                queue = local_prefix(name)
                needed[queue] += 1
                capacities[queue] = batch.limits.capacity_of(name)
        # More sends to one channel than its capacity can never fit at once: they are applied when it is empty.
        return all(
            self.switch.has_room(queue, capacities[queue], now, min(count, capacities[queue]))
            for queue, count in needed.items()
        )

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
        served = self.interfaces.get(_interface_of(key))
        entry = served.offers.get(_number_of(key)) if served is not None else None
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
                self.unsure[key] = batch
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
        self._early_group_sends.clear()

    def _nobody_comes(self, _: None, now: float) -> None:
        parts, self._early_parts = self._early_parts, []
        for peer, rid, channel, *_rest in parts:
            if peer.role:
                self.switch.push(peer, (frames.ERROR, rid, frames.GONE, (channel,)))
        for batch in list(self.unsure.values()):
            del self.unsure[batch.key]
            self._remember(batch.key)
            # Its clients may have had their answers from the predecessor: should it come after all, not once more.
            own = _interface_of(batch.key) + "!"
            batch.sends = [send for send in batch.sends if send[2] or not send[0].startswith(own)]
            self.complete(batch, now)


def _interface_of(key: str) -> str:
    return key.rpartition(":")[0]


def _number_of(key: str) -> int:
    number = key.rpartition(":")[2]
    return int(number) if number.isdigit() else -1
