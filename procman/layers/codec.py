"""Message dict <-> bytes (msgpack), and the packing of wire frames. The only door to the serialiser.

Refuses what the specification does not allow: a message holds bytes, str, ints of 64 bits with sign, floats, lists,
dicts with str keys, bools and None; tuples become lists, subclasses (Django's SafeString) their base.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import chain
from typing import Any

import msgpack  # type: ignore[import-untyped]

from procman.layers.errors import MessageTooLarge
from procman.layers.limits import MAX_MESSAGE_SIZE

_PLAIN = frozenset({bytes, str, int, float, bool, type(None)})
_ALLOWED = _PLAIN | {list, dict, tuple}
_SEQUENCES = frozenset({list, tuple})
_STR = frozenset({str})
_UINT64 = b"\xcf"  # the first byte of an unsigned 64-bit integer on the wire
_INT64 = range(-(2**63), 2**63)
# Bytes of an Unpacker's buffer at first; it grows with larger frames. msgpack's own default is 1 MiB, all of which each
# connection would have touched in time.
_FIRST_BUFFER = 64 * 1024


class _PerThread(threading.local):
    # A Packer holds a buffer of 256 KiB: making one per message costs more than packing the message.
    def __init__(self) -> None:
        self.pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack


_per_thread = _PerThread()


def encode(message: Mapping[str, Any], limit: int = MAX_MESSAGE_SIZE) -> bytes:
    """The bytes of *message*.

    Raises:
        TypeError: something in it may not be in a message; the text says where.
        MessageTooLarge: it takes more than *limit* bytes.
    """
    if type(message) is not dict:
        if not isinstance(message, Mapping):
            raise TypeError(f"a message must be a dict, not {type(message).__name__}")
        message = dict(message)
    try:
        body: bytes = _per_thread.pack(message)
    except (TypeError, ValueError, OverflowError) as error:
        _find_culprit(message, "message", 0)
        raise TypeError(f"the message cannot be serialised: {error}") from error
    if _UINT64 in body or not _is_plain(message):
        _find_culprit(message, "message", 0)
    if len(body) > limit:
        raise MessageTooLarge(len(body), limit)
    return body


def decode(body: bytes) -> dict[str, Any]:
    """The message in *body*. Raises ValueError for bytes that ``encode`` did not make."""
    message = msgpack.unpackb(body)
    if type(message) is not dict:
        raise ValueError("the body is not a message")
    return message


def pack(frame: tuple[Any, ...] | list[Any]) -> bytes:
    """The bytes of one wire frame."""
    packed: bytes = _per_thread.pack(frame)
    return packed


def unpack(packed: bytes) -> Any:
    """What ``pack`` packed. Raises ValueError for other bytes."""
    return msgpack.unpackb(packed)


class Unpacker:
    """Bytes as they arrive -> frames. Refuses values over *limit* bytes and arrays over 65,536 items.

    A frame of many small values may be larger than the limit: who does not trust the sender compares ``fed`` with
    ``tell`` after each frame.
    """

    __slots__ = ("_feed", "_unpacker", "fed", "tell")

    def __init__(self, limit: int) -> None:
        self.fed = 0  # bytes in all
        self._unpacker = msgpack.Unpacker(
            read_size=min(limit, _FIRST_BUFFER),
            max_buffer_size=limit,
            max_array_len=65536,
            max_map_len=0,
            max_ext_len=0,
            strict_map_key=True,
        )
        self._feed = self._unpacker.feed
        # Right after a frame: the bytes up to its end. What is fed beyond that belongs to a frame that is not complete.
        self.tell = self._unpacker.tell

    def feed(self, data: bytes) -> None:
        """Take in what has arrived. Raises ValueError when more than the limit would be buffered."""
        self.fed += len(data)
        try:
            self._feed(data)
        except msgpack.BufferFull:
            raise ValueError("a frame is larger than the limit") from None

    def frames(self) -> Any:
        """An iterator of the frames that are complete.

        Raises ValueError while iterating: what arrived is no frame.
        """
        return self._unpacker


def _is_plain(message: Mapping[str, Any]) -> bool:
    """Whether all types in *message* are exactly the allowed ones; looks level by level, in C where it can."""
    if not _STR.issuperset(map(type, message)):
        return False
    values: list[Any] = list(message.values())
    while values:
        types = set(map(type, values))
        if types <= _PLAIN:
            return True
        if not types <= _ALLOWED:
            return False
        if types <= _SEQUENCES:  # the pairs of headers: no look at each
            values = list(chain.from_iterable(values))
            continue
        below: list[Any] = list(chain.from_iterable(v for v in values if type(v) is list or type(v) is tuple))
        if dict in types:
            for value in values:
                if type(value) is dict:
                    if not _STR.issuperset(map(type, value)):
                        return False
                    below.extend(value.values())
        values = below
    return True


def _find_culprit(value: Any, path: str, depth: int) -> None:
    """Raise TypeError naming the place in *value* that may not be in a message; return if all of it may."""
    if depth > 500:
        raise TypeError(f"{path[:60]}... is nested too deeply, or contains itself")
    if value is None or isinstance(value, bool | float | bytes | bytearray):
        return
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise TypeError(f"{path} holds a str that is not valid Unicode: {error.reason}") from None
    elif isinstance(value, int):
        if value not in _INT64:
            raise TypeError(f"{path} is {value}: integers in messages have 64 bits with sign")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{path} has the key {key!r}: keys in messages are str")
            _find_culprit(item, f"{path}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _find_culprit(item, f"{path}[{index}]", depth + 1)
    else:
        raise TypeError(
            f"{path} is a {type(value).__name__}: messages hold bytes, str, int, float, list, dict, bool and None"
        )
