"""What travels between a client and the hub: msgpack arrays, an operation number first, bodies as opaque bytes.

Pure, but for the name and id of this process in its greeting.

msgpack values end by themselves, so the stream needs no other framing; ``codec.Unpacker`` bounds their size.
The first frame of a connection is ``HELLO`` with the version; each side refuses the other's other versions.
``rid`` numbers a client's requests; ``OK`` and ``ERROR`` answer them by it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from procman.layers.base import Offer
from procman.layers.errors import (
    ChannelFull,
    LayerError,
    LimitReached,
    MessageTooLarge,
    ProtocolMismatch,
    ReplyChannelGone,
)
from procman.layers.limits import Limits
from procman.settings import ENV_NAME

VERSION = 5
# A frame is a body and its envelope; finishes carry several bodies, each within the limit of messages.
ENVELOPE_BYTES = 64 * 1024
READ_BYTES = 256 * 1024
MAX_SENDS = 60_000  # in one FINISH; the unpacker takes lists of 65,536
SEND_BYTES = 16  # of one send in a FINISH, beside its name and body

# -- client to hub: any client ----------------------------------------------------------------------------------------
HELLO = 1  # version, role, name, pid, limits, served name or None, id of the hub it knew before or None, process
SEND = 2  # rid, channel, body, reply channel or None
SEND_AND_WAIT = 3  # rid, channel, body, key: the same when it is sent again
SEND_WHEN_ROOM = 4  # rid, channel, body, reply channel or None
RECEIVE = 5  # rid, channels, block, timeout in seconds or None
CANCEL = 6  # rid of a RECEIVE or SEND_WHEN_ROOM: answered with None, or has been answered
GROUP_ADD = 7  # rid, group, channel
GROUP_DISCARD = 8  # rid, group, channel
GROUP_SEND = 9  # rid, group, body
GROUP_CHANNELS = 10  # rid, group
FLUSH = 11  # rid
STATISTICS = 12  # rid, channel or None
RETURN = 13  # channel, body: what a RECEIVE got for which nobody waits any more
GROUP_COUNT = 14  # rid, group
EXCUSE = 15  # rid

# -- client to hub: workers -------------------------------------------------------------------------------------------
TAKE = 20  # channels, or None for those of the last TAKE
UNTAKE = 21  # answered by UNTAKEN, after a DELIVER that crossed it
FINISH = 22  # key, sends [[name, body, is group], ...], session or None, channel, whether it is sent again
DEFER = 23  # key, body
RUNNING = 24  # [[key, channel, attempts], ...]
RECALLED = 25  # number of the last delivery begun, number up to which the others have gone back

# -- client to hub: interfaces ----------------------------------------------------------------------------------------
OFFER = 30  # id, channel, body, reply channel, redeliverable, bounded, session, begun, whether it is offered again
WITHDRAW = 31  # id
OPENED = 32  # reply channel, path, order, session
CLOSED = 33  # reply channel, disconnect: the fields of an OFFER, or None
MEMBERS = 34  # group, channels
REPORTED = 35  # everything held has been reported
GROUP_GONE = 36  # group, channel
WRITTEN = 37  # token, whether it reached the client
GOODBYE = 38
SETTLE = 39  # id

# -- hub to client ----------------------------------------------------------------------------------------------------
WELCOME = 50  # version, hub id, whether the served name had been declared dead, number of the connection
REFUSED = 51  # version, text
OK = 52  # rid, value
ERROR = 53  # rid, code, arguments
DELIVER = 54  # key, channel, body, workers that died with it (-1: unknown), session
UNTAKEN = 55
ACK = 56  # key of a finish or deferral that is applied
RECALL = 57  # to a watcher: number of a connection of its process, number of the last delivery on it
REPLY = 60  # channel, body
FINISHED = 61  # id, session, entries [[name, body, is group], ...]
FAILED = 62  # id, reason
BEGUN = 63  # id
HELD_ADD = 64  # group, channel
HELD_DISCARD = 65  # group, channel
HELD_SEND = 66  # group, body
FLUSHED = 67
PART = 68  # channel, body, token, key: a reply whose sender waits for WRITTEN

# Roles in HELLO.
CLIENT, WORKER, WATCHER, INTERFACE = "client", "worker", "watcher", "interface"
# Codes in ERROR, and the exceptions that they become: the connection is in order after these.
FULL, GONE, TOO_LARGE, BOUND = "full", "gone", "large", "bound"
ANSWERED = (ChannelFull, ReplyChannelGone, MessageTooLarge, LimitReached)


def limit_bytes(max_message_size: int) -> int:
    """The most bytes that may be buffered of one connection: a frame, and a read that follows it."""
    return max_message_size + ENVELOPE_BYTES + READ_BYTES


def build_error(code: str, arguments: list[Any]) -> LayerError:
    """The exception that an ``ERROR`` frame stands for."""
    if code == FULL:
        return ChannelFull(*arguments)
    if code == GONE:
        return ReplyChannelGone(*arguments)
    if code == TOO_LARGE:
        return MessageTooLarge(*arguments)
    if code == BOUND:
        return LimitReached(f"the channel layer refused a request: {arguments[0]}")
    return LayerError(f"the layer refused a request: {code} {arguments}")


def check_welcome(frame: Any, address: str) -> tuple[str, bool, int]:
    """Hub id, whether the served name had been declared dead and the connection's number: the hub's first *frame*.

    Raises:
        ProtocolMismatch: it is not a welcome of this version.
    """
    if isinstance(frame, list) and frame[:2] == [WELCOME, VERSION] and len(frame) == 5:
        return str(frame[2]), bool(frame[3]), int(frame[4])
    if isinstance(frame, list) and len(frame) == 3 and frame[0] == REFUSED:
        raise ProtocolMismatch(f"the layer at {address} refused this process: {frame[2]}")
    version = frame[1] if isinstance(frame, list) and len(frame) > 1 and type(frame[1]) is int else "unknown"
    raise ProtocolMismatch(
        f"the layer at {address} speaks protocol version {version}, this process {VERSION}: they were started from "
        "different versions of procman; restart all of `channels-run`, and this process if it is not part of that"
    )


def describe_mismatch(version: Any) -> str:
    """What a client of another *version* is told."""
    return (
        f"its protocol version is {version if type(version) is int else 'unknown'}, that of the layer process is "
        f"{VERSION}. They were started from different versions of procman: restart all of `channels-run` and "
        "everything else that uses this layer (shells, cron, gunicorn, Celery)"
    )


def build_hello(
    role: str, limits: Limits, served_name: str | None, hub_id: str | None, process: str = ""
) -> tuple[Any, ...]:
    """The greeting of this process; its name in the formation is for the hub's log.

    *process* is the same on all connections of a worker process: its watcher is found by it.
    """
    label = os.environ.get(ENV_NAME) or served_name or f"process {os.getpid()}"
    return (HELLO, VERSION, role, label, os.getpid(), limits.to_wire(), served_name, hub_id, process)


def offer_fields(offer: Offer, is_again: bool) -> tuple[Any, ...]:
    """What follows the operation in an ``OFFER``."""
    return (
        offer.id,
        offer.channel,
        offer.body,
        offer.reply_channel,
        offer.redeliverable,
        offer.bounded,
        offer.session,
        offer.begun,
        is_again,
    )


def reply_channel_of(message: Mapping[str, Any]) -> str | None:
    """What a log line may name when *message* is lost."""
    found = message.get("reply_channel")
    return found if isinstance(found, str) else None
