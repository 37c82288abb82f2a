"""The state of the IPC layer and its rules: (connection, frame, now) -> frames to write and records to log.

Pure: ``server.py`` moves the bytes, ``switch.py`` holds ordinary channels, ``registry.py`` interfaces and groups,
``offers.py`` what interfaces offer, ``finishes.py`` the ends of deliveries. This file takes frames apart and rebuilds
what a restart lost from what the clients report. A frame that cannot be understood raises ``BadFrame``: its connection
is to be closed.

Bounds (the numbers are in ``bounds.py``, the flags in ``settings.LayerSettings``): all that is held, and what waits on
one channel, in bytes; waiting messages by the sender's capacity; frames of open sockets by their interface, one each;
messages in flight by the threads that take, each a few; parked sends and receives per connection; finishes that wait;
mirrored sessions, 64 KiB each; memberships; names of dead interfaces, finishes that were decided, reply tokens and what
comes too early after a restart, by count. Connections and their bytes in both directions: ``server.py``.

When a hub dies, what interfaces, workers and waiting senders hold comes to its successor: requests and frames of open
sockets, the sockets themselves with their sessions and groups, finishes that were not acknowledged, messages that
workers run, sends that were not answered. Lost is what only the hub had: messages that waited, paused or were deferred
on channels of consumers, disconnects of an interface that had died before, and memberships of channels that are no open
sockets. A send that waited for room fails with ``LayerUnavailable``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from procman.errors import ConfigurationError
from procman.layers import codec
from procman.layers.errors import LayerError
from procman.layers.ipc import frames, shapes
from procman.layers.ipc.bounds import MAX_FINISHES, MAX_MEMBERSHIPS, MAX_NAMES, MAX_PARKED, size_of
from procman.layers.ipc.offers import Offers, served_by
from procman.layers.ipc.peers import UNKNOWN, Entry, Frame, Log, Parked, Peer
from procman.layers.ipc.queues import LOST
from procman.layers.ipc.registry import BODY_END
from procman.layers.names import body_owner, local_prefix
from procman.settings import LayerSettings

_SHAPES = shapes.SHAPES


class BadFrame(LayerError):
    """A connection sent what is no frame of this version: close it."""


class Hub(Offers):
    """All connections and what they share. *hub_id* differs between a hub and its predecessor."""

    def __init__(self, hub_id: str, now: float, settings: LayerSettings | None = None) -> None:
        super().__init__(hub_id, now, settings or LayerSettings())
        self.peers: dict[Peer, None] = {}
        self._early_discards: set[tuple[str, str]] = set()
        self._is_restart = False
        self._connections = 0
        self.cut_count = 0  # connections refused or cut: frames that are none, no greeting, no reading
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
            frames.GROUP_COUNT: self._group_count,
            frames.EXCUSE: self._excuse,
            frames.FLUSH: self._flush,
            frames.STATISTICS: self._statistics,
            frames.RETURN: self._return,
            frames.TAKE: self._take,
            frames.UNTAKE: self._untake,
            frames.FINISH: self._finish,
            frames.DEFER: self._defer,
            frames.RUNNING: self._running,
            frames.RECALLED: self._recalled,
            frames.OFFER: self.offer,
            frames.WITHDRAW: self.withdraw,
            frames.SETTLE: self.settle,
            frames.OPENED: self.socket_opened,
            frames.CLOSED: self.socket_closed,
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
                # ``shapes.check``, without the call: it is done for every frame.
                if tuple(map(type, frame)) not in _SHAPES[frame[0]] or type(frame) is bytes:
                    raise TypeError("its fields are not those of its operation")
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
        """Frames to write, per connection, in the order in which they have to leave.

        The hub may be killed between two writes. What an interface must know leaves before anything that follows from
        it; then what tells a sender, or a worker that has finished, that the layer has taken something; then that is
        handed out. Whoever has not heard sends again, to the next hub, and nobody may have it yet.
        """
        dirty, self.switch.dirty = self.switch.dirty, []
        has_sent, self.switch.has_sent = self.switch.has_sent, False
        first: list[tuple[Peer, list[Frame]]] = []
        then: list[tuple[Peer, list[Frame]]] = []
        last: list[tuple[Peer, list[Frame]]] = []
        for peer in dirty:
            output, peer.out = peer.out, []
            peer.is_dirty = peer.is_ack_urgent = False
            if not peer.has_delivery:
                (first if peer.served is not None else then).append((peer, output))
                continue
            peer.has_delivery = False
            if has_sent:  # two workers may have got what the other one's finish has sent
                then.append((peer, [frame for frame in output if frame[0] == frames.ACK]))
                output = [frame for frame in output if frame[0] != frames.ACK]
            last.append((peer, output))
        return [*first, *(pair for pair in then if pair[1]), *last]

    def drain_logs(self) -> list[Log]:
        """Records to emit."""
        logs, self.switch.logs = self.switch.logs, []
        return logs

    # -- any client ---------------------------------------------------------------------------------------------------

    def _hello(self, peer: Peer, frame: Any, now: float) -> None:
        if type(frame) not in (list, tuple) or frame[0] != frames.HELLO:
            raise ValueError("it is no greeting")
        if frame[1] != frames.VERSION:
            self._refuse_version(peer, frame[1])
        role, name, pid, peer.limits, served_name, last_hub_id, process = shapes.read_greeting(frame)
        peer.label, peer.pid, peer.role, peer.process = name[:100], pid, role, process
        if role == frames.WATCHER:
            self.switch.watchers[peer.process] = peer
        elif role == frames.WORKER:
            self.switch.workers[peer] = None
        was_dead = self.serve(peer, served_name or "") if role == frames.INTERFACE else False
        if last_hub_id not in (None, self.hub_id) and now < self.grace_end and not self._is_restart:
            self._is_restart = True
            self.switch.log(
                logging.WARNING,
                "the channel layer has restarted. Lost, in a number that nobody knows: messages that waited in its "
                "predecessor on channels of consumers (not requests or frames of open sockets: the interfaces offer "
                "them again), and group memberships of channels that are no open sockets",
            )
        self.switch.push(peer, (frames.WELCOME, frames.VERSION, self.hub_id, was_dead, peer.number))

    def _refuse_version(self, peer: Peer, version: Any) -> None:
        """Tell *peer*, in the one frame that all versions understand, and the log what has to be done."""
        text = frames.describe_mismatch(version)
        self.switch.push(peer, (frames.REFUSED, frames.VERSION, text))
        raise BadFrame(f"a client was refused: {text}")

    def _entry(self, peer: Peer, channel: str, body: bytes, reply_channel: str | None, now: float) -> Entry:
        if len(channel) > shapes.MAX_NAME:
            raise ValueError("a channel with a long name")
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
            size = size_of(body)
            if not self.switch.has_room(entry.queue, capacity, now, size=size):
                refusal = self.refuse(channel, size, capacity, now)
                self.switch.push(peer, (frames.ERROR, rid, frames.FULL, refusal))
                return
            self.switch.enqueue(entry, now)
        self.switch.push(peer, (frames.OK, rid, None))

    def _send_and_wait(self, peer: Peer, now: float, rid: int, channel: str, body: bytes, key: str) -> None:
        shapes.check_names(channel, key)
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
        if rid in peer.receivers or rid in peer.parked:
            raise ValueError("a request number that waits already")
        capacity, size = peer.limits.capacity_of(channel), size_of(body)
        if self.owner(channel) is not None or self.switch.has_room(entry.queue, capacity, now, size=size):
            self._send(peer, now, rid, channel, body, reply_channel)
            return
        parked = self.switch.parked.get(entry.queue, ())
        is_second = any(other.peer is peer and other.entry.channel == channel for other in parked)
        if is_second or len(peer.parked) >= MAX_PARKED or not self.ledger.fits(size):
            refusal = self.refuse(channel, size, capacity, now)
            self.switch.push(peer, (frames.ERROR, rid, frames.FULL, refusal))
            return
        self.switch.park(Parked(peer, rid, entry))

    def _receive(
        self, peer: Peer, now: float, rid: int, channels: list[str], block: bool, timeout: float | None
    ) -> None:
        shapes.check_channels(channels)
        if timeout is not None:
            shapes.check_timeout(timeout)
        name = channels[0]
        if rid in peer.receivers or rid in peer.parked:
            raise ValueError("a request number that waits already")
        if peer.receivers and sum(len(one.channels) for one in peer.receivers.values()) + len(channels) > MAX_NAMES:
            self._bound(peer, rid, "too many receives wait on this connection")
            return
        if block and name not in self.switch.mailbox.queues and body_owner(name) in self.dead:
            self.switch.push(peer, (frames.OK, rid, (name, BODY_END)))
        else:
            self.switch.receive(peer, rid, channels, timeout if block else 0.0, now)

    def _bound(self, peer: Peer, rid: int, text: str) -> None:
        self.switch.push(peer, (frames.ERROR, rid, frames.BOUND, (text,)))

    def _cancel(self, peer: Peer, now: float, rid: int) -> None:
        if rid in peer.receivers or rid in peer.parked:
            self.switch.cancel(peer, rid)
            self.switch.push(peer, (frames.OK, rid, None))

    def _return(self, peer: Peer, now: float, channel: str, body: bytes) -> None:
        """Nobody waited any more for the message that *peer* was given: it goes before the others, uncounted."""
        entry = self._entry(peer, channel, body, None, now)
        self.ledger.add(entry, size_of(body))
        self.switch.put_first([entry], now)

    def _group_add(self, peer: Peer, now: float, rid: int, group: str, channel: str) -> None:
        shapes.check_names(group, channel)
        if self.members.count + self.ordinary.count >= MAX_MEMBERSHIPS:
            self._bound(peer, rid, f"it keeps {MAX_MEMBERSHIPS} group memberships, the most there may be")
            return
        self._early_discards.discard((group, channel))
        self.group_add(group, channel, now + peer.limits.group_expiry)
        self.switch.push(peer, (frames.OK, rid, None))

    def _group_discard(self, peer: Peer, now: float, rid: int, group: str, channel: str) -> None:
        shapes.check_names(group, channel)
        served = self.owner(channel)
        is_unreported = "!" in channel and (served is None or not served.has_reported)
        if is_unreported and now < self.grace_end and len(self._early_discards) < 10_000:
            self._early_discards.add((group, channel))
        self.group_discard(group, channel)
        self.switch.push(peer, (frames.OK, rid, None))

    def _group_send(self, peer: Peer, now: float, rid: int, group: str, body: bytes) -> None:
        shapes.check_names(group)
        self.group_send(group, body, peer, now)
        self.switch.push(peer, (frames.OK, rid, None))

    def _group_channels(self, peer: Peer, now: float, rid: int, group: str) -> None:
        channels = self.members.channels(group) + self.ordinary.channels(group, now)
        self.switch.push(peer, (frames.OK, rid, codec.encode({"channels": channels}, 1 << 30)))

    def _group_count(self, peer: Peer, now: float, rid: int, group: str) -> None:
        self.switch.push(peer, (frames.OK, rid, self.members.size(group) + self.ordinary.size(group, now)))

    def _flush(self, peer: Peer, now: float, rid: int) -> None:
        self.switch.flush(now)
        self.flush_held(now)
        self.flush_finishes(now)
        self.members.clear()
        self.ordinary.clear()
        for served in self.interfaces.values():
            self.switch.push(served.peer, (frames.FLUSHED,))
        self.switch.push(peer, (frames.OK, rid, None))

    def _statistics(self, peer: Peer, now: float, rid: int, channel: str | None) -> None:
        if channel is None:
            found = self.switch.mailbox.statistics(now) | self.statistics() | self.switch.mailbox.depths()
            found["work"] = self.switch.work.statistics(self.switch.workers, now)
            found["workers"] = len(self.switch.workers)
            found["connections"] = len(self.peers)
            found["connections_cut_count"] = self.cut_count
        else:
            found = self.switch.mailbox.statistics(now, [local_prefix(channel)])
        self.switch.push(peer, (frames.OK, rid, codec.encode(found)))

    # -- workers ------------------------------------------------------------------------------------------------------

    def _excuse(self, peer: Peer, now: float, rid: int) -> None:
        self.switch.excuse(peer.process)
        self.switch.push(peer, (frames.OK, rid, None))

    def _take(self, peer: Peer, now: float, channels: list[str] | None) -> None:
        if channels is not None:
            shapes.check_channels(channels)
            peer.channels = frozenset(channels)
        self.switch.take(peer, now)

    def _untake(self, peer: Peer, now: float) -> None:
        self.switch.untake(peer)

    def _finish(
        self, peer: Peer, now: float, key: str, sends: list[Any], session: bytes | None, is_resent: bool
    ) -> None:
        if len(key) > shapes.MAX_NAME:
            raise ValueError("a long key")
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
            shapes.check_names(key, channel)
            if type(deaths) is not int or not UNKNOWN <= deaths <= 2 or len(peer.holds) >= MAX_FINISHES:
                raise ValueError("a worker runs fewer messages, with fewer attempts")
            if key in self.switch.in_flight or self.is_ended(key):
                continue
            entry = self.offered.get(key) or self.switch.again.get(key)
            if entry is None:
                entry = self.offered[key] = Entry(key, channel, local_prefix(channel), None)
            self._held.pop(key, None)
            self.switch.unqueue(entry)
            entry.deaths = max(entry.deaths, deaths)
            self.switch.claim(entry, peer)

    def _recalled(self, peer: Peer, now: float, begun: int, last: int) -> None:
        self.switch.recalled(peer, begun, last, now)

    # -- interfaces ---------------------------------------------------------------------------------------------------

    def _members(self, peer: Peer, now: float, group: str, channels: list[str]) -> None:
        served = served_by(peer)
        shapes.check_names(group, *channels)
        for channel in channels:
            if (group, channel) in self._early_discards:
                self._early_discards.discard((group, channel))
                self.switch.push(peer, (frames.HELD_DISCARD, group, channel))
            else:
                self.members.add(group, served.name, channel)

    def _reported(self, peer: Peer, now: float) -> None:
        self.reported(served_by(peer), now)

    def _group_gone(self, peer: Peer, now: float, group: str, channel: str) -> None:
        self.members.discard(group, served_by(peer).name, channel)

    def _written(self, peer: Peer, now: float, token: int, is_delivered: bool) -> None:
        self.written(token, is_delivered)

    def _goodbye(self, peer: Peer, now: float) -> None:
        self.goodbye(peer, now)
