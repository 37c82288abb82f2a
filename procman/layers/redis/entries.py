"""Bytes of messages in Redis: the entry that a worker gets, and the fields of what is sent.

Pure. The layout is the one of ``lua/queues.lua``: a header that scripts read, then a tail of session and body.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from procman.layers import names
from procman.layers.base import Offer
from procman.layers.limits import Limits

_HEADER = struct.Struct(">dddBBB")
_LENGTH = struct.Struct(">I")
_NO_SESSION = 0xFFFFFFFF
MAX_SESSION_BYTES = 64 * 1024
UNSAFE, OFFER, BOUNDED, SOCKET, BEGUN, AGAIN, CLOSED = 1, 2, 4, 8, 16, 32, 64


@dataclass(slots=True, eq=False)
class Entry:
    """A message as it was given to a worker; ``raw`` is all of it. ``interface`` is empty where none has offered it."""

    raw: bytes
    id: str
    channel: str
    reply_channel: str
    deaths: int
    deferrals: int
    interface: str
    number: str
    session: bytes | None
    body: bytes
    is_lost: bool = False  # another worker has it now
    server: int = 0


def parse(raw: bytes) -> Entry:
    """The entry in *raw*. Raises ValueError."""
    try:
        _, _, _, deaths, flags, deferrals = _HEADER.unpack_from(raw)
        id_, channel, reply, tail = raw[_HEADER.size :].split(b"\0", 3)
        session, body = split_tail(tail)
    except struct.error as error:
        raise ValueError(f"no entry of a queue: {error}") from error
    name = id_.decode()
    interface, number = "", ""
    if flags & OFFER:
        interface, _, number = name.rpartition(":")
    return Entry(
        raw, name, channel.decode(), reply.decode(), deaths, deferrals, interface, number, session, body
    )  # fmt: skip


def build_tail(body: bytes, session: bytes | None = None) -> bytes:
    """What follows the header: session and body."""
    if session is None:
        return b"\xff\xff\xff\xff" + body
    return _LENGTH.pack(len(session)) + session + body


def split_tail(tail: bytes) -> tuple[bytes | None, bytes]:
    """Session and body in *tail*."""
    (size,) = _LENGTH.unpack_from(tail)
    if size == _NO_SESSION:
        return None, tail[4:]
    return tail[4 : 4 + size], tail[4 + size :]


def interface_of(channel: str) -> str:
    """The interface that may hold *channel*; empty if it is no process-local name."""
    mark = channel.find("!")
    return channel[:mark] if mark > 0 else ""


def send_fields(
    channel: str, body: bytes, reply_channel: str, id_: str, limits: Limits, flags: int = 0
) -> tuple[Any, ...]:
    """The nine arguments of one send, as ``deliver`` in ``lua/inbox.lua`` takes them."""
    return (
        interface_of(channel),
        names.local_prefix(channel),
        limits.capacity_of(channel),
        id_,
        channel,
        reply_channel,
        flags,
        int(limits.expiry * 1000),
        build_tail(body),
    )


def offer_fields(offer: Offer, session: bytes | None, limits: Limits, extra: int) -> tuple[Any, ...]:
    """The arguments of an offer, as ``lua/batch.lua`` takes them.

    *session* is the one of *offer* as it may be stored, *extra* are flags beside those of *offer*.
    """
    flags = OFFER | (0 if offer.redeliverable else UNSAFE) | (BOUNDED if offer.bounded else 0) | extra
    return (
        b"O",
        offer.id,
        offer.channel,
        limits.capacity_of(offer.channel) if offer.bounded and not extra & AGAIN else 0,
        offer.channel,
        offer.reply_channel,
        flags,
        int(limits.expiry * 1000) if offer.bounded else 0,
        build_tail(offer.body, session),
    )
