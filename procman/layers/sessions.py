"""Channel sessions on their way between consumers and the interface that keeps them: keys, each with its own bytes.

Pure. What a value means is known to consumers only; that the keys can be told apart lets an interface merge the changes
of a forwarded message into a session that another consumer is changing at the same time. The two messages that a
consumer sends to a socket's reply channel for that have one key, ``REQUEST``, whose value is bytes: what an application
passes on from a client as JSON can never be one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from procman.layers import codec

REQUEST = "__session__"
# What merging may let a session grow to. A consumer's own finish is bounded by the size of a message.
MAX_MERGED_BYTES = 1024 * 1024


class Changes(NamedTuple):
    """What became of a session: *is_cleared* says that all keys went first; *changed* came, *deleted* went."""

    changed: dict[str, bytes]
    deleted: list[str]
    is_cleared: bool = False


class Read(NamedTuple):
    """A question for a session: it is sent to the channel *answer* with the asker's *number*."""

    answer: str
    number: int


def pack(values: Mapping[str, bytes]) -> bytes:
    """The bytes of a session; empty for an empty one."""
    return codec.pack([part for pair in values.items() for part in pair]) if values else b""


def unpack(session: bytes) -> dict[str, bytes]:
    """The values in what ``pack`` made. Raises ValueError for other bytes."""
    if not session:
        return {}
    parts = codec.unpack(session)
    if type(parts) is not list or len(parts) % 2:
        raise ValueError("the bytes are no channel session")
    return dict(zip(parts[::2], parts[1::2], strict=True))


def find_changes(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Changes:
    """What has to be done to *before* so that it becomes *after*."""
    changed = {key: value for key, value in after.items() if before.get(key) != value}
    return Changes(changed, [key for key in before if key not in after])


def apply_changes(session: bytes, changes: Changes) -> bytes:
    """*session* after *changes*. Raises ValueError for bytes that are no session."""
    values = {} if changes.is_cleared else unpack(session)
    for key in changes.deleted:
        values.pop(key, None)
    values.update(changes.changed)
    return pack(values)


def rebase(before: bytes, after: bytes, current: bytes) -> bytes:
    """*current*, with what a consumer that was given *before* has made of it: *after*.

    Per key the consumer's change counts, as it is the later one. Raises ValueError for bytes that are no session.
    """
    return apply_changes(current, find_changes(unpack(before), unpack(after)))


def build_read(read: Read) -> dict[str, Any]:
    """The message that asks a socket's interface for the session."""
    return {REQUEST: codec.pack(tuple(read))}


def build_answer(read: Read, session: bytes) -> dict[str, Any]:
    """What the interface sends then."""
    return {"number": read.number, "session": session}


def build_merge(changes: Changes) -> dict[str, Any]:
    """The message that has a socket's interface merge *changes* into the session."""
    return {REQUEST: codec.pack(tuple(changes))}


def parse_request(value: Any) -> Read | Changes:
    """What the value of ``REQUEST`` asks for.

    Raises:
        ValueError: it is neither.
    """
    fields = codec.unpack(value) if isinstance(value, bytes) else None
    match fields:
        case [str(answer), int(number)]:
            return Read(answer, number)
        case [dict(changed), list(deleted), bool(is_cleared)]:
            return Changes(changed, deleted, is_cleared)
    raise ValueError("it is no request for a session")
