"""The types of every frame that a client may send, checked before the hub acts on it.

Pure. A frame's types form one of a few tuples per operation, so that the check of a whole frame is one look into a set.
What is inside lists, and the ranges of numbers and lengths, is checked by the functions below, where it matters.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from procman.layers.ipc import frames
from procman.layers.ipc.bounds import MAX_NAMES
from procman.layers.limits import Limits

# Names have fewer than 100 characters; keys are the name of an interface and a number, or what a client made up.
MAX_NAME = 255
MAX_PATH = 64 * 1024
_LARGEST = 2**53

_NONE = type(None)
# Lists come over a socket; within one process (``layers.local``) they may be tuples.
_I, _S, _B, _F, _L = (int,), (str,), (bytes,), (bool,), (list, tuple)
_S0, _B0, _L0, _SECONDS = (str, _NONE), (bytes, _NONE), (list, tuple, _NONE), (float, int, _NONE)

_FIELDS: dict[int, tuple[tuple[type, ...], ...]] = {
    frames.HELLO: (_I, _S, _S, _I, _L, _S0, _S0, _S),
    frames.SEND: (_I, _S, _B, _S0),
    frames.SEND_AND_WAIT: (_I, _S, _B, _S),
    frames.SEND_WHEN_ROOM: (_I, _S, _B, _S0),
    frames.RECEIVE: (_I, _L, _F, _SECONDS),
    frames.CANCEL: (_I,),
    frames.GROUP_ADD: (_I, _S, _S),
    frames.GROUP_DISCARD: (_I, _S, _S),
    frames.GROUP_SEND: (_I, _S, _B),
    frames.GROUP_CHANNELS: (_I, _S),
    frames.FLUSH: (_I,),
    frames.STATISTICS: (_I, _S0),
    frames.RETURN: (_S, _B),
    frames.GROUP_COUNT: (_I, _S),
    frames.EXCUSE: (_I,),
    frames.TAKE: (_L0,),
    frames.UNTAKE: (),
    frames.FINISH: (_S, _L, _B0, _F),
    frames.DEFER: (_S, _B),
    frames.RUNNING: (_L,),
    frames.RECALLED: (_I, _I),
    frames.OFFER: (_I, _S, _B, _S, _F, _F, _B0, _F, _F),
    frames.WITHDRAW: (_I,),
    frames.SETTLE: (_I,),
    frames.OPENED: (_S, _S, _I, _B0),
    frames.CLOSED: (_S, _L0),
    frames.MEMBERS: (_S, _L),
    frames.REPORTED: (),
    frames.GROUP_GONE: (_S, _S),
    frames.WRITTEN: (_I, _F),
    frames.GOODBYE: (),
}
SHAPES = {operation: frozenset(itertools.product((int,), *fields)) for operation, fields in _FIELDS.items()}


def check(frame: Any) -> None:
    """Accept *frame*. Raises TypeError, KeyError or IndexError."""
    if type(frame) not in (list, tuple) or tuple(map(type, frame)) not in SHAPES[frame[0]]:
        raise TypeError("its fields are not those of its operation")


class Greeting(NamedTuple):
    """What a client says of itself."""

    role: str
    label: str
    pid: int
    limits: Limits
    served_name: str | None
    last_hub_id: str | None
    process: str


def read_greeting(frame: Any) -> Greeting:
    """The fields of a ``HELLO`` of this version. Raises TypeError, ValueError or ConfigurationError."""
    check(frame)
    _, _, role, label, pid, limits, served_name, last_hub_id, process = frame
    if role not in (frames.CLIENT, frames.WORKER, frames.WATCHER, frames.INTERFACE):
        raise ValueError(f"unknown role {role!r}")
    if role == frames.INTERFACE and (not served_name or "!" in served_name):
        raise ValueError("an interface has a name without a mark")
    check_names(process, served_name or "", last_hub_id or "")
    return Greeting(role, label, pid, Limits.from_wire(limits), served_name, last_hub_id, process)


def check_names(*names: Any) -> None:
    """Accept names of channels and groups, and keys. Raises TypeError or ValueError."""
    for name in names:
        if type(name) is not str:
            raise TypeError("a name is a str")
        if len(name) > MAX_NAME:
            raise ValueError(f"a name of {len(name)} characters")


def check_channels(channels: list[Any]) -> None:
    """Accept what a client receives or takes from. Raises TypeError or ValueError."""
    if not 0 < len(channels) <= MAX_NAMES:
        raise ValueError(f"{len(channels)} channels")
    for name in channels:
        if type(name) is not str or len(name) > MAX_NAME:
            raise TypeError("a channel's name is a short str")


def check_number(number: int) -> None:
    """Accept a number that will be counted on. Raises ValueError."""
    if not 0 <= number < _LARGEST:
        raise ValueError(f"the number {number}")


def check_timeout(timeout: float | None) -> None:
    """Accept a time to wait. Raises ValueError for what is no number; it would stand in the way of all timers."""
    if timeout is not None and not timeout < _LARGEST:
        raise ValueError(f"a timeout of {timeout} seconds")
