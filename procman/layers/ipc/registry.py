"""The hub's side of interfaces: their sockets, offers, group members and replies, and what is owed when one dies.

Pure. Bounds: one record per open socket, sessions of 64 KiB, 1,024 remembered names of dead interfaces, 10,000 reply
tokens.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any

from procman.layers import codec
from procman.layers.groups import Groups, HeldMembers
from procman.layers.ipc import frames
from procman.layers.ipc.bounds import MAX_SOCKETS, OVERHEAD_BYTES, Throttle, size_of
from procman.layers.ipc.peers import Entry, Peer, Served, SocketRecord
from procman.layers.ipc.queues import DONE, DROPPED, EXPIRED
from procman.layers.ipc.switch import Switch
from procman.layers.names import body_owner, local_prefix
from procman.settings import LayerSettings

MAX_SESSION_BYTES = 64 * 1024
# What an interface sends last when the client has left in the middle of a body.
BODY_END = codec.encode({"closed": True})
_DEAD_NAMES = 1024
_MAX_TOKENS = 10_000
_GONE_AWAY, _ABNORMAL = 1012, 1006


class Registry:
    """Live interfaces by name, and the groups."""

    def __init__(self, hub_id: str, settings: LayerSettings) -> None:
        self.settings = settings
        self.switch = Switch(self._ended, self._begun, lambda queue, now: self.on_room(queue, now), settings)
        self.ledger = self.switch.ledger
        self.interfaces: dict[str, Served] = {}
        self.dead: OrderedDict[str, None] = OrderedDict()
        self.offered: dict[str, Entry] = {}  # by key, until the end; also what a worker runs of another hub's offers
        self.members = HeldMembers()
        self.ordinary = Groups()
        self.hub_id = hub_id
        self._tokens: dict[int, tuple[Peer, int, str, Served]] = {}
        self._counter = 0
        self._lines = Throttle()
        self.group_drop_count = self.dead_drop_count = 0

    def on_room(self, queue: str, now: float) -> None:
        """A message has left *queue*; finishes that wait for room may go on."""

    def is_ended(self, key: str) -> bool:
        """Whether a finish of *key* has come."""
        return False

    # -- interfaces -------------------------------------------------------------------------------------------------

    def owner(self, channel: str) -> Served | None:
        """The live interface that owns *channel*."""
        mark = channel.find("!")
        return self.interfaces.get(channel[:mark]) if mark > 0 else None

    def is_dead(self, channel: str) -> bool:
        """Whether *channel* belonged to an interface that has died."""
        mark = channel.find("!")
        return mark > 0 and channel[:mark] in self.dead

    def serve(self, peer: Peer, name: str) -> bool:
        """*peer* is the interface *name*; whether that had been declared dead."""
        was_dead = self.dead.pop(name, False) is None
        old = self.interfaces.get(name)
        if old is not None:  # its connection broke without the end having been noticed yet
            old.peer.served = None
            self.gone(old, self.switch.now)
            was_dead = self.dead.pop(name, False) is None
        peer.served = self.interfaces[name] = Served(name, peer, was_dead=was_dead)
        return was_dead

    def gone(self, served: Served, now: float) -> None:
        """The connection of *served* has ended.

        Before a report nothing has been run for it, and it may be waiting on another connection: while a hub is away
        its listening socket goes on taking connections, and the interface gives one up when no welcome comes.
        """
        if served.has_reported or served.sockets or served.offers:
            self.lost(served, _ABNORMAL, now)
            return
        served.is_alive = False
        del self.interfaces[served.name]
        self.members.remove_interface(served.name)
        if served.was_dead:
            self.dead[served.name] = None

    def lost(self, served: Served, code: int, now: float) -> None:
        """*served* has gone: run the disconnects of its sockets, each once, and forget its members."""
        served.is_alive = False
        if self.interfaces.get(served.name) is served:
            del self.interfaces[served.name]
        self.dead[served.name] = None
        while len(self.dead) > _DEAD_NAMES:
            self.dead.popitem(last=False)
        self.members.remove_interface(served.name)
        # Workers that read the bodies of its requests must not wait for the rest.
        self.switch.answer_receivers(lambda name: body_owner(name) == served.name, BODY_END)
        for token in [token for token, waiting in self._tokens.items() if waiting[3] is served]:
            self.written(token, False)
        if code == _ABNORMAL:
            for entry in list(served.offers.values()):
                is_waiting = entry.key not in self.switch.in_flight and not self.is_ended(entry.key)
                if is_waiting and (entry.is_bounded or entry.channel == "websocket.connect"):
                    self.switch.unqueue(entry)
                    self._ended(entry, DROPPED, now)
        busy = {entry.reply_channel: entry for entry in served.offers.values()}
        for record in served.sockets.values():
            record.code = code
            unfinished = busy.get(record.reply_channel)
            if unfinished is None:
                self._queue_disconnect(record, now)
            else:
                unfinished.then = record
        served.sockets = {}

    def goodbye(self, peer: Peer, now: float) -> None:
        """The interface of *peer* ends in order; what it has queued stays valid."""
        served, peer.served = peer.served, None
        if served is not None:
            self.lost(served, _GONE_AWAY, now)

    def opened(self, served: Served, record: SocketRecord) -> None:
        """A socket was accepted, and its disconnect is owed; or its session has changed otherwise than by a finish."""
        old = served.sockets.get(record.reply_channel)
        if old is None and len(served.sockets) >= MAX_SOCKETS:
            raise ValueError("too many sockets")
        session, record.session = record.session, None
        if old is not None:
            self.ledger.remove(old)
            record.session = old.session
        self.ledger.add(record, _size_of_record(record))
        served.sockets[record.reply_channel] = record
        if session is not None:
            self._mirror(record, session)

    def closed(self, served: Served, reply_channel: str, now: float) -> bool:
        """A socket has ended; whether its disconnect is still owed."""
        self.members.remove_channel(served.name, reply_channel)
        for token in [token for token, waiting in self._tokens.items() if waiting[2] == reply_channel]:
            self.written(token, False)
        record = served.sockets.pop(reply_channel, None)
        if record is None:
            return False
        self.ledger.remove(record)
        return True

    def store_session(self, entry: Entry, session: bytes) -> None:
        """Keep *session* beside the socket of *entry*, for its disconnect."""
        record = entry.then
        if record is None and entry.served is not None and entry.reply_channel is not None:
            record = entry.served.sockets.get(entry.reply_channel)
        if record is not None:
            self._mirror(record, session)

    def _mirror(self, record: SocketRecord, session: bytes) -> None:
        if len(session) > MAX_SESSION_BYTES:
            self.switch.log(
                logging.ERROR,
                "the channel session of %s has %d bytes, more than the %d that are mirrored; if its interface dies, "
                "its disconnect will see an older one",
                *(record.reply_channel, len(session), MAX_SESSION_BYTES),
            )
        elif self.ledger.fits(len(session)):
            record.session = session
            self.ledger.add(record, _size_of_record(record))
        else:
            self._not_mirrored(record, self.switch.now)

    def _queue_disconnect(self, record: SocketRecord, now: float) -> None:
        self.ledger.remove(record)
        channel = "websocket.disconnect"
        message = {
            "reply_channel": record.reply_channel,
            "code": record.code,
            "path": record.path,
            "order": record.order,
        }
        self.switch.enqueue(
            Entry(
                self.new_key(),
                channel,
                channel,
                codec.encode(message),
                record.reply_channel,
                since=now,
                session=record.session,
            ),
            now,
        )

    # -- the end of a message -----------------------------------------------------------------------------------------

    def _begun(self, entry: Entry) -> None:
        if entry.served is not None and entry.served.is_alive:
            self.switch.push(entry.served.peer, (frames.BEGUN, entry.offer_id))

    def _ended(self, entry: Entry, how: str, now: float) -> None:
        if how == EXPIRED:
            self.switch.dropped_count += 1
        served = entry.served
        if served is not None:
            served.offers.pop(entry.offer_id, None)
            if served.is_alive and how != DROPPED:
                if how == DONE:
                    self.switch.push(served.peer, (frames.FINISHED, entry.offer_id, None, ()))
                else:
                    self.switch.push(served.peer, (frames.FAILED, entry.offer_id, how))
        self.after_end(entry, now)

    def after_end(self, entry: Entry, now: float) -> None:
        """*entry* is held no longer: queue the disconnect that waited for its end."""
        self.offered.pop(entry.key, None)
        self.ledger.bytes -= entry.size
        entry.size = 0
        if self.switch.again:
            self.switch.again.pop(entry.key, None)
        record, entry.then = entry.then, None
        if record is not None:
            self._queue_disconnect(record, now)

    def new_key(self) -> str:
        """A key for a message that no interface numbers; ``~`` keeps it apart from the names of interfaces."""
        self._counter += 1
        return f"~{self.hub_id}:{self._counter}"

    # -- replies ------------------------------------------------------------------------------------------------------

    def reply_and_wait(self, peer: Peer, rid: int, served: Served, channel: str, body: bytes, key: str) -> None:
        """Forward a reply whose sender waits until it is written."""
        if len(self._tokens) >= _MAX_TOKENS:
            self.switch.push(peer, (frames.ERROR, rid, frames.FULL, (channel, _MAX_TOKENS)))
            return
        self._counter += 1
        self._tokens[self._counter] = (peer, rid, channel, served)
        self.switch.push(served.peer, (frames.PART, channel, body, self._counter, key))

    def written(self, token: int, is_delivered: bool) -> None:
        """Answer the sender that waits for *token*."""
        waiting = self._tokens.pop(token, None)
        if waiting is None:
            return
        peer, rid, channel, _ = waiting
        if peer.role:
            answer = (frames.OK, rid, None) if is_delivered else (frames.ERROR, rid, frames.GONE, (channel,))
            self.switch.push(peer, answer)

    # -- groups -------------------------------------------------------------------------------------------------------

    def group_add(self, group: str, channel: str, deadline: float) -> None:
        """Add a member: told to the interface that holds it, before anything that is sent later."""
        served = self.owner(channel)
        if served is not None:
            self.members.add(group, served.name, channel)
            self.switch.push(served.peer, (frames.HELD_ADD, group, channel))
        elif not self.is_dead(channel):
            self.ordinary.add(group, channel, deadline)

    def group_discard(self, group: str, channel: str) -> None:
        """Remove a member."""
        served = self.owner(channel)
        if served is None:
            self.ordinary.discard(group, channel)
        elif self.members.discard(group, served.name, channel):
            self.switch.push(served.peer, (frames.HELD_DISCARD, group, channel))

    def send_to_ordinary(self, group: str, body: bytes, peer: Peer, now: float) -> None:
        """An ordinary send to each member that no interface holds; full ones are counted and logged."""
        fulls: list[str] = []
        for channel in self.ordinary.channels(group, now):
            queue = local_prefix(channel)
            if self.switch.has_room(queue, peer.limits.capacity_of(channel), now, size=size_of(body)):
                entry = Entry(self.new_key(), channel, queue, body, deadline=now + peer.limits.expiry, since=now)
                self.switch.enqueue(entry, now)
            else:
                self.switch.mailbox.refused(queue, now)
                fulls.append(channel)
        if fulls:
            self.group_drop_count += len(fulls)
            count = self._lines.count(group, now, len(fulls))
            if count:
                self.switch.log(
                    logging.WARNING,
                    "group %s: %d messages to full channels were dropped, the last one to %s",
                    *(group, count, fulls[-1]),
                )

    # -- bounds -------------------------------------------------------------------------------------------------------

    def refuse(self, channel: str, size: int, capacity: int, now: float) -> tuple[Any, ...]:
        """Count a message for which *channel* has no room, and log it if that is for its bytes.

        The arguments of the ``ChannelFull`` that its sender gets.
        """
        queue = local_prefix(channel)
        mailbox, ledger = self.switch.mailbox, self.ledger
        mailbox.refused(queue, now)
        waiting = mailbox.queues.get(queue)
        if waiting is not None and len(waiting) >= capacity:
            return (channel, capacity)
        ledger.refused_count += 1
        count = self._lines.count(None, now)
        if ledger.fits(size):
            limit, flag = int(mailbox.max_bytes), "--layer-max-channel-bytes"
        else:
            limit, flag = ledger.max_bytes, "--layer-max-bytes"
        if count:
            self.switch.log(
                logging.WARNING,
                "the channel layer holds %d of %d bytes, channel %s %d: %d message(s) refused; limit %d bytes (%s)",
                *(ledger.bytes, ledger.max_bytes, channel, waiting.size if waiting is not None else 0, count),
                *(limit, flag),
            )
        return (channel, capacity, limit)

    def _not_mirrored(self, record: SocketRecord, now: float) -> None:
        count = self._lines.count(SocketRecord, now)
        if count:
            self.switch.log(
                logging.WARNING,
                "the channel layer is full: %d session(s) are not mirrored, the last one of %s; if its interface dies, "
                "its disconnect will see an older one",
                *(count, record.reply_channel),
            )

    def statistics(self) -> dict[str, Any]:
        """The counts of this file."""
        return {
            "interfaces": len(self.interfaces),
            "sockets": sum(len(served.sockets) for served in self.interfaces.values()),
            "groups": len(self.members) + len(self.ordinary),
            "in_flight": len(self.switch.in_flight),
            "bytes_held": self.ledger.bytes,
            "bytes_refused_count": self.ledger.refused_count,
            "expired_count": self.switch.expired_count,
            "redelivered_count": self.switch.redelivered_count,
            "dropped_count": self.switch.dropped_count + self.group_drop_count + self.dead_drop_count,
        }


def _size_of_record(record: SocketRecord) -> int:
    return OVERHEAD_BYTES + len(record.path) + (len(record.session) if record.session is not None else 0)
