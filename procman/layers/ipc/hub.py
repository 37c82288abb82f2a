"""The state of the IPC layer and its rules: (connection, frame, now) -> frames to write and records to log.

Pure: ``server.py`` moves the bytes, ``switch.py`` holds ordinary channels, ``registry.py`` interfaces and groups,
``finishes.py`` the ends of deliveries. This file takes frames apart and rebuilds what a restart lost from what the
clients report. A frame that cannot be understood raises ``BadFrame``: its connection is to be closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from procman.errors import ConfigurationError
from procman.layers import codec
from procman.layers.errors import LayerError
from procman.layers.ipc import frames
from procman.layers.ipc.finishes import Finishes
from procman.layers.ipc.peers import Entry, Frame, Log, Parked, Peer, Served, SocketRecord
from procman.layers.ipc.queues import LOST
from procman.layers.ipc.registry import BODY_END
from procman.layers.limits import Limits
from procman.layers.mailbox import FOREVER
from procman.layers.names import body_owner, local_prefix


class BadFrame(LayerError):
    """A connection sent what is no frame of this version: close it."""


class Hub(Finishes):
    """All connections and what they share. *hub_id* differs between a hub and its predecessor."""

    def __init__(self, hub_id: str, now: float) -> None:
        super().__init__(hub_id, now)
        self.peers: dict[Peer, None] = {}
        self._held: dict[str, Entry] = {}  # offered again, until the grace is over
        self._early_discards: set[tuple[str, str]] = set()
        self._is_restart = False
        self._connections = 0
        self._handlers: dict[int, Callable[..., None]] = {
            frames.SEND: self._send,
            frames.SEND_AND_WAIT: self._send_and_wait,
            frames.SEND_WHEN_ROOM: self._send_when_room,
            frames.RECEIVE: self._receive,
            frames.CANCEL: self._cancel,
            frames.GROUP_ADD: self._group_add,
            frames.GROUP_DISCARD: self._group_discard,
            frames.GROUP_SEND: self._group_send,
            frames.GROUP_CHANNELS: self._group_channels,
            frames.FLUSH: self._flush,
            frames.STATISTICS: self._statistics,
            frames.TAKE: self._take,
            frames.UNTAKE: self._untake,
            frames.FINISH: self._finish,
            frames.DEFER: self._defer,
            frames.RUNNING: self._running,
            frames.RECALLED: self._recalled,
            frames.OFFER: self._offer,
            frames.WITHDRAW: self._withdraw,
            frames.OPENED: self._opened,
            frames.CLOSED: self._closed,
            frames.MEMBERS: self._members,
            frames.REPORTED: self._reported,
            frames.GROUP_GONE: self._group_gone,
            frames.WRITTEN: self._written,
            frames.GOODBYE: self._goodbye,
        }

    # -- what the driver calls ----------------------------------------------------------------------------------------

    def connected(self) -> Peer:
        """A connection has come."""
        self._connections += 1
        peer = Peer(self._connections)
        self.peers[peer] = None
        return peer

    def handle(self, peer: Peer, frame: Any, now: float) -> None:
        """Act on *frame*. Raises BadFrame."""
        self.switch.now = now
        try:
            if not peer.role:
                self._hello(peer, frame, now)
            else:
                self._handlers[frame[0]](peer, now, *frame[1:])
        except (
            TypeError,
            ValueError,
            KeyError,
            IndexError,
            AttributeError,
            OverflowError,
            ConfigurationError,
        ) as error:
            raise BadFrame(f"a frame of {peer.label} is not understood: {type(error).__name__}: {error}") from error

    def disconnected(self, peer: Peer, now: float) -> None:
        """A connection has ended: its process has died, or gave up."""
        self.switch.now = now
        self.peers.pop(peer, None)
        peer.role = ""
        self.switch.disconnected(peer, now)
        served, peer.served = peer.served, None
        if served is not None:
            self.gone(served, now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        self.switch.now = now
        self.switch.timers.run(now)

    def next_deadline(self) -> float | None:
        """When ``tick`` has something to do."""
        return self.switch.timers.next_due()

    def drain(self) -> list[tuple[Peer, list[Frame]]]:
        """Frames to write, per connection in order."""
        dirty, self.switch.dirty = self.switch.dirty, []
        output = []
        for peer in dirty:
            output.append((peer, peer.out))
            peer.out = []
            peer.is_dirty = peer.is_ack_urgent = False
        return output

    def drain_logs(self) -> list[Log]:
        """Records to emit."""
        logs, self.switch.logs = self.switch.logs, []
        return logs

    # -- any client ---------------------------------------------------------------------------------------------------

    def _hello(self, peer: Peer, frame: Any, now: float) -> None:
        if frame[0] != frames.HELLO or frame[1] != frames.VERSION:
            text = f"it speaks another version than this layer ({frames.VERSION}): restart the older one"
            self.switch.push(peer, (frames.REFUSED, frames.VERSION, text))
            raise BadFrame(f"a client was refused: {text}")
        _, _, role, name, pid, limits, served_name, last_hub_id, process = frame
        if role not in (frames.CLIENT, frames.WORKER, frames.WATCHER, frames.INTERFACE):
            raise ValueError(f"unknown role {role!r}")
        peer.limits = Limits.from_wire(limits)
        peer.label, peer.pid, peer.role, peer.process = str(name)[:100], int(pid), role, str(process)
        if role == frames.WATCHER:
            self.switch.watchers[peer.process] = peer
        elif role == frames.WORKER:
            self.switch.workers[peer] = None
        was_dead = self.serve(peer, served_name) if role == frames.INTERFACE else False
        if last_hub_id not in (None, self.hub_id) and now < self.grace_end and not self._is_restart:
            self._is_restart = True
            self.switch.log(
                logging.WARNING,
                "the channel layer has restarted: messages that waited in its predecessor are lost, except requests "
                "and frames of open sockets, which the interfaces offer again",
            )
        self.switch.push(peer, (frames.WELCOME, frames.VERSION, self.hub_id, was_dead, peer.number))

    def _entry(self, peer: Peer, channel: str, body: bytes, reply_channel: str | None, now: float) -> Entry:
        if type(channel) is not str or type(body) is not bytes:
            raise TypeError("a channel is a str and a body is bytes")
        deadline = now + peer.limits.expiry
        return Entry(self.new_key(), channel, local_prefix(channel), body, reply_channel, deadline, now)

    def _send(self, peer: Peer, now: float, rid: int, channel: str, body: bytes, reply_channel: str | None) -> None:
        served = self.receiver(channel)
        if served is not None:
            self.switch.push(served.peer, (frames.REPLY, channel, body))
        elif self.is_dead(channel):
            self.dead_drop_count += 1
        else:
            entry = self._entry(peer, channel, body, reply_channel, now)
            capacity = peer.limits.capacity_of(channel)
            if not self.switch.has_room(entry.queue, capacity, now):
                self.switch.mailbox.refused(entry.queue, now)
                self.switch.push(peer, (frames.ERROR, rid, frames.FULL, (channel, capacity)))
                return
            self.switch.enqueue(entry, now)
        self.switch.push(peer, (frames.OK, rid, None))

    def _send_and_wait(self, peer: Peer, now: float, rid: int, channel: str, body: bytes, key: str) -> None:
        if type(channel) is not str or type(body) is not bytes or type(key) is not str:
            raise TypeError("a part has a channel, a body and a key")
        served = self.receiver(channel)
        if served is not None:
            self.reply_and_wait(peer, rid, served, channel, body, key)
        elif self.is_dead(channel):
            self.switch.push(peer, (frames.ERROR, rid, frames.GONE, (channel,)))
        elif "!" in channel and now < self.late_end:
            self.keep_part(peer, rid, channel, body, key)
        else:
            self._send(peer, now, rid, channel, body, None)

    def _send_when_room(
        self, peer: Peer, now: float, rid: int, channel: str, body: bytes, reply_channel: str | None
    ) -> None:
        entry = self._entry(peer, channel, body, reply_channel, now)
        if self.owner(channel) is not None or self.switch.has_room(entry.queue, peer.limits.capacity_of(channel), now):
            self._send(peer, now, rid, channel, body, reply_channel)
            return
        if any(parked.entry.channel == channel for parked in peer.parked.values()):
            self.switch.push(peer, (frames.ERROR, rid, frames.FULL, (channel, peer.limits.capacity_of(channel))))
            return
        self.switch.park(Parked(peer, rid, entry))

    def _receive(
        self, peer: Peer, now: float, rid: int, channels: list[str], block: bool, timeout: float | None
    ) -> None:
        name = channels[0]
        if block and name not in self.switch.mailbox.queues and body_owner(name) in self.dead:
            self.switch.push(peer, (frames.OK, rid, (name, BODY_END)))
        else:
            self.switch.receive(peer, rid, channels, timeout if block else 0.0, now)

    def _cancel(self, peer: Peer, now: float, rid: int) -> None:
        self.switch.cancel(peer, rid)

    def _group_add(self, peer: Peer, now: float, rid: int, group: str, channel: str) -> None:
        self._early_discards.discard((group, channel))
        self.group_add(group, channel, now + peer.limits.group_expiry)
        self.switch.push(peer, (frames.OK, rid, None))

    def _group_discard(self, peer: Peer, now: float, rid: int, group: str, channel: str) -> None:
        served = self.owner(channel)
        is_unreported = "!" in channel and (served is None or not served.has_reported)
        if is_unreported and now < self.grace_end and len(self._early_discards) < 10_000:
            self._early_discards.add((group, channel))
        self.group_discard(group, channel)
        self.switch.push(peer, (frames.OK, rid, None))

    def _group_send(self, peer: Peer, now: float, rid: int, group: str, body: bytes) -> None:
        self.group_send(group, body, peer, now)
        self.switch.push(peer, (frames.OK, rid, None))

    def _group_channels(self, peer: Peer, now: float, rid: int, group: str) -> None:
        channels = self.members.channels(group) + self.ordinary.channels(group, now)
        self.switch.push(peer, (frames.OK, rid, codec.encode({"channels": channels}, 1 << 30)))

    def _flush(self, peer: Peer, now: float, rid: int) -> None:
        self.switch.flush(now)
        self.members.clear()
        self.ordinary.clear()
        for served in self.interfaces.values():
            self.switch.push(served.peer, (frames.FLUSHED,))
        self.switch.push(peer, (frames.OK, rid, None))

    def _statistics(self, peer: Peer, now: float, rid: int, channel: str | None) -> None:
        if channel is None:
            found = self.switch.mailbox.statistics(now) | self.statistics()
            found["workers"] = len(self.switch.workers)
        else:
            found = self.switch.mailbox.statistics(now, [local_prefix(channel)])
        self.switch.push(peer, (frames.OK, rid, codec.encode(found)))

    # -- workers ------------------------------------------------------------------------------------------------------

    def _take(self, peer: Peer, now: float, channels: list[str] | None) -> None:
        if channels is not None:
            peer.channels = frozenset(channels)
        self.switch.take(peer, now)

    def _untake(self, peer: Peer, now: float) -> None:
        self.switch.untake(peer)

    def _finish(
        self, peer: Peer, now: float, key: str, sends: list[Any], session: bytes | None, is_resent: bool
    ) -> None:
        for name, body, is_group in sends:
            if type(name) is not str or type(body) is not bytes or type(is_group) is not bool:
                raise TypeError("a send is a name, bytes and whether it is a group")
        self.finish(peer, key, sends, session, is_resent, now)

    def _defer(self, peer: Peer, now: float, key: str, body: bytes) -> None:
        entry = self.switch.in_flight.get(key)
        if entry is not None and entry.holder is peer:
            if entry.is_flushed:
                self.switch.release(entry)
                self._ended(entry, LOST, now)
            else:
                self.switch.defer(entry, body, now)
        self.switch.push(peer, (frames.ACK, key))

    def _running(self, peer: Peer, now: float, running: list[Any]) -> None:
        """A worker process runs these since before the hub began, or since before its connection broke."""
        for key, channel, deaths in running:
            if key in self.switch.in_flight or self.is_ended(key):
                continue
            entry = self._held.pop(key, None) or self._waiting_offer(key)
            if entry is None:
                entry = Entry(key, channel, local_prefix(channel), None)
            entry.deaths = max(entry.deaths, deaths)
            self.switch.claim(entry, peer)

    def _recalled(self, peer: Peer, now: float, begun: int, last: int) -> None:
        self.switch.recalled(peer, begun, last, now)

    # -- interfaces ---------------------------------------------------------------------------------------------------

    def _offer(
        self,
        peer: Peer,
        now: float,
        number: int,
        channel: str,
        body: bytes,
        reply_channel: str,
        is_redeliverable: bool,
        is_bounded: bool,
        session: bytes | None,
        is_begun: bool,
        is_again: bool,
    ) -> None:
        served = _served(peer)
        if type(number) is not int or type(channel) is not str or type(body) is not bytes:
            raise TypeError("an offer has a number, a channel and a body")
        if number in served.offers:
            return
        key = f"{served.name}:{number}"
        record = served.sockets.get(reply_channel)
        if record is not None and not is_again:
            record.order += 1
        claimed = self.switch.in_flight.get(key) if is_again else None
        entry = claimed or Entry(key, channel, local_prefix(channel), None)
        entry.body, entry.reply_channel, entry.served, entry.offer_id = body, reply_channel, served, number
        entry.is_redeliverable, entry.is_bounded, entry.session = is_redeliverable, is_bounded, session
        entry.deadline = now + peer.limits.expiry if is_bounded else FOREVER
        entry.since = now
        served.offers[number] = entry
        if claimed is not None:
            return
        if is_again and self._decide_again(entry, is_begun, now):
            return
        if is_bounded and not is_again:
            capacity = peer.limits.capacity_of(channel)
            if not self.switch.has_room(entry.queue, capacity, now):
                self.switch.mailbox.refused(entry.queue, now)
                self._ended(entry, "full", now)
                return
        self.switch.enqueue(entry, now)

    def _decide_again(self, entry: Entry, is_begun: bool, now: float) -> bool:
        """Whether an offer made again is not to be queued now: it is finished, held until the grace ends, or lost."""
        batch = self.unsure.get(entry.key)
        if batch is not None:
            batch.entry = entry  # applied once its interface has reported
        elif now < self.grace_end:
            self._held[entry.key] = entry
            entry.timer = self.switch.timers.add(self.grace_end, self._hand_out, (entry, is_begun))
        elif is_begun:
            self._ended(entry, LOST, now)
        else:
            return False
        return True

    def _hand_out(self, held: tuple[Entry, bool], now: float) -> None:
        entry, is_begun = held
        entry.timer = None
        if self._held.pop(entry.key, None) is None or entry.holder is not None:
            return
        if is_begun:
            self._ended(entry, LOST, now)
        else:
            self.switch.enqueue(entry, now)

    def _withdraw(self, peer: Peer, now: float, number: int) -> None:
        entry = _served(peer).offers.get(number)
        if entry is not None and entry.holder is None and entry.key not in self.waiting:
            self._held.pop(entry.key, None)
            self.switch.unqueue(entry)
            self._ended(entry, "dropped", now)

    def _opened(self, peer: Peer, now: float, reply_channel: str, path: str, order: int, session: bytes | None) -> None:
        self.opened(_served(peer), SocketRecord(reply_channel, path, order, session))

    def _closed(self, peer: Peer, now: float, reply_channel: str, disconnect: list[Any] | None) -> None:
        served = _served(peer)
        was_open = self.closed(served, reply_channel, now)
        if disconnect is None:
            return
        if was_open:
            self._offer(peer, now, *disconnect)
        else:  # it has been run; this offer ends here
            self.switch.push(peer, (frames.FINISHED, disconnect[0], None, ()))

    def _members(self, peer: Peer, now: float, group: str, channels: list[str]) -> None:
        served = _served(peer)
        for channel in channels:
            if (group, channel) in self._early_discards:
                self._early_discards.discard((group, channel))
                self.switch.push(peer, (frames.HELD_DISCARD, group, channel))
            else:
                self.members.add(group, served.name, channel)

    def _reported(self, peer: Peer, now: float) -> None:
        self.reported(_served(peer), now)

    def _group_gone(self, peer: Peer, now: float, group: str, channel: str) -> None:
        self.members.discard(group, _served(peer).name, channel)

    def _written(self, peer: Peer, now: float, token: int, is_delivered: bool) -> None:
        self.written(token, is_delivered)

    def _goodbye(self, peer: Peer, now: float) -> None:
        self.goodbye(peer, now)


def _served(peer: Peer) -> Served:
    if peer.served is None:
        raise ValueError("only an interface may send this")
    return peer.served
