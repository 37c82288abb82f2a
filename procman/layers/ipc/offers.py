"""What interfaces offer to the workers, one frame per socket and requests: queued, refused, or held after a restart.

Pure. Bounds: requests (``is_bounded``) by capacity and bytes; frames of open sockets by their interface alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from procman.layers.ipc import frames, shapes
from procman.layers.ipc.bounds import MAX_OFFERS, size_of
from procman.layers.ipc.finishes import Finishes
from procman.layers.ipc.peers import UNKNOWN, Entry, Peer, Served, SocketRecord
from procman.layers.ipc.queues import LOST
from procman.layers.mailbox import FOREVER
from procman.layers.names import local_prefix
from procman.settings import LayerSettings


class Offers(Finishes):
    """A registry that takes offers."""

    def __init__(self, hub_id: str, now: float, settings: LayerSettings) -> None:
        super().__init__(hub_id, now, settings)
        self._held: dict[str, Entry] = {}  # offered again, until the grace is over

    def offer(
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
        """*peer* offers a frame, for the first time or *is_again* to a hub that knows nothing of it."""
        served = served_by(peer)
        shapes.check_number(number)
        shapes.check_names(channel, reply_channel)
        if len(served.offers) >= MAX_OFFERS:
            raise ValueError("too many offers")
        if number in served.offers:
            return
        key = f"{served.name}:{number}"
        record = served.sockets.get(reply_channel)
        if record is not None and not is_again:
            record.order += 1
        # A worker has reported it as running, and may have deferred it or died since; or its interface was declared
        # dead and has come back.
        entry = known = self.offered.get(key)
        if entry is None:
            entry = self.offered[key] = Entry(key, channel, local_prefix(channel), None)
        elif entry.holder is None:
            self._held.pop(key, None)
            self.switch.unqueue(entry)
        if entry.body is None:
            entry.body = body
        entry.reply_channel, entry.served, entry.offer_id = reply_channel, served, number
        entry.is_redeliverable, entry.is_bounded, entry.session = is_redeliverable, is_bounded, session
        entry.deadline = now + peer.limits.expiry if is_bounded else FOREVER
        entry.since = now
        size, capacity = size_of(entry.body, session), peer.limits.capacity_of(channel)
        is_refusable = is_bounded and not is_again and known is None
        if is_refusable and not self.switch.has_room(entry.queue, capacity, now, size=size):
            self.refuse(channel, size, capacity, now)
            self._ended(entry, "full", now)
            return
        self.ledger.add(entry, size)
        served.offers[number] = entry
        batch = self.unsure.get(key) or self.waiting.get(key)
        if batch is not None:
            batch.entry = entry  # applied once its interface has reported, or there is room
        elif entry.holder is None and not (is_again and self._decide_again(entry, is_begun, now)):
            self.switch.enqueue(entry, now)

    def socket_opened(
        self, peer: Peer, now: float, reply_channel: str, path: str, order: int, session: bytes | None
    ) -> None:
        """*peer* has accepted a socket."""
        shapes.check_names(reply_channel)
        shapes.check_number(order)
        self.opened(served_by(peer), SocketRecord(reply_channel, path[: shapes.MAX_PATH], order, session))

    def socket_closed(self, peer: Peer, now: float, reply_channel: str, disconnect: Sequence[Any] | None) -> None:
        """A socket of *peer* has ended; *disconnect* is queued if it is still owed."""
        if disconnect is not None:
            shapes.check([frames.OFFER, *disconnect])
        was_open = self.closed(served_by(peer), reply_channel, now)
        if disconnect is None:
            return
        if was_open:
            self.offer(peer, now, *disconnect)
        else:  # it has been run; this offer ends here
            self.switch.push(peer, (frames.FINISHED, disconnect[0], None, ()))

    def after_end(self, entry: Entry, now: float) -> None:
        if self._held:
            self._held.pop(entry.key, None)
        super().after_end(entry, now)

    def _decide_again(self, entry: Entry, is_begun: bool, now: float) -> bool:
        """Whether an offer made again is not to be queued now: it is held until the grace ends, or lost."""
        if entry.key in self.switch.again:  # a worker had it
            return False
        if now < self.grace_end:
            self._held[entry.key] = entry
            entry.timer = self.switch.timers.add(self.grace_end, self._hand_out, (entry, is_begun))
        else:
            return self._is_lost(entry, is_begun, now)
        return True

    def _hand_out(self, held: tuple[Entry, bool], now: float) -> None:
        entry, is_begun = held
        entry.timer = None
        if self._held.pop(entry.key, None) is None or entry.holder is not None:
            return
        if not self._is_lost(entry, is_begun, now):
            self.switch.enqueue(entry, now)

    def _is_lost(self, entry: Entry, is_begun: bool, now: float) -> bool:
        """Whether an offer made again, which no worker claims, has ended; if not, it is given out (again)."""
        if entry.is_redeliverable or not is_begun:
            entry.deaths = max(entry.deaths, 1) if is_begun else UNKNOWN
            return False
        self.switch.dropped_count += 1
        self.switch.log(
            logging.ERROR,
            "the channel layer and a worker died while that ran a message of %s (reply channel %s); the message is "
            "dropped: it cannot be run twice",
            *(entry.channel, entry.reply_channel or "none"),
        )
        self._ended(entry, LOST, now)
        return True

    def flush_held(self, now: float) -> None:
        """Drop what has been offered again and not been handed out yet."""
        held, self._held = list(self._held.values()), {}
        for entry in held:
            self.switch.unqueue(entry)
            self._ended(entry, LOST, now)

    def withdraw(self, peer: Peer, now: float, number: int) -> None:
        """The client of offer *number* has left: nobody needs to work on it, unless somebody does already."""
        entry = served_by(peer).offers.get(number)
        if entry is not None and entry.holder is None and entry.key not in self.waiting:
            self._held.pop(entry.key, None)
            self.switch.unqueue(entry)
            self._ended(entry, "withdrawn", now)

    def settle(self, peer: Peer, now: float, number: int) -> None:
        """The response to offer *number* has begun: a second one would follow if another worker got it."""
        entry = served_by(peer).offers.get(number)
        if entry is None:
            return
        entry.is_redeliverable = False
        if entry.holder is None and entry.deaths and entry.key in self.switch.again:  # its worker has died meanwhile
            self.switch.unqueue(entry)
            self._ended(entry, LOST, now)


def served_by(peer: Peer) -> Served:
    """The interface behind *peer*. Raises ValueError where there is none."""
    if peer.served is None:
        raise ValueError("only an interface may send this")
    return peer.served
